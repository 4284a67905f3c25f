"""Which of two proxies ranks better: paired differences on the same networks, adjusted for looking at many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from suite.statistics.bootstrap import Interval
from suite.statistics.measures import kendall_tau
from suite.statistics.paired import compare
from suite.statistics.questions.taus import Errors, checked
from suite.types import BadInput, nearest


@dataclass(frozen=True)
class Difference:
    """By how much proxy `a` ranks better than proxy `b`."""

    a: str
    b: str
    tau_a: float
    tau_b: float
    gain: Interval
    """tau_a - tau_b, for this pair alone."""
    p: float
    """Two-sided p-value of no difference; below 1 - level exactly where `gain` excludes 0."""
    p_holm: float
    """The same for the whole family: the chance that any of its differences is found by mistake stays below."""

    @property
    def better(self) -> str:
        """The proxy found to rank better in the whole family at the level of the interval; "" if neither is."""
        if not self.p_holm < 1 - self.gain.level:
            return ""
        return self.a if self.gain.value > 0 else self.b


def differences(
    errors: Errors, truth: npt.ArrayLike, *, reference: str | None = None, draws: int = 2000, rng: np.random.Generator,
    level: float = 0.95,
) -> list[Difference]:  # fmt: skip
    """Every pair of proxies, or every proxy against one of them.

    Each pair is a `suite.statistics.paired.compare`, all with the same draws of networks. The p-value inverts its
    interval: Student's t with n - 1 degrees of freedom. A grid of 40 proxies has 780 pairs: with a reference the family
    is small, and so is Holm's price for it.

    Args:
        errors: Each proxy's errors, shape (n,) [%]; inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.
        reference: Compare each proxy with this one, which is then `b`; None: all pairs.
        draws: Of networks, at least 2.
        rng: Source of the draws.
        level: Nominal coverage of the intervals, in (0, 1).

    Returns:
        In the order of `errors`.

    Raises:
        BadInput: Fewer than two proxies, no such reference, or as `suite.statistics.questions.taus.checked`.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian J. of Statistics 6(2), 1979.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=60)
    >>> errors = {name: truth + noise * rng.normal(size=60) for name, noise in (("e1", 2), ("e4", 1), ("e9", 0.3))}
    >>> for d in differences(errors, truth, reference="e4", rng=rng):
    ...     print(f"{d.a} - {d.b}: {d.gain.value:+.2f} [{d.gain.low:+.2f}, {d.gain.high:+.2f}] {d.better}")
    e1 - e4: -0.28 [-0.52, -0.05] e4
    e9 - e4: +0.35 [+0.21, +0.49] e9
    """
    columns, y = checked(errors, truth)
    if len(columns) < 2:
        raise BadInput(f"a comparison needs at least 2 proxies, not {len(columns)}")
    if reference is not None and reference not in columns:
        raise BadInput(f"no proxy {reference!r} to compare with; {nearest(reference, columns)}")
    if reference is None:
        pairs = list(itertools.combinations(columns, 2))
    else:
        pairs = [(name, reference) for name in columns if name != reference]
    seed = int(rng.integers(2**63))
    gains = [compare(columns[a], columns[b], y, draws=draws, rng=np.random.default_rng(seed), level=level)
             for a, b in pairs]  # fmt: skip
    p = [p_value(gain) for gain in gains]
    tau = {name: kendall_tau(x, y) for name, x in columns.items()}
    return [
        Difference(a, b, tau[a], tau[b], gain, *both)
        for (a, b), gain, both in zip(pairs, gains, zip(p, holm(p), strict=True), strict=True)
    ]


def p_value(gain: Interval) -> float:
    """The two-sided p-value of 0 that an interval value +- t(n - 1) standard errors implies.

    Args:
        gain: From `compare` or `Taus.interval`; ends clipped at -2 or 2 are allowed on one side.

    >>> p_value(Interval(0.1, 0.0, 0.2, 0.95, 2000, 60))
    0.05
    """
    from scipy.special import stdtr, stdtrit

    margin = max(gain.high - gain.value, gain.value - gain.low)
    if math.isnan(margin):
        return 1.0
    if margin == 0:
        return 1.0 if gain.value == 0 else 0.0
    t = abs(gain.value) / margin * stdtrit(gain.n - 1, (1 + gain.level) / 2)
    return round(float(2 * stdtr(gain.n - 1, -t)), 15)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    single = np.asarray(p, float)
    order = np.argsort(single, kind="stable")
    steps = np.maximum.accumulate(single[order] * np.arange(len(single), 0, -1))
    adjusted = np.empty_like(single)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]
