"""Costs of an operation on an edge, as SNAS counts them: parameters, multiply-adds, memory access.

Xie, Zheng, Liu, Lin. "SNAS: Stochastic Neural Architecture Search". ICLR 2019, section 2.3; the formulas are those of
the authors' code (SNAS/operations.py). https://arxiv.org/abs/1812.09926
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from suite.spaces import SearchSpace, darts, nas_bench_201
from suite.types import Proxy, Unsupported

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Position and size of a cell in the supernet."""

    kind: str
    """"cell", "normal" or "reduce"."""
    channels: int
    side: int
    """Side of the feature maps at its nodes [pixels]."""
    first: int
    """The first of its rows in the mixture."""
    halves: tuple[bool, ...]
    """Whether the edge of each of its rows has stride 2."""

    @property
    def rows(self) -> slice:
        """Its rows in the mixture."""
        return slice(self.first, self.first + len(self.halves))


def known(space: SearchSpace) -> bool:
    """Whether the paper's costs are defined for its operations."""
    return isinstance(space, nas_bench_201.NASBench201 | darts.DARTS | darts.DARTSEdges)


def places(space: SearchSpace, proxy: Proxy) -> list[Place]:
    """The cells of a network that mix, in its order.

    Raises:
        Unsupported: The paper's costs say nothing of this space.
    """
    if isinstance(space, nas_bench_201.NASBench201):
        still = (False,) * len(nas_bench_201.EDGES)
        stages = [(proxy.channels << stage, proxy.resolution >> stage) for stage in range(nas_bench_201.STAGES)]
        return [Place("cell", *stage, 0, still) for stage in stages for _ in range(space.depth(proxy))]
    if isinstance(space, darts.DARTS | darts.DARTSEdges):
        outputs, depth = (darts.NODES, darts.NODES), darts.depth(proxy)
        return [
            Place(
                darts.kind_of(cell), cell.channels, cell.side, len(darts.EDGES) * cell.reduction,
                tuple(darts.halves(cell, start) for start, _ in darts.EDGES),
            )
            for cell in darts.places(outputs, channels=proxy.channels, cells=depth, side=proxy.resolution)
        ]  # fmt: skip
    raise Unsupported(f"{space.name}: SNAS gives no resource costs of its operations; use eta = 0")


def cost(operation: str, channels: int, side: int, halves: bool = False) -> tuple[float, float, float]:
    """Parameters, multiply-adds and memory access of one operation.

    Args:
        operation: Its name in NAS-Bench-201 or in DARTS.
        channels: In and out.
        side: Of what it puts out [pixels].
        halves: Whether it has stride 2.

    >>> cost("sep_conv_3x3", 16, 32)
    (800.0, 819200.0, 131872.0)
    """
    c, pixels = channels, side**2
    name, _, window = operation.rpartition("_")
    if operation == "none":
        return 0.0, 0.0, 0.0
    if operation == "skip_connect" and not halves:
        return 0.0, 0.0, 2.0 * c * pixels
    if operation == "skip_connect":  # two 1x1 to half of the channels each
        return float(c * c), float(c * c * pixels), 2.0 * pixels * (4 * c + c // 2) + c * c
    k = int(window.partition("x")[0])
    if name in ("max_pool", "avg_pool"):
        return 0.0, 9.0 * pixels * c, (5.0 if halves else 2.0) * pixels * c
    if name == "nor_conv":
        size, moved = c * c * k * k, 2 * c
    elif name == "dil_conv":
        size, moved = c * k * k + c * c, (7 if halves else 4) * c
    elif name == "sep_conv":
        size, moved = 2 * c * k * k + 2 * c * c, (11 if halves else 8) * c
    else:
        raise Unsupported(f"{operation}: SNAS gives no resource cost of this operation")
    return float(size), float(size * pixels), float(pixels * moved + size)


def table(space: SearchSpace, proxy: Proxy) -> Array:
    """Costs of each option, shape (cells, rows, options, 3); 0 in rows that a cell does not have."""
    cells = places(space, proxy)
    options = nas_bench_201.OPERATIONS if isinstance(space, nas_bench_201.NASBench201) else darts.OPERATIONS
    costs = np.zeros((len(cells), max(cell.rows.stop for cell in cells), len(options), 3))
    for number, cell in enumerate(cells):
        costs[number, cell.rows] = [
            [cost(option, cell.channels, cell.side, halves) for option in options] for halves in cell.halves
        ]
    return costs


def shares(space: SearchSpace, proxy: Proxy, ratio: float = 1.0) -> Array:
    """Weight of each edge of a cell in the penalty, shape (cells, rows): a mean over the cells of each kind.

    Args:
        space: Of the supernet.
        proxy: Its size.
        ratio: What reduction cells count against the others.
    """
    cells = places(space, proxy)
    kinds = [cell.kind for cell in cells]
    counted = np.zeros((len(cells), max(cell.rows.stop for cell in cells)))
    for number, cell in enumerate(cells):
        counted[number, cell.rows] = (ratio if cell.kind == "reduce" else 1.0) / kinds.count(cell.kind)
    return counted
