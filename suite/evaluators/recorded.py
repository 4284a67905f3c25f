"""Answers from the log first: running the same command again goes on where a killed run stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suite.records.log import Log
from suite.types import Evaluation, Evaluator, Recalls, Staffed, Streams, Trial, Workers
from suite.workers.recorded import RecordedWorkers


class Recorded:
    """An evaluator that answers from a log what is in it, asks for the rest and appends it.

    The n-th time a search asks a trial gets the n-th answer that the log has for it, so a search that is
    deterministic given its answers goes through the log again and on from its end.
    """

    def __init__(self, evaluator: Evaluator, log: Log, *, dataset: str, run: str, phase: str) -> None:
        self.evaluator, self.log = evaluator, log
        self.name = evaluator.name
        self.dataset, self.run, self.phase = dataset, run, phase
        self.known = log.known.get(f"{phase} {dataset} {run}", {})

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in order; the new ones are in the log before this returns."""
        answers: list[Evaluation | None] = [None] * len(trials)
        for place, evaluation in self.stream(trials):
            answers[place] = evaluation
        return [answer for answer in answers if answer is not None]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
        """(place among the trials, answer) as they complete, the recorded ones first."""
        new = []
        for place, trial in enumerate(trials):
            recorded = self.known.get(trial)
            if recorded:
                evaluation = recorded.popleft()
                self.recall(evaluation)
                yield place, evaluation
            else:
                new.append(place)
        for k, evaluation in stream(self.evaluator, [trials[place] for place in new]):
            self.log.append(self.dataset, self.run, self.phase, evaluation)
            yield new[k], evaluation

    def recall(self, evaluation: Evaluation) -> None:
        """Pass on an answer that the log gave."""
        if isinstance(self.evaluator, Recalls):
            self.evaluator.recall(evaluation)

    def workers(self, slots: int) -> Workers | None:
        """The evaluator's own workers, if it has some, behind the log."""
        inner = self.evaluator.workers(slots) if isinstance(self.evaluator, Staffed) else None
        if inner is None:
            return None
        return RecordedWorkers(
            inner, self.log, dataset=self.dataset, run=self.run, phase=self.phase, recall=self.recall, slots=slots
        )


def stream(evaluator: Evaluator, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
    """(place, answer) as they complete, if the evaluator can say so; else all in order."""
    if not trials:
        return iter(())
    return evaluator.stream(trials) if isinstance(evaluator, Streams) else iter(enumerate(evaluator.evaluate(trials)))
