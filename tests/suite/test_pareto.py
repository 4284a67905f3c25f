"""Fronts, crowding and hypervolume: against brute force, against moocore, and what must hold for any points."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.pareto import (
    AnytimeHypervolume,
    Incumbents,
    anytime_hypervolume,
    crowding_distance,
    dominates,
    hypervolume,
    nondominated,
    normalised_hypervolume,
    ranks,
    reference_point,
)
from suite.types import Cost, Evaluation, Goal, Proxy, Trial


def clouds(objectives: int, most: int = 12, side: int = 5) -> st.SearchStrategy[list[tuple[float, ...]]]:
    """Points on a coarse grid, so that ties and duplicates abound."""
    value = st.integers(0, side).map(float)
    return st.lists(st.tuples(*[value] * objectives), min_size=1, max_size=most)


any_cloud = st.integers(1, 4).flatmap(clouds)


def brute_hypervolume(points, reference):
    """Cells of the unit grid that some point dominates."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return sum(any(all(x <= c for x, c in zip(point, cell, strict=True)) for point in points) for cell in cells)


@given(any_cloud)
def test_the_front_is_what_no_other_point_dominates_without_repeats(points):
    expected = [
        not any(dominates(other, point) for other in points) and point not in points[:place]
        for place, point in enumerate(points)
    ]
    assert nondominated(points).tolist() == expected


@given(any_cloud)
def test_dominance_is_a_strict_partial_order(points):
    for a, b, c in itertools.islice(itertools.product(points, repeat=3), 300):
        assert not (dominates(a, b) and dominates(b, a))
        assert not (dominates(a, b) and dominates(b, c)) or dominates(a, c)
    assert not any(dominates(a, a) for a in points)


@given(any_cloud)
def test_ranks_peel_one_front_after_the_other(points):
    found, left, rank = ranks(points), list(range(len(points))), 0
    while left:
        front = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        assert {int(found[i]) for i in front} == {rank}
        left, rank = [i for i in left if i not in front], rank + 1


def test_points_that_are_not_finite_are_on_no_front_and_rank_last():
    points = [(1.0, math.inf), (2.0, 2.0), (math.nan, 0.0), (3.0, 3.0)]
    assert nondominated(points).tolist() == [False, True, False, False]
    assert ranks(points).tolist() == [2, 0, 2, 1]
    assert hypervolume(points, (4, 4)) == 4.0
    assert nondominated(np.empty((0, 2))).tolist() == []


@given(clouds(2))
def test_the_loops_own_front_is_the_same(points):
    names = ("val_error", "latency_ms")
    incumbents = Incumbents(Goal(names), "test")
    answers = [
        Evaluation(Trial((place,), Proxy(1, 1, 1)), dict(zip(names, point, strict=True)), Cost(1.0, "table:formula"))
        for place, point in enumerate(points)
    ]
    for answer in answers:
        incumbents.add(answer)
    front = incumbents.recommend(len(points), 0.0, 0.0).front
    assert {answer.trial.arch[0] for answer in front} == set(np.flatnonzero(nondominated(points)).tolist())


# Crowding


def test_crowding_of_the_textbook_front():
    found = crowding_distance([(0, 10), (2, 6), (5, 5), (10, 0)])
    assert found.tolist() == pytest.approx([math.inf, 5 / 10 + 5 / 10, 8 / 10 + 6 / 10, math.inf])


@given(any_cloud, st.randoms(use_true_random=False))
def test_crowding_goes_with_the_points_whatever_their_order(points, random):
    points = list(dict.fromkeys(points))
    by_point = dict(zip(points, crowding_distance(points).tolist(), strict=True))
    random.shuffle(points)
    assert dict(zip(points, crowding_distance(points).tolist(), strict=True)) == by_point


@given(any_cloud)
def test_duplicates_are_not_lonely_and_change_nothing_for_the_others(points):
    alone = list(dict.fromkeys(points))
    found = crowding_distance([*alone, alone[0]])
    assert found[-1] == 0.0
    assert found[:-1].tolist() == crowding_distance(alone).tolist()


@given(clouds(2), st.floats(0.1, 10), st.floats(-5, 5))
def test_crowding_does_not_depend_on_units(points, factor, shift):
    other = [(factor * x + shift, y) for x, y in points]
    assert crowding_distance(other) == pytest.approx(crowding_distance(points), rel=1e-6, abs=1e-6)


def test_one_point_and_equal_points_have_distances_too():
    assert crowding_distance([(1, 2)]).tolist() == [math.inf]
    assert crowding_distance([(1, 2), (1, 2)]).tolist() == [math.inf, 0.0]
    assert crowding_distance(np.empty((0, 2))).tolist() == []


# Hypervolume


@given(any_cloud)
def test_hypervolume_counts_the_cells_that_are_dominated(points):
    reference = (6.0,) * len(points[0])
    assert hypervolume(points, reference) == pytest.approx(brute_hypervolume(points, reference))


@given(clouds(3), st.integers(1, 5))
def test_points_beyond_the_reference_add_nothing(points, side):
    reference = (float(side),) * 3
    assert hypervolume(points, reference) == pytest.approx(brute_hypervolume(points, reference))


@given(any_cloud)
def test_hypervolume_is_that_of_the_front_and_grows_with_every_point(points):
    reference = (6.0,) * len(points[0])
    front = [point for point, on in zip(points, nondominated(points), strict=True) if on]
    assert hypervolume(front, reference) == pytest.approx(hypervolume(points, reference))
    assert hypervolume(points[1:], reference) <= hypervolume(points, reference) + 1e-9


@given(st.integers(2, 4).flatmap(clouds))
def test_anytime_hypervolume_ends_at_moocores_and_never_falls(points):
    reference = [5.0] * len(points[0])
    curve = anytime_hypervolume(points, reference)
    for number, value in enumerate(curve, start=1):
        assert value == pytest.approx(hypervolume(points[:number], reference))
    assert (np.diff(curve) >= -1e-12).all()


def test_anytime_hypervolume_of_a_long_search_agrees_with_moocore():
    points = np.random.default_rng(0).random((3000, 2))
    so_far = AnytimeHypervolume((1.0, 1.0))
    for point in points:
        so_far.add(point)
    assert so_far.value == pytest.approx(moocore.hypervolume(points, ref=[1.0, 1.0]), rel=1e-12)
    assert so_far.front == sorted(map(tuple, points[nondominated(points)].tolist()))


def test_the_normalised_version_is_a_share_of_the_box_whatever_the_units():
    points = np.array([(1.0, 2.0), (2.0, 1.0)])
    share = normalised_hypervolume(points, (0, 0), (4, 4))
    assert share == pytest.approx(0.5)
    assert normalised_hypervolume(points * (1000, 0.1), (0, 0), (4000, 0.4)) == pytest.approx(share)
    assert normalised_hypervolume([(-9, -9)], (0, 0), (4, 4)) == 1.0
    assert normalised_hypervolume(np.empty((0, 2)), (0, 0), (4, 4)) == 0.0


def test_the_reference_point_lies_a_tenth_beyond_the_worst_of_the_sample():
    assert reference_point([(0, 10), (5, 20), (math.inf, 1)]) == pytest.approx((5.5, 21.0))
    with pytest.raises(ValueError, match="no point is finite"):
        reference_point([(math.inf, 1)])


@pytest.mark.parametrize("reference", [(math.inf, 1), (math.nan, 1)])
def test_a_reference_that_is_not_finite_is_refused(reference):
    with pytest.raises(ValueError, match="must be finite"):
        hypervolume([(0, 0)], reference)


def test_points_of_another_number_of_objectives_are_refused():
    with pytest.raises(ValueError, match="shape"):
        hypervolume([(0, 0, 0)], (1, 1))
    with pytest.raises(ValueError, match="ideal must be below"):
        normalised_hypervolume([(0, 0)], (1, 0), (1, 1))


def test_importing_it_does_not_load_moocore():
    code = "import sys, suite.pareto; assert 'moocore' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
