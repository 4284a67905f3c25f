"""Local search: it stands on local optima, asks nothing twice, and moves as it says."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, converse, quality

from searchers.local_search import LocalSearch
from suite.search import Budget, run
from suite.spaces import SPACES

SPACE = SPACES["nas_bench_201"]
both_moves = pytest.mark.parametrize("move", ["best", "first"])


def local(seed: int = 0, **options: object) -> LocalSearch:
    return LocalSearch(SPACE, PROXY, np.random.default_rng(seed), **options)  # type: ignore[arg-type]


@both_moves
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_it_calls_optima_have_no_better_neighbour(move, workers, seed):
    searcher = local(seed, move=move)
    for _ in run(searcher, Analytic(SPACE), budget=Budget(evaluations=1500), workers=workers):
        pass
    assert len(searcher.optima) > 2
    for arch in searcher.optima:
        assert all(quality(other) >= quality(arch) for other in SPACE.neighbours(arch))


@pytest.mark.parametrize(
    ("move", "initial", "workers"), [("best", 1, 1), ("first", 1, 4), ("best", 10, 4), ("first", 10, 1)]
)
def test_no_architecture_is_asked_twice_and_it_ends_when_all_are_known(move, initial, workers):
    space = SPACES["nas_bench_macro"]
    searcher = LocalSearch(space, PROXY, np.random.default_rng(0), move=move, initial=initial)
    evaluator = Analytic(space)
    for _ in run(searcher, evaluator, budget=Budget(evaluations=10_000), workers=workers):
        pass
    asked = [answer.trial.arch for answer in evaluator.answers]
    assert len(asked) == len(set(asked)) == space.size
    best = min(quality(arch) for arch in space)
    assert min(quality(arch) for arch in searcher.optima) == best


def test_best_follows_the_steepest_path():
    """A climb written down a second time: all neighbours, on to the best, until none is better."""
    searcher = local()
    (start,) = searcher.ask()
    evaluator = Analytic(SPACE)
    searcher.tell(evaluator.evaluate([start]))
    here, path = start.arch, [start.arch]
    while (best := min(SPACE.neighbours(here), key=quality)) and quality(best) < quality(here):
        here = best
        path.append(here)
    walked = []
    while not searcher.optima:
        trials = searcher.ask()
        if searcher.here and (not walked or walked[-1] != searcher.here):
            walked.append(searcher.here)
        searcher.tell(evaluator.evaluate(trials))
    assert walked == path
    assert searcher.optima == [here]


def test_best_trains_exactly_the_neighbours_not_known():
    searcher, evaluator = local(), Analytic(SPACE)
    converse(searcher, evaluator, 1)
    first = searcher.ask()
    assert {trial.arch for trial in first} == set(SPACE.neighbours(evaluator.answers[0].trial.arch))
    searcher.tell(evaluator.evaluate(first))
    known = {answer.trial.arch for answer in evaluator.answers}
    second = searcher.ask()
    assert {trial.arch for trial in second} == set(SPACE.neighbours(searcher.here)) - known


def test_best_asks_nothing_while_neighbours_are_due():
    searcher, evaluator = local(), Analytic(SPACE)
    converse(searcher, evaluator, 1)
    answers = evaluator.evaluate(searcher.ask())
    searcher.tell(answers[1:])
    assert searcher.ask() == []
    searcher.tell(answers[:1])
    assert searcher.ask() != []


def test_first_goes_on_at_the_first_better_neighbour():
    searcher, evaluator = local(move="first"), Analytic(SPACE)
    here = converse(searcher, evaluator, 1)[0].arch
    moves = 0
    while not searcher.optima:
        (trial,) = searcher.ask()
        if searcher.optima:
            break
        assert trial.arch in SPACE.neighbours(here)
        searcher.tell(evaluator.evaluate([trial]))
        if quality(trial.arch) < quality(here):
            here = trial.arch
            moves += 1
        assert searcher.here == here
    assert moves > 1


def test_first_finds_its_way_for_less():
    def asked_until_optimum(move: str, seed: int) -> int:
        searcher, evaluator = local(seed, move=move), Analytic(SPACE)
        while not searcher.optima:
            converse(searcher, evaluator, 1)
        return len(evaluator.answers)

    seeds = range(20)
    assert sum(asked_until_optimum("first", s) for s in seeds) < sum(asked_until_optimum("best", s) for s in seeds)


def test_a_climb_starts_at_the_best_of_its_random_draws():
    searcher, evaluator = local(initial=10), Analytic(SPACE)
    starts = [trial.arch for trial in converse(searcher, evaluator, 10)]
    searcher.ask()
    assert searcher.here == min(starts, key=quality)


@both_moves
def test_neighbours_are_asked_in_random_order(move):
    def place_of_the_first(seed: int) -> int:
        searcher = local(seed, move=move)
        (start,) = converse(searcher, Analytic(SPACE), 1)
        return SPACE.neighbours(start.arch).index(searcher.ask()[0].arch)

    assert len({place_of_the_first(seed) for seed in range(30)}) > 10


@both_moves
def test_failures_are_never_moved_to(move):
    failed = lambda arch: math.inf if SPACE.index(arch) % 3 else quality(arch)  # noqa: E731
    searcher, evaluator = local(move=move), Analytic(SPACE, error=failed)
    seen = deque[tuple[int, ...] | None]()
    for _ in run(searcher, evaluator, budget=Budget(evaluations=600), workers=3):
        seen.append(searcher.here)
    moves = {arch for arch in seen if arch is not None and math.isfinite(failed(arch))}
    assert len(moves) > 3
    for arch in searcher.optima:
        assert all(failed(other) >= failed(arch) for other in SPACE.neighbours(arch))
