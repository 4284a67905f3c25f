"""The networks of NAS-Bench-201: a skeleton of three stages, one cell repeated in it.

Dong, Yang. "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search".
ICLR 2020, section 2. https://arxiv.org/abs/2001.00326
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.operations import OPERATIONS, Reduction
from suite.spaces import nas_bench_201 as space
from suite.types import Architecture, Proxy


class Cell(nn.Module):
    """Four nodes, each the sum of its incoming edges.

    Weights are called edge<decision>.<operation>.*, so that cells with the same operation at the same edge share names.
    """

    def __init__(self, arch: Architecture, channels: int) -> None:
        super().__init__()
        for decision, option in enumerate(arch):
            operation = space.OPERATIONS[option]
            self.add_module(f"edge{decision}", nn.ModuleDict({operation: OPERATIONS[operation](channels)}))
        self.steps = [
            (start, end, self.get_submodule(f"edge{decision}.{space.OPERATIONS[option]}"))
            for decision, ((start, end), option) in enumerate(zip(space.EDGES, arch, strict=True))
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, channels, h, w) to the same."""
        nodes: list[Tensor | None] = [x] + [None] * (space.NODES - 1)
        for start, end, operation in self.steps:
            source, sofar = nodes[start], nodes[end]
            assert source is not None  # edges are in the order of their ends
            arriving = operation(source)
            nodes[end] = arriving if sofar is None else sofar + arriving
        output = nodes[-1]
        assert output is not None
        return output


class Network(nn.Module):
    """Stem, three stages of cells with reductions between them, norm, ReLU, mean over the image, classifier."""

    def __init__(self, arch: Architecture, *, channels: int, depth: int, classes: int, image_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_channels, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        cells: list[nn.Module] = []
        for stage in range(space.STAGES):
            width = channels * 2**stage
            if stage:
                cells.append(Reduction(width // 2, width))
            cells.extend(Cell(arch, width) for _ in range(depth))
        self.cells = nn.ModuleList(cells)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (n, classes), of normalised images, shape (n, image_channels, side, side)."""
        x: Tensor = self.stem_norm(self.stem(images))
        for cell in self.cells:
            x = cell(x)
        logits: Tensor = self.classifier(F.relu(self.norm(x)).mean(dim=(2, 3)))
        return logits


def network(arch: Architecture, proxy: Proxy, *, classes: int, image_channels: int) -> nn.Module:
    """The network of `arch` at the width and depth of `proxy`."""
    depth = space.NASBench201().depth(proxy)
    return Network(arch, channels=proxy.channels, depth=depth, classes=classes, image_channels=image_channels)
