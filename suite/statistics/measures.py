"""Measures of how well a proxy ranks architectures: rank agreement, and agreement at the top.

Every measure takes two error vectors of the same architectures, `proxy` and `truth`, lower is better. A failed training
is `inf`: worst, and tied with every other failure. NaN is refused, because it is not known where it ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.statistics.ranking import (
    Floats,
    Pair,
    WeightedPair,
    Weights,
    before,
    checked_pair,
    count_type,
    dot,
    stuart_scale,
)


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
    """Regret of trusting the proxy: lowest true error among its best min(k, n), minus the lowest of all.

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


Replicate: TypeAlias = Callable[[WeightedPair], Floats]  # a measure of each weighting, shape (draws,)


def _tau_a(sample: WeightedPair) -> Floats:
    return sample.agreement / (sample.total**2 - sample.copies)


def tau_b(sample: WeightedPair) -> Floats:
    """Kendall's tau-b under each weighting, shape (draws,); nan where all of either are equal."""
    comparable = np.sqrt(sample.untied_x * sample.untied_y)  # 0: all equal in this draw
    tau: Floats = np.full(comparable.shape, np.nan)
    return np.divide(sample.agreement, comparable, out=tau, where=comparable > 0)


def _tau_c(sample: WeightedPair) -> Floats:
    return _tau_a(sample) * stuart_scale(sample.pair)


def _weighted_tau(sample: WeightedPair) -> Floats:
    pair, w = sample.pair, sample.w
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, sample.total.max() + 1))])
    untied_x, untied_y = (sample.total - at[r.ranks] for at, r in ((sample.at_x, pair.x), (sample.at_y, pair.y)))
    taus = []
    for ranking in (pair.xy, pair.yx):
        v = np.empty(w.shape)  # each architecture's copies follow one another and bring 1 / rank each
        v[ranking.order] = np.diff(harmonic[np.cumsum(ranking.arrange(w), axis=0)], axis=0, prepend=0)
        scale = np.sqrt(dot(v, untied_x) * dot(v, untied_y))
        with np.errstate(divide="ignore", invalid="ignore"):
            taus.append(sample.agreement_of(v) / scale)
    return (taus[0] + taus[1]) / 2


def _spearman(sample: WeightedPair) -> Floats:
    def centred(at: Weights, ranks: npt.NDArray[np.intp]) -> Floats:
        return (2 * before(at) + at - sample.total)[ranks]  # twice the mean rank's distance to the middle

    x, y = centred(sample.at_x, sample.pair.x.ranks), centred(sample.at_y, sample.pair.y.ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return dot(sample.w, x, y) / np.sqrt(dot(sample.w, x, x) * dot(sample.w, y, y))


def _top_overlap(sample: WeightedPair, fraction: float = 0.1) -> Floats:
    seats = np.ceil(np.round(fraction * sample.total, 9))
    x, y = _admitted(sample.at_x, seats), _admitted(sample.at_y, seats)
    ranks_x, ranks_y = sample.pair.x.ranks, sample.pair.y.ranks
    rows = np.flatnonzero((ranks_x < len(x)) & (ranks_y < len(y)))
    return dot(sample.w[rows], x[ranks_x[rows]], y[ranks_y[rows]]) / seats


def _admitted(at: Weights, seats: Floats) -> Floats:
    """Chance of a seat at each distinct error, for as many of the best as anyone has a chance, shape (<= m, draws)."""
    ahead = before(at)
    ahead = ahead[: np.count_nonzero((ahead < seats).any(1))]
    at = at[: len(ahead)]
    return np.clip((seats - ahead) / np.maximum(at, 1), 0, 1)


def _tau_in_top(sample: WeightedPair, fraction: float = 0.1) -> Floats:
    seats = np.floor(np.round(fraction * sample.total, 9))
    y, ranks = _admitted(sample.at_y, seats), sample.pair.y.ranks
    rows = np.flatnonzero(ranks < len(y))
    if not len(rows):
        return np.full(len(seats), np.nan)
    top = Pair(sample.pair.x.ranks[rows], ranks[rows])
    return np.where(seats < 2, np.nan, tau_b(WeightedPair(top, sample.w[rows] * y[ranks[rows]])))


def _best_rank(sample: WeightedPair, k: int = 10) -> Floats:
    better: Floats = np.take_along_axis(before(sample.at_y), _best_of_top(sample, k)[None], axis=0)[0].astype(float)
    return better + 1


def _regret(sample: WeightedPair, k: int = 1) -> Floats:
    errors = sample.pair.y.errors
    with np.errstate(invalid="ignore"):  # inf - inf: every training failed
        return np.asarray(errors[_best_of_top(sample, k)] - errors[(sample.at_y > 0).argmax(0)], float)


def _best_of_top(sample: WeightedPair, k: int) -> npt.NDArray[np.intp]:
    """Index into the distinct true errors of the best among the proxy's top k, shape (draws,)."""
    order, y = sample.pair.trusting, sample.pair.y
    held = sample.w[order]
    ahead = before(held)
    stop = np.count_nonzero((ahead < k).any(1))
    in_top = (held[:stop] > 0) & (ahead[:stop] < k)
    best: npt.NDArray[np.intp] = np.where(in_top, y.ranks[order[:stop], None], y.m).min(0)
    return best


_TAU: dict[str, Replicate] = {"a": _tau_a, "b": tau_b, "c": _tau_c}
TAU_VARIANTS = {"tau": "b", "tau_a": "a", "tau_c": "c"}
ON_FISHERS_SCALE = ("weighted_tau", "spearman")
REPLICATES: dict[str, Replicate] = {
    "tau": tau_b,
    "tau_a": _tau_a,
    "tau_c": _tau_c,
    "weighted_tau": _weighted_tau,
    "spearman": _spearman,
    "top10_overlap": _top_overlap,
    "best_rank_at_10": _best_rank,
    "tau_top10": _tau_in_top,
    "regret_at_1": _regret,
}


def where_defined(replicate: Replicate, sample: WeightedPair) -> Floats:
    """The measure, nan where all of either are equal."""
    if sample.pair.x.m < 2 or sample.pair.y.m < 2:
        return np.full(sample.w.shape[1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.minimum(sample.untied_x, sample.untied_y) > 0, replicate(sample), np.nan)


def _value(replicate: Replicate, proxy: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    pair = checked_pair(proxy, truth).sorted()
    return float(where_defined(replicate, WeightedPair(pair, np.ones((pair.n, 1), count_type(pair.n))))[0])


def _checked_fraction(fraction: float) -> float:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], not {fraction}")
    return fraction


def _checked_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return k
