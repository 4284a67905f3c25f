"""Answers under the training seed of a search: searchers need not know which repeat they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from suite.types import Cost, Evaluation, Evaluator, Trial, Workers


class Reseeded:
    """An evaluator that answers trials under seeds moved by that of the search, and hands them back as asked."""

    def __init__(self, evaluator: Evaluator, seed: int) -> None:
        self.evaluator, self.seed, self.name = evaluator, seed, evaluator.name

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers that carry the trials as they were asked."""
        answers = self.evaluator.evaluate([replace(trial, seed=trial.seed + self.seed) for trial in trials])
        return [replace(answer, trial=trial) for trial, answer in zip(trials, answers, strict=True)]


class ReseededWorkers:
    """Workers whose trials have seeds moved by that of the search, and are handed back as asked."""

    def __init__(self, workers: Workers, seed: int) -> None:
        self.workers, self.seed, self.name = workers, seed, workers.name

    @property
    def free(self) -> int:
        """Number of trials that may be started now."""
        return self.workers.free

    @property
    def ready(self) -> bool:
        """Whether an answer is there already."""
        return self.workers.ready

    def start(self, trial: Trial) -> Cost | None:
        """Begin with a trial under the moved seed."""
        return self.workers.start(self.moved(trial, self.seed))

    def next(self) -> Evaluation:
        """Wait for the first to complete."""
        return self.asked(self.workers.next())

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Drop a trial in flight, or all; what they took so far."""
        dropped = self.workers.cancel(None if trial is None else self.moved(trial, self.seed))
        return [self.asked(answer) for answer in dropped]

    def asked(self, answer: Evaluation) -> Evaluation:
        """An answer with its trial as it was asked."""
        return replace(answer, trial=self.moved(answer.trial, -self.seed))

    def moved(self, trial: Trial, by: int) -> Trial:
        """A trial under another seed."""
        return replace(trial, seed=trial.seed + by)
