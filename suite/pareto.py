"""Several objectives at once: dominance, fronts, incumbents, crowding, hypervolume, frozen scales. All are minimised.

A point dominates another if it is at least as good in every objective and better in one; equal points do not dominate
each other. Of equal points a front keeps the first. A point with an infinite or unknown coordinate (a failed training,
a device that cannot run the network) is in no front and adds no volume.

Sorting and hypervolume are moocore's: López-Ibáñez et al., https://multi-objective.github.io/moocore/python/
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.types import Evaluation, Goal, Recommendation, Unsupported

Array: TypeAlias = npt.NDArray[np.float64]
Points: TypeAlias = Sequence[Sequence[float]] | Array

REFERENCE: Mapping[str, float] = {"val_error": 100.0, "test_error": 100.0}
"""Stored coordinates of the reference point, in the metric's unit; the others come from the fronts themselves."""


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is at least as good as `b` everywhere and better somewhere.

    >>> dominates((1, 2), (1, 3)), dominates((1, 2), (1, 2)), dominates((0, 3), (1, 2))
    (True, False, False)
    """
    pairs = list(zip(a, b, strict=True))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def nondominated(points: Points) -> npt.NDArray[np.bool_]:
    """Find the points on the front: finite, dominated by none, and the first of their equals.

    Args:
        points: Shape (n, objectives).

    Returns:
        Shape (n,).

    >>> nondominated([(1, 2), (2, 1), (2, 2), (1, 2)]).tolist()
    [True, True, False, False]
    """
    import moocore

    held = as_points(points)
    front = np.zeros(len(held), dtype=bool)
    finite = np.flatnonzero(np.isfinite(held).all(axis=1))
    if len(finite):
        front[finite] = moocore.is_nondominated(held[finite])
    return front


def ranks(points: Points) -> npt.NDArray[np.int64]:
    """Front of each point: 0 is dominated by none, 1 by those of 0 alone ...; equals share one.

    Points with an infinite or unknown coordinate come behind all others, together.

    >>> ranks([(1, 2), (2, 1), (2, 2), (1, 2), (3, float("inf"))]).tolist()
    [0, 0, 1, 0, 2]
    """
    import moocore

    held = as_points(points)
    finite = np.isfinite(held).all(axis=1)
    found = np.zeros(len(held), dtype=np.int64)
    if finite.any():
        found[finite] = moocore.pareto_rank(held[finite])
    found[~finite] = found[finite].max(initial=-1) + 1
    return found


def crowding_distance(points: Points) -> Array:
    """Crowding distance: how far a point's neighbours on its front are apart; the larger, the lonelier.

    Deb, Pratap, Agarwal, Meyarivan. "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II". IEEE Transactions
    on Evolutionary Computation 6(2), 2002, section III-B. Each objective is divided by its range; an objective in
    which all agree adds nothing. The first and the last in any other objective are infinitely far.

    Ties and duplicates, which the paper leaves open: of equal points the first has the distance that it would have
    alone, the others 0; where distinct points agree in one objective, the next objectives order them. So the distances
    go with the points, in whatever order these come.

    Args:
        points: Shape (n, objectives), of one front.

    Returns:
        Shape (n,), in [0, inf].

    >>> crowding_distance([(0, 4), (1, 2), (4, 0), (1, 2)]).tolist()
    [inf, 2.0, inf, 0.0]
    """
    held = as_points(points)
    distances = np.zeros(len(held))
    if not len(held):
        return distances
    different, first = np.unique(held, axis=0, return_index=True)  # in lexicographic order
    apart = np.zeros(len(different))
    for objective in range(held.shape[1]):
        column = different[:, objective]
        extent = column.max() - column.min()
        if not extent > 0:
            continue
        order = np.argsort(column, kind="stable")
        apart[order[[0, -1]]] = math.inf
        apart[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / extent
    if len(different) == 1:
        apart[:] = math.inf
    distances[first] = apart
    return distances


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Volume that the points dominate, up to the reference point.

    Args:
        points: Shape (n, objectives), in any order; dominated ones add nothing, nor do those that are not better than
            the reference in every objective.
        reference: Shape (objectives,); state it wherever the number stands.

    >>> hypervolume([(1, 2), (2, 1)], reference=(3, 3))
    3.0
    """
    import moocore

    corner = np.asarray(reference, dtype=np.float64)
    if not np.isfinite(corner).all():
        raise ValueError(f"the reference point must be finite, not {reference}")
    held = as_points(points, len(corner))
    held = held[(np.isfinite(held) & (held < corner)).all(axis=1)]
    return float(moocore.hypervolume(held, ref=corner)) if len(held) else 0.0


def normalised_hypervolume(points: Points, ideal: Sequence[float], reference: Sequence[float]) -> float:
    """Hypervolume as a share of the box between the ideal and the reference point, in [0, 1].

    Points beyond the ideal count as if they were level with it.

    >>> normalised_hypervolume([(1, 2), (2, 1)], ideal=(0, 0), reference=(4, 4))
    0.5
    """
    low, high = np.asarray(ideal, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if not (low < high).all():
        raise ValueError(f"the ideal must be below the reference in every objective: {ideal}, {reference}")
    scaled = (np.maximum(as_points(points, len(low)), low) - low) / (high - low)
    return min(1.0, hypervolume(scaled, np.ones(len(low)).tolist()))


def reference_point(points: Points, margin: float = 0.1) -> tuple[float, ...]:
    """The worst value of each objective, and `margin` of its range beyond: of a sample taken before the search.

    >>> reference_point([(0, 4), (1, 2), (4, 0)])
    (4.4, 4.4)
    """
    held = as_points(points)
    held = held[np.isfinite(held).all(axis=1)]
    if not len(held):
        raise ValueError("no point is finite, so there is no reference point")
    worst = held.max(axis=0)
    return tuple((worst + margin * (worst - held.min(axis=0))).tolist())


def corner(goal: Goal, points: Points) -> tuple[float, ...]:
    """Reference point of a goal's hypervolumes: as given, else as stored, else `reference_point` of the fronts.

    Args:
        goal: Metrics and perhaps their reference point.
        points: Members of all fronts that are compared, shape (n, metrics).

    >>> corner(Goal(("val_error", "macs")), [(5.0, 40.0), (6.0, 20.0)])
    (100.0, 42.0)
    """
    if goal.reference is not None:
        return goal.reference
    found = reference_point(points)
    return tuple(REFERENCE.get(name, value) for name, value in zip(goal.minimise, found, strict=True))


class Incumbents:
    """The best feasible answers so far and their front: the one rule by which winners are picked, in both loops.

    Args:
        goal: Metrics that are minimised, and limits.
        evaluator: Name of who answers, for refusals.
        among: "longest": only the answers trained longest (`Trial.epochs`) compete; "all": all of them, as epochs of
            one search do that keeps its best.
    """

    def __init__(self, goal: Goal, evaluator: str, *, among: Literal["longest", "all"] = "longest") -> None:
        self.goal, self.evaluator, self.among = goal, evaluator, among
        self.epochs = 0
        self.best: tuple[tuple[float, ...], Evaluation] | None = None
        self.front: list[tuple[tuple[float, ...], Evaluation]] = []

    def add(self, answer: Evaluation) -> None:
        """Take an answer in; failed and infeasible ones are never recommended, and of equals the earliest stays.

        Raises:
            Unsupported: It lacks a metric of the goal.
        """
        values = tuple(self.metric(answer, "objective", name) for name in self.goal.minimise)
        feasible = all(self.metric(answer, "metric", name) <= limit for name, limit in self.goal.limits.items())
        if not feasible or not all(map(math.isfinite, values)):
            return
        if self.among == "longest":
            if answer.trial.epochs < self.epochs:
                return
            if answer.trial.epochs > self.epochs:
                self.epochs, self.best, self.front = answer.trial.epochs, None, []
        if self.best is None or values < self.best[0]:
            self.best = values, answer
        if any(all(a <= b for a, b in zip(held, values, strict=True)) for held, _ in self.front):
            return
        kept = [
            (held, evaluation)
            for held, evaluation in self.front
            if not all(a <= b for a, b in zip(values, held, strict=True))
        ]
        self.front = sorted([*kept, (values, answer)], key=lambda entry: entry[0])

    def metric(self, answer: Evaluation, what: str, name: str) -> float:
        """One metric of an answer.

        Raises:
            Unsupported: It has none of this name.
        """
        if name not in answer.metrics:
            if answer.failure:
                return math.inf
            raise Unsupported(
                f"{self.evaluator} gives no {what} {name!r}; it gives {', '.join(sorted(answer.metrics))}"
            )
        return answer.metrics[name]

    def recommend(self, evaluations: int, device_s: float, clock_s: float) -> Recommendation:
        """The recommendation at this moment, with the counts that are handed in."""
        front = tuple(evaluation for _, evaluation in self.front)
        return Recommendation(self.best[1] if self.best else None, front, evaluations, device_s, clock_s)


@dataclass(frozen=True)
class Normaliser:
    """A value as a fraction of a range, cut at its ends; frozen, so that a reward means the same all search long.

    >>> Normaliser(2.0, 6.0)(5.0)
    0.75
    """

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """In [0, 1]; 1 for an infinite value. A range of one point has 0 up to it and 1 beyond."""
        if self.high > self.low and math.isfinite(value):
            return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return float(value > self.high)


class AnytimeHypervolume:
    """Hypervolume of all points so far, as they come.

    With two objectives a point costs a search in the sorted front; with more, one hypervolume of the front, if the
    point is on it.

    >>> so_far = AnytimeHypervolume((3, 3))
    >>> [so_far.add(point) for point in [(1, 2), (2, 2), (2, 1)]]
    [2.0, 2.0, 3.0]
    """

    def __init__(self, reference: Sequence[float]) -> None:
        self.reference = tuple(map(float, reference))
        self.front: list[tuple[float, ...]] = []
        """Points that add volume, in ascending order."""
        self.value = 0.0

    def add(self, point: Sequence[float]) -> float:
        """Take a point in; the volume now."""
        new = tuple(map(float, point))
        inside = all(math.isfinite(x) and x < r for x, r in zip(new, self.reference, strict=True))
        if not inside:
            return self.value
        if len(new) == 2:
            self.add_to_staircase(new[0], new[1])
        elif not any(all(x <= y for x, y in zip(held, new, strict=True)) for held in self.front):
            self.front = sorted([*(held for held in self.front if not dominates(new, held)), new])
            self.value = max(self.value, hypervolume(self.front, self.reference))
        return self.value

    def add_to_staircase(self, x: float, y: float) -> None:
        """Two objectives: the front is a staircase, x ascending and y descending."""
        start = bisect.bisect_left(self.front, (x, -math.inf))
        if start < len(self.front) and self.front[start][0] == x and self.front[start][1] <= y:
            return
        above = self.front[start - 1][1] if start else self.reference[1]  # the step on which the point stands
        if above <= y:
            return
        end, left, gained = start, x, 0.0
        while end < len(self.front) and self.front[end][1] >= y:
            gained += (self.front[end][0] - left) * (above - y)
            left, above = self.front[end]
            end += 1
        right = self.front[end][0] if end < len(self.front) else self.reference[0]
        self.value += gained + (right - left) * (above - y)
        self.front[start:end] = [(x, y)]


def anytime_hypervolume(points: Iterable[Sequence[float]], reference: Sequence[float]) -> Array:
    """Hypervolume after each of the points, shape (n,)."""
    so_far = AnytimeHypervolume(reference)
    return np.array([so_far.add(point) for point in points])


def as_points(points: Points, objectives: int | None = None) -> Array:
    """The points as an array of shape (n, objectives)."""
    held = np.asarray(points, dtype=np.float64)
    if not held.size:
        return held.reshape(0, objectives or 1)
    if held.ndim != 2 or (objectives is not None and held.shape[1] != objectives):
        wanted = "objectives" if objectives is None else objectives
        raise ValueError(f"points must have the shape (n, {wanted}), not {held.shape}")
    return held
