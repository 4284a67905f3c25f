"""Answers of any evaluator with resources added: latency, energy, parameters beside the error."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from suite.evaluators.recorded import stream
from suite.types import Architecture, Cost, Evaluation, Evaluator, Proxy, Remembers, Trial, Workers


class Reading(Protocol):
    """The protocol of `suite.resources.sources.Reading`."""

    @property
    def metrics(self) -> dict[str, float]:
        """Values of the metrics, by name."""

    @property
    def reason(self) -> str:
        """The reason why a metric is infinite; empty if none is."""


class Resources(Protocol):
    """The protocol of `suite.resources.sources.Resources`."""

    def read(self, arch: Architecture, proxy: Proxy) -> Reading:
        """All metrics of a network."""

    def recall(self, arch: Architecture, proxy: Proxy) -> None:
        """It was asked for earlier."""

    def measures(self, arch: Architecture, proxy: Proxy) -> bool:
        """Whether reading a network's metrics takes a measurement on this machine."""


class WithResources:
    """Another evaluator's answers, with the resources of the trial's network among the metrics.

    They are read (or measured) before the training, while the device has nothing else to do. A name that the evaluator
    gives too is the resources'. A network that the device cannot run has an infinite metric and a finite error, and the
    answer says why; a failed training has infinite metrics throughout.
    """

    def __init__(self, evaluator: Evaluator, resources: Resources) -> None:
        self.evaluator, self.resources = evaluator, resources
        self.name = evaluator.name

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in the order of the trials."""
        answers = dict(self.stream(trials))
        return [answers[place] for place in range(len(trials))]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
        """(place among the trials, answer) as they complete."""
        readings = [self.resources.read(trial.arch, trial.proxy) for trial in trials]
        for place, answer in stream(self.evaluator, trials):
            yield place, joined(answer, readings[place])

    def recall(self, evaluation: Evaluation) -> None:
        """Pass on an answer that was given earlier; nothing is measured for it."""
        self.resources.recall(evaluation.trial.arch, evaluation.trial.proxy)
        if isinstance(self.evaluator, Remembers):
            self.evaluator.recall(evaluation)

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the evaluator: stages, device ..."""
        if name == "evaluator":  # not there yet: a copy or a pickle being made
            raise AttributeError(name)
        return getattr(self.evaluator, name)


class WorkersWithResources:
    """Other workers' answers, with the resources of the trial's network among the metrics, as `WithResources` has them.

    They are read when a trial is started. One that has to be measured waits until nothing else is in flight: what
    trains beside a measurement would be measured too.
    """

    def __init__(self, workers: Workers, resources: Resources) -> None:
        self.workers, self.resources, self.name = workers, resources, workers.name
        self.readings: dict[Trial, deque[Reading]] = {}
        self.in_flight = 0
        self.done: deque[Evaluation] = deque()

    @property
    def free(self) -> int:
        """Number of trials that may be started now."""
        return self.workers.free

    @property
    def ready(self) -> bool:
        """Whether an answer is there already."""
        return bool(self.done) or self.workers.ready

    def start(self, trial: Trial) -> Cost | None:
        """Read the resources of the trial's network, then begin with it."""
        if self.resources.measures(trial.arch, trial.proxy):
            while self.in_flight:
                self.done.append(self.take())
        self.readings.setdefault(trial, deque()).append(self.resources.read(trial.arch, trial.proxy))
        cost = self.workers.start(trial)
        self.in_flight += 1
        return cost

    def next(self) -> Evaluation:
        """Wait for the first to complete."""
        return self.done.popleft() if self.done else self.take()

    def take(self) -> Evaluation:
        """The next answer of the other workers, with what was read."""
        answer = self.workers.next()
        self.in_flight -= 1
        return joined(answer, self.readings[answer.trial].popleft())

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Drop a trial in flight, or all; what they took so far."""
        dropped = self.workers.cancel(trial)
        gone = list(self.readings) if trial is None else [trial]
        for one in gone:
            self.in_flight -= len(self.readings.pop(one, ()))
        self.done = deque(answer for answer in self.done if trial is not None and answer.trial != trial)
        return dropped

    def recall(self, evaluation: Evaluation) -> None:
        """Pass on an answer that was given earlier; nothing is measured for it."""
        self.resources.recall(evaluation.trial.arch, evaluation.trial.proxy)
        if isinstance(self.workers, Remembers):
            self.workers.recall(evaluation)


def joined(answer: Evaluation, reading: Reading) -> Evaluation:
    """The answer with what was read."""
    if answer.metrics and all(map(math.isinf, answer.metrics.values())):
        return replace(answer, metrics={**answer.metrics, **dict.fromkeys(reading.metrics, math.inf)})
    reasons = [reason for reason in (answer.failure, reading.reason) if reason]
    return replace(answer, metrics={**answer.metrics, **reading.metrics}, failure="; ".join(reasons))
