"""Which factor to cut first: Fisher's z of tau on the logarithms of epochs, channels, resolution, samples and cells.

One model over the whole grid: z = base + sum of slopes x (log2 of the factor, from its mean over the grid) + products
of two factors. Weighted least squares (statsmodels), each tau by the inverse of its variance.

Two ways to standard errors. `effects` is the one to quote: the covariance of all taus over the choice of networks, from
`suite.statistics.questions.taus`, carried through the regression. All taus of a study come from the same networks, so
their errors move together; residuals do not show that, and textbook standard errors are wrong in either direction.
`clustered` takes the scatter between sets of networks (data sets, spaces, repeats of a study) instead, and so needs
several.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from suite.statistics.bootstrap import Interval
from suite.statistics.paired import widened
from suite.statistics.questions.differences import holm, p_value
from suite.statistics.questions.taus import Errors, Floats, taus
from suite.types import BadInput, Proxy

if TYPE_CHECKING:
    import pandas as pd

EXPONENTS = {"epochs": 1.0, "channels": 2.0, "resolution": 2.0, "samples": 1.0, "cells": 1.0}
"""Theoretical cost is proportional to each factor to this power."""


@dataclass(frozen=True)
class Effect:
    """The effect of cutting one factor, all else at the middle of the grid."""

    factor: str
    slope: Interval
    """Change of Fisher's z when the factor doubles."""
    exponent: float
    """Cost is proportional to the factor to this power."""
    loss: Interval
    """Tau lost when the factor is cut until the cost has halved; nan if cutting it saves nothing."""
    p: float
    """Two-sided, of a slope of 0."""


@dataclass(frozen=True)
class Factors:
    """The fitted model with its standard errors."""

    terms: tuple[str, ...]
    """"base", factors, then products such as "epochs x samples"."""
    coefficients: Floats
    covariance: Floats
    effects: tuple[Effect, ...]
    """The least loss of tau first: the order in which to cut."""
    more: Mapping[tuple[str, str], Interval]
    """(one, other), in the order of `effects` -> tau that cutting `other` loses more, a halving of cost each."""
    more_p_holm: Mapping[tuple[str, str], float]
    """Holm over all pairs, because which factor comes first was seen in the same data."""
    r_squared: float
    """R squared of the weighted regression: the share of z that the model explains."""
    middle: Mapping[str, float]
    """The setting that the effects hold at: the geometric mean of each factor over the grid."""
    dropped: tuple[str, ...]
    """Factors that do not vary and products that the grid cannot tell apart."""
    n: int
    proxies: int

    def answer(self) -> str:
        """One sentence: which factor to cut first."""
        usable = [effect for effect in self.effects if not math.isnan(effect.loss.value)]
        if not usable:
            return "no factor of this grid saves cost when cut"
        first = usable[0]
        text = (f"cut {first.factor} first: halving the cost by it loses {first.loss.value:.3f} of tau "
                f"[{first.loss.low:.3f}, {first.loss.high:.3f}]")  # fmt: skip
        if len(usable) == 1:
            return f"{text}; it is the only one that varies"
        alpha = 1 - first.loss.level
        unsure = [effect.factor for effect in usable[1:] if self.more_p_holm[first.factor, effect.factor] >= alpha]
        if not unsure:
            return f"{text}, less than by any other"
        return f"{text}; not told apart from {', '.join(unsure)}"


def effects(
    errors: Errors, truth: npt.ArrayLike, settings: Mapping[str, Proxy], *, interactions: bool = True,
    costs: Mapping[str, float] | None = None, level: float = 0.95,
) -> Factors:  # fmt: skip
    """The factorial model, with standard errors over the choice of networks.

    Args:
        errors: Each proxy's errors, shape (n,) [%]; inf for a failed training. All need a setting.
        truth: Errors after full training, shape (n,), in the same order.
        settings: What each proxy is.
        interactions: With products of two factors, as far as the grid tells them apart.
        costs: Measured cost of a network under each proxy [s]; None: the theoretical cost, `EXPONENTS`.
        level: Nominal coverage, in (0, 1).

    Raises:
        BadInput: As `taus`; a proxy without setting or cost; a tau of 1 or -1; no factor varies; fewer proxies than
            terms.

    >>> rng = np.random.default_rng(0)
    >>> truth, errors, settings = rng.normal(size=200), {}, {}
    >>> for e, c in itertools.product((5, 10, 20), (4, 8, 16)):
    ...     settings[f"e{e} c{c}"] = Proxy(e, c, 32)
    ...     errors[f"e{e} c{c}"] = truth + 16 / e**0.9 / c**0.3 * rng.normal(size=200)
    >>> effects(errors, truth, settings).answer()
    'cut channels first: halving the cost by it loses 0.028 of tau [0.015, 0.040], less than by any other'
    """
    found = taus(errors, truth)
    for name in found.names:
        if name not in settings:
            raise BadInput(f"proxy {name!r} has no epochs, channels, resolution and samples; leave it out of the model")
    z, worth = found.fisher()
    own = np.diag(found.covariance(np.eye(len(z)))) * worth**2
    logs, dropped = _logs([settings[name] for name in found.names])
    design, products = _design(logs, interactions)
    fit = _weighted(z, design, 1 / own)
    carry = fit.pinv_wexog * np.sqrt(1 / own)  # (terms, proxies): coefficients are linear in z
    covariance = found.covariance(carry * worth)
    exponents = _exponents(logs, costs, found.names)
    return _factors(fit, design, covariance, logs, exponents, (*dropped, *products), level, found.n - 1, found.n,
                    found.chance)  # fmt: skip


def clustered(
    rows: pd.DataFrame, cluster: str = "dataset", *, interactions: bool = True, level: float = 0.95
) -> Factors:
    """The same model on rows of `consistency.csv` from several sets of networks, standard errors clustered by set.

    Each set gets a base of its own. Student's t with (sets - 1) degrees of freedom. The interval is about other sets of
    the same kind; it covers on balanced made-up sets (docs/analysis.md), but is wide with few. For one set: `effects`.

    Args:
        rows: Columns `tau`, `tau_low`, `tau_high`, `n`, the factors, and the cluster's.
        cluster: Column that names the set of networks.
        interactions: As in `effects`.
        level: Nominal coverage, in (0, 1).

    Raises:
        BadInput: A column is missing, fewer than 3 sets, a tau without an interval, or as `effects`.

    Source: Liang and Zeger, "Longitudinal Data Analysis Using Generalized Linear Models", Biometrika 73, 1986.

    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> rows = pd.DataFrame([(d, e, 16, 32, 1.0) for d in "abcdef" for e in (5, 10, 20)],
    ...                     columns=["dataset", "epochs", "channels", "resolution", "samples"])
    >>> rows["tau"] = np.tanh(0.2 * np.log2(rows.epochs) + 0.02 * rng.normal(size=18))
    >>> rows["tau_low"], rows["tau_high"], rows["n"] = rows.tau - 0.1, rows.tau + 0.1, 60
    >>> print(f"{clustered(rows).effects[0].slope.value:.2f}")
    0.20
    """
    needed = ["tau", "tau_low", "tau_high", cluster, "epochs", "channels", "resolution", "samples"]
    if missing := [name for name in needed if name not in rows]:
        raise BadInput(f"factors: no column {', '.join(missing)}; consistency.csv has them")
    if rows[["tau", "tau_low", "tau_high"]].isna().any(axis=None) or (rows["tau"].abs() >= 1 - 1e-9).any():
        raise BadInput("factors: a tau of 1 or without an interval cannot be weighed; leave its row out")
    groups = rows[cluster].astype("category").cat.codes.to_numpy()
    sets = len(np.unique(groups))
    if sets < 3:
        raise BadInput(f"factors: clustering needs at least 3 of {cluster}, not {sets}; `effects` works on one")
    from suite.statistics.questions.grid import settings as named

    labelled = rows.assign(proxy=[str(i) for i in range(len(rows))])
    held = named(labelled)
    if len(held) < len(rows):
        raise BadInput(f"factors: {len(rows) - len(held)} rows have no epochs, channels, resolution or samples")
    z = np.arctanh(rows["tau"].to_numpy(float))
    width = np.arctanh(rows["tau_high"].to_numpy(float)) - np.arctanh(rows["tau_low"].to_numpy(float))
    logs, dropped = _logs(list(held.values()))
    design, products = _design(logs, interactions)
    own = np.eye(sets)[groups] - 1 / sets  # sets' own bases, around the common one
    exog = np.hstack([np.column_stack(list(design.values())), own[:, 1:]])
    fit = _weighted(z, design, 1 / width**2, exog, groups)
    covariance = np.asarray(fit.cov_params())[: len(design), : len(design)]
    exponents = _exponents(logs, None, ())
    n = int(rows["n"].min()) if "n" in rows else 0
    return _factors(fit, design, covariance, logs, exponents, (*dropped, *products), level, sets - 1, n)


def _logs(settings: Sequence[Proxy]) -> tuple[dict[str, Floats], list[str]]:
    """log2 of the factors that vary, centred nowhere yet; and the names of those that do not."""
    logs, dropped = {}, []
    for factor in EXPONENTS:
        held = [getattr(proxy, factor) for proxy in settings]
        if None in held and any(value is not None for value in held):
            raise BadInput(f"factors: some proxies give {factor} and others leave it to the space; give it for all")
        if len(set(held)) > 1:
            logs[factor] = np.log2(np.asarray(held, float))
        else:
            dropped.append(factor)
    if not logs:
        raise BadInput("factors: no factor varies in this grid; it needs two values of one at least")
    return logs, dropped


def _design(logs: Mapping[str, Floats], interactions: bool) -> tuple[dict[str, Floats], list[str]]:
    """Columns by term, and the products left out because the grid cannot tell them from the rest."""
    centred = {factor: log - log.mean() for factor, log in logs.items()}
    design = {"base": np.ones(len(next(iter(logs.values())))), **centred}
    if np.linalg.matrix_rank(np.column_stack(list(design.values()))) < len(design):
        raise BadInput(f"factors: {', '.join(logs)} change together in this grid ({len(design['base'])} proxies), so "
                       f"they cannot be told apart; vary them apart")  # fmt: skip
    left_out = []
    for a, b in itertools.combinations(centred, 2) if interactions else ():
        more = {**design, f"{a} x {b}": centred[a] * centred[b]}
        columns = np.column_stack(list(more.values()))
        if np.linalg.matrix_rank(columns) == len(more) < len(columns):
            design = more
        else:
            left_out.append(f"{a} x {b}")
    return design, left_out


def _weighted(
    z: Floats, design: Mapping[str, Floats], weights: Floats, exog: Floats | None = None,
    groups: npt.NDArray[np.generic] | None = None,
) -> _Fit:  # fmt: skip
    from statsmodels.regression.linear_model import WLS

    model = WLS(z, np.column_stack(list(design.values())) if exog is None else exog, weights=weights)
    robust = {} if groups is None else {"cov_type": "cluster", "cov_kwds": {"groups": groups}, "use_t": True}
    found = model.fit(**robust)
    return _Fit(np.asarray(found.params), float(found.rsquared), np.asarray(model.pinv_wexog), found.cov_params)


@dataclass(frozen=True)
class _Fit:
    params: Floats
    r_squared: float
    pinv_wexog: Floats
    cov_params: Callable[[], Floats]


def _exponents(logs: Mapping[str, Floats], costs: Mapping[str, float] | None, names: Sequence[str]) -> dict[str, float]:
    """Power of each factor in the cost."""
    if costs is None:
        return {factor: EXPONENTS[factor] for factor in logs}
    for name in names:
        if not 0 < costs.get(name, math.nan) < math.inf:
            raise BadInput(f"proxy {name!r}: its cost is {costs.get(name, math.nan)}, not seconds above 0")
    columns = np.column_stack([np.ones(len(names)), *logs.values()])
    found = np.linalg.lstsq(columns, np.log2([costs[name] for name in names]), rcond=None)[0]
    return dict(zip(logs, map(float, found[1:]), strict=True))


def _factors(
    fit: _Fit, design: Mapping[str, Floats], covariance: Floats, logs: Mapping[str, Floats],
    exponents: Mapping[str, float], dropped: tuple[str, ...], level: float, freedom: int, n: int,
    chance: float = 0.0,
) -> Factors:  # fmt: skip
    from scipy.special import stdtrit

    terms = tuple(design)
    params = fit.params[: len(terms)]
    t = float(stdtrit(freedom, (1 + level) / 2))

    def interval(value: float, variance: float) -> Interval:
        margin = widened(t * math.sqrt(max(variance, 0.0)), value, freedom + 1, level, chance)
        return Interval(value, value - margin, value + margin, level, 0, n)

    def p_of(found: Interval) -> float:
        return p_value(replace(found, n=freedom + 1))

    def loss(factor: str) -> tuple[float, Floats]:
        """Tau lost by a halving of the cost, and its gradient."""
        place, power = terms.index(factor), exponents[factor]
        gradient = np.zeros(len(terms))
        if power < 0.05:  # less than 4 % saved by halving the factor
            return math.nan, gradient
        before, after = params[0], params[0] - params[place] / power
        gradient[0] = np.tanh(after) ** 2 - np.tanh(before) ** 2
        gradient[place] = (1 - np.tanh(after) ** 2) / power
        return float(np.tanh(before) - np.tanh(after)), gradient

    found, losses = [], {factor: loss(factor) for factor in logs}
    for factor, (value, gradient) in losses.items():
        place = terms.index(factor)
        slope = interval(float(params[place]), float(covariance[place, place]))
        p = p_of(slope)
        lost = interval(value, float(gradient @ covariance @ gradient))
        found.append(Effect(factor, slope, exponents[factor], lost, p))
    found.sort(key=lambda effect: (math.isnan(effect.loss.value), effect.loss.value))
    usable = [effect.factor for effect in found if not math.isnan(effect.loss.value)]
    more, p_values = {}, []
    for first, other in itertools.combinations(usable, 2):
        gradient = losses[other][1] - losses[first][1]
        variance = float(gradient @ covariance @ gradient)
        more[first, other] = interval(losses[other][0] - losses[first][0], variance)
        p_values.append(p_of(more[first, other]))
    middle = {factor: float(2 ** log.mean()) for factor, log in logs.items()}
    return Factors(terms, params, covariance, tuple(found), more, dict(zip(more, holm(p_values), strict=True)),
                   fit.r_squared, middle, dropped, n, len(design["base"]))  # fmt: skip
