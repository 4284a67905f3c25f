"""The lines that the supernets of all spaces share: a row for each decision, a column for each option.

`MixedEdges` is for cells, whose edges have costs that add up; `MixedNetwork` for rows of widths, depths and kernels,
which share weights, so that the cost of an option depends on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Ends, Proxy, Unsupported

Active: TypeAlias = Sequence[Sequence[int]]
"""The options of each row that are computed."""


@dataclass(frozen=True)
class CostTable:
    """A cost that adds up over edges."""

    skeleton: int
    """What every network has."""
    edges: npt.NDArray[np.int64]
    """What an option adds, over all cells, shape (rows, options)."""


class MixedDecisions:
    """A supernet whose rows are the decisions of its space; a space adds the network and whatever differs.

    Args:
        standalone: Makes the network of an architecture, its weights named as in the supernet.
        groups: The rows of each kind of cell.
    """

    edges: SearchSpace
    """The space whose decisions the rows are."""

    def __init__(self, standalone: Callable[..., nn.Module], groups: Mapping[str, slice]) -> None:
        self.standalone, self.groups = standalone, groups

    @property
    def counts(self) -> tuple[int, ...]:
        """Options of each decision, the first of `options`."""
        return self.edges.decisions

    def rows(self) -> list[int]:
        """The decision that each row is."""
        return list(range(len(self.edges.decisions)))

    def cells(self, proxy: Proxy) -> int:
        """One, as no part of the network is there twice."""
        return 1

    def chosen(self, arch: Architecture) -> Iterator[tuple[int, int]]:
        """(row, option) of each decision of `arch`."""
        return iter(enumerate(arch))

    def derive(self, weights: npt.NDArray[np.floating[Any]]) -> Architecture:
        """The strongest option of each decision."""
        return tuple(int(row[:count].argmax()) for row, count in zip(weights, self.counts, strict=True))


class MixedEdges(MixedDecisions):
    """A supernet whose rows are edges: every option has weights of its own, and costs add up."""

    def narrow(self, arch: Architecture, proxy: Proxy, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The supernet's tensors as they are: those of the stand-alone network have the same names and shapes."""
        return state

    def costs(self, metric: str, proxy: Proxy, *, ends: Ends) -> CostTable:
        """A cost that the space knows by formula ("macs", "params"), for each option of each row."""
        return added(self.edges, tuple(self.rows()), metric, proxy, ends)

    def computed_macs(self, proxy: Proxy, active: Active, *, ends: Ends) -> int:
        """Multiply-adds of one image forward where these options of each row are computed."""
        table = self.costs("macs", proxy, ends=ends)
        return table.skeleton + int(sum(table.edges[row, option] for row, some in enumerate(active) for option in some))

    def check(self, active: Active) -> None:
        """Any options may be computed, none of an edge too."""


class MixedNetwork(MixedDecisions):
    """A supernet whose rows share weights; a space adds `narrow` and `computed_macs`."""

    def costs(self, metric: str, proxy: Proxy, *, ends: Ends) -> CostTable:
        """There is no table.

        Raises:
            Unsupported: Always.
        """
        name = self.edges.name
        raise Unsupported(
            f"{name}: the {metric} of an option depend on the other rows, so there is no table of them; "
            f"ask {name}.{metric}(arch, proxy)"
        )

    def check(self, active: Active) -> None:
        """See that each row has an option.

        Raises:
            BadInput: One has none.
        """
        if not all(active):
            raise BadInput(f"supernet: the mask leaves row {[*active].index(())} no option; it needs at least one")


@cache
def added(edges: SearchSpace, rows: tuple[int, ...], metric: str, proxy: Proxy, ends: Ends) -> CostTable:
    """What the options of a space of edges, in which option 0 costs nothing, add to the skeleton."""

    def cost(arch: Architecture) -> int:
        return int(getattr(edges, metric)(arch, proxy, ends=ends))

    nothing = (0,) * len(edges.decisions)
    skeleton = cost(nothing)
    table = [
        [cost((*nothing[:row], option, *nothing[row + 1 :])) - skeleton for option in range(count)]
        for row, count in enumerate(edges.decisions)
    ]
    return CostTable(skeleton, np.array(table, np.int64)[list(rows)])
