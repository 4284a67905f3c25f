"""The networks of MONAS's CondenseNet space, as they are trained and as they are deployed.

Huang, Liu, van der Maaten, Weinberger. "CondenseNet: An Efficient DenseNet using Learned Group Convolutions".
CVPR 2018. https://arxiv.org/abs/1711.09224

A learned group convolution is a 1x1 whose outputs are in G groups; a group has a mask over its inputs. Over the first
half of a run, in C - 1 stages of the same length, each group loses a C-th of its inputs at the end of each stage, those
whose weights are the smallest by absolute sum over the group; then the network is trained on as it is. `deployed` makes
of each a selection of inputs and a grouped 1x1. Whoever trains a network tells it where in its run it is: `progress`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.channels import first, gate, normed, weights
from suite.networks.mixed import MixedNetwork
from suite.networks.mixture import Mixture, Row
from suite.networks.operations import PLAIN, Norms
from suite.spaces import condensenet as space
from suite.types import Architecture, Ends, Proxy

SPACE = space.CondenseNet()


class LearnedGroupConv(nn.Module):
    """Norm, ReLU, a 1x1 that has for each group of outputs a mask over inputs; group g are outputs g, g + G, ..."""

    mask: Tensor
    """Shape (G, inputs): 1, or 0 where the group has lost the input."""

    def __init__(self, inputs: int, outputs: int, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.register_buffer("mask", torch.ones(space.GROUPS, inputs))

    def reset_buffers(self) -> None:
        """All groups have all inputs."""
        self.mask.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h, w)."""
        masks = self.mask.repeat(self.conv.out_channels // space.GROUPS, 1)  # (outputs, inputs)
        return F.conv2d(F.relu(self.norm(x)), self.conv.weight * masks[:, :, None, None])

    @torch.no_grad()
    def condense(self, stage: int) -> None:
        """Leave each group the inputs that it shall have after so many stages; nothing if it has no more."""
        inputs = self.conv.in_channels
        by_group = self.conv.weight.float().reshape(-1, space.GROUPS, inputs)
        strength = by_group.abs().sum(dim=0).masked_fill(self.mask == 0, -1.0)  # (groups, inputs)
        strongest = strength.sort(dim=1, descending=True, stable=True).indices[:, : space.kept(inputs, stage)]
        self.mask.mul_(torch.zeros_like(self.mask).scatter_(1, strongest, 1.0))


class GroupedConv(nn.Module):
    """What a condensed learned group convolution is when it is deployed: a selection of inputs and a grouped 1x1."""

    index: Tensor
    """The inputs of each group, group after group, shape (G x inputs of a group,)."""

    @torch.no_grad()
    def __init__(self, learned: LearnedGroupConv) -> None:
        super().__init__()
        outputs, inputs = learned.conv.weight.shape[:2]
        each = space.kept(inputs)
        self.register_buffer("index", learned.mask.nonzero()[:, 1])
        self.norm = nn.BatchNorm2d(
            len(self.index), affine=learned.norm.affine, track_running_stats=learned.norm.track_running_stats
        )
        given = learned.norm.state_dict()
        self.norm.load_state_dict({name: x if x.dim() == 0 else x[self.index] for name, x in given.items()})
        self.conv = nn.Conv2d(len(self.index), outputs, 1, groups=space.GROUPS, bias=False)
        by_group = learned.conv.weight.reshape(-1, space.GROUPS, inputs).transpose(0, 1)  # (groups, of a group, inputs)
        chosen = self.index.view(space.GROUPS, 1, each).expand(-1, by_group.shape[1], -1)
        self.conv.weight.copy_(by_group.gather(2, chosen).reshape(outputs, each, 1, 1))
        self.to(learned.mask.device).train(learned.training)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h, w), outputs in the order of the learned convolution."""
        made = self.conv(F.relu(self.norm(x.index_select(1, self.index))))
        ordered: Tensor = made.unflatten(1, (space.GROUPS, -1)).transpose(1, 2).flatten(1, 2)
        return ordered


class Layer(nn.Module):
    """A learned group convolution to four times the growth, norm, ReLU, a 3x3 in groups."""

    def __init__(self, inputs: int, growth: int, groups: int, norms: Norms) -> None:
        super().__init__()
        wide = space.BOTTLENECK * growth
        self.reduce: LearnedGroupConv | GroupedConv = LearnedGroupConv(inputs, wide, norms.inside(inputs))
        self.norm = norms.inside(wide)
        self.conv = nn.Conv2d(wide, growth, 3, padding=1, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, growth, h, w)."""
        made: Tensor = self.conv(F.relu(self.norm(self.reduce(x))))
        return made

    def narrow(self, x: Tensor, seen: Seen, block: Block) -> Tensor:
        """What a narrower layer makes of some of the inputs, shape (n, growth of the block, h, w); not condensed."""
        reduce, groups = self.reduce, self.conv.groups
        inner = first(space.BOTTLENECK * block.growth, self.norm.num_features, groups, device=x.device)
        outputs = first(block.growth, self.conv.out_channels, groups, device=x.device)
        ahead = first(space.BOTTLENECK * block.growth // groups, self.conv.weight.shape[1], device=x.device)
        x = weighted(F.relu(normed(reduce.norm, x, seen.channels)), seen.weights)
        x = F.conv2d(x, weights(reduce.conv.weight, inner, seen.channels))
        x = weighted(F.relu(normed(self.norm, x, inner)), block.inner)
        return F.conv2d(x, weights(self.conv.weight, outputs, ahead), padding=1, groups=groups)


@dataclass(frozen=True)
class Block:
    """What is computed of a block of the supernet."""

    layers: int
    growth: int
    depths: Tensor | None
    """The weight of each layer, shape (layers,); None: ones."""
    outer: Tensor | None
    """That of each channel which a layer adds, shape (growth,)."""
    inner: Tensor | None
    """That of each output of its 1x1, shape (4 x growth,)."""

    def added(self, number: int) -> Tensor | None:
        """The weights of the channels that a layer adds, shape (growth,)."""
        return None if self.depths is None or self.outer is None else self.depths[..., number, None] * self.outer


class Seen:
    """The channels before a layer of the supernet, of all that its input could have, and their weights."""

    def __init__(self, channels: Tensor, weights: Tensor | None) -> None:
        self.channels, self.weights = channels, weights

    def add(self, start: int, channels: Tensor, weights: Tensor | None) -> None:
        """Those of one more layer, which begin at `start`."""
        self.channels = torch.cat([self.channels, start + channels])
        if self.weights is not None and weights is not None:
            self.weights = torch.cat([self.weights, weights], dim=-1)


class Network(nn.Module):
    """Stem, three dense blocks with poolings between them, norm, ReLU, mean over the image, classifier.

    Args:
        stages: Layers of each block, under the proxy.
        growths: Channels that a layer of each adds, under the proxy.
        proxy: Says how the 3x3 are grouped.
        ends: What goes in and comes out.
        norms: Its batch norms.
    """

    def __init__(
        self, stages: tuple[int, ...], growths: tuple[int, ...], proxy: Proxy,
        *, ends: Ends, norms: Norms,
    ) -> None:  # fmt: skip
        super().__init__()
        self.proxy, self.stage = proxy, 0
        width = space.stem(growths)
        ends.need_pooled("condensenet")
        self.stem = nn.Conv2d(ends.inputs, width, 3, padding=1, bias=False)
        blocks: list[list[Layer]] = [[] for _ in stages]
        for layer in space.layers(stages, growths, proxy.resolution):
            blocks[layer.block].append(Layer(layer.inputs, layer.growth, space.groups(proxy), norms))
            width += layer.growth
        self.blocks = nn.ModuleList(nn.ModuleList(block) for block in blocks)
        self.norm = norms.outside(width)
        self.classifier = nn.Linear(width, ends.outputs)

    def forward(self, images: Tensor, mixture: Mixture | None = None) -> Tensor:
        """Outputs, logits of shape (n, outputs) if pooled, of normalised images, shape (n, inputs, side, side)."""
        if mixture is not None:
            return self.mixed(images, mixture)
        x: Tensor = self.stem(images)
        for number, block in enumerate(self.layers()):
            x = F.avg_pool2d(x, 2) if number else x
            for layer in block:
                x = torch.cat([x, layer(x)], dim=1)
        logits: Tensor = self.classifier(F.relu(self.norm(x)).mean(dim=(2, 3)))
        return logits

    def mixed(self, images: Tensor, mixture: Mixture) -> Tensor:
        """The same of a supernet: the longest stages and largest growths that take part, channels weighted."""
        rows = mixture.rows(0, slice(0, len(SPACE.decisions)))
        plans = [self.plan(rows[2 * number], rows[2 * number + 1]) for number in range(space.BLOCKS)]
        of_growths, growths = rows[1]
        widths = [space.stem((self.growths[option],)) for option in growths]
        stem = torch.arange(max(widths), device=images.device)
        seen = Seen(stem, gate(picked(of_growths, growths), widths, max(widths)))
        start = self.stem.out_channels
        x = F.conv2d(images, weights(self.stem.weight, stem, None), padding=1)
        for number, (block, plan) in enumerate(zip(self.layers(), plans, strict=True)):
            x = F.avg_pool2d(x, 2) if number else x
            for place, layer in enumerate(block):
                if place < plan.layers:
                    x = torch.cat([x, layer.narrow(x, seen, plan)], dim=1)
                    channels = every(plan.growth, layer.conv.out_channels, layer.conv.groups, device=x.device)
                    seen.add(start, channels, plan.added(place))
                start += layer.conv.out_channels
        x = weighted(F.relu(normed(self.norm, x, seen.channels)), seen.weights).mean(dim=(2, 3))
        return F.linear(x, weights(self.classifier.weight, None, seen.channels), self.classifier.bias)

    @property
    def growths(self) -> list[int]:
        """The options, under the proxy."""
        return [space.growth_under(growth, self.proxy) for growth in space.GROWTHS]

    def plan(self, of_stage: Row, of_growth: Row) -> Block:
        """Of a block, from its two rows."""
        (stage_weights, stages), (growth_weights, options) = of_stage, of_growth
        depths = [space.stage_under(space.STAGES[option], self.proxy) for option in stages]
        growths = [self.growths[option] for option in options]
        layers, growth, groups = max(depths), max(growths), space.groups(self.proxy)
        gates = []
        for times in (1, space.BOTTLENECK):  # channels are nested within each group
            widths = [times * option // groups for option in growths]
            gates.append(gate(picked(growth_weights, options), widths, max(widths)))
        outer, inner = (None if one is None else torch.cat([one] * groups, dim=-1) for one in gates)
        return Block(layers, growth, gate(picked(stage_weights, stages), depths, layers), outer, inner)

    def progress(self, share: float) -> None:
        """Condense as far as it is due when this share of the run is over, in [0, 1]."""
        steps = space.CONDENSATION - 1
        stage = min(steps, math.floor(2 * steps * share + 1e-9))
        if stage != self.stage:
            for layer in chain(*self.layers()):
                assert isinstance(layer.reduce, LearnedGroupConv)
                layer.reduce.condense(stage)
        self.stage = stage  # not in checkpoints: condensing again to the same stage changes nothing

    def layers(self) -> list[list[Layer]]:
        """Of each block."""
        return [[cast("Layer", layer) for layer in cast("nn.ModuleList", block)] for block in self.blocks]

    def deployed(self) -> Network:
        """A copy that is condensed to the end, with grouped convolutions: what the space's `params` and `macs` count.

        Of a network whose run is over it is the same function, outside training.
        """
        network = copy.deepcopy(self)
        network.progress(1.0)
        for layer in chain(*network.layers()):
            assert isinstance(layer.reduce, LearnedGroupConv)
            layer.reduce = GroupedConv(layer.reduce)
        return network


def weighted(x: Tensor, channels: Tensor | None) -> Tensor:
    """Each channel times its weight."""
    return x if channels is None else x * channels[..., None, None]


def picked(of_options: Tensor | None, options: Sequence[int]) -> Tensor | None:
    """The weights of those options, shape (options,)."""
    return None if of_options is None else of_options[list(options)]


def every(width: int, full: int, groups: int, *, device: torch.device | None = None) -> Tensor:
    """The first channels of each group, though they be all."""
    channels = first(width, full, groups, device=device)
    return torch.arange(full, device=device) if channels is None else channels


def network(
    arch: Architecture, proxy: Proxy, *, ends: Ends, norms: Norms = PLAIN
) -> nn.Module:  # fmt: skip
    """The network of `arch` at the width and depth of `proxy`, as it is trained."""
    sizes = space.scaled(*SPACE.blocks(arch), proxy)
    return Network(*sizes, proxy, ends=ends, norms=norms)


class Mixed(MixedNetwork):
    """The supernet: a row for each decision. These rules are ours: no paper mixes this space.

    It has the longest stages and the largest growths; smaller ones are the first layers, and the first channels of each
    group. After every norm and ReLU, each channel is multiplied by its weight: those of the growths that have it,
    summed, times those of the stages that have its layer, summed. Nothing is condensed in it, nor in what is taken from
    it: which inputs a group loses would differ from network to network.
    """

    options = tuple(f"option{number}" for number in range(max(SPACE.decisions)))
    edges = SPACE
    norms = PLAIN

    def network(self, proxy: Proxy, *, ends: Ends, norms: Norms) -> nn.Module:
        """The largest."""
        sizes = space.scaled(space.STAGES[-1:] * space.BLOCKS, space.GROWTHS[-1:] * space.BLOCKS, proxy)
        return Network(*sizes, proxy, ends=ends, norms=norms)

    def narrow(self, arch: Architecture, proxy: Proxy, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The first layers of each block, the first channels of each group, between the layers that there are."""
        stages, growths = space.scaled(*SPACE.blocks(arch), proxy)
        groups, full = space.groups(proxy), space.growth_under(space.GROWTHS[-1], proxy)
        longest = space.stage_under(space.STAGES[-1], proxy)
        device = state["stem.weight"].device
        seen = torch.arange(space.stem(growths), device=device)
        found = {"stem.weight": state["stem.weight"][seen]}
        for layer in space.layers(stages, growths, proxy.resolution):
            prefix = f"blocks.{layer.block}.{layer.number}."
            outer = every(layer.growth, full, groups, device=device)
            wide, widest = space.BOTTLENECK * layer.growth, space.BOTTLENECK * full
            inner = every(wide, widest, groups, device=device)
            found |= of_norm(state, f"{prefix}reduce.norm.", seen) | of_norm(state, f"{prefix}norm.", inner)
            found[f"{prefix}reduce.conv.weight"] = state[f"{prefix}reduce.conv.weight"][inner][:, seen]
            found[f"{prefix}conv.weight"] = state[f"{prefix}conv.weight"][outer][:, : wide // groups]
            start = space.stem((full,)) + (layer.block * longest + layer.number) * full
            seen = torch.cat([seen, start + outer])
        found["classifier.weight"] = state["classifier.weight"][:, seen]
        return found | of_norm(state, "norm.", seen) | {"classifier.bias": state["classifier.bias"]}

    def computed_macs(
        self, proxy: Proxy, active: Sequence[Sequence[int]], *, ends: Ends
    ) -> int:  # fmt: skip
        """Of the longest stages and the largest growths that are computed, with 1x1s that are not condensed."""
        largest = tuple(max(options) for options in active)
        return SPACE.trained_macs(largest, proxy, ends=ends)


def of_norm(state: Mapping[str, Tensor], prefix: str, channels: Tensor) -> dict[str, Tensor]:
    """The tensors of a norm of those channels."""
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    there = {prefix + name: state[prefix + name] for name in names if prefix + name in state}
    return {name: tensor if tensor.dim() == 0 else tensor[channels] for name, tensor in there.items()}


mixed = Mixed(network, {"network": slice(0, len(SPACE.decisions))})
