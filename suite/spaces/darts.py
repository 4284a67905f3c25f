"""The cells of DARTS: a normal and a reduction cell, four nodes each, repeated in a network of 20.

Liu, Simonyan, Yang. "DARTS: Differentiable Architecture Search". ICLR 2019. https://arxiv.org/abs/1806.09055

States 0 and 1 of a cell are the outputs of the two cells before it, states 2 to 5 its nodes; a node is the sum of
operations on earlier states, and the cell's output puts states side by side, the nodes unless said otherwise. A cell
has 14 edges (from, to). What papers make of them are three spaces here:

- `darts`: each node has two different inputs, no operation is `none`: what DARTS derives. 1.08e18 architectures.
- `darts_econas`: each node has two inputs, the same one twice too, `none` is an operation: where EcoNAS searches.
- `darts_edges`: each of the 14 edges has an operation or `none`: what SNAS derives.

The decisions of each are so that every combination is valid: nothing has to be masked, drawn again or repaired.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, permutations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from suite.spaces.base import SearchSpace
from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy, Unsupported

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""In DARTS's order."""
INPUTS = 2
NODES = 4
STATES = INPUTS + NODES
EDGES = tuple((start, end) for end in range(INPUTS, STATES) for start in range(end))
"""(from, to) of the 14 edges, in the order of DARTS's mixture weights."""
ALL_NODES = tuple(range(INPUTS, STATES))
PAIRS = {end: tuple(combinations(range(end), 2)) for end in range(INPUTS, STATES)}
"""The two inputs that a node can have, where they are to differ."""
CELLS = ("normal", "reduce")
STEM = 3
"""The stem has so many times the width of the first cell."""
KERNEL_AREA = {"sep_conv_3x3": 9, "sep_conv_5x5": 25, "dil_conv_3x3": 9, "dil_conv_5x5": 25}

Chosen = tuple[tuple[str, int], ...]
"""(operation, input) of one kind of cell: two a node, or one of each edge."""


class Edge(NamedTuple):
    """An operation between two states; edges of the same name in two networks share their weights."""

    name: str
    start: int
    end: int
    operation: str


@dataclass(frozen=True)
class Place:
    """Where a cell stands in the network."""

    reduction: bool
    after_reduction: bool
    """Whether state 0 comes with twice the side of state 1."""
    inputs: tuple[int, int]
    """Channels of states 0 and 1 as they come."""
    channels: int
    side: int
    """Of its nodes."""


@dataclass(frozen=True)
class Genotype:
    """Two cells, with the states that make up their outputs, as DARTS's code writes them.

    Raises:
        BadInput: It is not of two cells of four nodes.

    >>> str(DARTS_V2)[:58]
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
    >>> Genotype.read(str(DARTS_V2)) == DARTS_V2
    True
    >>> DARTS_V2.params(Proxy(600, channels=36, resolution=32))
    3349342
    """

    normal: Chosen
    normal_concat: tuple[int, ...]
    reduce: Chosen
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for kind in CELLS:
            chosen, concat = self.chosen(kind), self.concat(kind)
            if len(chosen) not in (2 * NODES, len(EDGES)):
                raise BadInput(
                    f"genotype: {kind} has {len(chosen)} pairs; there are two for each of {NODES} nodes, "
                    f"or one for each of {len(EDGES)} edges"
                )
            for (operation, start), end in zip(chosen, ends(chosen), strict=True):
                if operation not in OPERATIONS:
                    raise BadInput(f"genotype: no operation {operation!r}; there are {', '.join(OPERATIONS)}")
                if not 0 <= start < end:
                    raise BadInput(f"genotype: node {end} of {kind} has inputs 0..{end - 1}, not {start}")
            if len(chosen) == len(EDGES) and tuple(start for _, start in chosen) != tuple(start for start, _ in EDGES):
                raise BadInput(f"genotype: the {len(EDGES)} edges of {kind} must be in the order of their ends, starts")
            first = INPUTS if kind == "reduce" else 0  # inputs of a reduction cell are larger than its nodes
            if not concat or list(concat) != sorted(set(concat)) or not first <= concat[0] <= concat[-1] < STATES:
                raise BadInput(
                    f"genotype: {kind}_concat must be rising states out of {first}..{STATES - 1}, not {list(concat)}"
                )

    def chosen(self, kind: str) -> Chosen:
        """(operation, input) of "normal" or "reduce"."""
        return self.reduce if kind == "reduce" else self.normal

    def concat(self, kind: str) -> tuple[int, ...]:
        """The states that make up the output of "normal" or "reduce"."""
        return self.reduce_concat if kind == "reduce" else self.normal_concat

    def edges(self, kind: str) -> tuple[Edge, ...]:
        """The operations of "normal" or "reduce", each with its name.

        The name is that of one of the 14 edges; a node's second operation on the same input is another edge.
        """
        found: dict[str, Edge] = {}
        for (operation, start), end in zip(self.chosen(kind), ends(self.chosen(kind)), strict=True):
            number = EDGES.index((start, end))
            name = f"again{number}" if f"edge{number}" in found else f"edge{number}"
            found[name] = Edge(name, start, end, operation)
        return tuple(found.values())

    def __str__(self) -> str:
        parts = []
        for kind in CELLS:
            concat = self.concat(kind)
            written = f"range({INPUTS}, {STATES})" if concat == ALL_NODES else str(list(concat))
            parts.append(f"{kind}={list(self.chosen(kind))}, {kind}_concat={written}")
        return f"Genotype({', '.join(parts)})"

    @classmethod
    def read(cls, text: str) -> Genotype:
        """The genotype that `text` writes; a name and = may stand before it.

        Raises:
            BadInput: It writes none.
        """
        wrong = BadInput(f"not a genotype: {text.strip()[:80]!r}; one reads {str(DARTS_V2)[:50]} ...")
        try:
            body = ast.parse(text.strip()).body
            call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr | ast.Assign) else None
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise wrong from None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
            raise wrong
        names = ("normal", "normal_concat", "reduce", "reduce_concat")
        given = dict(zip(names, call.args, strict=False)) | {str(word.arg): word.value for word in call.keywords}
        if len(call.args) + len(call.keywords) != len(names) or set(given) != set(names):
            raise wrong
        try:
            return cls(
                pairs(given["normal"]), numbers(given["normal_concat"]),
                pairs(given["reduce"]), numbers(given["reduce_concat"]),
            )  # fmt: skip
        except (ValueError, TypeError, RecursionError, MemoryError):
            raise wrong from None

    def live(self, kind: str) -> tuple[Edge, ...]:
        """The operations of "normal" or "reduce" on a path from an input to the output; never `none`."""
        there = [edge for edge in self.edges(kind) if edge.operation != "none"]
        reached, needed = set(range(INPUTS)), set(self.concat(kind))
        for edge in there:  # by their ends
            if edge.start in reached:
                reached.add(edge.end)
        for edge in reversed(there):
            if edge.end in needed:
                needed.add(edge.start)
        return tuple(edge for edge in there if edge.start in reached and edge.end in needed)

    def isomorphism(self) -> tuple[Hashable, Hashable]:
        """The same for two networks that differ in the order of nodes, of a node's inputs, or in dead operations."""
        return self._least("normal"), self._least("reduce")

    def _least(self, kind: str) -> Hashable:
        """The least way to number the nodes of a cell."""
        live, concat = self.live(kind), self.concat(kind)
        ways = []
        for order in permutations(range(INPUTS, STATES)):
            number = {**{state: state for state in range(INPUTS)}, **dict(zip(order, ALL_NODES, strict=True))}
            if all(number[edge.start] < number[edge.end] for edge in live):
                edges = sorted((number[edge.end], number[edge.start], edge.operation) for edge in live)
                ways.append((tuple(sorted(number[state] for state in concat)), tuple(edges)))
        return min(ways)

    def places(self, *, channels: int, cells: int, side: int) -> list[Place]:
        """The cells of the network."""
        return places((len(self.normal_concat), len(self.reduce_concat)), channels=channels, cells=cells, side=side)

    def params(self, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters of the network, without auxiliary head; those of all operations, used or not."""
        stem = STEM * proxy.channels
        total = 9 * ends.inputs * stem + 2 * stem
        for place in self.places(channels=proxy.channels, cells=depth(proxy), side=proxy.resolution):
            width = place.channels
            total += sum(place.inputs) * width + 4 * width
            for edge in self.edges(kind_of(place)):
                once = KERNEL_AREA.get(edge.operation, 0) * width + width * width + 2 * width
                if edge.operation.startswith("sep_conv"):
                    total += 2 * once
                elif edge.operation.startswith("dil_conv"):
                    total += once
                elif edge.operation == "skip_connect" and halves(place, edge.start):
                    total += width * width + 2 * width
        features = width * len(self.concat(kind_of(place)))
        return total + ends.head_size(features)

    def macs(self, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of convolutions and classifier, its bias too, in one forward pass of one image."""
        total = 9 * ends.inputs * STEM * proxy.channels * proxy.resolution**2
        for place in self.places(channels=proxy.channels, cells=depth(proxy), side=proxy.resolution):
            width, pixels = place.channels, place.side**2
            arriving = 4 * pixels if place.reduction else pixels  # both inputs have the side of state 1
            total += sum(place.inputs) * width * arriving
            for edge in self.edges(kind_of(place)):
                once = (KERNEL_AREA.get(edge.operation, 0) * width + width * width) * pixels
                if edge.operation.startswith("sep_conv"):
                    total += 2 * once
                elif edge.operation.startswith("dil_conv"):
                    total += once
                elif edge.operation == "skip_connect" and halves(place, edge.start):
                    total += width * width * pixels
        features = width * len(self.concat(kind_of(place)))
        return total + ends.head_size(features, pixels)


def ends(chosen: Sequence[Any]) -> Iterator[int]:
    """The node of each pair."""
    if len(chosen) == len(EDGES):
        return (end for _, end in EDGES)
    return (INPUTS + place // 2 for place in range(len(chosen)))


def pairs(node: ast.expr) -> Chosen:
    """[('operation', input), ...] as it was written; ValueError if it was something else."""
    value = ast.literal_eval(node)
    if not isinstance(value, list | tuple):
        raise ValueError
    chosen = []
    for operation, start in value:
        if not isinstance(operation, str) or type(start) is not int:
            raise ValueError
        chosen.append((operation, start))
    return tuple(chosen)


def numbers(node: ast.expr) -> tuple[int, ...]:
    """[2, 3, ...] or range(2, 6) as it was written; ValueError if it was something else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords:
        bounds = [ast.literal_eval(bound) for bound in node.args]
        if len(bounds) in (1, 2) and all(type(bound) is int and 0 <= bound <= STATES for bound in bounds):
            return tuple(range(*bounds))
        raise ValueError
    value = ast.literal_eval(node)
    if not isinstance(value, list | tuple) or any(type(number) is not int for number in value):
        raise ValueError
    return tuple(value)


def depth(proxy: Proxy) -> int:
    """Cells of the network."""
    return _Cells.cells if proxy.cells is None else proxy.cells


def kind_of(place: Place) -> str:
    """Of the cell that stands there."""
    return "reduce" if place.reduction else "normal"


def halves(place: Place, start: int) -> bool:
    """Whether an edge from that state goes from larger images to smaller ones."""
    return place.reduction and start < INPUTS


def places(multipliers: tuple[int, int], *, channels: int, cells: int, side: int) -> list[Place]:
    """The cells of a network: reductions, which double the width, at a third and two thirds of its depth.

    Args:
        multipliers: States in the output of a normal and of a reduction cell.
        channels: Width of the first cell.
        cells: Depth.
        side: Of the images [pixels].
    """
    found: list[Place] = []
    before, last, after_reduction = STEM * channels, STEM * channels, False
    for number in range(cells):
        reduction = number in (cells // 3, 2 * cells // 3)
        if reduction:
            channels, side = 2 * channels, side // 2
        found.append(Place(reduction, after_reduction, (before, last), channels, side))
        before, last, after_reduction = last, multipliers[reduction] * channels, reduction
    return found


def grouped(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Consecutive slices of these lengths."""
    return tuple(slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True))


class _Cells(SearchSpace):
    """What the three spaces share: network, text form, counts."""

    full = Proxy(epochs=600, channels=36, resolution=32)
    cells: int = 20
    operations = (*OPERATIONS[1:], "output")
    inputs = INPUTS

    @abstractmethod
    def genotype(self, arch: Architecture) -> Genotype:
        """The cells of an architecture."""

    @abstractmethod
    def chosen(self, genotype: Genotype) -> Architecture:
        """The architecture of cells; BadInput if they are not of this space."""

    def isomorphism(self, arch: Architecture) -> Hashable:
        """The cells up to the order of nodes and inputs, and without operations that reach no output."""
        return self.genotype(arch).isomorphism()

    def adjacency(self, archs: Sequence[Architecture]) -> npt.NDArray[np.float32]:
        """Two cells of six states and an output, shape (n, 2, 7, 7, 8); `output` leads from the states put together.

        Operations on no path from input to output are no edges.
        """
        edges = np.zeros((len(archs), len(CELLS), STATES + 1, STATES + 1, len(self.operations)), dtype=np.float32)
        number = {operation: place for place, operation in enumerate(self.operations)}
        for row, arch in enumerate(archs):
            genotype = self.genotype(arch)
            for cell, kind in enumerate(CELLS):
                for edge in genotype.live(kind):
                    edges[row, cell, edge.start, edge.end, number[edge.operation]] += 1
                edges[row, cell, list(genotype.concat(kind)), STATES, number["output"]] = 1
        return edges

    def text(self, arch: Architecture) -> str:
        """DARTS's notation of a genotype."""
        return str(self.genotype(arch))

    def parse(self, text: str) -> Architecture:
        """The architecture of a genotype; the pairs of a node may stand in either order."""
        try:
            genotype = Genotype.read(text)
            arch = self.chosen(genotype)
        except BadInput as refusal:
            raise BadInput(f"{self.name}: {refusal}") from None
        for kind in CELLS:
            ours = self.genotype(arch).concat(kind)
            if genotype.concat(kind) != ours:
                raise BadInput(
                    f"{self.name}: {kind}_concat is {list(ours)} by this space's rule, not "
                    f"{list(genotype.concat(kind))}"
                )
        return arch

    def check_proxy(self, proxy: Proxy) -> None:
        """The image is halved twice, so its side is a multiple of 4; two reductions and a normal cell are the least."""
        self._check_quarters(proxy, "two strides of 2")
        if depth(proxy) < 3:
            raise Unsupported(f"{self.name}: {depth(proxy)} cells are too few for two reductions; use at least 3")

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters, without auxiliary head."""
        return self.genotype(arch).params(proxy, ends=ends)

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of convolutions and classifier, one image forward."""
        self.check_proxy(proxy)
        return self.genotype(arch).macs(proxy, ends=ends)


class DARTS(_Cells):
    """Two different inputs a node, seven operations, all nodes in the output: what DARTS derives.

    A node's decisions are the pair of its inputs, where there is more than one, and an operation for the earlier and
    for the later input.

    >>> space = DARTS()
    >>> space.genotype(space.parse(str(DARTS_V1))).normal[2:4]
    (('skip_connect', 0), ('sep_conv_3x3', 1))
    >>> f"{space.size:.3g}"
    '1.08e+18'
    """

    name = "darts"
    decisions = tuple(
        options for _ in CELLS for end in PAIRS for options in (len(PAIRS[end]), 7, 7) if options > 1
    )  # fmt: skip
    levels = grouped([2 + (len(PAIRS[end]) > 1) for _ in CELLS for end in PAIRS])
    paper = "Liu et al., ICLR 2019, arXiv:1806.09055"

    def genotype(self, arch: Architecture) -> Genotype:
        """The cells of an architecture."""
        self.check(arch)
        options = iter(arch)
        cells = []
        for _ in CELLS:
            chosen = []
            for inputs in PAIRS.values():
                pair = inputs[next(options)] if len(inputs) > 1 else inputs[0]
                chosen += [(OPERATIONS[1 + next(options)], start) for start in pair]
            cells.append(tuple(chosen))
        return Genotype(cells[0], ALL_NODES, cells[1], ALL_NODES)

    def chosen(self, genotype: Genotype) -> Architecture:
        """The architecture of cells."""
        arch: list[int] = []
        for kind in CELLS:
            chosen = two_a_node(genotype, kind)
            for place, (end, inputs) in enumerate(PAIRS.items()):
                pair = sorted(chosen[2 * place : 2 * place + 2], key=lambda one: one[1])
                starts = (pair[0][1], pair[1][1])
                if starts not in inputs:
                    raise BadInput(f"genotype: node {end} of {kind} has input {starts[0]} twice; two must differ")
                if len(inputs) > 1:
                    arch.append(inputs.index(starts))
                for operation, _ in pair:
                    if operation == "none":
                        raise BadInput(f"genotype: 'none' in {kind}; there are {', '.join(OPERATIONS[1:])}")
                    arch.append(OPERATIONS.index(operation) - 1)
        return tuple(arch)

    def strongest(self, weights: npt.NDArray[np.floating[Any]]) -> Architecture:
        """DARTS's derivation: a node keeps its two strongest edges, each with its strongest operation but `none`.

        Args:
            weights: Shape (28, 8): the edges of the normal cell, then of the reduction cell, in the order of `EDGES`;
                operations in the order of `OPERATIONS`. `none` counts through the softmax alone.
        """
        cells: list[Chosen] = []
        for rows in np.split(np.asarray(weights), len(CELLS)):
            kept: list[tuple[str, int]] = []
            for end in range(INPUTS, STATES):
                node = rows[[number for number, (_, stop) in enumerate(EDGES) if stop == end], 1:]  # (inputs, 7)
                for start in np.argsort(-node.max(axis=1), kind="stable")[:2]:
                    kept.append((OPERATIONS[1 + int(node[start].argmax())], int(start)))
            cells.append(tuple(kept))
        return self.chosen(Genotype(cells[0], ALL_NODES, cells[1], ALL_NODES))


class DARTSEcoNAS(_Cells):
    """Two inputs a node, the same one twice too, eight operations: where EcoNAS searches.

    Zhou et al. "EcoNAS: Finding Proxies for Economical Neural Architecture Search". CVPR 2020.
    https://arxiv.org/abs/2001.01233

    The 16 (input, operation) slots are decisions of their own, so `mutate` is the paper's: a new input or a new
    operation with equal chance, in a slot drawn from all.

    Args:
        concat: "unused": the output of a cell are its states that feed no node, the paper's rule, which may hold
            inputs; those of a reduction cell, on which the authors' code fails, are left out. "all": the nodes, as in
            DARTS; that space is called `darts_econas_all`.
    """

    decisions = tuple(options for _ in CELLS for end in range(INPUTS, STATES) for options in 2 * (end, len(OPERATIONS)))
    levels = grouped([4] * len(CELLS) * NODES)
    paper = "Zhou et al., CVPR 2020, arXiv:2001.01233"

    def __init__(self, concat: str = "unused") -> None:
        if concat not in ("unused", "all"):
            raise BadInput(f"darts_econas: concat is unused or all, not {concat!r}")
        self.rule = concat
        self.name = "darts_econas" if concat == "unused" else "darts_econas_all"

    def genotype(self, arch: Architecture) -> Genotype:
        """The cells of an architecture."""
        self.check(arch)
        slots = [(OPERATIONS[operation], start) for start, operation in zip(arch[::2], arch[1::2], strict=True)]
        normal, reduce = tuple(slots[: 2 * NODES]), tuple(slots[2 * NODES :])
        return Genotype(normal, self.concat(normal, 0), reduce, self.concat(reduce, INPUTS))

    def concat(self, chosen: Chosen, first: int) -> tuple[int, ...]:
        """The states of a cell's output, out of `first` and later ones."""
        if self.rule == "all":
            return ALL_NODES
        return tuple(sorted(set(range(first, STATES)) - {start for _, start in chosen}))

    def chosen(self, genotype: Genotype) -> Architecture:
        """The architecture of cells."""
        return tuple(
            option
            for kind in CELLS
            for operation, start in two_a_node(genotype, kind)
            for option in (start, OPERATIONS.index(operation))
        )


class DARTSEdges(_Cells):
    """Each of the 14 edges has one of eight operations, `none` too: what SNAS derives.

    Xie, Zheng, Liu, Lin. "SNAS: Stochastic Neural Architecture Search". ICLR 2019. https://arxiv.org/abs/1812.09926
    """

    name = "darts_edges"
    decisions = (len(OPERATIONS),) * len(CELLS) * len(EDGES)
    levels = grouped([end for _ in CELLS for end in range(INPUTS, STATES)])
    paper = "Xie et al., ICLR 2019, arXiv:1812.09926"

    def genotype(self, arch: Architecture) -> Genotype:
        """The cells of an architecture."""
        self.check(arch)
        edges = [(OPERATIONS[option], start) for option, (start, _) in zip(arch, EDGES * len(CELLS), strict=True)]
        return Genotype(tuple(edges[: len(EDGES)]), ALL_NODES, tuple(edges[len(EDGES) :]), ALL_NODES)

    def chosen(self, genotype: Genotype) -> Architecture:
        """The architecture of cells; edges that a genotype of two a node does not have are `none`."""
        arch = []
        for kind in CELLS:
            there = {(edge.start, edge.end): OPERATIONS.index(edge.operation) for edge in genotype.edges(kind)}
            if any(edge.name.startswith("again") for edge in genotype.edges(kind)):
                raise BadInput(f"genotype: a node of {kind} has an input twice; here an edge has one operation")
            arch += [there.get(edge, 0) for edge in EDGES]
        return tuple(arch)

    def strongest(self, weights: npt.NDArray[np.floating[Any]]) -> Architecture:
        """SNAS's derivation: the strongest operation of every edge; `weights` as in `DARTS.strongest`."""
        return tuple(int(option) for option in np.asarray(weights).argmax(axis=1))


def two_a_node(genotype: Genotype, kind: str) -> Chosen:
    """The pairs of a genotype that has two a node; BadInput if it has all edges."""
    chosen = genotype.chosen(kind)
    if len(chosen) != 2 * NODES:
        raise BadInput(f"genotype: {kind} has {len(chosen)} pairs; here it is two for each of {NODES} nodes")
    return chosen


DARTS_V1 = Genotype(
    normal=(
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2),
    ),
    normal_concat=ALL_NODES,
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0),
    ),
    reduce_concat=ALL_NODES,
)  # fmt: skip
"""What DARTS of first order found."""
DARTS_V2 = Genotype(
    normal=(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    normal_concat=ALL_NODES,
    reduce=(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
    reduce_concat=ALL_NODES,
)  # fmt: skip
"""What DARTS of second order found."""
ECONAS = Genotype(
    normal=(
        ("skip_connect", 0), ("skip_connect", 1), ("sep_conv_5x5", 2), ("dil_conv_3x3", 2),
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 0), ("sep_conv_5x5", 4), ("skip_connect", 2),
    ),
    normal_concat=ALL_NODES,
    reduce=(
        ("dil_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2), ("avg_pool_3x3", 0),
        ("avg_pool_3x3", 3), ("max_pool_3x3", 1), ("sep_conv_5x5", 0), ("max_pool_3x3", 0),
    ),
    reduce_concat=(3, 4, 5),
)  # fmt: skip
"""What EcoNAS released, its outputs as written there; by its own rule they would be states 3, 5 and 4, 5."""
