"""Refusing options that are out of range, each in one line."""

from __future__ import annotations

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
