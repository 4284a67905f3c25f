"""What a zero-cost score takes, and how it agrees with published scores and with full training.

Run: pytest benchmarks/test_bench_zero_cost.py -s -k price --benchmark-columns=min,median
     pytest benchmarks/test_bench_zero_cost.py -s -k agreement          # 15 minutes, one core
Fewer cells: ZERO_COST_CELLS=60 before it; the scores themselves: ZERO_COST_OUT=folder.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch.nn import functional as F

from suite.data.images import load
from suite.evaluators.zero_cost import ZeroCostEvaluator
from suite.networks import build
from suite.spaces import SPACES
from suite.statistics.bootstrap import bootstrap
from suite.statistics.measures import kendall_tau
from suite.training import zero_cost
from suite.training.device import threads
from suite.types import Ends, Trial

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
SPACE = SPACES["nas_bench_201"]
CELLS = [SPACE.sample(np.random.default_rng(seed)) for seed in range(3)]
NUMBER = int(os.environ.get("ZERO_COST_CELLS", "200"))
AGAIN = 60
"""Cells that are scored once more, each with weights and images of its own, as the published scores are."""


@pytest.fixture(scope="module")
def cifar10():
    return load("cifar10", root=DATA / "images")


@pytest.mark.parametrize("score", [*zero_cost.SCORES, "macs"])
def test_price_of_three_full_networks(benchmark, cifar10, score):
    trials = [Trial(arch, SPACE.full) for arch in CELLS]

    def fresh():
        evaluator = ZeroCostEvaluator(SPACE, cifar10, score=score, device="cpu")
        evaluator.scorer.minibatch(0, 32)
        return (evaluator,), {}

    benchmark.pedantic(lambda evaluator: evaluator.evaluate(trials), setup=fresh, rounds=3)


def test_price_of_a_training_step_of_the_three(benchmark, cifar10):
    scorer = ZeroCostEvaluator(SPACE, cifar10, score="snip", device="cpu").scorer
    images, labels = scorer.minibatch(0, 32)
    networks = [build(SPACE, arch, SPACE.full, ends=Ends(3, 10), seed=0) for arch in CELLS]

    def step():
        with threads(1):
            for network in networks:
                F.cross_entropy(network(images), labels).backward()

    benchmark.pedantic(step, rounds=3)


def between(scores, others):
    """Rho and tau with their intervals; a network without a score is the last."""
    if len(np.unique(scores)) == 1 or np.array_equal(scores, others):
        return ""
    found = bootstrap(scores, others, measures=("spearman", "tau"), rng=np.random.default_rng(0))
    return ", ".join(f"{found[name].value:.3f} [{found[name].low:.3f}, {found[name].high:.3f}]" for name in found)


@pytest.mark.parametrize("score", [*zero_cost.SCORES, *zero_cost.BASELINES])
def test_agreement_with_published_scores_and_with_full_training(cifar10, score):
    """Prints: score | published and ours: rho, tau | own seeds and seed 0: rho, tau | tau of ours with test_200 |
    of the published scores | of those of all 9,445 cells | failed | median seconds"""
    published = pd.read_parquet(DATA / "nb201_zero_cost.parquet").set_index("arch_index")
    facts = pd.read_parquet(DATA / "nb201.parquet").set_index("arch_index")
    chosen = np.random.default_rng(0).choice(published.index, NUMBER, replace=False)
    archs = [SPACE.parse(text) for text in facts["arch_str"][chosen]]
    truth = 100 - facts["c10_test_200"][chosen].to_numpy(float)
    evaluator = ZeroCostEvaluator(SPACE, cifar10, score=score, device="cpu")
    answers = evaluator.evaluate([Trial(arch, SPACE.full) for arch in archs])
    repeats = evaluator.evaluate([Trial(arch, SPACE.full, seed=seed) for seed, arch in enumerate(archs[:AGAIN], 1)])
    ours, again = (np.array([answer.metrics["zero_cost"] for answer in run]) for run in (answers, repeats))
    scores = {"ours": ours, "own_seeds": np.pad(again, (0, len(ours) - len(again)), constant_values=np.nan)}
    words = ["", "", ""]
    column = {"macs": "c10_flops", "params": "c10_params"}.get(score, f"c10_{score}")
    if column in published:
        theirs = -published[column].to_numpy(float)
        every = 100 - facts["c10_test_200"][published.index].to_numpy(float)
        scores["published"] = sample = -published[column][chosen].to_numpy(float)
        words = [between(ours, sample), f"{kendall_tau(sample, truth):.3f}", f"{kendall_tau(theirs, every):.3f}"]
        assert kendall_tau(ours, sample) > 0.6
    own, failed = kendall_tau(ours, truth), np.isinf(ours).sum()
    seconds = np.median([answer.cost.device_s for answer in answers])
    repeat = between(again, ours[: len(again)])
    print(f"\n| {score} | {words[0]} | {repeat} | {own:.3f} | {words[1]} | {words[2]} | {failed} | {seconds:.2f} |")
    if out := os.environ.get("ZERO_COST_OUT"):
        frame = pd.DataFrame({"arch_index": chosen, "test_error": truth, **scores})
        frame.to_csv(Path(out) / f"{score}.csv", index=False)
