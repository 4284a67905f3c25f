"""A cell without dead edges: what cannot reach its output is not computed, what many would compute is computed once.

Weights have the names and beginnings of the plain network, and outputs are the same to the last bit. So are gradients
of stand-alone networks, and what is trained from them: operations are left out, none is put in another order.

- An edge whose end cannot reach the output is left out. Its weights get no gradient in the plain network either. The
  running statistics of its norm stay as they were: nothing reads them.
- What arrives nowhere, `none`, is not added. A convolution of nothing is nothing, so that its norm has only its shift
  to add; its weights have a gradient of zeros as in the plain network, where weight decay sees them.
- Operations on one state that begin alike (ReLU, pooling) begin once: where no gradients are taken, and in supernets
  always. There their gradients flow back as a sum, another order of additions (within 1e-5 of the plain ones).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

HANDS_ON = (nn.Identity, nn.AvgPool2d, nn.MaxPool2d)
"""Operations that make nothing of nothing."""


def reaching(edges: Iterable[tuple[int, int]], outputs: Iterable[int]) -> set[int]:
    """The states of which something arrives in `outputs`, along edges (from, to) with from < to; those themselves too.

    >>> sorted(reaching([(0, 1), (0, 2), (1, 3)], outputs=[3]))
    [0, 1, 3]
    """
    found = set(outputs)
    for start, end in sorted(edges, key=lambda edge: edge[1], reverse=True):
        if end in found:
            found.add(start)
    return found


class Zero(nn.Module):
    """Nothing arrives."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros of the shape of `x`, each side divided by the stride."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Nothing(torch.autograd.Function):
    """Zeros as convolutions of zeros have them: the weights take part, with a gradient of zeros."""

    @staticmethod
    def forward(ctx: Any, like: Tensor, *weights: Tensor) -> Tensor:
        """Zeros of the shape of `like`."""
        ctx.save_for_backward(*weights)
        return torch.zeros_like(like)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Zeros for each weight."""
        return (None, *(torch.zeros_like(weight) for weight in ctx.saved_tensors))


def nothing(like: Tensor, *convolutions: nn.Conv2d) -> Tensor:
    """What these convolutions, one after the other, make of zeros: zeros of the shape of `like`."""
    weights = (convolution.weight for convolution in convolutions)
    zeros: Tensor = Nothing.apply(like, *weights)  # type: ignore[no-untyped-call]
    return zeros


class State:
    """A state of a cell while it is computed.

    Args:
        value: What it is; None: nothing arrived yet.
        share: Whether operations begin together while gradients are taken.
    """

    def __init__(self, value: Tensor | None = None, *, share: bool = False) -> None:
        self.value = value
        self.share = share or not torch.is_grad_enabled()
        self.begun: dict[object, Tensor] = {}
        self.incomplete = False
        """Whether zeros were not added, which gives gradients a place to meet in the plain network."""

    def add(self, arriving: Tensor | None) -> None:
        """One more edge ends here; None: with nothing."""
        if arriving is None:
            self.incomplete = True
        else:
            self.value = arriving if self.value is None else self.value + arriving
        if self.incomplete and self.value is not None and not self.share:
            self.value = self.value.view_as(self.value)

    def through(self, operation: nn.Module, like: Tensor) -> Tensor | None:
        """What `operation` makes of it, None if nothing; `like` has the shape that the result has."""
        if isinstance(operation, Zero):
            return None
        if self.value is None:
            if isinstance(operation, HANDS_ON):
                return None
            alone: Any = getattr(operation, "of_nothing", None)
            made: Tensor = operation(torch.zeros_like(like)) if alone is None else alone(like)
            return made
        begins = getattr(operation, "begins", None)
        if begins is None or not self.share:
            return operation(self.value)  # type: ignore[no-any-return]
        if begins not in self.begun:
            self.begun[begins] = operation.begin(self.value)  # type: ignore[operator]
        return operation.end(self.begun[begins])  # type: ignore[operator,no-any-return]


def alive(operations: Sequence[nn.Module], active: Iterable[int]) -> bool:
    """Whether something may arrive of these options."""
    return any(not isinstance(operations[option], Zero) for option in active)
