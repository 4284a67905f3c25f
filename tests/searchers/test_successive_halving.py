"""Successive halving: rungs, promotions and what they cost."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, quality, seconds_an_epoch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers.successive_halving import SuccessiveHalving, geometric
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.types import Proxy, Trial

SPACE = SPACES["nas_bench_201"]
FULL = Proxy(200, 16, 32)


def halving(seed: int = 0, proxy: Proxy = FULL, **options: object) -> SuccessiveHalving:
    return SuccessiveHalving(SPACE, proxy, np.random.default_rng(seed), **options)  # type: ignore[arg-type]


def rungs_of(searcher: SuccessiveHalving, evaluator: Analytic, count: int) -> list[list[Trial]]:
    rungs = []
    for _ in range(count):
        rungs.append(searcher.ask())
        searcher.tell(evaluator.evaluate(rungs[-1]))
    return rungs


def test_a_bracket_has_81_27_9_3_1_members_at_2_7_22_67_200_epochs():
    rungs = rungs_of(halving(), Analytic(SPACE), 6)
    assert [len(rung) for rung in rungs] == [81, 27, 9, 3, 1, 81]
    assert [{trial.epochs for trial in rung} for rung in rungs] == [{2}, {7}, {22}, {67}, {200}, {2}]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"eta": 2, "initial": 10, "rungs": (1, 2, 4, 8)}, [10, 5, 2, 1]),
        ({"eta": 3, "initial": 10, "rungs": (9, 25)}, [10, 3]),
        ({"eta": 4, "initial": 3, "rungs": (1, 4)}, [3, 1]),
        ({"eta": 3, "initial": 30, "min_epochs": 22}, [30, 10, 3]),
    ],
)
def test_members_of_a_rung_are_the_floor_of_one_in_eta_and_at_least_one(options, sizes):
    rungs = rungs_of(halving(**options), Analytic(SPACE), len(sizes) + 1)
    assert [len(rung) for rung in rungs] == [*sizes, sizes[0]]


def test_the_promoted_are_the_best_of_their_rung():
    *rungs, _ = rungs_of(halving(), Analytic(SPACE), 6)
    for below, above in pairwise(rungs):
        ranked = sorted((trial.arch for trial in below), key=quality)
        assert [trial.arch for trial in above] == ranked[: len(above)]


def test_a_stage_pays_its_new_epochs_only():
    searcher, evaluator = halving(), Analytic(SPACE)
    *_, last = run(searcher, evaluator, budget=Budget(evaluations=81 + 27 + 9 + 3 + 1))
    longest: dict[tuple[int, ...], int] = {}
    for answer in evaluator.answers:
        longest[answer.trial.arch] = answer.trial.epochs
    assert last.device_s == pytest.approx(sum(seconds_an_epoch(arch) * epochs for arch, epochs in longest.items()))
    assert {answer.trial.whole for answer in evaluator.answers} == {Trial(arch, FULL) for arch in longest}
    assert last.best is not None
    assert last.best.trial.epochs == 200


def test_brackets_follow_until_the_budget_ends_and_share_no_architecture():
    searcher, evaluator = halving(), Analytic(SPACE)
    *_, last = run(searcher, evaluator, budget=Budget(device_s=20_000))
    assert 0 <= 20_000 - last.device_s < 3 * 200
    firsts = [answer.trial.arch for answer in evaluator.answers if answer.trial.epochs == 2]
    assert len(firsts) == len(set(firsts)) > 5 * 81


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_order_of_answers_changes_nothing(data):
    usual = rungs_of(halving(proxy=PROXY), Analytic(SPACE), 4)
    searcher, evaluator = halving(proxy=PROXY), Analytic(SPACE)
    for rung in usual:
        assert searcher.ask() == rung
        answers = data.draw(st.permutations(evaluator.evaluate(rung)))
        for answer in answers[:-1]:
            searcher.tell([answer])
            assert searcher.ask() == []
        searcher.tell(answers[-1:])


def test_failures_are_not_promoted_and_a_bracket_of_them_ends():
    searcher = halving(rungs=(10, 200), initial=9)
    first = searcher.ask()
    good = {first[4].arch, first[7].arch}
    searcher.tell(Analytic(SPACE, error=lambda arch: 9.0 if arch in good else math.inf).evaluate(first))
    second = searcher.ask()
    assert [trial.arch for trial in second] == [first[4].arch, first[7].arch]  # two of three places
    searcher.tell(Analytic(SPACE, error=lambda arch: math.inf).evaluate(second))
    third = searcher.ask()
    assert len(third) == 9
    searcher.tell(Analytic(SPACE, error=lambda arch: math.inf).evaluate(third))
    fourth = searcher.ask()
    assert len(fourth) == 9
    assert {trial.epochs for trial in fourth} == {10}


@pytest.mark.parametrize(
    ("epochs", "eta", "min_epochs", "stages", "rungs"),
    [
        (200, 3, 1, None, (2, 7, 22, 67, 200)),
        (81, 3, 1, None, (1, 3, 9, 27, 81)),
        (12, 3, 1, None, (1, 4, 12)),
        (200, 3, 20, None, (22, 67, 200)),
        (200, 2, 25, None, (25, 50, 100, 200)),
        (200, 3, 1, (12, 200), (12, 200)),
        (200, 3, 1, tuple(range(1, 201)), (2, 7, 22, 67, 200)),
        (60, 3, 20, (20, 40, 60), (20, 60)),
        (90, 3, 1, (90,), (90,)),
        (12, 3, 1, (12,), (12,)),
        (1, 3, 1, None, (1,)),
    ],
)
def test_rungs_rise_by_eta_on_the_stages_there_are(epochs, eta, min_epochs, stages, rungs):
    assert geometric(epochs, eta, min_epochs, stages) == rungs


@settings(max_examples=200)
@given(st.integers(1, 600), st.integers(2, 6), st.data())
def test_rungs_end_at_the_longest_stage_and_are_stages(epochs, eta, data):
    stages = sorted({*data.draw(st.sets(st.integers(1, epochs))), epochs})
    rungs = geometric(epochs, eta, data.draw(st.integers(1, epochs)), stages)
    assert set(rungs) <= set(stages)
    assert rungs[-1] == epochs
    assert list(rungs) == sorted(set(rungs))


def test_with_one_stage_it_is_random_search_and_says_so():
    searcher = halving(stages=(200,))
    assert searcher.note == "one stage, 200 epochs: random search without repeats"
    rungs = rungs_of(searcher, Analytic(SPACE), 20)
    assert [len(rung) for rung in rungs] == [1] * 20
    assert len({rung[0].arch for rung in rungs}) == 20
    assert halving().note == ""
