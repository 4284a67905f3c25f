"""A process that is killed at any moment loses at most the training in flight, and the same command ends the same."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.harness import (
    SHARED,
    command,
    live_content,
    live_study_content,
    needs_shared,
    rows,
    run_content,
    study_content,
    surroundings,
    toy_table,
    write_spec,
)  # fmt: skip

from suite import commands as jobs
from suite.records.log import Log
from suite.spaces import SPACES
from suite.spec.reading import load
from suite.spec.run import RunSpec
from suite.spec.study import StudySpec
from suite.tasks.images import ImageSession
from suite.training.trainer import Trainer

TIMEOUT_S = 300
NAS_BENCH_201 = SPACES["nas_bench_201"]


def start(spec: Path, kind: str, out: Path) -> subprocess.Popen[str]:
    words = command(kind, spec, "--out", out)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings())


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> bool:
    """kill -9 as soon as `ready`; whether it was still at work."""
    end = time.monotonic() + TIMEOUT_S
    while process.poll() is None and not ready():
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def finish(spec: Path, kind: str, out: Path) -> None:
    process = start(spec, kind, out)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said


def whole(spec: Path, kind: str, out: Path) -> Path:
    """The same without a kill, in this process."""
    job, form = {"run": (jobs.run, RunSpec), "study": (jobs.conduct, StudySpec)}[kind]
    return job(load(form, spec), out, base=spec.parent, command=f"kendall {kind} {spec}")  # type: ignore[operator]


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def complete_lines(path: Path) -> list[str]:
    """The lines of a log that a kill left, but for a torn one."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def assert_same(out: Path, reference: Path) -> None:
    """Byte for byte, the log included."""
    names = {path.name for path in reference.iterdir() if path.suffix in (".csv", ".jsonl")}
    assert names == {path.name for path in out.iterdir() if path.suffix in (".csv", ".jsonl")}
    assert {"leaderboard.csv", "consistency.csv"} & names
    for name in sorted(names):
        assert (out / name).read_bytes() == (reference / name).read_bytes(), name


def measured(out: Path) -> list[list[tuple[str, str]]]:
    """What trainings found, without what the clock measured."""
    clock = {"device_s", "search_device_s", "gpu_days", "full_device_s", "speedup_device", "command"}
    tables = [out / name for name in ("winners.csv", "leaderboard.csv", "scores.csv", "consistency.csv")]
    there = [row for table in tables if table.exists() for row in rows(table)]
    return [[(name, value) for name, value in row.items() if name not in clock] for row in there]


def trainings(out: Path) -> Counter[tuple[Any, ...]]:
    """How often each training stands in the log."""
    lines = map(json.loads, complete_lines(out / "trials.jsonl"))
    return Counter((r["run"], r["phase"], r["arch"], str(r["proxy"]), r["epochs"], r["seed"]) for r in lines)


def table_spec(folder: Path, kind: str, *, large: bool = False) -> Path:
    """A job on the toy table that writes its log for a while."""
    if kind == "run":
        evolution = {"name": "regularized_evolution", "population_size": 10, "sample_size": 3}
        searchers = ["random_search", evolution, "successive_halving"]
        content = run_content(toy_table(), searchers=searchers, seeds=20 if large else 4, workers=3)
    else:
        count = {"count": 2000 if large else 300}
        content = study_content(toy_table(), architectures=count, proxies=[{"epochs": 10}, {"epochs": 50}], draws=100)
    return write_spec(folder / "spec.toml", content)


@pytest.mark.parametrize("kind", ["run", "study"])
def test_killed_twice_on_a_table_the_end_is_the_same_byte_for_byte(tmp_path, kind):
    spec = table_spec(tmp_path, kind)
    reference = whole(spec, kind, tmp_path / "reference")
    total, log = size(reference / "trials.jsonl"), tmp_path / "out" / "trials.jsonl"
    assert total > 0 or kind == "study"  # which keeps no log of a table: it is killed as soon as its folder is there
    draws = random.Random(kind)
    for share in sorted(draws.random() for _ in range(2)):
        before = complete_lines(log)

        def ready(share: float = share) -> bool:
            return size(log) > share * total if total else log.parent.exists()

        assert kill_when(start(spec, kind, tmp_path / "out"), ready)
        assert complete_lines(log)[: len(before)] == before
        assert complete_lines(reference / "trials.jsonl")[: len(complete_lines(log))] == complete_lines(log)
    finish(spec, kind, tmp_path / "out")
    assert_same(tmp_path / "out", reference)


def test_a_killed_live_study_trains_the_rest_and_finds_the_same(tmp_path):
    spec = write_spec(tmp_path / "spec.toml", live_study_content(architectures={"count": 3}))
    reference = whole(spec, "study", tmp_path / "reference")
    out, log = tmp_path / "out", tmp_path / "out" / "trials.jsonl"
    assert kill_when(start(spec, "study", out), lambda: len(complete_lines(log)) >= 4)
    kept = complete_lines(log)
    finish(spec, "study", out)
    assert complete_lines(log)[: len(kept)] == kept  # with their seconds: what was done is not done again
    assert trainings(out) == trainings(reference)
    assert set(trainings(out).values()) == {1}
    assert measured(out) == measured(reference)


@pytest.mark.parametrize("kind", ["run", "study"])
def test_a_finished_job_run_again_trains_and_records_nothing(tmp_path, monkeypatch, kind):
    searchers = ["random_search", "gdas"]
    content = live_content(searchers=searchers, seeds=1, budget={"evaluations": 2})
    spec = write_spec(tmp_path / "spec.toml", content if kind == "run" else live_study_content())
    out = whole(spec, kind, tmp_path / "out")
    found, recorded = measured(out), complete_lines(out / "trials.jsonl")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(Trainer, "epoch", refuse)
    monkeypatch.setattr("suite.tasks.images.ImageSession.score", refuse)
    monkeypatch.setattr("suite.training.gradient_loop.GradientRun.epoch", refuse)
    monkeypatch.setattr(Log, "append", refuse)
    assert measured(whole(spec, kind, out)) == found
    assert complete_lines(out / "trials.jsonl") == recorded


# The worst moment: a stage is trained and its checkpoint written, but its line is not in the log


class Killed(BaseException):
    """Like kill -9: nothing catches it."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> tuple[Path, Path, int]:
    """A live search with stages, its uninterrupted end, and the epochs that it trained."""
    folder = tmp_path_factory.mktemp("stages")
    halving = {"name": "successive_halving", "rungs": [1, 2, 3], "eta": 2}
    spec = write_spec(
        folder / "spec.toml",
        live_content(searchers=[halving], seeds=1, budget={"evaluations": 7})
        | {"full": {"epochs": 3, "channels": 4, "cells": 1, "resolution": 4}},
    )
    with counted() as epochs:
        reference = whole(spec, "run", folder / "reference")
    return spec, reference, len(epochs)


@contextmanager
def counted() -> Iterator[list[object]]:
    """The trials of the epochs that are trained inside."""
    epochs: list[object] = []
    epoch = Trainer.epoch

    def noting(trainer: Trainer, *arguments: Any) -> None:
        epoch(trainer, *arguments)
        epochs.append(arguments[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "epoch", noting)
        yield epochs


@pytest.mark.parametrize("line", [2, 5, 7, 8])  # of rungs of 4, 2, 1 networks, and the judge
def test_a_kill_between_checkpoint_and_log_counts_every_epoch_once(tmp_path, monkeypatch, stages, line):
    spec, reference, epochs_needed = stages
    lost = []
    append = Log.append

    def dying(log: Log, dataset: str, run: str, phase: str, evaluation: Any) -> None:
        if len(trainings(tmp_path / "out")) == line - 1:
            lost.append(evaluation)
            raise Killed
        append(log, dataset, run, phase, evaluation)

    with counted() as epochs:
        monkeypatch.setattr(Log, "append", dying)
        with pytest.raises(Killed):
            whole(spec, "run", tmp_path / "out")
        monkeypatch.setattr(Log, "append", append)
        whole(spec, "run", tmp_path / "out")

    (answer,) = lost
    stage = answer.trial.epochs < answer.trial.proxy.epochs
    at_once = [json.loads(text) for text in complete_lines(tmp_path / "out" / "trials.jsonl")][line - 1]
    assert (at_once["arch"], at_once["epochs"]) == (NAS_BENCH_201.text(answer.trial.arch), answer.trial.epochs)
    assert at_once["cost"]["macs"] == answer.cost.macs
    if stage:  # it was trained before the kill: its price is charged, and nothing is trained for it again
        assert at_once["cost"]["device_s"] == answer.cost.device_s
        assert len(epochs) == epochs_needed
    else:  # the training in flight is lost, from its last stage on
        assert epochs_needed < len(epochs) <= epochs_needed + answer.trial.epochs
    assert trainings(tmp_path / "out") == trainings(reference)
    assert measured(tmp_path / "out") == measured(reference)
    macs = [[row["macs"] for row in rows(out / "ledger.csv")] for out in (tmp_path / "out", reference)]
    assert macs[0] == macs[1]
    assert not (tmp_path / "out" / "checkpoints").exists()


# Stopped by the user, or by a full disk


def test_a_stopped_training_of_the_judge_goes_on_from_its_last_epoch(tmp_path, monkeypatch):
    """Stopped twice in one training: every epoch is trained once, and nothing stays behind."""
    content = live_content(searchers=["random_search"], seeds=1, budget={"evaluations": 1})
    content |= {"proxy": {**content["full"], "epochs": 1}, "full": {**content["full"], "epochs": 6}}
    spec = write_spec(tmp_path / "spec.toml", content)
    with counted() as epochs:
        reference = whole(spec, "run", tmp_path / "reference")
    needed, epoch = len(epochs), Trainer.epoch
    assert needed == 7
    monkeypatch.setattr("suite.training.trainer.NOTE_S", -1.0)  # every epoch is noted
    out, done = tmp_path / "out", 0
    for share in (3, 2):
        left = share

        def stopping(trainer: Trainer, *arguments: Any) -> None:
            nonlocal left, done
            if trainer.judge and not left:
                raise KeyboardInterrupt
            left -= trainer.judge
            done += 1
            epoch(trainer, *arguments)

        monkeypatch.setattr(Trainer, "epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            whole(spec, "run", out)
        assert list((out / "checkpoints").rglob("*.pt"))
        monkeypatch.setattr(Trainer, "epoch", epoch)
    with counted() as epochs:
        whole(spec, "run", out)
    assert done + len(epochs) == needed
    assert trainings(out) == trainings(reference)
    assert measured(out) == measured(reference)
    assert [row["macs"] for row in rows(out / "ledger.csv")] == [row["macs"] for row in rows(reference / "ledger.csv")]
    assert not (out / "checkpoints").exists()


def test_a_judge_stopped_in_its_test_keeps_the_training(tmp_path, monkeypatch):
    content = live_content(searchers=["random_search"], seeds=1, budget={"evaluations": 1})
    spec, evaluate = write_spec(tmp_path / "spec.toml", content), ImageSession.score

    def stopping(session: ImageSession, part: Any) -> dict[str, float]:
        if part == "test":
            raise KeyboardInterrupt
        return evaluate(session, part)

    monkeypatch.setattr(ImageSession, "score", stopping)
    with pytest.raises(KeyboardInterrupt):
        whole(spec, "run", tmp_path / "out")
    monkeypatch.setattr(ImageSession, "score", evaluate)
    with counted() as epochs:
        whole(spec, "run", tmp_path / "out")
    assert not epochs


def concurrent(folder: Path, *, networks: int, epochs: int = 1) -> Path:
    """A study that trains in two processes, under its proxy for so many epochs."""
    small = {"channels": 4, "cells": 1, "resolution": 4}
    content = live_study_content(architectures={"count": networks}, proxies=[{**small, "epochs": epochs}])
    content["full"] = {**small, "epochs": epochs + 2}
    content["evaluator"]["processes"] = 2
    return write_spec(folder / "spec.toml", content)


def test_interrupted_twice_while_two_train_the_end_is_that_of_an_undisturbed_run(tmp_path):
    spec, out = concurrent(tmp_path, networks=3), tmp_path / "out"
    reference, log = whole(spec, "study", tmp_path / "reference"), out / "trials.jsonl"
    for number, lines in ((signal.SIGINT, 2), (signal.SIGTERM, 5)):
        process, end = start(spec, "study", out), time.monotonic() + TIMEOUT_S
        while process.poll() is None and len(complete_lines(log)) < lines:
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 128 + number, said
        assert "Traceback" not in said
    finish(spec, "study", out)
    assert trainings(out) == trainings(reference)
    assert set(trainings(out).values()) == {1}
    assert measured(out) == measured(reference)


def short_of_room() -> None:
    """No file of this process may grow beyond 4 kB: as on a full disk, the log's later lines cannot be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_full_disk_at_the_log_ends_a_run_in_one_line_and_the_same_command_ends_the_same(tmp_path):
    spec = write_spec(tmp_path / "spec.toml", live_study_content(architectures={"count": 3}))
    out, reference = tmp_path / "out", whole(spec, "study", tmp_path / "reference")
    words = command("study", spec, "--out", out)
    ended = subprocess.run(
        words, capture_output=True, text=True, env=surroundings(), preexec_fn=short_of_room, check=False
    )
    assert ended.returncode == 2, ended.stderr
    (complaint,) = [line for line in ended.stderr.splitlines() if line.startswith("kendall: ")]
    assert "trials.jsonl: File too large; make room and run the same command again" in complaint
    assert "Traceback" not in ended.stderr
    kept = complete_lines(out / "trials.jsonl")
    assert kept
    whole(spec, "study", out)
    assert complete_lines(out / "trials.jsonl")[: len(kept)] == kept
    assert trainings(out) == trainings(reference)
    assert measured(out) == measured(reference)


# Ten times each, at random moments


def killed_ten_times(spec: Path, kind: str, folder: Path) -> Iterator[Path]:
    """Ten folders: each begun, killed at a random moment, and finished by the same command; beside one undisturbed."""
    began, chance, hit = time.monotonic(), random.SystemRandom(), 0
    finish(spec, kind, folder / "reference")
    seconds, total = time.monotonic() - began, size(folder / "reference" / "trials.jsonl")
    for number in range(10):
        out = folder / f"out{number}"
        log, share = out / "trials.jsonl", chance.uniform(-0.3, 1)
        moment = time.monotonic() + chance.uniform(0, 2 if total else 0.7 * seconds)

        def ready(log: Path = log, share: float = share, moment: float = moment) -> bool:
            by_time = share < 0 or not total  # while it loads, and where there is no log; else at some point of it
            return time.monotonic() > moment if by_time else size(log) > share * total

        hit += kill_when(start(spec, kind, out), ready)
        kept = complete_lines(log)
        finish(spec, kind, out)
        assert complete_lines(log)[: len(kept)] == kept
        yield out
    assert hit >= 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "study"])
def test_ten_kills_on_a_table(tmp_path, kind):
    spec = table_spec(tmp_path, kind, large=True)
    for out in killed_ten_times(spec, kind, tmp_path):
        assert_same(out, tmp_path / "reference")


@pytest.mark.slow
@needs_shared
def test_ten_kills_of_nas_bench_201s_own_protocol(tmp_path):
    source = Path(__file__).resolve().parents[2] / "results" / "nb201_protocol" / "spec.toml"
    text = source.read_text().replace("../../../shared/data/nb201.parquet", str(SHARED / "data" / "nb201.parquet"))
    spec = tmp_path / "spec.toml"
    spec.write_text(text.replace("seeds = 500", "seeds = 60"))
    for out in killed_ten_times(spec, "run", tmp_path):
        assert_same(out, tmp_path / "reference")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "study"])
def test_ten_kills_of_live_training_in_two_processes(tmp_path, kind):
    parts = {"recipe": {"batch_size": 128}, "kind": "live", "device": "cpu", "processes": 2}
    if kind == "run":
        halving = {"name": "successive_halving", "rungs": [1, 3]}
        content = live_content(searchers=[halving], seeds=2, workers=2, budget={"evaluations": 12})
    else:
        content = live_study_content(architectures={"count": 6})
    content["full"] = {"epochs": 3, "channels": 4, "cells": 1, "resolution": 4}
    spec = write_spec(tmp_path / "spec.toml", {**content, "evaluator": parts})
    for out in killed_ten_times(spec, kind, tmp_path):
        assert trainings(out) == trainings(tmp_path / "reference")
        assert measured(out) == measured(tmp_path / "reference")
        assert not (out / "checkpoints").exists()


def workers_of(mark: str, command_: int) -> list[int]:
    """The processes that train for a command: those of its mark that fork no others."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != command_ and mark in environment_of(pid):
            with contextlib.suppress(OSError):
                words = Path("/proc", pid, "cmdline").read_text()
                parent = int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
                if "forkserver" in words and parent != command_:
                    found.append(int(pid))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_processes_that_train_killed_at_random_moments_of_one_run_lose_and_double_nothing(tmp_path, monkeypatch):
    """kill -9 of a process that trains, at least three times in one run, never the same training twice."""
    mark = f"kendall-test-{os.getpid()}-{time.monotonic_ns()}"
    spec, out, chance = concurrent(tmp_path, networks=40, epochs=5), tmp_path / "out", random.SystemRandom()
    reference, log = whole(spec, "study", tmp_path / "reference"), out / "trials.jsonl"
    monkeypatch.setenv("KENDALL_TEST_MARK", mark)  # not before: the reference has processes of its own
    process, killed, lines = start(spec, "study", out), 0, math.inf
    while process.poll() is None:
        there, done = workers_of(mark, process.pid), len(complete_lines(log))
        complete = len(there) in (2, 4)  # of the search; and of the judge, begun later
        if complete and lines == math.inf:
            lines = done  # from here on: what was being trained at the last kill is asked again first
        elif killed < 4 and complete and done >= lines + 4:
            time.sleep(chance.uniform(0, 0.3))
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(sorted(there)[-2:]), signal.SIGKILL)
                killed, lines = killed + 1, math.inf
            time.sleep(0.2)
        time.sleep(0.01)
    assert process.returncode == 0, process.communicate()[1]
    assert killed >= 3
    assert trainings(out) == trainings(reference)
    assert set(trainings(out).values()) == {1}
    assert measured(out) == measured(reference)
    read = [json.loads(line)["cost"]["device_s"] for line in complete_lines(log)]
    assert all(seconds > 0 for seconds in read)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_processes_that_train_end_with_the_one_that_was_killed(tmp_path, monkeypatch):
    mark = f"kendall-test-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("KENDALL_TEST_MARK", mark)
    content = live_study_content(architectures={"count": 20})
    content["evaluator"]["processes"] = 2
    spec = write_spec(tmp_path / "spec.toml", content)
    log = tmp_path / "out" / "trials.jsonl"
    assert kill_when(start(spec, "study", tmp_path / "out"), lambda: len(complete_lines(log)) >= 3)
    end = time.monotonic() + 30
    while left := [pid for pid in filter(str.isdigit, os.listdir("/proc")) if mark in environment_of(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def environment_of(pid: str) -> str:
    try:
        return Path("/proc", pid, "environ").read_text(errors="replace") if pid != str(os.getpid()) else ""
    except OSError:
        return ""
