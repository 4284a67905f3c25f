"""BANANAS and Bayesian optimisation: what they choose, against brute force, and what they cost."""

from __future__ import annotations

import time

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, quality
from scipy import integrate, stats

import searchers
from searchers.bayesian_optimisation import expected_improvement
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.types import BadInput

SPACE = SPACES["nas_bench_201"]


def found(name, seed, **options):
    searcher = searchers.make(name, SPACE, PROXY, np.random.default_rng(seed), **options)
    evaluator = Analytic(SPACE)
    last = list(run(searcher, evaluator, budget=Budget(evaluations=60)))[-1]
    assert last.best is not None
    return quality(last.best.trial.arch), [answer.trial.arch for answer in evaluator.answers]


@pytest.mark.parametrize("name", ["bananas", "bayesian_optimisation"])
def test_what_it_learns_makes_it_better_than_random_draws(name):
    """On a smooth error, over 8 seeds; a method as good as random wins 7 of 8 in 4 % of worlds."""
    options = {"predictor": "ridge", "encoding": "one_hot"}
    guided = [found(name, seed, **options)[0] for seed in range(8)]
    drawn = [found("random_search", seed)[0] for seed in range(8)]
    assert sum(a <= b for a, b in zip(guided, drawn, strict=True)) >= 7
    assert np.mean(guided) < np.mean(drawn)


@pytest.mark.parametrize("name", ["bananas", "bayesian_optimisation"])
def test_no_network_is_asked_twice(name):
    asked = found(name, 0, predictor="ridge")[1]
    assert len(set(asked)) == len(asked) == 60


def test_expected_improvement_is_the_integral_that_it_stands_for():
    for mean, spread, best in ((5.0, 1.0, 4.0), (3.0, 0.2, 3.5), (2.0, 3.0, 2.0)):
        wanted, _ = integrate.quad(
            lambda y, best=best, mean=mean, spread=spread: (best - y) * stats.norm.pdf(y, mean, spread), -40, best
        )
        assert -expected_improvement(np.array([mean]), np.array([spread]), best)[0] == pytest.approx(wanted, abs=1e-7)


def test_thompson_sampling_draws_from_each_prediction():
    searcher = searchers.make("bananas", SPACE, PROXY, np.random.default_rng(0), predictor="ridge")
    drawn = searcher.thompson(np.full(20_000, 3.0), np.full(20_000, 2.0), 0.0)
    assert stats.kstest(drawn, "norm", args=(3.0, 2.0)).pvalue > 1e-4


def test_the_default_ensemble_runs_and_asks_at_once_between_fits():
    pytest.importorskip("torch")
    searcher = searchers.make("bananas", SPACE, PROXY, np.random.default_rng(0))
    evaluator = Analytic(SPACE)
    for _ in range(11):
        searcher.tell(evaluator.evaluate(searcher.ask()))
    assert len(searcher.guided.queue) == 9
    began = time.process_time()
    searcher.ask()
    assert time.process_time() - began < 0.05  # it takes microseconds: a refit would take seconds


def test_the_default_process_runs():
    searcher = searchers.make("bayesian_optimisation", SPACE, PROXY, np.random.default_rng(0))
    evaluator = Analytic(SPACE)
    for _ in range(14):
        searcher.tell(evaluator.evaluate(searcher.ask()))
    assert len(searcher.guided.known) == 14


def test_a_wrong_predictor_is_one_clear_error():
    with pytest.raises(BadInput, match="no predictor"):
        searchers.make("bananas", SPACE, PROXY, np.random.default_rng(0), predictor="oracle")
