"""What FNAS's weight pool saves in measured device seconds: half the epochs from the pool against all from scratch.

python benchmarks/fnas_pool.py [out.csv]        # about 6 minutes of one core

NAS-Bench-201 networks (one cell a stage, 8 channels) on digits, batch 64, E = 8 epochs. First 64 random architectures
fill the pool, in batches of 16, each trained for E / 2 epochs. Then 32 others, in two batches, are trained in four
ways: from the pool for E / 2, from scratch for E / 2 and for E, and, as the truth, from scratch for 3 E under another
seed. Printed: mean errors, paired differences and ratios of seconds with 95 % Student intervals over architectures,
the pool's own share of the seconds, and Kendall's tau to the truth with 95 % bootstrap intervals.
"""

import csv
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from suite.comparison.board import student
from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.statistics.bootstrap import bootstrap
from suite.training.weights.pool import WeightPool
from suite.types import Ends, Proxy, Trial

E, BATCH, FILLING, TESTED = 8, 16, 64, 32
FULL = Proxy(epochs=E, channels=8, resolution=8, cells=1)
HALF = replace(FULL, epochs=E // 2)
TRUTH = replace(FULL, epochs=3 * E)
WAYS = ("pool E/2", "scratch E/2", "scratch E", "truth 3E")


def main(out="results/fnas/pool.csv"):
    space, rng = SPACES["nas_bench_201"], np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(FILLING + TESTED)]
    rows, overhead = [], []
    with tempfile.TemporaryDirectory() as folder:
        pool = WeightPool(Path(folder), space, HALF, ends=Ends(1, 10), run="benchmark")
        live = LiveEvaluator(space, load("digits"), recipe={"batch_size": 64}, device="cpu", pool=pool)
        for start in range(0, FILLING + TESTED, BATCH):
            some = archs[start : start + BATCH]
            inherited = live.evaluate([Trial(arch, HALF, origin="pool") for arch in some])
            pool.commit()
            print(f"{start + BATCH} networks: {np.mean([a.metrics['val_error'] for a in inherited]):.2f} %", flush=True)
            if start < FILLING:
                continue
            overhead += [1 - sum(e["device_s"] for e in a.curve) / a.cost.device_s for a in inherited]
            others = [
                live.evaluate([Trial(arch, proxy, seed=seed) for arch in some])
                for proxy, seed in ((HALF, 0), (FULL, 0), (TRUTH, 1))
            ]
            for way, answers in zip(WAYS, (inherited, *others), strict=True):
                rows += [
                    [space.text(a.trial.arch), way, f"{a.metrics['val_error']:.4f}", f"{a.cost.device_s:.4f}"]
                    for a in answers
                ]
        stored = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        print(f"device {live.device}; pool {stored / 1e6:.1f} MB, donors {dict(pool.hits)}")
    with Path(out).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["architecture", "way", "val_error", "device_s"], *rows])
    errors = {way: np.array([float(row[2]) for row in rows if row[1] == way]) for way in WAYS}
    seconds = {way: np.array([float(row[3]) for row in rows if row[1] == way]) for way in WAYS}
    for way in WAYS:
        mean, low, high, _ = student(list(errors[way]))
        tau = bootstrap(errors[way], errors["truth 3E"], measures=["tau"], draws=10_000, rng=rng)["tau"]
        print(
            f"{way}: error {mean:.2f} % ({low:.2f} to {high:.2f}), {seconds[way].mean():.3f} s a network, "
            f"tau to truth {tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f})"
        )
    for other in WAYS[1:3]:
        mean, low, high, _ = student(list(errors["pool E/2"] - errors[other]))
        print(f"pool E/2 less {other}: {mean:+.2f} points ({low:+.2f} to {high:+.2f})")
        ratio, low, high, _ = student(list(np.log(seconds[other] / seconds["pool E/2"])))
        print(f"seconds of {other} / pool E/2: {np.exp(ratio):.2f} ({np.exp(low):.2f} to {np.exp(high):.2f})")
    print(f"reading and writing the pool: {100 * np.mean(overhead):.1f} % of the seconds of pool E/2")


if __name__ == "__main__":
    main(*sys.argv[1:])
