"""Surrogate benchmarks from tables and logs, and how right they are on networks that they were not fitted on.

Each draw is checked three ways: `random`: the other networks; `larger`: fitted on networks below the median size only,
asked about those above it; `better`: fitted on networks of the worse 90 %, asked about the best 10 %. Trivial
predictors stand beside the surrogate, and the rank agreement of single runs says how far seeds let anyone come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import surrogates
from suite.records.folder import Row
from suite.spaces import SearchSpace
from suite.statistics.measures import kendall_tau, tau_in_top
from suite.study.predictors import means
from suite.tables import open_table
from suite.tables.base import Table
from suite.types import BadInput, Unsupported, nearest
from surrogates.benchmark import Benchmark, Rows, Setting
from surrogates.encoding import Encoder

CHECKED = (
    "dataset", "predictor", "held_out", "twins", "n", "split", "networks", "r2", "tau", "tau_top10", "coverage90",
    "width90", "seed_tau",
)  # fmt: skip
"""Columns of a check."""
KEY = ("dataset", "predictor", "held_out", "twins", "n")
MEASURED = ("r2", "tau", "tau_top10", "coverage90", "width90", "seed_tau")
TRIVIAL = ("ridge", "size")


def gathered(table: Table, dataset: str | None, split: str) -> tuple[str, Rows]:
    """All trained networks of one data set, each under each setting.

    Raises:
        BadInput, Unsupported: There are several data sets and none was named, or there is none of this name.
    """
    if dataset is None:
        if len(table.datasets) > 1:
            raise BadInput(f"table {table.name} has several data sets; name one: {', '.join(table.datasets)}")
        (dataset,) = table.datasets
    if dataset not in table.datasets:
        raise Unsupported(f"table {table.name} has no data set {dataset!r}: {nearest(dataset, table.datasets)}")
    rows = Rows()
    for (at, _), block in table.blocks.items():
        if at.dataset != dataset or at.split != split:
            continue
        setting = Setting(table.space.canonical(at.proxy), at.stage)
        shape = block.present.shape
        errors = np.broadcast_to(block.numbers["error"], shape)
        seconds = np.broadcast_to(block.numbers["device_s"], shape)
        for row in np.flatnonzero(block.counts):
            there = block.present[row]
            runs = errors[row][there].astype(float)
            rows.archs.append(table.space.at(int(row if table.places is None else table.places[row])))
            rows.settings.append(setting)
            rows.errors.append(float(runs.mean()))
            rows.seconds.append(float(seconds[row][there].mean()))
            rows.runs.append(tuple(runs.tolist()) if len(runs) > 1 else ())
    if not rows.archs:
        raise Unsupported(f"table {table.name} has no {split} errors of {dataset}")
    return dataset, rows


def chosen(rows: Rows, keep: Sequence[int]) -> Rows:
    """Some of the rows."""
    return Rows(
        *([getattr(rows, name)[i] for i in keep] for name in ("archs", "settings", "errors", "seconds", "runs"))
    )


def fit(
    source: str, file: Path | None, dataset: str | None, *, split: str = "valid", networks: int | None = None,
    seed: int = 0, predictor: str = surrogates.DEFAULT,
) -> Benchmark:  # fmt: skip
    """A surrogate benchmark of a table or log.

    Raises:
        BadInput: The table is missing, holds several data sets and none was named, or too few networks.
        Unsupported: It has no such data set or split.
    """
    table = open_table(source, file)
    dataset, rows = gathered(table, dataset, split)
    archs = sorted(set(rows.archs))
    if networks is not None:
        if networks > len(archs):
            raise BadInput(
                f"surrogate: networks must be at most the {len(archs):,} that {table.name} has, not {networks:,}"
            )
        drawn = {archs[i] for i in np.random.default_rng(seed).choice(len(archs), networks, replace=False)}
        rows = chosen(rows, [i for i, arch in enumerate(rows.archs) if arch in drawn])
    about = {
        "table": table.name, "fingerprint": table.fingerprint, "split": split,
        "device": " + ".join(device.removeprefix("table:") for device in table.devices),
    }  # fmt: skip
    return Benchmark.fit(table.space, dataset, rows, predictor=predictor, seed=seed, about=about)


def check(
    source: str, file: Path | None, dataset: str | None, *, split: str = "valid", networks: int = 500, splits: int = 5,
    seed: int = 0, predictor: str = surrogates.DEFAULT,
) -> list[Row]:  # fmt: skip
    """Figures of surrogates fitted to some networks of a table, on its others, at the longest training.

    Raises:
        BadInput, Unsupported: As `fit`.
    """
    table = open_table(source, file)
    dataset, rows = gathered(table, dataset, split)
    longest = max(set(rows.settings), key=lambda setting: setting.sizes)
    rows = chosen(rows, [i for i, setting in enumerate(rows.settings) if setting == longest])
    if 2 * networks > len(rows.archs):
        raise BadInput(
            f"surrogate check: networks must be at most half of the {len(rows.archs):,} there, not {networks:,}"
        )
    classes = np.unique([repr(table.space.isomorphism(arch)) for arch in rows.archs], return_inverse=True)[1]
    names = [predictor, *(name for name in TRIVIAL if encodes(table.space, name))]
    encoders = {name: Encoder(table.space, surrogates.load_class(name).encoding) for name in names}
    found: list[Row] = []
    for k in range(splits):
        order = np.random.default_rng(seed + k).permutation(len(rows.archs))
        for held_out, learnt, held in ways(table.space, rows, order, networks):
            for name in names:
                found += checked(dataset, name, encoders[name], rows, classes, held_out, learnt, held, k, seed)
    return found


def encodes(space: SearchSpace, name: str) -> bool:
    """Whether a predictor can be used here: sizes need a formula."""
    try:
        Encoder(space, surrogates.load_class(name).encoding)
    except Unsupported:
        return False
    return True


Places = npt.NDArray[np.intp]


def ways(space: SearchSpace, rows: Rows, order: Places, networks: int) -> Iterator[tuple[str, Places, Places]]:
    """(name, networks to fit, networks to ask) of each way to hold out."""
    yield "random", order[:networks], order[networks:]
    errors = np.array(rows.errors)
    better = errors <= np.quantile(errors, 0.1)
    yield "better", order[~better[order]][:networks], np.flatnonzero(better)
    if encodes(space, "size"):
        sizes = Encoder(space, "size")(rows.archs)[:, 0]
        larger = sizes > np.median(sizes)
        smaller = order[~larger[order]][:networks]
        if larger.any() and len(smaller) >= networks // 2:
            yield "larger", smaller, np.flatnonzero(larger)


def checked(
    dataset: str, name: str, encoder: Encoder, rows: Rows, classes: Places, held_out: str, learnt: Places, held: Places,
    k: int, seed: int,
) -> Iterator[Row]:  # fmt: skip
    """The figures of one fit, with twins and without."""
    errors, x = np.array(rows.errors), encoder(rows.archs)
    model = surrogates.make(name, columns=encoder.names, seed=seed + k)
    model.fit(x[learnt], errors[learnt], groups=classes[learnt].tolist())
    usable = held[np.isfinite(errors[held])]
    mean, (low, high) = model.mean(x[usable]), model.interval(x[usable], 0.9)
    truth, fresh = errors[usable], ~np.isin(classes[usable], classes[learnt])
    for twins, among in (("kept", np.ones(len(usable), dtype=bool)), ("removed", fresh)):
        if among.sum() < 10:
            continue
        t, m = truth[among], mean[among]
        yield {
            "dataset": dataset, "predictor": name, "held_out": held_out, "twins": twins, "n": len(learnt), "split": k,
            "networks": int(among.sum()), "r2": 1 - float(((t - m) ** 2).sum() / ((t - t.mean()) ** 2).sum()),
            "tau": kendall_tau(m, t), "tau_top10": tau_in_top(m, t, 0.1),
            "coverage90": float(((low <= truth) & (truth <= high))[among].mean()),
            "width90": float(np.median((high - low)[among])), "seed_tau": seed_tau(rows, usable[among]),
        }  # fmt: skip


def seed_tau(rows: Rows, places: Places) -> float:
    """Rank agreement of the first run with the mean of the others; nan where there are no repeated runs."""
    pairs: list[tuple[float, float]] = []
    for i in places:
        runs = rows.runs[i]
        if len(runs) > 1 and all(map(math.isfinite, runs)):
            pairs.append((runs[0], float(np.mean(runs[1:]))))
    if len(pairs) < 10:
        return math.nan
    first, others = np.array(pairs).T
    return kendall_tau(first, others)


def summary(rows: Sequence[Row]) -> list[Row]:
    """Means over draws with their 95 % t intervals."""
    return means(rows, KEY, MEASURED)
