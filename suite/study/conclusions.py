"""Do conclusions survive? The same searches on a real table and on surrogates fitted to some of its networks.

A surrogate benchmark is worth what its boards are worth: whether searchers rank as they do on the table, which
differences are significant, and how their curves run. Differences are Welch tests of the judge's errors over seeds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from suite.records.folder import Row
from suite.statistics.measures import kendall_tau
from surrogates.encoding import Floats

CONCLUSIONS = (
    "dataset", "predictor", "networks", "draw", "searchers", "tau", "tau_low", "tau_high", "pairs", "same", "lost",
    "found", "reversed", "anytime_tau", "curve_gap",
)  # fmt: skip
"""Columns of conclusions.csv."""
LEVEL = 0.05
DRAWS = 1_000
POINTS = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the budget at which curves are compared."""


@dataclass(frozen=True)
class Board:
    """What one comparison of searchers found."""

    errors: Mapping[str, Floats]
    """Searcher -> the judge's error of each seed's winner [%]."""
    curves: Mapping[str, tuple[Floats, Floats]]
    """Searcher -> (device seconds, mean judge error [%]) of its incumbents."""

    @classmethod
    def read(cls, folder: Path) -> Board:
        """The board of a folder of `kendall run`."""
        errors: dict[str, list[float]] = {}
        for row in rows_of(folder / "winners.csv"):
            errors.setdefault(row["searcher"], []).append(float(row["judge_error"]))
        curves: dict[str, list[tuple[float, float]]] = {}
        if (folder / "anytime.csv").exists():
            for row in rows_of(folder / "anytime.csv"):
                curves.setdefault(row["searcher"], []).append(
                    (float(row["device_s"]), float(row["judge_error_mean"] or "nan"))
                )
        return cls(
            {name: np.array(values) for name, values in errors.items()},
            {name: (np.array(points)[:, 0], np.array(points)[:, 1]) for name, points in curves.items()},
        )

    def at(self, share: float) -> Floats:
        """Mean judge errors at a share of the shortest search's seconds, in the order of `errors`."""
        end = share * min(float(seconds[-1]) for seconds, _ in self.curves.values())
        found = []
        for name in self.errors:
            seconds, errors = self.curves[name]
            place = int(np.searchsorted(seconds, end, side="right")) - 1
            found.append(float(errors[place]) if place >= 0 else float("nan"))
        return np.array(found)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def agreement(real: Board, other: Board, rng: np.random.Generator) -> dict[str, object]:
    """How far a surrogate's board says what the real one says.

    Returns:
        tau: rank agreement of the mean judge errors, with a 95 % bootstrap interval over the seeds of both; pairs of
        searchers; same, lost, found, reversed: pairs whose verdicts (better, worse, not told apart) are the same, are
        significant on the table only, on the surrogate only, or significant the other way round; anytime_tau: mean rank
        agreement along the searches; curve_gap: mean distance of the curves above their final best [percentage points].
    """
    names = list(real.errors)
    if set(other.errors) != set(names):
        raise ValueError(f"boards of other searchers: {sorted(other.errors)} and {sorted(names)}")

    def ranks(mean: Callable[[Floats], float]) -> float:
        return kendall_tau(
            np.array([mean(real.errors[n]) for n in names]), np.array([mean(other.errors[n]) for n in names])
        )

    drawn = [ranks(lambda e: float(e[rng.integers(len(e), size=len(e))].mean())) for _ in range(DRAWS)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    counts = dict.fromkeys(("same", "lost", "found", "reversed"), 0)
    for a, b in combinations(names, 2):
        counts[kind(verdict(real.errors[a], real.errors[b]), verdict(other.errors[a], other.errors[b]))] += 1
    told: dict[str, object] = {
        "searchers": len(names), "tau": ranks(lambda e: float(e.mean())), "tau_low": float(low),
        "tau_high": float(high), "pairs": len(names) * (len(names) - 1) // 2, **counts,
        "anytime_tau": float("nan"), "curve_gap": float("nan"),
    }  # fmt: skip
    if real.curves and other.curves:
        taus, gaps = [], []
        best = [min(float(np.nanmin(errors)) for _, errors in board.curves.values()) for board in (real, other)]
        reordered = Board({name: other.errors[name] for name in names}, other.curves)
        for share in POINTS:
            here, there = real.at(share), reordered.at(share)
            known = np.isfinite(here) & np.isfinite(there)
            if known.sum() > 1:
                taus.append(kendall_tau(here[known], there[known]))
                gaps.append(float(np.abs((here - best[0]) - (there - best[1]))[known].mean()))
        told |= {"anytime_tau": float(np.nanmean(taus)), "curve_gap": float(np.mean(gaps))}
    return told


def verdict(a: Floats, b: Floats) -> int:
    """-1: a is better, 1: b is, 0: they cannot be told apart by Welch's test at 5 %."""
    from scipy.stats import ttest_ind

    if a.std() == 0 and b.std() == 0:
        return int(np.sign(a.mean() - b.mean()))
    p = float(ttest_ind(a, b, equal_var=False).pvalue)
    return int(np.sign(a.mean() - b.mean())) if p < LEVEL else 0


def kind(real: int, other: int) -> str:
    """What became of a verdict.

    >>> kind(-1, -1), kind(-1, 0), kind(0, 1), kind(-1, 1)
    ('same', 'lost', 'found', 'reversed')
    """
    if real == other:
        return "same"
    return "lost" if other == 0 else "found" if real == 0 else "reversed"


def rows(real: Board, boards: Sequence[tuple[int, int, Board]], dataset: str, predictor: str, seed: int) -> list[Row]:
    """A row for each surrogate: (networks, draw, its board)."""
    rng = np.random.default_rng(seed)
    return [
        {"dataset": dataset, "predictor": predictor, "networks": networks, "draw": draw, **agreement(real, board, rng)}
        for networks, draw, board in boards
    ]
