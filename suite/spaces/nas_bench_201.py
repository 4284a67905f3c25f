"""The NAS-Bench-201 cell space: six edges among four nodes, five operations each, 15,625 cells.

Dong, Yang. "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search".
ICLR 2020. https://arxiv.org/abs/2001.00326

Node 0 is the cell's input and node 3 its output; a node is the sum of its incoming edges. The network: a 3x3 stem,
three stages of N cells with C, 2C and 4C channels, a residual block that halves the image before the second and third.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from suite.spaces.base import SearchSpace
from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(from, to) of each decision."""
NODES = 4
STAGES = 3
KERNEL_AREA = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}
"""The operations that have weights."""


class NASBench201(SearchSpace):
    """All cells of NAS-Bench-201, at any width and depth.

    >>> space = NASBench201()
    >>> space.text((3, 0, 1, 4, 2, 3))
    '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|'
    >>> space.params((3, 0, 1, 4, 2, 3), space.full)
    587386
    """

    name = "nas_bench_201"
    decisions = (len(OPERATIONS),) * len(EDGES)
    levels = (slice(0, 1), slice(1, 3), slice(3, 6))
    full = Proxy(epochs=200, channels=16, resolution=32)
    cells = 5
    paper = "Dong & Yang, ICLR 2020, arXiv:2001.00326"
    operations = OPERATIONS[1:]

    def text(self, arch: Architecture) -> str:
        """The benchmark's cell string, nodes joined by +."""
        self.check(arch)
        nodes: dict[int, str] = {}
        for option, (start, end) in zip(arch, EDGES, strict=True):
            nodes[end] = nodes.get(end, "|") + f"{OPERATIONS[option]}~{start}|"
        return "+".join(nodes.values())

    def parse(self, text: str) -> Architecture:
        """The architecture of a cell string."""
        wrong = BadInput(f"{self.name}: not a cell string: {text!r}; one reads {self.text((1,) * len(EDGES))}")
        nodes = text.strip().split("+")
        if len(nodes) != NODES - 1:
            raise wrong
        arch = []
        for end, node in enumerate(nodes, start=1):
            edges = [edge.split("~") for edge in node.split("|") if edge]
            if [edge[1:] for edge in edges] != [[str(start)] for start in range(end)]:
                raise wrong
            for operation, _ in edges:
                if operation not in OPERATIONS:
                    raise BadInput(f"{self.name}: no operation {operation!r}; there are {', '.join(OPERATIONS)}")
                arch.append(OPERATIONS.index(operation))
        return tuple(arch)

    def simplified(self, arch: Architecture) -> Architecture:
        """The cell with `none` on every edge that lies on no path from input to output; 9,445 cells stay as they are.

        >>> NASBench201().simplified((0, 3, 3, 0, 0, 2))        # node 1 has no input, so its edge to node 2 goes
        (0, 3, 0, 0, 0, 2)
        """
        self.check(arch)
        reached, needed = {0}, {NODES - 1}
        for option, (start, end) in zip(arch, EDGES, strict=True):
            if option and start in reached:
                reached.add(end)
        for option, (start, end) in zip(reversed(arch), reversed(EDGES), strict=True):
            if option and end in needed:
                needed.add(start)
        return tuple(
            option if start in reached and end in needed else 0
            for option, (start, end) in zip(arch, EDGES, strict=True)
        )

    def isomorphism(self, arch: Architecture) -> Hashable:
        """The cell as an expression: zeros dropped, skips folded into sums, sums unordered; 4,930 classes.

        An operation whose result is used twice and one that is there twice make the same expression, as in the
        benchmark's own rule.
        """
        terms: list[tuple[str, ...]] = [("x",), *[()] * (NODES - 1)]
        for option, (start, end) in zip(self.simplified(arch), EDGES, strict=True):
            if OPERATIONS[option] == "skip_connect":
                terms[end] = (*terms[end], *terms[start])
            elif option and terms[start]:
                terms[end] = (*terms[end], f"{option}({'+'.join(sorted(terms[start]))})")
        return "+".join(sorted(terms[-1]))

    def adjacency(self, archs: Sequence[Architecture]) -> npt.NDArray[np.float32]:
        """One cell of four nodes, shape (n, 1, 4, 4, 4); `none` is no edge."""
        options = np.asarray(archs, dtype=np.int64).reshape(-1, len(EDGES))  # (n, edges)
        edges = np.zeros((len(options), 1, NODES, NODES, len(self.operations)), dtype=np.float32)
        for place, (start, end) in enumerate(EDGES):
            for operation in range(len(self.operations)):
                edges[:, 0, start, end, operation] = options[:, place] == operation + 1
        return edges

    def unique_string(self, arch: Architecture) -> str:
        """The benchmark's own rule of isomorphism: zeros marked, skips folded, sums unordered; 6,466 strings.

        Cells with the same string are the same function. The reverse fails for some: the rule keeps every zero in a
        sum, and a sum of zeros alone is not a zero to it.
        """
        self.check(arch)
        nodes = ["0"]
        for end in range(1, NODES):
            terms = []
            for option, (start, stop) in zip(arch, EDGES, strict=True):
                if stop == end:
                    operation, source = OPERATIONS[option], nodes[start]
                    if operation == "none" or source == "#":
                        terms.append("#")
                    else:
                        terms.append(source if operation == "skip_connect" else f"({source})@{operation}")
            nodes.append("+".join(sorted(terms)))
        return nodes[-1]

    def check_proxy(self, proxy: Proxy) -> None:
        """The image is halved twice, so its side is a multiple of 4."""
        self._check_quarters(proxy, "two strides of 2")

    def depth(self, proxy: Proxy) -> int:
        """Cells a stage, N."""
        return self.cells if proxy.cells is None else proxy.cells

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters, of edges that cannot reach the output too, as the benchmark counts."""
        self.check(arch)
        areas = [KERNEL_AREA[OPERATIONS[option]] for option in arch if OPERATIONS[option] in KERNEL_AREA]
        stem = 9 * ends.inputs * proxy.channels + 2 * proxy.channels
        total = stem
        for stage in range(STAGES):
            width = proxy.channels << stage
            if stage:  # 3x3 from half the width, 3x3, their norms; 1x1 beside them without a norm
                half = width // 2
                total += 9 * half * width + 9 * width * width + 4 * width + half * width
            total += self.depth(proxy) * sum(area * width * width + 2 * width for area in areas)
        return total + 2 * width + ends.head_size(width)

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of convolutions and classifier, one image forward, as the benchmark counts.

        >>> NASBench201().macs((4, 2, 1, 2, 1, 1), NASBench201.full) / 1e6      # the benchmark's own index 0
        15.64737
        """
        self.check(arch)
        self.check_proxy(proxy)
        areas = [KERNEL_AREA[OPERATIONS[option]] for option in arch if OPERATIONS[option] in KERNEL_AREA]
        total = 9 * ends.inputs * proxy.channels * proxy.resolution**2
        for stage in range(STAGES):
            width = proxy.channels << stage
            pixels = (proxy.resolution >> stage) ** 2
            if stage:
                half = width // 2
                total += (9 * half * width + 9 * width * width + half * width) * pixels
            total += self.depth(proxy) * sum(areas) * width * width * pixels
        return total + ends.head_size(width, pixels)  # the bias is counted, as the benchmark does
