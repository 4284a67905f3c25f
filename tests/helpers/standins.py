"""Devices that misbehave, on CPU workers that stand in for GPUs: spaces that know in which worker they are.

What a worker does is steered by files in a folder; a worker's place is the name of its process.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from suite.spaces.nas_bench_201 import NASBench201
from suite.training.trainer import Trainer
from suite.types import Architecture, Cost, Evaluation, Proxy, Trial

WAIT_S = 20.0
"""For company that has to come."""


def place() -> str:
    """Of this process; empty in the one that asks."""
    name = multiprocessing.current_process().name
    return name if name.startswith("gpu") else ""


class Crowded(NASBench201):
    """Networks of `sizes` take so much of their device's memory, of which there is 1; at first they wait for company.

    The others take nothing, and are present from when they are asked to when they are answered.
    """

    def __init__(self, folder: Path, sizes: dict[Architecture, float]) -> None:
        self.folder, self.sizes = folder, sizes

    def present(self) -> list[Path]:
        """Who is at work at this place."""
        return list(self.folder.glob(f"{place()} *"))

    def check(self, arch: Architecture) -> None:
        """A training begins."""
        super().check(arch)
        if place():
            (self.folder / f"{place()} {os.getpid()}").touch()

    def params(self, arch: Architecture, proxy: Proxy, **shape: Any) -> int:
        """Here it takes its memory."""
        size = self.sizes.get(arch, 0.0)
        if place() and size:
            attempts = self.folder / f"attempts {arch}"
            first = not attempts.exists()
            end = time.monotonic() + WAIT_S
            while first and len(self.present()) < 2 and time.monotonic() < end:
                time.sleep(0.01)
            beside = len(self.present()) - 1
            with attempts.open("a") as file:
                file.write(f"{beside}\n")
            if size > 1 or beside:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().params(arch, proxy, **shape)

    def trained_macs(self, arch: Architecture, proxy: Proxy, **shape: Any) -> int:
        """A training ends."""
        macs = super().trained_macs(arch, proxy, **shape)
        (self.folder / f"{place()} {os.getpid()}").unlink(missing_ok=True)
        return macs


class Vanishing(NASBench201):
    """A place that has a file PLACE.gone starts no process, and those that are there die with their next training.

    The first training of a network of `triggers` makes the file of its own place.
    """

    def __init__(self, folder: Path, triggers: tuple[Architecture, ...]) -> None:
        self.folder, self.triggers = folder, triggers

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if place() and (self.folder / f"{place()}.gone").exists():
            os._exit(1)

    def check(self, arch: Architecture) -> None:
        """A training begins."""
        super().check(arch)
        if not place():
            return
        pulled = self.folder / f"pulled {arch}"
        if arch in self.triggers and not pulled.exists():
            pulled.touch()
            (self.folder / f"{place()}.gone").touch()
        if (self.folder / f"{place()}.gone").exists():
            os.kill(os.getpid(), signal.SIGKILL)


class Sleeping(Trainer):
    """Sleeps in place of training; the error is the sum of the decisions.

    So that a process makes it as it makes any trainer, the seconds stand where a recipe has its weight decay.
    """

    def answer(self, trial: Trial) -> Evaluation:
        """Sleep."""
        self.check(trial)
        time.sleep(self.recipe.weight_decay)
        metrics = dict.fromkeys(self.metrics, float(sum(trial.arch)))
        return Evaluation(trial, metrics, Cost(self.recipe.weight_decay, self.device_name, None, math.nan))


class Hanging(Sleeping):
    """Sleeps; the first attempt at a network of all ones never ends, the second does."""

    def answer(self, trial: Trial) -> Evaluation:
        """Sleep, or hang."""
        attempted = self.checkpoints.folder / "attempted"
        if set(trial.arch) == {1} and not attempted.exists():
            self.checkpoints.folder.mkdir(parents=True, exist_ok=True)
            attempted.touch()
            time.sleep(10_000)
        return super().answer(trial)
