"""The loop over simulated workers is the loop of one heap: same questions, clocks, fronts and log, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import reference_loop
from helpers.analytic import PROXY, Analytic

import searchers
from suite import search
from suite.evaluators.recorded import Recorded
from suite.records.log import Log
from suite.search import Budget
from suite.spaces import SPACES
from suite.types import Goal, Recommendation

SPACE = SPACES["nas_bench_201"]
SEARCHERS: dict[str, dict[str, object]] = {
    "random_search": {},
    "regularized_evolution": {"population_size": 8, "sample_size": 3},
    "local_search": {},
    "successive_halving": {"rungs": [1, 4, 12], "eta": 2},
    "econas": {},
    "reinforce": {},
}
BUDGETS = (Budget(evaluations=60), Budget(device_s=1_500), Budget(device_s=900, evaluations=45))
GOAL = Goal(("val_error", "params"))


def searched(loop, name: str, workers: int, budget: Budget, folder: Path) -> tuple[list[Recommendation], bytes]:
    """All recommendations of a search, and the bytes of its log."""
    rng = np.random.default_rng(0)
    searcher = searchers.make(name, SPACE, PROXY, rng, capabilities={"stages": (1, 4, 12)}, **SEARCHERS[name])
    path = folder / f"{loop.__module__}.jsonl"
    with Log(path, SPACE) as log:
        evaluator = Recorded(Analytic(SPACE), log, dataset="formula", run="one", phase="search")
        steps = list(loop(searcher, evaluator, budget=budget, goal=GOAL, workers=workers))
    return steps, path.read_bytes()


@pytest.mark.parametrize("name", SEARCHERS)
@pytest.mark.parametrize("workers", [1, 4, 7])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_simulated_workers_give_the_recommendations_clocks_and_log_of_the_reference(tmp_path, name, workers, budget):
    steps, log = searched(search.run, name, workers, budget, tmp_path)
    expected, expected_log = searched(reference_loop.run, name, workers, budget, tmp_path)
    assert steps == expected
    assert log == expected_log
    assert len(steps) > 10
