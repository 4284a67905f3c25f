"""How quick the default predictor is: fits, predictions, loading; what has a goal is printed beside it.

Run: OMP_NUM_THREADS=1 pytest benchmarks/test_bench_surrogates.py -s
"""

import subprocess
import sys
import time

import numpy as np
import pytest

import searchers
import surrogates
from suite.spaces import SPACES
from suite.types import Cost, Evaluation
from surrogates.encoding import Encoder

SPACE = SPACES["nas_bench_201"]


def drawn(n, seed):
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


def truth(archs):
    gain = np.array([0.0, 2.0, 6.0, 9.0, 1.0])
    rng = np.random.default_rng(0)
    return np.array([60 - gain[list(SPACE.simplified(arch))].sum() for arch in archs]) + rng.normal(size=len(archs))


@pytest.fixture(scope="module")
def fitted():
    encoder, archs = Encoder(SPACE), drawn(2_000, 0)
    x, y = encoder(archs), truth(archs)
    surrogates.make("boosted_trees", rounds=2).fit(x[:50], y[:50]).mean(x[:5])  # compiles
    began = time.perf_counter()
    model = surrogates.make(columns=encoder.names).fit(x, y)
    alone = time.perf_counter() - began
    model.calibrate()
    whole = time.perf_counter() - began
    print(f"\n2,000 rows fitted in {alone:.1f} s, with intervals {whole:.1f} s (goal 20)")
    return encoder, model


def test_predictions_a_second(fitted):
    encoder, model = fitted
    archs = drawn(100_000, 1)
    began = time.perf_counter()
    model.mean(Encoder(SPACE)(archs))
    took = time.perf_counter() - began
    began = time.perf_counter()
    model.predict(encoder(archs))
    spread = time.perf_counter() - began
    print(f"\n100,000 predictions, encoding included: {took:.2f} s (goal 1); with spreads {spread:.2f} s")


def test_loading(fitted, tmp_path):
    fitted[1].save(tmp_path / "model.npz")
    code = (
        "import sys, time, numpy\nbegan = time.perf_counter()\nimport surrogates\n"
        "surrogates.load(sys.argv[1])\nprint(time.perf_counter() - began)"
    )
    times = [
        float(
            subprocess.run(
                [sys.executable, "-c", code, str(tmp_path / "model.npz")], capture_output=True, check=True
            ).stdout
        )
        for _ in range(5)
    ]
    print(f"\na saved model loads in {min(times):.3f} s (goal 0.3)")


def test_asking_bananas(fitted):
    from suite.types import Proxy

    searcher = searchers.make("bananas", SPACE, Proxy(12, 16, 32), np.random.default_rng(0))
    slow, quick = [], []
    for _ in range(60):
        began = time.perf_counter()
        trials = searcher.ask()
        took = time.perf_counter() - began
        (slow if len(searcher.guided.queue) == 9 else quick).append(took)
        searcher.tell([Evaluation(t, {"val_error": float(truth([t.arch])[0])}, Cost(1.0, "cpu")) for t in trials])
    print(f"\nask of bananas: {1e3 * max(quick):.2f} ms at most without a fit (goal 50), {max(slow):.2f} s with one")
