"""One question a file: what networks are trained for. TASKS names them all.

A task gives batches, a loss and a score; steps, schedule, checkpoints, seconds and failures are the trainer's. See
docs/tasks.md, which also says how to add one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from suite.types import BadInput, nearest

if TYPE_CHECKING:
    from suite.data.images import ImageData
    from suite.tasks.base import Preparation, Task

__all__ = ["OWN", "TASKS", "check_name", "make"]

TASKS: dict[str, str] = {
    "classification": "suite.tasks.classification:Classification",
    "rotation": "suite.tasks.pretext:Rotation",
    "jigsaw": "suite.tasks.pretext:Jigsaw",
    "colourisation": "suite.tasks.pretext:Colourisation",
}
"""Name to "module:class", called as (data, how images are prepared)."""
OWN = "classification"
"""The task of a board on labelled images: the one that `Proxy.task = ""` means, and that judges score on."""


def check_name(name: str) -> None:
    """Raises BadInput unless `name` is a task, or "" for the board's own."""
    if name and name not in TASKS:
        raise BadInput(f"no task {name!r}: {nearest(name, TASKS)}")


def make(name: str, data: ImageData, preparation: Preparation) -> Task:
    """A task on a data set.

    Args:
        name: One of TASKS; "" is the board's own.
        data: Images in three parts.
        preparation: Batch size, augmentation, label smoothing; a recipe has them.

    Raises:
        BadInput: There is no such task.
        Unsupported: The data cannot be asked this question.
    """
    check_name(name)
    module, kind = TASKS[name or OWN].split(":")
    task: Task = getattr(import_module(module), kind)(data, preparation)
    return task
