"""The operations of cells as torch modules, and their initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.chance import generator
from suite.types import Unsupported


class ReLUConvBN(nn.Module):
    """ReLU, convolution without bias, batch norm with scale and shift."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        normed: Tensor = self.norm(self.conv(F.relu(x)))
        return normed


class Zero(nn.Module):
    """Nothing arrives."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros of the shape of `x`."""
        return torch.zeros_like(x)


def average_pool() -> nn.Module:
    """Mean over 3x3, of the pixels inside the image."""
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: Zero(),
    "skip_connect": lambda channels: nn.Identity(),
    "nor_conv_1x1": lambda channels: ReLUConvBN(channels, channels, 1),
    "nor_conv_3x3": lambda channels: ReLUConvBN(channels, channels, 3),
    "avg_pool_3x3": lambda channels: average_pool(),
}
"""Every operation, from `channels` to as many at the same resolution."""


class Reduction(nn.Module):
    """Residual block that halves the image: two 3x3 beside an average pool with a 1x1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ReLUConvBN(inputs, outputs, 3, stride=2)
        self.second = ReLUConvBN(outputs, outputs, 3)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / 2, w / 2)."""
        halved: Tensor = self.second(self.first(x)) + self.shortcut(F.avg_pool2d(x, 2))
        return halved


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
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for name, tensor in module.named_parameters(recurse=False):
                drawn = torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator(seed, f"{place}.{name}"))
                tensor.copy_(drawn)
        elif any(True for _ in module.parameters(recurse=False)):
            raise Unsupported(f"{place}: no initial weights are known for {type(module).__name__}; use Conv2d, Linear")
