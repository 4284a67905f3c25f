"""All measures of 40 proxies of 15,625 networks with 10,000 draws: time, CPU time and memory on two threads.

python benchmarks/bench_study.py [threads]
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from suite.resampling import resample

NETWORKS, PROXIES, DRAWS = 15_625, 40, 10_000


def main(threads: int) -> None:
    rng = np.random.default_rng(0)
    truth = np.round(rng.normal(size=NETWORKS) * 100)  # ties, as accuracies on a grid have
    errors = [truth + 30 * (1 + i / 10) * rng.normal(size=NETWORKS) for i in range(PROXIES)]
    resample(errors[:1], truth, draws=64, rng=rng)  # compiles
    began, cpu = time.perf_counter(), time.process_time()
    found = resample(errors, truth, draws=DRAWS, rng=rng, threads=threads)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{threads} threads: {wall:.0f} s, {cpu:.0f} s of CPU time, {memory:.2f} GB; {found.interval(0, 'tau')}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
