"""Judged searches become the rows of a leaderboard. Intervals are 95 % Student intervals of the mean over seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from suite.comparison.searches import Outcome
from suite.pareto import corner, hypervolume
from suite.problem import Problem
from suite.records.folder import Row
from suite.records.ledger import Ledger, gpu_days
from suite.types import Goal

LEADERBOARD = (
    "searcher", "space", "dataset", "evaluator", "seeds", "judge", "judge_error_mean", "judge_error_low",
    "judge_error_high", "judge_error_std", "regret_mean", "val_error_mean", "params", "macs", "evaluations",
    "search_device_s", "gpu_days", "clock", "device", "options", "note", "command",
)  # fmt: skip
WINNERS = (
    "searcher", "space", "dataset", "evaluator", "seed", "architecture", "val_error", "judge_error", "regret", "params",
    "macs", "evaluations", "search_device_s",
)  # fmt: skip
ANYTIME = (
    "searcher", "space", "dataset", "device_s", "judge_error_mean", "judge_error_low", "judge_error_high", "seeds",
)  # fmt: skip
LEDGER = (
    "searcher", "space", "dataset", "phase", "clock", "device", "evaluations", "device_s", "gpu_days", "macs",
    "energy_j",
)  # fmt: skip
FRONTS = ("searcher", "space", "dataset", "seed", "architecture")
"""And a column for each objective."""
HYPERVOLUMES = (
    "searcher", "space", "dataset", "objectives", "reference", "seeds", "hypervolume_mean", "hypervolume_low",
    "hypervolume_high",
)  # fmt: skip
PREDICTIONS = (
    "searcher", "space", "dataset", "seed", "architecture", "predicted", "uncertainty", "threshold", "used", "trained",
)  # fmt: skip
CURVE_POINTS = 60
NUMBER = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?")


def student(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float, float]:
    """Mean, the ends of its Student interval, and the standard deviation (n - 1).

    One value has no interval (nan); an infinite value makes the mean infinite and the rest nan.

    >>> mean, low, high, std = student([6.0, 7.0, 8.0])
    >>> round(mean, 2), round(low, 2), round(high, 2), round(std, 2)
    (7.0, 4.52, 9.48, 1.0)
    """
    from scipy.special import stdtrit

    mean, n = float(np.mean(values)), len(values)
    if n < 2 or not math.isfinite(mean):
        return mean, math.nan, math.nan, math.nan
    std = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n)
    return mean, mean - half, mean + half, std


def leaderboard_row(outcomes: Sequence[Outcome], problem: Problem, command: str) -> Row:
    """One searcher's line; means are over the searches that have a winner, and the note says how many have none."""
    winners = [(outcome, outcome.best, outcome.last) for outcome in outcomes if outcome.best and outcome.last]
    mean, low, high, std = student([o.judge_error for o, _, _ in winners]) if winners else (math.inf, *[math.nan] * 3)
    spent = [outcome.last.device_s if outcome.last else 0.0 for outcome in outcomes]
    notes = ranges([outcome.note for outcome in outcomes if outcome.note])
    total = account(outcomes)
    lost = len(outcomes) - len(winners)
    note = [*notes, *([f"{lost} of {len(outcomes)} searches ended without a winner"] if lost else [])]

    def over_winners(metric: str) -> float:
        return float(np.mean([best.metrics.get(metric, math.nan) for _, best, _ in winners])) if winners else math.nan

    return {
        "searcher": outcomes[0].searcher,
        **place(problem),
        "evaluator": problem.name,
        "seeds": len(outcomes),
        "judge": problem.judge,
        "judge_error_mean": mean,
        "judge_error_low": low,
        "judge_error_high": high,
        "judge_error_std": std,
        "regret_mean": float(np.mean([o.regret for o, _, _ in winners])) if winners else math.nan,
        "val_error_mean": over_winners("val_error"),
        "params": over_winners("params"),
        "macs": over_winners("macs"),
        "evaluations": float(np.mean([outcome.last.evaluations if outcome.last else 0 for outcome in outcomes])),
        "search_device_s": float(np.mean(spent)),
        "gpu_days": gpu_days(float(np.mean(spent))),
        "clock": total.clock or ("simulated" if problem.simulated else "measured"),
        "device": total.device or problem.device,
        "options": ", ".join(f"{key}={value}" for key, value in flat(outcomes[0].part.options)),
        "note": "; ".join(note),
        "command": command,
    }


def flat(options: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Options with those of their tables, dotted.

    >>> list(flat({"order": 2, "alpha": {"lr": 0.001}}))
    [('order', 2), ('alpha.lr', 0.001)]
    """
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def ranges(notes: Sequence[str]) -> list[str]:
    """Notes that differ in numbers alone as one note with the numbers' range.

    >>> ranges(["final entropy 1.1 nats", "final entropy 0.4 nats", "one stage"])
    ['final entropy 0.4 to 1.1 nats', 'one stage']
    """
    alike: dict[str, list[list[str]]] = {}
    for note in notes:
        alike.setdefault(NUMBER.sub("{}", note), []).append(NUMBER.findall(note))
    return [words.format(*(spread(numbers) for numbers in zip(*found, strict=True))) for words, found in alike.items()]


def spread(numbers: Sequence[str]) -> str:
    """The ends of some numbers, as they were written.

    >>> spread(("10", "9.5", "12"))
    '9.5 to 12'
    """
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if low == high else f"{low} to {high}"


def winner_rows(outcomes: Sequence[Outcome], problem: Problem) -> Iterator[Row]:
    """The rows of winners.csv, one a search."""
    for outcome in outcomes:
        best, last = outcome.best, outcome.last
        metrics = best.metrics if best else {}
        yield {
            "searcher": outcome.searcher,
            **place(problem),
            "evaluator": problem.name,
            "seed": outcome.seed,
            "architecture": problem.space.text(best.trial.arch) if best else "",
            "val_error": metrics.get("val_error", math.nan),
            "judge_error": outcome.judge_error,
            "regret": outcome.regret,
            "params": metrics.get("params", math.nan),
            "macs": metrics.get("macs", math.nan),
            "evaluations": last.evaluations if last else 0,
            "search_device_s": last.device_s if last else 0.0,
        }


def front_rows(outcomes: Sequence[Outcome], problem: Problem, objectives: Sequence[str]) -> Iterator[Row]:
    """One line a network on the front of a search, best first objective first."""
    for outcome in outcomes:
        for answer in outcome.last.front if outcome.last else ():
            yield {
                "searcher": outcome.searcher,
                **place(problem),
                "seed": outcome.seed,
                "architecture": problem.space.text(answer.trial.arch),
                **{name: answer.metrics[name] for name in objectives},
            }


def hypervolume_rows(by_searcher: Mapping[str, Sequence[Outcome]], problem: Problem, goal: Goal) -> Iterator[Row]:
    """One line a searcher: what its fronts dominate, up to one reference point for all; 0 without a front.

    The reference point is that of `suite.pareto.corner`.
    """
    objectives = goal.minimise
    fronts = {
        searcher: [[[a.metrics[name] for name in objectives] for a in o.last.front] if o.last else [] for o in outcomes]
        for searcher, outcomes in by_searcher.items()
    }
    points = [point for of_one in fronts.values() for front in of_one for point in front]
    if not points:
        return
    reference = corner(goal, points)
    for searcher, of_one in fronts.items():
        volumes = [hypervolume(np.array(front), reference) if front else 0.0 for front in of_one]
        mean, low, high, _ = student(volumes)
        yield {
            "searcher": searcher,
            **place(problem),
            "objectives": ", ".join(objectives),
            "reference": ", ".join(f"{value:g}" for value in reference),
            "seeds": len(volumes),
            "hypervolume_mean": mean,
            "hypervolume_low": low,
            "hypervolume_high": high,
        }


def prediction_rows(outcomes: Sequence[Outcome], problem: Problem) -> Iterator[Row]:
    """One line a reward that a searcher predicted: used in place of a training, or checked by one."""
    for outcome in outcomes:
        for prediction in outcome.predictions:
            yield {
                "searcher": outcome.searcher,
                **place(problem),
                "seed": outcome.seed,
                "architecture": problem.space.text(prediction.arch),
                "predicted": prediction.reward,
                "uncertainty": prediction.uncertainty,
                "threshold": prediction.threshold,
                "used": int(prediction.used),
                "trained": prediction.trained,
            }


def ledger_rows(outcomes: Sequence[Outcome], problem: Problem) -> Iterator[Row]:
    """One line a phase and device, summed over a searcher's searches."""
    for row in account(outcomes).rows():
        yield {"searcher": outcomes[0].searcher, **place(problem), **row}


def account(outcomes: Sequence[Outcome]) -> Ledger:
    """The ledgers of several searches in one."""
    total = Ledger()
    for outcome in outcomes:
        total.merge(outcome.ledger)
    return total


def anytime_rows(by_searcher: Mapping[str, Sequence[Outcome]], problem: Problem) -> Iterator[Row]:
    """The judge's error of the incumbent against device seconds, on one grid for all searchers of a problem.

    A point is written where every search of the searcher has an incumbent.
    """
    times = [s for outcomes in by_searcher.values() for o in outcomes for s, _ in o.incumbents if s > 0]
    ends = [o.last.device_s for outcomes in by_searcher.values() for o in outcomes if o.last]
    if not times or not max(ends) > 0:
        return
    first, end = min(times), max(ends)
    grid = np.geomspace(first, end, CURVE_POINTS if first < end else 1)
    for searcher, outcomes in by_searcher.items():
        curves = np.array([step(outcome.incumbents, grid) for outcome in outcomes])  # (seeds, points)
        for device_s, errors in zip(grid, curves.T, strict=True):
            if np.isfinite(errors).all():
                mean, low, high, _ = student(errors.tolist())
                yield {
                    "searcher": searcher,
                    **place(problem),
                    "device_s": float(device_s),
                    "judge_error_mean": mean,
                    "judge_error_low": low,
                    "judge_error_high": high,
                    "seeds": len(errors),
                }


def step(incumbents: Sequence[tuple[float, float]], grid: np.ndarray) -> np.ndarray:
    """The error of the incumbent at each time of the grid; nan before the first."""
    times = np.array([device_s for device_s, _ in incumbents])
    errors = np.array([math.nan, *(error for _, error in incumbents)])
    found: np.ndarray = errors[np.searchsorted(times, grid * (1 + 1e-12), side="right")]
    return found


def place(problem: Problem) -> dict[str, object]:
    """The columns that say where."""
    return {"space": problem.space.name, "dataset": problem.dataset}
