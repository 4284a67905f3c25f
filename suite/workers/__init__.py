"""Where trials become answers, and when: kinds of workers, and the clocks that they are charged by."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from suite.types import BadInput, nearest

if TYPE_CHECKING:
    from suite.workers.base import KindOfWorkers

KINDS = {
    "serial": "suite.workers.serial:Serial",
    "processes": "suite.workers.processes:Processes",
}
"""Kinds of workers that train networks, "module:class"; made by `class(trainer, places)`."""


def load(name: str) -> KindOfWorkers:
    """The kind of workers of a name.

    Raises:
        BadInput: There is none of that name.
    """
    if name not in KINDS:
        raise BadInput(f"no kind of workers {name!r}: {nearest(name, KINDS)}")
    module, _, kind = KINDS[name].partition(":")
    return cast("KindOfWorkers", getattr(import_module(module), kind))
