"""What several processes reach together: trainings a second of a search, by its trials in flight.

Goals, on an idle machine of at least two cores: live on two cores, with 4 channels at 8x8 and 8 channels at 16x16, two
trials in flight reach 1.8 times one, or 95 % of what two searches of their own reach side by side; stand-ins that sleep
20 ms, four in flight, 3.5 times one.

Run: pytest benchmarks/test_bench_workers.py -s --benchmark-disable
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import searchers
from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.types import Proxy

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from helpers.standins import Sleeping  # noqa: E402

SPACE = SPACES["nas_bench_201"]
TRAININGS = 80
SIZES = {"c4 r8": Proxy(epochs=2, channels=4, resolution=8, cells=1),
         "c8 r16": Proxy(epochs=2, channels=8, resolution=16, cells=1)}  # fmt: skip
OPTIONS = {"regularized_evolution": {"population_size": 20, "sample_size": 5}, "econas": {}}


def seconds(name, proxy, workers, trainings=TRAININGS, **options):
    """Of a search, from when its processes are there."""
    live = LiveEvaluator(SPACE, load("digits"), recipe={"batch_size": 64, **options}, device="cpu", workers=workers,
                         kind="processes", full=proxy)  # fmt: skip
    try:
        warm = searchers.make("random_search", SPACE, proxy, np.random.default_rng(9), capabilities={})
        list(run(warm, live.workers(), budget=Budget(evaluations=workers), workers=workers))
        rng = np.random.default_rng(0)
        searcher = searchers.make(name, SPACE, proxy, rng, capabilities={"stages": None}, **OPTIONS.get(name, {}))
        began = time.perf_counter()
        steps = list(run(searcher, live.workers(), budget=Budget(evaluations=trainings), workers=workers))
        return (time.perf_counter() - began) / steps[-1].evaluations
    finally:
        live.close()


ALONE = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/benchmarks"]
from test_bench_workers import SIZES, seconds
if __name__ == "__main__":
    print(seconds({name!r}, SIZES[{size!r}], 1))
"""


def two_of_their_own(name, size):
    """Seconds a training of two searches in commands of their own, together."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "alone.py"
        script.write_text(ALONE.format(root=str(ROOT), name=name, size=size))
        both = [subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        each = [float(process.communicate()[0]) for process in both]
    return 1 / sum(1 / one for one in each)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_two_processes_and_one(capsys, name, size):
    one, two = (seconds(name, SIZES[size], workers) for workers in (1, 2))
    apart = two_of_their_own(name, size)
    with capsys.disabled():
        print(f"\n{name} {size}: {1 / one:.1f} trainings a second with one, {one / two:.2f} times as many with two, "
              f"{apart / two:.2f} of two searches of their own")  # fmt: skip
    assert one / two >= 1.8 or apart / two >= 0.95


def test_stand_ins_of_20_ms(capsys, monkeypatch):
    monkeypatch.setattr("suite.evaluators.live.Trainer", Sleeping)
    one, four = (seconds("random_search", SIZES["c4 r8"], workers, weight_decay=0.02) for workers in (1, 4))
    with capsys.disabled():
        print(f"\nstand-ins of 20 ms: {1e3 * one:.1f} ms each with one, {one / four:.2f} times as many with four")
    assert one / four >= 3.5
