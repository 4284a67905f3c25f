"""Differences of two proxies on the same draws of architectures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from suite.statistics.bootstrap import Interval, excess_of, resampled, variance_of
from suite.statistics.chance import by_chance
from suite.statistics.measures import tau_b
from suite.statistics.ranking import Floats, WeightedPair, Weights, checked_pair, linear_kernel


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
    a, b = checked_pair(proxy_a, truth, "proxy_a"), checked_pair(proxy_b, truth, "proxy_b")

    def statistics(w: Weights) -> Floats:
        return (tau_b(WeightedPair(a, w)) - tau_b(WeightedPair(b, w)))[None]

    (value,), (drawn,) = resampled(statistics, a.n, draws, rng, level)
    excess = excess_of(a.n, [linear_kernel(a, "b"), lambda: -linear_kernel(b, "b")()])
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

    n, variance = len(truth), variance_of(drawn)
    if n < 3 or not (math.isfinite(value) and math.isfinite(variance)):
        return Interval(value, math.nan, math.nan, level, len(drawn), n)
    margin = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(max(variance - excess, variance / 2))
    margin = widened(margin, value, n, level, by_chance(np.unique(truth, return_counts=True)[1]))
    return Interval(value, max(value - margin, -2.0), min(value + margin, 2.0), level, len(drawn), n)


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
