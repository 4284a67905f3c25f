"""Answers of any evaluator with resources added: latency, energy, parameters beside the error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from suite.evaluators.recorded import stream
from suite.types import Architecture, Evaluation, Evaluator, Proxy, Recalls, Staffed, Trial, Workers
from suite.workers.mapped import Mapped


class Reading(Protocol):
    """As `suite.resources.sources.Reading`."""

    @property
    def metrics(self) -> dict[str, float]:
        """By name."""

    @property
    def reason(self) -> str:
        """Why one is infinite."""


class Resources(Protocol):
    """As `suite.resources.sources.Resources`."""

    def read(self, arch: Architecture, proxy: Proxy) -> Reading:
        """All metrics of a network."""

    def recall(self, arch: Architecture, proxy: Proxy) -> None:
        """It was asked for earlier."""


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
        if isinstance(self.evaluator, Recalls):
            self.evaluator.recall(evaluation)

    def workers(self, slots: int) -> Workers | None:
        """The evaluator's own workers, if it has some; resources are read when a trial is started."""
        inner = self.evaluator.workers(slots) if isinstance(self.evaluator, Staffed) else None
        if inner is None:
            return None
        readings: dict[Trial, Reading] = {}

        def read(trial: Trial) -> Trial:
            readings[trial] = self.resources.read(trial.arch, trial.proxy)
            return trial

        return Mapped(inner, read, lambda trial, answer: joined(answer, readings[trial]))

    def __getattr__(self, name: str) -> Any:
        """What else the evaluator has: stages, device ..."""
        if name == "evaluator":  # not there yet: a copy or a pickle being made
            raise AttributeError(name)
        return getattr(self.evaluator, name)


def joined(answer: Evaluation, reading: Reading) -> Evaluation:
    """The answer with what was read."""
    if answer.metrics and all(map(math.isinf, answer.metrics.values())):
        return replace(answer, metrics={**answer.metrics, **dict.fromkeys(reading.metrics, math.inf)})
    reasons = [reason for reason in (answer.failure, reading.reason) if reason]
    return replace(answer, metrics={**answer.metrics, **reading.metrics}, failure="; ".join(reasons))
