"""Rankings of architectures under many weightings at once: what all measures and their bootstraps are made of.

A bootstrap draws architectures with replacement. A draw is kept as a column of multiplicities, so thousands of draws
are ranked by sorting the architectures once; tau then takes one pass of a Fenwick tree, many draws side by side
(after Christensen, "Fast algorithms for the calculation of Kendall's tau", Computational Statistics 20, 2005; compiled
by numba when first needed).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.machine_code import compiled

Floats: TypeAlias = npt.NDArray[np.float64]
Weights: TypeAlias = npt.NDArray[Any]  # (n, draws): how often a draw holds an architecture, or with what share
machine_code = functools.cache(compiled)


class OneRanking:
    """One error vector's ranks, equal errors together; works on many weightings of the architectures at once."""

    def __init__(self, errors: npt.NDArray[Any]) -> None:
        distinct, first, ranks = np.unique(errors, return_index=True, return_inverse=True)
        self.ranks, self.m = ranks, len(distinct)  # 0 the best; how many are distinct
        self.errors = distinct
        self.tied = self.m < len(errors)
        self.order = np.argsort(ranks, kind="stable") if self.tied else first
        self.ends = np.cumsum(np.bincount(ranks))
        self.in_order = np.array_equal(self.order, np.arange(len(errors)))

    def arrange(self, w: Weights) -> Weights:
        """The weights from best to worst, shape (n, draws)."""
        return w if self.in_order else w[self.order]

    def sums(self, w: Weights) -> Weights:
        """Weight at each distinct error, shape (m, draws)."""
        ordered = self.arrange(w)
        return np.add.reduceat(ordered, self.ends - np.diff(self.ends, prepend=0)) if self.tied else ordered


class Pair:
    """Proxy and truth, ranked once for all draws."""

    def __init__(self, proxy: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        self.n = len(proxy)
        self.x, self.y = OneRanking(proxy), OneRanking(truth)

    def sorted(self) -> Pair:
        """The same with architectures from best to worst, so that draws neither depend on their order nor need it."""
        order = self.xy.order
        return Pair(self.x.errors[self.x.ranks[order]], self.y.errors[self.y.ranks[order]])

    @cached_property
    def xy(self) -> OneRanking:
        """By proxy, ties by truth."""
        return OneRanking(self.x.ranks * self.y.m + self.y.ranks)

    @cached_property
    def trusting(self) -> npt.NDArray[np.intp]:
        """The order in which one who trusts the proxy trains: ties under it go against it, the truly worst first."""
        return np.lexsort((-self.y.ranks, self.x.ranks))

    @cached_property
    def yx(self) -> OneRanking:
        """By truth, ties by proxy."""
        return OneRanking(self.y.ranks * self.x.m + self.x.ranks)


class WeightedPair:
    """A pair under many weightings at once, with what several measures need."""

    def __init__(self, pair: Pair, w: Weights) -> None:
        self.pair, self.w = pair, w

    @cached_property
    def total(self) -> Floats:
        """Total weight of all architectures, shape (draws,)."""
        return dot(self.w)

    @cached_property
    def at_x(self) -> Weights:
        """Weight at each distinct proxy error, shape (distinct, draws)."""
        return self.pair.x.sums(self.w)

    @cached_property
    def at_y(self) -> Weights:
        """Weight at each distinct true error, shape (distinct, draws)."""
        return self.pair.y.sums(self.w)

    @cached_property
    def copies(self) -> Floats:
        """Ordered pairs of copies of one architecture, each with itself too, shape (draws,)."""
        return dot(self.w, self.w)

    @cached_property
    def untied_x(self) -> Floats:
        """Ordered pairs that the proxy tells apart, shape (draws,)."""
        return self.untied(self.at_x if self.pair.x.tied else None)

    @cached_property
    def untied_y(self) -> Floats:
        """Ordered pairs that the truth tells apart, shape (draws,)."""
        return self.untied(self.at_y if self.pair.y.tied else None)

    def untied(self, at: Weights | None) -> Floats:
        """Ordered pairs that a ranking tells apart, shape (draws,)."""
        every = self.total**2
        untied = every - (self.copies if at is None else dot(at, at))
        return np.where(untied > 1e-12 * every, untied, 0.0)  # shared seats do not sum up exactly

    @cached_property
    def agreement(self) -> Floats:
        """Sum over ordered pairs of w_i w_j sign_ij, shape (draws,): twice concordant minus discordant pairs."""
        return self.agreement_of(self.w)

    def agreement_of(self, v: Weights) -> Floats:
        """Sum over ordered pairs of v_i w_j sign_ij, shape (draws,)."""
        pair, w = self.pair, self.w
        if v is w:
            concordant, every, lone = 2 * _below(pair, w, w), self.total**2, self.copies
        else:
            concordant = _below(pair, v, w) + _below(pair, w, v)
            every, lone = v.sum(0, dtype=float) * self.total, dot(v, w)
        x, y, xy = (dot(r.sums(v), r.sums(w)) if r.tied else lone for r in (pair.x, pair.y, pair.xy))
        return 2 * concordant - (every - x - y + xy)  # 2 concordant - untied


def stuart_scale(pair: Pair) -> float:
    """The factor from tau-a to Stuart's tau-c for this number of distinct values."""
    distinct = min(pair.x.m, pair.y.m)
    return (pair.n - 1) / pair.n * distinct / max(distinct - 1, 1)


def count_type(n: int) -> npt.DTypeLike:
    """The narrowest type that holds n and the sums of a draw: more draws fit a vector and a cache."""
    return np.int16 if n <= np.iinfo(np.int16).max else np.int32


def _below(pair: Pair, v: Weights, w: Weights) -> Floats:
    """Sum over i of v_i times the weight w that lies strictly below i by proxy and by truth, shape (draws,)."""
    below = np.zeros(w.shape[1])
    added = pair.x.arrange(w)
    asking = added if v is w else pair.x.arrange(v)
    tree = np.zeros((pair.y.m + 1, w.shape[1]), w.dtype)
    machine_code(_sweep)(asking, added, pair.x.ends, pair.y.ranks[pair.x.order], tree, tree[0].copy(), below)
    return below


def _sweep(
    v: Weights, w: Weights, ends: npt.NDArray[np.intp], ranks: npt.NDArray[np.intp],
    tree: Weights, seen: Weights, below: Floats,
) -> None:  # fmt: skip
    """In the proxy's order, ask the tree over true ranks what lies below, then add oneself; ties ask first."""
    size, draws = tree.shape
    start = 0
    for end in ends:
        for i in range(start, end):
            node = ranks[i]
            for d in range(draws):
                seen[d] = 0
            while node > 0:
                for d in range(draws):
                    seen[d] += tree[node, d]
                node &= node - 1
            for d in range(draws):
                below[d] += v[i, d] * seen[d]
        for i in range(start, end):
            node = ranks[i] + 1
            while node < size:
                for d in range(draws):
                    tree[node, d] += w[i, d]
                node += node & -node
        start = end


def before(at: Weights) -> Weights:
    """Weight ahead of each row, shape (rows, draws)."""
    through: Weights = np.cumsum(at, axis=0)
    return through - at


def dot(*factors: Weights) -> Floats:
    """Sum over architectures of the product, shape (draws,)."""
    *others, last = factors
    summed = np.zeros(last.shape[1])
    machine_code(_add_products)(functools.reduce(np.multiply, others) if others else None, last, summed)
    return summed


def _add_products(v: Weights | None, w: Weights, summed: Floats) -> None:
    for i in range(len(w)):
        for d in range(w.shape[1]):
            summed[d] += w[i, d] if v is None else v[i, d] * w[i, d]


def _signs(ranking: OneRanking) -> npt.NDArray[np.float32]:
    ranks = ranking.ranks.astype(np.float32)
    signs: npt.NDArray[np.float32] = np.sign(ranks[:, None] - ranks)
    return signs


def linear_kernel(pair: Pair, variant: str) -> Callable[[], Floats]:
    """A function that gives each ordered pair's share of tau, to first order, shape (n, n); called only if needed."""

    def linearised() -> Floats:
        x, y = _signs(pair.x), _signs(pair.y)
        agree, in_x, in_y = x * y, np.abs(x), np.abs(y)
        if variant == "b":
            scale, ratio = np.sqrt(in_x.sum() * in_y.sum()), np.sqrt(in_y.sum() / in_x.sum())
            return np.asarray((agree - agree.sum() / scale * (in_x * ratio + in_y / ratio) / 2) / scale)
        pairs = pair.n * (pair.n - 1)
        kernel = (agree - (agree.sum() / pairs) * (1 - np.eye(pair.n))) / pairs
        return np.asarray(kernel * stuart_scale(pair) if variant == "c" else kernel)

    return linearised


def checked_pair(proxy: npt.ArrayLike, truth: npt.ArrayLike, name: str = "proxy") -> Pair:
    """Proxy and truth as a pair of rankings.

    Raises:
        ValueError: The shapes differ, n < 2, or an error is NaN; `name` says which vector.
    """
    x, y = np.asarray(proxy, float), np.asarray(truth, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"{name} and truth must have one shape (n,), not {x.shape} and {y.shape}")
    if len(x) < 2:
        raise ValueError(f"a ranking needs at least n = 2 architectures, not n = {len(x)}")
    for label, errors in ((name, x), ("truth", y)):
        if len(bad := np.flatnonzero(np.isnan(errors))):
            raise ValueError(f"{label} is NaN at index {bad[0]} ({len(bad)} of {len(x)}); a failed training is inf")
    return Pair(x, y)
