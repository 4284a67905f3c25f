"""The study of 15,625 networks x 40 proxies x 10,000 draws: time, CPU time and memory.

python benchmarks/bench_study.py [threads]      # all measures on shared draws, in this process
python benchmarks/bench_study.py --whole        # `kendall study` and `kendall report` on a made-up table
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from suite.spaces.nas_bench_201 import NASBench201
from suite.statistics.sweeps import resample
from suite.tables.base import NUMBERS, Table, TableBlock, TableSetting
from suite.types import Proxy

NETWORKS, PROXIES, DRAWS = 15_625, 40, 10_000
SPEC = f"""\
name = "whole"
space = "nas_bench_201"
datasets = ["cifar10"]
full_seeds = 1
draws = {DRAWS}
scores = []

[evaluator]
kind = "table"
table = "made_up.table"

[architectures]
all = true
"""


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


def made_up(path: Path) -> list[Proxy]:
    """A table of all cells under 40 proxies and in full; noise falls as proxies get dearer."""
    rng = np.random.default_rng(0)
    quality = 10 + 3 * rng.normal(size=NETWORKS)
    proxies = [Proxy(*point) for point in product((5, 10, 20, 40, 80), (4, 8), (16, 32), (0.25, 0.5))]
    full = Proxy(200, 16, 32)
    blocks = [column(full, split, quality + 0.2 * rng.normal(size=NETWORKS)) for split in ("valid", "test")]
    for proxy in proxies:
        noise = 6 / proxy.epochs**0.4 / (proxy.channels * proxy.resolution / 128) ** 0.3 / proxy.samples**0.2
        blocks.append(column(proxy, "valid", quality + 5 + noise * rng.normal(size=NETWORKS)))
    Table(NASBench201(), None, blocks, {"table": "made up"}).save(path)
    return proxies


def column(proxy: Proxy, split: str, error: np.ndarray) -> TableBlock:
    """One answer a network, accuracies to two digits."""
    unknown = np.full((NETWORKS, 1), np.nan)
    seconds = proxy.epochs * proxy.samples * proxy.channels**2 * proxy.resolution**2 / 1e5
    return TableBlock(
        TableSetting("cifar10", proxy, proxy.epochs, split), False, np.ones(NETWORKS, np.int64),
        np.zeros((NETWORKS, 1), np.int64),
        {**dict.fromkeys(NUMBERS, unknown), "error": np.clip(np.round(error, 2), 0, 100)[:, None],
         "device_s": np.full((NETWORKS, 1), seconds)},
        {name: (np.zeros((NETWORKS, 1), np.int64), (word,)) for name, word in
         (("device", "made up"), ("source", "made up"), ("failure", ""))},
    )  # fmt: skip


def whole() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = SPEC
        for proxy in made_up(folder / "made_up.table"):
            spec += (f"\n[[proxies]]\nepochs = {proxy.epochs}\nchannels = {proxy.channels}\n"
                     f"resolution = {proxy.resolution}\nsamples = {proxy.samples}\n")  # fmt: skip
        (folder / "spec.toml").write_text(spec)
        timed(folder, "study", "spec.toml", "--out", "out")
        timed(folder, "report", "out")
        for path in sorted((folder / "out").iterdir()):
            if path.is_file() and path.stat().st_size > 2**20:
                print(f"  {path.name}: {path.stat().st_size / 2**20:.1f} MB")


def timed(folder: Path, *words: str) -> None:
    """Run `kendall`, and say what it took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "suite.cli", *words], cwd=folder, stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path])},
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    print(
        f"kendall {' '.join(words)}: exit code {process.returncode}, {time.perf_counter() - began:.0f} s, "
        f"{used.ru_utime + used.ru_stime:.0f} s of CPU time, {used.ru_maxrss / 2**20:.2f} GB",
        flush=True,
    )
    if process.returncode:
        raise SystemExit(process.returncode)


def run(words: Sequence[str]) -> None:
    if "--whole" in words:
        whole()
    else:
        main(int(words[0]) if words else 2)


if __name__ == "__main__":
    run(sys.argv[1:])
