"""The engine of live training: exact, stoppable at any moment, and with seconds that add up."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.harness import command, live_content, rows, surroundings, write_spec

from suite import commands as jobs
from suite.bench import CELL, WORKLOADS, Machine, measure, roofline
from suite.data.augment import Augmentation
from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.evaluators.recorded import Recorded
from suite.records.log import Log
from suite.search import Budget
from suite.search import run as search
from suite.spaces import SPACES
from suite.spec.reading import load as load_spec
from suite.spec.run import RunSpec
from suite.statistics.bootstrap import bootstrap
from suite.statistics.measures import kendall_tau
from suite.training.recipe import Recipe
from suite.training.trainer import Trainer
from suite.types import Cost, Evaluation, Proxy, Trial
from suite.workers import processes as engines

SPACE = SPACES["nas_bench_201"]
GOOD, OTHER = (3, 2, 1, 1, 4, 2), (1, 1, 2, 0, 3, 1)
TINY = Proxy(epochs=4, channels=4, resolution=8, samples=0.5, cells=1)
RECIPE = {"batch_size": 64}
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def live(digits):
    return lambda **options: LiveEvaluator(SPACE, digits, **{"recipe": RECIPE, "device": "cpu", **options})


def told(evaluation):
    """What does not depend on the clock."""
    curve = [{name: value for name, value in entry.items() if name != "device_s"} for entry in evaluation.curve]
    return evaluation.trial, dict(evaluation.metrics), evaluation.failure, curve


# Augmentation


@pytest.mark.parametrize(
    ("channels", "side", "padding", "flip", "cutout"),
    [(3, 8, 1, True, 0), (3, 8, 2, True, 5), (1, 8, 0, False, 0), (1, 12, 3, True, 4), (3, 8, 0, True, 0)],
)
def test_the_compiled_augmentation_is_the_other_bit_for_bit(channels, side, padding, flip, cutout):
    rng = torch.Generator().manual_seed(0)
    pool = torch.randint(256, (60, channels, side, side), dtype=torch.uint8, generator=rng)
    mean, std = (0.49, 0.48, 0.45)[:channels], (0.25, 0.24, 0.26)[:channels]
    plain, fast = (Augmentation(mean, std, side, padding=padding, flip=flip, cutout=cutout) for _ in range(2))
    fast.compile()
    order, drawn = torch.randperm(60, generator=rng), plain.draw(60, 0)
    for batch in (slice(0, 25), slice(25, 60)):
        one, other = (made.batch(pool, order[batch], drawn, batch) for made in (plain, fast))
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


# Seconds


def test_the_seconds_of_workers_add_up_to_no_more_than_the_cores_worked(live):
    """Two workers on the machine's cores: what is charged together is core time, whatever runs beside."""
    pool = live(workers=2)
    try:
        pool.evaluate([Trial(GOOD, TINY, seed=9), Trial(OTHER, TINY, seed=9)])  # the processes are there
        began = time.perf_counter()
        answers = pool.evaluate([Trial(arch, TINY, seed=seed) for seed in range(2) for arch in (GOOD, OTHER)])
        wall = time.perf_counter() - began
    finally:
        pool.close()
    charged = sum(answer.cost.device_s for answer in answers)
    assert 0 < charged <= min(2, len(os.sched_getaffinity(0))) * wall
    for answer in answers:
        assert sum(entry["device_s"] for entry in answer.curve) <= answer.cost.device_s


# Failures


def test_a_network_too_large_for_the_memory_is_a_failure_and_the_next_is_trained(live):
    evaluator = live()
    giant, fine = evaluator.evaluate([Trial(GOOD, Proxy(1, 4_000_000, 8, cells=1)), Trial(GOOD, Proxy(1, 4, 8))])
    assert giant.failure.startswith("out of memory on CPU")
    assert math.isinf(giant.metrics["val_error"])
    assert math.isfinite(fine.metrics["val_error"])


def test_a_warning_of_a_worker_is_one_line(live, tmp_path, monkeypatch, capfd):
    spawn = multiprocessing.get_context("spawn")  # so that its error stream is that of this test
    monkeypatch.setattr(engines.multiprocessing, "get_context", lambda _: spawn)
    live(checkpoints=tmp_path).evaluate([Trial(GOOD, TINY, epochs=1)])
    (checkpoint,) = tmp_path.glob("*.pt")
    checkpoint.write_bytes(b"")
    evaluator = live(checkpoints=tmp_path, workers=2)
    evaluator.evaluate([Trial(GOOD, TINY)])
    evaluator.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"kendall: warning: {checkpoint}: damaged checkpoint ignored")


# Stopped by the user


class Stop:
    """Raises `error` instead of epoch `number`, counted from 0 over all calls."""

    def __init__(self, monkeypatch, number, error=KeyboardInterrupt):
        self.left, self.error, self.epoch = number, error, Trainer.epoch
        self.done = 0
        monkeypatch.setattr("suite.training.trainer.NOTE_S", -1.0)  # every epoch is noted
        monkeypatch.setattr(Trainer, "epoch", lambda *arguments: self(*arguments))

    def __call__(self, *arguments):
        if self.left == 0:
            self.left = -1
            raise self.error
        self.left -= 1
        self.epoch(*arguments)
        self.done += 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("last", [3, 4])  # a stage, and the whole run
def test_a_training_that_was_stopped_goes_on_from_its_last_epoch_and_is_charged_once(
    live, tmp_path, monkeypatch, error, last
):
    trial = Trial(GOOD, TINY, epochs=last, seed=2)
    (through,) = live().evaluate([trial])
    stop = Stop(monkeypatch, 2, error)
    with pytest.raises(error):
        live(checkpoints=tmp_path).evaluate([trial])
    (answer,) = live(checkpoints=tmp_path).evaluate([trial])
    assert stop.done == last
    assert told(answer) == told(through)
    assert answer.cost.macs == through.cost.macs
    assert answer.cost.device_s >= sum(entry["device_s"] for entry in answer.curve[:2])


def test_a_stage_that_goes_on_and_is_stopped_pays_for_its_own_epochs_only(live, tmp_path, monkeypatch):
    first, second = Trial(GOOD, TINY, epochs=1, seed=2), Trial(GOOD, TINY, seed=2)
    through = live().evaluate([first, second])
    (early,) = live(checkpoints=tmp_path).evaluate([first])
    Stop(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        live(checkpoints=tmp_path).evaluate([second])
    (late,) = live(checkpoints=tmp_path).evaluate([second])
    assert [told(early), told(late)] == [told(answer) for answer in through]
    assert [early.cost.macs, late.cost.macs] == [answer.cost.macs for answer in through]


def test_stopped_in_its_first_epoch_nothing_is_left(live, tmp_path, monkeypatch):
    Stop(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        live(checkpoints=tmp_path).evaluate([Trial(GOOD, TINY)])
    assert not list(tmp_path.iterdir())


def test_a_worker_told_to_leave_keeps_its_training(live, tmp_path):
    """With the real signal: closing the stream ends a training of many epochs, which leaves a checkpoint."""
    long = Proxy(epochs=2000, channels=4, resolution=8, cells=1)
    pool = live(workers=2, checkpoints=tmp_path)
    try:
        stream = pool.stream([Trial(OTHER, TINY), Trial(GOOD, long)])
        next(stream)
        time.sleep(2.5)
        stream.close()
    finally:
        pool.close()
    kept = pool.trainer.checkpoints.load(pool.trainer.key(Trial(GOOD, long)))
    assert kept is not None
    assert kept["cut"]
    assert 0 < len(kept["curve"]) < 2000
    assert kept["leg"]["device_s"] == pytest.approx(sum(entry["device_s"] for entry in kept["curve"]), rel=0.2)


def halving(folder: Path, processes: int, epochs: int) -> Path:
    content = live_content(
        searchers=[{"name": "successive_halving", "rungs": [1, epochs], "eta": 2}], seeds=1, budget={"evaluations": 3}
    )
    content["evaluator"]["processes"] = processes
    content["full"] = {"epochs": epochs, "channels": 4, "cells": 1, "resolution": 4}
    return write_spec(folder / "spec.toml", content)


def start(spec: Path, out: Path, **options) -> subprocess.Popen[str]:
    words = command("run", spec, "--out", out)
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings(), **options
    )


@pytest.mark.parametrize(
    ("number", "processes"),
    [(signal.SIGINT, 1), (signal.SIGTERM, 2), pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow)],
)
def test_a_signal_ends_a_run_in_one_line_and_the_same_command_goes_on(tmp_path, number, processes):
    spec, out = halving(tmp_path, processes, 2000), tmp_path / "out"
    process = start(spec, out)
    log = out / "trials.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + number, said
    complaints = [line for line in said.splitlines() if line.startswith("kendall: ")]
    assert complaints == [f"kendall: stopped by {number.name}; the same command goes on where its folder's log ends"]
    assert "Traceback" not in said
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line["epochs"] < 2000 for line in lines)


def limited() -> None:
    """No file of this process may grow beyond 40 kB: as on a full disk, checkpoints cannot be written, lines can."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def test_a_full_disk_at_a_checkpoint_ends_a_run_in_one_line_and_the_same_command_goes_on(tmp_path):
    spec, out = halving(tmp_path, 1, 2), tmp_path / "out"
    process = start(spec, out, preexec_fn=limited)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2, said
    (complaint,) = [line for line in said.splitlines() if line.startswith("kendall: ")]
    assert "cannot be written" in complaint
    assert "Traceback" not in said
    jobs.run(load_spec(RunSpec, spec), out, base=tmp_path, command="kendall run spec.toml")
    assert len(rows(out / "leaderboard.csv")) == 1


# Precision


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nas_bench_201", "darts"])
def test_bfloat16_ranks_as_float32_does_to_the_noise_of_the_seed(digits, name):
    """Tau of bfloat16 with float32 under one seed is above the lower bound of tau between two seeds of float32."""
    space = SPACES[name]
    proxy = Proxy(4, 8, 8, cells=1) if name == "nas_bench_201" else Proxy(2, 4, 8, samples=0.5, cells=3)
    archs = [space.sample(np.random.default_rng(seed)) for seed in range(24 if name == "nas_bench_201" else 12)]

    def errors(precision, seed):
        live = LiveEvaluator(space, digits, recipe={"batch_size": 64, "precision": precision}, device="cpu")
        answers = live.evaluate([Trial(arch, proxy, seed=seed) for arch in archs])
        return [answer.metrics["val_error"] for answer in answers]

    first, second, half = errors("float32", 0), errors("float32", 1), errors("bfloat16", 0)
    ceiling = bootstrap(first, second, draws=1000, rng=np.random.default_rng(0))["tau"]
    print(f"{name}: tau bfloat16 with float32 {kendall_tau(half, first):.3f}, between seeds {ceiling.value:.3f}")
    assert kendall_tau(half, first) > ceiling.low


# Long logs


class Instant:
    """Answers at once, like a table."""

    name = "instant"

    def evaluate(self, trials):
        cost = Cost(1.0, "table:none", None, 1.0)
        return [Evaluation(trial, {"val_error": 100 - sum(trial.arch) % 7}, cost) for trial in trials]


class Questions:
    """Random trials without end."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def ask(self):
        return [Trial(SPACE.sample(self.rng), TINY)]

    def tell(self, evaluations):
        pass


def test_a_long_log_costs_no_more_per_trial_and_no_memory(tmp_path):
    """Counted, not timed: the lines that are written and the bytes that stay, per trial, of 300 trials and of 3,000."""
    import tracemalloc

    grown, sizes = [], []
    for number in (300, 3000):
        path = tmp_path / f"{number}.jsonl"
        with Log(path, SPACE) as log:
            evaluator = Recorded(Instant(), log, dataset="none", run="run", phase="proxy")
            tracemalloc.start()
            for step in search(Questions(), evaluator, budget=Budget(evaluations=number)):
                if step.evaluations == 100:
                    before = tracemalloc.get_traced_memory()[0]
            grown.append((tracemalloc.get_traced_memory()[0] - before) / number)
            tracemalloc.stop()
        sizes.append(path.stat().st_size / number)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
    assert grown[1] < 300  # bytes a trial: texts of architectures that were met


# Options


def test_deterministic_is_part_of_what_a_run_depends_on_and_changes_nothing_on_a_cpu(live):
    trial = Trial(GOOD, TINY, epochs=1)
    plain, exact = live(), live(deterministic=True)
    assert plain.trainer.key(trial) != exact.trainer.key(trial)
    assert told(plain.evaluate([trial])[0]) == told(exact.evaluate([trial])[0])
    assert not torch.are_deterministic_algorithms_enabled()


def test_long_runs_compile_their_augmentation_and_find_the_same(digits, tmp_path, monkeypatch):
    def answer(folder):
        trainer = Trainer(
            SPACE, digits, Recipe(batch_size=64, cutout=0.5), device="cpu", threads=1, judge=False, checkpoints=folder
        )
        found = trainer.answer(Trial(GOOD, TINY, epochs=2))
        return trainer.own.compiles, told(found)

    plain = answer(tmp_path / "one")
    monkeypatch.setattr("suite.tasks.images.COMPILING_PAYS", 0)
    compiled = answer(tmp_path / "other")
    assert (plain[0], compiled[0]) == (False, True)
    assert plain[1] == compiled[1]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_benchmark_of_this_machine_prints_rates_that_belong_together(name):
    workload = WORKLOADS[name]
    machine = Machine("CPU", "float32", 1e12, 1e12, 1e12)
    reached = measure(replace(workload, images=workload.batch), device="cpu", precision="float32", machine=machine)
    assert reached.setting == "1 worker, float32"
    assert reached.candidates_h == pytest.approx(3600 * reached.images_s / (12 * 25_000))
    assert reached.candidate_s > 3600 / reached.candidates_h / 10  # it was trained, not remembered
    assert reached.share == pytest.approx(3 * SPACE.macs(CELL, workload.proxy) * reached.images_s / 1e12)


def test_the_roofline_is_measured_in_every_part():
    machine = roofline(torch.device("cpu"), torch.float32, seconds=0.05)
    assert machine.precision == "float32"
    assert 1e8 < machine.convolution_macs_s < 1e12
    assert 1e8 < machine.matmul_macs_s < 1e12
    assert 1e8 < machine.copy_bytes_s < 1e12
