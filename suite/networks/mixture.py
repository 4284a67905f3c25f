"""Edges with one operation or several, and the weights with which several are mixed.

A stand-alone network and a supernet are the same modules: an edge of the first has one operation, of the second all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from suite.networks.dead_edges import State, alive

Row: TypeAlias = tuple[Tensor | None, tuple[int, ...]]
"""Of one edge: a weight for each option, shape (options,), or None for ones; and the options that are computed."""


class Choice(nn.ModuleDict):
    """The operations of an edge, by name."""

    def forward(self, x: Tensor, row: Row | None = None) -> Tensor | None:
        """The only operation's output, or with a `row` the weighted sum of the options that it names; None of none."""
        operations = list(self.values())
        if row is None:
            alone: Tensor = operations[0](x)
            return alone
        weights, active = row
        total: Tensor | None = None
        for option in active:
            output = operations[option](x)
            if weights is not None:
                output = weights[option] * output
            total = output if total is None else total + output
        return total

    def lean(self, state: State, row: Row | None, like: Tensor) -> Tensor | None:
        """As `forward`, of what has to be computed; None: nothing arrives. `like` has the shape of what does."""
        operations = list(self.values())
        if row is None:
            return state.through(operations[0], like)
        weights, active = row
        total: Tensor | None = None
        for option in active:
            output = state.through(operations[option], like)
            if output is None:
                continue
            if weights is not None:
                output = weights[option] * output
            total = output if total is None else total + output
        return total

    def alive(self, row: Row | None) -> bool:
        """Whether something may arrive."""
        return alive(list(self.values()), (0,) if row is None else row[1])


@dataclass(frozen=True)
class Mixture:
    """What a supernet computes: which options of each row, and their weights."""

    weights: Tensor | None
    """Shape (rows, options), or (cells, rows, options) if cells differ; None: all that is computed counts 1."""
    active: tuple[tuple[int, ...], ...]
    """Of each row, the options that are computed."""

    def rows(self, cell: int, rows: slice) -> Sequence[Row]:
        """Of the edges of a cell, whose rows are `rows`."""
        active = self.active[rows]
        if self.weights is None:
            return [(None, options) for options in active]
        weights = self.weights[cell] if self.weights.dim() == 3 else self.weights
        return list(zip(weights[rows].unbind(), active, strict=True))
