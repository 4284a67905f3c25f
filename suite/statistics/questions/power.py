"""Power: the number of networks that it takes to tell two proxies apart.

The variance of a difference of taus falls with the number of networks: one part as 1 / N, from networks that suit one
proxy better, one as 1 / N^2, from single pairs. Both are read off pilot data, and with them the chance that the test of
`suite.statistics.questions.differences` finds a given difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from suite.statistics.questions.taus import Floats, taus
from suite.types import BadInput

MOST = 10**6


@dataclass(frozen=True)
class Pilot:
    """A pilot's estimate of the difference of two proxies."""

    difference: float
    """tau of the first minus tau of the second."""
    by_network: float
    """Variance of the difference is by_network / N + by_pair / N^2."""
    by_pair: float
    n: int

    def variance(self, n: int) -> float:
        """Standard error of the difference on n networks."""
        return self.by_network / n + self.by_pair / n**2


def pilot(first: npt.ArrayLike, second: npt.ArrayLike, truth: npt.ArrayLike) -> Pilot:
    """Variance components from proxies measured on some networks.

    Args:
        first, second: Errors under the two proxies, shape (n,) [%]; inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.

    Raises:
        BadInput: As `suite.statistics.questions.taus.checked`; the proxies rank alike, so that nothing varies.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=100)
    >>> found = pilot(truth + rng.normal(size=100), truth + 1.5 * rng.normal(size=100), truth)
    >>> networks_needed(found, difference=0.1), networks_needed(found, difference=0.2)
    (292, 79)
    """
    found = taus({"first": first, "second": second}, truth)
    contrast, n = np.array([1.0, -1.0]), found.n
    jackknife, unbiased = (float(contrast @ c @ contrast) for c in (found.jackknife, found.unbiased))
    if jackknife <= 0:
        raise BadInput(f"power: the two proxies order all {n} networks alike, so there is no difference to plan for")
    by_pair = max(jackknife - unbiased, 0.0) * n**2  # the excess is what single pairs add, to first order
    by_network = max(unbiased * n - by_pair / n, jackknife * n / 10)
    return Pilot(float(contrast @ found.values), by_network, by_pair, n)


def assumed(
    tau_first: float, tau_second: float, tau_between: float, *, rng: np.random.Generator, n: int = 1000
) -> Pilot:
    """A pilot for taus that are only assumed: errors drawn from the normal distribution that has them.

    Args:
        tau_first, tau_second: Of each proxy with the truth, in (-1, 1).
        tau_between: Of the two proxies with each other, in (-1, 1).
        rng: Source of the draws.
        n: Networks drawn.

    Returns:
        The pilot, its difference being the assumed one.

    Raises:
        BadInput: A tau is out of range, or no distribution has these three.

    >>> found = assumed(0.6, 0.5, 0.4, rng=np.random.default_rng(0))
    >>> print(f"{found.difference:.1f}", round(power(found, 100), 1))
    0.1 0.4
    """
    for tau in (tau_first, tau_second, tau_between):
        if not -1 < tau < 1:
            raise BadInput(f"power: tau must lie in (-1, 1), not {tau}")
    rho = np.eye(3)
    rho[0, 1:] = rho[1:, 0] = np.sin(np.pi / 2 * np.array([tau_first, tau_second]))
    rho[1, 2] = rho[2, 1] = math.sin(math.pi / 2 * tau_between)
    if np.linalg.eigvalsh(rho)[0] <= 1e-9:
        raise BadInput(f"power: no rankings have taus {tau_first}, {tau_second} with the truth and {tau_between} with "
                       f"each other; bring the three closer together")  # fmt: skip
    truth, first, second = (rng.standard_normal((n, 3)) @ np.linalg.cholesky(rho).T).T
    drawn = pilot(first, second, truth)
    return Pilot(tau_first - tau_second, drawn.by_network, drawn.by_pair, n)


def power(found: Pilot, n: int, *, difference: float | None = None, level: float = 0.95) -> float:
    """The chance that a paired comparison on n networks finds a difference.

    Args:
        found: Variances, and the difference if none is given. A pilot's own difference is itself uncertain: better give
            the smallest one that matters.
        n: Networks, at least 3.
        difference: Of the taus.
        level: Of the interval that must leave out 0, in (0, 1).

    Returns:
        In [1 - level, 1], up to the approximation.

    Raises:
        BadInput: n < 3.
    """
    from scipy.special import ndtr, stdtrit

    if n < 3:
        raise BadInput(f"power: a comparison needs at least 3 networks, not {n}")
    gain = abs(found.difference if difference is None else difference)
    spread = math.sqrt(found.variance(n))
    reported = math.sqrt(found.variance(n) + found.by_pair / n**2)  # single pairs count twice, as in `Taus.covariance`
    edge = float(stdtrit(n - 1, (1 + level) / 2)) * reported
    return float(ndtr((gain - edge) / spread) + ndtr((-gain - edge) / spread))


def networks_needed(found: Pilot, *, difference: float | None = None, chance: float = 0.8, level: float = 0.95) -> int:
    """The fewest networks on which the difference is found with at least that chance.

    Args:
        found: As in `power`.
        difference: Of the taus; None: the pilot's own.
        chance: In (0, 1).
        level: As in `power`.

    Raises:
        BadInput: The difference is 0, the chance out of range, or a million networks would not do.
    """
    gain = found.difference if difference is None else difference
    if gain == 0 or not 0 < chance < 1:
        raise BadInput(f"power: give a difference other than 0 and a chance in (0, 1), not {gain} and {chance}")
    if power(found, MOST, difference=gain, level=level) < chance:
        raise BadInput(f"power: a difference of {gain:g} is not found with chance {chance} on {MOST:,} networks")
    low, high = 2, MOST  # power(low) too small or undefined, power(high) enough
    while high - low > 1:
        middle = (low + high) // 2
        if power(found, middle, difference=gain, level=level) >= chance:
            high = middle
        else:
            low = middle
    return high


def curve(found: Pilot, sizes: npt.ArrayLike, *, difference: float | None = None, level: float = 0.95) -> Floats:
    """`power` at several numbers of networks, shape as `sizes`: for a figure.

    >>> curve(Pilot(0.1, 1.0, 0.0, 100), [100, 400, 1600]).round(2)
    array([0.16, 0.51, 0.98])
    """
    flat = [power(found, int(n), difference=difference, level=level) for n in np.ravel(sizes)]
    return np.array(flat).reshape(np.shape(sizes))
