"""The two tables for the terminal: 80 columns are enough, from 110 on they show more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suite.report import words
from suite.report.content import leaderboards, studies
from suite.report.contract import rows_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group
    from rich.table import Table


def leaderboard_table(frame: pd.DataFrame, *, width: int = 80) -> Group:
    """Leaderboards for the terminal, one a data set, judge, clock and device; print it with a rich console.

    Args:
        frame: The columns of leaderboard.csv.
        width: Columns of the terminal; from 110 on, size of the network and validation error are shown too.

    Raises:
        BadInput: A column is missing.
    """
    from rich.console import Group
    from rich.text import Text

    wide = width >= 110
    tables: list[Table] = []
    for board in leaderboards(rows_of(frame, "leaderboard.csv")):
        title = (board.place.space, board.place.dataset, board.evaluator)
        table = _table(title, f"{words.judged(board.judge)}, {board.seeds}; {board.place.seconds}", board.headline)
        table.add_column("searcher", overflow="fold")
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
            table.add_row(
                Text(row["searcher"] + (" ≈" if row["searcher"] in board.tied else ""), style),
                Text(words.interval(row["judge_error_mean"], row["judge_error_low"], row["judge_error_high"]), style),
                words.number(row["regret_mean"]),
                *(size if wide else ()),
                words.count(row["evaluations"]),
                words.duration(row["search_device_s"]),
                words.gpu_days(row["gpu_days"]),
            )
        tables.append(table)
    return Group(*tables)


def consistency_table(frame: pd.DataFrame, *, width: int = 80) -> Group:
    """Proxy studies for the terminal, one a data set, judge, clock and device; print it with a rich console.

    Args:
        frame: The columns of consistency.csv.
        width: Columns of the terminal; from 110 on, Spearman, top-10 % and the speed-up by multiply-adds are shown too.

    Raises:
        BadInput: A column is missing.
    """
    from rich.console import Group
    from rich.text import Text

    wide = width >= 110
    tables: list[Table] = []
    for study in studies(rows_of(frame, "consistency.csv")):
        under = f"{words.judged(study.judge)}, {study.n}; {study.place.seconds}"
        table = _table((study.place.space, study.place.dataset), under, study.headline)
        table.add_column("proxy", overflow="fold")
        table.add_column("tau [95 %]", justify="right", no_wrap=True)
        table.add_column("ceiling", justify="right", no_wrap=True)
        if wide:
            table.add_column("Spearman", justify="right", no_wrap=True)
            table.add_column("top 10 %", justify="right", no_wrap=True)
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
                words.count(row["failed"]),
                words.duration(row["device_s"]),
                words.times(row["speedup_device"]),
                *((words.times(row["speedup_macs"]),) if wide else ()),
            )
        tables.append(table)
    return Group(*tables)


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
