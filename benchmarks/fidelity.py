"""Does a training of ours do what the published one did? 12-epoch CIFAR-10 runs against NAS-Bench-201's `c10_test_12`.

python benchmarks/fidelity.py --data FOLDER --device cuda             # the published setting, 100 networks
python benchmarks/fidelity.py --data FOLDER --networks 4 --below 30   # the same, cheap networks: for a patient CPU
python benchmarks/fidelity.py --data FOLDER --narrow                  # 4 channels, 16 pixels, a fifth of the images

FOLDER holds `nb201.parquet` and `images/cifar10`. Networks are spread over the published range: one drawn from each of
as many equal parts of the ranking. The published runs trained on all 50,000 images; here 10 of each class are left out.
At the published setting the goals are a mean difference within 1.0 points and Kendall's tau of at least 0.80 (the
published 12-epoch validation and test runs, two trainings, agree to 0.84). Narrow networks cannot have the published
accuracies: reported is how their ranking agrees with the published one, beside how two seeds of them agree, and whether
compiled steps and torch's give accuracies that differ by more than two seeds do.

Answers go to a CSV as they come, and what stands there is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from suite.comparison.board import student
from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.statistics.bootstrap import bootstrap
from suite.types import Proxy, Trial

SPACE = SPACES["nas_bench_201"]
PUBLISHED = Proxy(epochs=12, channels=16, resolution=32, cells=5)
NARROW = Proxy(epochs=12, channels=4, resolution=16, cells=1, samples=0.2)
LEFT_OUT = 0.002
"""Of the training images: validation, which nothing here looks at."""
COLUMNS = ("network", "step", "seed", "test_accuracy", "device_s", "device")


@dataclass(frozen=True)
class Run:
    """One training: the network, who computes its steps, its seed."""

    network: str
    step: str
    seed: int


def spread(table: pd.DataFrame, count: int) -> list[str]:
    """As many networks, one drawn from each equal part of the published ranking."""
    ranked = table.sort_values("c10_test_12", kind="stable")["arch_str"].to_numpy()
    rng = np.random.default_rng(0)
    return [str(rng.choice(part)) for part in np.array_split(ranked, count)]


def known(path: Path) -> dict[Run, float]:
    """Test accuracies [%] that stand in the file already."""
    if not path.exists():
        return {}
    with path.open(newline="") as lines:
        return {Run(r["network"], r["step"], int(r["seed"])): float(r["test_accuracy"]) for r in csv.DictReader(lines)}


def train(runs: list[Run], proxy: Proxy, data: Path, device: str, path: Path) -> dict[Run, float]:
    """Test accuracies [%] of the runs, in the order of the file."""
    found = known(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for step in dict.fromkeys(run.step for run in runs):
        due = [run for run in runs if run.step == step and run not in found]
        if not due:
            continue
        images = load("cifar10", root=data / "images", valid_fraction=LEFT_OUT)
        live = LiveEvaluator(
            SPACE, images, recipe={"step": step}, device=device, view="judge", workers=None, full=proxy
        )
        trials = [Trial(SPACE.parse(run.network), proxy, seed=run.seed) for run in due]
        new = not path.exists()
        with path.open("a", newline="") as lines:
            rows = csv.writer(lines)
            if new:
                rows.writerow(COLUMNS)
            for done, (place, answer) in enumerate(live.stream(trials), 1):
                run, accuracy = due[place], 100 - answer.metrics["test_error"]
                found[run] = accuracy
                seconds = answer.cost.device_s
                rows.writerow([run.network, step, run.seed, f"{accuracy:.2f}", f"{seconds:.2f}", answer.cost.device])
                lines.flush()
                os.fsync(lines.fileno())
                print(f"{done} of {len(due)}: {accuracy:.2f} % of {run.network}, {seconds:.0f} s", flush=True)
        live.close()
    return found


def agreement(ours: list[float], others: list[float]) -> str:
    """Tau-b with its 95 % interval over networks."""
    tau = bootstrap(ours, others, rng=np.random.default_rng(0), measures=("tau",))["tau"]
    return f"tau {tau.value:.3f} [{tau.low:.3f}, {tau.high:.3f}], n = {len(ours)}"


def mean_difference(ours: list[float], others: list[float]) -> str:
    """Mean of ours - others with its 95 % Student interval over networks."""
    mean, low, high, _ = student([a - b for a, b in zip(ours, others, strict=True)])
    return f"{mean:.2f} [{low:.2f}, {high:.2f}] points, n = {len(ours)}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--data", type=Path, required=True, help="folder of nb201.parquet and images/cifar10")
    words.add_argument("--networks", type=int, default=100)
    words.add_argument("--below", type=float, help="only networks of fewer multiply-adds [millions]")
    words.add_argument("--device", default="auto")
    words.add_argument("--narrow", action="store_true", help="the consistency check that CPU cores can train")
    words.add_argument(
        "--twice", type=int, default=12, help="narrow: of how many networks torch computes the steps too"
    )
    words.add_argument("--out", type=Path, help="CSV of the answers; default: in results/fidelity")
    given = words.parse_args()

    table = pd.read_parquet(given.data / "nb201.parquet", columns=["arch_str", "c10_test_12", "c10_mflops"])
    published = dict(zip(table["arch_str"], table["c10_test_12"], strict=True))
    if given.below:
        table = table[table["c10_mflops"] < given.below]
    chosen = spread(table, given.networks)
    out = given.out or Path("results/fidelity") / ("narrow.csv" if given.narrow else "published.csv")
    if not given.narrow:
        runs = [Run(network, "torch", 0) for network in chosen]
        found = train(runs, PUBLISHED, given.data, given.device, out)
        ours, theirs = [found[run] for run in runs], [published[network] for network in chosen]
        print(f"ours - published: {mean_difference(ours, theirs)}")
        print(f"ours against published: {agreement(ours, theirs)}")
        return
    again = chosen[:: max(1, len(chosen) // given.twice)]
    runs = [Run(network, "compiled", seed) for seed in (0, 1) for network in chosen]
    runs += [Run(network, "torch", 0) for network in again]
    found = train(runs, NARROW, given.data, "cpu", out)
    first, second = ([found[Run(network, "compiled", seed)] for network in chosen] for seed in (0, 1))
    theirs = [published[network] for network in chosen]
    print(f"two seeds: {agreement(first, second)}; of one network {spread_of(first, second)}")
    print(f"seed 0 against published: {agreement(first, theirs)}")
    print(f"seed 1 against published: {agreement(second, theirs)}")
    compiled = [found[Run(network, "compiled", 0)] for network in again]
    torch = [found[Run(network, "torch", 0)] for network in again]
    print(f"compiled - torch: {mean_difference(compiled, torch)}; of one network {spread_of(compiled, torch)}")


def spread_of(first: list[float], second: list[float]) -> str:
    """Standard deviation of one training that two sets of trainings of the same networks tell."""
    variance = statistics.fmean([(a - b) ** 2 / 2 for a, b in zip(first, second, strict=True)])
    return f"{variance**0.5:.2f} points (s.d. of a training)"


if __name__ == "__main__":
    main()
