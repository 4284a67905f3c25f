"""Leaderboards against figures worked out again from the log and the table, by other means."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers.harness import EPOCHS, SHORT, live_content, number, rows, run_content, toy_frame, toy_table
from hypothesis import given
from hypothesis import strategies as st

from searchers import available, load
from suite import commands as jobs
from suite.comparison import board as leaderboard
from suite.comparison import searches as comparison
from suite.records.ledger import PHASES
from suite.spec.reading import check
from suite.spec.run import RunSpec
from suite.types import BadInput, Evaluation, Unsupported

SEARCHERS = ["random_search", "local_search", {"name": "regularized_evolution", "population_size": 8, "sample_size": 3}]


def compared(out: Path, **values: Any) -> Path:
    content = {"searchers": SEARCHERS, "seeds": 4, **values}
    table = content.pop("table", None) or toy_table()
    return jobs.run(check(RunSpec, run_content(table, **content), "test"), out, base=out, command="kendall run x.toml")


def board(out: Path) -> dict[str, dict[str, str]]:
    return {row["searcher"]: row for row in rows(out / "leaderboard.csv")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return compared(tmp_path_factory.mktemp("run") / "full")


@pytest.fixture(scope="module")
def cheap(tmp_path_factory) -> Path:
    """Searched under a proxy, judged in full."""
    return compared(tmp_path_factory.mktemp("run") / "cheap", proxy={"epochs": SHORT})


@pytest.fixture(scope="module")
def test_errors() -> dict[str, float]:
    frame = toy_frame()
    frame = frame[frame["split"] == "test"]
    return dict(zip(frame["architecture"], frame["error"], strict=True))


# Intervals


@given(st.lists(st.floats(0, 100), min_size=2, max_size=40))
def test_the_interval_is_students(values):
    mean, low, high, std = leaderboard.student(values)
    assert mean == pytest.approx(np.mean(values))
    assert std == pytest.approx(np.std(values, ddof=1))
    if std > 1e-9:
        sem = scipy.stats.sem(values)
        assert (low, high) == pytest.approx(scipy.stats.t.interval(0.95, len(values) - 1, loc=mean, scale=sem))


def test_one_search_has_no_interval_and_an_infinite_error_no_spread():
    assert leaderboard.student([5.0])[0] == 5
    assert np.isnan(leaderboard.student([5.0])[1:]).all()
    assert leaderboard.student([5.0, math.inf])[0] == math.inf
    assert np.isnan(leaderboard.student([5.0, math.inf])[1:]).all()


# A row against its searches, and a search against the table


@pytest.mark.parametrize("name", ["random_search", "local_search", "regularized_evolution"])
@pytest.mark.parametrize("which", ["folder", "cheap"])
def test_a_row_is_the_mean_of_its_searches(request, which, name):
    out = request.getfixturevalue(which)
    row = board(out)[name]
    mine = [winner for winner in rows(out / "winners.csv") if winner["searcher"] == name]
    assert int(row["seeds"]) == len(mine) == 4
    assert [winner["seed"] for winner in mine] == ["0", "1", "2", "3"]

    def mean(column: str) -> float:
        return float(np.mean([number(winner[column]) for winner in mine]))

    for column, of_winners in {
        "judge_error_mean": "judge_error", "regret_mean": "regret", "val_error_mean": "val_error", "params": "params",
        "macs": "macs", "evaluations": "evaluations", "search_device_s": "search_device_s",
    }.items():  # fmt: skip
        assert number(row[column]) == pytest.approx(mean(of_winners), rel=1e-8), column
    errors = [number(winner["judge_error"]) for winner in mine]
    low, high = scipy.stats.t.interval(0.95, 3, loc=np.mean(errors), scale=scipy.stats.sem(errors))
    assert (number(row["judge_error_low"]), number(row["judge_error_high"])) == pytest.approx((low, high))
    assert number(row["judge_error_std"]) == pytest.approx(np.std(errors, ddof=1))
    assert number(row["gpu_days"]) == pytest.approx(number(row["search_device_s"]) / 86_400)
    assert (row["clock"], row["device"], row["evaluator"]) == ("simulated", "table:toy", "table:toy")
    assert (row["judge"], row["command"]) == ("test", "kendall run x.toml")


@pytest.mark.parametrize("which", ["folder", "cheap"])
def test_a_winner_is_judged_by_its_test_error_and_regret_is_above_the_best_of_the_table(request, test_errors, which):
    best = min(test_errors.values())
    for winner in rows(request.getfixturevalue(which) / "winners.csv"):
        assert number(winner["judge_error"]) == pytest.approx(test_errors[winner["architecture"]])
        assert number(winner["regret"]) == pytest.approx(test_errors[winner["architecture"]] - best, abs=1e-8)
        assert number(winner["regret"]) >= 0


def searches(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The answers of each search, in the order of the log."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (out / "trials.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["phase"] == "search":
            found.setdefault(row["run"], []).append(row)
    return found


def within(answers: Sequence[dict[str, Any]], budget_s: float) -> list[tuple[float, float, str]]:
    """(device seconds so far, validation error, architecture) of the answers that fit the budget."""
    told, spent = [], 0.0
    for answer in answers:
        spent += answer["cost"]["device_s"]
        if spent > budget_s:
            break
        told.append((spent, answer["metrics"]["val_error"], answer["arch"]))
    return told


@pytest.mark.parametrize("which", ["folder", "cheap"])
def test_the_winner_is_the_best_validation_error_that_the_budget_paid_for(request, which):
    out = request.getfixturevalue(which)
    winners = {f"{w['searcher']}/{w['seed']}": w for w in rows(out / "winners.csv")}
    assert set(winners) == set(searches(out))
    for run, answers in searches(out).items():
        told = within(answers, 2000.0)
        assert winners[run]["architecture"] == min(told, key=lambda answer: answer[1])[2]
        assert number(winners[run]["val_error"]) == pytest.approx(min(error for _, error, _ in told))
        assert int(winners[run]["evaluations"]) == len(told)
        assert number(winners[run]["search_device_s"]) == pytest.approx(told[-1][0])
        assert len(answers) - len(told) == 1  # the one that crossed the budget


@pytest.mark.parametrize("which", ["folder", "cheap"])
def test_the_anytime_curve_is_the_judged_incumbent_at_each_time(request, test_errors, which):
    out = request.getfixturevalue(which)
    told = {run: within(answers, 2000.0) for run, answers in searches(out).items()}
    curve = rows(out / "anytime.csv")
    grids = {}
    for row in curve:
        time = number(row["device_s"])
        grids.setdefault(row["searcher"], []).append(time)
        errors = []
        for run, answers in told.items():
            if run.startswith(row["searcher"] + "/"):
                seen = [answer for answer in answers if answer[0] <= time * (1 + 1e-9)]
                errors.append(test_errors[min(seen, key=lambda answer: answer[1])[2]])
        assert number(row["judge_error_mean"]) == pytest.approx(np.mean(errors)), row
        assert int(row["seeds"]) == len(errors) == 4
        if np.std(errors) > 0:
            low, high = scipy.stats.t.interval(0.95, 3, loc=np.mean(errors), scale=scipy.stats.sem(errors))
            assert (number(row["judge_error_low"]), number(row["judge_error_high"])) == pytest.approx((low, high))
    end = max(answers[-1][0] for answers in told.values())
    longest = max(grids.values(), key=len)
    for name, grid in grids.items():
        assert grid == longest[-len(grid) :], name  # one grid for all, from where all of a searcher have an incumbent
        assert grid[-1] == pytest.approx(end)
        assert number(board(out)[name]["judge_error_mean"]) == pytest.approx(
            next(number(row["judge_error_mean"]) for row in reversed(curve) if row["searcher"] == name)
        )


@pytest.mark.parametrize(("which", "phase"), [("folder", "full training"), ("cheap", "proxy")])
def test_the_ledger_splits_by_phase_and_agrees_with_the_leaderboard(request, which, phase):
    out = request.getfixturevalue(which)
    ledger = rows(out / "ledger.csv")
    for name, row in board(out).items():
        mine = {entry["phase"]: entry for entry in ledger if entry["searcher"] == name}
        assert list(mine) == sorted([phase, "judging"], key=PHASES.index)
        assert number(mine[phase]["device_s"]) == pytest.approx(4 * number(row["search_device_s"]))
        assert number(mine[phase]["evaluations"]) == pytest.approx(4 * number(row["evaluations"]))
        assert number(mine["judging"]["evaluations"]) == 4
        for entry in mine.values():
            assert number(entry["gpu_days"]) == pytest.approx(number(entry["device_s"]) / 86_400)
            assert entry["clock"] == "simulated"


# What a search is told


def test_no_searcher_is_told_anything_about_the_test_set(tmp_path, monkeypatch):
    told: set[str] = set()

    class Listening:
        def __init__(self, searcher: Any) -> None:
            self.searcher, self.ask = searcher, searcher.ask

        def tell(self, evaluations: Sequence[Evaluation]) -> None:
            for evaluation in evaluations:
                told.update(evaluation.metrics, *evaluation.curve)
            self.searcher.tell(evaluations)

    make = comparison.make
    monkeypatch.setattr(comparison, "make", lambda *args, **options: Listening(make(*args, **options)))
    compared(tmp_path / "table", searchers="all", seeds=1, budget={"evaluations": 40})
    live = live_content(searchers=["successive_halving"], seeds=1, budget={"evaluations": 3})
    jobs.run(check(RunSpec, live, "test"), tmp_path / "live", base=tmp_path, command="")
    assert {"val_error", "params", "macs", "train_loss"} <= told
    assert not [name for name in told if "test" in name or "judge" in name]


def test_other_test_errors_change_no_search(tmp_path):
    """All that the searches of every searcher did is the same on a table whose test errors are others."""
    ends = []
    for seed in (0, 1):
        table = toy_table(seed=seed)
        out = compared(tmp_path / str(seed), table=table, searchers="all", seeds=2, budget={"evaluations": 60})
        asked = {
            run: [{key: value for key, value in a.items() if key != "cost"} for a in answers]
            for run, answers in searches(out).items()
        }
        ends.append((asked, [(w["architecture"], w["val_error"]) for w in rows(out / "winners.csv")]))
    assert ends[0] == ends[1]
    on_tables = [name for name in available() if "supernet" not in load(name).needs]
    assert len(ends[0][0]) == 2 * len(on_tables)


def test_a_searchers_rows_do_not_depend_on_who_else_is_compared(folder, tmp_path):
    alone = compared(tmp_path / "alone", searchers=["local_search"])
    assert board(alone)["local_search"] == board(folder)["local_search"]


def test_another_seed0_gives_other_searches_and_the_same_seeds_the_same(folder, tmp_path):
    shifted = compared(tmp_path / "shifted", seed0=2, searchers=["random_search"])

    def by_seed(out: Path) -> dict[str, dict[str, str]]:
        return {w["seed"]: w for w in rows(out / "winners.csv") if w["searcher"] == "random_search"}

    first, second = by_seed(folder), by_seed(shifted)
    assert set(second) == {"2", "3", "4", "5"}
    assert [first[seed] for seed in "23"] == [second[seed] for seed in "23"]
    assert len({w["architecture"] for w in second.values()}) == 4


# Judges without a test split


def test_without_a_test_split_the_judge_is_the_mean_of_the_other_runs(tmp_path):
    out = compared(tmp_path / "out", table=toy_table(test=False, runs=3))
    frame = toy_frame(test=False, runs=3)
    frame = frame[(frame["epochs"] == EPOCHS) & (frame["stage"] == EPOCHS)]
    errors = frame.pivot_table(index="architecture", columns="seed", values="error")
    assert {row["judge"] for row in board(out).values()} == {"validation, other seeds"}
    for winner in rows(out / "winners.csv"):
        run = int(winner["seed"]) % 3
        judged = errors.drop(columns=run).mean(axis=1)
        assert number(winner["val_error"]) == pytest.approx(errors.loc[winner["architecture"], run])
        assert number(winner["judge_error"]) == pytest.approx(judged[winner["architecture"]])
        assert number(winner["regret"]) == pytest.approx(judged[winner["architecture"]] - judged.min(), abs=1e-8)


# Searches that fail


def test_searches_without_a_winner_are_counted_in_the_note(tmp_path):
    out = compared(tmp_path / "out", table=toy_table(failing=1.0), searchers=["random_search"], seeds=2)
    (row,) = board(out).values()
    assert row["note"] == "2 of 2 searches ended without a winner"
    assert (row["judge_error_mean"], row["judge_error_low"], row["regret_mean"], row["params"]) == ("inf", "", "", "")
    assert number(row["search_device_s"]) > 0  # failures cost
    for winner in rows(out / "winners.csv"):
        assert (winner["architecture"], winner["judge_error"], winner["regret"]) == ("", "inf", "inf")
    assert not (out / "anytime.csv").exists()


def test_means_are_over_the_searches_that_have_a_winner(tmp_path):
    out = compared(tmp_path / "out", table=toy_table(failing=0.6), searchers=["random_search"], seeds=8,
                   budget={"evaluations": 1})  # fmt: skip
    (row,) = board(out).values()
    found = [w for w in rows(out / "winners.csv") if w["architecture"]]
    assert 0 < len(found) < 8
    assert row["note"] == f"{8 - len(found)} of 8 searches ended without a winner"
    assert number(row["judge_error_mean"]) == pytest.approx(np.mean([number(w["judge_error"]) for w in found]))
    assert math.isfinite(number(row["judge_error_high"]))


def test_a_budget_that_pays_for_nothing_is_no_crash(tmp_path):
    out = compared(tmp_path / "out", budget={"device_s": 0.5}, seeds=2)
    for row in board(out).values():
        assert row["note"] == "2 of 2 searches ended without a winner"
        assert (row["evaluations"], row["search_device_s"], row["clock"]) == ("0", "0", "simulated")


def test_one_evaluation_is_one_point_of_the_curve(tmp_path):
    out = compared(tmp_path / "out", budget={"evaluations": 1}, seeds=1, searchers=["random_search"])
    (point,) = rows(out / "anytime.csv")
    assert number(point["device_s"]) == pytest.approx(number(board(out)["random_search"]["search_device_s"]))


# What is refused before anything is asked


REFUSED = {
    "an option that there is not": ({"searchers": [{"name": "local_search", "moves": 3}]}, "no option 'moves'"),
    "an option out of range": ({"searchers": [{"name": "local_search", "initial": 0}]}, "initial must be"),
    "a proxy that the table lacks": ({"proxy": {"epochs": 11}}, "holds no e11 c32 r32 s1 of toys"),
    "full training that the table lacks": ({"full": {"epochs": 11}}, "e11 c32 r32 s1"),
    "a data set that the table lacks": ({"datasets": ["toy"]}, "has no data set 'toy': did you mean 'toys'"),
    "a space that is not the table's": ({"space": "nas_bench_201"}, "holds nas_bench_macro, not nas_bench_201"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_before_a_folder_is_made(tmp_path, what):
    values, said = REFUSED[what]
    with pytest.raises((BadInput, Unsupported), match=said):
        compared(tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_a_budget_in_seconds_that_the_table_does_not_know_is_refused(tmp_path):
    from suite.spaces import SPACES
    from suite.tables.base import Table

    frame = toy_frame().drop(columns="device_s")
    Table.from_frame(frame, SPACES["nas_bench_macro"], {"table": "toy"}).save(tmp_path / "timeless.table")
    with pytest.raises(Unsupported, match=r"table:toy knows no seconds of e50 c32 r32 s1 on toys: give budget"):
        compared(tmp_path / "out", table=tmp_path / "timeless.table")
    assert not (tmp_path / "out").exists()
    out = compared(tmp_path / "out", table=tmp_path / "timeless.table", budget={"evaluations": 5}, seeds=2)
    for row in board(out).values():
        assert (row["evaluations"], row["search_device_s"], row["gpu_days"]) == ("5", "", "")
    assert not pd.read_csv(out / "ledger.csv")["device_s"].notna().any()
