"""Which proxy to use, or which sequence of stages: reliability against measured cost, judged on networks not seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from suite.statistics.bootstrap import Interval
from suite.statistics.chance import perfect_by_luck
from suite.statistics.questions.differences import holm, p_value
from suite.statistics.questions.grid import FULL
from suite.statistics.questions.taus import Errors, Floats, column, taus
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

# --- one proxy: the front, and the cheapest that will do


def front(costs: npt.ArrayLike, values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which proxies no other beats in both cost and reliability (of equals all stay).

    Args:
        costs: Of a network under each proxy, shape (proxies,) [s].
        values: Tau of each, shape (proxies,).

    Returns:
        Shape (proxies,).

    Raises:
        BadInput: The shapes differ, or one is NaN.

    >>> front([1, 2, 3, 3], [0.4, 0.6, 0.5, 0.6])
    array([ True,  True, False, False])
    """
    c, v = np.asarray(costs, float), np.asarray(values, float)
    if c.ndim != 1 or c.shape != v.shape or np.isnan(c).any() or np.isnan(v).any():
        raise BadInput(f"a front needs as many costs as taus, none NaN, not shapes {c.shape} and {v.shape}")
    as_cheap, as_good = c[:, None] <= c, v[:, None] >= v  # row beats column in that
    beats = as_cheap & as_good & ((c[:, None] < c) | (v[:, None] > v))
    return np.asarray(~beats.any(axis=0))


def separable_front(
    errors: Errors, truth: npt.ArrayLike, costs: Mapping[str, float], *, level: float = 0.95
) -> dict[str, str]:
    """The proxies that no cheaper (or as cheap) one is *known* to beat: a longer list than `front`, and an honest one.

    A proxy goes only if the paired difference of taus to one that costs no more is found above 0, one-sided, Holm over
    all such pairs. On 3 networks none goes, on a few more hardly one (`suite.statistics.paired.widened`).

    Args:
        errors: Each proxy's errors, shape (n,) [%]; inf for a failed training.
        truth: Errors after full training, shape (n,), in the same order.
        costs: Of a network under each proxy, and under "full" if it is to be checked against that [s].
        level: 1 - the chance that any proxy goes by mistake.

    Returns:
        Each proxy -> "" if it stays, else the best one that is known to beat it.

    Raises:
        BadInput: As `taus.checked`; a cost is missing or not above 0, or above that of full training.

    >>> rng = np.random.default_rng(1)
    >>> truth = rng.normal(size=100)
    >>> errors = {name: truth + noise * rng.normal(size=100) for name, noise in (("a", 1), ("b", 1.1), ("c", 4))}
    >>> separable_front(errors, truth, {"a": 1, "b": 2, "c": 3})
    {'a': '', 'b': '', 'c': 'b'}
    """
    found = taus(errors, truth)
    paid = {name: _cost(name, costs) for name in found.names}
    for name, seconds in paid.items():
        _check_full(name, seconds, float(costs.get(FULL, math.inf)))
    pairs, p = [], []
    for a, b in itertools.permutations(range(len(found.names)), 2):
        if paid[found.names[a]] > paid[found.names[b]]:
            continue
        contrast = np.zeros(len(found.names))
        contrast[[a, b]] = 1, -1
        gain = found.interval(contrast, level)
        two_sided = p_value(gain)
        pairs.append((a, b))
        p.append(two_sided / 2 if gain.value > 0 else 1 - two_sided / 2)  # one-sided: a beats b
    beaten: dict[str, str] = dict.fromkeys(found.names, "")
    for (a, b), adjusted in zip(pairs, holm(p), strict=True):
        best = beaten[found.names[b]]
        if adjusted < 1 - level and (not best or found.values[a] > found.values[found.names.index(best)]):
            beaten[found.names[b]] = found.names[a]
    return beaten


def cheapest(
    rows: pd.DataFrame, tau: float, *, cost: str = "device_s", every: bool = True, level: float = 0.95
) -> str | None:
    """The cheapest proxy whose tau is known to reach a value: the lower end of its interval does.

    Choosing among many proxies favours the lucky. With `every` the lower ends hold for all proxies at once (Holm,
    one-sided), so the choice is wrong with a nominal probability below (1 - level) / 2; without it each holds on its
    own. Measured in docs/analysis.md.

    Args:
        rows: Columns `proxy`, `tau`, `tau_low`, `tau_high`, `n` and the cost's, of `consistency.csv` on one data set.
        tau: What it has to reach, in (-1, 1).
        cost: The column that says what a network costs; with "device_s", `full_device_s` too if it is there.
        every: Whether the lower ends hold for all at once.
        level: Of the intervals in `rows`.

    Returns:
        Its name; None if no proxy is known to reach it.

    Raises:
        BadInput: A column or cost is missing, a proxy is there twice, or full training is cheaper than a proxy.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"proxy": ["e1", "e9"], "tau": [0.4, 0.7], "tau_low": [0.25, 0.6], "tau_high": [0.53, 0.78],
    ...                      "n": 60, "device_s": [1.0, 9.0], "full_device_s": 200.0})
    >>> cheapest(rows, 0.2, every=False), cheapest(rows, 0.5), cheapest(rows, 0.9)
    ('e1', 'e9', None)
    """
    from scipy.special import stdtr, stdtrit

    if not -1 < tau < 1:
        raise BadInput(f"cheapest: tau must lie in (-1, 1), not {tau}")
    if missing := [name for name in ("proxy", "tau", "tau_low", "tau_high", "n", cost) if name not in rows]:
        raise BadInput(f"cheapest: no column {', '.join(missing)}; consistency.csv has them")
    if rows["proxy"].duplicated().any():
        twice = rows.loc[rows["proxy"].duplicated(), "proxy"].iloc[0]
        raise BadInput(f"cheapest: proxy {twice} is there twice; give the rows of one space and data set")
    if rows[["tau", "tau_low", "tau_high"]].isna().any(axis=None):
        raise BadInput("cheapest: a tau or an end of its interval is not known; leave the proxy out")
    costs = {str(k): float(v) for k, v in zip(rows["proxy"], rows[cost], strict=True)}
    paid = [_cost(name, costs) for name in costs]
    if cost == "device_s" and "full_device_s" in rows:
        for name, seconds, full in zip(costs, paid, rows["full_device_s"], strict=True):
            _check_full(name, seconds, float(full))
    z, lowest = (np.arctanh(np.clip(rows[name].to_numpy(float), -1 + 1e-12, 1 - 1e-12)) for name in ("tau", "tau_low"))
    freedom = rows["n"].to_numpy(float) - 1
    error = (z - lowest) / stdtrit(freedom, (1 + level) / 2)
    above = z - math.atanh(tau)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, above / error, np.where(above > 0, np.inf, -np.inf))
    p = [float(value) for value in stdtr(freedom, -t)]
    for place, (value, end, n) in enumerate(rows[["tau", "tau_low", "n"]].itertuples(index=False)):
        if value >= 1 - 1e-9:  # no pair disagrees: the variance is 0, and tells nothing
            p[place] = perfect_by_luck(int(n), tau) if end >= tau else 1.0
    sure = [value <= (1 - level) / 2 for value in (holm(p) if every else p)]
    able = [(price, name) for price, name, reaches in zip(paid, costs, sure, strict=True) if reaches]
    return min(able)[1] if able else None


def _check_full(name: str, seconds: float, full: float) -> None:
    if seconds > full:
        raise BadInput(f"proxy {name!r} costs {seconds:g} s and full training {full:g} s: train in full, or check them")


def _cost(name: str, costs: Mapping[str, float]) -> float:
    value = float(costs.get(name, math.nan))
    if not 0 < value < math.inf:
        raise BadInput(f"proxy {name!r}: its cost is {value:g}, not seconds above 0")
    return value


# --- stages and survivors


@dataclass(frozen=True)
class Strategy:
    """Train many networks a little, go on with the better ones: `survivors[i]` networks reach stage `stages[i]`.

    The best at the last stage is the pick. One stage is a flat strategy.
    """

    stages: tuple[int, ...]
    """Columns of the recorded curves, ascending."""
    survivors: tuple[int, ...]
    """Networks at each, not ascending, at least 1."""

    def __str__(self) -> str:
        """As in "16 at stage 0, 8 at 1, 4 at 2"."""
        first, *rest = (f"{n} at {s}" for s, n in zip(self.stages, self.survivors, strict=True))
        return ", ".join([first.replace(" at ", " at stage "), *rest])

    def cost(self, seconds: npt.ArrayLike) -> float:
        """Cost of the whole strategy; a network pays only for what a stage adds.

        Args:
            seconds: Cumulative cost of a network up to each stage, shape (stages,) [s].

        >>> ECONAS.cost([1.0, 2.0, 3.0])
        28.0
        """
        reached = np.asarray(seconds, float)[list(self.stages)]
        return float(np.dot(self.survivors, np.diff(reached, prepend=0.0)))


ECONAS = Strategy((0, 1, 2), (16, 8, 4))
"""One generation of EcoNAS: 16 networks get E epochs, 8 of them go on to 2E, 4 to 3E (Zhou et al., CVPR 2020)."""


@dataclass(frozen=True)
class Advice:
    """The strategy recommended for a budget, and what it was worth on networks that the choice did not see."""

    strategy: Strategy
    """The strategy that is best on all networks."""
    flat: Strategy
    """The best flat strategy of the same budget, chosen likewise."""
    cost: float
    """Device seconds of `strategy`; full training of the pick is not included."""
    flat_cost: float
    regret: Interval
    """Expected regret [percentage points] on unseen networks of what the procedure recommends."""
    flat_regret: Interval
    saved: Interval
    """Paired difference of `flat_regret` and `regret`, in percentage points."""
    pool: int
    """Networks that regret is measured against the best of: half of those recorded."""
    chosen: Mapping[str, int]
    """Share of the splits that recommend each strategy: one that is rarely chosen again was chosen by luck."""

    def __str__(self) -> str:
        verdict = "better" if self.saved.low > 0 else "worse" if self.saved.high < 0 else "not told apart"
        return (f"{self.strategy}: {self.cost:.4g} s, regret {self.regret.value:.3f} "
                f"[{self.regret.low:.3f}, {self.regret.high:.3f}]; flat ({self.flat}) {self.flat_regret.value:.3f}: "
                f"{verdict}")  # fmt: skip


def simulate(
    strategy: Strategy, errors: npt.ArrayLike, truth: npt.ArrayLike, *, draws: int = 500, rng: np.random.Generator
) -> Floats:
    """Regret of a strategy that starts with networks drawn from the recorded ones, without replacement.

    Args:
        strategy: Stages are columns of `errors`.
        errors: Recorded curves, shape (n, stages) [%]; inf for a failed training.
        truth: Errors after full training, shape (n,) [%].
        draws: Simulated runs.
        rng: Source of the starting networks; their order also breaks ties.

    Returns:
        Shape (draws,) [percentage points], against the best of all n networks; inf if the pick failed in full.

    Raises:
        BadInput: As `suite.statistics.questions.taus.column` for truth and stages; the strategy does not fit the data.

    >>> truth = np.arange(10.0)
    >>> simulate(Strategy((0,), (10,)), truth[:, None], truth, draws=3, rng=np.random.default_rng(0))
    array([0., 0., 0.])
    """
    curves, y = _curves(errors, truth)
    _fits(strategy, len(y), curves.shape[1])
    starts = rng.permuted(np.tile(np.arange(len(y), dtype=np.intp), (draws, 1)), axis=1)
    return _simulate(strategy, curves, y, starts)


def candidates(
    seconds: npt.ArrayLike, budget: float, n: int, *, keep: Sequence[float] = (1 / 2, 1 / 3, 1 / 4, 1 / 8),
    most: int = 3,
) -> list[Strategy]:  # fmt: skip
    """Strategies of up to `most` stages that keep one share at every stage and start with all that the budget buys.

    Args:
        seconds: Cumulative cost of a network up to each stage, shape (stages,) [s], ascending.
        budget: For all networks together [s].
        n: Networks there are.
        keep: Shares that may go on, each in (0, 1).
        most: Stages at most, at least 1.

    Returns:
        Flat ones first; each costs at most the budget.

    Raises:
        BadInput: Costs do not rise, or the budget buys no network at the first stage.

    >>> for strategy in candidates([1.0, 4.0], budget=20, n=50, keep=(1 / 4,)):
    ...     print(strategy)
    20 at stage 0
    5 at stage 1
    11 at stage 0, 3 at 1
    """
    paid = np.asarray(seconds, float)
    if paid.ndim != 1 or not (np.diff(paid, prepend=0.0) > 0).all() or not np.isfinite(paid).all():
        raise BadInput(f"stages: cumulative seconds must rise from above 0, not {paid.tolist()}")
    found: dict[Strategy, None] = {}
    for count in range(1, min(most, len(paid)) + 1):
        for stages in itertools.combinations(range(len(paid)), count):
            for share in keep if count > 1 else (1.0,):
                strategy = _largest(stages, share, paid, budget, n)
                if strategy is not None:
                    found[strategy] = None
    if not found:
        raise BadInput(f"stages: a budget of {budget:g} s buys no network ({paid[0]:g} s at the first stage)")
    return list(found)


def recommend(
    errors: npt.ArrayLike, truth: npt.ArrayLike, seconds: npt.ArrayLike, budget: float, *,
    keep: Sequence[float] = (1 / 2, 1 / 3, 1 / 4, 1 / 8), most: int = 3, splits: int = 100, draws: int = 200,
    rng: np.random.Generator, level: float = 0.95,
) -> Advice:  # fmt: skip
    """The strategy with the least expected regret for a budget, judged on networks that the choice did not see.

    Again and again the networks are split into halves; the best of `candidates` and the best flat one are chosen on
    one half and judged on the other: a run starts with some of the half's networks, regret is against the best of them
    all. Choosing looks at bootstrap samples, else one lucky network decides: an early stage that happens to put the
    best of the half first would seem as good as full training. The strategy to use is chosen on all networks. The
    spread over the splits is the interval; what it covers is in docs/analysis.md.

    Args:
        errors: Recorded curves, shape (n, stages) [%]; inf for a failed training. Stages of one run, or proxies in
            sequence whose costs `seconds` adds up.
        truth: Errors after full training, shape (n,) [%].
        seconds: Cumulative cost of a network up to each stage, shape (stages,) [s]; (n, stages) is averaged.
        budget: For all networks of a search together [s], full training of the pick not included.
        keep, most: As in `candidates`.
        splits: Halvings, at least 2.
        draws: Simulated runs of each strategy on each half.
        rng: Source of all draws.
        level: Of the percentile intervals, in (0, 1).

    Raises:
        BadInput: Fewer than 8 networks; as `simulate` and `candidates`.

    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=200)
    >>> noise = np.array([1.5, 0.8, 0.3])
    >>> curves = truth[:, None] + noise * rng.normal(size=(200, 3))
    >>> advice = recommend(curves, truth, [1, 4, 16], budget=160, splits=20, draws=50, rng=rng)
    >>> len(advice.strategy.stages) > 1, advice.saved.value > 0
    (True, True)
    """
    curves, y = _curves(errors, truth)
    paid = np.asarray(seconds, float)
    paid = paid.mean(axis=0) if paid.ndim == 2 else paid
    n, pool = len(y), len(y) // 2
    if n < 8:
        raise BadInput(f"a strategy needs at least 8 networks to choose and to judge on, not {n}")
    if len(paid) != curves.shape[1]:
        raise BadInput(f"stages: {curves.shape[1]} in the curves, but {len(paid)} costs")
    if splits < 2:
        raise BadInput(f"a strategy needs at least 2 splits to be judged, not {splits}")
    options = candidates(paid, budget, pool, keep=keep, most=most)
    flats = sum(len(option.stages) == 1 for option in options)  # these come first

    def regrets(among: Sequence[Strategy], pools: npt.NDArray[np.intp]) -> list[float]:
        return [float(_simulate(one, curves, y, pools).mean()) for one in among]

    def best(rows: npt.NDArray[np.intp]) -> tuple[Strategy, Strategy]:
        """The best of all strategies and the best flat one; flat ones come first, ties go to the cheapest."""
        pools = rows[rng.integers(0, len(rows), (draws, pool))]  # the same for all: what they have in common cancels
        found = list(zip(regrets(options, pools), (option.cost(paid) for option in options), options, strict=True))
        first, flat_first = (min(among, key=lambda one: one[:2]) for among in (found, found[:flats]))
        return first[2], flat_first[2]

    outcome, chosen = np.empty((splits, 2)), dict.fromkeys(map(str, options), 0)
    for split in range(splits):
        order = rng.permutation(n)
        picks = best(order[:pool])
        chosen[str(picks[0])] += 1
        unseen = order[-pool:]
        outcome[split] = regrets(picks, rng.permuted(np.tile(unseen, (draws, 1)), axis=1))
    strategy, flat = best(np.arange(n))

    def interval(values: Floats) -> Interval:
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf").tolist()
        return Interval(float(values.mean()), low, high, level, splits, n)

    with np.errstate(invalid="ignore"):  # inf - inf: both picks failed in full
        saved = np.nan_to_num(outcome[:, 1] - outcome[:, 0], nan=0.0, posinf=math.inf, neginf=-math.inf)
    return Advice(
        strategy, flat, strategy.cost(paid), flat.cost(paid), interval(outcome[:, 0]),
        interval(outcome[:, 1]), interval(saved), pool, {name: count for name, count in chosen.items() if count},
    )  # fmt: skip


def _curves(errors: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Floats, Floats]:
    curves, y = np.asarray(errors, float), column("truth", truth)
    if curves.ndim != 2 or len(curves) != len(y):
        raise BadInput(f"stages: curves must have shape ({len(y)}, stages) as the truth, not {curves.shape}")
    for stage in range(curves.shape[1]):
        column(f"stage {stage}", curves[:, stage])
    if np.isinf(y).all():
        raise BadInput(f"truth: all {len(y)} full trainings failed")
    return curves, y


def _fits(strategy: Strategy, n: int, stages: int) -> None:
    if len(strategy.stages) != len(strategy.survivors) or not strategy.stages:
        raise BadInput(f"strategy: {len(strategy.stages)} stages, but {len(strategy.survivors)} numbers of survivors")
    if list(strategy.stages) != sorted(set(strategy.stages)) or not 0 <= strategy.stages[-1] < stages:
        raise BadInput(f"strategy: stages must rise within 0..{stages - 1}, not {list(strategy.stages)}")
    if list(strategy.survivors) != sorted(strategy.survivors, reverse=True) or strategy.survivors[-1] < 1:
        raise BadInput(f"strategy: survivors must not rise and be at least 1, not {list(strategy.survivors)}")
    if strategy.survivors[0] > n:
        raise BadInput(f"strategy: it starts with {strategy.survivors[0]} networks, but {n} are recorded")


def _simulate(strategy: Strategy, curves: Floats, truth: Floats, pools: npt.NDArray[np.intp]) -> Floats:
    """Regret in each pool (draws, networks in the order they come), against the best of the pool."""
    alive = pools[:, : strategy.survivors[0]]
    for stage, goes_on in zip(strategy.stages, (*strategy.survivors[1:], 1), strict=True):
        order = np.argsort(curves[alive, stage], axis=1, kind="stable")[:, :goes_on]
        alive = np.take_along_axis(alive, np.sort(order, axis=1), axis=1)  # sorted: ties stay in the order drawn
    best = truth[pools].min(axis=1)
    with np.errstate(invalid="ignore"):  # inf - inf: all of the pool failed, and the pick is as good as any
        return np.asarray(np.nan_to_num(truth[alive[:, 0]] - best, nan=0.0, posinf=math.inf))


def _largest(stages: tuple[int, ...], share: float, paid: Floats, budget: float, n: int) -> Strategy | None:
    """The most networks to start with, at most n; None if the budget buys none, or two stages keep the same."""
    low, high = 0, n + 1
    while high - low > 1:  # cost rises with the start
        middle = (low + high) // 2
        if Strategy(stages, _survivors(middle, share, len(stages))).cost(paid) <= budget:
            low = middle
        else:
            high = middle
    survivors = _survivors(low, share, len(stages)) if low else ()
    return Strategy(stages, survivors) if low and len(set(survivors)) == len(survivors) else None


def _survivors(start: int, share: float, stages: int) -> tuple[int, ...]:
    return tuple(max(math.ceil(round(start * share**i, 9)), 1) for i in range(stages))
