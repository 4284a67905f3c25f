"""An evaluator that knows every answer by formula, and what tests of searchers and of the loop do with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from suite.spaces import SearchSpace
from suite.types import Architecture, Cost, Evaluation, Proxy, Searcher, Trial

PROXY = Proxy(epochs=12, channels=16, resolution=32)


def quality(arch: Architecture) -> float:
    """Error after endless training [%]: decisions for themselves and in pairs; it has local optima and no equals."""
    alone = sum(7 * (3 * i + 5 * option * option + 2) % 11 for i, option in enumerate(arch))
    together = sum(5 * (a * b + a + 3 * b + i) % 7 for i, (a, b) in enumerate(pairwise(arch)))
    unequal = sum(option * 8.0 ** -(i + 1) for i, option in enumerate(arch))
    return 5.0 + 40.0 * (2 * alone + together + 0.1 * unequal) / (len(arch) * 26)


def seconds_an_epoch(arch: Architecture) -> float:
    """What an epoch takes; not the same for all [s]."""
    return 1.0 + sum(arch) / len(arch)


class Analytic:
    """Errors that fall towards `quality` with the epochs; a stage goes on from the one before and pays what is new."""

    name = "analytic"

    def __init__(
        self,
        space: SearchSpace,
        *,
        error: Callable[[Architecture], float] = quality,
        seconds: Callable[[Architecture], float] = seconds_an_epoch,
    ) -> None:
        self.space, self.error, self.seconds = space, error, seconds
        self.trained: dict[Trial, int] = {}
        self.answers: list[Evaluation] = []

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        answers = [self.answer(trial) for trial in trials]
        self.answers += answers
        return answers

    def answer(self, trial: Trial) -> Evaluation:
        self.space.check(trial.arch)
        before = self.trained.get(trial.whole, 0)
        if before >= trial.epochs:  # no checkpoint so early: all anew
            before = 0
        self.trained[trial.whole] = max(trial.epochs, self.trained.get(trial.whole, 0))
        error = self.error(trial.arch) + 30.0 / trial.epochs
        sizes = {"params": float(sum(trial.arch)), "macs": 1000.0 + sum(trial.arch)}
        metrics = {"val_error": error, **(sizes if math.isfinite(error) else dict.fromkeys(sizes, math.inf))}
        seconds = self.seconds(trial.arch) * (trial.epochs - before)
        failure = "" if math.isfinite(error) else "diverged"
        return Evaluation(trial, metrics, Cost(seconds, "table:formula"), failure)


def converse(searcher: Searcher, evaluator: Analytic, questions: int) -> list[Trial]:
    """At least so many questions of a searcher that hears all answers before it is asked again; fewer if it ends."""
    asked: list[Trial] = []
    while len(asked) < questions and (trials := searcher.ask()):
        asked += trials
        searcher.tell(evaluator.evaluate(trials))
    return asked
