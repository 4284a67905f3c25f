"""Edges with one operation or several, the weights with which several are mixed, and what a network of mixtures is.

A stand-alone network and a supernet are the same modules: an edge of the first has one operation, of the second all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from suite.networks.dead_edges import State, alive
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput

Row: TypeAlias = tuple[Tensor | None, tuple[int, ...]]
"""One edge: a weight for each option, shape (options,), or (options, n, 1, 1, 1) if examples differ, or None for ones;
and the options that are computed."""

BATCH, CELLS, EACH = 2, 3, 4
"""Dimensions of weights that are the same everywhere, that differ by cell, that differ by example."""


@runtime_checkable
class Mixes(Protocol):
    """A module whose rows are mixtures of options: a `Supernet`, or what else a gradient search builds."""

    space: SearchSpace
    """Search space of its architectures."""
    shape: tuple[int, int]
    """(rows, options) of the weights."""
    valid: npt.NDArray[np.bool_]
    """Which options there are, shape (rows, options), bool; the weights of others are never looked at."""
    training: bool
    """Whether it is in training mode, as of any module."""

    @property
    def options(self) -> Sequence[str]:
        """Names of the options: the columns of the weights."""

    @property
    def groups(self) -> Mapping[str, slice]:
        """The rows of each kind of cell."""

    @property
    def cells(self) -> int:
        """Number of cells that mix."""

    def mix(self, weights: Tensor, mask: Tensor | npt.NDArray[np.bool_] | None = None) -> Mixes:
        """Compute the sum of all options, each times its weight, from now on; it returns itself.

        Shapes are (rows, options), (cells, rows, options) or (n, 1 | cells, rows, options); `Unsupported` is raised
        where cells or examples cannot differ.
        """

    def path(self, arch: Architecture) -> Mixes:
        """Compute the network of `arch` from now on; it returns itself."""

    def one_hot(self, arch: Architecture) -> Tensor:
        """The weights whose mixture is the network of `arch`, shape (rows, options)."""

    def derive(self, weights: Tensor) -> Architecture:
        """The architecture that is read from weights, shape (rows, options)."""

    def computed_macs(self) -> int:
        """Multiply-adds of one example forward, of what is mixed now."""

    def __call__(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The outputs of what is mixed now."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights that are trained, as of any module."""

    def modules(self) -> Iterator[nn.Module]:
        """Its modules and itself, as of any module."""

    def train(self, mode: bool = True) -> Any:
        """Enter training mode or leave it, as of any module."""

    def eval(self) -> Any:
        """Leave training mode, as of any module."""


class MixedEdge(nn.ModuleDict):
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

    def without_dead_edges(self, state: State, row: Row | None, like: Tensor) -> Tensor | None:
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
    """Shape (rows, options); (cells, rows, options) if cells differ; (n, 1 | cells, rows, options) if examples do.

    None: all that is computed counts 1."""
    active: tuple[tuple[int, ...], ...]
    """Of each row, the options that are computed."""

    def rows(self, cell: int, rows: slice) -> Sequence[Row]:
        """Of the edges of a cell, whose rows are `rows`."""
        active = self.active[rows]
        if self.weights is None:
            return [(None, options) for options in active]
        if self.weights.dim() == EACH:
            own = self.weights[:, cell if self.weights.shape[1] > 1 else 0, rows]  # (n, rows, options)
            each = own.permute(1, 2, 0)[..., None, None, None]  # (rows, options, n, 1, 1, 1)
            return list(zip(each.unbind(), active, strict=True))
        weights = self.weights[cell] if self.weights.dim() == CELLS else self.weights
        return list(zip(weights[rows].unbind(), active, strict=True))

    def check(self, images: int) -> None:
        """See that mixtures of each example are as many as the images.

        Raises:
            BadInput: They are not.
        """
        if self.weights is not None and self.weights.dim() == EACH and len(self.weights) != images:
            raise BadInput(
                f"supernet: {len(self.weights)} mixtures, one an example, do not fit {images} images; mix as many"
            )
