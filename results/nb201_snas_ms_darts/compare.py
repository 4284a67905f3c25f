"""DARTS, MS-DARTS and both variants of SNAS on NAS-Bench-201 and CIFAR-10, searched live at a scale for one CPU core.

    python results/nb201_snas_ms_darts/compare.py search IMAGES [method ...]
    python results/nb201_snas_ms_darts/compare.py report nb201.parquet

The first trains supernets and writes epochs.jsonl, one line an epoch, beside this file; called again it goes on. The
second looks the cells up in the published table (200 epochs, test accuracy, mean over its seeds) and writes cells.csv
and summary.csv.

The files here are from before the supernet's norms became lean in memory, which changes sums in their last bits; from
the second epoch on a search of the present code may derive other cells (docs/methods/snas.md).

Scale: 4 channels, one cell a stage, 16 pixels, 1,350 training images (of the first fifth of CIFAR-10), 1,000 held out,
50 epochs in batches of 64. The logits' learning rate is 0.01 instead of 3e-4: a search takes 550 steps of the logits
(1,100 on one level), a published one about 19,500, and so they can go as far.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
METHODS = ("darts", "ms_darts", "snas", "snas_bilevel")
SEEDS, EPOCHS, LAST, ALPHA_LR = 3, 50, 10, 0.01


def search(images: Path, methods: tuple[str, ...]) -> None:
    """All seeds of each method."""
    from searchers.darts import DARTS
    from searchers.ms_darts import MSDARTS
    from searchers.snas import SNAS, SNASBilevel
    from suite.data.images import load
    from suite.spaces import SPACES
    from suite.training.gradient_loop import epochs
    from suite.types import Proxy

    kinds: dict[str, Any] = {"darts": DARTS, "ms_darts": MSDARTS, "snas": SNAS, "snas_bilevel": SNASBilevel}
    space, proxy = SPACES["nas_bench_201"], Proxy(EPOCHS, channels=4, resolution=16, samples=0.15, cells=1)
    data = load("cifar10", root=images, shards=[1], test_shards=[1], valid_fraction=0.1)
    for seed in range(SEEDS):
        for method in methods:
            done = len([row for row in rows() if (row["method"], row["seed"]) == (method, seed)])
            searcher = kinds[method](space, proxy, np.random.default_rng(seed), alpha={"lr": ALPHA_LR})
            folder = HERE.parent / "runs" / HERE.name / method  # not in git
            for answer in epochs(searcher, data, proxy, checkpoints=folder, seed=seed, device="cpu", done=done):
                row = {"method": method, "seed": seed, "cell": space.text(answer.trial.arch)}
                row |= dict(answer.curve[0]) | {"macs_spent": answer.cost.macs}
                with (HERE / "epochs.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")


def rows() -> list[dict[str, Any]]:
    """Of all epochs so far."""
    path = HERE / "epochs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(table: Path) -> None:
    """Published accuracies of the cells, and what the methods did on average."""
    from suite.evaluators.table import TableEvaluator
    from suite.spaces import SPACES
    from suite.tables import open_table

    space = SPACES["nas_bench_201"]
    judge = TableEvaluator(open_table("nas_bench_201_parquet", table), "cifar10", view="judge")
    accuracies = 100 - judge.errors(np.arange(space.size), judge.full)
    places = {arch: number for number, arch in enumerate(space)}

    def published(cell: str) -> tuple[float, int]:
        """Accuracy, and the place among all cells."""
        accuracy = accuracies[places[space.parse(cell)]]
        return float(accuracy), int((accuracies > accuracy).sum()) + 1

    cells, summary = [], []
    for method, runs in grouped():
        for run in runs:
            picks = {"last": run[-1], "best": min(run, key=lambda row: row["val_error"])}
            for pick, row in picks.items():
                accuracy, rank = published(row["cell"])
                kept = ("seed", "epoch", "cell", "val_error", "child_error", "entropy", "skips", "nones")
                cells.append({"method": method, "pick": pick, **{name: row[name] for name in kept}})
                cells[-1] |= {"test_accuracy": accuracy, "rank": rank}
        late = [row for run in runs for row in run[-LAST:]]
        own = [row for row in cells if row["method"] == method and row["pick"] == "last"]
        summary.append(
            {
                "method": method,
                "seeds": len(runs),
                "test_accuracy": statistics.mean(row["test_accuracy"] for row in own),
                "test_std": statistics.stdev(row["test_accuracy"] for row in own) if len(own) > 1 else math.nan,
                "skips": statistics.median(row["skips"] for row in own),
                "val_error": statistics.mean(row["val_error"] for row in late),
                "child_error": statistics.mean(row["child_error"] for row in late),
                "gap": statistics.mean(row["child_error"] - row["val_error"] for row in late),
                "entropy": statistics.mean(run[-1]["entropy"] for run in runs),
                "device_s": statistics.mean(sum(row["device_s"] for row in run) for run in runs),
                "macs_spent": statistics.mean(sum(row["macs_spent"] for row in run) for run in runs),
            }
        )
    for name, lines in (("cells", cells), ("summary", summary)):
        with (HERE / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(
                {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}
                for line in lines
            )


def grouped() -> Iterator[tuple[str, list[list[dict[str, Any]]]]]:
    """Whole runs of each method, by seed."""
    found = rows()
    for method in METHODS:
        runs = [[row for row in found if (row["method"], row["seed"]) == (method, seed)] for seed in range(SEEDS)]
        whole = [run for run in runs if len(run) == EPOCHS]
        if whole:
            yield method, whole


if __name__ == "__main__":
    if sys.argv[1:2] == ["search"]:
        search(Path(sys.argv[2]), tuple(sys.argv[3:]) or METHODS)
    elif sys.argv[1:2] == ["report"]:
        report(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
