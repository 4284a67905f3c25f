"""Parts of layers: in a supernet whose options differ in width, a narrower network is a slice of the widest.

A slice is given by the channels that it has, or None for all of them.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Channels: TypeAlias = Tensor | None
"""Places, shape (n,), int64; None: all."""


def first(width: int, full: int, groups: int = 1, *, device: torch.device | None = None) -> Channels:
    """The first channels of each group of `full`, `width` together; None if these are all.

    >>> first(4, 8, groups=2)
    tensor([0, 1, 4, 5])
    """
    if width == full:
        return None
    starts = torch.arange(groups, device=device) * (full // groups)
    return (starts[:, None] + torch.arange(width // groups, device=device)).flatten()


def weights(weight: Tensor, outputs: Channels, inputs: Channels) -> Tensor:
    """Of a convolution or a linear layer between those channels, shape (outputs, inputs, ...)."""
    if outputs is not None:
        weight = weight.index_select(0, outputs)
    return weight if inputs is None else weight.index_select(1, inputs)


def normed(norm: nn.BatchNorm2d, x: Tensor, channels: Channels) -> Tensor:
    """`x`, which has those channels, by their part of a norm, whose running statistics follow in training."""
    if channels is None:
        whole: Tensor = norm(x)
        return whole
    scale = None if norm.weight is None else norm.weight.index_select(0, channels)
    shift = None if norm.bias is None else norm.bias.index_select(0, channels)
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        return F.batch_norm(x, None, None, scale, shift, True, 0.0, norm.eps)
    parts = mean.index_select(0, channels), variance.index_select(0, channels)
    if not norm.training:
        return F.batch_norm(x, *parts, scale, shift, False, 0.0, norm.eps)
    made = F.batch_norm(x, *parts, scale, shift, True, norm.momentum or 0.0, norm.eps)
    with torch.no_grad():
        mean.index_copy_(0, channels, parts[0])
        variance.index_copy_(0, channels, parts[1])
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
    return made


def gate(weights: Tensor | None, widths: list[int], width: int, *, places: Channels = None) -> Tensor | None:
    """The weight of each channel, (channels,) or (n, channels): the sum of the weights of the options that have it.

    It is None if none are weighted.

    Args:
        weights: Weights of the options, shape (options,), or (options, n, 1, 1, 1) if examples differ.
        widths: First channels that each option has.
        width: The widest of them.
        places: Of each channel among the first ones, shape (n,); None: 0..width-1.

    >>> gate(torch.tensor([0.25, 0.75]), [1, 3], 3)
    tensor([1.0000, 0.7500, 0.7500])
    """
    if weights is None:
        return None
    at = torch.arange(width, device=weights.device) if places is None else places
    has = at < torch.tensor(widths, device=weights.device)[:, None]  # (options, n)
    if weights.dim() > 1:
        return (weights.flatten(1)[:, :, None] * has[:, None]).sum(dim=0)  # (n, channels)
    return (weights[:, None] * has).sum(dim=0)
