"""Reading of a results folder: the columns of its CSV files, typed and checked.

A column that is missing, a cell that is no number and a line of the wrong length are refused, naming file, line and
column; further columns are kept. An empty cell means "not known": "" in a text column, nan in a number.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from suite.types import JSON, BadInput

if TYPE_CHECKING:
    import pandas as pd

Row: TypeAlias = dict[str, Any]
"""One line of a CSV: text as str, numbers as float."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "leaderboard.csv": (
        "searcher", "space", "dataset", "evaluator", "seeds", "judge", "judge_error_mean", "judge_error_low",
        "judge_error_high", "judge_error_std", "regret_mean", "val_error_mean", "params", "macs", "evaluations",
        "search_device_s", "gpu_days", "clock", "device", "note", "command",
    ),
    "winners.csv": (
        "searcher", "space", "dataset", "evaluator", "seed", "architecture", "val_error", "judge_error", "regret",
        "params", "macs", "evaluations", "search_device_s",
    ),
    "anytime.csv": (
        "searcher", "space", "dataset", "device_s", "judge_error_mean", "judge_error_low", "judge_error_high", "seeds",
    ),
    "ledger.csv": (
        "searcher", "space", "dataset", "phase", "clock", "device", "evaluations", "device_s", "gpu_days", "macs",
        "energy_j",
    ),
    "consistency.csv": (
        "space", "dataset", "proxy", "epochs", "channels", "resolution", "samples", "cells", "n", "failed", "tau",
        "tau_low", "tau_high", "tau_a", "tau_c", "weighted_tau", "weighted_tau_low", "weighted_tau_high", "spearman",
        "spearman_low", "spearman_high", "top10_overlap", "top10_overlap_low", "top10_overlap_high", "best_rank_at_10",
        "tau_top10", "regret_at_1", "ceiling_tau", "ceiling_low", "ceiling_high", "ceiling", "judge", "seeds_proxy",
        "seeds_full", "device_s", "full_device_s", "speedup_device", "speedup_macs", "clock", "device", "command",
    ),
    "scores.csv": (
        "space", "dataset", "architecture", "proxy", "seed", "val_error", "test_error", "device_s", "params", "macs",
        "failure",
    ),
}  # fmt: skip
"""The public contract: which columns each file has. docs/report.md says what they mean."""

TEXT = frozenset(
    {
        "searcher", "space", "dataset", "evaluator", "judge", "clock", "device", "note", "command", "architecture",
        "phase", "proxy", "task", "ceiling", "failure",
    }
)  # fmt: skip
"""The columns that are text; all others are numbers."""

NUMBERS = frozenset(column for columns in COLUMNS.values() for column in columns) - TEXT

MORE_NUMBERS = frozenset(
    {
        "stage", "possible_tau", "possible_low", "possible_high", "unknown", "speedup_theory", "speedup_energy", "p",
        "energy_j", "full_energy_j", "tau_top10_low", "tau_top10_high", "regret_at_1_low", "regret_at_1_high", "p_holm",
        "best_rank_at_10_low", "best_rank_at_10_high", "slope", "slope_low", "slope_high", "loss", "loss_low",
        "loss_high", "value", "low", "high", "gain", "gain_low", "gain_high", "reach", "budget", "budget_s", "cost_s",
        "regret", "regret_low", "regret_high", "flat_regret", "flat_low", "flat_high", "saved", "saved_low",
        "saved_high", "rank", "rank_low", "rank_high", "linear", "linear_low", "linear_high", "reachable", "off_by",
        "proxies", "networks", "networks_for_0_05", "difference", "front",
    }
)  # fmt: skip
"""Columns of numbers that a file may have or lack."""

FINDINGS = (
    "answers.csv", "comparisons.csv", "factors.csv", "claims.csv", "power.csv", "front.csv", "recommendations.csv",
    "strategies.csv", "transfer.csv",
)  # fmt: skip
"""Files of a study's findings; read where they are there, without a fixed list of columns."""

THIN = 60_000
"""Lines of scores.csv from which on the figures show some of the networks only."""
SHOWN = 1_000
"""Networks that they then show."""

SPECS = ("spec.resolved.toml", "spec.toml")
CLOCKS = ("simulated", "measured", "")


@dataclass(frozen=True)
class ResultsFolder:
    """One folder's files: the report's own folder or an immediate sub-folder of it."""

    name: str
    """Relative to the report's folder; "" for the folder itself."""
    tables: Mapping[str, list[Row]]
    """Rows by file name; a file that is not there has none."""
    environment: JSON
    spec: str
    """The text of the resolved spec; empty if there is none."""


def read_folder(folder: Path) -> list[ResultsFolder]:
    """The folder and its immediate sub-folders, as far as they hold results.

    Raises:
        BadInput: No results at all, or a file breaks the contract.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; a report is made from the folder that `run` or `study` wrote")
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "figures" and p.name[0] != ".")
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {error.strerror}") from error
    sources = [_read_source(path, "" if path == folder else path.name) for path in (folder, *inside)]
    sources = [source for source in sources if any(source.tables.values())]
    if not sources:
        raise BadInput(
            f"{folder}: nothing to report; looked there and in its {len(inside)} sub-folders for "
            f"{', '.join(COLUMNS)} with at least one row"
        )
    return sources


def _read_source(folder: Path, name: str) -> ResultsFolder:
    tables = {file: read_csv(folder / file) for file in (*COLUMNS, *FINDINGS) if (folder / file).is_file()}
    environment: Any = {}
    if (folder / "environment.json").is_file():
        try:
            environment = json.loads(_text(folder / "environment.json"))
        except ValueError as error:
            raise BadInput(f"{folder / 'environment.json'}: not JSON: {error}") from error
        if not isinstance(environment, dict):
            raise BadInput(f"{folder / 'environment.json'}: holds no object of names and values")
    spec = next((_text(folder / file) for file in SPECS if (folder / file).is_file()), "")
    return ResultsFolder(name, tables, environment, spec)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def read_csv(path: Path) -> list[Row]:
    """The rows of a file of the contract, checked; its name says which columns it must have.

    Raises:
        BadInput: Naming the file and the column or line that breaks the contract.
    """
    if path.name == "scores.csv" and path.stat().st_size > 60 * THIN:
        return thinned(path)
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        _check_columns(header, path.name, str(path))
        for cells in reader:
            if not cells:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(header):
                raise BadInput(f"{where}: {len(cells)} cells under {len(header)} columns")
            rows.append(_typed(zip(header, cells, strict=True), where))
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def thinned(path: Path) -> list[Row]:
    """A sample of very many scores: networks evenly spread over the file, and every failure.

    Raises:
        BadInput: As `read_csv`, without the line.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys((*TEXT, "kind"), str), keep_default_na=True)
    except (ValueError, OSError) as error:
        raise BadInput(f"{path}: not the numbers and columns of scores.csv: {error}") from error
    if len(frame) > THIN:
        _check_columns([str(name) for name in frame.columns], path.name, str(path))
        archs = frame["architecture"].drop_duplicates()
        step = max(len(archs) // SHOWN, 1)
        frame = frame[frame["architecture"].isin(set(archs.iloc[::step])) | frame["failure"].notna()]
    return rows_of(frame, path.name)


def rows_of(frame: pd.DataFrame, file: str) -> list[Row]:
    """The rows of a data frame that has the columns of `file`, as `read_csv` gives them."""
    names = [str(name) for name in frame.columns]
    _check_columns(names, file, "table")
    return [
        _typed(zip(names, cells, strict=True), f"{file}, row {i}")
        for i, cells in enumerate(frame.itertuples(index=False, name=None))
    ]


def _check_columns(header: list[str], file: str, where: str) -> None:
    missing = [column for column in COLUMNS.get(file, ()) if column not in header]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        raise BadInput(f"{where}: lacks the column{plural} {', '.join(missing)} of {file} (docs/report.md)")


def _typed(cells: Iterable[tuple[str, Any]], where: str) -> Row:
    row: Row = {}
    for column, cell in cells:
        text = "" if cell is None or cell != cell else str(cell).strip()  # nan is not equal to itself
        if column in TEXT:
            row[column] = text
            if column == "clock" and text not in CLOCKS:
                raise BadInput(f"{where}, column clock: {text!r} is neither simulated nor measured")
        elif column in NUMBERS or column in MORE_NUMBERS:
            try:
                row[column] = float(text) if text and text != "<NA>" else math.nan
            except ValueError:
                raise BadInput(f"{where}, column {column}: {text!r} is not a number") from None
        else:
            row[column] = text
    return row
