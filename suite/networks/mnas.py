"""The networks of MNAS's blocks: for 32 pixels, the released ones for 224, and the supernet.

Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le. "MnasNet: Platform-Aware Neural Architecture Search for Mobile".
CVPR 2019. https://arxiv.org/abs/1807.11626

3x3 with norm and ReLU; blocks; 1x1 with norm and ReLU; mean over the image, classifier. Weights are called
blocks.<block>.layers.<layer>.<operation, kernel, se>.<part>.*

In the supernet a layer has all its operations, each with weights of its own, and as many channels as the widest; a
narrower layer is their first channels, a shallower block its first layers. Several widths are mixed by masks, as in
FBNetV2 (Wan et al., CVPR 2020, https://arxiv.org/abs/2004.05565).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.blocks import Block as Keyed
from suite.networks.mixed import MixedNetwork
from suite.networks.mixture import Mixture, Row
from suite.networks.operations import PLAIN, Norms
from suite.spaces import mnas as space
from suite.types import Architecture, Ends, Proxy

DECISIONS = len(space.DECISIONS)
PATHS = tuple(product(range(len(space.OPS)), range(len(space.KERNELS)), range(len(space.SE))))
"""The operations that a layer can have, as options of (op, kernel, se)."""
PUBLISHED = {"momentum": 0.01, "eps": 1e-3}
"""Of the released networks' norms; torch's momentum is what the released code leaves of 1."""


# Modules of which the first channels can be used alone


def dense(x: Tensor, layer: nn.Conv2d, outputs: int) -> Tensor:
    """A convolution from the channels that `x` has to the first `outputs`."""
    if (x.shape[1], outputs) == (layer.in_channels, layer.out_channels):
        whole: Tensor = layer(x)
        return whole
    bias = None if layer.bias is None else layer.bias[:outputs]
    return F.conv2d(x, layer.weight[:outputs, : x.shape[1]], bias, layer.stride, layer.padding)


def depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution of each channel that `x` has by itself."""
    channels = x.shape[1]
    if channels == layer.in_channels:
        whole: Tensor = layer(x)
        return whole
    return F.conv2d(x, layer.weight[:channels], None, layer.stride, layer.padding, groups=channels)


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """A batch norm of the channels that `x` has; their running statistics move, the others' stay."""
    channels = x.shape[1]
    if channels == norm.num_features:
        whole: Tensor = norm(x)
        return whole
    mean, variance = norm.running_mean, norm.running_var
    tracks = norm.track_running_stats and mean is not None and variance is not None
    rate = norm.momentum
    if tracks and norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if rate is None:
            rate = 1 / float(norm.num_batches_tracked)
    return F.batch_norm(
        x,
        mean[:channels] if tracks and mean is not None else None,
        variance[:channels] if tracks and variance is not None else None,
        norm.weight[:channels] if norm.affine else None,
        norm.bias[:channels] if norm.affine else None,
        norm.training or not tracks,
        rate or 0.0,
        norm.eps,
    )


# What is mixed


def times(*weights: Tensor | None) -> Tensor | None:
    """Their product; None is 1."""
    product: Tensor | None = None
    for weight in weights:
        if weight is not None:
            product = weight if product is None else product * weight
    return product


def plus(total: Tensor | None, x: Tensor, weight: Tensor | None) -> Tensor:
    """The sum with `x` times its weight."""
    if weight is not None:
        x = weight * x
    return x if total is None else total + x


def weighted(row: Row) -> Iterator[tuple[int, Tensor | None]]:
    """The options of a row that are computed, and their weights."""
    weights, active = row
    return ((option, None if weights is None else weights[option]) for option in active)


@dataclass(frozen=True)
class Widths:
    """The widths that are mixed at a place: filters as written, channels as they are, weight."""

    mixed: tuple[tuple[int, int, Tensor | None], ...]

    @property
    def widest(self) -> int:
        """That is computed."""
        return max(channels for _, channels, _ in self.mixed)

    def mask(self, size: Callable[[int], int] = int) -> Tensor | None:
        """A weight for each channel, the sum of those of the widths that have it, shape (1 | n, channels, 1, 1).

        Args:
            size: Channels there are where a layer's input has so many.

        Returns:
            None if all channels count 1.
        """
        total: Tensor | None = None
        for _, channels, weight in self.mixed:
            if weight is not None:
                there = torch.arange(size(self.widest), device=weight.device) < size(channels)
                total = plus(total, there.to(weight.dtype)[None, :, None, None], weight)
        return total


Skips: TypeAlias = Sequence[tuple[str, int, Tensor | None]]
"""What is added to a layer: kind, channels, weight."""


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Each channel times its weight."""
    return x if mask is None else x * mask


def shortcut(kind: str, x: Tensor, stride: int) -> Tensor:
    """The input itself; or means of 3x3, of the pixels inside the image."""
    if kind == "identity":
        return x
    return F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)


# Layers


class Squeeze(nn.Module):
    """Squeeze-and-excitation: each channel times what two 1x1 make of the means of all."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, middle, 1)
        self.restore = nn.Conv2d(middle, channels, 1)

    def forward(
        self, x: Tensor, middle: int, seen: Tensor | None = None, mixed: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The same shape; `seen` masks the means, `mixed` the `middle` channels between."""
        means = masked(x.mean(dim=(2, 3), keepdim=True), seen)
        between = masked(F.relu(dense(means, self.reduce, middle)), mixed)
        return x * torch.sigmoid(dense(between, self.restore, x.shape[1]))


class Operation(nn.Module):
    """What a layer computes, skip apart."""

    def __init__(self, se: float, inputs: int, hidden: int) -> None:
        super().__init__()
        self.se = se
        if se:
            self.squeeze = Squeeze(hidden, self.middle(inputs))

    def middle(self, inputs: int) -> int:
        """Channels in the middle of squeeze-and-excitation."""
        return space.squeezed(inputs, self.se)

    def squeezed(self, x: Tensor, arrived: int, inputs: Widths | None, seen: Tensor | None = None) -> Tensor:
        """After squeeze-and-excitation, if there is one, in a layer at which `arrived` channels arrived."""
        if not self.se:
            return x
        attended: Tensor = self.squeeze(x, self.middle(arrived), seen, inputs.mask(self.middle) if inputs else None)
        return attended


class Regular(Operation):
    """Convolution, norm, ReLU, squeeze-and-excitation."""

    def __init__(self, shape: space.Layer, kernel: int, se: float, norms: Norms) -> None:
        super().__init__(se, shape.inputs, shape.outputs)
        self.conv = nn.Conv2d(
            shape.inputs, shape.outputs, kernel, stride=shape.stride, padding=kernel // 2, bias=False
        )  # fmt: skip
        self.conv_norm = norms.inside(shape.outputs)

    def forward(self, x: Tensor, inputs: Widths | None = None, outputs: Widths | None = None) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        made = self.conv.out_channels if outputs is None else outputs.widest
        y = F.relu(normed(dense(x, self.conv, made), self.conv_norm))
        return self.squeezed(y, x.shape[1], inputs, outputs.mask() if outputs and self.se else None)


class Separable(Operation):
    """1x1 to more channels (MBConv) or not; depthwise; squeeze-and-excitation; 1x1 without ReLU. Norms after each."""

    def __init__(self, shape: space.Layer, kernel: int, expansion: int, se: float, norms: Norms) -> None:
        hidden = expansion * shape.inputs
        super().__init__(se, shape.inputs, hidden)
        self.expansion = expansion
        if expansion > 1:
            self.expand = nn.Conv2d(shape.inputs, hidden, 1, bias=False)
            self.expand_norm = norms.inside(hidden)
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride=shape.stride, padding=kernel // 2, groups=hidden, bias=False
        )  # fmt: skip
        self.depthwise_norm = norms.inside(hidden)
        self.project = nn.Conv2d(hidden, shape.outputs, 1, bias=False)
        self.project_norm = norms.inside(shape.outputs)

    def hidden(self, inputs: int) -> int:
        """Channels inside."""
        return self.expansion * inputs

    def forward(self, x: Tensor, inputs: Widths | None = None, outputs: Widths | None = None) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        arrived, y = x.shape[1], x
        if self.expansion > 1:
            y = F.relu(normed(dense(x, self.expand, self.hidden(arrived)), self.expand_norm))
        y = F.relu(normed(depthwise(y, self.depthwise), self.depthwise_norm))
        y = self.squeezed(masked(y, inputs.mask(self.hidden) if inputs else None), arrived, inputs)
        made = self.project.out_channels if outputs is None else outputs.widest
        return normed(dense(y, self.project, made), self.project_norm)


class Layer(nn.ModuleDict):
    """Its operation, or in a supernet all of them by name; and a skip beside.

    Args:
        operations: (kernel, expansion, se) of each; expansion 0 is a regular convolution.
        shape: In a supernet, the widest.
        norms: Its batch norms.
    """

    def __init__(self, operations: Sequence[tuple[int, int, float]], shape: space.Layer, norms: Norms) -> None:
        made: dict[str, nn.Module] = {
            path_name(kernel, expansion, se): (
                Separable(shape, kernel, expansion, se, norms) if expansion else Regular(shape, kernel, se, norms)
            )
            for kernel, expansion, se in operations
        }
        super().__init__(made)
        self.stride, self.skip = shape.stride, shape.skip

    def forward(self, x: Tensor) -> Tensor:
        """Of its only operation."""
        (operation,) = self.values()
        y: Tensor = operation(x)
        return y if self.skip == "none" else y + shortcut(self.skip, x, self.stride)

    def mix(
        self, x: Tensor, paths: Sequence[tuple[str, Tensor | None]], skips: Skips, inputs: Widths, outputs: Widths
    ) -> Tensor:
        """The weighted sum of operations and skips, in as many channels as the widest of `outputs`."""
        total: Tensor | None = None
        for name, weight in paths:
            total = plus(total, self[name](x, inputs, outputs), weight)
        assert total is not None
        total = masked(total, outputs.mask())
        for kind, channels, weight in skips:
            beside = shortcut(kind, x[:, :channels], self.stride)
            total = plus(total, F.pad(beside, (0, 0, 0, 0, 0, outputs.widest - channels)), weight)
        return total


def path_name(kernel: int, expansion: int, se: float) -> str:
    """Of an operation, as its weights are called.

    >>> path_name(5, 6, 0.25), path_name(3, 0, 0.0)
    ('mb6_k5_se', 'conv_k3')
    """
    op = f"mb{expansion}" if expansion > 1 else ("conv", "sep")[expansion]
    return f"{op}_k{kernel}" + ("_se" if se else "")


class Block(nn.Module):
    """Layers in a row."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        for layer in self.layers:
            x = layer(x)
        return x


class MixedBlock(Block):
    """All layers that there may be, each with all operations, at the widest."""

    def __init__(self, number: int, widest: int, channels: int, norms: Norms) -> None:
        offered = space.filters_of(space.BASE_FILTERS[number])
        self.offered = [(written, space.width(written, channels)) for written in offered]
        self.depths, self.stride = space.DEPTHS[number], space.STRIDES[number]
        outputs = max(width for _, width in self.offered)
        operations = [path(*options) for options in PATHS]
        layers = []
        for place in range(max(self.depths)):
            shape = space.Layer(outputs if place else widest, outputs, 1 if place else self.stride, "none")
            layers.append(Layer(operations, shape, norms))
        super().__init__(layers)

    def mix(self, x: Tensor, inputs: Widths, rows: Sequence[Row]) -> tuple[Tensor, Widths]:
        """The mixture, and the widths it has.

        Args:
            x: Shape (n, widest of inputs, h, w), masked.
            inputs: Widths of the block before.
            rows: Of the decisions, in their order.
        """
        op, kernel, se, skip, filters, depth = rows
        outputs = Widths(tuple((*self.offered[option], weight) for option, weight in weighted(filters)))
        paths = [
            (path_name(*path(o, k, s)), times(one, two, three))
            for (o, one), (k, two), (s, three) in product(weighted(op), weighted(kernel), weighted(se))
        ]
        ends = {self.depths[option]: weight for option, weight in weighted(depth)}
        total: Tensor | None = None
        for place in range(1, max(ends) + 1):
            layer = self.layers[place - 1]
            assert isinstance(layer, Layer)
            x = layer.mix(x, paths, skips(skip, inputs, outputs, layer.stride, place == 1), inputs, outputs)
            inputs = outputs
            if place in ends:
                total = plus(total, x, ends[place])
        assert total is not None
        return total, outputs


def path(op: int, kernel: int, se: int) -> tuple[int, int, float]:
    """(kernel, expansion, se) of options."""
    return space.KERNELS[kernel], space.EXPANSIONS.get(space.OPS[op], 0), space.SE[se]


def skips(row: Row, inputs: Widths, outputs: Widths, stride: int, first: bool) -> Skips:
    """What may be added to a layer of a mixture: only where filters are written equal, and an identity at stride 1."""
    found: list[tuple[str, int, Tensor | None]] = []
    for option, weight in weighted(row):
        kind = space.SKIPS[option]
        if kind == "none" or (kind == "identity" and stride > 1):
            continue
        if not first:
            found.append((kind, outputs.widest, weight))
            continue
        for (before, channels, one), (after, _, two) in product(inputs.mixed, outputs.mixed):
            if before == after:
                found.append((kind, channels, times(weight, one, two)))
    return found


# Networks


class ConvNormReLU(nn.Module):
    """Stem and head."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norms: Norms) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = norms.outside(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs or fewer, h, w) to (n, outputs, h / stride, w / stride)."""
        return F.relu(normed(dense(x, self.conv, self.conv.out_channels), self.norm))


class Network(nn.Module):
    """Stem, blocks, head, mean over the image, classifier."""

    def __init__(
        self, encoding: space.Encoding, blocks: Sequence[Block], *, channels: int, last: int, ends: Ends,
        norms: Norms,
    ) -> None:  # fmt: skip
        super().__init__()
        first, *_, head = encoding.widths(channels)
        ends.need_pooled("mnas")
        self.stem = ConvNormReLU(ends.inputs, first, 3, encoding.stem_stride, norms)
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNormReLU(last, head, 1, 1, norms)
        self.dropout = nn.Dropout(encoding.dropout)
        self.classifier = nn.Linear(head, ends.outputs)
        self.arriving = Widths(((encoding.stem, first, None),))

    def forward(self, images: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Outputs, logits of shape (n, outputs) if pooled, of normalised images, shape (n, inputs, side, side)."""
        x = self.stem(images)
        widths = self.arriving
        for number, block in enumerate(self.blocks):
            if mixture is None:
                x = block(x)
            else:
                assert isinstance(block, MixedBlock)
                x, widths = block.mix(x, widths, mixture.rows(0, rows_of(number)))
        features = self.dropout(self.head(x).mean(dim=(2, 3)))
        logits: Tensor = self.classifier(features)
        return logits


def rows_of(block: int) -> slice:
    """Of a mixture."""
    return slice(DECISIONS * block, DECISIONS * (block + 1))


def from_encoding(
    encoding: space.Encoding, *, ends: Ends, channels: int = space.WIDTH,
    norms: Norms = PLAIN,
) -> Network:  # fmt: skip
    """The network of an encoding: any of the space, or a released one.

    >>> with torch.device("meta"):
    ...     network = from_encoding(space.B1, ends=Ends(3, 1000))
    >>> sum(weight.numel() for weight in network.parameters())
    4383312
    """
    shapes = encoding.layers(channels)
    blocks = [
        Block([Layer([(block.kernel, block.expansion, block.se)], shape, norms) for shape in layers])
        for block, layers in zip(encoding.blocks, shapes, strict=True)
    ]
    network = Network(
        encoding, blocks, channels=channels, last=shapes[-1][-1].outputs, ends=ends,
        norms=norms,
    )  # fmt: skip
    if encoding.published:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.eps = PUBLISHED["momentum"], PUBLISHED["eps"]
    return network


SPACE = space.MNAS()
FIRST = SPACE.encoding((0,) * len(SPACE.decisions))


def network(
    arch: Architecture, proxy: Proxy, *, ends: Ends, norms: Norms = PLAIN
) -> nn.Module:  # fmt: skip
    """The network of `arch` at the width of `proxy`."""
    return from_encoding(SPACE.encoding(arch), ends=ends, channels=proxy.channels, norms=norms)


def blocks(arch: Architecture, proxy: Proxy, *, ends: Ends) -> list[Keyed]:
    """Of the network of `arch`: stem, five blocks, head, classifier."""
    encoding = SPACE.encoding(arch)
    shapes = encoding.layers(proxy.channels)
    first, *_, head = encoding.widths(proxy.channels)
    last = shapes[-1][-1].outputs
    searched = [
        Keyed(
            f"block{number}", block.op, block.kernel, max(1, block.expansion), block.se, block.skip, layers[0].inputs,
            layers[0].outputs, block.stride,
            tuple(
                f"blocks.{number}.layers.{place}.{path_name(block.kernel, block.expansion, block.se)}."
                for place in range(len(layers))
            ),
        )
        for number, (block, layers) in enumerate(zip(encoding.blocks, shapes, strict=True))
    ]  # fmt: skip
    return [
        Keyed("stem", "stem", 3, c_in=ends.inputs, c_out=first, layers=("stem.",)),
        *searched,
        Keyed("head", "head", 1, c_in=last, c_out=head, layers=("head.",)),
        Keyed("classifier", "classifier", 1, c_in=head, c_out=ends.outputs, layers=("classifier.",)),
    ]


class Mixed(MixedNetwork):
    """The supernet: a row for each decision, a column for each option that some decision has.

    A layer's operation has the product of three rows' weights; a depth mixes the outputs of layers; widths are masks.
    """

    options = tuple(str(option) for option in range(max(SPACE.decisions)))
    """Places among the options of a row's decision."""
    edges = SPACE
    norms = Norms(affine=False)

    def network(self, proxy: Proxy, *, ends: Ends, norms: Norms) -> nn.Module:
        """With all layers and operations, at the widest."""
        widths = widest(proxy.channels)
        blocks = [MixedBlock(number, inputs, proxy.channels, norms) for number, inputs in enumerate(widths[:-1])]
        return Network(
            FIRST, blocks, channels=proxy.channels, last=widths[-1], ends=ends,
            norms=norms,
        )  # fmt: skip

    def narrow(self, arch: Architecture, proxy: Proxy, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Of each tensor of the network of `arch`, the first channels."""
        ends = Ends(state["stem.conv.weight"].shape[1], len(state["classifier.bias"]))
        with torch.device("meta"):
            alone = network(arch, proxy, ends=ends).state_dict()
        return {
            name: state[name][tuple(slice(length) for length in tensor.shape)]
            for name, tensor in alone.items()
            if name in state
        }

    def computed_macs(
        self, proxy: Proxy, active: Sequence[Sequence[int]], *, ends: Ends
    ) -> int:  # fmt: skip
        """Multiply-adds of one image forward, if these options of each row are computed."""
        total, inputs = 0, widest(proxy.channels)[0]
        for number, side in enumerate(sides(proxy)):
            op, kernel, se, _, filters, depth = active[rows_of(number)]
            offered = [space.width(w, proxy.channels) for w in space.filters_of(space.BASE_FILTERS[number])]
            outputs = max(offered[option] for option in filters)
            layers = max(space.DEPTHS[number][option] for option in depth)
            for options in product(op, kernel, se):
                total += block_cost(number, options, inputs, outputs, layers, side).macs
            inputs = outputs
        return total + frame(proxy, inputs, ends=ends).macs


def widest(channels: int) -> list[int]:
    """Channels of the stem, and of each block at its widest."""
    return [space.width(written, channels) for written in (space.WIDTH, *(
        max(space.filters_of(base)) for base in space.BASE_FILTERS
    ))]  # fmt: skip


def sides(proxy: Proxy) -> list[int]:
    """Of the images that each block gets, and behind the last."""
    return list(accumulate(space.STRIDES, space.halved, initial=proxy.resolution))[:-1]


def block_cost(
    number: int, options: tuple[int, int, int], inputs: int, outputs: int, layers: int, side: int
) -> space.Cost:  # fmt: skip
    """Of a block's layers with one operation."""
    kernel, expansion, se = path(*options)
    stride = space.STRIDES[number]
    block = space.Block(layers, kernel, stride, expansion, inputs, outputs, se)
    first = block.cost(space.Layer(inputs, outputs, stride, "none"), side)
    other = block.cost(space.Layer(outputs, outputs, 1, "none"), space.halved(side, stride))
    return space.Cost(first.params + (layers - 1) * other.params, first.macs + (layers - 1) * other.macs)


def frame(proxy: Proxy, last: int, *, ends: Ends) -> space.Cost:
    """Of stem, of the head behind a block of `last` channels, and of the classifier."""
    return FIRST.frame(
        last, proxy.resolution, ends=ends, channels=proxy.channels
    )  # fmt: skip


mixed = Mixed(network, {f"block{number}": rows_of(number) for number in range(len(space.STRIDES))})
