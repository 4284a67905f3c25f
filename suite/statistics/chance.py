"""Rankings that chance alone brings about: how likely a perfect one is, and what it says of the true tau."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def by_chance(sizes: npt.NDArray[np.intp]) -> float:
    """The probability that an order drawn at random is right throughout; equal truths may stand in any order.

    Args:
        sizes: How many architectures share each of the true values.

    >>> round(1 / by_chance(np.array([1, 1, 1, 1]))), round(1 / by_chance(np.array([1, 2, 1])))
    (24, 12)
    """
    return math.exp(sum(math.lgamma(size + 1) for size in sizes.tolist()) - math.lgamma(int(sizes.sum()) + 1))


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
