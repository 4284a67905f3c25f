"""MONAS's AlexNet-like space: two to five convolutions, filters and kernel of each, then a fixed classifier.

Hsu et al. "MONAS: Multi-Objective Neural Architecture Search using Reinforcement Learning". arXiv 2018.
https://arxiv.org/abs/1806.10332

That filters and kernel of each convolution are searched is the paper's; its candidate values were not to be found, so
these and the rest of the network are ours (docs/monas-spaces.md): a convolution, batch norm, ReLU; after the first and
the second a max pool; the classifier is a max pool, a hidden layer and the outputs.
"""

from __future__ import annotations

import re

from suite.spaces.base import SearchSpace
from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy, Unsupported

DEPTHS = (2, 3, 4, 5)
"""Convolutions."""
FILTERS = (8, 16, 32, 48, 64)
"""At full width."""
KERNELS = (3, 5, 7)
LAYERS = DEPTHS[-1]
POOLED = 2
"""So many of the first convolutions are followed by a pooling."""
HIDDEN = 16
"""Units of the hidden layer, in widths of the narrowest convolution."""
SYNTAX = re.compile(r"(\d+)@(\d+)")


class AlexNet(SearchSpace):
    """Number of convolutions, then filters and kernel of each of five: 11 decisions, each combination valid.

    Those of convolutions beyond the number change nothing: architectures that differ in them alone are one network and
    have one `canonical_form`. They are 813,600 networks.

    >>> space = AlexNet()
    >>> space.text((1, 1, 2, 4, 0, 0, 1, 0, 0, 0, 0))
    '16@7-64@3-8@5'
    >>> space.text((0, 1, 2, 4, 0, 0, 1, 0, 0, 0, 0))     # what it would go on with stands behind the bar
    '16@7-64@3|8@5-8@3-8@3'
    >>> space.text(space.canonical_form((0, 1, 2, 4, 0, 0, 1, 0, 0, 0, 0)))
    '16@7-64@3'
    """

    name = "alexnet"
    decisions = (len(DEPTHS), *(len(FILTERS), len(KERNELS)) * LAYERS)
    ordered = (True, *(True, True) * LAYERS)
    levels = (slice(0, 1), *(slice(1 + 2 * layer, 3 + 2 * layer) for layer in range(LAYERS)))
    full = Proxy(epochs=200, channels=FILTERS[0], resolution=32)
    paper = "Hsu et al., arXiv 2018, arXiv:1806.10332"

    def convolutions(self, arch: Architecture) -> list[tuple[int, int]]:
        """(filters at full width, kernel) of each that there is."""
        self.check(arch)
        return [(FILTERS[arch[1 + 2 * i]], KERNELS[arch[2 + 2 * i]]) for i in range(DEPTHS[arch[0]])]

    def canonical_form(self, arch: Architecture) -> Architecture:
        """The same network with option 0 for all that it does not have."""
        self.check(arch)
        used = 1 + 2 * DEPTHS[arch[0]]
        return (*arch[:used], *(0,) * (len(arch) - used))

    def text(self, arch: Architecture) -> str:
        """filters@kernel of each convolution at full width; unused ones behind a bar, unless they are all 8@3."""
        self.check(arch)
        words = [f"{FILTERS[arch[1 + 2 * i]]}@{KERNELS[arch[2 + 2 * i]]}" for i in range(LAYERS)]
        used, unused = words[: DEPTHS[arch[0]]], words[DEPTHS[arch[0]] :]
        silent = arch == self.canonical_form(arch)
        return "-".join(used) if silent else "-".join(used) + "|" + "-".join(unused)

    def parse(self, text: str) -> Architecture:
        """The architecture of two to five convolutions."""
        used, bar, unused = text.strip().partition("|")
        words = [used.split("-"), unused.split("-") if bar else []]
        depth, beyond = len(words[0]), len(words[1])
        if depth not in DEPTHS or (bar and depth + beyond != LAYERS):
            raise BadInput(
                f"{self.name}: not {DEPTHS[0]} to {DEPTHS[-1]} convolutions: {text.strip()[:80]!r}; one reads 16@3-64@5"
            )
        arch = [DEPTHS.index(depth)]
        for word in (*words[0], *words[1]):
            found = SYNTAX.fullmatch(word)
            filters, kernel = map(int, found.groups()) if found else (0, 0)
            if filters not in FILTERS or kernel not in KERNELS:
                raise BadInput(
                    f"{self.name}: not filters@kernel: {word[:80]!r}; filters are {listed(FILTERS)}, kernels "
                    f"{listed(KERNELS)}"
                )
            arch += [FILTERS.index(filters), KERNELS.index(kernel)]
        return (*arch, *(0,) * (len(self.decisions) - len(arch)))

    def check_proxy(self, proxy: Proxy) -> None:
        """Any width and resolution; the depth is a decision."""
        if proxy.cells is not None:
            raise Unsupported(
                f"{self.name}: its depth is a decision, so a proxy cannot ask for {proxy.cells} cells; leave cells out"
            )

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters."""
        self.check_proxy(proxy)
        ends.need_pooled(self.name)
        total, arriving = 0, ends.inputs
        for filters, kernel in self.convolutions(arch):
            made = width(filters, proxy)
            total += kernel**2 * arriving * made + 2 * made
            arriving = made
        hidden = HIDDEN * proxy.channels
        return total + (features(arriving, proxy) + 1) * hidden + (hidden + 1) * ends.outputs

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of convolutions and classifier, with its biases, one image forward."""
        self.check_proxy(proxy)
        ends.need_pooled(self.name)
        total, arriving = 0, ends.inputs
        for (filters, kernel), side in zip(self.convolutions(arch), sides(proxy), strict=False):
            made = width(filters, proxy)
            total += kernel**2 * arriving * made * side**2
            arriving = made
        hidden = HIDDEN * proxy.channels
        return total + (features(arriving, proxy) + 1) * hidden + (hidden + 1) * ends.outputs


def listed(values: tuple[int, ...]) -> str:
    """3, 5, 7"""
    return ", ".join(map(str, values))


def width(filters: int, proxy: Proxy) -> int:
    """Filters under a proxy: 8, 16, 32, 48, 64 are 1, 2, 4, 6, 8 times its channels."""
    return filters // FILTERS[0] * proxy.channels


def pooled(side: int) -> int:
    """After a pooling of 3x3 and stride 2, padded by a pixel."""
    return (side + 1) // 2


def sides(proxy: Proxy) -> list[int]:
    """Of the images in each convolution [pixels]."""
    found = [proxy.resolution]
    for number in range(1, LAYERS):
        found.append(pooled(found[-1]) if number <= POOLED else found[-1])
    return found


def features(channels: int, proxy: Proxy) -> int:
    """That reach the hidden layer."""
    return channels * pooled(sides(proxy)[-1]) ** 2
