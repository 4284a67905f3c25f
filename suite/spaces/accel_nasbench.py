"""The MnasNet space of Accel-NASBench: seven blocks, expansion, kernel, layers and squeeze-and-excitation of each.

Ahmad, Yang, Ilhan, Yun, Kim. "Accel-NASBench: Sustainable Benchmarking for Accelerator-Aware NAS". DAC 2024.
https://arxiv.org/abs/2404.08005
"""

from __future__ import annotations

import re

from suite.spaces.base import SearchSpace
from suite.types import Architecture, BadInput, Proxy

EXPANSIONS = (1, 4, 6)
KERNELS = (3, 5)
LAYERS = ((1, 2, 3),) * 5 + ((1, 2, 3, 4), (1, 2, 3))
"""Layers that each block may have."""
SE = (0, 1)


class AccelNASBench(SearchSpace):
    """Seven blocks of inverted bottlenecks; searched on its table.

    >>> space = AccelNASBench()
    >>> space.text((2, 0, 0, 0) * 7)[:20]
    'e6k3l1s0 e6k3l1s0 e6'
    """

    name = "accel_nasbench"
    decisions = tuple(many for layers in LAYERS for many in (len(EXPANSIONS), len(KERNELS), len(layers), len(SE)))
    full = Proxy(epochs=16, channels=16, resolution=192)
    paper = "Ahmad et al., DAC 2024, arXiv:2404.08005"

    def text(self, arch: Architecture) -> str:
        """A word for each block: expansion, kernel, layers, squeeze-and-excitation."""
        self.check(arch)
        return " ".join(
            f"e{EXPANSIONS[e]}k{KERNELS[k]}l{layers[number]}s{SE[s]}"
            for layers, (e, k, number, s) in zip(
                LAYERS, (arch[place : place + 4] for place in range(0, len(arch), 4)), strict=True
            )
        )

    def parse(self, text: str) -> Architecture:
        """The architecture of seven words."""
        words = text.split()
        found = [re.fullmatch(r"e(\d)k(\d)l(\d)s(\d)", word) for word in words]
        wrong = BadInput(f"{self.name}: not seven blocks: {text[:60]!r}; one reads e6k3l2s1")
        if len(words) != len(LAYERS):
            raise wrong
        arch: list[int] = []
        for block, layers in zip(found, LAYERS, strict=True):
            if block is None:
                raise wrong
            try:
                for written, options in zip(block.groups(), (EXPANSIONS, KERNELS, layers, SE), strict=True):
                    arch.append(options.index(int(written)))
            except ValueError:
                raise wrong from None
        return tuple(arch)
