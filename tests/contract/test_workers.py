"""What every kind of workers must do, those that wrap others too; docs/workers.md is its text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.analytic import PROXY, Analytic
from helpers.standins import Hanging, Sleeping

from suite.data.images import load as load_images
from suite.evaluators.live import LiveWorkers
from suite.evaluators.recorded import RecordedWorkers
from suite.evaluators.reseeded import ReseededWorkers
from suite.records.log import Log
from suite.resources.beside import WorkersWithResources
from suite.resources.sources import Formulas, Resources
from suite.spaces import SPACES
from suite.training.recipe import Recipe
from suite.types import BadInput, Evaluation, Trial, Workers
from suite.workers import KINDS, load
from suite.workers import processes as engine
from suite.workers.base import Place, TrainingWorkers
from suite.workers.simulated import Simulated

SPACE = SPACES["nas_bench_201"]
TRIALS = [Trial(SPACE.at(i), PROXY) for i in (0, 700, 42, 9_001, 3)]
SECONDS = 0.01


def sleeping(folder: Path, kind: type[Sleeping] = Sleeping) -> Sleeping:
    """A trainer that sleeps."""
    return kind(SPACE, load_images("digits"), Recipe(weight_decay=SECONDS), device="cpu", threads=1, judge=False,
                checkpoints=folder / "checkpoints")  # fmt: skip


class Known:
    """Stands in for the evaluator of live workers: nothing is known."""

    device = "none"

    def __init__(self) -> None:
        self.known: dict[Trial, Evaluation] = {}


MADE: dict[str, Callable[[Path], Workers]] = {
    "simulated": lambda folder: Simulated(Analytic(SPACE), 4),
    **{
        name: lambda folder, name=name: load(name)(sleeping(folder), [Place("cpu", 2, shared=False)])  # type: ignore[misc]
        for name in KINDS
    },
}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Makes workers of a kind, "WRAPPER KIND" for those that wrap others; what holds processes is closed at the end."""
    opened: list[Any] = []
    log = Log(tmp_path / "trials.jsonl", SPACE)
    wrap: dict[str, Callable[[Any], Workers]] = {
        "live": lambda inner: LiveWorkers(inner, Known()),  # type: ignore[arg-type]
        "recorded": lambda inner: RecordedWorkers(inner, log, dataset="d", run="r", phase="search"),
        "reseeded": lambda inner: ReseededWorkers(inner, 5),
        "resources": lambda inner: WorkersWithResources(
            inner, Resources(SPACE, [Formulas(SPACE, ["params"], ends=load_images("digits").ends)])
        ),
    }

    def make(name: str) -> Any:
        *wrappers, kind = name.split()
        workers = MADE[kind](tmp_path)
        opened.append(workers)
        for wrapper in wrappers:
            workers = wrap[wrapper](workers)
        return workers

    yield make
    for workers in opened:
        if isinstance(workers, TrainingWorkers):
            workers.close()
    log.close()


WRAPPED = ["live serial", "recorded serial", "reseeded serial", "resources serial"]
every_kind = pytest.mark.parametrize("name", [*MADE, *WRAPPED, "live processes"])


@every_kind
def test_each_trial_that_is_started_completes_once(made, name):
    workers = made(name)
    assert isinstance(workers, Workers)
    before = workers.free
    for number, trial in enumerate(TRIALS[:4]):
        workers.start(trial)
        assert workers.free == before - number - 1
    answers = [workers.next() for _ in range(4)]
    assert workers.free == before
    assert sorted(answer.trial.arch for answer in answers) == sorted(trial.arch for trial in TRIALS[:4])
    assert all(answer.trial in TRIALS for answer in answers)
    assert all(math.isfinite(answer.metrics["val_error"]) for answer in answers)


@every_kind
def test_what_is_dropped_does_not_complete_and_may_be_started_again(made, name):
    workers = made(name)
    before = workers.free
    for trial in TRIALS[:3]:
        workers.start(trial)
    workers.cancel(TRIALS[1])
    assert workers.free == before - 2
    assert {workers.next().trial for _ in range(2)} == {TRIALS[0], TRIALS[2]}
    workers.start(TRIALS[1])
    workers.start(TRIALS[3])
    workers.cancel()
    assert workers.free == before
    workers.start(TRIALS[4])
    assert workers.next().trial == TRIALS[4]


@every_kind
def test_a_trial_may_be_in_flight_twice(made, name):
    workers = made(name)
    workers.start(TRIALS[0])
    workers.start(TRIALS[0])
    first, second = workers.next(), workers.next()
    assert first.trial == second.trial == TRIALS[0]
    assert first.metrics == second.metrics


@every_kind
def test_a_trial_that_cannot_be_answered_is_refused_at_its_start(made, name):
    workers = made(name)
    before = workers.free
    with pytest.raises(BadInput):
        workers.start(Trial((99,), PROXY))
    assert workers.free == before


@pytest.mark.parametrize("name", KINDS)
def test_workers_of_two_trainers_share_what_trains_and_keep_their_answers_apart(made, name, tmp_path):
    one = made(name)
    other = one.beside(sleeping(tmp_path / "other"))
    for workers, trial in ((one, TRIALS[0]), (other, TRIALS[1]), (one, TRIALS[2])):
        workers.start(trial)
    assert other.next().trial == TRIALS[1]
    assert {one.next().trial for _ in range(2)} == {TRIALS[0], TRIALS[2]}


def test_the_answers_of_a_log_come_in_its_order_and_before_what_it_does_not_hold(made):
    first = made("recorded serial")
    for trial in (TRIALS[2], TRIALS[0], TRIALS[1]):
        first.start(trial)
        first.next()
    first.log.sync()
    first.log.known.clear()
    first.log.read()
    again = made("recorded serial")
    for trial in (TRIALS[3], TRIALS[0], TRIALS[1], TRIALS[2]):
        again.start(trial)
    assert list(again.workers.waiting) == [TRIALS[3]]
    assert [again.next().trial for _ in range(4)] == [TRIALS[2], TRIALS[0], TRIALS[1], TRIALS[3]]


def test_a_training_that_hangs_is_ended_said_and_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LEAST_PATIENCE_S", 1.0)
    monkeypatch.setattr(engine, "PATIENCE", 1e-9)
    workers = engine.Processes(sleeping(tmp_path, Hanging), [Place("cpu", 2, shared=False)])
    try:
        workers.start(Trial((1,) * 6, PROXY))
        workers.start(TRIALS[1])
        with pytest.warns(UserWarning, match=r"no answer after .* asked again while nothing else trains"):
            answers = [workers.next(), workers.next()]
    finally:
        workers.close()
    assert {answer.metrics["val_error"] for answer in answers} == {6.0, float(sum(TRIALS[1].arch))}
    assert not any(answer.failure for answer in answers)


def test_no_kind_of_another_name():
    with pytest.raises(BadInput, match="no kind of workers 'processs': did you mean 'processes'"):
        load("processs")
