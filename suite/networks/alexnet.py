"""The networks of MONAS's AlexNet-like space.

Hsu et al. "MONAS: Multi-Objective Neural Architecture Search using Reinforcement Learning". arXiv 2018.
https://arxiv.org/abs/1806.10332

Convolutions without bias, each with batch norm and ReLU, two poolings among them; the classifier is a pooling, a hidden
layer and the outputs. A stand-alone network and the supernet are the same module, with one kernel and the filters that
a layer has, or with all kernels and the most filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.channels import first, gate, normed, weights
from suite.networks.mixed import MixedNetwork
from suite.networks.mixture import Mixture, Row
from suite.networks.operations import PLAIN, Norms
from suite.spaces import alexnet as space
from suite.types import Architecture, Ends, Proxy

SPACE = space.AlexNet()


def pool(x: Tensor) -> Tensor:
    """The largest of 3x3, every other."""
    return F.max_pool2d(x, 3, stride=2, padding=1)


class Convolution(nn.Module):
    """Convolution, norm, ReLU; or that of its first channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norms: Norms) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = norms.inside(outputs)

    def forward(self, x: Tensor, width: int | None = None) -> Tensor:
        """Shape (n, inputs, h, w) to (n, width, h, w), of all its outputs or so many."""
        if width is None:
            return F.relu(self.norm(self.conv(x)))
        made = first(width, self.conv.out_channels, device=x.device)
        given = first(x.shape[1], self.conv.in_channels, device=x.device)
        x = F.conv2d(x, weights(self.conv.weight, made, given), padding=self.conv.padding)
        return F.relu(normed(self.norm, x, made))


class Layer(nn.ModuleDict):
    """Convolutions by the name of their kernel: conv_3x3."""

    def __init__(self, inputs: int, outputs: int, kernels: Sequence[int], norms: Norms) -> None:
        super().__init__({name(kernel): Convolution(inputs, outputs, kernel, norms) for kernel in kernels})

    def forward(self, x: Tensor, rows: tuple[Row, Row] | None = None, widths: Sequence[int] = ()) -> Tensor:
        """The only convolution; or with rows, of filters and of kernels, the sum over kernels, channels weighted."""
        convolutions = list(self.values())
        if rows is None:
            alone: Tensor = convolutions[0](x)
            return alone
        (of_filters, filters), (of_kernels, kernels) = rows
        width = widths[filters[-1]]
        total: Tensor | None = None
        for kernel in kernels:
            made = convolutions[kernel](x, width)
            if of_kernels is not None:
                made = of_kernels[kernel] * made
            total = made if total is None else total + made
        assert total is not None
        channels = gate(chosen(of_filters, filters), [widths[option] for option in filters], width)
        return total if channels is None else total * channels[..., None, None]


def name(kernel: int) -> str:
    """Of a kernel's convolution."""
    return f"conv_{kernel}x{kernel}"


def chosen(of_options: Tensor | None, options: Sequence[int]) -> Tensor | None:
    """The weights of those options, shape (options,)."""
    return None if of_options is None else of_options[list(options)]


class Network(nn.Module):
    """Convolutions, poolings after the first two, classifier.

    Args:
        layers: (filters, kernels) of each, filters under the proxy.
        proxy: The resolution, and the width of the hidden layer.
        ends: What goes in and comes out.
        norms: Its batch norms.
    """

    def __init__(
        self, layers: Sequence[tuple[int, Sequence[int]]], proxy: Proxy,
        *, ends: Ends, norms: Norms,
    ) -> None:  # fmt: skip
        super().__init__()
        ends.need_pooled("alexnet")
        inputs = ends.inputs
        made = []
        for filters, kernels in layers:
            made.append(Layer(inputs, filters, kernels, norms))
            inputs = filters
        self.layers = nn.ModuleList(made)
        self.widths = [space.width(filters, proxy) for filters in space.FILTERS]
        self.hidden = nn.Linear(space.features(inputs, proxy), space.HIDDEN * proxy.channels)
        self.classifier = nn.Linear(space.HIDDEN * proxy.channels, ends.outputs)

    def forward(self, images: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Outputs, logits of shape (n, outputs) if pooled, of normalised images, shape (n, inputs, side, side)."""
        x = images
        if mixture is None:
            for number, layer in enumerate(self.layers, start=1):
                x = layer(x)
                x = pool(x) if number <= space.POOLED else x
            return self.classified(pool(x))
        (depths, convolutions), *rows = mixture.rows(0, slice(0, len(SPACE.decisions)))
        ends: list[Tensor] = []
        for number in range(1, space.DEPTHS[convolutions[-1]] + 1):
            x = self.layers[number - 1](x, (rows[2 * number - 2], rows[2 * number - 1]), self.widths)
            x = pool(x) if number <= space.POOLED else x
            option = number - space.DEPTHS[0]
            if option in convolutions:
                ends.append(x if depths is None else depths[option] * x)
        width = max(end.shape[1] for end in ends)
        return self.classified(pool(sum_of([F.pad(end, (0, 0, 0, 0, 0, width - end.shape[1])) for end in ends])))

    def classified(self, x: Tensor) -> Tensor:
        """Logits, of features or of the first of them."""
        x = x.flatten(1)
        used = first(x.shape[1], self.hidden.in_features, device=x.device)
        x = self.hidden(x) if used is None else F.linear(x, weights(self.hidden.weight, None, used), self.hidden.bias)
        logits: Tensor = self.classifier(F.relu(x))
        return logits


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Of at least one."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def network(
    arch: Architecture, proxy: Proxy, *, ends: Ends, norms: Norms = PLAIN
) -> nn.Module:  # fmt: skip
    """The network of `arch` at the width of `proxy`."""
    layers = [(space.width(filters, proxy), (kernel,)) for filters, kernel in SPACE.convolutions(arch)]
    return Network(layers, proxy, ends=ends, norms=norms)


class Mixed(MixedNetwork):
    """The supernet: a row for each decision.

    A layer has a convolution of the most filters for each kernel; fewer filters are its first ones. The mixture is the
    sum over kernels, each channel times the weights of the options of filters that have it; the classifier sees the sum
    over depths of what the layers up to there give. These are ours: no paper mixes this space.
    """

    options = tuple(f"option{number}" for number in range(max(SPACE.decisions)))
    edges = SPACE
    norms = PLAIN

    def network(self, proxy: Proxy, *, ends: Ends, norms: Norms) -> nn.Module:
        """With all kernels and the most filters."""
        layers = [(space.width(space.FILTERS[-1], proxy), space.KERNELS)] * space.LAYERS
        return Network(layers, proxy, ends=ends, norms=norms)

    def derive(self, weights: npt.NDArray[np.floating[Any]]) -> Architecture:
        """The strongest option of each decision, those of layers that are not there at 0."""
        return SPACE.canonical_form(super().derive(weights))

    def narrow(self, arch: Architecture, proxy: Proxy, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The first channels of each tensor."""
        found: dict[str, Tensor] = {}
        inputs: int | None = None  # of the image there are all
        for number, (filters, kernel) in enumerate(SPACE.convolutions(arch)):
            width = space.width(filters, proxy)
            prefix = f"layers.{number}.{name(kernel)}."
            for key, tensor in state.items():
                if key.startswith(prefix):
                    found[key] = tensor if tensor.dim() == 0 else tensor[:width]
            found[f"{prefix}conv.weight"] = found[f"{prefix}conv.weight"][:, :inputs]
            inputs = width
        assert inputs is not None
        found["hidden.weight"] = state["hidden.weight"][:, : space.features(inputs, proxy)]
        return found | {key: state[key] for key in ("hidden.bias", "classifier.weight", "classifier.bias")}

    def computed_macs(
        self, proxy: Proxy, active: Sequence[Sequence[int]], *, ends: Ends
    ) -> int:  # fmt: skip
        """Of the widest filters and all kernels that are computed, as deep as the deepest."""
        total, inputs, widest = 0, ends.inputs, 0
        sides = space.sides(proxy)
        for number in range(space.DEPTHS[active[0][-1]]):
            width = space.width(space.FILTERS[active[1 + 2 * number][-1]], proxy)
            areas = sum(space.KERNELS[option] ** 2 for option in active[2 + 2 * number])
            total += areas * inputs * width * sides[number] ** 2
            inputs = width
            if number + 1 - space.DEPTHS[0] in active[0]:
                widest = max(widest, width)
        hidden = space.HIDDEN * proxy.channels
        return total + (space.features(widest, proxy) + 1) * hidden + (hidden + 1) * ends.outputs


mixed = Mixed(network, {"network": slice(0, len(SPACE.decisions))})
