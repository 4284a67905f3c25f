"""Workers that go through a log first: running the same command again goes on where a killed run stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from suite.records.log import Log
from suite.types import Cost, Evaluation, Trial, Workers


class RecordedWorkers:
    """Other workers, after the answers that a log has, in the log's order.

    What was in flight when the earlier run ended is not in the log: it is started at once, and answered after it.

    Args:
        inner: Who answers what the log has not.
        log: Every new answer is in it before the searcher hears of it.
        recall: Told of every answer that the log gave.
        slots: Trials in flight.
    """

    def __init__(
        self, inner: Workers, log: Log, *, dataset: str, run: str, phase: str, recall: Callable[[Evaluation], None],
        slots: int,
    ) -> None:  # fmt: skip
        self.inner, self.log, self.recall, self.slots, self.name = inner, log, recall, slots, inner.name
        self.dataset, self.run, self.phase = dataset, run, phase
        self.recorded = log.in_order(dataset, run, phase)
        self.left = Counter(answer.trial for answer in self.recorded)
        """How many answers to each trial the log has that nobody asked for yet."""
        self.claimed: Counter[Trial] = Counter()
        """Trials in flight that the log will answer."""
        self.in_flight = 0

    @property
    def free(self) -> int:
        """Slots that no trial takes."""
        return self.slots - self.in_flight

    def start(self, trial: Trial) -> Cost | None:
        """Start what the log does not answer."""
        cost = None
        if self.left[trial]:
            self.left[trial] -= 1
            self.claimed[trial] += 1
        else:
            cost = self.inner.start(trial)
        self.in_flight += 1
        return cost

    def next(self) -> Evaluation:
        """The next answer of the log; after these, the first to complete."""
        for place, answer in enumerate(self.recorded):
            if self.claimed[answer.trial]:
                self.claimed[answer.trial] -= 1
                del self.recorded[place]
                self.recall(answer)
                break
        else:
            answer = self.inner.next()
            self.log.append(self.dataset, self.run, self.phase, answer)
        self.in_flight -= 1
        return answer

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Give up in the inner workers; what the log would answer stays in it."""
        if trial is None:
            self.claimed.clear()
            self.in_flight = 0
        return self.inner.cancel(trial)
