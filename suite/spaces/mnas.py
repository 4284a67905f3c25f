"""The blocks of MNAS at the scale of CIFAR: five of them, six decisions each; and the networks that MNAS released.

Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le. "MnasNet: Platform-Aware Neural Architecture Search for Mobile".
CVPR 2019. https://arxiv.org/abs/1807.11626

A network is a stem, blocks, a head (1x1), mean over the image and a classifier. The layers of a block are the same but
for the stride and the input filters of the first. The paper's sizes are for 224 pixels; those of the space, for 32, are
ours: docs/mnas-space.md says which and why.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

from suite.spaces.base import SearchSpace
from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy, Unsupported

OPS = ("conv", "sep", "mb3", "mb6")
"""Regular convolution; depthwise, then 1x1; the same after a 1x1 to three or six times the channels (MBConv)."""
KERNELS = (3, 5)
SE = (0.0, 0.25)
"""Squeeze-and-excitation: its narrow middle as a share of the layer's input filters; 0: there is none."""
SKIPS = ("none", "identity", "pool")
FILTERS = (0.75, 1.0, 1.25)
"""Times the base filters of the block."""
BASE_FILTERS = (16, 24, 40, 80, 96)
BASE_LAYERS = (1, 2, 3, 3, 2)
DEPTHS = tuple(tuple(depth for depth in (base - 1, base, base + 1) if depth) for base in BASE_LAYERS)
"""Layers that a block can have: one fewer than its base, the base, one more; never none."""
STRIDES = (1, 2, 2, 2, 1)
WIDTH = 16
"""Base filters of the first block, and of the stem: `Proxy.channels` of a network of full width."""
HEAD = 4 * BASE_FILTERS[-1]
DECISIONS = ("op", "kernel", "se", "skip", "filters", "depth")
"""Of each block, in this order."""
EXPANSIONS = {"sep": 1, "mb3": 3, "mb6": 6}
SMALLEST_SIDE = 5
"""Of which the third stride of 2 still takes something away: 5, 3, 2, 1."""


class Layer(NamedTuple):
    """A layer as it is built."""

    inputs: int
    outputs: int
    stride: int
    skip: str
    """What is really added to it; "none" where the shapes do not allow what the block asks."""


class Cost(NamedTuple):
    """Trainable parameters, and multiply-adds of one image forward."""

    params: int
    macs: int

    def __add__(self, other: object) -> Cost:  # of numbers, not of tuples
        return Cost(self.params + other.params, self.macs + other.macs) if isinstance(other, Cost) else NotImplemented


@dataclass(frozen=True)
class Block:
    """Layers that are the same but for the stride and input filters of the first, as MNAS's code writes them.

    >>> block = Block.read("r3_k5_s22_e3_i24_o40_se0.25")
    >>> block.layers, block.kernel, block.stride, block.expansion, block.inputs, block.filters, block.se, block.skip
    (3, 5, 2, 3, 24, 40, 0.25, 'identity')
    >>> str(block)
    'r3_k5_s22_e3_i24_o40_se0.25'
    """

    layers: int
    kernel: int
    stride: int
    expansion: int
    """0: a regular convolution; 1: depthwise, then 1x1; more: MBConv."""
    inputs: int
    """As written. What comes may have another width; a skip goes by what is written."""
    filters: int
    se: float = 0.0
    skip: str = "identity"

    @property
    def op(self) -> str:
        """conv, sep or mbconv."""
        return ("conv", "sep")[self.expansion] if self.expansion < 2 else "mbconv"

    def __str__(self) -> str:
        op = f"e{self.expansion}" if self.expansion else "conv"
        words = [f"r{self.layers}_k{self.kernel}_s{self.stride}{self.stride}_{op}_i{self.inputs}_o{self.filters}"]
        words += [f"se{self.se:g}"] if self.se else []
        words += [{"none": "noskip", "pool": "pool"}[self.skip]] if self.skip != "identity" else []
        return "_".join(words)

    @classmethod
    def read(cls, text: str) -> Block:
        """The block that `text` writes; a stride may be written once.

        Raises:
            BadInput: It writes none.
        """
        found = re.fullmatch(
            r"r(\d{1,4})_k(\d{1,4})_s(\d)(\d?)_(?:e(\d{1,4})|conv)_i(\d{1,6})_o(\d{1,6})(?:_se(\d?\.?\d{1,9}))?"
            r"(?:_(noskip|pool))?",
            text.strip(),
        )
        wrong = BadInput(f"not a block: {text.strip()[:60]!r}; one reads r3_k5_s22_e3_i24_o40_se0.25 or ..._noskip")
        if found is None:
            raise wrong
        layers, kernel, stride, again, expansion, inputs, filters, se, skip = found.groups()
        block = cls(
            int(layers), int(kernel), int(stride), 0 if expansion is None else int(expansion), int(inputs),
            int(filters), float(se or 0), {"noskip": "none", "pool": "pool", None: "identity"}[skip],
        )  # fmt: skip
        positive = min(
            block.layers, block.stride, block.inputs, block.filters, 1 if expansion is None else block.expansion
        )
        if not positive or not block.kernel % 2 or (again and again != stride) or block.se > 1:
            raise wrong
        return block

    def built(self, inputs: int, outputs: int) -> Iterator[Layer]:
        """The layers at these widths.

        The first has the stride and the input filters; a skip has no weights, so it is there only where input and
        output filters are written equal, and an identity only where the stride is 1.
        """
        for number in range(self.layers):
            stride = self.stride if number == 0 else 1
            equal = number > 0 or self.inputs == self.filters
            skip = self.skip if equal and (stride == 1 or self.skip == "pool") else "none"
            yield Layer(inputs, outputs, stride, skip)
            inputs = outputs

    def cost(self, layer: Layer, side: int) -> Cost:
        """Of one layer that gets images of `side` pixels."""
        area, pixels = self.kernel**2, halved(side, layer.stride) ** 2
        if self.op == "conv":
            hidden, weights = layer.outputs, area * layer.inputs * layer.outputs
            total = Cost(weights + 2 * layer.outputs, weights * pixels)
        else:
            hidden = self.expansion * layer.inputs
            depthwise, project = area * hidden, hidden * layer.outputs
            total = Cost(depthwise + project + 2 * hidden + 2 * layer.outputs, (depthwise + project) * pixels)
            if self.expansion > 1:
                expand = layer.inputs * hidden
                total += Cost(expand + 2 * hidden, expand * side**2)
        if self.se:
            both = 2 * hidden * squeezed(layer.inputs, self.se)
            total += Cost(both + squeezed(layer.inputs, self.se) + hidden, both)
        return total


def squeezed(inputs: int, se: float) -> int:
    """Channels in the middle of a layer's squeeze-and-excitation."""
    return max(1, int(inputs * se))


def halved(side: int, stride: int) -> int:
    """Side of the images after a stride."""
    return -(-side // stride)


@dataclass(frozen=True)
class Encoding:
    """A network: its blocks, and what is before and behind them.

    >>> A1.cost(224, ends=Ends(3, 1000))
    Cost(params=3887038, macs=311580072)
    """

    blocks: tuple[Block, ...]
    stem: int
    """Filters of the 3x3 in front."""
    stem_stride: int
    head: int
    """Filters of the 1x1 behind."""
    dropout: float = 0.0
    """Of what the classifier gets."""
    published: bool = False
    """Norms as released (momentum 0.99, epsilon 1e-3), not torch's."""

    def __str__(self) -> str:
        return " ".join(map(str, self.blocks))

    def widths(self, channels: int = WIDTH) -> list[int]:
        """Filters of stem, blocks and head where those written `WIDTH` have `channels`."""
        return [width(written, channels) for written in (self.stem, *(b.filters for b in self.blocks), self.head)]

    def layers(self, channels: int = WIDTH) -> list[list[Layer]]:
        """Of each block, as it is built."""
        widths = self.widths(channels)[:-1]
        return [list(block.built(*ends)) for block, ends in zip(self.blocks, pairwise(widths), strict=True)]

    def cost(self, side: int, *, ends: Ends, channels: int = WIDTH) -> Cost:
        """Parameters, and multiply-adds of convolutions and classifier, its bias too, by formula."""
        last = self.widths(channels)[-2]
        total = self.frame(last, side, ends=ends, channels=channels)
        side = halved(side, self.stem_stride)
        for block, layers in zip(self.blocks, self.layers(channels), strict=True):
            for layer in layers:
                total += block.cost(layer, side)
                side = halved(side, layer.stride)
        return total

    def frame(self, last: int, side: int, *, ends: Ends, channels: int) -> Cost:
        """Of stem, of the head behind a block of `last` filters, and of the classifier."""
        first, *_, head = self.widths(channels)
        side = halved(side, self.stem_stride)
        end = reduce(halved, (block.stride for block in self.blocks), side)
        ends.need_pooled("mnas")
        stem, classifier = 9 * ends.inputs * first, ends.head_size(head)
        params = stem + 2 * first + last * head + 2 * head + classifier
        return Cost(params, stem * side**2 + last * head * end**2 + classifier)

    def scaled(self, multiplier: float) -> Encoding:
        """The same with so many times the filters, in multiples of eight, as in the released x0.5, x0.75 and x1.4."""

        def rounded(filters: int) -> int:
            wanted = multiplier * filters
            nearest = max(8, int(wanted + 4) // 8 * 8)
            return nearest + 8 if nearest < 0.9 * wanted else nearest

        blocks = (replace(b, inputs=rounded(b.inputs), filters=rounded(b.filters)) for b in self.blocks)
        return replace(self, blocks=tuple(blocks), stem=rounded(self.stem))


def read(text: str | Sequence[str]) -> tuple[Block, ...]:
    """The blocks of an encoding: words, or a list as pasted from anybody's code.

    Raises:
        BadInput: A word is none.

    >>> [block.filters for block in read("['r1_k3_s11_e1_i32_o16_noskip', 'r2_k3_s22_e6_i16_o24']")]
    [16, 24]
    """
    words = re.split(r"[\s,'\"\[\]()]+", text) if isinstance(text, str) else list(text)
    return tuple(Block.read(word) for word in words if word)


def width(written: int, channels: int) -> int:
    """The nearest whole number to `written` x `channels` / `WIDTH`; at least 1."""
    return max(1, (2 * written * channels + WIDTH) // (2 * WIDTH))


class MNAS(SearchSpace):
    """Five blocks: operation, kernel, squeeze-and-excitation, skip, filters and layers of each.

    `Proxy.channels` is the base width of the first block, from which all others follow; 16 is the space's own.

    >>> space = MNAS()
    >>> f"{space.size:.3g}"
    '1e+13'
    >>> arch = (2, 0, 1, 1, 1, 0, *(3, 1, 0, 0, 2, 1) * 4)
    >>> space.text(arch)[:66]
    'r1_k3_s11_e3_i16_o16_se0.25 r2_k5_s22_e6_i16_o30_noskip r3_k5_s22_'
    >>> space.parse(space.text(arch)) == arch
    True
    """

    name = "mnas"
    decisions = tuple(
        options
        for depths in DEPTHS
        for options in (len(OPS), len(KERNELS), len(SE), len(SKIPS), len(FILTERS), len(depths))
    )
    ordered = tuple(decision not in ("op", "skip") for _ in DEPTHS for decision in DECISIONS)
    levels = tuple(slice(len(DECISIONS) * block, len(DECISIONS) * (block + 1)) for block in range(len(DEPTHS)))
    full = Proxy(epochs=200, channels=WIDTH, resolution=32)
    paper = "Tan et al., CVPR 2019, arXiv:1807.11626"

    def isomorphism(self, arch: Architecture) -> Hashable:
        """The layers as they are built: skips that have no place are none."""
        encoding = self.encoding(arch)
        return tuple(
            (block.kernel, block.expansion, block.se, tuple(layers))
            for block, layers in zip(encoding.blocks, encoding.layers(), strict=True)
        )

    def encoding(self, arch: Architecture) -> Encoding:
        """The network of an architecture, its filters as at full width."""
        self.check(arch)
        blocks, inputs = [], WIDTH
        for number, (base, stride, depths) in enumerate(zip(BASE_FILTERS, STRIDES, DEPTHS, strict=True)):
            op, kernel, se, skip, filters, depth = arch[len(DECISIONS) * number :][: len(DECISIONS)]
            outputs = filters_of(base)[filters]
            expansion = EXPANSIONS.get(OPS[op], 0)
            block = Block(depths[depth], KERNELS[kernel], stride, expansion, inputs, outputs, SE[se], SKIPS[skip])
            blocks.append(block)
            inputs = outputs
        return Encoding(tuple(blocks), stem=WIDTH, stem_stride=1, head=HEAD)

    def text(self, arch: Architecture) -> str:
        """Five blocks in the notation of the released networks; `conv` for e, and `pool`, are ours."""
        return str(self.encoding(arch))

    def parse(self, text: str) -> Architecture:
        """The architecture of five blocks."""
        try:
            blocks = read(text)
        except BadInput as refusal:
            raise BadInput(f"{self.name}: {refusal}") from None
        if len(blocks) != len(STRIDES):
            raise BadInput(f"{self.name}: {len(blocks)} blocks in {text.strip()[:60]!r}; there are {len(STRIDES)}")
        arch: list[int] = []
        inputs = WIDTH
        for number, (block, base) in enumerate(zip(blocks, BASE_FILTERS, strict=True)):
            here = f"{self.name}: block {number} has"
            for letter, given, right in (("s", block.stride, STRIDES[number]), ("i", block.inputs, inputs)):
                if given != right:
                    raise BadInput(f"{here} {letter}{right} here, not {letter}{given}: {block}")
            chosen: list[tuple[str, float, Sequence[float]]] = [
                ("e (0: conv)", block.expansion, (0, *EXPANSIONS.values())),
                ("k", block.kernel, KERNELS),
                ("se", block.se, SE),
                ("skip", SKIPS.index(block.skip), range(len(SKIPS))),
                ("o", block.filters, filters_of(base)),
                ("r", block.layers, DEPTHS[number]),
            ]
            for letter, value, options in chosen:
                if value not in options:
                    there = ", ".join(f"{option:g}" for option in options)
                    raise BadInput(f"{here} {letter} of {there}, not {value:g}: {block}")
                arch.append(options.index(value))
            inputs = block.filters
        return tuple(arch)

    def check_proxy(self, proxy: Proxy) -> None:
        """Any side that three strides of 2 leave something of; the depth is searched, so a proxy has none."""
        if proxy.resolution < SMALLEST_SIDE:
            raise Unsupported(
                f"{self.name}: resolution {proxy.resolution} is too small for three strides of 2; "
                f"use at least {SMALLEST_SIDE}"
            )
        if proxy.cells is not None:
            raise Unsupported(
                f"{self.name}: depth is searched here, a proxy cannot set cells = {proxy.cells}; leave cells out"
            )

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters."""
        return self.cost(arch, proxy, ends=ends).params

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of convolutions and classifier, one image forward; squeeze-and-excitation counted."""
        self.check_proxy(proxy)
        return self.cost(arch, proxy, ends=ends).macs

    def cost(self, arch: Architecture, proxy: Proxy, *, ends: Ends) -> Cost:
        """Both."""
        return self.encoding(arch).cost(proxy.resolution, ends=ends, channels=proxy.channels)


def filters_of(base: int) -> tuple[int, ...]:
    """The output filters that a block can have, as written."""
    return tuple(int(base * times) for times in FILTERS)


def released(stem: int, dropout: float, *blocks: str) -> Encoding:
    """One of the networks for 224 pixels."""
    return Encoding(read(blocks), stem, stem_stride=2, head=1280, dropout=dropout, published=True)


A1 = released(
    32, 0.2,
    "r1_k3_s11_e1_i32_o16_noskip", "r2_k3_s22_e6_i16_o24", "r3_k5_s22_e3_i24_o40_se0.25", "r4_k3_s22_e6_i40_o80",
    "r2_k3_s11_e6_i80_o112_se0.25", "r3_k5_s22_e6_i112_o160_se0.25", "r1_k3_s11_e6_i160_o320",
)  # fmt: skip
"""MnasNet-A1: found by MNAS."""
B1 = released(
    32, 0.2,
    "r1_k3_s11_e1_i32_o16_noskip", "r3_k3_s22_e3_i16_o24", "r3_k5_s22_e3_i24_o40", "r3_k5_s22_e6_i40_o80",
    "r2_k3_s11_e6_i80_o96", "r4_k5_s22_e6_i96_o192", "r1_k3_s11_e6_i192_o320_noskip",
)  # fmt: skip
"""MnasNet-B1: without squeeze-and-excitation."""
SMALL = released(
    8, 0.0,
    "r1_k3_s11_e1_i16_o8", "r1_k3_s22_e3_i8_o16", "r2_k3_s22_e6_i16_o16", "r4_k5_s22_e6_i16_o32_se0.25",
    "r3_k3_s11_e6_i32_o32_se0.25", "r3_k5_s22_e6_i32_o88_se0.25", "r1_k3_s11_e6_i88_o144",
)  # fmt: skip
"""MnasNet-small; its first block is written i16 behind a stem of 8, and so has no skip."""
RELEASED = {"a1": A1, "b1": B1, "small": SMALL}
