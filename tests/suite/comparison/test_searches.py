"""What a comparison does beyond asking and judging: objectives, limits, resources, predictions, judges that look up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.harness import SPACE, live_content, number, refused, rows, run_content, toy_table, write_spec

from suite import commands as jobs
from suite import pareto
from suite.spec.reading import check
from suite.spec.run import RunSpec
from suite.types import BadInput, Unsupported


def compared(out: Path, **values: Any) -> Path:
    content = run_content(toy_table(), **{"seeds": 2, "budget": {"evaluations": 60}, **values})
    return jobs.run(check(RunSpec, content, "test"), out, base=out, command="")


def test_fronts_are_those_of_all_answers_and_hypervolumes_are_theirs(tmp_path):
    out = compared(tmp_path, goal={"minimise": ["val_error", "params"], "reference": [99.0, 1100.0]})
    fronts, volumes = rows(out / "fronts.csv"), rows(out / "hypervolume.csv")
    assert {row["searcher"] for row in volumes} == {"random_search", "local_search"}
    for row in volumes:
        found = []
        for seed in "01":
            front = [
                [float(member["val_error"]), float(member["params"])]
                for member in fronts
                if (member["searcher"], member["seed"]) == (row["searcher"], seed)
            ]
            assert pareto.nondominated(front).all()
            found.append(pareto.hypervolume(front, (99.0, 1100.0)))
        assert number(row["hypervolume_mean"]) == pytest.approx(sum(found) / 2)
        assert row["reference"] == "99, 1100"
    for member in fronts:
        assert number(member["params"]) == 1000 + sum(SPACE.parse(member["architecture"]))


def test_without_a_reference_all_searches_share_one_of_the_stored_error_and_beyond_the_worst(tmp_path):
    out = compared(tmp_path, goal={"minimise": ["val_error", "params"]})
    volumes, fronts = rows(out / "hypervolume.csv"), rows(out / "fronts.csv")
    params = [number(row["params"]) for row in fronts]
    beyond = max(params) + 0.1 * (max(params) - min(params))
    assert {row["reference"] for row in volumes} == {f"100, {beyond:g}"}
    assert all(number(row["hypervolume_mean"]) > 0 for row in volumes)


def test_one_objective_has_no_front_to_show(tmp_path):
    out = compared(tmp_path)
    assert not (out / "fronts.csv").exists()
    assert not (out / "hypervolume.csv").exists()


def test_no_winner_breaks_a_limit(tmp_path):
    free, bound = compared(tmp_path / "free"), compared(tmp_path / "bound", goal={"limits": {"params": 1006.0}})
    assert max(number(row["params"]) for row in rows(free / "winners.csv")) > 1006
    assert max(number(row["params"]) for row in rows(bound / "winners.csv")) <= 1006
    spent = [[row["search_device_s"] for row in rows(out / "leaderboard.csv")] for out in (free, bound)]
    assert spent[0] == spent[1]  # what breaks a limit is charged all the same


def test_a_limit_that_all_break_leaves_no_winner(tmp_path):
    for row in rows(compared(tmp_path, goal={"limits": {"params": 1.0}}) / "leaderboard.csv"):
        assert row["note"] == "2 of 2 searches ended without a winner"
        assert row["judge_error_mean"] == "inf"


def test_a_limit_on_what_nobody_measures_is_refused_with_what_there_is(tmp_path):
    with pytest.raises(Unsupported, match="gives no metric 'latency_ms'; it gives macs, params, val_error"):
        compared(tmp_path, goal={"limits": {"latency_ms": 1.0}})


def test_measured_resources_stand_in_the_log_and_apart_in_the_ledger(tmp_path):
    """Latency measured here beside simulated training seconds: two clocks that never meet in a sum."""
    part = {"kind": "measured", "metrics": ["latency_ms"], "device": "cpu", "repeats": 2}
    content = live_content(
        searchers=["random_search"], seeds=1, budget={"evaluations": 2}, resources=[part],
        goal={"minimise": ["val_error", "latency_ms"]},
    )  # fmt: skip
    spec = check(RunSpec, content, "test")
    out = jobs.run(spec, tmp_path, base=tmp_path, command="")
    before = {file.name: file.read_bytes() for file in out.glob("*.csv")}
    assert {row["phase"] for row in rows(out / "ledger.csv")} == {"full training", "measuring", "judging"}
    (measuring,) = [row for row in rows(out / "ledger.csv") if row["phase"] == "measuring"]
    assert number(measuring["device_s"]) > 0
    assert number(measuring["evaluations"]) == 2
    assert all(number(row["latency_ms"]) > 0 for row in rows(out / "fronts.csv"))
    jobs.run(spec, tmp_path, base=tmp_path, command="")
    assert {file.name: file.read_bytes() for file in out.glob("*.csv")} == before


def test_predicted_rewards_are_counted_apart_and_none_of_them_wins(tmp_path):
    fnas = {
        "name": "fnas", "batch": 8, "uac": {"warm_up": 16, "steps": 5, "hidden": 8, "threshold": 5.0},
        "lstm": {"hidden": 8},
    }  # fmt: skip
    out = compared(tmp_path, searchers=[fnas, "local_search"], seeds=1, budget={"evaluations": 50})
    predictions, ledger = rows(out / "predictions.csv"), rows(out / "ledger.csv")
    used = [row for row in predictions if row["used"] == "1"]
    assert used
    assert {row["searcher"] for row in predictions} == {"fnas"}
    (predicted,) = [row for row in ledger if row["phase"] == "predicted"]
    assert int(predicted["evaluations"]) == len(used)
    assert number(predicted["device_s"]) == 0
    assert all(row["trained"] == "" for row in used)
    asked = (out / "trials.jsonl").read_text(encoding="utf-8")
    assert all(row["architecture"] in asked for row in rows(out / "winners.csv"))
    assert {row["evaluations"] for row in rows(out / "leaderboard.csv")} == {"50"}


def test_winners_of_live_searches_can_be_looked_up(tmp_path):
    """Trained on digits in seconds, judged by a table of the same data set's name."""
    import pandas as pd

    from suite.spaces import SPACES
    from suite.tables.base import Table

    space = SPACES["nas_bench_201"]
    frame = pd.DataFrame(
        [
            {
                "architecture": space.text(arch), "epochs": 200, "channels": 16, "resolution": 32, "stage": 200,
                "dataset": "digits", "split": split, "seed": -1, "error": 5.0 + sum(arch), "device_s": 100.0,
                "device": "table:toy", "params": 1.0, "macs": 1.0,
            }
            for arch in space for split in ("valid", "test")
        ]
    )  # fmt: skip
    Table.from_frame(frame, space, {"table": "toy"}).save(tmp_path / "toy.table")
    tiny = {"epochs": 1, "channels": 2, "cells": 1, "resolution": 4, "samples": 0.05}
    content = live_content(
        searchers=["random_search", "darts"], seeds=1, budget={"evaluations": 2}, proxy=tiny,
        judge={"kind": "table", "table": str(tmp_path / "toy.table")},
    )  # fmt: skip
    del content["full"]
    out = jobs.run(check(RunSpec, content, "test"), tmp_path / "out", base=tmp_path, command="")
    for row in rows(out / "winners.csv"):
        assert number(row["judge_error"]) == 5.0 + sum(space.parse(row["architecture"]))
        assert number(row["regret"]) == number(row["judge_error"]) - 5.0
    for row in rows(out / "leaderboard.csv"):
        assert (row["judge"], row["clock"], row["evaluator"]) == ("test of table:toy", "measured", "live")
    assert {row["searcher"] for row in rows(out / "anytime.csv")} == {"random_search", "darts"}


def test_a_searcher_may_train_under_a_proxy_of_its_own(tmp_path):
    short = {"name": "random_search", "label": "short", "proxy": {"epochs": 10}}
    out = compared(tmp_path, searchers=["random_search", short], seeds=1)
    spent = {row["searcher"]: number(row["search_device_s"]) for row in rows(out / "leaderboard.csv")}
    assert spent["short"] == pytest.approx(spent["random_search"] / 5)


REFUSED = {
    'searchers=["darts"]': "darts trains a supernet, and a table has no images: give evaluator.kind = 'live'",
    'judge={kind="table", table="toy.table"}': "my.toml: judge: a table judges its own searches",
    'goal.minimise=["val_error", "val_error"]': "my.toml: goal: minimise names a metric twice: val_error, val_error",
    "goal.reference=[3.0, 4.0]": "my.toml: goal: reference must have one coordinate for each of val_error, not 2",
    "goal.minimise=[]": "my.toml: goal: minimise must name at least one metric in a list, not []",
    'goal.maximise=["x"]': "my.toml: no key 'goal.maximise': did you mean 'minimise'? There are minimise, limits, ref",
    'objectives=["val_error"]': "my.toml: the key 'objectives' is now goal.minimise",
    "constraints={params=3.0}": "my.toml: the key 'constraints' is now goal.limits",
    "reference={params=3.0}": "my.toml: the key 'reference' is now goal.reference",
    'resources=[{kind="guess"}]': "my.toml: resources.0.kind: ",
    'resources=[{kind="formula", metrics=["latency_ms"]}]': "resources: formula gives no 'latency_ms': ",
    'resources=[{kind="table"}]': "resources: a table needs table",
    'resources=[{kind="measured", colour=3}]': "my.toml: no key 'resources.0.colour': there are kind, metrics, label, ",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_be_is_refused_in_one_line_before_anything_starts(setting, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_spec(tmp_path / "my.toml", run_content(toy_table()))
    says = refused(monkeypatch, capsys, "run", "my.toml", "--set", setting, "--out", "out")
    assert says.startswith(REFUSED[setting])
    assert not (tmp_path / "out").exists()


def test_a_space_without_a_supernet_says_which_have_one(tmp_path):
    content = live_content(space="nas_bench_macro", searchers=["darts"], seeds=1, budget={"evaluations": 2})
    content["full"] = {"epochs": 2}
    with pytest.raises((Unsupported, BadInput), match=r"nas_bench_macro"):
        jobs.run(check(RunSpec, content, "test"), tmp_path, base=tmp_path, command="")
