"""Answers read from a table: a search sees validation errors, the judge what the search did not.

With a test split the judge answers with the mean test error over the stored runs. Without one the search with seed
s sees run s mod k of an architecture's k runs, and the judge asked with that seed answers with the mean of the
others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from suite.tables.base import Array, Table, TableBlock, TableSetting
from suite.types import Architecture, BadInput, Cost, Evaluation, Proxy, Trial, Unsupported, nearest, refuse_origin

OTHER_SEEDS = "validation, other seeds"
OBJECTIVES = ("params", "macs", "latency_ms", "energy_mj")
"""Metrics beside the error, where the table knows them."""


@dataclass(frozen=True)
class Answers:
    """All answers to one (proxy, stage): what seed s is told about a row stands in column s mod counts[row]."""

    counts: Array  # (architectures,)
    error: Array  # (architectures, runs) [%]
    device_s: Array  # (architectures, runs)
    energy_j: Array | None  # (architectures, runs)
    spent_macs: Array | None  # (architectures, runs)
    objectives: tuple[tuple[str, Array], ...]  # each (architectures, runs)
    device: tuple[Array, tuple[str, ...]]
    failure: tuple[Array, tuple[str, ...]]
    earlier: bool
    """Whether this proxy has stages to go on from."""

    @cached_property
    def cells(self) -> Cells:
        """The same, to be read cell by cell."""
        return Cells(
            self.counts.data,
            self.error.data,
            self.device_s.data,
            None if self.energy_j is None else self.energy_j.data,
            None if self.spent_macs is None else self.spent_macs.data,
            tuple((name, column.data) for name, column in self.objectives),
            self.device[0].data,
        )


class Cells(NamedTuple):
    """Columns of `Answers` as memory views, which give a cell in half the time that an array takes."""

    counts: memoryview
    error: memoryview
    device_s: memoryview
    energy_j: memoryview | None
    spent_macs: memoryview | None
    objectives: tuple[tuple[str, memoryview], ...]
    device: memoryview


class TableEvaluator:
    """A table as evaluator, for one data set.

    A later stage of a run (same architecture, proxy and seed) pays only what it adds to the stage asked before; a stage
    that is not beyond that one is a new training and pays in full, as in the benchmarks' own simulations.

    Args:
        table: From `open_table`.
        dataset: One of the table's.
        view: "search" (validation only) or "judge".
        full: The full training to judge at; by default the table's longest (widest, finest) proxy.

    Raises:
        Unsupported: The table has no such data set, nothing but test data for a search, or nothing to judge with.
    """

    def __init__(
        self, table: Table, dataset: str, *, view: Literal["search", "judge"] = "search", full: Proxy | None = None
    ) -> None:
        if dataset not in table.datasets:
            raise Unsupported(f"table {table.name} has no data set {dataset!r}: {nearest(dataset, table.datasets)}")
        if view not in ("search", "judge"):
            raise BadInput(f"a table is viewed as search or judge, not {view!r}")
        self.table, self.dataset, self.view = table, dataset, view
        self.space = table.space
        self.name = f"table:{table.name}"
        held = [setting for setting, _ in table.blocks if setting.dataset == dataset]
        self.judge = "test" if any(setting.split == "test" for setting in held) else OTHER_SEEDS
        """What the judge answers with: "test", or "validation, other seeds"."""
        self.split = "test" if view == "judge" and self.judge == "test" else "valid"
        self._stages: dict[Proxy, tuple[int, ...]] = {}
        for proxy in dict.fromkeys(setting.proxy for setting in held if setting.split == self.split):
            stages = {setting.stage for setting in held if setting.proxy == proxy and setting.split == self.split}
            self._stages[proxy] = tuple(sorted(stages))
        if not self._stages:
            raise Unsupported(
                f"table {table.name} holds only test errors of {dataset}, and no search is shown test data; "
                "search on a table with a validation split"
            )
        longest = max({setting.proxy for setting in held}, key=proxy_size)
        self.full = longest if full is None else self.space.canonical(full)
        """The full training."""
        self.error_name = "test_error" if self.split == "test" else "val_error"
        self._asked: tuple[Proxy | None, int, Answers | None] = (None, 0, None)  # what the last question was about
        self._answers: dict[tuple[Proxy, int], Answers] = table.memo.setdefault((dataset, view), {})
        self._trained: dict[tuple[Architecture, Proxy, int], int] = {}  # a run -> the stage it was paid up to
        if view == "judge" and self.judge == OTHER_SEEDS and not self.answers(self.full, self.full.epochs).counts.any():
            raise Unsupported(
                f"table {table.name} has one run of {dataset} and no test split: nothing to judge with; "
                "use a table with several seeds"
            )

    # What it holds

    def proxies(self) -> list[Proxy]:
        """The proxies that can be asked here."""
        return list(self._stages)

    def stages(self, proxy: Proxy) -> tuple[int, ...]:
        """Epochs at which a run of `proxy` can be asked, ascending."""
        known = self._stages.get(self.space.canonical(proxy))
        if known is None and proxy.task not in {held.task for held in self._stages}:
            raise Unsupported(
                f"{self.name} has no answers to task {proxy.task!r}: it has no images to train on; "
                "leave task out, or give evaluator.kind = 'live'"
            )
        if known is None:
            raise Unsupported(f"{self.name} holds no {proxy} of {self.dataset} ({self.split}); it holds {self._held()}")
        return known

    @property
    def device(self) -> str:
        """What its seconds are of; several are named together."""
        return " + ".join(self.table.devices) or self.name

    def optimum(self, seed: int = 0) -> float:
        """The best error that any architecture of the table gets from the judge [%]."""
        judge = self if self.view == "judge" else TableEvaluator(self.table, self.dataset, view="judge", full=self.full)
        errors = judge.errors(self._all(), self.full, seed=seed)
        return float(np.nanmin(errors))

    def _all(self) -> Array:
        return np.arange(self.space.size) if self.table.places is None else self.table.places

    def _held(self) -> str:
        return ", ".join(
            f"{proxy} at {'/'.join(map(str, stages)) if len(stages) < 9 else f'{len(stages)} stages'}"
            for proxy, stages in self._stages.items()
        )

    # Questions

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in the order of the trials.

        Raises:
            Unsupported: A trial is not in the table; none of them was paid.
        """
        if len(trials) == 1:
            return [self._answer(trials[0], *self._find(trials[0]))]
        found = [self._find(trial) for trial in trials]
        return [self._answer(trial, *place) for trial, place in zip(trials, found, strict=True)]

    def error(self, trial: Trial) -> float:
        """The error that `evaluate` would answer with [%], and nothing else: the quickest single question.

        Nothing is paid: what a later stage costs is as if this had not been asked.

        Raises:
            Unsupported: The trial is not in the table.
        """
        answers, row, run = self._find(trial)
        error: float = answers.cells.error[row, run]
        return error

    def _find(self, trial: Trial) -> tuple[Answers, int, int]:
        """Where a trial's answer stands: the row and the run."""
        if trial.origin:
            refuse_origin(trial, self.name)
        proxy, epochs, answers = self._asked
        if answers is None or trial.proxy is not proxy or trial.epochs != epochs:
            answers = self.answers(trial.proxy, trial.epochs)
            self._asked = trial.proxy, trial.epochs, answers
        row = self.table.row_of.get(trial.arch)
        if row is None:
            row = self.table.row(trial.arch)
        runs = answers.cells.counts[row] if row >= 0 else 0
        if not runs:
            raise self._without(trial, row)
        return answers, row, trial.seed % runs

    def _without(self, trial: Trial, row: int) -> Unsupported:
        text, held = self.space.text(trial.arch), len(self.table)
        if row < 0:
            return Unsupported(f"{self.name} has no {text}; it holds {held:,} of {self.space.size:,} architectures")
        return Unsupported(f"{self.name}: {text} was not run as {trial.proxy} at {trial.epochs}")

    def errors(self, arch_index: Array, proxy: Proxy, stage: int = 0, seed: int | Array = 0) -> Array:
        """Errors of many architectures at once [%].

        Args:
            arch_index: The space's `index` of each, shape (n,).
            proxy: The run.
            stage: Where it is asked, 1..proxy.epochs; 0 is its end.
            seed: One for all, or shape (n,).

        Returns:
            Shape (n,), as `evaluate` would answer; nan where the table has no answer.
        """
        answers = self.answers(proxy, stage or proxy.epochs)
        rows = self.table.rows(arch_index)
        runs = answers.counts[rows]
        known = (rows >= 0) & (runs > 0)
        errors = answers.error[rows, np.asarray(seed) % np.maximum(runs, 1)]
        return errors if known.all() else np.where(known, errors, np.nan)

    def recall(self, evaluation: Evaluation) -> None:
        """Take note of an answer that was given before (by a log), so that later stages cost what they would have."""
        trial = evaluation.trial
        self._trained[trial.arch, self.space.canonical(trial.proxy), trial.seed] = trial.epochs

    def _answer(self, trial: Trial, answers: Answers, row: int, run: int) -> Evaluation:
        _, errors, device_s, joules, spent, objectives, words = answers.cells
        here = row, run
        error: float = errors[here]
        seconds: float = device_s[here]
        energy_j: float | None = None if joules is None else joules[here]
        macs: float = math.nan if spent is None else spent[here]
        if answers.earlier:
            run_key = (trial.arch, self.space.canonical(trial.proxy), trial.seed)
            paid = self._trained.get(run_key, trial.epochs)
            self._trained[run_key] = trial.epochs
            before = self.answers(trial.proxy, paid).cells if paid < trial.epochs else None
            if before is not None and (runs := before.counts[row]):
                earlier = row, trial.seed % runs
                seconds -= before.device_s[earlier]
                macs -= math.nan if before.spent_macs is None else before.spent_macs[earlier]
                if energy_j is not None:
                    energy_j -= math.nan if before.energy_j is None else before.energy_j[earlier]
        devices = answers.device[1]
        device = devices[0] if len(devices) == 1 else devices[words[here]]
        metrics = {self.error_name: error}
        failure = ""
        if error < math.inf:
            for name, column in objectives:
                value = column[here]
                if value == value:  # not nan; an infinite one cannot be run on its device
                    metrics[name] = value
        else:
            metrics |= {name: math.inf for name, _ in objectives}
            codes, reasons = answers.failure
            failure = reasons[codes.item(here)] or "failed when the table was made"
        if energy_j is not None and math.isnan(energy_j):
            energy_j = None
        return evaluation(trial, metrics, seconds, device or self.name, energy_j, macs, failure)

    def answers(self, proxy: Proxy, stage: int) -> Answers:
        """All that this view says about one (proxy, stage), in columns; made once."""
        known = self._answers.get((proxy, stage))
        if known is None:
            stages = self.stages(proxy)
            if stage not in stages:
                raise Unsupported(
                    f"{self.name} holds {proxy} of {self.dataset} ({self.split}) at epochs "
                    f"{', '.join(map(str, stages))}, not at {stage}"
                )
            known = self._answers[proxy, stage] = self._gather(self.space.canonical(proxy), stage)
        return known

    def _gather(self, proxy: Proxy, stage: int) -> Answers:
        setting = TableSetting(self.dataset, proxy, stage, self.split)
        runs, mean = (self.table.blocks.get((setting, is_mean)) for is_mean in (False, True))
        block = runs or mean
        assert block is not None  # `stages` has it
        columns: dict[str, Array] = dict(block.numbers)
        counts = block.counts
        if self.split == "test":
            columns, counts = over_runs(runs, mean)
        elif self.view == "judge":
            columns, counts = over_other_runs(block)
        elif runs is not None and mean is not None:
            columns, counts = fill_in(runs, mean)
        shape = columns["error"].shape

        def known(name: str) -> Array | None:
            column = columns[name]
            once = column[tuple(slice(1) if step == 0 else slice(None) for step in column.strides)]
            return column if once.size and (once[0, 0] == once[0, 0] or not np.isnan(once).all()) else None

        return Answers(
            counts,
            columns["error"],
            columns["device_s"],
            known("energy_j"),
            known("spent_macs"),
            tuple((name, column) for name in OBJECTIVES if (column := known(name)) is not None),
            words(block, "device", shape),
            words(block, "failure", shape),
            earlier=self.view == "search" and len(self._stages[proxy]) > 1,
        )


def evaluation(
    trial: Trial, metrics: dict[str, float], device_s: float, device: str, energy_j: float | None, macs: float,
    failure: str,
) -> Evaluation:  # fmt: skip
    """`Evaluation(trial, metrics, Cost(device_s, ...), failure)`, made in half the time.

    The constructor of a frozen class looks up and calls `object.__setattr__` for each field; a search on a table does
    little else.
    """
    cost, made = new(Cost), new(Evaluation)
    for_device_s(cost, device_s)
    for_device(cost, device)
    for_energy_j(cost, energy_j)
    for_macs(cost, macs)
    for_trial(made, trial)
    for_metrics(made, metrics)
    for_cost(made, cost)
    for_failure(made, failure)
    for_curve(made, ())
    return made


new = object.__new__
for_device_s, for_device, for_energy_j, for_macs = (getattr(Cost, slot).__set__ for slot in Cost.__slots__)
for_trial, for_metrics, for_cost, for_failure, for_curve = (
    getattr(Evaluation, slot).__set__ for slot in Evaluation.__slots__
)


def proxy_size(proxy: Proxy) -> tuple[float, ...]:
    """Order of proxies from small to full."""
    return (proxy.epochs, proxy.channels, proxy.resolution, proxy.samples, proxy.cells or 0)


def words(block: TableBlock, name: str, shape: tuple[int, ...]) -> tuple[Array, tuple[str, ...]]:
    """A text column in the shape of the answers."""
    codes, vocabulary = block.texts[name]
    return (codes if codes.shape == shape else np.broadcast_to(codes[:, :1], shape)), vocabulary


SPENT = ("device_s", "energy_j", "spent_macs")
"""What several runs take together; all else is a mean."""


def over_runs(runs: TableBlock | None, mean: TableBlock | None) -> tuple[dict[str, Array], Array]:
    """The benchmark's own mean where it has one, else the mean over the runs; each (architectures, 1)."""
    if runs is None:
        assert mean is not None
        return dict(mean.numbers), mean.counts
    present = runs.present
    columns = {name: combine(column, present, name)[:, None] for name, column in runs.numbers.items()}
    counts = np.minimum(runs.counts, 1)
    if mean is not None:
        has_mean = mean.counts[:, None] > 0
        columns = {name: np.where(has_mean, mean.numbers[name], column) for name, column in columns.items()}
        counts = np.maximum(counts, mean.counts)
    return columns, counts


def over_other_runs(block: TableBlock) -> tuple[dict[str, Array], Array]:
    """In column r the mean over all runs but r; none where there is one run or only a mean."""
    present, width = block.present, block.seeds.shape[1]
    columns = {}
    for name, column in block.numbers.items():
        without = [combine(column, present & (np.arange(width) != run), name) for run in range(width)]
        columns[name] = np.stack(without, axis=1)  # (architectures, runs)
    enough = (block.counts > 1) & (not block.mean)
    return columns, np.where(enough, block.counts, 0)


def fill_in(runs: TableBlock, mean: TableBlock) -> tuple[dict[str, Array], Array]:
    """The runs, and the mean as the one answer where there are none."""
    only_mean = (runs.counts == 0) & (mean.counts > 0)
    columns = {name: np.where(only_mean[:, None], mean.numbers[name], column) for name, column in runs.numbers.items()}
    return columns, np.where(only_mean, 1, runs.counts)


def combine(column: Array, present: Array, name: str) -> Array:
    """Mean over the runs that are present, or the sum of what they took; nan where there is none."""
    total = np.where(present, column, 0.0).sum(axis=1)
    number = present.sum(axis=1)
    combined: Array = np.where(number > 0, total if name in SPENT else total / np.maximum(number, 1), np.nan)
    return combined
