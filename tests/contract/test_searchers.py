"""What every registered searcher must do, those of other packages too."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, quality
from hypothesis import given, settings
from hypothesis import strategies as st

import searchers
from suite.search import Budget, run
from suite.spaces import SPACES, SearchSpace
from suite.spaces.joint import Joint, options
from suite.types import Architecture, Evaluation, Proxy, Recommendation, Searcher, Trial

NAMES = [name for name in searchers.available() if "supernet" not in searchers.about(searchers.load(name)).needs]
"""Those that ask and are told; what searches by gradients must do stands in test_gradient_searchers.py."""
EVALUATIONS = 60
STAGES = (1, 3, 4, 12)
LSTM = {"hidden": 8, "embedding": 4}
SMALL: dict[str, dict[str, object]] = {
    "regularized_evolution": {"population_size": 8, "sample_size": 3},
    "bananas": {"predictor": "ridge", "candidates": 30},
    "bayesian_optimisation": {"predictor": "ridge", "encoding": "one_hot", "batch": 5, "candidates": 30},
    "monas": {"lstm": LSTM},
    "mnas": {"lstm": LSTM, "batch": 8},
    "fnas": {"lstm": LSTM, "batch": 8, "uac": {"hidden": 8, "steps": 5, "warm_up": 16}},
}
"""So that these short searches are more than their first random draws, and quick."""
RECURRENT = ("monas", "mnas", "fnas")
"""Policies of torch: on the published table's space alone."""


class Tiny(SearchSpace):
    """Two decisions, six architectures: soon exhausted."""

    name = "tiny"
    decisions = (2, 3)
    full = Proxy(12, 16, 32)
    paper = "none"

    def text(self, arch: Architecture) -> str:
        return "".join(map(str, arch))

    def parse(self, text: str) -> Architecture:
        return tuple(map(int, text))


def make(name: str, space: SearchSpace, seed: int = 0) -> Searcher:
    rng = np.random.default_rng(seed)
    return searchers.make(name, space, PROXY, rng, capabilities={"stages": STAGES}, **SMALL.get(name, {}))


def search(
    name: str, space: SearchSpace, *, workers: int = 1, seed: int = 0, evaluations: int = EVALUATIONS, **formula: object
) -> tuple[list[Trial], list[Recommendation]]:
    evaluator = Analytic(space, **formula)  # type: ignore[arg-type]
    budget = Budget(evaluations=evaluations)
    recommendations = list(run(make(name, space, seed), evaluator, budget=budget, workers=workers))
    return [answer.trial for answer in evaluator.answers], recommendations


every_searcher = pytest.mark.parametrize("name", NAMES)
every_place = pytest.mark.parametrize(
    ("name", "space"),
    [
        pytest.param(name, space, id=f"{name}-{space.name}")
        for name in NAMES
        for space in SPACES.values()
        if name not in RECURRENT or space.name == "nas_bench_201"
    ],
)
one_and_four_workers = pytest.mark.parametrize("workers", [1, 4])


@every_place
@one_and_four_workers
def test_same_seed_asks_the_same_whatever_the_global_state(name, space, workers):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = search(name, space, workers=workers)
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert search(name, space, workers=workers) == first


@every_searcher
def test_another_seed_asks_something_else(name):
    space = SPACES["nas_bench_201"]
    assert search(name, space, seed=0)[0] != search(name, space, seed=1)[0]


@every_place
@one_and_four_workers
def test_no_global_random_state_is_touched(name, space, workers):
    def state() -> tuple[object, ...]:
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return random.getstate(), kind, tuple(keys), *rest

    before = state()
    search(name, space, workers=workers)
    assert state() == before


JOINT = Joint(
    SPACES["nas_bench_201"],
    [options("nesterov", [True, False]), options("momentum", [0.5, 0.8, 0.9], when={"nesterov": [True]})],
)
"""A space with a decision that others switch off."""


@every_searcher
def test_asks_only_valid_architectures_where_decisions_switch_others_off(name):
    asked, recommendations = search(name, JOINT)
    assert len(recommendations) == EVALUATIONS
    assert {trial.arch[6] for trial in asked} == {0, 1}
    for trial in asked:
        JOINT.check(trial.arch)
        assert JOINT.settled(trial.arch) == trial.arch


@every_place
@one_and_four_workers
def test_asks_only_architectures_of_the_space_under_its_proxy(name, space, workers):
    asked, recommendations = search(name, space, workers=workers)
    assert len(recommendations) == EVALUATIONS
    for trial in asked:
        space.check(trial.arch)
        assert all(type(option) is int for option in trial.arch)
        assert trial.proxy == PROXY
        assert trial.epochs in STAGES


@every_place
@one_and_four_workers
def test_finds_better_than_the_middle_of_the_space(name, space, workers):
    _, recommendations = search(name, space, workers=workers)
    rng = np.random.default_rng(0)
    middle = np.median([quality(space.sample(rng)) for _ in range(500)])
    first, best = recommendations[0].best, recommendations[-1].best
    assert first is not None
    assert best is not None
    assert quality(best.trial.arch) < max(middle, quality(first.trial.arch))  # in vast spaces a walk is still near home


@every_place
@one_and_four_workers
def test_goes_on_where_every_training_fails(name, space, workers):
    _, recommendations = search(name, space, workers=workers, error=lambda arch: math.inf)
    assert len(recommendations) == EVALUATIONS
    assert recommendations[-1].best is None


@every_searcher
@one_and_four_workers
def test_goes_on_where_every_second_training_fails(name, workers):
    space = SPACES["nas_bench_201"]
    _, recommendations = search(
        name, space, workers=workers, error=lambda arch: quality(arch) if space.index(arch) % 2 else math.inf
    )
    assert len(recommendations) == EVALUATIONS
    assert recommendations[-1].best is not None


@every_searcher
@one_and_four_workers
def test_an_exhausted_space_is_no_trap(name, workers):
    asked, recommendations = search(name, Tiny(), workers=workers, evaluations=200)
    assert len(recommendations) == len(asked)
    assert len(asked) == 200 or {trial.arch for trial in asked} == set(Tiny())


@every_searcher
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_answers_may_come_in_any_order_and_any_number(name, data):
    space = SPACES["nats_bench_size"]
    searcher, evaluator = make(name, space), Analytic(space)
    due: list[Evaluation] = []
    asked = 0
    while asked < EVALUATIONS:
        trials = searcher.ask()
        assert trials or due, "nothing asked, nothing due: the search was over before its budget"
        asked += len(trials)
        due += evaluator.evaluate(trials)
        order = data.draw(st.permutations(range(len(due))))
        due = [due[i] for i in order]
        told = data.draw(st.integers(0 if trials else 1, min(len(due), 5)))
        searcher.tell(due[:told])
        due = due[told:]


@every_searcher
@one_and_four_workers
def test_a_search_is_replayed_from_its_answers(name, workers):
    space = SPACES["nas_bench_201"]
    evaluator = Analytic(space)
    budget = Budget(evaluations=EVALUATIONS)
    first = list(run(make(name, space), evaluator, budget=budget, workers=workers))
    log = iter(evaluator.answers)

    class Replay:
        name = "analytic"

        def evaluate(self, trials):
            answers = [next(log) for _ in trials]
            assert [answer.trial for answer in answers] == list(trials)
            return answers

    assert list(run(make(name, space), Replay(), budget=budget, workers=workers)) == first


@every_searcher
def test_says_what_it_is(name):
    said = searchers.about(searchers.load(name))
    assert said.family
    assert "val_error" in said.objectives
    assert isinstance(said.needs, tuple)
    if name in searchers.SEARCHERS:
        assert said.paper
        assert searchers.load(name).__doc__


@pytest.mark.parametrize("name", searchers.SEARCHERS)
def test_its_file_names_the_paper_at_the_top(name):
    module = sys.modules[searchers.SEARCHERS[name].__module__]  # type: ignore[attr-defined]
    assert "https://" in (module.__doc__ or "")


def test_searchers_load_without_torch_scipy_and_pandas():
    code = (
        "import sys, searchers\n"
        "for name in searchers.SEARCHERS: searchers.load(name)\n"
        "print([m for m in ('torch', 'scipy', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
