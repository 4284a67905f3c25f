"""The operations of cells as torch modules, and their initial weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data.seeding import generator
from suite.networks.dead_edges import Zero, nothing
from suite.types import BadInput, Ends, Unsupported

STATISTICS = ("running", "batch")


@dataclass(frozen=True)
class Norms:
    """The batch norms of a network.

    Raises:
        BadInput: `statistics` is neither "running" nor "batch".
    """

    affine: bool = True
    """Whether those of the cells have a scale and a shift; the others always have them."""
    statistics: str = "running"
    """Statistics that they use outside training: "running": averages of the training; "batch": the batch's own."""
    pools: bool = False
    """Whether a norm without scale and shift follows each pooling in a cell, as in DARTS's supernet."""

    def __post_init__(self) -> None:
        if self.statistics not in STATISTICS:
            raise BadInput(f"norms: statistics must be one of {', '.join(STATISTICS)}, not {self.statistics!r}")

    def inside(self, channels: int, *, affine: bool = True) -> nn.BatchNorm2d:
        """A batch norm for the inside of a cell."""
        tracks = self.statistics == "running"
        return nn.BatchNorm2d(channels, affine=affine and self.affine, track_running_stats=tracks)

    def outside(self, channels: int) -> nn.BatchNorm2d:
        """A batch norm for the skeleton around the cells."""
        return nn.BatchNorm2d(channels, track_running_stats=self.statistics == "running")


PLAIN = Norms()
"""The norms of a network that is trained by itself."""


class AfterReLU(nn.Module):
    """An operation that begins with a ReLU, so that several may share one: see `suite.networks.dead_edges`."""

    begins = "relu"

    def begin(self, x: Tensor) -> Tensor:
        """The ReLU that operations on one state may share."""
        return F.relu(x)

    def end(self, activated: Tensor) -> Tensor:
        """The operation after its ReLU."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        return self.end(self.begin(x))


class ReLUConvBN(AfterReLU):
    """ReLU, convolution without bias, batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs) if norm is None else norm

    def end(self, activated: Tensor) -> Tensor:
        """Convolve and normalise what was activated."""
        normed: Tensor = self.norm(self.conv(activated))
        return normed

    def of_nothing(self, like: Tensor) -> Tensor:
        """The output for an input of zeros: the norm's shift."""
        normed: Tensor = self.norm(nothing(like, self.conv))
        return normed


class Separable(AfterReLU):
    """ReLU, a convolution of each channel by itself, a 1x1 over all, batch norm."""

    def __init__(self, channels: int, kernel: int, *, stride: int, dilation: int, norm: nn.Module) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, stride=stride, padding=dilation * (kernel // 2), dilation=dilation,
            groups=channels, bias=False,
        )  # fmt: skip
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = norm

    def end(self, activated: Tensor) -> Tensor:
        """Convolve each channel, then across channels, and normalise."""
        normed: Tensor = self.norm(self.pointwise(self.depthwise(activated)))
        return normed

    def of_nothing(self, like: Tensor) -> Tensor:
        """The output for an input of zeros: the norm's shift."""
        normed: Tensor = self.norm(nothing(like, self.depthwise, self.pointwise))
        return normed


class Chain(nn.Sequential):
    """One after the other; the beginning of the first may be shared."""

    @property
    def begins(self) -> object:
        """The kind of beginning that the first operation has."""
        return self.first.begins

    @property
    def first(self) -> Any:
        """The operation that the chain begins with."""
        return self[0]

    def begin(self, x: Tensor) -> Tensor:
        """The beginning of the first operation, which others may share."""
        begun: Tensor = self.first.begin(x)
        return begun

    def end(self, begun: Tensor) -> Tensor:
        """The chain after its shared beginning."""
        return self.rest(self.first.end(begun))

    def of_nothing(self, like: Tensor) -> Tensor:
        """The output of the chain for an input of zeros."""
        return self.rest(self.first.of_nothing(like))

    def rest(self, x: Tensor) -> Tensor:
        """The operations of the chain after the first."""
        for step in list(self)[1:]:
            x = step(x)
        return x


class Pool(nn.Module):
    """A pooling, which is shared as a whole among poolings of one kind and stride."""

    @property
    def begins(self) -> object:
        """The kind and stride of the pooling, which equal ones share."""
        return type(self), self.stride

    def begin(self, x: Tensor) -> Tensor:
        """The whole pooling: it can be shared as it is."""
        pooled: Tensor = self(x)
        return pooled

    def end(self, pooled: Tensor) -> Tensor:
        """Return the shared pooling as it is."""
        return pooled

    def of_nothing(self, like: Tensor) -> Tensor:
        """The output for an input of zeros: zeros."""
        return torch.zeros_like(like)


class MaxPool(nn.MaxPool2d, Pool):
    """A pooling that takes the largest value of a window."""


class MeanPool(nn.AvgPool2d, Pool):
    """A pooling that takes the mean of a window."""


class FactorizedReduce(AfterReLU):
    """ReLU, two 1x1 of stride 2, the second a pixel further down and right, side by side, batch norm.

    The stride is taken of the images: oneDNN 3.12, on processors with AVX2 and no more, writes beyond its memory in the
    backward pass of a 1x1 of stride 2 over fewer than eight channels that lie last.
    """

    def __init__(self, inputs: int, outputs: int, *, norm: nn.Module) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)
        self.norm = norm

    def end(self, activated: Tensor) -> Tensor:
        """Convolve both halves, join their channels and normalise."""
        halves = [self.even(activated[:, :, ::2, ::2]), self.odd(activated[:, :, 1::2, 1::2])]
        normed: Tensor = self.norm(torch.cat(halves, dim=1))
        return normed


class Operation(Protocol):
    """Makes a module from `channels` to as many, at 1 / `stride` of the resolution."""

    def __call__(self, channels: int, stride: int = 1, norms: Norms = PLAIN) -> nn.Module:
        """Make the module of this operation."""


def none(channels: int, stride: int = 1, norms: Norms = PLAIN) -> nn.Module:
    """The operation `none`: no connection at all."""
    return Zero(stride)


def skip(channels: int, stride: int = 1, norms: Norms = PLAIN) -> nn.Module:
    """The input itself, or half of it each way."""
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, norm=norms.inside(channels))


def convolution(kernel: int) -> Operation:
    """A maker of ReLU, convolution and norm with this kernel."""

    def make(channels: int, stride: int = 1, norms: Norms = PLAIN) -> nn.Module:
        return ReLUConvBN(channels, channels, kernel, stride=stride, norm=norms.inside(channels))

    return make


def separable(kernel: int) -> Operation:
    """Twice in a row, the first with the stride."""

    def make(channels: int, stride: int = 1, norms: Norms = PLAIN) -> nn.Module:
        steps = [
            Separable(channels, kernel, stride=pace, dilation=1, norm=norms.inside(channels)) for pace in (stride, 1)
        ]
        return Chain(*steps)

    return make


def dilated(kernel: int) -> Operation:
    """Once, with every other pixel."""

    def make(channels: int, stride: int = 1, norms: Norms = PLAIN) -> nn.Module:
        return Separable(channels, kernel, stride=stride, dilation=2, norm=norms.inside(channels))

    return make


def pool(kind: str) -> Operation:
    """Mean or largest of 3x3, of the pixels inside the image."""

    def make(channels: int, stride: int = 1, norms: Norms = PLAIN) -> nn.Module:
        pooled: nn.Module = (
            MaxPool(3, stride=stride, padding=1)
            if kind == "max"
            else MeanPool(3, stride=stride, padding=1, count_include_pad=False)
        )
        return Chain(pooled, norms.inside(channels, affine=False)) if norms.pools else pooled

    return make


OPERATIONS: dict[str, Operation] = {
    "none": none,
    "skip_connect": skip,
    "nor_conv_1x1": convolution(1),
    "nor_conv_3x3": convolution(3),
    "max_pool_3x3": pool("max"),
    "avg_pool_3x3": pool("avg"),
    "sep_conv_3x3": separable(3),
    "sep_conv_5x5": separable(5),
    "dil_conv_3x3": dilated(3),
    "dil_conv_5x5": dilated(5),
}
"""Every operation of an edge."""


class Reduction(nn.Module):
    """Residual block that halves the image: two 3x3 beside an average pool with a 1x1."""

    def __init__(self, inputs: int, outputs: int, norms: Norms = PLAIN) -> None:
        super().__init__()
        self.first = ReLUConvBN(inputs, outputs, 3, stride=2, norm=norms.outside(outputs))
        self.second = ReLUConvBN(outputs, outputs, 3, norm=norms.outside(outputs))
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / 2, w / 2)."""
        halved: Tensor = self.second(self.first(x)) + self.shortcut(F.avg_pool2d(x, 2))
        return halved


def classifier(features: int, ends: Ends) -> nn.Module:
    """The layer behind the last feature map; its bias counts as a weight."""
    if ends.head == "none":
        return nn.Identity()
    return nn.Conv2d(features, ends.outputs, 1) if ends.head == "map" else nn.Linear(features, ends.outputs)


def answer(x: Tensor, layer: nn.Module, head: str) -> Tensor:
    """The output of a network for its last feature map, shape (n, features, h, w), by the layer of `classifier`."""
    given: Tensor = layer(x.mean(dim=(2, 3)) if head == "pooled" else x)
    return given


@torch.no_grad()
def initialise(network: nn.Module, seed: int) -> None:
    """Draw all weights anew, each tensor from a generator of its own, seeded by (seed, its name).

    The distributions are torch's defaults, with which NAS-Bench-201 was trained: weights and biases uniform in
    +-1 / sqrt(inputs of one output); batch norm 1 and 0. Two networks under one seed start with the same weights
    wherever they have tensors of the same name and shape.

    Raises:
        Unsupported: The network has a layer with weights that this does not know.
    """
    for place, module in network.named_modules():
        if hasattr(module, "reset_buffers"):
            module.reset_buffers()
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for name, tensor in module.named_parameters(recurse=False):
                drawn = torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator(seed, f"{place}.{name}"))
                tensor.copy_(drawn)
        elif any(True for _ in module.parameters(recurse=False)):
            raise Unsupported(f"{place}: no initial weights are known for {type(module).__name__}; use Conv2d, Linear")
