"""Answers from the log first: running the same command again goes on where a killed run stopped."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from suite.records.log import Log
from suite.types import Cost, Evaluation, Evaluator, Remembers, Streams, Trial, Workers


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
                _, evaluation = recorded.popleft()
                if isinstance(self.evaluator, Remembers):
                    self.evaluator.recall(evaluation)
                yield place, evaluation
            else:
                new.append(place)
        for k, evaluation in stream(self.evaluator, [trials[place] for place in new]):
            self.log.append(self.dataset, self.run, self.phase, evaluation)
            yield new[k], evaluation


class RecordedWorkers:
    """Workers that answer from a log what is in it, in the log's order, and append what is new as it completes.

    A search that is deterministic given its answers and their order goes through the log again. What it asks then and
    the log does not hold was in flight when the log ended: it is begun with at once, and completes after the log's end.
    """

    def __init__(self, workers: Workers, log: Log, *, dataset: str, run: str, phase: str) -> None:
        self.workers, self.log, self.name = workers, log, workers.name
        self.dataset, self.run, self.phase = dataset, run, phase
        self.known = log.known.get(f"{phase} {dataset} {run}", {})
        self.recorded: list[tuple[int, Evaluation]] = []  # a heap of (line in the log, answer in flight)

    @property
    def free(self) -> int:
        """Number of trials that may be started now."""
        return self.workers.free - len(self.recorded)

    @property
    def ready(self) -> bool:
        """Whether an answer is there already."""
        return bool(self.recorded) or self.workers.ready

    def start(self, trial: Trial) -> Cost | None:
        """Look a trial up in the log, or begin with it."""
        entries = self.known.get(trial)
        if entries:
            heapq.heappush(self.recorded, entries.popleft())
            return None
        return self.workers.start(trial)

    def next(self) -> Evaluation:
        """The first answer in the log of those in flight, or the first new one to complete, now in the log."""
        if self.recorded:
            _, evaluation = heapq.heappop(self.recorded)
            if isinstance(self.workers, Remembers):
                self.workers.recall(evaluation)
            return evaluation
        evaluation = self.workers.next()
        self.log.append(self.dataset, self.run, self.phase, evaluation)
        return evaluation

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Drop a trial in flight, or all; answers of the log that nobody waited for are left for the next asking."""
        kept = []
        for entry in sorted(self.recorded, reverse=True):
            if trial is None or entry[1].trial == trial:
                self.known[entry[1].trial].appendleft(entry)
            else:
                kept.append(entry)
        self.recorded = kept[::-1]
        return self.workers.cancel(trial)


def stream(evaluator: Evaluator, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
    """(place, answer) as they complete, if the evaluator can say so; else all in order."""
    if not trials:
        return iter(())
    return evaluator.stream(trials) if isinstance(evaluator, Streams) else iter(enumerate(evaluator.evaluate(trials)))
