"""The two tables for the terminal: 80 columns are enough, from 110 on they show more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from suite.report import words
from suite.report.content import Leaderboard, StudyTable, leaderboards, studies
from suite.report.reading import rows_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

WIDE = 110
"""Columns of the terminal from which on the tables show more."""


@dataclass(frozen=True)
class Tables:
    """Several tables as one thing to print: `console.print(...)` gives them as much as fits."""

    tables: Callable[[bool], list[Table]]
    """The tables, narrow or wide."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        for table in self.tables(options.max_width >= WIDE):
            yield table
            yield ""


def leaderboard_table(frame: pd.DataFrame) -> Tables:
    """Leaderboards for a rich console, one a data set, evaluator, judge, clock and device.

    Args:
        frame: The columns of leaderboard.csv.

    Raises:
        BadInput: A column is missing.
    """
    boards = leaderboards(rows_of(frame, "leaderboard.csv"))
    return Tables(lambda wide: [_leaderboard(board, wide) for board in boards])


def consistency_table(frame: pd.DataFrame) -> Tables:
    """Proxy studies for a rich console, one a data set, judge, clock and device.

    Args:
        frame: The columns of consistency.csv.

    Raises:
        BadInput: A column is missing.
    """
    found = studies(rows_of(frame, "consistency.csv"))
    return Tables(lambda wide: [_study(study, wide) for study in found])


def predictors_table(frame: pd.DataFrame) -> Tables:
    """Studies of predictors for a rich console, one a data set, twins kept.

    Args:
        frame: The columns of predictors_summary.csv.
    """
    found = [rows for _, rows in frame[frame["twins"] == "kept"].groupby("dataset", sort=False)]
    return Tables(lambda wide: [_predictors(rows, wide) for rows in found])


def _predictors(rows: pd.DataFrame, wide: bool) -> Table:
    from rich.text import Text

    first = rows.iloc[0]
    under = f"all networks that were not learnt from, mean and 95 % interval over {first['splits']} splits"
    table = _table((str(first["dataset"]),), under, "")
    table.add_column("predictor", overflow="fold")
    if wide:
        table.add_column("encoding", overflow="fold")
    table.add_column("learnt from", justify="right")
    table.add_column("tau [95 %]", justify="right", no_wrap=True)
    table.add_column("top 10 %", justify="right")
    table.add_column("covered", justify="right")
    table.add_column("width", justify="right")
    if wide:
        table.add_column("fit", justify="right", no_wrap=True)
        table.add_column("predict", justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        style = "bold" if str(row["default"]).lower() == "true" else ""
        encoding = "" if row["encoding"] != row["encoding"] else str(row["encoding"])
        table.add_row(
            Text(str(row["predictor"]), style),
            *((encoding,) if wide else ()),
            words.count(row["n"]) if row["n"] else "",
            Text(words.interval(row["tau"], row["tau_low"], row["tau_high"], 3), style),
            words.number(row["tau_top10"], 3),
            words.number(100 * row["coverage90"], 1),
            words.number(row["width90"]),
            *((words.duration(row["fit_s"]), words.duration(row["predict_s"])) if wide else ()),
        )
    return table


def _leaderboard(board: Leaderboard, wide: bool) -> Table:
    from rich.text import Text

    title = (board.place.space, board.place.dataset, board.evaluator)
    table = _table(title, f"{words.judged(board.judge)}, {board.seeds}; {board.place.seconds}", board.headline)
    table.add_column("searcher", no_wrap=True)
    table.add_column("judge error [95 %]", justify="right", no_wrap=True)
    table.add_column("regret", justify="right")
    if wide:
        table.add_column("val. error", justify="right")
        table.add_column("params", justify="right", no_wrap=True)
        table.add_column("MACs", justify="right", no_wrap=True)
        table.add_column("evals", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("GPU-days", justify="right", no_wrap=True)
    for row in board.rows:
        style = "bold" if board.separated and row is board.best else ""
        size = (words.number(row["val_error_mean"]), words.metric(row["params"]), words.metric(row["macs"]))
        more = (*size, words.count(row["evaluations"]))
        table.add_row(
            Text(row["searcher"] + (" ≈" if row["searcher"] in board.tied else ""), style),
            Text(words.interval(row["judge_error_mean"], row["judge_error_low"], row["judge_error_high"]), style),
            words.number(row["regret_mean"]),
            *(more if wide else ()),
            words.duration(row["search_device_s"]),
            words.gpu_days(row["gpu_days"]),
        )
    return table


def _study(study: StudyTable, wide: bool) -> Table:
    from rich.text import Text

    under = f"{words.judged(study.judge)}, {study.n}; {study.place.seconds}"
    table = _table((study.place.space, study.place.dataset), under, study.headline)
    failures = wide or any(row["failed"] for row in study.rows)
    table.add_column("proxy", no_wrap=True)
    table.add_column("tau [95 %]", justify="right", no_wrap=True)
    table.add_column("ceiling", justify="right", no_wrap=True)
    if wide:
        table.add_column("Spearman", justify="right", no_wrap=True)
        table.add_column("top 10 %", justify="right", no_wrap=True)
    if failures:
        table.add_column("failed", justify="right", no_wrap=True)
    table.add_column("a network", justify="right", no_wrap=True)
    table.add_column("speed-up", justify="right", no_wrap=True)
    if wide:
        table.add_column("by MACs", justify="right", no_wrap=True)
    for row in study.rows:
        ranks = (words.number(row["spearman"]), words.number(row["top10_overlap"]))
        table.add_row(
            Text(row["proxy"] + (" ≈" if row["proxy"] in study.tied else "")),
            words.interval(row["tau"], row["tau_low"], row["tau_high"], study.digits),
            words.number(row["ceiling_tau"], study.digits),
            *(ranks if wide else ()),
            *((words.count(row["failed"]),) if failures else ()),
            words.duration(row["device_s"]),
            words.times(row["speedup_device"]),
            *((words.times(row["speedup_macs"]),) if wide else ()),
        )
    return table


def _table(title: tuple[str, ...], under: str, caption: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(" · ".join(part for part in title if part), "bold")
    heading.append(f"\n{under}", "not bold dim")
    return Table(
        title=heading, caption=Text(caption), box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left",
        padding=(0, 1), collapse_padding=True,
    )  # fmt: skip
