"""The study of predictors: how well the ranking of networks is predicted from a few of them, and how surely.

Each split draws networks to learn from; all others are predicted. With `twins = removed` those are left out that are
the same network as one that was learnt from, written in another way (`SearchSpace.isomorphism`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import surrogates
from suite.records.folder import Row
from suite.spaces import SearchSpace
from suite.spec.predictors import DataPart, PredictorPart, PredictorsSpec
from suite.statistics.measures import kendall_tau, tau_in_top
from suite.tables import open_table
from suite.tables.base import Table
from suite.tables.scores import read as read_scores
from suite.types import Architecture, BadInput, Unsupported, nearest
from surrogates.encoding import Encoder, Floats

PREDICTORS = (
    "dataset", "predictor", "encoding", "default", "n", "twins", "split", "tau", "tau_top10", "coverage90", "width90",
    "fit_s", "predict_s",
)  # fmt: skip
"""Columns of predictors.csv."""
MEASURED = ("tau", "tau_top10", "coverage90", "width90", "fit_s", "predict_s")
KEY = ("dataset", "predictor", "encoding", "default", "n", "twins")
SUMMARY = (*KEY, "splits", *(f"{name}{end}" for name in MEASURED for end in ("", "_low", "_high")))
"""Columns of predictors_summary.csv: means over splits with their 95 % t intervals."""
KEPT, REMOVED = "kept", "removed"
TOP = 0.1


@dataclass(frozen=True)
class Known:
    """Networks of one data set with their errors."""

    name: str
    """The data set; with its space before it where that is not NAS-Bench-201."""
    space: SearchSpace
    archs: list[Architecture]
    errors: Floats
    """Of each network [%]; inf for a failed training."""
    classes: npt.NDArray[np.intp]
    """Isomorphic networks share a number."""
    cheap: Mapping[str, Mapping[Architecture, float]] = field(default_factory=dict)
    """Rankings that cost little, lower is better: name -> network -> value."""
    sizes: Sequence[int] | None = None
    """Networks to learn from; None: as the spec says."""
    fingerprint: str = ""


def known(part: DataPart, base: Path) -> Iterator[Known]:
    """The data sets of a part of the spec.

    Raises:
        BadInput, Unsupported: The table is missing, or has no such data set, split or training.
    """
    table = open_table(part.table, part.file, base)
    space = table.space
    for dataset in part.datasets or table.datasets:
        if dataset not in table.datasets:
            raise Unsupported(f"table {table.name} has no data set {dataset!r}: {nearest(dataset, table.datasets)}")
        archs, errors = errors_of(table, dataset, part.split, part.epochs)
        number: dict[Hashable, int] = {}
        classes = np.array([number.setdefault(space.isomorphism(arch), len(number)) for arch in archs])
        cheap: dict[str, Mapping[Architecture, float]] = {}
        for epochs in part.cheap_epochs or []:
            cheap[f"{epochs} epochs"] = dict(zip(*errors_of(table, dataset, part.split, epochs), strict=True))
        if part.score_file is not None:
            held = read_scores(part.score_file, space, dataset, base)
            for name in part.scores or held:
                if held and name not in held:
                    raise BadInput(f"{part.score_file} has no score {name!r} of {dataset}: {nearest(name, held)}")
                of = held.get(name, {})
                found = {arch: of.get(arch, of.get(space.simplified(arch), math.nan)) for arch in archs}
                if any(map(math.isfinite, found.values())):
                    cheap[name] = {arch: -value for arch, value in found.items()}  # lower is better everywhere here
        name = dataset if space.name == "nas_bench_201" else f"{space.name} {dataset}"
        yield Known(name, space, archs, errors, classes, cheap, part.sizes, table.fingerprint)


def errors_of(table: Table, dataset: str, split: str, epochs: int | None) -> tuple[list[Architecture], Floats]:
    """The networks that a table knows after a training of so many epochs, and their mean errors over runs [%]."""
    blocks = [b for (at, _), b in table.blocks.items() if at.dataset == dataset and at.split == split]
    whole = [block for block in blocks if block.setting.stage == block.setting.proxy.epochs]
    wanted = [block for block in whole if epochs is None or block.setting.stage == epochs]
    if not wanted:
        there = sorted({block.setting.stage for block in whole})
        raise Unsupported(
            f"table {table.name} has no {split} errors of {dataset} after {epochs or 'all'} epochs: {there}"
        )
    proxies = {block.setting.proxy for block in wanted}
    best = max(proxies, key=lambda p: (p.epochs, p.channels, p.resolution, p.samples, p.cells or 0))
    block = next(block for block in wanted if block.setting.proxy == best)
    rows = np.flatnonzero(block.counts)
    present = block.present[rows]
    errors = np.where(present, np.broadcast_to(block.numbers["error"], block.present.shape)[rows], 0.0).astype(
        np.float64
    )
    places = rows if table.places is None else np.asarray(table.places)[rows]
    return [table.space.at(int(place)) for place in places], errors.sum(axis=1) / present.sum(axis=1)


def label_of(part: PredictorPart) -> str:
    """What its rows are called."""
    return part.label or part.name


def is_default(part: PredictorPart) -> bool:
    """Whether it is what a user gets who names nothing."""
    plain = part.encoding in (None, "auto") and not (part.options or part.features or part.as_written)
    return part.name == surrogates.DEFAULT and plain


class Study:
    """One data set of the spec; rows are yielded as they are measured."""

    def __init__(self, spec: PredictorsSpec, data: Known) -> None:
        self.spec, self.data = spec, data
        self.encoders: dict[Any, Encoder] = {}

    def check(self) -> None:
        """Raises BadInput or Unsupported if a predictor, an encoding or a feature is wrong."""
        for part in self.spec.predictors:
            if self.takes_part(part):
                surrogates.make(part.name, **part.options)
                self.encoder(part)

    def takes_part(self, part: PredictorPart) -> bool:
        """Whether a predictor is asked for here, and its features are known."""
        return part.datasets is None or self.data.name in part.datasets

    def encoder(self, part: PredictorPart) -> Encoder:
        """The encoder of a predictor; those of the same encoding share one."""
        for feature in part.features or ():
            if feature not in self.data.cheap:
                raise BadInput(f"{label_of(part)}: no feature {feature!r} of {self.data.name}: "
                               f"{nearest(feature, self.data.cheap)}")  # fmt: skip
        encoding = part.encoding or surrogates.load_class(part.name).encoding
        key = (encoding, part.as_written, tuple(part.features or ()))
        if key not in self.encoders:
            extra = {name: self.data.cheap[name] for name in part.features or ()}
            self.encoders[key] = Encoder(self.data.space, encoding, simplified=not part.as_written, extra=extra)
        return self.encoders[key]

    @property
    def sizes(self) -> list[int]:
        """Networks to learn from that leave as many to predict."""
        return [n for n in self.data.sizes or self.spec.sizes if 2 * n <= len(self.data.archs)]

    def due(self) -> list[tuple[PredictorPart | str, int]]:
        """Predictors and sizes in order; rankings that learn nothing have size 0."""
        parts = [part for part in self.spec.predictors if self.takes_part(part)]
        return [(name, 0) for name in self.data.cheap] + [(part, n) for part in parts for n in self.sizes]

    def rows(self, part: PredictorPart | str, n: int) -> list[Row]:
        """The rows of one predictor and size, two a split."""
        return [row for k in range(self.spec.splits) for row in self.split(part, n, k)]

    def split(self, part: PredictorPart | str, n: int, k: int) -> Iterator[Row]:
        """One draw of networks."""
        data = self.data
        order = np.random.default_rng(self.spec.seed0 + k).permutation(len(data.archs))
        learnt, held = order[:n], order[n:]
        if isinstance(part, str):
            values = np.array([data.cheap[part][data.archs[i]] for i in held])
            there = np.isfinite(values)
            held, mean, low, high = held[there], values[there], None, None
            row: dict[str, object] = {"predictor": part, "encoding": "", "default": "false"}
            fit_s = predict_s = math.nan
        else:
            encoder = self.encoder(part)
            x = encoder(data.archs)
            model = surrogates.make(part.name, columns=encoder.names, **{"seed": k, **part.options})
            began = time.perf_counter()
            model.fit(x[learnt], data.errors[learnt], groups=data.classes[learnt].tolist())
            fit_s = time.perf_counter() - began
            began = time.perf_counter()
            mean = model.mean(x[held])
            predict_s = time.perf_counter() - began
            low, high = model.interval(x[held], self.spec.level)
            row = {"predictor": label_of(part), "encoding": encoder.label, "default": str(is_default(part)).lower()}
        truth = data.errors[held]
        fresh = ~np.isin(data.classes[held], data.classes[learnt])
        for twins, among in ((KEPT, np.ones(len(held), dtype=bool)), (REMOVED, fresh)):
            inside = width = math.nan
            if low is not None and high is not None:
                inside = float(((low <= truth) & (truth <= high))[among].mean())
                width = float(np.median((high - low)[among]))
            yield {
                "dataset": data.name, **row, "n": n, "twins": twins, "split": k,
                "tau": kendall_tau(mean[among], truth[among]), "tau_top10": tau_in_top(mean[among], truth[among], TOP),
                "coverage90": inside, "width90": width, "fit_s": fit_s, "predict_s": predict_s,
            }  # fmt: skip


def summary(rows: Sequence[Row]) -> list[Row]:
    """Means over splits with their 95 % t intervals."""
    return means(rows, KEY, MEASURED)


def means(rows: Sequence[Row], key: Sequence[str], measured: Sequence[str]) -> list[Row]:
    """Means over the rows of each key, and the ends of their 95 % intervals by Student's t."""
    from scipy.stats import t as student

    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in key), []).append(row)
    found: list[Row] = []
    for values_of, members in groups.items():
        made: dict[str, object] = {**dict(zip(key, values_of, strict=True)), "splits": len(members)}
        for name in measured:
            values = np.array([row[name] for row in members], dtype=np.float64)
            mean, many = float(values.mean()), len(values)
            half = float(student.ppf(0.975, many - 1) * values.std(ddof=1) / many**0.5) if many > 1 else math.nan
            made |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
        found.append(made)
    return found


def conduct(studies: Sequence[Study], done: Sequence[Row], keep: Callable[[list[Row]], None]) -> list[Row]:
    """All rows; those that are done are not measured again, and `keep` hears of all after each predictor and size."""
    before: dict[tuple[object, ...], list[Row]] = {}
    for row in done:
        before.setdefault(tuple(row[name] for name in ("dataset", "predictor", "encoding", "n")), []).append(row)
    rows: list[Row] = []
    due = [(study, part, n) for study in studies for part, n in study.due()]
    # rankings first, then each predictor on all data sets: what was asked for first is there first
    due.sort(key=lambda one: -1 if isinstance(one[1], str) else one[0].spec.predictors.index(one[1]))
    for study, part, n in due:
        names = ("", part) if isinstance(part, str) else (study.encoder(part).label, label_of(part))
        held = before.get((study.data.name, names[1], names[0], n), [])
        complete = len(held) == 2 * study.spec.splits
        rows += held if complete else study.rows(part, n)
        if not complete:
            keep(rows)
    return rows


def read(path: Path) -> list[Row]:
    """The rows of a predictors.csv.

    Raises:
        BadInput: It is no such file.
    """
    import csv

    try:
        with path.open(newline="", encoding="utf-8") as file:
            held = list(csv.DictReader(file))
        return [
            {
                **row, "n": int(row["n"]), "split": int(row["split"]),
                **{name: float(row[name] or "nan") for name in MEASURED},
            }
            for row in held
        ]  # fmt: skip
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: no table of predictors: {type(error).__name__}: {error}") from None
