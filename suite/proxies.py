"""EcoNAS's notation of proxies: c4r4s0e60 is level 4 of channels and resolution, all samples, 60 epochs.

Zhou et al. "EcoNAS: Finding Proxies for Economical Neural Architecture Search". CVPR 2020.
https://arxiv.org/abs/2001.01233

Level 0 is the full training's value. Of the others the authors' code shows level 4 of channels, 36 -> 9, and of
resolution, 32 -> 8; the levels between and those of samples are ours: each step halves the compute.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from suite.spaces import SearchSpace
from suite.types import BadInput, Proxy, Unsupported

Value = TypeVar("Value", int, float)

SMALLEST_SIDE = 8
"""Images are not made smaller [pixels]."""


@dataclass(frozen=True)
class Levels:
    """The reduced values of each factor, level 0 first."""

    channels: Sequence[int]
    """Width of the first stage."""
    resolution: Sequence[int]
    """Side of the images [pixels]."""
    samples: Sequence[float] = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
    """Fraction of the training images."""


LEVELS: Mapping[str, Levels] = {
    "nas_bench_201": Levels(channels=(16, 11, 8, 6, 4), resolution=(32, 24, 16, 12, 8)),
    "darts": Levels(channels=(36, 25, 18, 13, 9), resolution=(32, 24, 16, 12, 8)),
}
"""By name of the space; others are scaled from the paper's, "darts"."""


def levels(space: SearchSpace, side: int | None = None) -> Levels:
    """The levels of a space, for images of this side [pixels]; None: the side that the space was published with.

    Sides below 8 pixels are left out, so small images have fewer levels.

    >>> from suite.spaces import SPACES
    >>> levels(SPACES["nas_bench_201"]).channels
    (16, 11, 8, 6, 4)
    >>> levels(SPACES["nas_bench_201"], side=16).resolution
    (16, 12, 8)
    """
    paper = LEVELS["darts"]
    known = LEVELS.get(space.name)
    channels = known.channels if known else scaled(paper.channels, space.full.channels)
    sides = scaled((known or paper).resolution, side or space.full.resolution)
    return Levels(channels, tuple(r for r in sides if r >= SMALLEST_SIDE) or sides[:1], (known or paper).samples)


def scaled(values: Sequence[int], full: int) -> tuple[int, ...]:
    """The same ratios, from `full` downwards; at least 1."""
    return tuple(max(1, math.floor(full * value / values[0] + 0.5)) for value in values)


def parse(text: str, space: SearchSpace, *, side: int | None = None, table: Levels | None = None) -> Proxy:
    """The proxy that `text` writes.

    Args:
        text: As c4r4s0e60: levels of channels, resolution, samples; number of epochs.
        space: Whose networks.
        side: Of the data set's images [pixels]; None: as published.
        table: Other levels than `levels(space, side)`.

    Raises:
        BadInput: It is not in this notation, or there is no such level.

    >>> from suite.spaces import SPACES
    >>> parse("c4r4s0e20", SPACES["nas_bench_201"])
    Proxy(epochs=20, channels=4, resolution=8, samples=1.0, cells=None)
    """
    found = re.fullmatch(r"c(\d+)r(\d+)s(\d+)e(\d+)", text.strip())
    if found is None:
        raise BadInput(f"not a proxy in EcoNAS's notation: {text!r}; one reads c4r4s0e60")
    c, r, s, epochs = map(int, found.groups())
    known = table or levels(space, side)
    return Proxy(
        epochs,
        at(known.channels, c, "c", text, space),
        at(known.resolution, r, "r", text, space),
        at(known.samples, s, "s", text, space),
    )


def at(values: Sequence[Value], level: int, factor: str, text: str, space: SearchSpace) -> Value:
    """The value of a level."""
    if level >= len(values):
        there = ", ".join(f"{factor}{i} = {value:g}" for i, value in enumerate(values))
        raise BadInput(f"{text}: {space.name} has no level {factor}{level}; there are {there}")
    return values[level]


def notation(proxy: Proxy, space: SearchSpace, *, side: int | None = None, table: Levels | None = None) -> str:
    """The name that EcoNAS gives a proxy: the reverse of `parse`.

    Raises:
        Unsupported: One of its values is no level, or it has a depth of its own, for which there is no letter.

    >>> from suite.spaces import SPACES
    >>> notation(Proxy(epochs=60, channels=4, resolution=8, samples=0.5), SPACES["nas_bench_201"])
    'c4r4s1e60'
    """
    known = table or levels(space, side)
    if space.canonical(proxy).cells is not None:
        raise Unsupported(f"{proxy}: EcoNAS's notation has no letter for the number of cells")
    if proxy.task:
        raise Unsupported(f"{proxy}: EcoNAS's notation has no letter for the task")
    words = []
    for factor, name in (("c", "channels"), ("r", "resolution"), ("s", "samples")):
        value, values = getattr(proxy, name), list(getattr(known, name))
        if value not in values:
            there = ", ".join(f"{v:g}" for v in values)
            raise Unsupported(f"{proxy}: {name} {value:g} is no level of {space.name}; there are {there}")
        words.append(f"{factor}{values.index(value)}")
    return "".join(words) + f"e{proxy.epochs}"


def theoretical_acceleration(proxy: Proxy, full: Proxy) -> float:
    """By how much less compute a training takes: EcoNAS's product of the factors' ratios.

    Width and side count squared, samples and epochs once. Counted multiply-adds fall less (stem and depthwise
    convolutions are linear in the width), and measured seconds much less: small networks leave a GPU idle.

    Raises:
        Unsupported: The two have different depths, which the product does not know.

    >>> theoretical_acceleration(Proxy(60, channels=9, resolution=8), Proxy(600, channels=36, resolution=32))
    2560.0
    """
    if proxy.cells != full.cells:
        raise Unsupported(f"{proxy} and {full} differ in depth, which EcoNAS's acceleration does not know")
    if proxy.task != full.task:
        raise Unsupported(f"{proxy} and {full} differ in their task, which EcoNAS's acceleration does not know")
    return (
        (full.channels / proxy.channels) ** 2
        * (full.resolution / proxy.resolution) ** 2
        * (full.samples / proxy.samples)
        * (full.epochs / proxy.epochs)
    )
