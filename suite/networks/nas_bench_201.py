"""The networks of NAS-Bench-201: a skeleton of three stages, one cell repeated in it.

Dong, Yang. "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search".
ICLR 2020, section 2. https://arxiv.org/abs/2001.00326
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.dead_edges import State, reaching
from suite.networks.mixed import MixedEdges
from suite.networks.mixture import MixedEdge, Mixture, Row
from suite.networks.operations import OPERATIONS, PLAIN, Norms, Reduction, answer, classifier
from suite.spaces import nas_bench_201 as space
from suite.types import Architecture, Ends, Proxy

ROWS = slice(0, len(space.EDGES))
Options = Sequence[Sequence[str]]
"""The operations of each edge: one in a stand-alone network, all in a supernet."""


class Cell(nn.Module):
    """Four nodes, each the sum of its incoming edges.

    Weights are called edge<decision>.<operation>.*, so that cells with the same operation at the same edge share names.
    """

    def __init__(self, options: Options, channels: int, norms: Norms) -> None:
        super().__init__()
        self.steps: list[tuple[int, int, MixedEdge]] = []
        for decision, ((start, end), names) in enumerate(zip(space.EDGES, options, strict=True)):
            edge = MixedEdge({name: OPERATIONS[name](channels, norms=norms) for name in names})
            self.add_module(f"edge{decision}", edge)
            self.steps.append((start, end, edge))

    def forward(self, x: Tensor, rows: Sequence[Row] | None = None) -> Tensor:
        """Shape (n, channels, h, w) to the same."""
        nodes: list[Tensor | None] = [x] + [None] * (space.NODES - 1)
        for decision, (start, end, edge) in enumerate(self.steps):
            source, sofar = nodes[start], nodes[end]
            if source is None:  # nothing arrived there: all options of its edges are switched off
                source = nodes[start] = torch.zeros_like(x)
            arriving = edge(source, None if rows is None else rows[decision])
            if arriving is not None:
                nodes[end] = arriving if sofar is None else sofar + arriving
        output = nodes[-1]
        return torch.zeros_like(x) if output is None else output

    def without_dead_edges(self, x: Tensor, rows: Sequence[Row] | None = None) -> Tensor:
        """As `forward`, without what cannot reach the output, and with shared work done once."""
        steps = list(zip(self.steps, [None] * len(self.steps) if rows is None else rows, strict=True))
        crossed = reaching(((start, end) for (start, end, edge), row in steps if edge.alive(row)), [space.NODES - 1])
        nodes = [State(x if node == 0 else None, share=rows is not None) for node in range(space.NODES)]
        for (start, end, edge), row in steps:
            if end in crossed:
                nodes[end].add(edge.without_dead_edges(nodes[start], row, x))
        output = nodes[-1].value
        return torch.zeros_like(x) if output is None else output


class Network(nn.Module):
    """Stem, three stages of cells with reductions between them, norm, ReLU, mean over the image, classifier."""

    def __init__(self, options: Options, *, channels: int, depth: int, ends: Ends, norms: Norms) -> None:
        super().__init__()
        self.stem = nn.Conv2d(ends.inputs, channels, 3, padding=1, bias=False)
        self.stem_norm = norms.outside(channels)
        cells: list[nn.Module] = []
        for stage in range(space.STAGES):
            width = channels * 2**stage
            if stage:
                cells.append(Reduction(width // 2, width, norms))
            cells.extend(Cell(options, width, norms) for _ in range(depth))
        self.cells = nn.ModuleList(cells)
        self.norm = norms.outside(width)
        self.classifier, self.head = classifier(width, ends), ends.head
        self.skip_dead_edges = False
        """Whether only what has to be computed is: see `suite.networks.dead_edges`."""

    def forward(self, images: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Outputs, logits of shape (n, outputs) if pooled, of normalised images, shape (n, inputs, side, side)."""
        x: Tensor = self.stem_norm(self.stem(images))
        number = 0
        for cell in self.cells:
            if isinstance(cell, Cell):
                x = (cell.without_dead_edges if self.skip_dead_edges else cell)(
                    x, None if mixture is None else mixture.rows(number, ROWS)
                )
                number += 1
            else:
                x = cell(x)
        return answer(F.relu(self.norm(x)), self.classifier, self.head)


def network(
    arch: Architecture, proxy: Proxy, *, ends: Ends, norms: Norms = PLAIN
) -> nn.Module:  # fmt: skip
    """The network of `arch` at the width and depth of `proxy`."""
    options = [(space.OPERATIONS[option],) for option in arch]
    return made(options, proxy, ends=ends, norms=norms)


def made(options: Options, proxy: Proxy, *, ends: Ends, norms: Norms) -> Network:
    """A network whose edges have these operations."""
    depth = space.NASBench201().depth(proxy)
    return Network(options, channels=proxy.channels, depth=depth, ends=ends, norms=norms)


class Mixed(MixedEdges):
    """The supernet: one row for each edge, one column for each operation."""

    options = space.OPERATIONS
    edges = space.NASBench201()
    norms = Norms(affine=False)

    def cells(self, proxy: Proxy) -> int:
        """Number of cells in the network."""
        return space.STAGES * self.edges.depth(proxy)

    def network(self, proxy: Proxy, *, ends: Ends, norms: Norms) -> nn.Module:
        """With all operations on each edge."""
        options = [space.OPERATIONS] * len(space.EDGES)
        return made(options, proxy, ends=ends, norms=norms)


mixed = Mixed(network, {"cell": ROWS})
