"""Which networks a study is about: drawn at random, in strata of a quick score, all, or from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from suite.spaces import SearchSpace
from suite.spec.study import StudySpec
from suite.types import Architecture, BadInput

Quick: TypeAlias = Callable[[Sequence[Architecture]], Sequence[float]]
"""A score of many networks; higher is better."""
POOL = 20
"""Networks that are scored for each one drawn in strata."""


@dataclass(frozen=True)
class Stratum:
    """Networks of like quick score, and those of them that the study has."""

    low: float
    high: float
    pool: int
    drawn: int


def architectures(
    spec: StudySpec, space: SearchSpace, base: Path, quick: Quick | None = None,
    held: Sequence[Architecture] | None = None,
) -> tuple[Architecture, ...]:  # fmt: skip
    """The networks of a study, no two alike.

    Args:
        spec: Its part `architectures`.
        space: Whose networks.
        base: A folder that paths may be relative to.
        quick: The score that strata are made by, where the spec asks for some.
        held: What `all` means; None: the whole space.

    Raises:
        BadInput: Not exactly one of count, all and file is given; fewer than 3 networks; a line of the file is none.
    """
    part = spec.architectures
    if sum((part.count is not None, part.all, part.file is not None)) != 1:
        raise BadInput("architectures: give one of count, all = true, file")
    if (part.quick is not None or part.pool is not None) and part.count is None:
        raise BadInput("architectures: strata are drawn, so quick and pool need a count")
    if part.pool is not None and part.quick is None:
        raise BadInput('architectures: a pool is what a quick score chooses from; give quick, for example "params"')
    if part.file is not None:
        path = next((p for p in (base / part.file, Path(part.file)) if p.exists()), None)
        if path is None:
            raise BadInput(f"architectures: no file {part.file}, neither beside the spec nor here")
        archs = list(listed(path, space))
    elif part.all:
        archs = list(space) if held is None else list(held)
    else:
        assert part.count is not None
        if part.count > space.size:
            raise BadInput(f"architectures: {space.name} has {space.size} architectures, not {part.count}")
        rng = np.random.default_rng(spec.seed0)
        if part.quick is None:
            archs = drawn(space, part.count, rng)
        else:
            assert quick is not None
            archs, _ = stratified(spec, space, quick, rng)
    if len(archs) < 3:
        raise BadInput(f"architectures: a ranking needs at least 3 networks, not {len(archs)}")
    return tuple(archs)


def drawn(space: SearchSpace, count: int, rng: np.random.Generator) -> list[Architecture]:
    """So many different networks, all equally likely."""
    if space.size > 2**62:
        found: dict[Architecture, None] = {}
        while len(found) < count:
            found[space.sample(rng)] = None
        return list(found)
    return [space.at(int(i)) for i in rng.choice(space.size, count, replace=False)]


def stratified(
    spec: StudySpec, space: SearchSpace, quick: Quick, rng: np.random.Generator
) -> tuple[list[Architecture], list[Stratum]]:
    """As many networks from each stratum; a stratum is the better half of what the one before it left.

    With 4 strata: the worse half of the pool, its third quarter, then an eighth and the best eighth. So the best eighth
    has a quarter of the networks. Networks without a finite score count as the worst.
    """
    part = spec.architectures
    assert part.count is not None
    wanted = part.pool or POOL * part.count
    if wanted < part.count:
        raise BadInput(f"architectures: a pool of {wanted} is smaller than count = {part.count}")
    pool = drawn(space, min(wanted, space.size), rng)
    scores = np.array([score if math.isfinite(score) else -math.inf for score in quick(pool)])
    order = np.argsort(scores, kind="stable")  # worst first
    ends = [round(len(pool) * (1 - 0.5**k)) for k in range(1, part.strata)]
    archs, strata = [], []
    for number, places in enumerate(np.split(order, ends)):
        share = part.count * (number + 1) // part.strata - part.count * number // part.strata
        if share > len(places):
            raise BadInput(
                f"architectures: stratum {number + 1} of {part.strata} has {len(places)} networks, not {share}; "
                f"use fewer strata or a pool above {len(pool)}"
            )
        if share:
            chosen = rng.choice(places, share, replace=False)
            archs += [pool[int(i)] for i in chosen]
        strata.append(Stratum(float(scores[places].min()), float(scores[places].max()), len(places), share))
    return archs, strata


def listed(path: Path, space: SearchSpace) -> Iterator[Architecture]:
    """The architectures of a file, one text form a line; empty lines and those that begin with # are none.

    Raises:
        BadInput: A line is no architecture, or the same as an earlier one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: no text file: {error}") from None
    places: dict[Architecture, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.strip().startswith("#"):
            try:
                arch = space.parse(line.strip())
            except BadInput as error:
                raise BadInput(f"{path}:{number}: {error}") from None
            if (first := places.setdefault(arch, number)) != number:
                raise BadInput(
                    f"{path}:{number}: {line.strip()} stands in line {first} already; give each network once"
                )
            yield arch
