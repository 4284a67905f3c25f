"""The taus of many proxies on the same networks, with their joint covariance: what the other questions start from.

All taus of a study share their networks, so no two are independent: a difference, a mean or a slope over proxies needs
covariances. A tau-b is, to first order, a sum over pairs of networks of a kernel that is known from the data; sums of
the kernels give the covariances in closed form (the limit of a bootstrap over networks, without its draws). For few
networks it counts the noise of single pairs twice, as `suite.statistics.paired.compare` does with its draws after its
correction: an unbiased variance is itself too noisy for a test of many differences. Tests hold the two together.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from suite.statistics.bootstrap import Interval
from suite.statistics.chance import by_chance
from suite.statistics.measures import kendall_tau
from suite.statistics.paired import widened
from suite.types import BadInput

Floats: TypeAlias = npt.NDArray[np.float64]
Errors: TypeAlias = Mapping[str, npt.ArrayLike]
"""Proxy -> errors of the networks [%], shape (n,), lower is better; inf for a failed training."""

WHOLE_UP_TO = 1024
"""Networks; beyond, single pairs are below 1 % of the variance at any tau but the highest, and are not looked at."""


@dataclass(frozen=True)
class Taus:
    """Tau-b of proxies with one truth on the same networks."""

    names: tuple[str, ...]
    values: Floats  # (proxies,)
    jackknife: Floats  # (proxies, proxies): covariance that counts single pairs twice; never negative
    unbiased: Floats  # (proxies, proxies): the same without; may be negative for few networks
    n: int
    failed: tuple[int, ...]
    """Failed trainings of each proxy: worst, tied, and counted in every figure."""
    sizes: npt.NDArray[np.intp]
    """Networks of each true value."""

    @property
    def chance(self) -> float:
        """That a random order is right throughout: nothing here is surer, see `suite.statistics.paired.widened`."""
        return by_chance(self.sizes)

    def covariance(self, contrasts: npt.ArrayLike) -> Floats:
        """Covariance of linear combinations of the taus.

        Args:
            contrasts: Shape (k, proxies).

        Returns:
            Shape (k, k); diagonal above 0 unless a combination cannot vary.
        """
        rows = np.atleast_2d(np.asarray(contrasts, float))
        wide, exact = rows @ self.jackknife @ rows.T, rows @ self.unbiased @ rows.T
        variance = np.diag(wide).copy()
        excess = np.maximum(variance - np.diag(exact), 0.0)
        honest = np.maximum(variance, (variance + excess) / 2) * self.n / (self.n - 2)
        scale = np.sqrt(np.divide(honest, variance, out=np.ones_like(variance), where=variance > 0))
        both: Floats = wide * scale * scale[:, None]
        return both

    def interval(self, contrast: npt.ArrayLike, level: float = 0.95) -> Interval:
        """A linear combination of the taus, +- t(n - 1) standard errors, never narrower than `widened` allows.

        `draws` is 0: there are none.
        """
        from scipy.special import stdtrit

        row = np.asarray(contrast, float)
        value, variance = float(row @ self.values), float(self.covariance(row)[0, 0])
        margin = float(stdtrit(self.n - 1, (1 + level) / 2)) * max(variance, 0.0) ** 0.5
        margin = widened(margin, value, self.n, level, self.chance)
        return Interval(value, value - margin, value + margin, level, 0, self.n)

    def fisher(self) -> tuple[Floats, Floats]:
        """Fisher's z of each tau and what a unit of tau is worth there, 1 / (1 - tau^2).

        Raises:
            BadInput: A tau is 1 or -1: its z is infinite.
        """
        for name, value in zip(self.names, self.values, strict=True):
            if abs(value) >= 1 - 1e-9:
                raise BadInput(f"proxy {name!r}: tau is {value:.0f} on {self.n} networks, so it has no Fisher z; "
                               f"take more networks, or leave it out")  # fmt: skip
        return np.arctanh(self.values), 1 / (1 - self.values**2)


def taus(errors: Errors, truth: npt.ArrayLike) -> Taus:
    """Tau-b of every proxy with the truth, and their covariances over the choice of networks.

    Args:
        errors: Each proxy's errors, shape (n,) [%]; inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.

    Raises:
        BadInput: As `checked`.

    Source: Kendall 1945 (tau-b); Cliff and Charlin, "Variances and Covariances of Kendall's Tau and Their Estimation",
    Multivariate Behavioral Research 26(4), 1991.

    >>> truth = np.arange(50.0)
    >>> found = taus({"rough": truth + 9 * np.sin(truth), "fine": truth + 3 * np.cos(truth)}, truth)
    >>> gain = found.interval([-1, 1])
    >>> print(f"{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]")
    0.16 [0.09, 0.22]
    """
    columns, y = checked(errors, truth)
    values = np.array([_tau(x, y) for x in columns.values()])
    jackknife, unbiased = covariances([(x, y) for x in columns.values()])
    failed = tuple(int(np.isinf(x).sum()) for x in columns.values())
    sizes = np.unique(y, return_counts=True)[1]
    return Taus(tuple(columns), values, jackknife, unbiased, len(y), failed, sizes)


def checked(errors: Errors, truth: npt.ArrayLike) -> tuple[dict[str, Floats], Floats]:
    """The same as arrays of one length.

    Raises:
        BadInput: No proxy; fewer than 3 networks; lengths differ; a NaN; all errors of a proxy or of the truth equal.

    >>> checked({"e1": [5.0, 5.0, 5.0]}, [1.0, 2.0, 3.0])
    Traceback (most recent call last):
    suite.types.BadInput: proxy 'e1': all 3 errors are 5, so it ranks nothing; leave it out
    """
    y = column("truth", truth)
    if not errors:
        raise BadInput("no proxy was given; at least one is needed")
    columns = {name: column(f"proxy {name!r}", x) for name, x in errors.items()}
    for name, x in columns.items():
        if len(x) != len(y):
            raise BadInput(f"proxy {name!r}: {len(x)} errors, but the truth has {len(y)}; both need the same networks")
    return columns, y


def column(name: str, values: npt.ArrayLike) -> Floats:
    """One vector of errors that can be ranked; BadInput otherwise."""
    x = np.asarray(values, float)
    if x.ndim != 1:
        raise BadInput(f"{name}: errors must have shape (n,), not {x.shape}")
    if len(x) < 3:
        raise BadInput(f"{name}: a ranking needs at least 3 networks, not {len(x)}")
    if len(bad := np.flatnonzero(np.isnan(x))):
        raise BadInput(f"{name}: NaN at network {bad[0]} ({len(bad)} of {len(x)}); a failed training is inf")
    if (x == x[0]).all():
        raise BadInput(f"{name}: all {len(x)} errors are {x[0]:g}, so it ranks nothing; leave it out")
    return x


def covariances(pairs: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Covariances of the tau-b of pairs of rankings of the same networks: jackknife and unbiased, each (k, k)."""
    n = len(pairs[0][0])
    if n > WHOLE_UP_TO:
        rows = np.stack([_row_sums(*pair) for pair in pairs])
        jackknife = 4 * rows @ rows.T
        return jackknife, jackknife
    kernels = np.stack([kernel(*pair).ravel() for pair in pairs])  # (k, n * n)
    rows = kernels.reshape(-1, n, n).sum(2)
    jackknife, single = 4 * rows @ rows.T, 2 * kernels @ kernels.T
    return jackknife, unbias(jackknife, single, n)


def unbias(jackknife: Floats, single: Floats, n: int) -> Floats:
    """The covariance without what single pairs add to the jackknife's."""
    if n < 4:
        return jackknife
    unbiased: Floats = (jackknife - single) * n * (n - 1) / ((n - 2) * (n - 3))
    return unbiased


def kernel(x: Floats, y: Floats) -> Floats:
    """Each ordered pair's share of tau-b, to first order, shape (n, n)."""
    a, b = (np.sign(r[:, None] - r) for r in (_ranks(x), _ranks(y)))
    in_x, in_y = np.abs(a), np.abs(b)
    scale, ratio = np.sqrt(in_x.sum() * in_y.sum()), np.sqrt(in_y.sum() / in_x.sum())
    linear: Floats = (a * b - (a * b).sum() / scale * (in_x * ratio + in_y / ratio) / 2) / scale
    return linear


def _tau(x: Floats, y: Floats) -> float:
    return kendall_tau(x, y) if len(x) <= WHOLE_UP_TO else _of_many(x.tobytes(), y.tobytes())[0]


def _row_sums(x: Floats, y: Floats) -> Floats:
    """`kernel(x, y).sum(1)` in n log^2 n."""
    return _of_many(x.tobytes(), y.tobytes())[1]


@functools.lru_cache(maxsize=256)
def _of_many(x: bytes, y: bytes) -> tuple[float, Floats]:
    """tau-b and the row sums; kept, because the questions of a study ask for the same again and again."""
    return _tau_and_rows(np.frombuffer(x), np.frombuffer(y))


def _tau_and_rows(x: Floats, y: Floats) -> tuple[float, Floats]:
    a, b = _ranks(x), _ranks(y)
    n = len(a)
    at_a, at_b, at_ab = (np.bincount(r)[r] for r in (a, b, _ranks(a * n + b)))
    concordant = _dominated(a, b) + _dominated(-a, -b)
    agree = 2 * concordant - (n - at_a - at_b + at_ab)
    in_x, in_y = n - at_a, n - at_b
    scale, ratio = np.sqrt(float(in_x.sum()) * in_y.sum()), np.sqrt(in_y.sum() / in_x.sum())
    rows: Floats = (agree - agree.sum() / scale * (in_x * ratio + in_y / ratio) / 2) / scale
    return float(agree.sum() / scale), rows


def _ranks(x: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """0 the lowest, equal values together; so that inf - inf is no question."""
    ranks: npt.NDArray[np.int64] = np.unique(x, return_inverse=True)[1].astype(np.int64)
    return ranks


def _dominated(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each i, how many j have a_j < a_i and b_j < b_i: merge sort, one level a turn."""
    order = np.lexsort((-b, a))  # equal a: larger b first, so that none of them counts
    value, n = _ranks(b[order]), len(a)
    below, place = np.zeros(n, np.int64), np.arange(n)
    width = 1
    while width < n:
        block, right = place // (2 * width), place // width % 2 == 1
        left = np.sort(block[~right] * n + value[~right])
        start = np.searchsorted(left, block[right] * n)
        below[right] += np.searchsorted(left, block[right] * n + value[right]) - start
        width *= 2
    result = np.empty(n, np.int64)
    result[order] = below
    return result
