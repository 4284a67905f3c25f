"""The time of a device on which several processes train at once: each is charged its share, and the shares add up.

While n candidates are at work, each is charged one n-th of the seconds that pass, and of the energy that the device's
counter gains. So the charges of all, those of processes that died included, add up to the time in which any of them
was at work. That is kept as a clock that goes the slower the more are at work: a candidate's charge is what the clock
gained while it was at work. The clock is a small file that all map into memory; a lock on it ends with its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from suite.types import BadInput

PLACES = 64
"""Candidates that may be in flight on one device."""
HEAD = struct.Struct("4d")
"""The clock's seconds and joules, and when and at which energy it was last moved."""
ENTRY = struct.Struct("5d")
"""The entry of a candidate: 1 while at work; the clock when its work began; what it was charged since it was asked."""


class SharedClock:
    """The shared clock of one device, as one process sees it.

    Args:
        path: Its file; made if there is none.
        now: Seconds of a clock that all processes share.
        energy: The device's counter of energy [J]; None: it has none.

    Raises:
        BadInput: The file cannot be made.
    """

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.monotonic, energy: Callable[[], float] | None = None
    ) -> None:
        self.path, self.now, self.energy = path, now, energy
        try:
            if not path.exists():
                path.write_bytes(bytes(HEAD.size + PLACES * ENTRY.size))
            self.file = path.open("r+b")
            self.memory = mmap.mmap(self.file.fileno(), 0)
        except OSError as error:
            raise BadInput(f"{path}: cannot be written: {error.strerror}") from None

    def begin(self, place: int) -> None:
        """The candidate at this place is at work from now on."""
        with self.moved() as (seconds, joules):
            _, _, _, *charged = self.entry(place)
            self.put(place, 1.0, seconds, joules, *charged)

    def end(self, place: int) -> None:
        """It is not at work any more."""
        with self.moved() as (seconds, joules):
            working, began_s, began_j, charged_s, charged_j = self.entry(place)
            if working:
                self.put(place, 0.0, 0.0, 0.0, charged_s + seconds - began_s, charged_j + joules - began_j)

    @contextlib.contextmanager
    def at_work(self, place: int) -> Iterator[None]:
        """At work inside the block."""
        self.begin(place)
        try:
            yield
        finally:
            self.end(place)

    def fresh(self, place: int) -> None:
        """Another candidate has this place: nothing is charged yet."""
        with self.moved():
            self.put(place, 0.0, 0.0, 0.0, 0.0, 0.0)

    def charged(self, place: int) -> tuple[float, float]:
        """End the work of the candidate at this place, whose process died perhaps; its seconds and joules."""
        self.end(place)
        with self.moved():
            *_, seconds, joules = self.entry(place)
        return seconds, joules

    def seconds(self) -> float:
        """The seconds that the clock shows."""
        with self.moved() as (seconds, _):
            return seconds

    def joules(self) -> float:
        """The joules that its counter of energy shows."""
        with self.moved() as (_, joules):
            return joules

    @contextlib.contextmanager
    def moved(self) -> Iterator[tuple[float, float]]:
        """The clock, moved up to now; nobody else moves it inside the block."""
        fcntl.flock(self.file, fcntl.LOCK_EX)
        try:
            seconds, joules, last_s, last_j = HEAD.unpack_from(self.memory, 0)
            now_s, now_j = self.now(), self.energy() if self.energy else 0.0
            if working := sum(self.entry(place)[0] for place in range(PLACES)):
                seconds += max(0.0, now_s - last_s) / working
                joules += max(0.0, now_j - last_j) / working
            self.memory[: HEAD.size] = HEAD.pack(seconds, joules, now_s, now_j)  # at once, should a kill come here
            yield seconds, joules
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def entry(self, place: int) -> tuple[float, float, float, float, float]:
        """The entry of the candidate at a place."""
        values: tuple[float, float, float, float, float] = ENTRY.unpack_from(
            self.memory, HEAD.size + place * ENTRY.size
        )
        return values

    def put(self, place: int, *values: float) -> None:
        """Write the entry of the candidate at a place."""
        start = HEAD.size + place * ENTRY.size
        self.memory[start : start + ENTRY.size] = ENTRY.pack(*values)

    def close(self) -> None:
        """Let go of the file."""
        self.memory.close()
        self.file.close()
