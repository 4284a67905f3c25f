"""The first trials of each searcher under seed 0, kept in tests/golden: a change to them is read in review.

After a change that is meant, write them anew with `python tests/test_golden.py` and look at the difference.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.analytic import PROXY, Analytic, converse

import searchers
from suite.spaces import SPACES
from suite.types import JSON

NAMES = [name for name, method in searchers.SEARCHERS.items() if "supernet" not in method.needs]
FOLDER = Path(__file__).parent / "golden"
SPACE = SPACES["nas_bench_201"]
OPTIONS: dict[str, JSON] = {
    "regularized_evolution": {"population_size": 10, "sample_size": 3},
    "bananas": {"predictor": "ridge"},  # whose last digits no rank depends on, whatever the processor
    "bayesian_optimisation": {"predictor": "ridge", "encoding": "one_hot"},
}
"""Where the defaults would show nothing of the method in so few trials."""
TRIALS = 30


def golden(name: str) -> str:
    """What the file of a searcher says: a line for each trial, with the answer it got."""
    chosen = OPTIONS.get(name, {})
    searcher = searchers.make(name, SPACE, PROXY, np.random.default_rng(0), **chosen)
    evaluator = Analytic(SPACE)
    converse(searcher, evaluator, TRIALS)
    trials = [
        f"{SPACE.text(answer.trial.arch)} e{answer.trial.epochs} -> {answer.metrics['val_error']:.3f} %"
        for answer in evaluator.answers[:TRIALS]
    ]
    said = {"searcher": name, "space": SPACE.name, "proxy": str(PROXY), "seed": 0, "options": chosen, "trials": trials}
    return json.dumps(said, indent=1) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_first_trials_are_as_they_were(name):
    file = FOLDER / f"{name}.json"
    assert file.exists(), f"{file} is missing: python tests/test_golden.py writes it"
    assert golden(name) == file.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over():
    assert {file.stem for file in FOLDER.glob("*.json")} == set(NAMES)


if __name__ == "__main__":
    for searcher in NAMES:
        (FOLDER / f"{searcher}.json").write_text(golden(searcher), encoding="utf-8")
        print(FOLDER / f"{searcher}.json")
