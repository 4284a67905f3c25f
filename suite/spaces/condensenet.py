"""MONAS's CondenseNet space: three dense blocks, layers and growth of each, 15,625 networks.

Hsu et al. "MONAS: Multi-Objective Neural Architecture Search using Reinforcement Learning". arXiv 2018.
https://arxiv.org/abs/1806.10332

Huang, Liu, van der Maaten, Weinberger. "CondenseNet: An Efficient DenseNet using Learned Group Convolutions".
CVPR 2018. https://arxiv.org/abs/1711.09224

A 3x3 stem of twice the first block's growth, the blocks, poolings between them; norm, ReLU, mean over the image,
classifier. A layer looks at everything before it, in earlier blocks too: norm, ReLU, a 1x1 in learned groups to four
times its growth, norm, ReLU, a 3x3 in groups. In training every group of the 1x1 first has all inputs and then, in
three steps over the first half of the run, loses all but a quarter of them (C = G = 4); what is deployed is a grouped
1x1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from suite.spaces.base import SearchSpace
from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy, Unsupported

STAGES = (6, 8, 10, 12, 14)
"""Layers of a block."""
GROWTHS = (4, 8, 16, 24, 32)
"""Channels that a layer adds, at full width."""
BLOCKS = 3
BOTTLENECK = 4
"""Outputs of a 1x1, in growths."""
GROUPS = 4
"""G: of the 1x1, and of the 3x3 at full width."""
CONDENSATION = 4
"""C: at the end each group has 1 / C of its inputs."""
SYNTAX = re.compile(r"(\d+)-(\d+)-(\d+)/(\d+)-(\d+)-(\d+)")


@dataclass(frozen=True)
class Layer:
    """One layer of a network."""

    block: int
    number: int
    """Within its block."""
    inputs: int
    growth: int
    side: int
    """Of its images [pixels]."""


class CondenseNet(SearchSpace):
    """Layers and growth of each of three blocks: stage, growth, stage, growth, stage, growth.

    >>> space = CondenseNet()
    >>> condensenet_86 = space.parse("14-14-14/8-16-32")
    >>> space.params(condensenet_86, space.full), space.macs(condensenet_86, space.full)     # deployed
    (520202, 62381898)
    >>> space.trained_params(condensenet_86, space.full)
    1451594
    """

    name = "condensenet"
    decisions = (len(STAGES), len(GROWTHS)) * BLOCKS
    ordered = (True, True) * BLOCKS
    levels = tuple(slice(2 * block, 2 * block + 2) for block in range(BLOCKS))
    full = Proxy(epochs=300, channels=16, resolution=32)
    cells: int = STAGES[-1]
    paper = "Hsu et al., arXiv 2018, arXiv:1806.10332; Huang et al., CVPR 2018, arXiv:1711.09224"

    def blocks(self, arch: Architecture) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Layers of the blocks, and their growths, at full depth and width."""
        self.check(arch)
        return tuple(STAGES[option] for option in arch[::2]), tuple(GROWTHS[option] for option in arch[1::2])

    def text(self, arch: Architecture) -> str:
        """As the paper's code writes both: stages/growths."""
        return "/".join("-".join(map(str, values)) for values in self.blocks(arch))

    def parse(self, text: str) -> Architecture:
        """The architecture of three stages and three growths."""
        found = SYNTAX.fullmatch(text.strip())
        numbers = [int(number) for number in found.groups()] if found else []
        arch = []
        for stage, growth in zip(numbers[:BLOCKS], numbers[BLOCKS:], strict=True):
            if stage not in STAGES or growth not in GROWTHS:
                break
            arch += [STAGES.index(stage), GROWTHS.index(growth)]
        if len(arch) != len(self.decisions):
            raise BadInput(
                f"{self.name}: not three stages of {', '.join(map(str, STAGES))} and three growths of "
                f"{', '.join(map(str, GROWTHS))}: {text.strip()[:80]!r}; one reads 14-14-14/8-16-32"
            )
        return tuple(arch)

    def check_proxy(self, proxy: Proxy) -> None:
        """The image is halved twice; no two growths, and no two stages, may become the same."""
        self._check_quarters(proxy, "two poolings")
        for name, asked, least in (("channels", proxy.channels, 3), ("cells", depth(proxy), STAGES[-1] // 2)):
            if asked < least:
                what = "growths" if name == "channels" else "stages"
                raise Unsupported(
                    f"{self.name}: under {name} {asked} different {what} become the same; use at least {least}"
                )

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Parameters of the network that is deployed, condensed; `trained_params` counts what is trained."""
        return self.counted(arch, proxy, ends, deployed=True)[0]

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of the network that is deployed, of convolutions and classifier, one image forward."""
        self.check_proxy(proxy)
        return self.counted(arch, proxy, ends, deployed=True)[1]

    def trained_params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters in training, where each 1x1 has weights for all inputs, masked ones too."""
        return self.counted(arch, proxy, ends, deployed=False)[0]

    def trained_macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds that training executes in one forward pass of one image, masked ones too."""
        self.check_proxy(proxy)
        return self.counted(arch, proxy, ends, deployed=False)[1]

    def counted(self, arch: Architecture, proxy: Proxy, ends: Ends, *, deployed: bool) -> tuple[int, int]:
        """Parameters, multiply-adds."""
        ends.need_pooled(self.name)
        return count(*scaled(*self.blocks(arch), proxy), proxy, ends, deployed=deployed)


def depth(proxy: Proxy) -> int:
    """Layers of the longest stage."""
    return STAGES[-1] if proxy.cells is None else proxy.cells


def groups(proxy: Proxy) -> int:
    """Of the 3x3: 4 at full width; under a narrower proxy as many as its narrowest growth can have."""
    return min(GROUPS, max(1, math.floor(GROWTHS[0] * proxy.channels / CondenseNet.full.channels + 0.5)))


def growth_under(growth: int, proxy: Proxy) -> int:
    """The nearest multiple of the groups, and at least one."""
    parts = groups(proxy)
    return parts * max(1, math.floor(growth * proxy.channels / CondenseNet.full.channels / parts + 0.5))


def stage_under(stage: int, proxy: Proxy) -> int:
    """The nearest number of layers."""
    return math.floor(stage * depth(proxy) / STAGES[-1] + 0.5)


def scaled(
    stages: tuple[int, ...], growths: tuple[int, ...], proxy: Proxy
) -> tuple[tuple[int, ...], tuple[int, ...]]:  # fmt: skip
    """Stages and growths under a proxy."""
    return tuple(stage_under(s, proxy) for s in stages), tuple(growth_under(g, proxy) for g in growths)


def kept(inputs: int, stage: int = CONDENSATION - 1) -> int:
    """Inputs that a group still has after so many condensing stages."""
    return math.ceil(inputs * (CONDENSATION - stage) / CONDENSATION)


def stem(growths: tuple[int, ...]) -> int:
    """Its width."""
    return 2 * growths[0]


def layers(stages: tuple[int, ...], growths: tuple[int, ...], side: int) -> Iterator[Layer]:
    """All layers of a network, in order; stages and growths are those under the proxy."""
    inputs = stem(growths)
    for block, (stage, growth) in enumerate(zip(stages, growths, strict=True)):
        for number in range(stage):
            yield Layer(block, number, inputs, growth, side >> block)
            inputs += growth


def count(
    stages: tuple[int, ...], growths: tuple[int, ...], proxy: Proxy, ends: Ends,
    *, deployed: bool,
) -> tuple[int, int]:  # fmt: skip
    """Parameters and multiply-adds of a network whose stages and growths under the proxy these are."""
    width = stem(growths)
    params = 9 * ends.inputs * width
    macs = params * proxy.resolution**2
    for layer in layers(stages, growths, proxy.resolution):
        wide = BOTTLENECK * layer.growth
        looked_at = GROUPS * kept(layer.inputs) if deployed else layer.inputs  # by all groups together
        first = looked_at * wide // (GROUPS if deployed else 1)
        second = 9 * wide * layer.growth // groups(proxy)
        params += 2 * looked_at + first + 2 * wide + second
        macs += (first + second) * layer.side**2
        width += layer.growth
    outputs = ends.head_size(width)
    return params + 2 * width + outputs, macs + outputs
