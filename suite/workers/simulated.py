"""Workers whose time is simulated: an evaluator answers at once, answers complete when their seconds are over."""

from __future__ import annotations

import heapq
import math

from suite.types import Cost, Evaluation, Evaluator, Trial


class Simulated:
    """Several workers beside one clock, which stands still between completions.

    An answer is there when its trial is started, and completes when the seconds of its cost are over; answers that
    complete at the same time do so in the order in which they were started. A cost that is not known takes no time.

    Args:
        evaluator: Answers at once.
        workers: Trials that may be in flight.
    """

    ready = True
    """Nothing has to be waited for."""

    def __init__(self, evaluator: Evaluator, workers: int = 1) -> None:
        self.evaluator, self.workers, self.name = evaluator, workers, evaluator.name
        self.in_flight: list[tuple[float, int, Evaluation]] = []  # a heap of (completion [s], order of start, answer)
        self.clock_s, self.started = 0.0, 0

    @property
    def free(self) -> int:
        """Number of trials that may be started now."""
        return self.workers - len(self.in_flight)

    def start(self, trial: Trial) -> Cost:
        """Have the trial answered; its cost."""
        (answer,) = self.evaluator.evaluate((trial,))
        cost_s = answer.cost.device_s
        heapq.heappush(self.in_flight, (self.clock_s + (0.0 if math.isnan(cost_s) else cost_s), self.started, answer))
        self.started += 1
        return answer.cost

    def next(self) -> Evaluation:
        """Set the clock to the next completion; the answer that completes."""
        self.clock_s, _, answer = heapq.heappop(self.in_flight)
        return answer

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Drop a trial, the last of equal ones, or all; the answers that they would have had: nothing was spent."""
        dropped = [entry for entry in sorted(self.in_flight, key=lambda entry: entry[1])
                   if trial is None or entry[2].trial == trial]  # fmt: skip
        dropped = dropped if trial is None else dropped[-1:]
        self.in_flight = [entry for entry in self.in_flight if entry not in dropped]
        heapq.heapify(self.in_flight)
        return [answer for _, _, answer in dropped]
