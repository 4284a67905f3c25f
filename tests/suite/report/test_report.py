"""The report says what the files say, apart where they must be apart, and touches nothing else."""

from __future__ import annotations

import csv
import itertools
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from suite.report import consistency_table, leaderboard_table, write_report
from suite.report.content import Estimate, arrange, leaderboards, lowest
from suite.report.reading import COLUMNS, read_csv, read_folder
from suite.types import BadInput

EVIL = "<script>alert('&')</script> \"x\" | $y$ _z_ 100% \\ {`"
BOARD = {
    "searcher": "random_search", "space": "nas_bench_201", "dataset": "cifar10", "evaluator": "nb201", "seeds": 20,
    "judge": "test", "judge_error_mean": 6.2, "judge_error_low": 6.1, "judge_error_high": 6.3, "judge_error_std": 0.2,
    "regret_mean": 0.5, "val_error_mean": 9.1, "params": 1.1e6, "macs": 1.5e8, "evaluations": 97.5,
    "search_device_s": 12_000, "gpu_days": 12_000 / 86_400, "clock": "simulated", "device": "table:GTX 1080 Ti",
    "command": "kendall run spec.toml",
}  # fmt: skip
CURVE = {
    "searcher": "random_search", "space": "nas_bench_201", "dataset": "cifar10", "judge_error_mean": 6.5,
    "judge_error_low": 6.3, "judge_error_high": 6.7, "seeds": 20,
}  # fmt: skip
PROXY = {
    "space": "nas_bench_201", "dataset": "digits", "proxy": "e3 c8 r8 s1", "epochs": 3, "channels": 8, "resolution": 8,
    "samples": 1, "n": 24, "failed": 1, "tau": 0.55, "tau_low": 0.4, "tau_high": 0.7, "spearman": 0.7,
    "top10_overlap": 0.5, "ceiling_tau": 0.6, "ceiling_low": 0.5, "ceiling_high": 0.7, "ceiling": "full, other seeds",
    "judge": "test", "device_s": 1.5, "full_device_s": 30, "speedup_device": 20, "speedup_macs": 31,
    "clock": "measured", "device": "CPU", "command": "kendall study spec.toml",
}  # fmt: skip
WINNER = {key: BOARD[key] for key in ("searcher", "space", "dataset", "evaluator", "params", "macs", "evaluations")}
SCORE = {"space": "nas_bench_201", "dataset": "digits", "seed": 0, "device_s": 1.5}
LEDGER = {
    "searcher": "random_search", "space": "nas_bench_201", "dataset": "cifar10", "clock": "simulated",
    "device": "table:GTX 1080 Ti", "evaluations": 10,
}  # fmt: skip


def put(folder: Path, file: str, *rows: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / file).open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS[file], lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def whole(folder: Path) -> Path:
    """Every file of the contract, in two sub-folders as the demo has them."""
    run, study = folder / "compare", folder / "study"
    evolution = {**BOARD, "searcher": "regularized_evolution", "judge_error_mean": 5.9, "judge_error_low": 5.85,
                 "judge_error_high": 5.95}  # fmt: skip
    put(run, "leaderboard.csv", BOARD, evolution)
    put(
        run,
        "winners.csv",
        *({**WINNER, "seed": i, "architecture": "|a~0|+|b~0|c~1|", "judge_error": 6} for i in (0, 1)),
    )
    put(run, "anytime.csv", *({**CURVE, "device_s": s, "judge_error_mean": 8 - s / 9000} for s in (600, 3000, 12_000)))
    put(
        run,
        "ledger.csv",
        {**LEDGER, "phase": "proxy", "device_s": 86_400},
        {**LEDGER, "phase": "judging", "device_s": 9},
    )
    (run / "spec.resolved.toml").write_text('space = "nas_bench_201"\n')
    (run / "environment.json").write_text(
        '{"kendall": "0.1.0", "data": {"nb201": "sha256:1"}, "packages": {"numpy": "2"}}'
    )
    put(
        study, "consistency.csv", PROXY, {**PROXY, "proxy": "e1 c4 r8 s1", "tau": 0.2, "tau_low": 0.0, "tau_high": 0.35}
    )
    put(study, "scores.csv", *scores())
    return folder


def scores() -> list[dict]:
    rng = np.random.default_rng(0)
    full = rng.uniform(5, 60, 24)
    return [
        {
            **SCORE,
            "proxy": proxy,
            "architecture": f"a{i}",
            "val_error": error + noise,
            "test_error": error + noise + 0.5,
        }
        for proxy, noise in (("full", 0.0), ("e3 c8 r8 s1", 3.0))
        for i, error in enumerate(full)
    ] + [{**SCORE, "proxy": "e3 c8 r8 s1", "architecture": "a24", "val_error": "inf", "failure": "loss is NaN"}]


def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """What a browser would fetch or run, which tags stay open, and the text of the tables."""

    VOID = frozenset({"meta", "br", "wbr", "link", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.tables: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href", "data", "action", "srcset"}]
        if tag == "table":
            self.tables.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href", "data"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "table" in self.open:
            self.tables[-1] += data


def test_run_and_study_write_every_column_of_the_contract():
    from suite import study
    from suite.comparison import board as leaderboard

    written = {
        "leaderboard.csv": leaderboard.LEADERBOARD,
        "winners.csv": leaderboard.WINNERS,
        "anytime.csv": leaderboard.ANYTIME,
        "ledger.csv": leaderboard.LEDGER,
        "consistency.csv": study.CONSISTENCY,
        "scores.csv": study.SCORES,
    }
    lacking = {file: set(COLUMNS[file]) - set(columns) for file, columns in written.items()}
    assert lacking == {file: set() for file in COLUMNS}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = whole(tmp_path_factory.mktemp("reported"))
    write_report(folder)
    return folder


def test_a_whole_folder_gives_every_section_and_every_file(reported):
    html = (reported / "report.html").read_text(encoding="utf-8")
    for section in ("leaderboards", "anytime", "cost", "proxies", "failures", "reading", "provenance"):
        assert f'id="{section}"' in html
    for file in ("report.md", "leaderboard.tex", "consistency.tex"):
        assert (reported / file).stat().st_size > 200
    stems = {path.stem for path in (reported / "figures").iterdir()}
    assert {stem.split("-")[0] for stem in stems} == {"leaderboard", "anytime", "consistency", "scatter"}
    assert all((reported / "figures" / f"{stem}.svg").exists() for stem in stems)
    assert all((reported / "figures" / f"{stem}.png").exists() for stem in stems)


def test_the_html_is_well_formed_and_fetches_nothing(reported):
    html = (reported / "report.html").read_text(encoding="utf-8")
    reader = Reader(html)
    assert reader.open == []
    assert all(target.startswith(("#", "data:")) for target in reader.fetched)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\((?!#)", html)


def test_names_notes_and_commands_are_escaped_everywhere(tmp_path):
    clean = Reader(page(put(tmp_path / "clean", "leaderboard.csv", {**BOARD, "note": "n"}))).tags
    folder = put(tmp_path / "evil", "leaderboard.csv", {**BOARD, "searcher": EVIL, "note": EVIL, "command": EVIL})
    put(folder, "anytime.csv", {**CURVE, "searcher": EVIL, "device_s": 10}, {**CURVE, "searcher": EVIL, "device_s": 20})
    put(folder, "consistency.csv", {**PROXY, "proxy": EVIL, "ceiling": EVIL, "device": EVIL})
    (folder / "spec.toml").write_text("```\n" + EVIL)
    (folder / "environment.json").write_text('{"device": "</dd><script>"}')
    html = page(folder)
    assert "<script>alert" not in html
    assert Reader(html).tags.count("script") == clean.count("script") == 1
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    outside_fences = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", markdown)
    assert "<script" not in outside_fences
    cells = next(line for line in markdown.splitlines() if line.startswith("| &lt;script"))
    assert len(re.findall(r"(?<!\\)\|", cells)) == 11  # ten columns
    latex = (folder / "leaderboard.tex").read_text(encoding="utf-8")
    assert r"\$y\$ \_z\_ 100\% \textbackslash{} \{" in latex


@pytest.mark.parametrize("seed", range(20))
def test_the_searchers_that_cannot_be_told_from_the_best_are_found_as_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    means = rng.uniform(5, 7, rng.integers(1, 9)).round(1)
    halves = rng.uniform(0, 0.6, len(means)).round(1)
    estimates = [Estimate(m, m - h, m + h) for m, h in zip(means, halves, strict=True)]
    best, others = lowest(estimates)
    assert best == int(np.argmin(means))
    points = np.unique(np.concatenate([[e.low, e.high] for e in estimates]))
    inside = [{p for p in points if e.low <= p <= e.high} for e in estimates]  # two intervals meet at an end of one
    assert others == [i for i in range(len(means)) if i != best and inside[i] & inside[best]]


def test_without_intervals_nothing_is_separable_and_nothing_bold(tmp_path):
    single = {**BOARD, "seeds": 1, "judge_error_low": "", "judge_error_high": "", "judge_error_std": ""}
    html = page(put(tmp_path, "leaderboard.csv", single, {**single, "searcher": "other", "judge_error_mean": 50}))
    assert "Not separable" in html
    assert '<tr class="best">' not in html
    assert "textbf" not in (tmp_path / "leaderboard.tex").read_text()


def test_the_best_is_bold_only_if_it_stands_apart(tmp_path):
    apart = {**BOARD, "searcher": "apart", "judge_error_mean": 5, "judge_error_low": 4.9, "judge_error_high": 5.1}
    close = {**BOARD, "searcher": "close", "judge_error_mean": 6.15, "judge_error_low": 6.0, "judge_error_high": 6.3}
    assert r"\textbf{apart}" in latex_of(put(tmp_path / "1", "leaderboard.csv", BOARD, apart))
    assert r"\textbf" not in latex_of(put(tmp_path / "2", "leaderboard.csv", BOARD, close))


def latex_of(folder: Path) -> str:
    write_report(folder)
    return (folder / "leaderboard.tex").read_text()


def test_a_failed_searcher_comes_last(tmp_path):
    failed = {**BOARD, "searcher": "failed", "judge_error_mean": "inf", "judge_error_low": "", "judge_error_high": ""}
    (board,) = leaderboards(read_csv(put(tmp_path, "leaderboard.csv", failed, BOARD) / "leaderboard.csv"))
    assert [row["searcher"] for row in board.rows] == ["random_search", "failed"]
    assert board.separated


@pytest.mark.parametrize(
    "change",
    [{"clock": "measured", "device": "NVIDIA H200"}, {"device": "table:V100"}, {"judge": "validation, other seeds"},
     {"dataset": "cifar100"}, {"evaluator": "other"}],
)  # fmt: skip
def test_what_cannot_be_compared_never_shares_a_leaderboard(tmp_path, change):
    folder = put(tmp_path, "leaderboard.csv", BOARD, {**BOARD, "searcher": "other_search", **change})
    boards = arrange(read_folder(folder)).leaderboards
    assert [len(board.rows) for board in boards] == [1, 1]


def test_simulated_and_measured_seconds_never_share_a_table_or_an_axis(tmp_path):
    measured = {"clock": "measured", "device": "NVIDIA H200"}
    put(tmp_path, "leaderboard.csv", BOARD, {**BOARD, "searcher": "live_search", **measured})
    put(tmp_path, "anytime.csv", *({**CURVE, "searcher": s, "device_s": t}
                                   for s in ("random_search", "live_search") for t in (10, 20)))  # fmt: skip
    put(tmp_path, "ledger.csv", {**LEDGER, "phase": "proxy", "device_s": 1},
        {**LEDGER, **measured, "searcher": "live_search", "phase": "proxy", "device_s": 1})  # fmt: skip
    content = arrange(read_folder(tmp_path))
    for parts in (content.leaderboards, content.curves, content.ledgers):
        assert sorted(part.place.clock for part in parts) == ["measured", "simulated"]
    html = page(tmp_path)
    assert "simulated seconds of GTX 1080 Ti" in html
    assert "measured seconds on NVIDIA H200" in html
    for table in Reader(html).tables:
        assert not ("random_search" in re.sub(r"\s", "", table) and "live_search" in re.sub(r"\s", "", table))


def test_a_curve_whose_clock_is_open_is_left_out_and_named(tmp_path):
    put(tmp_path, "leaderboard.csv", BOARD, {**BOARD, "evaluator": "live", "clock": "measured", "device": "CPU"})
    put(tmp_path, "anytime.csv", {**CURVE, "device_s": 10}, {**CURVE, "device_s": 20})
    html = page(tmp_path)
    assert "does not say which clock" in html
    assert not list((tmp_path / "figures").glob("anytime*"))


def test_gpu_days_leave_judging_out(tmp_path):
    (ledger,) = arrange(read_folder(whole(tmp_path))).ledgers
    assert ledger.rows[0]["gpu_days"] == 1.0
    assert ledger.rows[0]["judging"] == 9.0


def test_failed_trainings_are_counted_and_not_drawn(tmp_path):
    content = arrange(read_folder(whole(tmp_path)))
    assert [(f.proxy, f.reason, f.count, f.of) for f in content.failures] == [("e3 c8 r8 s1", "loss is NaN", 1, 25)]
    assert [(len(p.pairs), p.failed) for s in content.scatters for p in s.panels] == [(24, 1)]


def test_two_renders_are_equal_bytes(tmp_path, reported):
    again = whole(tmp_path)
    write_report(again)
    write_report(again)
    files = sorted(path.relative_to(reported) for path in reported.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [file for file in files if (reported / file).read_bytes() != (again / file).read_bytes()] == []


def test_an_empty_folder_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match=r"leaderboard\.csv.*consistency\.csv"):
        write_report(tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        write_report(tmp_path / "nowhere")
    put(tmp_path, "leaderboard.csv")
    with pytest.raises(BadInput, match="nothing to report"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]


@pytest.mark.parametrize(("file", "column"), [(file, column) for file in COLUMNS for column in COLUMNS[file]])
def test_a_missing_column_is_named(tmp_path, file, column):
    (tmp_path / file).write_text(",".join(c for c in COLUMNS[file] if c != column) + "\n")
    with pytest.raises(BadInput, match=rf"{file}: lacks the column {column}\b"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"seeds": "many"}, r"leaderboard\.csv, line 2, column seeds: 'many' is not a number"),
        ({"clock": "stopwatch"}, r"line 2, column clock: 'stopwatch' is neither simulated nor measured"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, broken, told):
    with pytest.raises(BadInput, match=told):
        write_report(put(tmp_path, "leaderboard.csv", {**BOARD, **broken}))


def test_a_torn_line_bad_bytes_and_bad_json_are_named(tmp_path):
    put(tmp_path, "leaderboard.csv", BOARD)
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(BadInput, match=r"environment\.json: not JSON"):
        write_report(tmp_path)
    with (tmp_path / "leaderboard.csv").open("a") as out:
        out.write("random_se")
    with pytest.raises(BadInput, match="line 3: 1 cells under 21 columns"):
        write_report(tmp_path)
    (tmp_path / "leaderboard.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="not UTF-8"):
        write_report(tmp_path)


@pytest.mark.parametrize("file", ["report.html", "report.md", "leaderboard.tex"])
def test_another_file_of_the_same_name_is_not_overwritten(tmp_path, file):
    put(tmp_path, "leaderboard.csv", BOARD)
    (tmp_path / file).write_text("mine")
    with pytest.raises(BadInput, match="is not a report's"):
        write_report(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["leaderboard.csv", file])
    assert (tmp_path / file).read_text() == "mine"


def test_a_later_report_removes_only_its_own_stale_figures(tmp_path):
    put(tmp_path, "leaderboard.csv", BOARD, {**BOARD, "dataset": "cifar100"})
    write_report(tmp_path)
    (tmp_path / "figures" / "mine.svg").write_text("<svg/>")
    put(tmp_path, "leaderboard.csv", BOARD)
    write_report(tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "mine.svg", "leaderboard-nas-bench-201-cifar10.svg", "leaderboard-nas-bench-201-cifar10.png",
    }  # fmt: skip


def test_unknown_cells_leave_no_trace_of_nan(tmp_path):
    bare = {"searcher": "a", "dataset": "d", "judge_error_mean": 6.0}
    put(tmp_path, "leaderboard.csv", bare, {"searcher": "b"}, {**bare, "searcher": "c"})
    put(tmp_path, "anytime.csv", {"searcher": "a"})
    put(tmp_path, "ledger.csv", {"searcher": "a", "phase": "proxy"})
    put(tmp_path, "consistency.csv", {"proxy": "p"}, {"proxy": "q", "tau": 0.5})
    put(tmp_path, "scores.csv", {"proxy": "p"})
    html = page(tmp_path)
    shown = re.sub(r'data-v="nan"', "", html)
    assert not re.search(r"\bnan\b", shown[: shown.index("<script>")])
    assert not re.search(r"\bnan\b", (tmp_path / "report.md").read_text())


def test_many_searchers_and_proxies_fit(tmp_path):
    names = [f"searcher_{i}" for i in range(20)]
    put(tmp_path, "leaderboard.csv", *({**BOARD, "searcher": s, "dataset": d}
                                       for s, d in itertools.product(names, ("cifar10", "cifar100"))))  # fmt: skip
    put(
        tmp_path, "consistency.csv", *({**PROXY, "proxy": f"p{i}", "tau": i / 40, "device_s": 1 + i} for i in range(40))
    )
    html = page(tmp_path)
    assert all(name.replace("_", "_<wbr>") in html for name in names)
    assert html.count('class="name short"') == 40


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_tables_fit_and_keep_their_figures(tmp_path, width):
    import pandas as pd
    from rich.console import Console

    folder = whole(tmp_path)
    console = Console(width=width, record=True, file=(tmp_path / "out.txt").open("w", encoding="utf-8"))
    console.print(leaderboard_table(pd.read_csv(folder / "compare" / "leaderboard.csv")))
    console.print(consistency_table(pd.read_csv(folder / "study" / "consistency.csv")))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for shown in ("5.90 [5.85, 5.95]", "regularized_evolution", "3.33 h", "0.139", "0.55 [0.40, 0.70]", "20.0×"):
        assert shown in text
    assert ("Spearman" in text) == (width == 120)


def test_the_terminal_tables_check_their_columns():
    import pandas as pd

    with pytest.raises(BadInput, match=r"lacks the column"):
        leaderboard_table(pd.DataFrame({"searcher": ["a"]}))


def test_estimates_that_are_not_known_take_no_part():
    assert lowest([Estimate(math.nan, math.nan, math.nan), Estimate(6, 5, 7)]) == (1, [])
    assert lowest([]) == (None, [])
