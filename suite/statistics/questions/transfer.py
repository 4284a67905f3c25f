"""Does a proxy's reliability on one data set or space predict it on another?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from suite.statistics.bootstrap import Interval, bootstrap
from suite.statistics.questions.grid import FULL, Grid
from suite.statistics.questions.taus import Floats, taus
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

FACTORS = ("epochs", "channels", "resolution", "samples", "cells")


@dataclass(frozen=True)
class Transfer:
    """Agreement of the taus of matching proxies in two places."""

    here: str
    there: str
    proxies: tuple[str, ...]
    taus_here: Floats
    taus_there: Floats
    rank: Interval
    """Kendall's tau-b of the two lists of taus, over the choice of proxies."""
    linear: Interval
    """Pearson's correlation of their Fisher z, over the choice of proxies."""
    slope: float
    intercept: float
    """Least squares: z there = intercept + slope * z here."""
    off_by: float
    """Mean |tau there - tau here|: what one is wrong by who takes the one for the other."""
    reachable: float
    """Correlation of z that measurement noise alone leaves if both places had the same true taus; nan if not known."""

    def __str__(self) -> str:
        return (f"{self.here} -> {self.there}: rank agreement {self.rank.value:.2f} [{self.rank.low:.2f}, "
                f"{self.rank.high:.2f}], correlation {self.linear.value:.2f} [{self.linear.low:.2f}, "
                f"{self.linear.high:.2f}] of a reachable {self.reachable:.2f}, off by {self.off_by:.2f}, "
                f"{len(self.proxies)} proxies")  # fmt: skip


def transfer(
    rows: pd.DataFrame, here: str, there: str, *, place: str = "dataset", match: Sequence[str] = ("proxy",),
    draws: int = 2000, rng: np.random.Generator, level: float = 0.95,
) -> Transfer:  # fmt: skip
    """Agreement of the taus of matching proxies in two places.

    The intervals are over the choice of proxies: where those are few, or all of one kind, they are wide, as they
    should be. The noise of each tau lowers the correlation; `reachable` says how far it does on its own.

    Args:
        rows: Columns of `consistency.csv`: the place, `tau`, and what to match by; for `reachable` also `tau_low` and
            `tau_high`.
        here, there: Two values of the place.
        place: The column: "dataset" or "space".
        match: Columns that must agree for two proxies to be the same. By name, or for spaces of different sizes by
            columns of relative factors that you add.
        draws: Of proxies.
        rng: Source of the draws.
        level: Nominal coverage, in (0, 1).

    Raises:
        BadInput: A column or place is missing, a proxy is there twice, fewer than 3 proxies match, or all taus of a
            place are equal.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"dataset": list("aaaabbbb"), "proxy": list("wxyz") * 2,
    ...                      "tau": [0.2, 0.4, 0.5, 0.7, 0.25, 0.5, 0.45, 0.8]})
    >>> found = transfer(rows, "a", "b", rng=np.random.default_rng(0))
    >>> round(found.rank.value, 2), round(found.linear.value, 2), round(found.off_by, 3)
    (0.67, 0.95, 0.075)
    """
    needed = [place, "tau", *match]
    if missing := [name for name in needed if name not in rows]:
        raise BadInput(f"transfer: no column {', '.join(missing)}; consistency.csv has {', '.join(needed)}")
    sides = []
    for name in (here, there):
        side = rows[rows[place].astype(str) == name]
        if side.empty:
            raise BadInput(f"transfer: no {place} {name!r}; there are {', '.join(map(str, rows[place].unique()))}")
        if side.duplicated(list(match)).any():
            raise BadInput(f"transfer: two rows of {name} have the same {', '.join(match)}; match by more columns")
        sides.append(side)
    both = sides[0].merge(sides[1], on=list(match), suffixes=("_here", "_there"))
    if len(both) < 3:
        raise BadInput(f"transfer: {len(both)} proxies of {here} match one of {there}; at least 3 are needed")
    a, b = both["tau_here"].to_numpy(float), both["tau_there"].to_numpy(float)
    for name, values in ((here, a), (there, b)):
        if not (np.abs(values) < 1).all() or np.ptp(values) == 0:
            raise BadInput(f"transfer: taus of {name} must lie within (-1, 1) and differ, not {values.tolist()}")
    z = np.arctanh(np.stack([a, b]))
    slope, intercept = (float(value) for value in np.polyfit(z[0], z[1], 1))
    rank = bootstrap(a, b, measures=("tau",), draws=draws, rng=rng, level=level)["tau"]
    names = tuple("/".join(str(value) for value in row) for row in both[list(match)].itertuples(index=False))
    return Transfer(here, there, names, a, b, rank, _pearson(z, draws, rng, level), slope, intercept,
                    float(np.abs(a - b).mean()), _reachable(both, z))  # fmt: skip


def pairs(rows: pd.DataFrame, *, place: str = "dataset", rng: np.random.Generator, draws: int = 2000) -> list[Transfer]:
    """`transfer` for every two places of a study over several."""
    places = [str(value) for value in rows[place].unique()]
    if len(places) < 2:
        raise BadInput(f"transfer: there is one {place} only ({', '.join(places)}); it takes two")
    return [transfer(rows, a, b, place=place, draws=draws, rng=rng) for a, b in itertools.combinations(places, 2)]


def matrix(grids: Sequence[Grid]) -> pd.DataFrame:
    """Every ranking of every data set against every data set's truth: can one be chosen for another?

    Args:
        grids: One a data set, of the same networks (any order).

    Returns:
        Columns judged, source, proxy, tau, low, high: tau of a proxy (or "full", the truth) of the data set `source`
        with the truth of the data set `judged`. "full" on its own data set is left out: it is 1.

    Raises:
        BadInput: Fewer than two data sets, one twice, or networks differ.

    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> grids = [Grid("s", d, tuple("wxyz"), {"e1": y}, x, x[:, None], {}) for d, y in (("a", x), ("b", x[::-1]))]
    >>> matrix(grids)[["judged", "source", "proxy", "tau"]].to_string(index=False, header=False)
    'a a   e1  1.0\\na b   e1 -1.0\\na b full  1.0\\nb a   e1  1.0\\nb a full  1.0\\nb b   e1 -1.0'
    """
    import pandas as pd

    names = [grid.dataset for grid in grids]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise BadInput(f"a matrix needs at least 2 different data sets, not {', '.join(names)}")
    order = {arch: place for place, arch in enumerate(grids[0].architectures)}
    held: list[Mapping[str, Floats]] = []
    for grid in grids:
        if set(grid.architectures) != set(order) or len(grid.architectures) != len(order):
            raise BadInput(f"a matrix needs the same networks: {grid.dataset} has {len(grid.architectures)}, "
                           f"{names[0]} {len(order)}, not all shared")  # fmt: skip
        place = np.empty(len(order), np.intp)
        place[[order[arch] for arch in grid.architectures]] = np.arange(len(order))
        held.append({name: x[place] for name, x in {**grid.errors, FULL: grid.truth}.items()})
    found = []
    for judged, there in zip(names, held, strict=True):
        for source, here in zip(names, held, strict=True):
            able = {name: x for name, x in here.items() if not (name == FULL and source == judged)}
            if not able:
                continue
            result = taus(able, there[FULL])
            for i, name in enumerate(result.names):
                found.append((judged, source, name, *_ends(result.interval(np.eye(len(able))[i]))))
    return pd.DataFrame(found, columns=["judged", "source", "proxy", "tau", "low", "high"])


def _ends(interval: Interval) -> tuple[float, float, float]:
    """On Fisher's z, so that the ends stay within (-1, 1)."""
    value, margin = interval.value, interval.high - interval.value
    if abs(value) >= 1 - 1e-9:
        return value, value, value
    z, reach = np.arctanh(value), margin / (1 - value**2)
    return value, float(np.tanh(z - reach)), float(np.tanh(z + reach))


def _pearson(z: Floats, draws: int, rng: np.random.Generator, level: float) -> Interval:
    """Rank correlation of two rows, with percentiles over draws of columns; draws without variation are left out."""
    count = z.shape[1]
    rows = rng.integers(0, count, (draws, count))
    x, y = (row[rows] - row[rows].mean(1, keepdims=True) for row in z)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]).tolist() if len(drawn) else (np.nan, np.nan)
    centred = z - z.mean(axis=1, keepdims=True)
    value = float(centred[0] @ centred[1] / np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return Interval(value, low, high, level, draws, count)


def _reachable(both: pd.DataFrame, z: Floats) -> float:
    """sqrt of the product of both reliabilities: spread of the true z over spread of the measured."""
    ends = [f"tau_{end}_{side}" for side in ("here", "there") for end in ("low", "high")]
    if any(name not in both or both[name].isna().any() for name in ends):
        return float("nan")
    if not (both[ends].abs() < 1).all(axis=None):
        raise BadInput("transfer: the ends of an interval of tau must lie within (-1, 1)")
    noise: list[npt.NDArray[np.float64]] = [
        (np.arctanh(both[high].to_numpy(float)) - np.arctanh(both[low].to_numpy(float))) / (2 * 1.96)
        for low, high in (ends[:2], ends[2:])
    ]
    reliability = [max(1 - float((s**2).mean()) / float(row.var(ddof=1)), 0.0) for s, row in zip(noise, z, strict=True)]
    return float(np.sqrt(np.prod(reliability)))
