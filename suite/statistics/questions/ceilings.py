"""The noise ceiling beyond the runs at hand: what a perfect proxy could reach, "0.55 of a possible 0.60".

Two runs of full training agree with some tau. If quality and noise of a run were normal after some common monotone
change of scale, that tau fixes the reliability of one run (Greiner: rho = sin(pi tau / 2)); the mean of k runs is more
reliable (Spearman-Brown: k rho / (1 + (k - 1) rho)), and two measurements of reliability a and b correlate by sqrt(ab)
(the attenuation formula), the true quality having reliability 1. Greiner's relation leads back to tau.

What it takes: runs of a network are exchangeable and independent given the network, and rank agreement behaves as under
normality. Heavy noise on qualities with a long tail or in groups breaks the second: then the ceiling comes out too
high, which understates a proxy. Measured in docs/analysis.md; with three runs or more `check` measures it on your data.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from suite.statistics.bootstrap import Interval
from suite.statistics.chance import of_perfect
from suite.statistics.measures import kendall_tau
from suite.statistics.questions.taus import WHOLE_UP_TO, Floats, column, covariances, kernel, unbias
from suite.types import BadInput

PERFECT = math.inf
"""As many runs as it takes: the true quality."""


@dataclass(frozen=True)
class Check:
    """A check of the ceiling: agreement with a mean of runs, predicted from single pairs of runs."""

    predicted: float
    measured: float
    """Mean over the runs of tau(run, mean of the others)."""
    n: int
    runs: int


def agreement(full: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Tau-b of one run of full training with another: the mean over all pairs of runs, with its interval.

    Args:
        full: Errors after full training, shape (n, runs) [%], at least two runs; NaN where a run is missing.
        level: Nominal coverage, in (0, 1).

    Returns:
        Mean tau, with an interval on Fisher's z over the choice of networks; `draws` is 0: there are none.

    Raises:
        BadInput: Fewer than two runs, or a pair of runs with fewer than 3 networks or with equal errors throughout.

    >>> rng = np.random.default_rng(0)
    >>> full = rng.normal(size=(200, 1)) + 0.5 * rng.normal(size=(200, 3))
    >>> found = agreement(full)
    >>> print(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
    0.60 [0.55, 0.64]
    """
    from scipy.special import stdtrit

    runs = _runs(full)
    views = []
    for a, b in itertools.combinations(range(runs.shape[1]), 2):
        rows = np.flatnonzero(~np.isnan(runs[:, [a, b]]).any(1))
        x, y = (column(f"run {run} of full training", runs[rows, run]) for run in (a, b))
        views.append((rows, x, y))
    value = float(np.mean([kendall_tau(x, y) for _, x, y in views]))
    used = len(np.unique(np.concatenate([rows for rows, _, _ in views])))
    variance = _variance(views, len(runs))
    if abs(value) >= 1 - 1e-12:
        return Interval(value, *of_perfect(value, views[0][2], level), level, 0, used)
    reach = float(stdtrit(used - 1, (1 + level) / 2)) * math.sqrt(variance) / (1 - value**2)
    return Interval(value, math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach), level, 0, used)


def extrapolate(
    full: npt.ArrayLike, *, proxy_runs: float = PERFECT, judge_runs: float | None = None, level: float = 0.95
) -> Interval:
    """The tau-b that a mean of runs reaches with the mean of other runs; by default a perfect proxy with the judge.

    Args:
        full: Errors after full training as the judge sees them, shape (n, runs) [%]; NaN where a run is missing.
        proxy_runs: Runs behind the proxy's ranking, at least 1; inf: the true quality; 1: full training itself.
        judge_runs: Runs that the judge takes the mean of, at least 1; None: all there are; inf: the true quality.
        level: Nominal coverage, in (0, 1).

    Returns:
        The ceiling, in [0, 1]; its ends are those of `agreement`, carried over. 0 if runs do not agree at all.

    Raises:
        BadInput: As `agreement`; a number of runs below 1.

    Source: Greiner 1909 (as in Kendall, "Rank Correlation Methods"); Spearman 1910 and Brown 1910 (British J. of
    Psychology 3); attenuation: Spearman 1904.

    >>> rng = np.random.default_rng(0)
    >>> quality = rng.normal(size=2000)
    >>> full = quality[:, None] + 0.5 * rng.normal(size=(2000, 3))
    >>> round(extrapolate(full[:, :2], judge_runs=3).value, 2), round(kendall_tau(quality, full.mean(1)), 2)
    (0.82, 0.83)
    """
    single = agreement(full, level)
    judges = _runs(full).shape[1] if judge_runs is None else judge_runs
    value, low, high = (_of_means(tau, proxy_runs, judges) for tau in (single.value, single.low, single.high))
    return Interval(value, low, high, level, 0, single.n)


def check(full: npt.ArrayLike) -> Check:
    """One run against the mean of the others: foretold from pairs of runs, beside what is measured.

    Args:
        full: Errors after full training, shape (n, runs) [%], at least three runs, none missing.

    Raises:
        BadInput: As `agreement`; fewer than three runs, or one missing.

    >>> rng = np.random.default_rng(0)
    >>> found = check(rng.normal(size=(2000, 1)) + 0.5 * rng.normal(size=(2000, 3)))
    >>> print(f"{found.predicted:.3f} {found.measured:.3f}")
    0.641 0.640
    """
    runs = _runs(full)
    if runs.shape[1] < 3 or np.isnan(runs).any():
        raise BadInput(f"a check needs at least 3 runs of every network; there are {runs.shape[1]}, "
                       f"{int(np.isnan(runs).sum())} of them missing for a network")  # fmt: skip
    count = runs.shape[1]
    measured = np.mean([kendall_tau(runs[:, i], np.delete(runs, i, axis=1).mean(1)) for i in range(count)])
    return Check(extrapolate(runs, proxy_runs=1, judge_runs=count - 1).value, float(measured), len(runs), count)


def reading(tau: float, ceiling: Interval) -> str:
    """A tau beside what was possible.

    >>> reading(0.552, Interval(0.604, 0.55, 0.66, 0.95, 0, 60))
    '0.55 of a possible 0.60 [0.55, 0.66]'
    """
    return f"{tau:.2f} of a possible {ceiling.value:.2f} [{ceiling.low:.2f}, {ceiling.high:.2f}]"


def _of_means(tau: float, proxy_runs: float, judge_runs: float) -> float:
    for runs in (proxy_runs, judge_runs):
        if not runs >= 1:
            raise BadInput(f"a ceiling needs at least 1 run, not {runs}")
    rho = math.sin(math.pi / 2 * min(max(tau, 0.0), 1.0))
    if rho == 0:
        return 0.0
    proxy, judge = (1.0 if math.isinf(k) else k * rho / (1 + (k - 1) * rho) for k in (proxy_runs, judge_runs))
    return 2 / math.pi * math.asin(min(math.sqrt(proxy * judge), 1.0))


def _runs(full: npt.ArrayLike) -> Floats:
    runs = np.asarray(full, float)
    if runs.ndim != 2 or runs.shape[1] < 2:
        raise BadInput(f"a ceiling needs errors of shape (n, runs) with at least 2 runs, not {runs.shape}")
    return runs


def _variance(views: list[tuple[npt.NDArray[np.intp], Floats, Floats]], n: int) -> float:
    """Interval of the mean tau of the views; each sees some of the n networks."""
    if all(len(rows) == n for rows, _, _ in views):
        jackknife, unbiased = (float(c.mean()) for c in covariances([(x, y) for _, x, y in views]))
    elif n <= WHOLE_UP_TO:
        mean = np.zeros((n, n))
        for rows, x, y in views:
            mean[np.ix_(rows, rows)] += kernel(x, y) / len(views)
        jackknife = float(4 * np.sum(mean.sum(1) ** 2))
        unbiased = float(unbias(np.array(jackknife), np.array(2 * np.sum(mean**2)), n))
    else:  # pairs of runs as if they agreed entirely: never too narrow
        deviations = [float(covariances([(x, y)])[0][0, 0]) ** 0.5 for _, x, y in views]
        jackknife = unbiased = float(np.mean(deviations)) ** 2
    excess = max(jackknife - unbiased, 0.0)
    return max(jackknife - excess / 2, (jackknife + excess) / 3)
