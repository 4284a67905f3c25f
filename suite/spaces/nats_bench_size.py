"""The NATS-Bench size space: the widths of five layers, eight choices each, 32,768 networks.

Dong, Liu, Musial, Gabrys. "NATS-Bench: Benchmarking NAS Algorithms for Architecture Topology and Size".
TPAMI 2021. https://arxiv.org/abs/2009.00437
"""

from __future__ import annotations

from suite.spaces.base import SearchSpace
from suite.types import Architecture, BadInput, Proxy

WIDTHS = (8, 16, 24, 32, 40, 48, 56, 64)
LAYERS = 5


class NATSBenchSize(SearchSpace):
    """Width of each of five layers; searched on its table.

    >>> NATSBenchSize().parse("8:16:64:8:8")
    (0, 1, 7, 0, 0)
    """

    name = "nats_bench_size"
    decisions = (len(WIDTHS),) * LAYERS
    ordered = (True,) * LAYERS
    full = Proxy(epochs=90, channels=64, resolution=32)
    paper = "Dong et al., TPAMI 2021, arXiv:2009.00437"

    def text(self, arch: Architecture) -> str:
        """The widths, joined by colons."""
        self.check(arch)
        return ":".join(str(WIDTHS[option]) for option in arch)

    def parse(self, text: str) -> Architecture:
        """The architecture of five widths."""
        try:
            arch = tuple(WIDTHS.index(int(width)) for width in text.strip().split(":"))
        except ValueError:
            raise BadInput(f"{self.name}: not five widths out of {WIDTHS}: {text!r}; one reads 8:16:24:32:64") from None
        self.check(arch)
        return arch
