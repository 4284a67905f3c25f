"""EcoNAS's claims about proxies as named tests: verdict, interval, and what the verdict rests on.

Zhou et al. "EcoNAS: Finding Proxies for Economical Neural Architecture Search". CVPR 2020.
https://arxiv.org/abs/2001.01233. The paper states them in words; the pairs and statistics below are ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from suite.statistics.paired import widened
from suite.statistics.questions.factors import EXPONENTS
from suite.statistics.questions.taus import Errors, Floats, checked, taus
from suite.types import BadInput, Proxy

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
NOT_TESTABLE = "not testable on this grid"

Settings: TypeAlias = Mapping[str, Proxy]
Pairs: TypeAlias = list[tuple[str, str]]

TOLERANCE = 0.1
"""Costs within 10 % of each other count as equal: levels such as 36, 25, 18 halve a cost only nearly."""
SURE = 0.75
"""Few epochs "discard the clearly bad" if they order rightly 3 of 4 pairs that hold one of the worst quarter."""


@dataclass(frozen=True)
class Claim:
    """A claim, and what this grid says about it."""

    name: str
    statement: str
    verdict: str
    """supported | contradicted | undecided | not testable on this grid."""
    value: float
    """Value of the statistic that `measured` names; nan if it is not testable."""
    low: float
    high: float
    measured: str
    pairs: tuple[tuple[str, str], ...]
    """Proxies compared: the one that the claim says ranks better first."""
    n: int
    """Number of networks compared."""

    def __str__(self) -> str:
        if self.verdict == NOT_TESTABLE:
            return f"{self.statement}: {self.verdict} ({self.measured})"
        return (f"{self.statement}: {self.verdict} ({self.measured} {self.value:+.3f} [{self.low:+.3f}, "
                f"{self.high:+.3f}], n = {self.n}, {len(self.pairs)} pairs)")  # fmt: skip


def claims(
    errors: Errors, truth: npt.ArrayLike, settings: Settings, *, rng: np.random.Generator, draws: int = 1000,
    level: float = 0.95,
) -> list[Claim]:  # fmt: skip
    """Every claim of `CLAIMS` on one grid.

    Proxies without a setting (scores of untrained networks) take no part.

    Args:
        errors: Each proxy's errors, shape (n,) [%]; inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.
        settings: What the proxies are.
        rng: Source of the draws, for the last claim.
        draws: Of networks.
        level: Nominal coverage of each claim's interval, in (0, 1); the claims are not adjusted for one another.

    Raises:
        BadInput: As `suite.statistics.questions.taus.checked`; no proxy has a setting.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=100)
    >>> settings = {"half": Proxy(20, 16, 32, 0.5), "all": Proxy(10, 16, 32, 1.0)}
    >>> errors = {"half": truth + 3 * rng.normal(size=100), "all": truth + rng.normal(size=100) / 3}
    >>> for claim in claims(errors, truth, settings, rng=rng):
    ...     print(claim.name, claim.verdict)
    more_samples_fewer_epochs supported
    channels_before_resolution not testable on this grid
    tau_falls_with_epochs not testable on this grid
    few_epochs_discard_the_bad supported
    """
    if not any(name in settings for name in errors):
        raise BadInput("claims: no proxy has epochs, channels, resolution and samples")
    columns, y = checked({name: x for name, x in errors.items() if name in settings}, truth)
    return [test(columns, y, settings, draws, rng, level) for test in CLAIMS.values()]


def more_samples_fewer_epochs(
    errors: Mapping[str, Floats], truth: Floats, settings: Settings, draws: int, rng: np.random.Generator, level: float
) -> Claim:
    """At equal iterations (samples x epochs), more samples with fewer epochs against the reverse, all else equal."""

    def claimed(a: Proxy, b: Proxy) -> bool:
        return _same(a, b, "channels", "resolution", "cells") and a.samples > b.samples and a.epochs < b.epochs

    name, statement = "more_samples_fewer_epochs", "more samples with fewer epochs rank better at equal iterations"
    return _contrast(name, statement, _iso_cost(errors, settings, claimed), errors, truth, level)


def channels_before_resolution(
    errors: Mapping[str, Floats], truth: Floats, settings: Settings, draws: int, rng: np.random.Generator, level: float
) -> Claim:
    """At equal theoretical cost, fewer channels at a higher resolution against the reverse, all else equal."""

    def claimed(a: Proxy, b: Proxy) -> bool:
        return _same(a, b, "epochs", "samples", "cells") and a.channels < b.channels and a.resolution > b.resolution

    name, statement = "channels_before_resolution", "cutting channels is safer than resolution at equal cost"
    return _contrast(name, statement, _iso_cost(errors, settings, claimed), errors, truth, level)


def tau_falls_with_epochs(
    errors: Mapping[str, Floats], truth: Floats, settings: Settings, draws: int, rng: np.random.Generator, level: float
) -> Claim:
    """The most epochs against the fewest, all else equal."""
    pairs = []
    for group in _by_epochs(errors, settings):
        if settings[group[0]].epochs < settings[group[-1]].epochs:
            pairs.append((group[-1], group[0]))
    name, statement = "tau_falls_with_epochs", "tau falls as epochs shrink"
    return _contrast(name, statement, pairs, errors, truth, level)


def few_epochs_discard_the_bad(
    errors: Mapping[str, Floats], truth: Floats, settings: Settings, draws: int, rng: np.random.Generator, level: float
) -> Claim:
    """The share of pairs, one of the truly worst quarter and one of the rest, that the fewest epochs order rightly.

    Equal errors count half. Mean over the groups of proxies that differ in epochs only, each by its fewest epochs; a
    draw is of networks and decides anew which are the worst quarter. Interval: logit +- t(n - 1) standard deviations,
    and no surer of either side of `SURE` than chance allows: on fewer than 17 networks all can be ordered rightly with
    a true share of `SURE`.
    """
    from scipy.special import expit, logit, stdtrit

    shortest = [group[0] for group in _by_epochs(errors, settings)]
    fewest = min(settings[name].epochs for name in shortest)
    shortest = [name for name in shortest if settings[name].epochs == fewest]
    x, y, n = np.stack([_codes(errors[name]) for name in shortest]), _codes(truth), len(truth)  # x: (proxies, n)
    share = _right_order(x, y)
    drawn = np.empty(draws)
    for draw in range(draws):
        rows = rng.integers(0, n, n)
        drawn[draw] = _right_order(x[:, rows], y[rows])
    held = np.clip(np.append(drawn, share), 0.5 / n**2, 1 - 0.5 / n**2)
    margin = float(stdtrit(n - 1, (1 + level) / 2)) * float(logit(held[:-1]).std(ddof=1))
    bad = max(n // 4, 1)
    chance = _all_before(n - bad, bad, SURE / (1 - SURE)) if share > SURE else _all_before(bad, n - bad, 1 / SURE - 1)
    margin = widened(margin, float(logit(held[-1]) - logit(SURE)), n, level, chance)
    low, high = (float(expit(logit(held[-1]) + side * margin)) for side in (-1, 1))
    return Claim(
        "few_epochs_discard_the_bad", "few epochs suffice to discard the clearly bad",
        _verdict(low - SURE, high - SURE), share, low, high,
        f"share of pairs with one of the worst quarter ordered rightly after {fewest} epochs, needs {SURE}:",
        tuple((name, "truth") for name in shortest), n,
    )  # fmt: skip


CLAIMS: dict[str, Callable[..., Claim]] = {
    "more_samples_fewer_epochs": more_samples_fewer_epochs,
    "channels_before_resolution": channels_before_resolution,
    "tau_falls_with_epochs": tau_falls_with_epochs,
    "few_epochs_discard_the_bad": few_epochs_discard_the_bad,
}


def adjusted(found: Sequence[Claim], level: float = 0.95) -> list[Claim]:
    """The claims with Bonferroni's intervals and verdicts: all of them right at once with probability `level`.

    Args:
        found: Claims, each at that level.
        level: Of all together, in (0, 1).

    >>> one = Claim("c", "s", SUPPORTED, 0.1, 0.001, 0.199, "m", (("a", "b"),), 60)
    >>> [claim.verdict for claim in adjusted([one, one])]
    ['undecided', 'undecided']
    """
    from scipy.special import stdtrit

    tested = [claim for claim in found if claim.verdict != NOT_TESTABLE]
    result = []
    for claim in found:
        if claim.verdict == NOT_TESTABLE:
            result.append(claim)
            continue
        wanted, had = (stdtrit(claim.n - 1, 1 - (1 - level) / 2 / k) for k in (len(tested), 1))
        low, high = (claim.value + (end - claim.value) * wanted / had for end in (claim.low, claim.high))
        aim = SURE if claim.name == "few_epochs_discard_the_bad" else 0.0
        result.append(replace(claim, low=float(low), high=float(high), verdict=_verdict(low - aim, high - aim)))
    return result


def _same(a: Proxy, b: Proxy, *names: str) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _iso_cost(errors: Mapping[str, Floats], settings: Settings, claimed: Callable[[Proxy, Proxy], bool]) -> Pairs:
    """(a, b) of equal theoretical cost with the claim on a's side."""

    def cost(proxy: Proxy) -> float:
        return math.prod((getattr(proxy, factor) or 1) ** power for factor, power in EXPONENTS.items())

    return [
        (a, b) for a, b in itertools.permutations(errors, 2)
        if claimed(settings[a], settings[b])
        and abs(math.log(cost(settings[a]) / cost(settings[b]))) <= math.log1p(TOLERANCE)
    ]  # fmt: skip


def _by_epochs(errors: Mapping[str, Floats], settings: Settings) -> Iterator[list[str]]:
    """Proxies that differ in epochs only, fewest first."""
    groups: dict[Proxy, list[str]] = {}
    for name in errors:
        groups.setdefault(replace(settings[name], epochs=1), []).append(name)
    for group in groups.values():
        yield sorted(group, key=lambda name: settings[name].epochs)


def _contrast(
    name: str, statement: str, pairs: Pairs, errors: Mapping[str, Floats], truth: Floats, level: float
) -> Claim:
    """Mean over the pairs of tau(first) - tau(second)."""
    n = len(truth)
    if not pairs:
        return Claim(name, statement, NOT_TESTABLE, math.nan, math.nan, math.nan, "it has no such pair", (), n)
    found = taus(errors, truth)
    contrast = np.zeros(len(found.names))
    for a, b in pairs:
        contrast[found.names.index(a)] += 1 / len(pairs)
        contrast[found.names.index(b)] -= 1 / len(pairs)
    gain = found.interval(contrast, level)
    verdict = _verdict(gain.low, gain.high)
    return Claim(name, statement, verdict, gain.value, gain.low, gain.high, "mean gain of tau", tuple(pairs), n)


def _verdict(low: float, high: float) -> str:
    return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED


def _all_before(first: int, others: int, odds: float) -> float:
    """The chance that all of one group are ranked above all of another if each pair is with these odds.

    After Plackett and Luce: the next rank goes to each network left in proportion to its weight.
    """
    return math.prod(odds * left / (odds * left + others) for left in range(1, first + 1))


def _codes(values: Floats) -> npt.NDArray[np.int32]:
    """Ranks from 0, equal values together: what sorts and counts fast."""
    return np.unique(values, return_inverse=True)[1].astype(np.int32)


def _right_order(x: npt.NDArray[np.int32], truth: npt.NDArray[np.int32]) -> float:
    """Mean over proxies (rows of x) of the chance that one of the worst quarter is ranked below one of the rest.

    Args:
        x, truth: As `_codes` makes them.
    """
    n = len(truth)
    order = np.argsort(truth.astype(np.uint16) if n <= 2**16 else truth, kind="stable")
    worst = order[n - max(n // 4, 1) :]
    right = 0.0
    for codes in x:
        bad = np.bincount(codes[worst], minlength=n)
        rest = np.bincount(codes, minlength=n) - bad
        right += float(bad @ (np.cumsum(rest) - rest / 2))
    return float(right / len(x) / len(worst) / (n - len(worst)))
