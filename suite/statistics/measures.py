"""How well a proxy ranks architectures: rank agreement, agreement at the top, and how far to trust either.

Every measure takes two error vectors of the same architectures, `proxy` and `truth`, lower is better. A failed training
is `inf`: worst, and tied with every other failure. NaN is refused, because it is not known where it ranks.

A bootstrap draws architectures with replacement. A draw is kept as a column of multiplicities, so thousands of draws
are ranked by sorting the architectures once; tau then takes one pass of a Fenwick tree, many draws side by side
(after Christensen, "Fast algorithms for the calculation of Kendall's tau", Computational Statistics 20, 2005; compiled
by numba when first needed). How the intervals were chosen and what they cover: docs/consistency.md.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.machine_code import compiled

Floats: TypeAlias = npt.NDArray[np.float64]
Weights: TypeAlias = npt.NDArray[Any]  # (n, draws): how often a draw holds an architecture, or with what share

EXCESS_UP_TO = 512  # architectures; beyond, the excess is below 10 % of the variance at tau = 0.9, 2 % at 0.6
_compiled = functools.cache(compiled)
BLOCK = 2**17  # architectures x draws held at once by a thread
WORDS = 2**15  # random ones made at once


@dataclass(frozen=True)
class Interval:
    """A measure and where it may lie on other architectures of the same kind; nan where that cannot be said."""

    value: float
    low: float
    high: float
    level: float  # nominal coverage, in (0, 1)
    draws: int
    n: int  # architectures


def kendall_tau(proxy: npt.ArrayLike, truth: npt.ArrayLike, variant: Literal["a", "b", "c"] = "b") -> float:
    """Agreement of two rankings of the same architectures: Kendall's tau.

    Args:
        proxy: Errors under the proxy, shape (n,) [%]; inf for a failed training.
        truth: Errors after full training, shape (n,) [%], in the same order.
        variant: "a" counts ties as neither agreement nor disagreement, "b" leaves them out of the pairs that could
            agree, "c" (Stuart's) scales by the number of distinct values.

    Returns:
        Agreement in [-1, 1]; nan if all of either are equal.

    Raises:
        ValueError: The shapes differ, n < 2, a NaN, or another variant.

    Source: Kendall, "The Treatment of Ties in Ranking Problems", Biometrika 33(3), 1945; "c": Stuart, "The Estimation
    and Comparison of Strengths of Association in Contingency Tables", Biometrika 40, 1953.

    >>> round(kendall_tau([9.0, 8.0, 7.0], [6.5, 6.1, 6.4]), 3)
    0.333
    """
    if variant not in _TAU:
        raise ValueError(f"variant must be one of {', '.join(_TAU)}, not {variant!r}")
    return _value(_TAU[variant], proxy, truth)


def weighted_tau(proxy: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Kendall's tau in which pairs weigh more the nearer to the best they are.

    A pair weighs 1/r + 1/s with r, s the ranks of its two architectures, the lowest error having rank 1. The mean of
    two such taus, one by ranks under the proxy (ties by truth) and one by ranks under the truth (ties by proxy):
    `scipy.stats.weightedtau(-proxy, -truth, rank=True, weigher=None, additive=True)`.

    Args:
        proxy: Errors under the proxy, shape (n,); inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.

    Returns:
        Agreement in [-1, 1]; nan if all of either are equal.

    Raises:
        ValueError: The shapes differ, n < 2, or a NaN.

    Source: Vigna, "A Weighted Correlation Index for Rankings with Ties", WWW 2015.

    >>> round(weighted_tau([1, 2, 4, 3], [1, 2, 3, 4]), 3), round(weighted_tau([2, 1, 3, 4], [1, 2, 3, 4]), 3)
    (0.813, 0.52)
    """
    return _value(_weighted_tau, proxy, truth)


def spearman(proxy: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Spearman's rho: the linear correlation of the ranks, equal errors sharing their mean rank.

    Args:
        proxy: Errors under the proxy, shape (n,); inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.

    Returns:
        Agreement in [-1, 1]; nan if all of either are equal.

    Raises:
        ValueError: The shapes differ, n < 2, or a NaN.

    Source: Spearman, "The Proof and Measurement of Association between Two Things", Am. J. Psychology 15(1), 1904.

    >>> round(spearman([9.0, 8.0, 7.0, 6.0], [6.5, 6.1, 6.4, 6.0]), 3)
    0.8
    """
    return _value(_spearman, proxy, truth)


def top_overlap(proxy: npt.ArrayLike, truth: npt.ArrayLike, fraction: float = 0.1) -> float:
    """Share of the truly best k = ceil(fraction n) architectures that are also among the proxy's best k.

    Where a tie stands astride the border of a best k, its members share the seats left: the result is the expected
    share if both ties are broken at random.

    Args:
        proxy: Errors under the proxy, shape (n,); inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.
        fraction: Size of the best, in (0, 1].

    Returns:
        Share in [0, 1], about `fraction` by chance; nan if all of either are equal.

    Raises:
        ValueError: The shapes differ, n < 2, a NaN, or the fraction is out of range.

    >>> top_overlap([1, 2, 3, 4], [1, 3, 2, 4], fraction=0.5), top_overlap([1, 2, 2, 4], [1, 3, 2, 4], fraction=0.5)
    (0.5, 0.75)
    """
    return _value(partial(_top_overlap, fraction=_checked_fraction(fraction)), proxy, truth)


def best_rank_at(proxy: npt.ArrayLike, truth: npt.ArrayLike, k: int = 10) -> float:
    """Rank by truth, 1 the best, of the truly best architecture among the proxy's best min(k, n).

    A tie under the proxy at the border of its best k is broken against it: of equals the truly worst come first. Equal
    truths share the better rank. Divide by n to compare spaces of different sizes.

    Args:
        proxy: Errors under the proxy, shape (n,); inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.
        k: How many architectures could be trained fully, at least 1.

    Returns:
        Rank in [1, n]; nan if all of either are equal.

    Raises:
        ValueError: The shapes differ, n < 2, a NaN, or k < 1.

    Source: Ning et al., "Evaluating Efficient Performance Estimators of Neural Architectures", NeurIPS 2021 (BR@K,
    there divided by n). https://arxiv.org/abs/2008.03064

    >>> best_rank_at([1, 2, 3, 4], [7, 5, 6, 4], k=3), best_rank_at([1, 2, 2, 4], [7, 5, 6, 4], k=2)
    (2.0, 3.0)
    """
    return _value(partial(_best_rank, k=_checked_k(k)), proxy, truth)


def regret_at(proxy: npt.ArrayLike, truth: npt.ArrayLike, k: int = 1) -> float:
    """What trusting the proxy costs: lowest true error among its best min(k, n), minus the lowest of all.

    Ties under the proxy as in `best_rank_at`: broken against it.

    Args:
        proxy: Errors under the proxy, shape (n,); inf for a failed training.
        truth: Errors after full training, shape (n,) [%], in the same order.
        k: How many architectures could be trained fully, at least 1.

    Returns:
        Regret in [0, inf] in the unit of `truth`, inf if full training fails for all k; nan if all of either are equal.

    Raises:
        ValueError: The shapes differ, n < 2, a NaN, or k < 1.

    >>> regret_at([1, 2, 3], [6.5, 6.25, 6.0]), regret_at([1, 2, 3], [6.5, 6.25, 6.0], k=2)
    (0.5, 0.25)
    """
    return _value(partial(_regret, k=_checked_k(k)), proxy, truth)


def tau_in_top(proxy: npt.ArrayLike, truth: npt.ArrayLike, fraction: float = 0.1) -> float:
    """Kendall's tau-b among the truly best floor(fraction n) architectures: can the proxy tell good from better?

    Members of a tie in `truth` astride the border come in with equal weights that sum to the seats left, so the order
    of the architectures does not matter.

    Args:
        proxy: Errors under the proxy, shape (n,); inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.
        fraction: Size of the best, in (0, 1].

    Returns:
        Agreement in [-1, 1]; nan if the best are fewer than two, or equal under either, or all of either are equal.

    Raises:
        ValueError: The shapes differ, n < 2, a NaN, or the fraction is out of range.

    >>> round(tau_in_top([1, 3, 2, 4, 5, 6], [1, 2, 3, 4, 5, 6], fraction=0.5), 3)
    0.333
    """
    return _value(partial(_tau_in_top, fraction=_checked_fraction(fraction)), proxy, truth)


MEASURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "tau": kendall_tau,
    "tau_a": partial(kendall_tau, variant="a"),
    "tau_c": partial(kendall_tau, variant="c"),
    "weighted_tau": weighted_tau,
    "spearman": spearman,
    "top10_overlap": top_overlap,
    "best_rank_at_10": best_rank_at,
    "tau_top10": tau_in_top,
    "regret_at_1": regret_at,
}


def bootstrap(
    proxy: npt.ArrayLike, truth: npt.ArrayLike, *, measures: Iterable[str] = ("tau",), draws: int = 10_000,
    rng: np.random.Generator, level: float = 0.95,
) -> dict[str, Interval]:  # fmt: skip
    """Measures with intervals over the choice of architectures, all from the same draws.

    A draw is n architectures with replacement. Copies of one architecture are tied with one another, which for tau-b
    takes them out of the pairs that could agree: its replicate is that of the drawn list. For tau-a and tau-c they are
    left out as well, and tau-c keeps the sample's number of distinct values; otherwise both would be too low by a
    factor 1 - 1/n. Draws in which all of either are equal are left out.

    The correlations get value +- t(n - 1) * (standard deviation of the replicates) on Fisher's z scale; for the taus
    three quarters of what the bootstrap adds to the variance of few architectures are taken off first (a bootstrap
    counts the noise of single pairs three times: 1.5 times jackknife minus unbiased variance of a U-statistic). Without
    any disagreement there is no variance to go by: then the other end is that of `of_perfect`. The
    other measures, and tau among the best, get percentiles of the replicates: these say what a different sample of
    architectures could have shown, and are no confidence intervals at small n. Measured coverage: docs/consistency.md.

    Args:
        proxy: Errors under the proxy, shape (n,); inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.
        measures: Keys of `MEASURES`.
        draws: Number of draws, at least 2.
        rng: Source of the draws; the same state gives the same intervals whatever the number of cores.
        level: Nominal coverage, in (0, 1).

    Returns:
        An interval for each measure; low and high are nan for fewer than 3 architectures or an undefined value.

    Raises:
        ValueError: The shapes differ, n < 2, a NaN, an unknown measure, or draws or level out of range.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 12-14; the unbiased variance of
    tau: Cliff and Charlin, "Variances and Covariances of Kendall's Tau and Their Estimation", Multivariate Behavioral
    Research 26(4), 1991.

    >>> truth = np.arange(50.0)
    >>> tau = bootstrap(truth + 9 * np.sin(truth), truth, draws=1000, rng=np.random.default_rng(0))["tau"]
    >>> print(f"{tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]")
    0.73 [0.70, 0.77]
    """
    pair, names = _checked(proxy, truth).sorted(), list(dict.fromkeys(measures))
    if unknown := sorted(set(names) - set(MEASURES)):
        raise ValueError(f"no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")

    def statistics(w: Weights) -> Floats:
        sample = _Sample(pair, w)
        return np.stack([_where_defined(_REPLICATE[name], sample) for name in names])

    values, replicates = _resample(statistics, pair.n, draws, rng, level)
    limits = {}
    for name, value, drawn in zip(names, values, replicates, strict=True):
        if name in _VARIANT:
            excess = _excess(pair.n, [_kernel(pair, _VARIANT[name])])
            limits[name] = _fisher(value, _variance(drawn), pair.y.ranks, level, excess)
        elif name in _FISHER:
            limits[name] = _fisher(value, _variance(drawn), pair.y.ranks, level)
        else:
            limits[name] = _percentiles(value, drawn, pair.n, level)
    return {
        name: Interval(float(value), *limits[name], level, draws, pair.n)
        for name, value in zip(names, values, strict=True)
    }


def compare(
    proxy_a: npt.ArrayLike, proxy_b: npt.ArrayLike, truth: npt.ArrayLike, *, draws: int = 10_000,
    rng: np.random.Generator, level: float = 0.95,
) -> Interval:  # fmt: skip
    """By how much proxy a ranks better than proxy b: the paired difference of their tau-b with `truth`.

    Both taus come from the same draws of architectures, so what the two have in common cancels. The interval is the
    difference +- t(n - 1) * (standard deviation of its replicates); of what the bootstrap adds to the variance of few
    architectures only half is taken off (in `bootstrap` three quarters), because a test of many differences looks at
    the far ends: then it holds its level from 3 architectures on (docs/analysis.md).

    Args:
        proxy_a: Errors under one proxy, shape (n,); inf for a failed training.
        proxy_b: Errors under the other, shape (n,).
        truth: Errors after full training, shape (n,), in the same order.
        draws: Number of draws, at least 2.
        rng: Source of the draws.
        level: Nominal coverage, in (0, 1).

    Returns:
        The difference in [-2, 2], above 0 if a is better; nan if either tau is, without limits for n < 3.

    Raises:
        ValueError: The shapes differ, n < 2, a NaN, or draws or level out of range.

    >>> truth = np.arange(50.0)
    >>> rough, fine = truth + 9 * np.sin(truth), truth + 3 * np.cos(truth)
    >>> gain = compare(fine, rough, truth, draws=1000, rng=np.random.default_rng(0))
    >>> print(f"{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]")
    0.16 [0.09, 0.23]
    """
    a, b = _checked(proxy_a, truth, "proxy_a"), _checked(proxy_b, truth, "proxy_b")

    def statistics(w: Weights) -> Floats:
        return (_tau_b(_Sample(a, w)) - _tau_b(_Sample(b, w)))[None]

    (value,), (drawn,) = _resample(statistics, a.n, draws, rng, level)
    excess = _excess(a.n, [_kernel(a, "b"), lambda: -_kernel(b, "b")()])
    return difference(float(value), drawn, a.y.ranks, level, excess)


def difference(value: float, drawn: Floats, truth: npt.NDArray[np.intp], level: float, excess: float) -> Interval:
    """The interval of a difference of two tau-b that `compare` makes of its draws.

    Args:
        value: Of the sample.
        drawn: Differences in the draws, shape (draws,); nan where one cannot be ranked.
        truth: Rank of each architecture by truth, equal ones together, shape (n,).
        level: Nominal coverage, in (0, 1).
        excess: Jackknife minus unbiased variance of the difference.
    """
    from scipy.special import stdtrit

    n, variance = len(truth), _variance(drawn)
    if n < 3 or not (math.isfinite(value) and math.isfinite(variance)):
        return Interval(value, math.nan, math.nan, level, len(drawn), n)
    margin = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(max(variance - excess, variance / 2))
    margin = widened(margin, value, n, level, by_chance(np.unique(truth, return_counts=True)[1]))
    return Interval(value, max(value - margin, -2.0), min(value + margin, 2.0), level, len(drawn), n)


def by_chance(sizes: npt.NDArray[np.intp]) -> float:
    """The probability that an order drawn at random is right throughout; equal truths may stand in any order.

    Args:
        sizes: How many architectures share each of the true values.

    >>> round(1 / by_chance(np.array([1, 1, 1, 1]))), round(1 / by_chance(np.array([1, 2, 1])))
    (24, 12)
    """
    return math.exp(sum(math.lgamma(size + 1) for size in sizes.tolist()) - math.lgamma(int(sizes.sum()) + 1))


def widened(margin: float, value: float, n: int, level: float, chance: float) -> float:
    """A margin of t(n - 1) standard errors, at least so wide that the p-value of 0 is twice `chance`, two-sided.

    An estimated variance of few architectures may be 0, or next to it, where nothing is known: if one proxy orders 3 of
    them rightly and another wrongly, no draw differs. Whatever the variance says, no result is surer than that chance
    brings about the best there is (`by_chance`): with 3 architectures no difference is ever found, with 4 one-sided at
    best. From 10 on the bound is below 1e-6.
    """
    from scipy.special import stdtrit

    if chance < 1e-15:  # and no quantile is known so far out
        return margin
    t, most = float(stdtrit(n - 1, (1 + level) / 2)), -float(stdtrit(n - 1, min(chance, 0.5)))
    least = t * abs(value) / most if most > 0 else math.inf if abs(value) > 1e-12 else 0.0
    return max(margin, least)


def noise_ceiling(
    full: npt.ArrayLike, *, draws: int = 10_000, rng: np.random.Generator, level: float = 0.95
) -> Interval:
    """The tau-b that full training reaches against itself: `ceiling(full, full)`, no proxy need do better.

    Args:
        full: Errors after full training, shape (n, seeds), at least two seeds; NaN where a seed is missing.
        draws: Number of draws, at least 2.
        rng: Source of the draws.
        level: Nominal coverage, in (0, 1).

    Returns:
        Mean over the seeds of tau(seed, mean of the other seeds), in [-1, 1].

    Raises:
        ValueError: As `ceiling`.

    >>> runs = np.array([[6.0, 6.1, 6.2], [7.0, 6.9, 7.2], [7.1, 7.3, 7.1], [9.0, np.inf, 9.1]])
    >>> round(noise_ceiling(runs, draws=100, rng=np.random.default_rng(0)).value, 3)
    0.86
    """
    return ceiling(full, full, draws=draws, rng=rng, level=level)


def ceiling(
    valid: npt.ArrayLike, test: npt.ArrayLike, *, draws: int = 10_000, rng: np.random.Generator, level: float = 0.95
) -> Interval:
    """The tau-b that full training would reach as a proxy: what its seeds, and its view of the data, leave to reach.

    Each seed as proxies are scored, `valid[:, i]`, against the mean of the other seeds as the judge sees them,
    `test[:, j != i]`; averaged over the seeds. A seed counts the architectures that have it and at least one other; the
    mean is over the other seeds present, and inf if one of them failed. A draw is of architectures, for all seeds.

    Args:
        valid: Errors in the view that proxies are scored by, shape (n, seeds); NaN where a seed is missing.
        test: Errors in the view that the judge uses, same shape.
        draws: Number of draws, at least 2.
        rng: Source of the draws.
        level: Nominal coverage, in (0, 1).

    Returns:
        Mean tau in [-1, 1] with the interval of `bootstrap`; `n` counts the architectures of any use. nan if a seed's
        tau is.

    Raises:
        ValueError: The shapes differ or are not (n, seeds), fewer than two seeds, or a seed with fewer than two
            architectures that have another seed too.

    >>> valid = np.array([[8.0, 8.2], [8.9, 9.0], [9.5, 9.1], [7.5, np.nan]])
    >>> round(ceiling(valid, valid - 1, draws=100, rng=np.random.default_rng(0)).value, 3)
    1.0
    """
    valid, test = np.asarray(valid, float), np.asarray(test, float)
    if valid.ndim != 2 or valid.shape != test.shape:
        raise ValueError(f"need two arrays of shape (n, seeds), not {valid.shape} and {test.shape}")
    seeds = valid.shape[1]
    if seeds < 2:
        raise ValueError(f"a ceiling needs at least 2 seeds of full training, not {seeds}")
    views = []
    for seed in range(seeds):
        others = np.delete(test, seed, axis=1)
        there = ~np.isnan(others)
        rows = np.flatnonzero(there.any(1) & ~np.isnan(valid[:, seed]))
        if len(rows) < 2:
            raise ValueError(f"seed {seed} has {len(rows)} architectures that have another seed too; it needs 2")
        mean = np.where(there, others, 0.0)[rows].sum(1) / there[rows].sum(1)
        views.append((rows, valid[rows, seed], mean))
    used = np.unique(np.concatenate([rows for rows, _, _ in views]))  # the draws are of these
    parts = [(np.searchsorted(used, rows), _Pair(x, y)) for rows, x, y in views]

    def statistics(w: Weights) -> Floats:
        taus: Floats = np.stack([_tau_b(_Sample(pair, w[rows])) for rows, pair in parts])
        return np.asarray(taus.mean(0, keepdims=True))

    def share(rows: npt.NDArray[np.intp], pair: _Pair) -> Floats:
        kernel = np.zeros((len(used), len(used)))
        kernel[np.ix_(rows, rows)] = _kernel(pair, "b")() / seeds
        return kernel

    (value,), (drawn,) = _resample(statistics, len(used), draws, rng, level)
    excess = _excess(len(used), [partial(share, rows, pair) for rows, pair in parts])
    ranks = np.arange(len(used))
    if all(len(rows) == len(used) for rows, _ in parts):
        ranks = parts[0][1].y.ranks
    return Interval(float(value), *_fisher(value, _variance(drawn), ranks, level, excess), level, draws, len(used))


class _Ranking:
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


class _Pair:
    """Proxy and truth, ranked once for all draws."""

    def __init__(self, proxy: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        self.n = len(proxy)
        self.x, self.y = _Ranking(proxy), _Ranking(truth)

    def sorted(self) -> _Pair:
        """The same with architectures from best to worst, so that draws neither depend on their order nor need it."""
        order = self.xy.order
        return _Pair(self.x.errors[self.x.ranks[order]], self.y.errors[self.y.ranks[order]])

    @cached_property
    def xy(self) -> _Ranking:
        """By proxy, ties by truth."""
        return _Ranking(self.x.ranks * self.y.m + self.y.ranks)

    @cached_property
    def trusting(self) -> npt.NDArray[np.intp]:
        """The order in which one who trusts the proxy trains: ties under it go against it, the truly worst first."""
        return np.lexsort((-self.y.ranks, self.x.ranks))

    @cached_property
    def yx(self) -> _Ranking:
        """By truth, ties by proxy."""
        return _Ranking(self.y.ranks * self.x.m + self.x.ranks)


class _Sample:
    """A pair under many weightings at once, with what several measures need."""

    def __init__(self, pair: _Pair, w: Weights) -> None:
        self.pair, self.w = pair, w

    @cached_property
    def total(self) -> Floats:
        return _dot(self.w)

    @cached_property
    def at_x(self) -> Weights:
        return self.pair.x.sums(self.w)

    @cached_property
    def at_y(self) -> Weights:
        return self.pair.y.sums(self.w)

    @cached_property
    def copies(self) -> Floats:
        """Ordered pairs of copies of one architecture, each with itself too, shape (draws,)."""
        return _dot(self.w, self.w)

    @cached_property
    def untied_x(self) -> Floats:
        return self.untied(self.at_x if self.pair.x.tied else None)

    @cached_property
    def untied_y(self) -> Floats:
        return self.untied(self.at_y if self.pair.y.tied else None)

    def untied(self, at: Weights | None) -> Floats:
        """Ordered pairs that a ranking tells apart, shape (draws,)."""
        every = self.total**2
        untied = every - (self.copies if at is None else _dot(at, at))
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
            every, lone = v.sum(0, dtype=float) * self.total, _dot(v, w)
        x, y, xy = (_dot(r.sums(v), r.sums(w)) if r.tied else lone for r in (pair.x, pair.y, pair.xy))
        return 2 * concordant - (every - x - y + xy)  # 2 concordant - untied


Replicate: TypeAlias = Callable[[_Sample], Floats]  # a measure of each weighting, shape (draws,)


def _tau_a(sample: _Sample) -> Floats:
    return sample.agreement / (sample.total**2 - sample.copies)


def _tau_b(sample: _Sample) -> Floats:
    comparable = np.sqrt(sample.untied_x * sample.untied_y)  # 0: all equal in this draw
    tau: Floats = np.full(comparable.shape, np.nan)
    return np.divide(sample.agreement, comparable, out=tau, where=comparable > 0)


def _tau_c(sample: _Sample) -> Floats:
    return _tau_a(sample) * _stuart(sample.pair)


def _stuart(pair: _Pair) -> float:
    distinct = min(pair.x.m, pair.y.m)
    return (pair.n - 1) / pair.n * distinct / max(distinct - 1, 1)


def _weighted_tau(sample: _Sample) -> Floats:
    pair, w = sample.pair, sample.w
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, sample.total.max() + 1))])
    untied_x, untied_y = (sample.total - at[r.ranks] for at, r in ((sample.at_x, pair.x), (sample.at_y, pair.y)))
    taus = []
    for ranking in (pair.xy, pair.yx):
        v = np.empty(w.shape)  # each architecture's copies follow one another and bring 1 / rank each
        v[ranking.order] = np.diff(harmonic[np.cumsum(ranking.arrange(w), axis=0)], axis=0, prepend=0)
        scale = np.sqrt(_dot(v, untied_x) * _dot(v, untied_y))
        with np.errstate(divide="ignore", invalid="ignore"):
            taus.append(sample.agreement_of(v) / scale)
    return (taus[0] + taus[1]) / 2


def _spearman(sample: _Sample) -> Floats:
    def centred(at: Weights, ranks: npt.NDArray[np.intp]) -> Floats:
        return (2 * _before(at) + at - sample.total)[ranks]  # twice the mean rank's distance to the middle

    x, y = centred(sample.at_x, sample.pair.x.ranks), centred(sample.at_y, sample.pair.y.ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _dot(sample.w, x, y) / np.sqrt(_dot(sample.w, x, x) * _dot(sample.w, y, y))


def _top_overlap(sample: _Sample, fraction: float = 0.1) -> Floats:
    seats = np.ceil(np.round(fraction * sample.total, 9))
    x, y = _admitted(sample.at_x, seats), _admitted(sample.at_y, seats)
    ranks_x, ranks_y = sample.pair.x.ranks, sample.pair.y.ranks
    rows = np.flatnonzero((ranks_x < len(x)) & (ranks_y < len(y)))
    return _dot(sample.w[rows], x[ranks_x[rows]], y[ranks_y[rows]]) / seats


def _admitted(at: Weights, seats: Floats) -> Floats:
    """Chance of a seat at each distinct error, for as many of the best as anyone has a chance, shape (<= m, draws)."""
    before = _before(at)
    before = before[: np.count_nonzero((before < seats).any(1))]
    at = at[: len(before)]
    return np.clip((seats - before) / np.maximum(at, 1), 0, 1)


def _tau_in_top(sample: _Sample, fraction: float = 0.1) -> Floats:
    seats = np.floor(np.round(fraction * sample.total, 9))
    y, ranks = _admitted(sample.at_y, seats), sample.pair.y.ranks
    rows = np.flatnonzero(ranks < len(y))
    if not len(rows):
        return np.full(len(seats), np.nan)
    top = _Pair(sample.pair.x.ranks[rows], ranks[rows])
    return np.where(seats < 2, np.nan, _tau_b(_Sample(top, sample.w[rows] * y[ranks[rows]])))


def _best_rank(sample: _Sample, k: int = 10) -> Floats:
    better: Floats = np.take_along_axis(_before(sample.at_y), _best_of_top(sample, k)[None], axis=0)[0].astype(float)
    return better + 1


def _regret(sample: _Sample, k: int = 1) -> Floats:
    errors = sample.pair.y.errors
    with np.errstate(invalid="ignore"):  # inf - inf: every training failed
        return np.asarray(errors[_best_of_top(sample, k)] - errors[(sample.at_y > 0).argmax(0)], float)


def _best_of_top(sample: _Sample, k: int) -> npt.NDArray[np.intp]:
    """Index into the distinct true errors of the best among the proxy's top k, shape (draws,)."""
    order, y = sample.pair.trusting, sample.pair.y
    held = sample.w[order]
    before = _before(held)
    stop = np.count_nonzero((before < k).any(1))
    in_top = (held[:stop] > 0) & (before[:stop] < k)
    best: npt.NDArray[np.intp] = np.where(in_top, y.ranks[order[:stop], None], y.m).min(0)
    return best


_TAU: dict[str, Replicate] = {"a": _tau_a, "b": _tau_b, "c": _tau_c}
_VARIANT = {"tau": "b", "tau_a": "a", "tau_c": "c"}
_FISHER = ("weighted_tau", "spearman")
_REPLICATE: dict[str, Replicate] = {
    "tau": _tau_b,
    "tau_a": _tau_a,
    "tau_c": _tau_c,
    "weighted_tau": _weighted_tau,
    "spearman": _spearman,
    "top10_overlap": _top_overlap,
    "best_rank_at_10": _best_rank,
    "tau_top10": _tau_in_top,
    "regret_at_1": _regret,
}


def _where_defined(replicate: Replicate, sample: _Sample) -> Floats:
    """The measure, nan where all of either are equal."""
    if sample.pair.x.m < 2 or sample.pair.y.m < 2:
        return np.full(sample.w.shape[1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.minimum(sample.untied_x, sample.untied_y) > 0, replicate(sample), np.nan)


def _value(replicate: Replicate, proxy: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    pair = _checked(proxy, truth).sorted()
    return float(_where_defined(replicate, _Sample(pair, np.ones((pair.n, 1), _counts(pair.n))))[0])


def _resample(
    statistics: Callable[[Weights], Floats], n: int, draws: int, rng: np.random.Generator, level: float
) -> tuple[Floats, Floats]:
    """Statistics of the sample, shape (s,), and of its draws, shape (s, draws).

    Blocks of draws have their own generators, so cores share the work without changing the result.
    """
    if draws < 2:
        raise ValueError(f"a bootstrap needs at least 2 draws, not {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), not {level}")
    width = max(32, BLOCK // n)
    jobs = [(min(width, draws - start), seed) for start, seed in _seeded(range(0, draws, width), rng)]

    def block(job: tuple[int, int]) -> Floats:
        count, seed = job
        return statistics(_multiplicities(n, count, np.random.Generator(np.random.SFC64(seed))))

    values = statistics(np.ones((n, 1), _counts(n)))[:, 0]  # also compiles, once, before there are threads
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return values, np.concatenate(list(pool.map(block, jobs)), axis=1)


def _seeded(starts: Sequence[int], rng: np.random.Generator) -> Iterable[tuple[int, int]]:
    return zip(starts, rng.integers(2**63, size=len(starts)).tolist(), strict=True)


def _multiplicities(n: int, draws: int, rng: np.random.Generator) -> Weights:
    """How often each architecture is drawn, shape (n, draws); columns sum to n.

    The draws of `rng.integers(0, n, (n, draws), dtype=np.uint32)`, from as many random bits, faster.
    """
    w: Weights = np.zeros((n, draws), _counts(n))
    placed = 0
    while placed < w.size:
        words = rng.integers(2**64, size=min(WORDS, w.size), dtype=np.uint64).view(np.uint32)
        placed = _compiled(_tally)(words, placed, w)
    return w


def _counts(n: int) -> npt.DTypeLike:
    """The narrowest type that holds n and the sums of a draw: more draws fit a vector and a cache."""
    return np.int16 if n <= np.iinfo(np.int16).max else np.int32


def _tally(words: npt.NDArray[np.uint32], placed: int, w: Weights) -> int:
    """Add draws, row by row of (n, draws), until words or places run out; returns how many are placed.

    Lemire, "Fast Random Integer Generation in an Interval", ACM TOMACS 29(1), 2019.
    """
    n, draws = w.shape
    uneven, draw = np.uint64(2**32 % n), placed % draws
    for word in words:
        product = np.uint64(word) * np.uint64(n)
        if product & np.uint64(2**32 - 1) < uneven:
            continue
        if placed == n * draws:
            break
        w[product >> np.uint64(32), draw] += 1
        placed += 1
        draw = draw + 1 if draw + 1 < draws else 0
    return placed


def _below(pair: _Pair, v: Weights, w: Weights) -> Floats:
    """Sum over i of v_i times the weight w that lies strictly below i by proxy and by truth, shape (draws,)."""
    below = np.zeros(w.shape[1])
    added = pair.x.arrange(w)
    asking = added if v is w else pair.x.arrange(v)
    tree = np.zeros((pair.y.m + 1, w.shape[1]), w.dtype)
    _compiled(_sweep)(asking, added, pair.x.ends, pair.y.ranks[pair.x.order], tree, tree[0].copy(), below)
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


def _before(at: Weights) -> Weights:
    """Weight ahead of each row, shape (rows, draws)."""
    through: Weights = np.cumsum(at, axis=0)
    return through - at


def _dot(*factors: Weights) -> Floats:
    """Sum over architectures of the product, shape (draws,)."""
    *others, last = factors
    summed = np.zeros(last.shape[1])
    _compiled(_add_products)(functools.reduce(np.multiply, others) if others else None, last, summed)
    return summed


def _add_products(v: Weights | None, w: Weights, summed: Floats) -> None:
    for i in range(len(w)):
        for d in range(w.shape[1]):
            summed[d] += w[i, d] if v is None else v[i, d] * w[i, d]


def _signs(ranking: _Ranking) -> npt.NDArray[np.float32]:
    ranks = ranking.ranks.astype(np.float32)
    signs: npt.NDArray[np.float32] = np.sign(ranks[:, None] - ranks)
    return signs


def _kernel(pair: _Pair, variant: str) -> Callable[[], Floats]:
    """What each ordered pair adds to tau, to first order, shape (n, n); called only if it is needed."""

    def linearised() -> Floats:
        x, y = _signs(pair.x), _signs(pair.y)
        agree, in_x, in_y = x * y, np.abs(x), np.abs(y)
        if variant == "b":
            scale, ratio = np.sqrt(in_x.sum() * in_y.sum()), np.sqrt(in_y.sum() / in_x.sum())
            return np.asarray((agree - agree.sum() / scale * (in_x * ratio + in_y / ratio) / 2) / scale)
        pairs = pair.n * (pair.n - 1)
        kernel = (agree - (agree.sum() / pairs) * (1 - np.eye(pair.n))) / pairs
        return np.asarray(kernel * _stuart(pair) if variant == "c" else kernel)

    return linearised


def _excess(n: int, kernels: Iterable[Callable[[], Floats]]) -> float:
    """Jackknife minus unbiased variance of a sum of taus; 0 where it does not matter or cannot be known."""
    if not 4 <= n <= EXCESS_UP_TO:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        kernel = np.sum([k() for k in kernels], axis=0)
    jackknife, pairs = 4 * np.sum(kernel.sum(1) ** 2), 2 * np.sum(kernel**2)
    excess = float(jackknife - (jackknife - pairs) * n * (n - 1) / ((n - 2) * (n - 3)))
    return max(excess, 0.0)  # nan stays: there is no value either


def _variance(drawn: Floats) -> float:
    """Of the draws that can be ranked; nan if fewer than two can."""
    known = drawn[np.isfinite(drawn)]
    return float(known.var(ddof=1)) if len(known) >= 2 else math.nan


def _fisher(
    value: float, variance: float, truth: npt.NDArray[np.intp], level: float, excess: float = 0.0
) -> tuple[float, float]:
    from scipy.special import stdtrit

    n = len(truth)
    if n < 3 or not (math.isfinite(value) and math.isfinite(variance)):
        return math.nan, math.nan
    if abs(value) >= 1 - 1e-12:  # no pair disagrees, in the sample as in any draw
        return of_perfect(float(value), truth, level)
    margin = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(max(variance - 1.5 * excess, variance / 3))
    z, reach = math.atanh(value), margin / (1 - value**2)
    return math.tanh(z - reach), math.tanh(z + reach)


def of_perfect(value: float, truth: npt.ArrayLike, level: float) -> tuple[float, float]:
    """The interval of a tau of 1 (or -1): to where a sample without disagreement is just not too rare.

    Rankings at that tau are taken to be Mallows': each pair out of order makes one less likely by the same factor q.
    With equal truths the sum over all rankings is a q-multinomial. Spearman's and the weighted tau take the same end.

    Args:
        value: 1 or -1, or next to it.
        truth: Of the architectures, shape (n,); only which are equal counts.
        level: Of the interval; the sample has the probability (1 - level) / 2 at its far end.

    Source: Mallows, "Non-Null Ranking Models. I", Biometrika 44, 1957.

    >>> [round(of_perfect(1.0, np.arange(n), 0.95)[0], 2) for n in (3, 5, 20, 200)]
    [-0.53, 0.2, 0.96, 1.0]
    """
    sizes = np.unique(np.asarray(truth), return_counts=True)[1]
    end = _mallows(sizes, lambda log_chance, tau: log_chance > math.log((1 - level) / 2))[1]
    return (end, value) if value > 0 else (value, -end)


def perfect_by_luck(n: int, tau: float) -> float:
    """The probability that n architectures are ranked rightly throughout where the true tau is `tau`, after Mallows.

    >>> round(perfect_by_luck(20, of_perfect(1.0, np.arange(20), 0.95)[0]), 6), round(perfect_by_luck(3, 0.0), 6)
    (0.025, 0.166667)
    """
    return math.exp(_mallows(np.ones(n, np.intp), lambda log_chance, there: there > tau)[0])


def _mallows(sizes: npt.NDArray[np.intp], above: Callable[[float, float], bool]) -> tuple[float, float]:
    """Where `above` turns false: log of the chance of a ranking that is right throughout, and the expected tau."""
    n = int(sizes.sum())
    steps = np.concatenate([np.arange(1, n + 1), *(np.arange(1, size + 1) for size in sizes)])
    sign = np.repeat([1.0, -1.0], n)
    pairs = float(n**2 - (sizes**2).sum()) / 2

    def at(s: float) -> tuple[float, float]:  # s = log q; -s turns every ranking round
        x = -abs(s) * steps
        ways = float(sign @ np.log(np.expm1(x) / np.expm1(-abs(s))))
        swapped = float(sign @ (steps * np.exp(x) / np.expm1(x) - math.exp(-abs(s)) / np.expm1(-abs(s))))
        return (-ways, 1 - 2 * swapped / pairs) if s < 0 else (-ways - s * pairs, 2 * swapped / pairs - 1)

    low, high = -60.0, 60.0
    for _ in range(64):
        middle = (low + high) / 2 or 1e-9
        low, high = (middle, high) if above(*at(middle)) else (low, middle)
    return at(low)


def _percentiles(value: float, drawn: Floats, n: int, level: float) -> tuple[float, float]:
    drawn = drawn[~np.isnan(drawn)]
    if n < 3 or not len(drawn) or math.isnan(value):
        return math.nan, math.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf").tolist()
    return low, high


def _checked(proxy: npt.ArrayLike, truth: npt.ArrayLike, name: str = "proxy") -> _Pair:
    x, y = np.asarray(proxy, float), np.asarray(truth, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"{name} and truth must have one shape (n,), not {x.shape} and {y.shape}")
    if len(x) < 2:
        raise ValueError(f"a ranking needs at least n = 2 architectures, not n = {len(x)}")
    for label, errors in ((name, x), ("truth", y)):
        if len(bad := np.flatnonzero(np.isnan(errors))):
            raise ValueError(f"{label} is NaN at index {bad[0]} ({len(bad)} of {len(x)}); a failed training is inf")
    return _Pair(x, y)


def _checked_fraction(fraction: float) -> float:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], not {fraction}")
    return fraction


def _checked_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return k
