"""Comparisons of floating-point results whose tolerance follows from the arithmetic, not from one processor.

Two computations of one function add the same products in another order. Each rounding is off by at most half a unit in
the last place; errors of sums grow with the square root of their length, and layers add theirs. So the norm of the
difference is bounded, whatever instructions a processor has; single elements near 0 are not. A ReLU whose input is
within rounding of 0 may be open in one computation and closed in the other: then gradients differ by what passes there,
so tests compare in float64 (where that does not happen) or ask `flips` for the difference that it can make.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

SAFETY = 8.0
"""How far above the root-mean-square estimate a difference may lie."""
TERMS, LAYERS = 1024, 32
"""Products that a sum of the tests' networks has at most, and sums one after another."""


def rounding(dtype: torch.dtype, terms: int = TERMS, layers: int = LAYERS) -> float:
    """The norm of the difference, relative to the result's, that rounding may bring about."""
    return SAFETY * torch.finfo(dtype).eps / 2 * math.sqrt(terms * layers)


def close(ours: Tensor, theirs: Tensor, *, scale: float = 0.0, terms: int = TERMS, layers: int = LAYERS) -> None:
    """Assert that two computations of one function agree but for rounding.

    Args:
        ours: Any shape; the coarser type of the two says how precise they are.
        theirs: The same shape.
        scale: Norm of what both were subtracted from or belong to, where their own may be 0.
        terms: Products in the longest sum.
        layers: Sums one after another.
    """
    assert ours.shape == theirs.shape
    types = [x.dtype for x in (ours, theirs) if x.is_floating_point()]
    coarser = max(types, key=lambda dtype: torch.finfo(dtype).eps)
    a, b = ours.detach().double(), theirs.detach().double()
    limit = rounding(coarser, terms, layers) * max(float(b.norm()), scale)
    difference = float((a - b).norm())
    assert difference <= limit, f"they differ by {difference:.3g}, and rounding explains {limit:.3g}"


def same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Assert that each tensor of `theirs` is that of `ours`, by the length of all of them together."""
    length = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in theirs.values()))
    for name, tensor in theirs.items():
        assert name in ours, name
        close(ours[name], tensor, scale=length)


@contextlib.contextmanager
def relu_opens_at(border: float) -> Iterator[None]:
    """Every `F.relu` lets pass what lies above `border` instead of 0."""
    relu = F.relu
    F.relu = lambda x, inplace=False: torch.where(x > border, x, torch.zeros_like(x))
    try:
        yield
    finally:
        F.relu = relu


def flips(gradients: Callable[[], Mapping[str, Tensor]], border: float = 1e-5) -> float:
    """The norm of the difference that ReLUs within `border` of opening can make to gradients in float64."""
    with relu_opens_at(border):
        closed = gradients()
    with relu_opens_at(-border):
        opened = gradients()
    return math.sqrt(sum(float((closed[name] - opened[name]).square().sum()) for name in closed))
