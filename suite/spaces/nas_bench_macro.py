"""The NAS-Bench-Macro space: eight layers, three blocks to choose from, 6,561 networks.

Su et al. "Prioritized Architecture Sampling with Monto-Carlo Tree Search". CVPR 2021.
https://arxiv.org/abs/2103.11922
"""

from __future__ import annotations

from suite.spaces.base import SearchSpace
from suite.types import Architecture, BadInput, Proxy

BLOCKS = ("identity", "mb3_k3", "mb6_k5")
LAYERS = 8
STAGES = ((0, 2), (2, 5), (5, 8))
"""First layer of each stage, which halves the image whatever its block, and the one behind its last."""


class NASBenchMacro(SearchSpace):
    """Block of each of eight layers, in stages of 2, 3 and 3; searched on its table.

    >>> NASBenchMacro().parse("00120012")
    (0, 0, 1, 2, 0, 0, 1, 2)
    """

    name = "nas_bench_macro"
    decisions = (len(BLOCKS),) * LAYERS
    full = Proxy(epochs=50, channels=32, resolution=32)
    paper = "Su et al., CVPR 2021, arXiv:2103.11922"

    def simplified(self, arch: Architecture) -> Architecture:
        """The network with the identities of each stage at its end, where they change nothing; 3,969 networks.

        A stage's first layer changes the image's side and width, so that its identity is one in name only.

        >>> NASBenchMacro().simplified((0, 1, 0, 0, 1, 2, 0, 2))
        (0, 1, 0, 1, 0, 2, 2, 0)
        """
        self.check(arch)
        return tuple(
            option
            for first, end in STAGES
            for option in (arch[first], *sorted(arch[first + 1 : end], key=lambda option: option == 0))
        )

    def text(self, arch: Architecture) -> str:
        """Eight digits: 0 identity, 1 MB3 3x3, 2 MB6 5x5."""
        self.check(arch)
        return "".join(str(option) for option in arch)

    def parse(self, text: str) -> Architecture:
        """The architecture of eight digits."""
        digits = text.strip()
        if len(digits) != LAYERS or set(digits) - set("012"):
            raise BadInput(f"{self.name}: not eight digits of 0, 1, 2: {text!r}; one reads 00120012")
        return tuple(int(digit) for digit in digits)
