"""The part that all kinds of training workers share: their protocol, places, and the trainer that they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from suite.types import BadInput, Evaluation, Trial, Workers
from suite.workers.device_clock import PLACES

QUEUE = 4096
"""Trials that may be in flight: those beyond the trainings at work wait, so that what a search asks for, and when,
depends on its own number of trials in flight and not on the machine."""


@dataclass(frozen=True)
class Place:
    """A device, and how many candidates are in flight on it."""

    device: str
    """The device's name, as torch writes it."""
    slots: int | None = None
    """None: as many as its free memory holds by what the first candidate takes, and as there are cores for."""
    shared: bool = True
    """Whether candidates share the device's time, as on a GPU; False: each has a core of its own."""
    name: str = ""
    """Name in messages; empty: as torch does."""

    def __post_init__(self) -> None:
        if self.slots is not None and not 1 <= self.slots <= PLACES:
            raise BadInput(f"{self.device}: from 1 to {PLACES} candidates may be in flight, not {self.slots}")


class Trains(Protocol):
    """A trainer: `suite.training.trainer.Trainer`, or what stands in for it."""

    def check(self, trial: Trial) -> None:
        """Raise Unsupported or BadInput if the trial cannot be trained here."""
        ...

    def answer(self, trial: Trial) -> Evaluation:
        """Train and evaluate; a failure of the network is its answer."""
        ...


@runtime_checkable
class TrainingWorkers(Workers, Protocol):
    """A kind of workers that trains; entered in `suite.workers.KINDS`, made by `kind(trainer, places)`."""

    def beside(self, trainer: Any) -> Self:
        """Workers for another trainer of the same data, on the same processes and devices."""
        ...

    def wait(self) -> None:
        """Return when something has happened on the shared processes, or at once if nothing goes on there."""
        ...

    def close(self) -> None:
        """Let go of processes and files; those who share them must be done."""
        ...


class KindOfWorkers(Protocol):
    """A constructor of workers that train."""

    def __call__(self, trainer: Any, places: Sequence[Place]) -> TrainingWorkers:
        """Make workers that share a trainer's space and data."""
        ...
