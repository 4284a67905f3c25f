"""Studies against figures worked out again from their scores."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from helpers.harness import (
    EPOCHS,
    ROOT,
    SHARED,
    SHORT,
    SPACE,
    live_study_content,
    needs_shared,
    number,
    rows,
    study_content,
    toy_frame,
    toy_table,
)  # fmt: skip

from suite import commands as jobs
from suite.report import write_report
from suite.spaces import SPACES
from suite.spec.reading import check, load
from suite.spec.study import StudySpec
from suite.statistics.bootstrap import ceiling
from suite.statistics.measures import MEASURES
from suite.study import architectures, plan
from suite.study.networks import stratified
from suite.tables.base import Table
from suite.types import BadInput, Proxy, Unsupported


def conducted(out: Path, **values: Any) -> Path:
    table = values.pop("table", None) or toy_table()
    return jobs.conduct(check(StudySpec, study_content(table, **values), "test"), out, base=out.parent, command="k")


def live(out: Path, **values: Any) -> Path:
    return jobs.conduct(check(StudySpec, live_study_content(**values), "test"), out, base=out.parent, command="k")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two proxies (one of them the full setting) against a test split."""
    return conducted(tmp_path_factory.mktemp("study") / "out", proxies=[{"epochs": SHORT}, {"epochs": EPOCHS}])


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """A table without a test split, three runs a network; more full trainings are asked for than it has."""
    return conducted(tmp_path_factory.mktemp("study") / "out", table=toy_table(test=False, runs=3), full_seeds=5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Trained live."""
    return live(tmp_path_factory.mktemp("study") / "out")


def trainings(out: Path) -> list[dict[str, str]]:
    """Lines of consistency.csv that are trainings to the end of their schedule."""
    return [row for row in rows(out / "consistency.csv") if row["kind"] == "schedule"]


def scores(out: Path, proxy: str, column: str) -> dict[str, dict[str, float]]:
    """Seed -> architecture -> value."""
    found: dict[str, dict[str, float]] = {}
    for row in rows(out / "scores.csv"):
        if row["proxy"] == proxy:
            found.setdefault(row["seed"], {})[row["architecture"]] = number(row[column])
    return found


def truth(out: Path, *, mean: bool) -> dict[str, float]:
    """What the proxies are compared with: the judge's word under the first seed, or its mean over all."""
    judged = scores(out, "full", "judge_error")
    first = next(iter(judged.values()))
    return {arch: float(np.mean([of[arch] for of in judged.values()])) if mean else first[arch] for arch in first}


@pytest.mark.parametrize("which", ["folder", "others", "trained"])
def test_every_measure_follows_from_the_scores(request, which):
    out = request.getfixturevalue(which)
    against = truth(out, mean=which == "trained")
    for row in trainings(out):
        ((_, errors),) = scores(out, row["proxy"], "val_error").items()
        assert int(row["n"]) == len(errors) == len(against)
        x, y = np.array([errors[arch] for arch in against]), np.array(list(against.values()))
        for name, measure in MEASURES.items():
            expected = measure(x, y)
            assert number(row[name]) == pytest.approx(expected, nan_ok=True), name
            low, high = number(row[f"{name}_low"]), number(row[f"{name}_high"])
            assert math.isnan(expected) or math.isnan(low) or low <= high, name
        assert number(row["tau"]) == pytest.approx(scipy.stats.kendalltau(x, y).statistic, nan_ok=True)
        assert number(row["spearman"]) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, nan_ok=True)


@pytest.mark.parametrize("which", ["folder", "others", "trained"])
def test_a_speed_up_is_full_training_over_the_proxy_as_the_search_would_pay_it(request, which):
    out = request.getfixturevalue(which)
    full = [seconds for of in scores(out, "full", "device_s").values() for seconds in of.values()]
    for row in trainings(out):
        (proxy,) = scores(out, row["proxy"], "device_s").values()
        assert number(row["device_s"]) == pytest.approx(np.mean(list(proxy.values())))
        assert number(row["full_device_s"]) == pytest.approx(np.mean(full))
        assert number(row["speedup_device"]) == pytest.approx(np.mean(full) / np.mean(list(proxy.values())))


def test_speed_ups_on_the_toy_table_are_the_ratio_of_epochs(folder, others):
    """Whatever number of runs the judge takes the mean of."""
    for out in (folder, others):
        for row in trainings(out):
            assert number(row["speedup_device"]) == pytest.approx(EPOCHS / int(row["epochs"]))
            assert number(row["speedup_macs"]) == pytest.approx(EPOCHS / int(row["epochs"]))


def test_a_live_speed_up_in_multiply_adds_is_counted(trained):
    (row,) = trainings(trained)
    assert 2 <= number(row["speedup_macs"]) < 2.3  # two epochs and a look at the test images for one epoch
    assert (row["clock"], row["judge"]) == ("measured", "test")


# The noise ceiling


def test_the_ceiling_of_a_table_with_a_test_split_is_full_validation_against_its_mean(folder):
    valid, judged = (scores(folder, "full", column) for column in ("val_error", "judge_error"))
    taus = [scipy.stats.kendalltau(list(valid[s].values()), list(judged[s].values())).statistic for s in valid]
    for row in trainings(folder):
        assert row["ceiling"] == "full validation, the table's test mean"
        assert number(row["ceiling_tau"]) == pytest.approx(np.mean(taus))
        assert number(row["ceiling_low"]) < number(row["ceiling_tau"]) < number(row["ceiling_high"])


def test_full_training_as_a_proxy_reaches_its_ceiling(folder):
    full = next(row for row in trainings(folder) if row["epochs"] == str(EPOCHS))
    assert number(full["tau"]) == pytest.approx(number(full["ceiling_tau"]), abs=0.1)
    assert number(full["speedup_device"]) == 1


def test_the_ceiling_without_a_test_split_is_each_run_against_the_others_and_no_run_against_itself(others):
    (row,) = trainings(others)
    assert row["ceiling"] == "full validation, other seeds"
    assert row["seeds_full"] == "3"  # five were asked for: the fourth would be the first again
    valid = scores(others, "full", "val_error")
    assert list(valid) == ["0", "1", "2"]
    errors = np.array([list(of.values()) for of in valid.values()]).T
    taus = [scipy.stats.kendalltau(errors[:, s], np.delete(errors, s, axis=1).mean(1)).statistic for s in range(3)]
    assert number(row["ceiling_tau"]) == pytest.approx(np.mean(taus))


def test_the_ceiling_of_live_training_is_one_seeds_validation_against_the_others_test(trained):
    (row,) = trainings(trained)
    assert (row["ceiling"], row["seeds_full"]) == ("full validation, other seeds' test", "2")
    valid, test = (np.array([list(of.values()) for of in scores(trained, "full", c).values()]).T
                   for c in ("val_error", "test_error"))  # fmt: skip
    expected = ceiling(valid, test, draws=100, rng=np.random.default_rng(0)).value
    assert number(row["ceiling_tau"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "table"),
    [("full validation, the table's test mean", {"runs": 1}), ("full validation, other seeds", {"test": False})],
)
def test_one_full_training_of_a_table_has_a_ceiling_too(tmp_path, kind, table):
    out = conducted(tmp_path / "out", table=toy_table(**table), full_seeds=1)
    (row,) = trainings(out)
    valid, judged = (next(iter(scores(out, "full", column).values())) for column in ("val_error", "judge_error"))
    assert (row["ceiling"], row["seeds_full"]) == (kind, "1")
    expected = scipy.stats.kendalltau(list(valid.values()), list(judged.values())).statistic
    assert number(row["ceiling_tau"]) == pytest.approx(expected)


# What stands in the scores


def test_only_test_errors_stand_in_the_column_of_test_errors(folder, others):
    frame = toy_frame()
    test = frame[frame["split"] == "test"].set_index("architecture")["error"]
    for row in rows(folder / "scores.csv"):
        assert row["test_error"] == row["judge_error"]
        assert (row["test_error"] != "") == (row["proxy"] == "full")
        if row["proxy"] == "full":
            assert number(row["test_error"]) == pytest.approx(test[row["architecture"]])
    for row in rows(others / "scores.csv"):
        assert row["test_error"] == ""
        assert (row["judge_error"] != "") == (row["proxy"] == "full")


def test_proxies_are_asked_of_the_search_view_alone(folder, trained):
    for line in (trained / "trials.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert ("test_error" in row["metrics"]) == (row["run"] == "judge")
    assert not (folder / "trials.jsonl").exists()  # a table's answers follow from the table


def test_a_network_that_fails_ranks_last_and_is_counted(tmp_path):
    out = conducted(tmp_path / "out", table=toy_table(failing=0.2))
    (row,) = trainings(out)
    failed = [r for r in rows(out / "scores.csv") if r["val_error"] == "inf" and r["proxy"] != "full"]
    assert 0 < int(row["failed"]) == len(failed) < 40
    assert all(r["failure"] for r in failed)
    assert math.isfinite(number(row["tau"]))


# Which networks


def networks(tmp_path: Path, space: str = "nas_bench_macro", seed0: int = 0, **part: Any) -> list[tuple[int, ...]]:
    content = study_content(tmp_path / "x.table", architectures=part, space=space, seed0=seed0)
    return list(architectures(check(StudySpec, content, "test"), SPACES[space], tmp_path))


def test_drawn_networks_differ_and_follow_from_seed0(tmp_path):
    drawn = networks(tmp_path, count=200)
    assert len(set(drawn)) == 200
    assert networks(tmp_path, count=200) == drawn
    assert networks(tmp_path, count=200, seed0=1) != drawn
    assert len(set(networks(tmp_path, all=True))) == len(set(networks(tmp_path, count=SPACE.size))) == SPACE.size


def test_a_file_of_networks_may_have_comments_and_empty_lines(tmp_path):
    (tmp_path / "some.txt").write_text("# three\n00000000\n\n  00000001 \n00000002\n\n", encoding="utf-8")
    assert networks(tmp_path, file="some.txt") == [SPACE.at(i) for i in range(3)]


NETWORKS = {
    "none": ({}, "give one of count, all = true, file"),
    "two": ({"count": 5, "all": True}, "give one of count, all = true, file"),
    "too few": ({"count": 2}, "a ranking needs at least 3 networks, not 2"),
    "too many": ({"count": 6562}, "nas_bench_macro has 6561 architectures, not 6562"),
    "no file": ({"file": "nosuch.txt"}, "no file nosuch.txt, neither beside the spec nor here"),
    "a bad line": ({"file": "bad.txt"}, r"bad.txt:3: nas_bench_macro: not eight digits of 0, 1, 2: '0000000x'"),
    "one twice": ({"file": "twice.txt"}, "twice.txt:5: 00000001 stands in line 2 already; give each network once"),
    "no text": ({"file": "binary.txt"}, r"binary.txt: no text file: "),
    "an empty file": ({"file": "empty.txt"}, "a ranking needs at least 3 networks, not 0"),
}


@pytest.mark.parametrize("what", NETWORKS)
def test_a_wrong_choice_of_networks_is_one_line(tmp_path, what):
    (tmp_path / "bad.txt").write_text("00000000\n# x\n0000000x\n")
    (tmp_path / "twice.txt").write_text("00000000\n00000001\n\n00000002\n 00000001\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\x00")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    part, said = NETWORKS[what]
    with pytest.raises(BadInput, match=said) as error:
        networks(tmp_path, **part)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"proxies": [{"epochs": SHORT}, {"epochs": SHORT, "samples": 1.0}]}, "e10 c32 r32 s1 is there twice"),
        ({"proxies": [{"epochs": SHORT}, {"epochs": SHORT, "channels": 8}]}, "holds no e10 c8 r32 s1 of toys"),
        ({"full": {"epochs": 51}}, "e51 c32 r32 s1"),
        ({"proxies": [{"epochs": [SHORT, SHORT]}]}, "e10 c32 r32 s1 is there twice; give it once"),
        ({"reference": "e9 c32 r32 s1"}, "reference: no proxy 'e9 c32 r32 s1' in this study: did you mean 'e10"),
        ({"reference": "nwot (published)"}, r"no proxy 'nwot \(published\)'"),
    ],
)
def test_a_wrong_proxy_is_refused_before_a_folder_is_made(tmp_path, values, said):
    with pytest.raises((BadInput, Unsupported), match=said):
        conducted(tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_spec_is_refused_before_anything_is_timed_and_stays_as_it_is(tmp_path):
    out = live(tmp_path / "out")
    held = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    said: list[str] = []
    changed = check(StudySpec, live_study_content(draws=200), "test")
    with pytest.raises(BadInput, match=r"holds results of another spec .draws was 100, is 200.; choose another --out"):
        jobs.conduct(changed, out, base=tmp_path, command="k", announce=said.append)
    assert not said
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == held


LIVE = {
    "a resolution below the strides": ({"proxies": [{"epochs": 1, "resolution": 2}]}, "resolution 2 is too small"),
    "fewer images than classes": ({"proxies": [{"epochs": 1, "samples": 0.001}]}, "are fewer than its 10 classes"),
    "an uneven full resolution": ({"full": {"resolution": 6}}, "resolution 6 is too small or uneven"),
    "a space without networks": ({"space": "nas_bench_macro"}, "no networks to train here"),
    "a data set that there is not": ({"datasets": ["digit"]}, "did you mean 'digits'"),
    "a device that is not there": ({"evaluator": {"kind": "live", "device": "tpu"}}, "no 'tpu' here"),
    "a recipe that there is not": ({"evaluator": {"kind": "live", "recipe": "nas"}}, "no 'nas'"),
    "a recipe's key": ({"evaluator": {"kind": "live", "recipe": {"batchsize": 3}}}, "did you mean 'batch_size'"),
    "images that are not there": ({"evaluator": {"kind": "live", "data": "nosuch"}}, "no folder nosuch with images"),
    "hardly any validation": ({"evaluator": {"kind": "live", "valid_fraction": 0.0001}}, "valid_fraction 0.0001"),
}


@pytest.mark.parametrize("what", LIVE)
def test_a_live_study_that_cannot_work_is_refused_before_a_folder_is_made(tmp_path, what):
    values, said = LIVE[what]
    with pytest.raises((BadInput, Unsupported), match=said) as error:
        live(tmp_path / "out", **values)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


# The published ranking


@pytest.mark.slow
@needs_shared
def test_twelve_epochs_of_nas_bench_201_rank_as_published(tmp_path):
    """All 15,625 networks: validation after 12 epochs against test after 200."""
    content = {
        "name": "nb201", "space": "nas_bench_201", "datasets": ["cifar10", "cifar100", "imagenet16-120"], "draws": 100,
        "architectures": {"all": True}, "proxies": [{"epochs": 12}],
        "evaluator": {"kind": "table", "table": "nas_bench_201_parquet", "file": f"{SHARED}/data/nb201.parquet"},
    }  # fmt: skip
    out = jobs.conduct(check(StudySpec, content, "test"), tmp_path / "out", base=tmp_path, command="k")
    found = {row["dataset"]: row for row in trainings(out)}
    assert {row["n"] for row in found.values()} == {"15625"}
    assert [round(number(row["tau"]), 3) for row in found.values()] == [0.594, 0.645, 0.644]
    for row in found.values():
        assert number(row["tau"]) < number(row["ceiling_tau"]) < 1
        assert number(row["speedup_device"]) == pytest.approx(200 / 12, rel=0.05)  # both pay for one look at the split


# Grids, stages, scores


def grid_spec(**values: Any) -> StudySpec:
    return check(StudySpec, live_study_content(**values), "test")


def open_problem(spec: StudySpec, tmp_path: Path) -> Any:
    (problem,) = jobs.open_problems(spec, tmp_path, tmp_path)
    return problem


TINY = {"channels": 4, "cells": 1, "resolution": 4}


def test_a_grid_is_every_combination_and_is_trained_cheapest_first(tmp_path):
    spec = grid_spec(proxies=[{**TINY, "epochs": [1, 2], "samples": [0.5, 1.0]}])
    found = plan.runs(spec, open_problem(spec, tmp_path))
    assert [str(run.proxy) for run in found] == [
        "e1 c4 r4 s0.5 n1", "e1 c4 r4 s1 n1", "e2 c4 r4 s0.5 n1", "e2 c4 r4 s1 n1",
    ]  # fmt: skip


def test_econas_notation_is_read_and_written(tmp_path):
    levels = {"channels": [8, 4], "resolution": [8, 4], "samples": [1.0, 0.5]}
    spec = grid_spec(
        proxies=["c1r1s1e1"], levels=levels, full={"epochs": 1, "channels": 8, "resolution": 8}, scores=[],
        evaluator={"kind": "live", "device": "cpu", "processes": 1}, architectures={"count": 3}, full_seeds=1,
    )  # fmt: skip
    (run,) = plan.runs(spec, open_problem(spec, tmp_path))
    assert run.proxy == Proxy(1, 4, 4, 0.5)
    assert plan.expanded(
        spec.proxies[0], open_problem(spec, tmp_path), plan.known_levels(spec, open_problem(spec, tmp_path))
    )


def test_stages_are_read_off_one_training_and_a_schedule_of_its_own_is_another(tmp_path):
    out = live(
        tmp_path / "out", full={**TINY, "epochs": 3}, scores=["params", "nwot"],
        proxies=[{**TINY, "epochs": [2, 3], "stages": [1, 2], "samples": 0.5}],
    )  # fmt: skip
    found = {row["proxy"]: row for row in rows(out / "consistency.csv")}
    stages = ["1 of e2 c4 r4 s0.5 n1", "e2 c4 r4 s0.5 n1", "1 of e3 c4 r4 s0.5 n1", "2 of e3 c4 r4 s0.5 n1",
              "e3 c4 r4 s0.5 n1"]  # fmt: skip
    assert [name for name in found if not name.startswith("TSE")] == ["nwot", *stages, "params"]
    assert {f"TSE {name}" for name in stages} < set(found)
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert sum(line["phase"] == "proxy" for line in lines) == 4 * 2  # networks x schedules
    assert all(line["epochs"] == line["proxy"]["epochs"] for line in lines if line["phase"] == "proxy")
    curves = {(line["arch"], line["proxy"]["epochs"]): line["curve"] for line in lines if line["phase"] == "proxy"}
    of_stage, of_area = (scores(out, name, "val_error")["0"] for name in (stages[3], f"TSE {stages[3]}"))
    for (arch, epochs), curve in curves.items():
        if epochs == 3:
            assert of_stage[arch] == pytest.approx(curve[1]["val_error"])
            assert of_area[arch] == pytest.approx(curve[0]["train_loss"] + curve[1]["train_loss"])
    assert number(found[stages[3]]["device_s"]) < number(found[stages[4]]["device_s"])
    assert number(found[stages[3]]["speedup_theory"]) == pytest.approx(3 / 2 / 0.5)
    assert found["nwot"]["kind"] == "zero-cost"
    assert number(found["nwot"]["device_s"]) > 0
    assert found["params"]["device_s"] == ""


def test_the_full_setting_as_a_proxy_is_trained_with_seeds_of_its_own(tmp_path):
    out = live(tmp_path / "out", proxies=[{**TINY, "epochs": 2}], scores=[], tse=False)
    seeds = {(line["phase"], line["seed"]) for line in map(json.loads, (out / "trials.jsonl").read_text().splitlines())}
    assert seeds == {("full training", 0), ("full training", 1), ("proxy", 2)}


def test_full_training_stopped_early_is_a_proxy_too(tmp_path):
    out = live(tmp_path / "out", proxies=[{**TINY, "epochs": 1}], proxy_seeds=2, scores=[], tse=False)
    (row,) = trainings(out)
    assert row["seeds_proxy"] == "2"
    judged = truth(out, mean=True)
    by_seed = scores(out, row["proxy"], "val_error").values()
    taus = [scipy.stats.kendalltau([of[a] for a in judged], list(judged.values())).statistic for of in by_seed]
    assert number(row["tau"]) == pytest.approx(np.mean(taus), nan_ok=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"proxies": [{**TINY, "epochs": 9}]}, r"e9 c4 r4 s1 n1 costs 4.5 times the full setting \(e2 c4 r4 s1 n1\)"),
        ({"proxies": [{**TINY, "epochs": 2, "channels": 8}]}, "costs 4 times the full setting"),
        ({"proxies": [{**TINY, "epochs": 2, "stages": 3}]}, "stage 3 is beyond every schedule, 2"),
        ({"proxies": ["c9r0s0e1"]}, "nas_bench_201 has no level c9; there are c0 = 16"),
        ({"proxies": ["c4e1"]}, "not a proxy in EcoNAS's notation: 'c4e1'"),
        ({"scores": ["nwott"]}, "no score 'nwott': did you mean 'nwot'"),
        ({"score_file": "nosuch.csv"}, "no file nosuch.csv"),
        ({"architectures": {"count": 4, "quick": "paramz"}}, "no quick score 'paramz': did you mean 'params'"),
        ({"architectures": {"count": 4, "pool": 50}}, "a pool is what a quick score chooses from"),
        ({"architectures": {"count": 40, "quick": "params", "pool": 20}}, "a pool of 20 is smaller than count = 40"),
    ],
)
def test_what_a_live_study_cannot_do_is_one_line(tmp_path, values, said):
    with pytest.raises((BadInput, Unsupported), match=said) as error:
        live(tmp_path / "out", **values)
    assert "\n" not in str(error.value)


def test_zero_cost_scores_of_a_table_are_refused(tmp_path):
    with pytest.raises(Unsupported, match="synflow looks at images, and table:toy has none"):
        conducted(tmp_path / "out", scores=["synflow"])


def test_stages_of_a_table_are_looked_up_and_others_refused(tmp_path):
    out = conducted(tmp_path / "out", proxies=[{"epochs": EPOCHS, "stages": SHORT // 2}, {"epochs": SHORT}])
    kinds = {row["proxy"]: row["kind"] for row in rows(out / "consistency.csv")}
    assert kinds[f"{SHORT // 2} of e{EPOCHS} c32 r32 s1"] == "stage"
    with pytest.raises(Unsupported, match=f"was not read at {SHORT}; there are {SHORT // 2}, {EPOCHS}"):
        conducted(tmp_path / "other", proxies=[{"epochs": EPOCHS, "stages": SHORT}])


def test_published_scores_rank_the_networks_that_they_know(tmp_path):
    archs = networks(tmp_path, count=40)
    lines = [f"{SPACE.text(arch)},{sum(arch)},7" for arch in archs[:30]]
    (tmp_path / "known.csv").write_text("\n".join(["architecture,size,flat", *lines]))
    out = conducted(tmp_path / "out", score_file="known.csv")
    found = {row["proxy"]: row for row in rows(out / "consistency.csv")}
    size, flat = found["size (published)"], found["flat (published)"]
    assert (size["n"], size["unknown"], size["note"]) == ("30", "10", "10 networks have no such score")
    against = truth(out, mean=False)
    expected = scipy.stats.kendalltau([-sum(a) for a in archs[:30]], [against[SPACE.text(a)] for a in archs[:30]])
    assert number(size["tau"]) == pytest.approx(expected.statistic)
    assert flat["tau"] == ""
    assert "equal under it, so it ranks nothing" in flat["note"]


def test_strata_have_equal_shares_and_the_top_is_there(tmp_path):
    space = SPACES["nas_bench_201"]
    spec = grid_spec(architectures={"count": 40, "quick": "params", "pool": 400})
    sizes = lambda archs: [float(space.params(arch, space.full)) for arch in archs]  # noqa: E731
    archs, strata = stratified(spec, space, sizes, np.random.default_rng(0))
    assert [(s.pool, s.drawn) for s in strata] == [(200, 10), (100, 10), (50, 10), (50, 10)]
    assert all(a.high <= b.low for a, b in itertools.pairwise(strata))
    assert len(set(archs)) == 40
    assert sum(size >= strata[3].low for size in sizes(archs)) >= 10


def test_the_price_is_known_before_it_starts(tmp_path):
    said: list[str] = []
    spec = check(StudySpec, study_content(toy_table()), "test")
    jobs.conduct(spec, tmp_path / "out", base=tmp_path, command="k", announce=said.append)
    assert said[0].startswith("toys: 40 networks, 120 trainings, about ")
    assert "simulated, of table:toy" in said[0]
    (line,) = jobs.planned(grid_spec(), base=tmp_path)
    assert line.startswith("digits: 4 networks, 12 trainings, about ")
    assert "multiply-adds" in line


# What follows


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> Path:
    return conducted(
        tmp_path_factory.mktemp("study") / "out", table=toy_table(runs=3, test=False), full_seeds=3,
        architectures={"count": 120}, proxies=[{"epochs": EPOCHS, "stages": SHORT // 2}, {"epochs": SHORT,
        "stages": SHORT // 2}], reach=[0.1, 0.99],
    )  # fmt: skip


def test_every_question_has_an_answer_or_a_reason(findings):
    answers = {row["question"]: row["answer"] for row in rows(findings / "answers.csv")}
    assert len(answers) == 6
    assert all(answers.values())


def test_comparisons_are_all_pairs_with_holm(findings):
    found = rows(findings / "comparisons.csv")
    names = {row["proxy"] for row in rows(findings / "consistency.csv")}
    assert len(found) == len(names) * (len(names) - 1) // 2
    taus = {row["proxy"]: number(row["tau"]) for row in rows(findings / "consistency.csv")}
    for row in found:
        assert number(row["gain"]) == pytest.approx(taus[row["a"]] - taus[row["b"]])
        assert number(row["p"]) <= number(row["p_holm"]) <= 1
        assert (row["better"] != "") == (number(row["p_holm"]) < 0.05)


def test_the_cheapest_that_reaches_a_tau_is_cheap_and_reaches_it(findings):
    low, high = rows(findings / "recommendations.csv")
    paid = {row["proxy"]: number(row["device_s"]) for row in rows(findings / "front.csv")}
    assert low["proxy"] == min(paid, key=lambda name: paid[name])
    assert high["proxy"] == "none"


def test_a_perfect_proxy_is_extrapolated_from_the_runs(findings):
    for row in rows(findings / "consistency.csv"):
        assert row["possible"] == "a perfect proxy against the mean of 2 runs of full training"
        assert number(row["possible_tau"]) > number(row["ceiling_tau"])  # which has one run as the proxy


def test_a_study_of_two_data_sets_says_whether_reliability_carries_over(tmp_path):
    frame = pd.concat([toy_frame(runs=2), toy_frame(runs=2, seed=1).assign(dataset="games")])
    Table.from_frame(frame, SPACE, {"table": "toy"}).save(tmp_path / "two.table")
    stages = [{"epochs": EPOCHS, "stages": SHORT // 2}, {"epochs": SHORT, "stages": SHORT // 2}]
    out = conducted(tmp_path / "out", table=tmp_path / "two.table", datasets=["toys", "games"], proxies=stages)
    (row,) = rows(out / "transfer.csv")
    assert (row["here"], row["there"], row["proxies"]) == ("toys", "games", "4")
    assert len(rows(out / "transfer_matrix.csv")) > 8
    page = write_report(out).read_text()
    assert "From one data set to another" in page
    assert "which factor should be cut first?" in page


def test_constant_and_failed_scores_are_counted_and_said(tmp_path):
    frame = toy_frame()
    frame.loc[(frame["epochs"] == SHORT) & (frame["split"] == "valid"), "error"] = 50.0
    Table.from_frame(frame, SPACE, {"table": "toy"}).save(tmp_path / "flat.table")
    out = conducted(tmp_path / "out", table=tmp_path / "flat.table", scores=[])
    (row,) = rows(out / "consistency.csv")
    assert row["tau"] == ""
    assert row["note"] == "all networks are equal under it, so it ranks nothing"
    answers = [row["answer"] for row in rows(out / "answers.csv")]
    assert all(answer.startswith("cannot be said") for answer in answers)


@pytest.mark.slow
@needs_shared
def test_stages_of_the_published_curves_rank_as_published(tmp_path):
    """The spec in results/: 200 cells, validation at an epoch against the last."""
    path = ROOT / "results" / "nb201_curves_study" / "spec.toml"
    spec = load(StudySpec, path, ["draws=200", "budgets=[2]"])
    out = jobs.conduct(spec, tmp_path / "out", base=path.parent, command="k")
    found = {row["stage"]: number(row["tau"]) for row in rows(out / "consistency.csv") if row["kind"] == "stage"}
    expected = {1: 0.29, 4: 0.49, 12: 0.61, 20: 0.66, 50: 0.70, 100: 0.74, 150: 0.89, 175: 0.96}
    assert found == pytest.approx({str(stage): tau for stage, tau in expected.items()}, abs=0.0051)
    assert {row["judge"] for row in rows(out / "consistency.csv")} == {"validation"}


@pytest.mark.slow
@needs_shared
def test_published_scores_and_the_best_tenth_rank_as_published(tmp_path):
    """The spec in results/: figures of the data's own README."""
    path = ROOT / "results" / "nb201_tables_study" / "spec.toml"
    spec = load(StudySpec, path, ["draws=100", 'datasets=["cifar10", "imagenet16-120"]'])
    out = jobs.conduct(spec, tmp_path / "out", base=path.parent, command="k")
    found = {(row["dataset"], row["proxy"].split(" (")[0]): row for row in rows(out / "consistency.csv")}
    stated = {
        "nwot": (0.62, 0.62), "jacov": (0.62, 0.60), "synflow": (0.58, 0.54), "l2_norm": (0.55, 0.55),
        "epe_nas": (0.58, 0.22), "snip": (0.44, 0.40), "grad_norm": (0.44, 0.41), "fisher": (0.40, 0.36),
        "grasp": (0.38, 0.38), "zen": (0.11, 0.09), "plain": (-0.23, -0.23),
    }  # fmt: skip
    for name, taus in stated.items():
        for dataset, tau in zip(("cifar10", "imagenet16-120"), taus, strict=True):
            assert number(found[dataset, name]["tau"]) == pytest.approx(tau, abs=0.0066), (dataset, name)
            assert found[dataset, name]["n"] == "9445"
    best = [
        number(found[key]["tau_top10"]) for key in (("cifar10", "e12 c16 r32 s1"), ("imagenet16-120", "e12 c16 r16 s1"))
    ]
    assert best == pytest.approx([0.349, 0.206], abs=0.001)
