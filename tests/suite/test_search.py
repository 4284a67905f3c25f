"""The loop: budgets, the clock, and what is recommended."""

from __future__ import annotations

import math
import re
import warnings
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, quality
from hypothesis import given
from hypothesis import strategies as st

from searchers.random_search import RandomSearch
from suite.pareto import Incumbents
from suite.search import FREE_ANSWERS, Budget, run
from suite.spaces import SPACES
from suite.types import BadInput, Cost, Evaluation, Evaluator, Goal, Recommendation, Searcher, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]


class Listed:
    """Asks the first so many architectures, each with its epochs, in batches of a given size."""

    def __init__(self, count: int, *, batch: int = 1, epochs: Sequence[int] | None = None) -> None:
        stages = epochs if epochs is not None else [PROXY.epochs] * count
        self.left = deque(Trial(SPACE.at(i), PROXY, stages[i]) for i in range(count))
        self.batch = batch
        self.told: list[Evaluation] = []

    def ask(self) -> list[Trial]:
        return [self.left.popleft() for _ in range(min(self.batch, len(self.left)))]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self.told += evaluations

    def order(self) -> list[int]:
        return [SPACE.index(answer.trial.arch) for answer in self.told]


class Answers:
    """The i-th architecture's answer is given."""

    name = "answers"

    def __init__(self, seconds: Sequence[float], metrics: Sequence[dict[str, float]] | None = None) -> None:
        self.seconds, self.metrics = seconds, metrics
        self.evaluated: list[int] = []

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        return [self.answer(trial) for trial in trials]

    def answer(self, trial: Trial) -> Evaluation:
        i = SPACE.index(trial.arch)
        self.evaluated.append(i)
        metrics = self.metrics[i] if self.metrics else {"val_error": float(i)}
        return Evaluation(trial, metrics, Cost(self.seconds[i], "table:test"))


def search(
    searcher: Searcher, evaluator: Evaluator, *, minimise: Sequence[str] = ("val_error",), workers: int = 1,
    limits: dict[str, float] | None = None, **budget: float,
) -> list[Recommendation]:  # fmt: skip
    limit = Budget(**(budget or {"evaluations": 10**6}))  # type: ignore[arg-type]
    goal = Goal(tuple(minimise), limits or {})
    return list(run(searcher, evaluator, budget=limit, goal=goal, workers=workers))


# Budgets


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({}, "give device_s, evaluations or both"),
        ({"device_s": 0}, "device_s must be above 0, not 0"),
        ({"device_s": math.nan}, "device_s must be above 0, not nan"),
        ({"evaluations": 0}, "evaluations must be at least 1, not 0"),
        ({"device_s": math.inf}, "give device_s, evaluations or both"),
    ],
)
def test_a_budget_out_of_range_is_refused(budget, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        Budget(**budget)


def test_no_workers_are_refused():
    with pytest.raises(BadInput, match="workers must be at least 1, not 0"):
        search(Listed(1), Answers([1.0]), workers=0, evaluations=1)


@pytest.mark.parametrize("workers", [1, 3, 20])
@pytest.mark.parametrize("batch", [1, 7])
def test_a_budget_of_evaluations_is_spent_exactly(workers, batch):
    evaluator = Answers([1.0] * 50)
    steps = search(Listed(50, batch=batch), evaluator, workers=workers, evaluations=11)
    assert [step.evaluations for step in steps] == list(range(1, 12))
    assert sorted(evaluator.evaluated) == list(range(11))
    assert steps[-1].over_budget_s == 0


def test_the_answer_that_crosses_the_seconds_is_dropped_reported_and_the_last():
    searcher, evaluator = Listed(9), Answers([4.0, 3.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    steps = search(searcher, evaluator, device_s=10)
    assert searcher.order() == [0, 1]
    assert evaluator.evaluated == [0, 1, 2]
    spent = [(step.evaluations, step.device_s, step.over_budget_s) for step in steps]
    assert spent == [(1, 4, 0), (2, 7, 0), (2, 7, 5)]
    assert steps[-1].best == steps[-2].best


def test_an_answer_that_just_fits_counts():
    steps = search(Listed(9), Answers([5.0] * 9), device_s=10)
    assert [(step.evaluations, step.device_s, step.over_budget_s) for step in steps][-2:] == [(2, 10, 0), (2, 10, 5)]


def test_nothing_else_of_a_batch_counts_once_one_has_crossed():
    one_by_one, at_once = Listed(4), Listed(4, batch=4)
    for searcher in (one_by_one, at_once):
        search(searcher, Answers([4.0, 9.0, 1.0, 1.0]), device_s=10, workers=4)
    assert one_by_one.order() == at_once.order() == [0]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 100), st.integers(1, 40), st.integers(1, 5),
    st.integers(1, 4),
)  # fmt: skip
def test_what_is_charged_is_the_longest_beginning_that_fits(seconds, device_s, evaluations, workers, batch):
    searcher = Listed(len(seconds), batch=batch)
    steps = search(searcher, Answers(seconds), device_s=device_s, evaluations=evaluations, workers=workers)
    fits = 0
    while fits < min(len(seconds), evaluations) and sum(seconds[: fits + 1]) <= device_s:
        fits += 1
    assert sorted(searcher.order()) == list(range(fits))
    if steps:
        assert steps[-1].device_s == sum(seconds[:fits])
        assert (steps[-1].over_budget_s > 0) == (fits < min(len(seconds), evaluations))


def test_an_unknown_cost_is_refused_under_a_budget_in_seconds_and_taken_otherwise():
    with pytest.raises(Unsupported, match=r"answers knows no cost of .*: give a budget in evaluations"):
        search(Listed(3), Answers([math.nan] * 3), device_s=10)
    steps = search(Listed(3), Answers([math.nan] * 3), evaluations=10)
    assert len(steps) == 3


def test_answers_that_cost_nothing_for_ever_end_a_search_in_seconds_with_a_warning():
    evaluator = Analytic(SPACE, seconds=lambda arch: 0.0)
    searcher = RandomSearch(SPACE, PROXY, np.random.default_rng(0))
    with pytest.warns(UserWarning, match=f"search ended: {FREE_ANSWERS} answers in a row cost nothing"):
        steps = search(searcher, evaluator, device_s=10)
    assert len(steps) == FREE_ANSWERS


def test_answers_that_cost_nothing_are_no_matter_under_a_budget_of_evaluations():
    searcher = RandomSearch(SPACE, PROXY, np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps = search(searcher, Analytic(SPACE, seconds=lambda arch: 0.0), evaluations=FREE_ANSWERS + 100)
    assert len(steps) == FREE_ANSWERS + 100


# The clock


def events(seconds: Sequence[float], workers: int) -> list[tuple[float, int]]:
    """(finish, question) in the order of completion, each worker taking the next question as soon as it is free."""
    free = [0.0] * workers
    finished = []
    for question, duration in enumerate(seconds):
        worker = free.index(min(free))
        free[worker] += duration
        finished.append((free[worker], question))
    return sorted(finished)


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 8))
def test_the_clock_and_the_order_are_those_of_workers_side_by_side(seconds, workers, batch):
    searcher = Listed(len(seconds), batch=batch)
    steps = search(searcher, Answers(seconds), workers=workers)
    assert list(zip([step.clock_s for step in steps], searcher.order(), strict=True)) == events(seconds, workers)


def test_one_worker_is_told_in_the_order_of_asking():
    searcher = Listed(5, batch=5)
    steps = search(searcher, Answers([5.0, 4.0, 3.0, 2.0, 1.0]))
    assert searcher.order() == [0, 1, 2, 3, 4]
    assert [step.clock_s for step in steps] == [step.device_s for step in steps] == [5, 9, 12, 14, 15]


def test_workers_shorten_the_clock_and_not_the_device_seconds():
    seconds = [10.0] * 12
    (*_, alone), (*_, four) = (search(Listed(12), Answers(seconds), workers=workers) for workers in (1, 4))
    assert (alone.clock_s, alone.device_s) == (120, 120)
    assert (four.clock_s, four.device_s) == (30, 120)


def test_a_searcher_that_waits_is_asked_again_when_an_answer_came():
    class OneAtATime(Listed):
        waiting = False

        def ask(self) -> list[Trial]:
            if self.waiting:
                return []
            self.waiting = True
            return super().ask()

        def tell(self, evaluations: Sequence[Evaluation]) -> None:
            self.waiting = False
            super().tell(evaluations)

    steps = search(OneAtATime(4), Answers([2.0] * 4), workers=3)
    assert [step.clock_s for step in steps] == [2, 4, 6, 8]


def test_a_searcher_without_questions_ends_the_search():
    assert search(Listed(0), Answers([]), evaluations=5) == []
    assert len(search(Listed(3), Answers([1.0] * 3), evaluations=5)) == 3


# Recommendations


def incumbent(answers: Sequence[Evaluation]) -> Evaluation | None:
    """By definition: best among the longest trained of those that did not fail, the earliest of equals."""
    finite = [answer for answer in answers if math.isfinite(answer.metrics["val_error"])]
    longest = [answer for answer in finite if answer.trial.epochs == max(a.trial.epochs for a in finite)]
    return min(longest, key=lambda answer: answer.metrics["val_error"]) if longest else None


errors = st.one_of(st.integers(0, 5).map(float), st.just(math.inf))


@given(st.lists(st.tuples(errors, st.integers(1, 3)), min_size=1, max_size=25), st.integers(1, 3))
def test_the_incumbent_is_the_best_of_the_longest_trained_and_the_earliest_of_equals(drawn, workers):
    searcher = Listed(len(drawn), epochs=[epochs for _, epochs in drawn])
    evaluator = Answers([1.0] * len(drawn), [{"val_error": error} for error, _ in drawn])
    steps = search(searcher, evaluator, workers=workers)
    for i, step in enumerate(steps, start=1):
        assert step.best is incumbent(searcher.told[:i])
        assert step.evaluations == i


def non_dominated(points: Sequence[tuple[float, ...]]) -> set[tuple[float, ...]]:
    return {
        p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)
    }  # fmt: skip


@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 5)] * n), min_size=1, max_size=25)))
def test_the_front_is_what_no_other_dominates(points):
    names = ("val_error", "params", "latency_ms")[: len(points[0])]
    metrics = [dict(zip(names, map(float, point), strict=True)) for point in points]
    steps = search(Listed(len(points)), Answers([1.0] * len(points), metrics), minimise=names)
    for i, step in enumerate(steps, start=1):
        front = [tuple(answer.metrics[name] for name in names) for answer in step.front]
        assert set(front) == non_dominated([tuple(map(float, point)) for point in points[:i]])
        assert len(front) == len(set(front))
        assert front[0][0] == min(point[0] for point in points[:i])
        assert step.best is step.front[0]
        for answer in step.front:  # of equals the earliest
            assert points.index(tuple(int(answer.metrics[name]) for name in names)) == SPACE.index(answer.trial.arch)


def test_what_failed_is_never_recommended_nor_in_the_front():
    metrics = [
        {"val_error": math.inf, "params": math.inf},
        {"val_error": 5.0, "params": 2.0},
        {"val_error": 4.0, "params": math.inf},
        {"val_error": math.inf, "params": 1.0},
    ]
    steps = search(Listed(4), Answers([1.0] * 4, metrics), minimise=("val_error", "params"))
    assert steps[0].best is None
    assert steps[0].front == ()
    assert [SPACE.index(answer.trial.arch) for answer in steps[-1].front] == [1]


def test_a_failure_at_a_later_stage_leaves_the_incumbent():
    steps = search(
        Listed(2, epochs=[3, 12]), Answers([1.0, 1.0], [{"val_error": 5.0}, {"val_error": math.inf}]), evaluations=9
    )
    assert steps[1].best is steps[0].best is not None


def test_an_objective_that_the_evaluator_does_not_give_is_refused_with_those_it_gives():
    with pytest.raises(Unsupported, match="analytic gives no objective 'latency_ms'; it gives macs, params, val_error"):
        search(Listed(1), Analytic(SPACE), minimise=("val_error", "latency_ms"), evaluations=1)


METRICS = [
    {"val_error": 4.0, "latency_ms": 9.0},
    {"val_error": 7.0, "latency_ms": 2.0},
    {"val_error": 6.0, "latency_ms": 5.0},
    {"val_error": 5.0, "latency_ms": math.nan},  # it cannot run there
    {"val_error": 3.0, "latency_ms": 5.1},
]


def test_what_breaks_a_constraint_is_told_and_charged_but_never_recommended():
    searcher = Listed(5)
    steps = search(searcher, Answers([1.0] * 5, METRICS), limits={"latency_ms": 5.0})
    assert [step.best and step.best.metrics["val_error"] for step in steps] == [None, 7.0, 6.0, 6.0, 6.0]
    assert [len(step.front) for step in steps] == [0, 1, 1, 1, 1]
    assert steps[-1].device_s == 5.0
    assert len(searcher.told) == 5


def test_no_winner_is_an_outcome():
    steps = search(Listed(5), Answers([1.0] * 5, METRICS), limits={"latency_ms": 1.0})
    assert [step.best for step in steps] == [None] * 5


def test_the_goal_picks_the_winner_whatever_the_searcher_would_like():
    searcher = Listed(5)
    searcher.objective = lambda metrics: metrics["latency_ms"]
    steps = search(searcher, Answers([1.0] * 5, METRICS))
    assert [step.best.metrics["val_error"] for step in steps] == [4.0, 4.0, 4.0, 4.0, 3.0]


# Goals


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"minimise": ()}, "minimise must name at least one metric in a list, not []"),
        ({"minimise": "val_error"}, "minimise must name at least one metric in a list, not 'val_error'"),
        ({"minimise": ("params", "params")}, "minimise names a metric twice: params, params; name each once"),
        ({"limits": {"params": math.inf}}, "the limit of params must be a finite number, not inf; or remove it"),
        ({"limits": {"params": math.nan}}, "the limit of params must be a finite number, not nan; or remove it"),
        ({"reference": (1.0, 2.0)}, "reference must have one coordinate for each of val_error, not 2: [1.0, 2.0]"),
        ({"reference": (math.nan,)}, "reference must be finite numbers, not [nan]"),
    ],
)
def test_a_goal_that_is_none_is_refused_in_one_line(values, says):
    with pytest.raises(BadInput, match=f"^goal: {re.escape(says)}$"):
        Goal(**values)


def test_all_epochs_compete_where_a_search_keeps_its_best_and_the_longest_alone_elsewhere():
    answers = [
        Evaluation(Trial(SPACE.at(epochs), PROXY, epochs), {"val_error": error}, Cost(1.0, "table:test"))
        for epochs, error in ((1, 7.0), (2, 5.0), (3, 6.0))
    ]
    for among, winner in (("all", 2), ("longest", 3)):
        incumbents = Incumbents(Goal(), "test", among=among)
        for answer in answers:
            incumbents.add(answer)
        assert incumbents.recommend(3, 0.0, 0.0).best.trial.epochs == winner


def test_a_constraint_on_an_unknown_metric_is_refused_with_those_there_are():
    with pytest.raises(Unsupported, match="analytic gives no metric 'energy_mj'; it gives macs, params, val_error"):
        search(Listed(1), Analytic(SPACE), limits={"energy_mj": 1.0}, evaluations=1)


def test_recommendations_come_as_the_answers_do():
    """A caller may stop listening; nothing was asked beyond the answer in hand."""
    evaluator = Analytic(SPACE)
    steps = run(RandomSearch(SPACE, PROXY, np.random.default_rng(0)), evaluator, budget=Budget(evaluations=100))
    first = next(steps)
    assert len(evaluator.answers) == 1
    assert first.best is evaluator.answers[0]
    assert first.best.metrics["val_error"] == pytest.approx(quality(first.best.trial.arch) + 30 / 12)
