"""Workers that train one network after another, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from suite.types import Evaluation, Trial
from suite.workers.base import QUEUE

if TYPE_CHECKING:
    from suite.workers.base import Place, Trains


class Serial:
    """One training at a time, in the order of the starts; a training takes place while `next` is called.

    Args:
        trainer: Answers a trial when it is asked.
        places: Not used: it trains on the trainer's device.
    """

    name = "serial"

    def __init__(self, trainer: Trains, places: Sequence[Place] = ()) -> None:
        self.trainer = trainer
        self.waiting: deque[Trial] = deque()

    @property
    def free(self) -> int:
        """Number of trials that may be started now; all but one of them wait."""
        return QUEUE - len(self.waiting)

    @property
    def ready(self) -> bool:
        """Whether there is something to train: nothing else is waited for."""
        return bool(self.waiting)

    def start(self, trial: Trial) -> None:
        """Put a trial at the end of those that wait."""
        self.trainer.check(trial)
        self.waiting.append(trial)

    def next(self) -> Evaluation:
        """Train the trial that has waited longest."""
        return self.trainer.answer(self.waiting.popleft())

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Drop a trial or all; none of them has begun, so there is nothing to say of them."""
        self.waiting = deque(other for other in self.waiting if trial is not None and other != trial)
        return []

    def beside(self, trainer: Trains) -> Serial:
        """Workers of the same kind for another trainer."""
        return Serial(trainer)

    def wait(self) -> None:
        """Return at once: nothing goes on elsewhere."""

    def close(self) -> None:
        """Let go of what waits."""
        self.waiting.clear()
