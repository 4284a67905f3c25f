"""One training after another, in this process."""

from __future__ import annotations

from collections import deque

from suite.training.trainer import Trainer
from suite.types import Evaluation, Trial


class Serial:
    """Trains in the order in which trials were started, each when its answer is asked for."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.waiting: deque[Trial] = deque()

    def start(self, trial: Trial) -> None:
        """Put a trial into the queue."""
        self.waiting.append(trial)

    def next(self) -> Evaluation:
        """Train the first of the queue."""
        return self.trainer.answer(self.waiting.popleft())

    def cancel(self) -> None:
        """Forget the trials of the queue."""
        self.waiting.clear()

    def close(self) -> None:
        """Nothing is held between calls."""
