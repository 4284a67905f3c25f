"""Refusing options that are out of range, each in one line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from suite.types import BadInput


def whole(option: str, value: object, *, least: int, most: int | None = None) -> int:
    """`value`, a whole number in `least`..`most`; anything else is BadInput."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not good or (most is not None and isinstance(value, int) and value > most):
        limits = f"of at least {least}" if most is None else f"in {least}..{most}"
        raise BadInput(f"{option} must be a whole number {limits}, not {value!r}")
    assert isinstance(value, int)
    return value


def flag(option: str, value: object) -> bool:
    """`value`, true or false; anything else is BadInput."""
    if not isinstance(value, bool):
        raise BadInput(f"{option} must be true or false, not {value!r}")
    return value


def fraction(option: str, value: object) -> float:
    """`value`, a number in [0, 1]; anything else is BadInput."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadInput(f"{option} must be a number in [0, 1], not {value!r}")
    return float(value)


def number(option: str, value: object, *, above: float | None = None) -> float:
    """`value`, a finite number of at least 0, or above `above`; anything else is BadInput."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if good and isinstance(value, int | float) and (value > above if above is not None else value >= 0):
        return float(value)
    limits = "of at least 0" if above is None else f"above {above:g}"
    raise BadInput(f"{option} must be a number {limits}, not {value!r}")


def one_of(option: str, value: object, choices: Sequence[str]) -> str:
    """`value`, one of the `choices`; anything else is BadInput."""
    if value not in choices:
        raise BadInput(f"{option} must be one of {', '.join(choices)}, not {value!r}")
    return str(value)
