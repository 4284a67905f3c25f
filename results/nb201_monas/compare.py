"""MONAS on NAS-Bench-201 with HW-NAS-Bench's measurements: winners against their limits, sweep of alpha, hypervolume.

    OMP_NUM_THREADS=1 python results/nb201_monas/compare.py nb201.parquet nb201_hw_nas_bench.parquet 2    # processes

Every search asks 200 networks (12-epoch training, CIFAR-10, validation accuracy); its winner is judged by the test
accuracy of the 200-epoch training. Energy and latency are those of the Jetson TX2 (`edgegpu`). Writes searches.csv (one
line a search), summary.csv (one line a method and limit) and fronts.csv beside this file. About 15 minutes of one core.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from searchers import load
from searchers.monas import MONAS
from suite.evaluators.table import TableEvaluator
from suite.pareto import normalised_hypervolume, reference_point
from suite.resources.beside import WithResources
from suite.resources.sources import Formulas, LookedUp, Resources
from suite.search import Budget, run
from suite.tables import open_resources, open_table
from suite.types import Evaluation, Searcher, Trial

HERE = Path(__file__).parent
DATASET, DEVICE, EPOCHS = "cifar10", "edgegpu", 12
SEEDS, EVALUATIONS = 30, 200
METRICS = ("energy_mj", "latency_ms")
PERCENTILES = (25, 50, 75)
ALPHAS = (0.25, 0.5, 0.75, 1.0)
ACCURACIES = (0.75, 0.82)
TABULAR: dict[str, Any] = {"policy": "tabular", "lr": 0.1}
Make = Callable[[Resources, np.random.Generator], Searcher]


class Noted:
    """An evaluator that keeps its answers."""

    def __init__(self, evaluator: WithResources) -> None:
        self.evaluator, self.name, self.answers = evaluator, evaluator.name, list[Evaluation]()

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in order."""
        given = self.evaluator.evaluate(trials)
        self.answers += given
        return given


class Bench:
    """The tables, and one search on them."""

    def __init__(self, nb201: Path, hw: Path) -> None:
        self.table = open_table("nas_bench_201_parquet", nb201)
        self.space = self.table.space
        held = open_resources("hw_nas_bench", hw)
        self.resources = Resources(self.space, [LookedUp(held, DATASET, DEVICE), Formulas(self.space)])
        self.judge = TableEvaluator(self.table, DATASET, view="judge")
        self.proxy = next(proxy for proxy in self.judge_free().proxies() if proxy.epochs == EPOCHS)
        self.calibration = self.resources.calibrate(self.proxy)
        everything = np.arange(self.space.size)
        self.test = 100 - self.judge.errors(everything, self.judge.full)
        self.valid = 100 - self.judge_free().errors(everything, self.proxy)
        setting = held.setting(DEVICE, DATASET)
        self.columns = {name: held.columns[setting][name] for name in METRICS}
        self.columns["macs"] = np.array([float(self.space.macs(arch, self.space.full)) for arch in self.space])

    def judge_free(self) -> TableEvaluator:
        """The search's view."""
        return TableEvaluator(self.table, DATASET)

    def search(
        self, make: Make, seed: int, evaluations: int = EVALUATIONS
    ) -> tuple[Searcher, Evaluation | None, list[Evaluation], float]:  # fmt: skip
        """(searcher, winner, all answers, simulated seconds)."""
        view = self.resources.view()
        searcher, noted = make(view, np.random.default_rng(seed)), Noted(WithResources(self.judge_free(), view))
        steps = list(run(searcher, noted, budget=Budget(evaluations=evaluations)))
        best = steps[-1].best if steps else None
        if isinstance(searcher, MONAS):
            best = own_winner(searcher, noted.answers)
        return searcher, best, noted.answers, steps[-1].device_s if steps else 0.0


def own_winner(searcher: MONAS, answers: Sequence[Evaluation]) -> Evaluation | None:
    """The paper's winner: the largest reward, under a constraint above 0; of equals the least error, then the first."""
    rewards = {id(answer): searcher.reward_of(answer.metrics) for answer in answers}
    may = [a for a in answers if searcher.is_feasible(a.metrics) and (searcher.reward == "mixed" or rewards[id(a)] > 0)]
    return min(may, key=lambda a: (-rewards[id(a)], a.metrics["val_error"]), default=None)


def methods(bench: Bench) -> list[tuple[str, str, float, Make]]:
    """(label, metric of the limit, limit, maker)."""

    def monas(**options: Any) -> Make:
        return lambda view, rng: MONAS(bench.space, bench.proxy, rng, resources=view, **options)

    def mixed(more: str, **options: Any) -> list[tuple[str, str, float, Make]]:
        return [
            (f"mixed, alpha {a:g}{more}", "", math.inf, monas(alpha=a, metric="energy_mj", **options)) for a in ALPHAS
        ]

    def under(label: str, metric: str, limit: float, **options: Any) -> tuple[str, str, float, Make]:
        return label, metric, limit, monas(reward="constraint", metric=metric, limit=limit, **options)

    found = mixed(", tabular", **TABULAR)
    found += [under("constraint, tabular", *where, **TABULAR) for where in limits(bench)]
    quarter = bench.calibration.percentile("energy_mj", PERCENTILES[0])
    found.append(under("constraint, tabular, precheck", "energy_mj", quarter, precheck=True, **TABULAR))
    found.append(under("constraint, tabular, no baseline", "energy_mj", quarter, baseline="none", **TABULAR))
    for limit in ACCURACIES:
        options = {"reward": "accuracy", "metric": "energy_mj", "limit": limit, **TABULAR}
        found.append(("accuracy, tabular", "accuracy", limit, monas(**options)))
    tight = 0.9 * float(bench.columns["energy_mj"].min())
    found.append(under("constraint, tabular, nothing feasible", "energy_mj", tight, **TABULAR))
    found += mixed("")
    found += [under("constraint", metric, limit) for metric, limit in limits(bench) if metric in METRICS]
    return found


def limits(bench: Bench) -> list[tuple[str, float]]:
    """Percentiles of the calibration."""
    wanted = [(metric, share) for metric in METRICS for share in PERCENTILES] + [("macs", 50)]
    return [(metric, bench.calibration.percentile(metric, share)) for metric, share in wanted]


def others(bench: Bench) -> dict[str, Make]:
    """Methods that know nothing of the limit: it picks the winner among their samples."""

    def other(name: str, **options: Any) -> Make:
        def made(view: Resources, rng: np.random.Generator) -> Searcher:
            searcher = load(name)(bench.space, bench.proxy, rng, **options)
            assert isinstance(searcher, Searcher)
            return searcher

        return made

    return {
        "random search": other("random_search"),
        "regularized evolution": other("regularized_evolution", population_size=20, sample_size=5),
    }


def line(bench: Bench, label: str, metric: str, limit: float, seed: int, done: Any) -> dict[str, Any]:
    """A search as a row."""
    searcher, best, answers, device_s = done
    row: dict[str, Any] = {"method": label, "metric": metric, "limit": limit, "seed": seed, "trained": len(answers),
                           "search_device_s": device_s, "winner": best is not None}  # fmt: skip
    if best is not None:
        place = bench.space.index(best.trial.arch)
        row |= {name: best.metrics[name] for name in (*METRICS, "macs")}
        row |= {"valid_accuracy": bench.valid[place], "test_accuracy": bench.test[place]}
        row["architecture"] = bench.space.text(best.trial.arch)
    if isinstance(searcher, MONAS) and not label.startswith("plain"):  # those learn nothing of the limit
        rewards = np.array([reward for _, reward in searcher.trace])
        row |= {"samples": len(rewards), "reward_first_50": rewards[:50].mean(), "reward_last_50": rewards[-50:].mean()}
        row["final_entropy"] = searcher.policy.entropy()
        if metric:
            row |= {"feasible_first_50": (rewards[:50] > 0).mean(), "feasible_last_50": (rewards[-50:] > 0).mean()}
    return row


def summary(bench: Bench, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a method and limit, over the seeds."""
    found = []
    for key in dict.fromkeys((row["method"], row["metric"], row["limit"]) for row in rows):
        mine = [row for row in rows if (row["method"], row["metric"], row["limit"]) == key]
        won = [row for row in mine if row["winner"]]
        label, metric, limit = key
        entry: dict[str, Any] = {
            "method": label,
            "metric": metric,
            "limit": limit,
            "seeds": len(mine),
            "winners": len(won),
        }
        if metric == "accuracy":
            entry["kept"] = sum(row["valid_accuracy"] / 100 >= limit - 1e-12 for row in won)
        elif metric:
            entry["kept"] = sum(row[metric] < limit for row in won)
            there = bench.columns[metric] < limit
            if there.any():
                entry |= {"best_valid": bench.valid[there].max(), "best_test": bench.test[there].max()}
        for name in (*METRICS, "valid_accuracy", "test_accuracy"):
            values = [row[name] for row in won]
            entry |= {f"{name}_mean": np.mean(values) if values else "", f"{name}_std": std(values)}
        for name in ("trained", "samples", "search_device_s", "reward_first_50", "reward_last_50", "feasible_first_50",
                     "feasible_last_50", "final_entropy"):  # fmt: skip
            values = [row[name] for row in mine if row.get(name, "") != ""]
            entry[f"{name}_mean"] = np.mean(values) if values else ""
        found.append(entry)
    return found


def std(values: list[float]) -> float | str:
    """Over the seeds; empty for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else ""


def fronts(bench: Bench, answers: dict[tuple[str, int], list[Evaluation]]) -> list[dict[str, Any]]:
    """Normalised hypervolume of (val_error, energy_mj): all samples of a sweep's four runs, and equally many others."""
    archs = [place for place in range(bench.space.size) if math.isfinite(bench.columns["energy_mj"][place])]
    energies = bench.calibration.values["energy_mj"]
    reference = (90.0, reference_point([(energy,) for energy in energies])[0])
    ideal = (0.0, float(min(energies)))
    whole = [(100 - bench.valid[place], bench.columns["energy_mj"][place]) for place in archs]

    def volume(given: list[Evaluation]) -> float:
        points = [(answer.metrics["val_error"], answer.metrics["energy_mj"]) for answer in given]
        return normalised_hypervolume(points, ideal, reference)

    box = {"reference": " ".join(f"{x:.4g}" for x in reference), "ideal": " ".join(f"{x:.4g}" for x in ideal)}
    ceiling = normalised_hypervolume(whole, ideal, reference)
    found = [{"samples_of": "the whole space", "evaluations": len(whole), "seeds": 1, "hypervolume": ceiling, **box}]
    for label in dict.fromkeys(label for label, _ in answers):
        given = [held for (name, _), held in answers.items() if name == label]
        values = [volume(held) for held in given]
        mean = {"samples_of": label, "evaluations": len(given[0]), "seeds": len(values)}
        found.append({**mean, "hypervolume": float(np.mean(values)), "std": std(values), **box})
    return found


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """As CSV, numbers with six digits."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def below(bench: Bench, label: str, seed: int, done: Any) -> list[dict[str, Any]]:
    """A search that knew of no limit, a row a limit."""
    searcher, _, answers, device_s = done
    rows = []
    for metric, limit in limits(bench):
        kept = [answer for answer in answers if answer.metrics[metric] < limit]
        best = min(kept, key=lambda answer: answer.metrics["val_error"], default=None)
        rows.append(line(bench, label, metric, limit, seed, (searcher, best, answers, device_s)))
    return rows


def job(due: tuple[str, str, float, int]) -> tuple[list[dict[str, Any]], list[Evaluation]]:
    """The rows of one search, and all its answers where a sweep needs them."""
    bench, (label, metric, limit, seed) = BENCH[0], due
    if label in others(bench):
        return below(bench, label, seed, bench.search(others(bench)[label], seed)), []
    if label == "samples":
        return [], bench.search(others(bench)["random search"], 1000 + seed, EVALUATIONS * len(ALPHAS))[2]
    make = next(make for *key, make in methods(bench) if key == [label, metric, limit])
    done = bench.search(make, seed)
    rows = [line(bench, label, metric, limit, seed, done)]
    if label.startswith("mixed, alpha 1"):  # accuracy alone
        rows += below(bench, label.replace("mixed, alpha 1", "plain REINFORCE"), seed, done)
    return rows, done[2] if label.startswith("mixed") else []


BENCH: list[Bench] = []
"""Of this process and its children."""


def main(nb201: Path, hw: Path, processes: int) -> None:
    """All searches."""
    BENCH.append(Bench(nb201, hw))
    jobs = [(label, "", math.inf) for label in (*others(BENCH[0]), "samples")]
    jobs += [(label, metric, limit) for label, metric, limit, _ in methods(BENCH[0])]
    rows: list[dict[str, Any]] = []
    sweeps: dict[tuple[str, int], list[Evaluation]] = {}
    with get_context("fork").Pool(processes) as pool:
        due = [(*job, seed) for job in jobs for seed in range(SEEDS)]
        for (label, *_, seed), (found, answers) in zip(due, pool.imap(job, due), strict=True):
            rows += found
            if found and seed == SEEDS - 1:
                write("searches.csv", rows)
            if answers:
                names = {"samples": "random search", "mixed, tabular": "MONAS, four alphas, tabular"}
                kind = label if label == "samples" else "mixed" + ", tabular" * label.endswith("tabular")
                sweeps.setdefault((names.get(kind, "MONAS, four alphas"), seed), []).extend(answers)
    write("searches.csv", rows)
    write("summary.csv", summary(BENCH[0], rows))
    write("fronts.csv", fronts(BENCH[0], sweeps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
