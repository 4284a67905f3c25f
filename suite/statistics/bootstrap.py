"""Intervals of measures over the choice of architectures, and the agreement of full training with itself.

How the intervals were chosen and what they cover: docs/consistency.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from suite.statistics.chance import of_perfect
from suite.statistics.measures import MEASURES, ON_FISHERS_SCALE, REPLICATES, TAU_VARIANTS, tau_b, where_defined
from suite.statistics.ranking import (
    Floats,
    Pair,
    WeightedPair,
    Weights,
    checked_pair,
    count_type,
    linear_kernel,
    machine_code,
)

EXCESS_UP_TO = 512  # architectures; beyond, the excess is below 10 % of the variance at tau = 0.9, 2 % at 0.6
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
    pair, names = checked_pair(proxy, truth).sorted(), list(dict.fromkeys(measures))
    if unknown := sorted(set(names) - set(MEASURES)):
        raise ValueError(f"no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")

    def statistics(w: Weights) -> Floats:
        sample = WeightedPair(pair, w)
        return np.stack([where_defined(REPLICATES[name], sample) for name in names])

    values, replicates = resampled(statistics, pair.n, draws, rng, level)
    limits = {}
    for name, value, drawn in zip(names, values, replicates, strict=True):
        if name in TAU_VARIANTS:
            excess = excess_of(pair.n, [linear_kernel(pair, TAU_VARIANTS[name])])
            limits[name] = fisher_limits(value, variance_of(drawn), pair.y.ranks, level, excess)
        elif name in ON_FISHERS_SCALE:
            limits[name] = fisher_limits(value, variance_of(drawn), pair.y.ranks, level)
        else:
            limits[name] = percentile_limits(value, drawn, pair.n, level)
    return {
        name: Interval(float(value), *limits[name], level, draws, pair.n)
        for name, value in zip(names, values, strict=True)
    }


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
    parts = [(np.searchsorted(used, rows), Pair(x, y)) for rows, x, y in views]

    def statistics(w: Weights) -> Floats:
        taus: Floats = np.stack([tau_b(WeightedPair(pair, w[rows])) for rows, pair in parts])
        return np.asarray(taus.mean(0, keepdims=True))

    def share(rows: npt.NDArray[np.intp], pair: Pair) -> Floats:
        kernel = np.zeros((len(used), len(used)))
        kernel[np.ix_(rows, rows)] = linear_kernel(pair, "b")() / seeds
        return kernel

    (value,), (drawn,) = resampled(statistics, len(used), draws, rng, level)
    excess = excess_of(len(used), [partial(share, rows, pair) for rows, pair in parts])
    ranks = np.arange(len(used))
    if all(len(rows) == len(used) for rows, _ in parts):
        ranks = parts[0][1].y.ranks
    return Interval(
        float(value), *fisher_limits(value, variance_of(drawn), ranks, level, excess), level, draws, len(used)
    )


def resampled(
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
        return statistics(multiplicities(n, count, np.random.Generator(np.random.SFC64(seed))))

    values = statistics(np.ones((n, 1), count_type(n)))[:, 0]  # also compiles, once, before there are threads
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return values, np.concatenate(list(pool.map(block, jobs)), axis=1)


def _seeded(starts: Sequence[int], rng: np.random.Generator) -> Iterable[tuple[int, int]]:
    return zip(starts, rng.integers(2**63, size=len(starts)).tolist(), strict=True)


def multiplicities(n: int, draws: int, rng: np.random.Generator) -> Weights:
    """Draw architectures with replacement: how often each is drawn, shape (n, draws); columns sum to n.

    The draws of `rng.integers(0, n, (n, draws), dtype=np.uint32)`, from as many random bits, faster.
    """
    w: Weights = np.zeros((n, draws), count_type(n))
    placed = 0
    while placed < w.size:
        words = rng.integers(2**64, size=min(WORDS, w.size), dtype=np.uint64).view(np.uint32)
        placed = machine_code(_tally)(words, placed, w)
    return w


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


def excess_of(n: int, kernels: Iterable[Callable[[], Floats]]) -> float:
    """Jackknife minus unbiased variance of a sum of taus; 0 where it does not matter or cannot be known."""
    if not 4 <= n <= EXCESS_UP_TO:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        kernel = np.sum([k() for k in kernels], axis=0)
    jackknife, pairs = 4 * np.sum(kernel.sum(1) ** 2), 2 * np.sum(kernel**2)
    excess = float(jackknife - (jackknife - pairs) * n * (n - 1) / ((n - 2) * (n - 3)))
    return max(excess, 0.0)  # nan stays: there is no value either


def variance_of(drawn: Floats) -> float:
    """Variance of the draws that can be ranked; nan if fewer than two can."""
    known = drawn[np.isfinite(drawn)]
    return float(known.var(ddof=1)) if len(known) >= 2 else math.nan


def fisher_limits(
    value: float, variance: float, truth: npt.NDArray[np.intp], level: float, excess: float = 0.0
) -> tuple[float, float]:
    """The limits of a correlation: Student's t on Fisher's z scale, three quarters of the excess taken off.

    Args:
        value: The correlation of the sample.
        variance: Variance of its replicates.
        truth: Rank of each architecture by truth, equal ones together, shape (n,).
        level: Nominal coverage, in (0, 1).
        excess: Jackknife minus unbiased variance, as `excess_of` gives it.

    Returns:
        Low and high; nan for fewer than 3 architectures or an undefined value.
    """
    from scipy.special import stdtrit

    n = len(truth)
    if n < 3 or not (math.isfinite(value) and math.isfinite(variance)):
        return math.nan, math.nan
    if abs(value) >= 1 - 1e-12:  # no pair disagrees, in the sample as in any draw
        return of_perfect(float(value), truth, level)
    margin = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(max(variance - 1.5 * excess, variance / 3))
    z, reach = math.atanh(value), margin / (1 - value**2)
    return math.tanh(z - reach), math.tanh(z + reach)


def percentile_limits(value: float, drawn: Floats, n: int, level: float) -> tuple[float, float]:
    """The percentiles of the replicates at both ends; nan for fewer than 3 architectures or an undefined value."""
    drawn = drawn[~np.isnan(drawn)]
    if n < 3 or not len(drawn) or math.isnan(value):
        return math.nan, math.nan
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf").tolist()
    return low, high
