"""Several candidates on several devices: CPU workers stand in for GPUs, whose time and memory they share."""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.harness import live_content, rows, write_spec
from helpers.standins import Crowded, Vanishing

from suite import cli
from suite import commands as jobs
from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.spec.reading import load as load_spec
from suite.spec.run import RunSpec
from suite.training.device import DeviceLost
from suite.training.trainer import Trainer
from suite.types import BadInput, Proxy, Trial, Unsupported
from suite.workers import processes as engines
from suite.workers.processes import Place, Processes, pick_places

SPACE = SPACES["nas_bench_201"]
GOOD, OTHER, THIRD = (3, 2, 1, 1, 4, 2), (1, 1, 2, 0, 3, 1), (2, 2, 2, 2, 2, 2)
TINY = Proxy(epochs=2, channels=4, resolution=4, samples=0.5, cells=1)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def standing(digits):
    """An evaluator whose engine trains at the given places."""
    made = []

    def evaluator(*places: Place, space=SPACE, free_memory=None, **options):
        live = LiveEvaluator(
            space, digits, recipe={"batch_size": 64}, device="cpu",
            kind=lambda trainer, _: Processes(trainer, places, free_memory=free_memory), **options,
        )  # fmt: skip
        made.append(live)
        return live

    yield evaluator
    for live in made:
        live.close()


def gpu(number: int, slots: int | None = 2) -> Place:
    """A CPU that stands in for a GPU."""
    return Place("cpu", slots, shared=True, name=f"gpu {number}")


def told(evaluation):
    """What does not depend on the clock."""
    curve = [{name: value for name, value in entry.items() if name != "device_s"} for entry in evaluation.curve]
    return evaluation.trial, dict(evaluation.metrics), evaluation.failure, curve, evaluation.cost.macs


def serial(digits, trials):
    return LiveEvaluator(SPACE, digits, recipe={"batch_size": 64}, device="cpu").evaluate(trials)


# Answers and seconds


def test_two_devices_with_two_candidates_each_answer_bit_for_bit_like_one_alone(standing, digits):
    trials = [Trial(arch, TINY, epochs, seed) for arch in (GOOD, OTHER) for seed in (0, 1) for epochs in (1, 2)]
    live = standing(gpu(0), gpu(1))
    assert [told(answer) for answer in live.evaluate(trials)] == [told(answer) for answer in serial(digits, trials)]
    assert sorted(worker.process.name for worker in live.trains.crew.workers) == ["gpu 0", "gpu 0", "gpu 1", "gpu 1"]


def test_the_seconds_of_candidates_on_one_device_add_up_to_no_more_than_its_wall_time(standing):
    """Three in flight: each is charged its share; by wall seconds they would be charged three times."""
    live = standing(gpu(0, 3))
    live.evaluate([Trial(GOOD, TINY, seed=seed) for seed in (7, 8, 9)])  # the processes are there
    began = time.monotonic()
    answers = live.evaluate([Trial(GOOD, replace(TINY, samples=1.0), seed=seed) for seed in range(3)])
    wall = time.monotonic() - began
    charged = sum(answer.cost.device_s for answer in answers)
    assert 0.3 * wall < charged <= wall
    for answer in answers:
        assert sum(entry["device_s"] for entry in answer.curve) <= answer.cost.device_s


# How many are in flight


def test_memory_free_after_the_first_candidate_says_how_many_are_in_flight(standing, monkeypatch):
    monkeypatch.setattr(engines.os, "sched_getaffinity", lambda _: set(range(6)))
    asked = []

    def free_memory(device):
        asked.append(device)
        return 3 * engines.memory_taken(torch.device("cpu"))

    live = standing(gpu(0, None), gpu(1, None), free_memory=free_memory)
    answers = live.evaluate([Trial(GOOD, TINY, seed=seed) for seed in range(5)])
    assert all(not answer.failure for answer in answers)
    assert asked == ["cpu", "cpu"]  # once a device
    assert all(1 < site.limit <= 3 for site in live.trains.crew.sites)
    assert engines.memory_left("cpu") > 2**20


def test_a_core_a_candidate_is_the_most(standing, monkeypatch):
    monkeypatch.setattr(engines.os, "sched_getaffinity", lambda _: {0, 1})
    live = standing(gpu(0, None), free_memory=lambda _: 2**50)
    live.evaluate([Trial(GOOD, TINY, seed=seed) for seed in range(3)])
    assert [site.limit for site in live.trains.crew.sites] == [2]


# Memory


def test_out_of_memory_beside_others_is_asked_again_alone_and_fewer_are_in_flight(standing, tmp_path, digits):
    live = standing(gpu(0, 3), space=Crowded(tmp_path, {OTHER: 0.8}))
    trials = [Trial(OTHER, TINY), *(Trial(GOOD, TINY, seed=seed) for seed in range(5))]
    with pytest.warns(UserWarning, match=r"gpu 0: out of memory with 3 processes on it; .* alone, and 2 in flight"):
        answers = live.evaluate(trials)
    first, again = map(int, (tmp_path / f"attempts {OTHER}").read_text().split())
    assert (first > 0, again) == (True, 0)
    assert [told(answer)[:4] for answer in answers] == [told(answer)[:4] for answer in serial(digits, trials)]
    assert [site.limit for site in live.trains.crew.sites] == [2]
    (alone,) = serial(digits, trials[:1])
    assert answers[0].cost.macs == 2 * alone.cost.macs  # it was trained twice, and both are charged


def test_alone_and_out_of_memory_is_the_networks_failure(standing, tmp_path):
    live = standing(gpu(0), space=Crowded(tmp_path, {OTHER: 2.0}))
    with pytest.warns(UserWarning, match="out of memory"):
        giant, *others = live.evaluate([Trial(OTHER, TINY), *(Trial(GOOD, TINY, seed=seed) for seed in range(3))])
    assert giant.failure.startswith("out of memory on CPU")
    assert len((tmp_path / f"attempts {OTHER}").read_text().split()) == 2
    assert not any(answer.failure for answer in others)
    assert live.trains.crew.sites[0].room  # others may come again


def test_one_that_is_alone_anyway_is_believed_at_once(standing, tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.standins.WAIT_S", 0.0)
    (tmp_path / f"attempts {OTHER}").touch()
    live = standing(gpu(0, 2), space=Crowded(tmp_path, {OTHER: 2.0}))
    (giant,) = live.evaluate([Trial(OTHER, TINY)])
    assert giant.failure.startswith("out of memory on CPU")
    assert len((tmp_path / f"attempts {OTHER}").read_text().split()) == 1


# Devices that are lost


def test_the_trials_of_a_device_that_disappears_go_to_the_others(standing, tmp_path, digits):
    trials = [Trial(GOOD, TINY, seed=seed) for seed in range(4)]
    trials.insert(1, Trial(OTHER, TINY))
    live = standing(gpu(0), gpu(1), space=Vanishing(tmp_path, (OTHER,)))
    with pytest.warns(UserWarning, match=r"gpu \d: no process starts on it \(exit code 1\); going on with gpu \d"):
        answers = live.evaluate(trials)
    assert [told(answer)[:4] for answer in answers] == [told(answer)[:4] for answer in serial(digits, trials)]
    assert len(live.trains.crew.sites) == 1


def test_the_last_device_gone_ends_a_run_in_one_line_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    content = live_content(searchers=["random_search"], seeds=1, workers=4, budget={"evaluations": 8})
    spec, out, devices = write_spec(tmp_path / "spec.toml", content), tmp_path / "out", tmp_path / "devices"
    devices.mkdir()
    reference = jobs.run(load_spec(RunSpec, spec), tmp_path / "reference", base=tmp_path, command="")
    monkeypatch.setattr("suite.evaluators.live.pick_places", lambda *_: [gpu(0), gpu(1)])
    monkeypatch.setitem(SPACES, "nas_bench_201", Vanishing(devices, ()))
    log = out / "trials.jsonl"

    def pull() -> None:
        while not (log.exists() and log.read_text().count("\n") >= 3):
            time.sleep(0.01)
        for number in range(2):
            (devices / f"gpu {number}.gone").touch()

    thread = threading.Thread(target=pull)
    thread.start()
    monkeypatch.setattr(sys, "argv", ["kendall", "run", str(spec), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    thread.join()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kendall: ")]
    assert end.value.code == 2
    assert all(line.startswith("kendall: warning: gpu ") for line in said[:-1])
    assert len([line for line in said if "going on with gpu " in line]) == 1
    assert said[-1].endswith("and no other device is left; the same command goes on once there is one")
    for path in devices.glob("*.gone"):
        path.unlink()
    jobs.run(load_spec(RunSpec, spec), out, base=tmp_path, command="")
    there, wanted = (rows(folder / "winners.csv") for folder in (out, reference))
    assert [(row["architecture"], row["judge_error"]) for row in there] == [
        (row["architecture"], row["judge_error"]) for row in wanted
    ]
    assert log.read_text().count("\n") == (reference / "trials.jsonl").read_text().count("\n")


def test_a_device_that_does_not_answer_after_a_failure_is_lost_in_one_line(digits, monkeypatch, tmp_path):
    def lost(device):
        raise RuntimeError("CUDA error: unspecified launch failure\nand more")

    def failing(*arguments):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("suite.training.trainer.free", lost)
    monkeypatch.setattr(Trainer, "epoch", failing)
    with pytest.raises(DeviceLost, match=r"does not answer any more .*; the same command goes on once it does") as end:
        serial(digits, [Trial(GOOD, TINY)])
    assert "\n" not in str(end.value)


# Processes that die


def test_workers_killed_again_and_again_lose_nothing_and_count_nothing_twice(tmp_path):
    """kill -9 of one worker after another, while a run trains on two stand-ins: the run ends as if undisturbed."""
    chance = random.SystemRandom()
    content = live_content(searchers=["random_search"], seeds=1, workers=4, budget={"evaluations": 12})
    spec = write_spec(tmp_path / "spec.toml", content)
    reference = jobs.run(load_spec(RunSpec, spec), tmp_path / "reference", base=tmp_path, command="")
    ask, asked, struck = engines.Crew.ask, [], set()

    def killing(crew: engines.Crew, worker: engines.Worker) -> None:
        ask(crew, worker)
        asked.append(worker.job.trial)
        if len(asked) % 3 == 2 and asked[-1] not in struck:  # none twice: it would be believed to be at fault
            struck.add(asked[-1])
            threading.Timer(chance.uniform(0, 0.2), worker.process.kill).start()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("suite.evaluators.live.pick_places", lambda *_: [gpu(0), gpu(1)])
        patch.setattr(engines.Crew, "ask", killing)
        out = jobs.run(load_spec(RunSpec, spec), tmp_path / "out", base=tmp_path, command="")
    assert len(struck) >= 2
    assert_counted_once(out, reference)


def assert_counted_once(out, reference) -> None:
    """The same trainings with the same outcome, each once, and the ledger's sums those of the log."""
    lines, wanted = (
        [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()] for folder in (out, reference)
    )
    clock = {"cost", "curve"}

    def plain(entries):
        return sorted(json.dumps({k: v for k, v in entry.items() if k not in clock}) for entry in entries)

    assert plain(lines) == plain(wanted)
    assert len(set(plain(lines))) == len(lines)
    ledger = sum(float(row["device_s"]) for row in rows(out / "ledger.csv"))
    assert ledger == pytest.approx(math.fsum(line["cost"]["device_s"] for line in lines))


def test_what_a_dead_process_left_in_a_checkpoint_is_charged_once(standing, tmp_path, monkeypatch):
    """It dies once its stage is saved and before it is told: what was saved is charged when it is found."""
    live = standing(gpu(0, 1), checkpoints=tmp_path)
    trial = Trial(GOOD, TINY, epochs=1)
    ask = engines.Crew.ask

    def later(crew, worker):
        ask(crew, worker)
        monkeypatch.setattr(engines.Crew, "ask", ask)
        end = time.monotonic() + 60
        while not list(tmp_path.glob("*.pt")):
            assert time.monotonic() < end
            time.sleep(0.001)
        worker.process.kill()
        worker.process.join()
        while worker.pipe.poll():  # its answer, if it was told after all, is lost on its way
            try:
                worker.pipe.recv()
            except (EOFError, ConnectionError):
                break

    monkeypatch.setattr(engines.Crew, "ask", later)
    (answer,) = live.evaluate([trial])
    kept = live.trainer.checkpoints.load(live.trainer.key(trial))
    assert answer.cost.device_s == pytest.approx(kept["leg"]["device_s"], abs=0.02)
    assert not answer.failure


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_no_room_for_the_data_of_processes_is_one_error(digits):
    with pytest.raises(BadInput, match=r"/dev/full: the data cannot be written.*TMPDIR"):
        engines.pack(digits, Path("/dev/full"), test=True)


# Names of devices


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch say that there are GPUs of these models."""

    def there(*models: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(models))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(models))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: models[torch.device(device).index or 0])

    return there


def test_auto_and_cuda_are_all_gpus_of_the_first_ones_model(gpus):
    gpus("H200", "A100", "H200")
    for name in ("auto", "cuda"):
        assert [place.device for place in pick_places(name, 3)] == ["cuda:0", "cuda:2"]
    assert pick_places("cuda:1", None) == [Place("cuda:1", None)]
    assert [place.slots for place in pick_places(["cuda:2", "cuda:0"], 3)] == [3, 3]


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        (["cuda:0", "cuda:1"], Unsupported, "H200 and A100 are different devices"),
        (["cuda:0", "cpu"], Unsupported, "different devices"),
        (["cuda:0", "cuda:0"], BadInput, "each once"),
        ([], BadInput, "name at least one"),
        (["cuda:7"], Unsupported, "no 'cuda:7' here"),
        (None, Unsupported, "no None here"),
        (3, Unsupported, "no 3 here"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(gpus, device, error, message):
    gpus("H200", "A100")
    with pytest.raises(error, match=message):
        pick_places(device, None)


def test_on_a_cpu_there_is_one_candidate_a_core(gpus, monkeypatch):
    gpus()
    monkeypatch.setattr(engines.os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert pick_places("auto", None) == pick_places(["cpu"], None) == [Place("cpu", 3, shared=False)]
    assert pick_places("cpu", 2) == [Place("cpu", 2, shared=False)]
    with pytest.raises(BadInput, match="from 1 to 64"):
        pick_places("cpu", 65)
