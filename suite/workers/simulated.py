"""Workers that do not exist: an evaluator answers at once, and a clock tells when each answer would have come."""

from __future__ import annotations

import heapq
import math

from suite.types import BadInput, Cost, Evaluation, Evaluator, Trial


class Simulated:
    """As many workers as there are slots, each busy for the seconds that its answer costs.

    An answer without a cost in seconds is there at once. Answers that end together come in the order of their start.

    Args:
        evaluator: Who answers.
        slots: Trials in flight.

    Raises:
        BadInput: `slots` is below 1.
    """

    def __init__(self, evaluator: Evaluator, slots: int = 1) -> None:
        if slots < 1:
            raise BadInput(f"workers must be at least 1, not {slots}")
        self.evaluator, self.slots, self.name = evaluator, slots, evaluator.name
        self.clock_s = 0.0
        self.started = 0
        self.in_flight: list[tuple[float, int, Evaluation]] = []  # (end [s], order of start, answer)

    @property
    def free(self) -> int:
        """Slots that no trial takes."""
        return self.slots - len(self.in_flight)

    def start(self, trial: Trial) -> Cost:
        """Look the answer up; it is handed out when its seconds are over."""
        (answer,) = self.evaluator.evaluate([trial])
        seconds = answer.cost.device_s
        heapq.heappush(self.in_flight, (self.clock_s + (0.0 if math.isnan(seconds) else seconds), self.started, answer))
        self.started += 1
        return answer.cost

    def next(self) -> Evaluation:
        """The answer whose seconds are over first."""
        self.clock_s, _, answer = heapq.heappop(self.in_flight)
        return answer

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Give up the latest start of a trial, or everything; the answers are known."""
        given_up = [entry for entry in self.in_flight if trial is None or entry[2].trial == trial]
        if trial is not None:
            given_up = [max(given_up, key=lambda entry: entry[1])]
        self.in_flight = [entry for entry in self.in_flight if entry not in given_up]
        heapq.heapify(self.in_flight)
        return [answer for _, _, answer in given_up]
