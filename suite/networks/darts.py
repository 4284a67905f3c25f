"""The networks of DARTS's cells: for images of about 32 pixels, as in the evaluation on CIFAR-10.

Liu, Simonyan, Yang. "DARTS: Differentiable Architecture Search". ICLR 2019. https://arxiv.org/abs/1806.09055

A 3x3 stem of three times the width, with a norm; the cells; mean over the image, classifier. A cell first brings both
of its inputs to its width: ReLU, 1x1, norm; or a factorised reduction, where state 0 is larger than state 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.dead_edges import State, Zero, reaching
from suite.networks.mixed import MixedEdges
from suite.networks.mixture import MixedEdge, Mixture, Row
from suite.networks.operations import OPERATIONS, PLAIN, FactorizedReduce, Norms, ReLUConvBN, answer, classifier
from suite.spaces import darts as space
from suite.types import Architecture, Ends, Proxy, Unsupported

AUXILIARY_SIDE = 8
"""Of the images that reach the auxiliary head [pixels]."""
EDGE_ROWS = {kind: slice(i * len(space.EDGES), (i + 1) * len(space.EDGES)) for i, kind in enumerate(space.CELLS)}
SLOT_ROWS = {kind: slice(2 * rows.start, 2 * rows.stop) for kind, rows in EDGE_ROWS.items()}


@dataclass
class DropPath:
    """Operations that are left out at random while training, for each image anew; the others are scaled up."""

    probability: float = 0.0
    generator: torch.Generator | None = None
    """Of a CPU; None is torch's global one."""

    def __call__(self, x: Tensor) -> Tensor:
        """The same shape (n, channels, h, w), zero for some of the n."""
        keep = 1 - self.probability
        kept = torch.bernoulli(torch.full((len(x), 1, 1, 1), keep), generator=self.generator)
        return x / keep * kept.to(x.device, x.dtype, non_blocking=True)


@dataclass(frozen=True)
class Slot:
    """Where operations stand in a cell: one in a stand-alone network, all in a supernet."""

    name: str
    start: int
    end: int
    operations: tuple[str, ...]


class Cell(nn.Module):
    """Four nodes, each a sum of operations on earlier states, and the states that make up the output.

    Weights are called edge<number of (from, to)>.<operation>.*, those of a node's second operation on one input
    again<number>.<operation>.*
    """

    def __init__(
        self, slots: Sequence[Slot], concat: tuple[int, ...], place: space.Place, drop_path: DropPath, norms: Norms
    ) -> None:
        super().__init__()
        width = place.channels
        self.preprocess0: nn.Module = (
            FactorizedReduce(place.inputs[0], width, norm=norms.inside(width))
            if place.after_reduction
            else ReLUConvBN(place.inputs[0], width, 1, norm=norms.inside(width))
        )
        self.preprocess1 = ReLUConvBN(place.inputs[1], width, 1, norm=norms.inside(width))
        self.steps: list[tuple[int, int, int, MixedEdge]] = []
        for number, slot in enumerate(slots):
            stride = 2 if space.halves(place, slot.start) else 1
            edge = MixedEdge({name: OPERATIONS[name](width, stride, norms) for name in slot.operations})
            self.add_module(slot.name, edge)
            self.steps.append((number, slot.start, slot.end, edge))
        self.concat, self.drop_path = concat, drop_path
        self.nothing = Zero(2 if place.reduction else 1)

    def forward(self, before: Tensor, last: Tensor, rows: Sequence[Row] | None = None) -> Tensor:
        """The outputs of the two cells before it to (n, channels x states, h, w)."""
        states = [self.preprocess0(before), self.preprocess1(last)]
        for node in range(space.INPUTS, space.STATES):
            total: Tensor | None = None
            for number, start, end, edge in self.steps:
                if end != node:
                    continue
                arriving = edge(states[start], None if rows is None else rows[number])
                if arriving is None:
                    continue
                if self.training and self.drop_path.probability and (rows is not None or not is_identity(edge)):
                    arriving = self.drop_path(arriving)
                total = arriving if total is None else total + arriving
            states.append(self.nothing(states[0]) if total is None else total)
        return torch.cat([states[state] for state in self.concat], dim=1)

    def reaching(self, rows: Sequence[Row] | None) -> set[int]:
        """The states that its output depends on; one input at least, for the output's shape."""
        alive = [edge.alive(None if rows is None else rows[number]) for number, _, _, edge in self.steps]
        steps = zip(self.steps, alive, strict=True)
        found = reaching([(start, end) for (_, start, end, _), living in steps if living], self.concat)
        return found if found & {0, 1} else {*found, 1}

    def without_dead_edges(
        self, before: Tensor | None, last: Tensor | None, rows: Sequence[Row] | None = None
    ) -> Tensor:
        """As `forward`, without what cannot reach the output, and with shared work done once.

        An input that the output does not depend on may be None.
        """
        needed = self.reaching(rows)
        inputs = zip((before, last), (self.preprocess0, self.preprocess1), strict=True)
        arrived = [bring(x) if state in needed and x is not None else None for state, (x, bring) in enumerate(inputs)]
        states = [State(arrived[state] if state < space.INPUTS else None, share=rows is not None)
                  for state in range(space.STATES)]  # fmt: skip
        like = next(x for x in arrived if x is not None)[:, :, :: self.nothing.stride, :: self.nothing.stride]
        for node in range(space.INPUTS, space.STATES):
            for number, start, end, edge in self.steps:
                if end == node and node in needed:
                    row = None if rows is None else rows[number]
                    states[node].add(edge.without_dead_edges(states[start], row, like))
        values = [states[state].value for state in self.concat]
        return torch.cat([torch.zeros_like(like) if value is None else value for value in values], dim=1)


def is_identity(edge: MixedEdge) -> bool:
    """Whether its only operation hands on what it gets; such are never dropped."""
    return isinstance(next(iter(edge.values())), nn.Identity)


class AuxiliaryHead(nn.Module):
    """A second classifier, on 8 x 8 pixels."""

    def __init__(self, inputs: int, classes: int, norms: Norms) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 128, 1, bias=False)
        self.norm1 = norms.outside(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        self.norm2 = norms.outside(768)
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, 8, 8) to logits (n, classes)."""
        x = F.avg_pool2d(F.relu(x), 5, stride=3)
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


class Network(nn.Module):
    """Stem, cells, mean over the image, classifier.

    Args:
        slots: Of a normal and of a reduction cell.
        concats: The states in the output of each.
        proxy: Width, depth, and the side of the images.
        ends: What goes in and comes out.
        norms: Its batch norms.
        auxiliary: With an auxiliary head, whose logits stand in `auxiliary_logits` after each forward pass in training.
    """

    def __init__(
        self, slots: Sequence[Sequence[Slot]], concats: Sequence[tuple[int, ...]], proxy: Proxy,
        *, ends: Ends, norms: Norms = PLAIN, auxiliary: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.drop_path = DropPath()
        """Off; set its probability to use it."""
        self.stem = nn.Conv2d(ends.inputs, space.STEM * proxy.channels, 3, padding=1, bias=False)
        self.stem_norm = norms.outside(space.STEM * proxy.channels)
        multipliers = (len(concats[0]), len(concats[1]))
        depth = space.depth(proxy)
        self.places = space.places(multipliers, channels=proxy.channels, cells=depth, side=proxy.resolution)
        self.cells = nn.ModuleList(
            Cell(slots[place.reduction], concats[place.reduction], place, self.drop_path, norms)
            for place in self.places
        )
        self.rows: tuple[slice, slice] = (slice(0, 0), slice(0, 0))
        """Of a mixture, those of the normal and of the reduction cell."""
        self.auxiliary_at = 2 * depth // 3
        self.auxiliary_logits: Tensor | None = None
        self.auxiliary_head: AuxiliaryHead | None = None
        if auxiliary:
            ends.need_pooled("darts: with an auxiliary head")
            last = self.places[self.auxiliary_at]
            if last.side != AUXILIARY_SIDE:
                raise Unsupported(
                    f"darts: the auxiliary head needs {AUXILIARY_SIDE} pixels a side after both reductions, that is "
                    f"resolution {4 * AUXILIARY_SIDE}, not {proxy.resolution}"
                )
            self.auxiliary_head = AuxiliaryHead(multipliers[1] * last.channels, ends.outputs, norms)
        self.skip_dead_edges = False
        """Whether only what has to be computed is: see `suite.networks.dead_edges`."""
        end = self.places[-1]
        self.classifier, self.head = classifier(multipliers[end.reduction] * end.channels, ends), ends.head

    def forward(self, images: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Outputs, logits of shape (n, outputs) if pooled, of normalised images, shape (n, inputs, side, side)."""
        if self.skip_dead_edges and not self.drop_path.probability:
            return self.without_dead_edges(images, mixture)
        before = last = self.stem_norm(self.stem(images))
        for number, (cell, place) in enumerate(zip(self.cells, self.places, strict=True)):
            rows = None if mixture is None else mixture.rows(number, self.rows[place.reduction])
            before, last = last, cell(before, last, rows)
            if number == self.auxiliary_at and self.auxiliary_head is not None and self.training:
                self.auxiliary_logits = self.auxiliary_head(last)
        return answer(last, self.classifier, self.head)

    def without_dead_edges(self, images: Tensor, mixture: Mixture | None) -> Tensor:
        """As `forward`, by such cells; those that the output does not depend on are left out."""
        rows = [
            None if mixture is None else mixture.rows(number, self.rows[place.reduction])
            for number, place in enumerate(self.places)
        ]
        cells: list[Any] = list(self.cells)
        uses = [cell.reaching(row) for cell, row in zip(cells, rows, strict=True)]
        links = [(number + state, number + 2) for number, states in enumerate(uses) for state in states & {0, 1}]
        head = self.auxiliary_head is not None and self.training
        needed = reaching(links, [len(cells) + 1, *([self.auxiliary_at + 2] if head else [])])
        stem = self.stem_norm(self.stem(images)) if needed & {0, 1} else None
        outputs: list[Tensor | None] = [stem, stem]
        for number, (cell, row) in enumerate(zip(cells, rows, strict=True), start=2):
            outputs.append(cell.without_dead_edges(outputs[-2], outputs[-1], row) if number in needed else None)
            if head and number == self.auxiliary_at + 2:
                self.auxiliary_logits = self.auxiliary_head(outputs[-1])  # type: ignore[misc]
        last = outputs[-1]
        assert last is not None
        return answer(last, self.classifier, self.head)


def from_genotype(
    genotype: space.Genotype, proxy: Proxy,
    *, ends: Ends, norms: Norms = PLAIN, auxiliary: bool = False,
) -> Network:  # fmt: skip
    """The network of two cells with whatever outputs they were written with."""
    slots = [
        [Slot(edge.name, edge.start, edge.end, (edge.operation,)) for edge in genotype.edges(kind)]
        for kind in space.CELLS
    ]
    concats = [genotype.concat(kind) for kind in space.CELLS]
    return Network(slots, concats, proxy, ends=ends, norms=norms, auxiliary=auxiliary)


class Networks:
    """The stand-alone networks of one of the spaces: called as `suite.networks.NETWORKS` asks."""

    def __init__(self, cells: space.DARTS | space.DARTSEcoNAS | space.DARTSEdges) -> None:
        self.space = cells

    def __call__(
        self, arch: Architecture, proxy: Proxy,
        *, ends: Ends, norms: Norms = PLAIN, auxiliary: bool = False,
    ) -> nn.Module:  # fmt: skip
        """The network of `arch` at the width and depth of `proxy`."""
        genotype = self.space.genotype(arch)
        return from_genotype(genotype, proxy, ends=ends, norms=norms, auxiliary=auxiliary)


darts = Networks(space.DARTS())
econas = Networks(space.DARTSEcoNAS())
econas_all = Networks(space.DARTSEcoNAS("all"))
edges = Networks(space.DARTSEdges())


class Mixed(MixedEdges):
    """The supernet: rows are the 14 edges of the normal, then those of the reduction cell; a column for each operation.

    In EcoNAS's space a node may have an input twice, so there each edge is there twice: after the 14 rows of a cell the
    same 14 again.
    """

    options = space.OPERATIONS
    edges = space.DARTSEdges()
    norms = Norms(affine=False, pools=True)

    def __init__(self, networks: Networks) -> None:
        self.searched = networks.space
        """The space whose architectures it has, each with one operation on some of the edges."""
        self.twice = isinstance(networks.space, space.DARTSEcoNAS)
        super().__init__(networks, SLOT_ROWS if self.twice else EDGE_ROWS)

    def rows(self) -> list[int]:
        """The decision of `edges` that each row is."""
        numbers = [list(range(rows.start, rows.stop)) for rows in EDGE_ROWS.values()]
        return [number for kind in numbers for number in (2 * kind if self.twice else kind)]

    def cells(self, proxy: Proxy) -> int:
        """Number of cells in the network."""
        return space.depth(proxy)

    def network(self, proxy: Proxy, *, ends: Ends, norms: Norms) -> nn.Module:
        """With all operations on each edge."""
        slots = [
            Slot(f"{name}{number}", start, end, space.OPERATIONS)
            for name in (("edge", "again") if self.twice else ("edge",))
            for number, (start, end) in enumerate(space.EDGES)
        ]
        network = Network([slots, slots], [space.ALL_NODES] * 2, proxy, ends=ends, norms=norms)
        network.rows = (self.groups["normal"], self.groups["reduce"])
        return network

    def chosen(self, arch: Architecture) -> Iterator[tuple[int, int]]:
        """(row, option) of each operation that `arch` has."""
        genotype = self.searched.genotype(arch)
        for kind in space.CELLS:
            for edge in genotype.edges(kind):
                row = space.EDGES.index((edge.start, edge.end)) + edge.name.startswith("again") * len(space.EDGES)
                yield self.groups[kind].start + row, space.OPERATIONS.index(edge.operation)

    def derive(self, weights: npt.NDArray[np.floating[Any]]) -> Architecture:
        """The architecture that the rule of the space's paper reads from weights, shape (rows, options)."""
        if isinstance(self.searched, space.DARTSEcoNAS):
            raise Unsupported(
                f"{self.searched.name}: no paper derives its cells from weights; use darts or darts_edges"
            )
        return self.searched.strongest(weights)


mixed_darts = Mixed(darts)
mixed_econas_all = Mixed(econas_all)
mixed_edges = Mixed(edges)
