"""The studies of predictors and of latency: what is measured on which networks, and going on."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from helpers.analytic import quality
from scipy.stats import kendalltau

import surrogates
from suite import commands
from suite.spaces import SPACES
from suite.spec.predictors import PredictorsSpec
from suite.spec.reading import check
from suite.study import latency, predictors
from suite.tables.base import Table
from suite.tables.resources import DeviceSetting, ResourceTable
from suite.types import BadInput, Unsupported
from surrogates.encoding import Encoder

SPACE = SPACES["nas_bench_macro"]
NB201 = SPACES["nas_bench_201"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of 300 networks at 10 and 50 epochs, and a table of two devices."""
    path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    archs = list({SPACE.sample(rng) for _ in range(300)})
    rows = [
        {
            "architecture": SPACE.text(arch), "epochs": epochs, "channels": 32, "resolution": 32, "stage": epochs,
            "dataset": "toys", "split": "valid", "seed": seed,
            "error": quality(SPACE.simplified(arch)) + (rng.normal() if epochs == 10 else 0) + 0.1 * seed,
        }
        for arch in archs for epochs in (10, 50) for seed in range(2)
    ]  # fmt: skip
    Table.from_frame(pd.DataFrame(rows), SPACE, {"table": "toys"}).save(path / "toys.table")
    times = np.array([0.0, 0.1, 0.7, 1.3, 0.2])
    archs201 = np.array(list(NB201))
    columns = {
        DeviceSetting("cifar10", device, 1, 16, 32): {"latency_ms": 2 + scale * times[archs201].sum(axis=1)}
        for device, scale in (("slow", 3.0), ("quick", 1.0), ("new", 2.0))
    }
    columns[DeviceSetting("cifar10", "new", 1, 16, 32)]["latency_ms"][:50] = np.nan
    ResourceTable(NB201, columns, {"table": "meters"}).save(path / "meters.table")
    return path


def spec_of(folder, **more):
    content = {
        "name": "toys", "sizes": [120, 200], "splits": 2,
        "predictors": ["ridge", {"name": "additive", "label": "table"}],
        "data": [{"table": str(folder / "toys.table"), "cheap_epochs": [10]}],
    } | more  # fmt: skip
    return check(PredictorsSpec, content, "test")


def test_figures_are_those_of_networks_that_were_not_learnt_from(folder, tmp_path):
    commands.predict(spec_of(folder), tmp_path, base=folder, command="test")
    rows = pd.read_csv(tmp_path / "predictors.csv", keep_default_na=False)
    assert tuple(rows.columns) == predictors.PREDICTORS
    assert set(rows["n"]) == {0, 120}  # 200 of 300 leave fewer than they take
    (data,) = predictors.known(spec_of(folder).data[0], folder)
    order = np.random.default_rng(1).permutation(len(data.archs))
    encoder = Encoder(SPACE)
    x = encoder(data.archs)
    learnt, held = order[:120], order[120:]
    model = surrogates.make("ridge", columns=encoder.names, seed=1).fit(
        x[learnt], data.errors[learnt], data.classes[learnt].tolist()
    )
    fresh = held[~np.isin(data.classes[held], data.classes[learnt])]
    for twins, places in (("kept", held), ("removed", fresh)):
        (row,) = rows[(rows["predictor"] == "ridge") & (rows["split"] == 1) & (rows["twins"] == twins)].to_dict(
            "records"
        )
        assert row["tau"] == pytest.approx(kendalltau(model.mean(x[places]), data.errors[places]).statistic)
        low, high = model.interval(x[places], 0.9)
        assert float(row["coverage90"]) == pytest.approx(
            ((low <= data.errors[places]) & (data.errors[places] <= high)).mean()
        )
    assert len(fresh) < len(held)


def test_cheap_trainings_stand_beside_and_can_be_columns(folder, tmp_path):
    spec = spec_of(folder, predictors=[{"name": "ridge", "label": "with", "features": ["10 epochs"]}, "ridge"])
    commands.predict(spec, tmp_path, base=folder, command="test")
    rows = pd.read_csv(tmp_path / "predictors_summary.csv", keep_default_na=False)
    kept = rows[rows["twins"] == "kept"].set_index("predictor")
    assert kept.loc["10 epochs", "n"] == 0
    assert kept.loc["with", "encoding"].endswith("+10 epochs")
    assert kept.loc["with", "tau"] > kept.loc["ridge", "tau"]
    assert set(kept["default"]) == {False} or set(kept["default"]) == {"false"}


def test_the_default_is_marked(folder):
    assert predictors.is_default(spec_of(folder, predictors=["ensemble"]).predictors[0])
    assert not predictors.is_default(spec_of(folder, predictors=["ridge"]).predictors[0])
    assert not predictors.is_default(
        spec_of(folder, predictors=[{"name": "ensemble", "encoding": "one_hot"}]).predictors[0]
    )


def test_a_killed_study_goes_on_behind_what_was_whole(folder, tmp_path, monkeypatch):
    spec = spec_of(folder)
    whole = commands.predict(spec, tmp_path / "whole", base=folder, command="test")
    began = predictors.Study.rows
    asked = []

    def dies(study, part, n):
        asked.append(part if isinstance(part, str) else part.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return began(study, part, n)

    monkeypatch.setattr(predictors.Study, "rows", dies)
    with pytest.raises(KeyboardInterrupt):
        commands.predict(spec, tmp_path / "killed", base=folder, command="test")
    monkeypatch.setattr(predictors.Study, "rows", began)
    again = commands.predict(spec, tmp_path / "killed", base=folder, command="test")
    timed = ["fit_s", "predict_s"]
    pd.testing.assert_frame_equal(
        pd.read_csv(again / "predictors.csv").drop(columns=timed),
        pd.read_csv(whole / "predictors.csv").drop(columns=timed),
    )


def test_wrong_studies_are_one_clear_error(folder, tmp_path):
    with pytest.raises(BadInput, match="no feature"):
        commands.predict(
            spec_of(folder, predictors=[{"name": "ridge", "features": ["7 epochs"]}]), tmp_path, base=folder, command=""
        )
    with pytest.raises(Unsupported, match="chains"):
        commands.predict(
            spec_of(folder, predictors=[{"name": "ridge", "encoding": "paths"}]), tmp_path, base=folder, command=""
        )
    with pytest.raises(Unsupported, match="after 12 epochs"):
        commands.predict(
            spec_of(folder, data=[{"table": str(folder / "toys.table"), "epochs": 12}]),
            tmp_path,
            base=folder,
            command="",
        )
    with pytest.raises(BadInput, match="give data, devices or both"):
        spec_of(folder, data=None)


def test_latency_is_learnt_on_each_device_and_moved_to_a_new_one(folder, tmp_path):
    spec = spec_of(
        folder, data=None, sizes=[100], predictors=["additive"],
        devices=[{"table": str(folder / "meters.table")}],
        transfer={"sources": ["slow", "quick"], "targets": ["new"], "measured": 100, "samples": [10]},
    )  # fmt: skip
    commands.predict(spec, tmp_path, base=folder, command="test")
    rows = pd.read_csv(tmp_path / "latency.csv")
    assert tuple(rows.columns) == latency.LATENCY
    alone = rows[rows["predictor"] == "additive"]
    assert set(alone["device"]) == {"slow", "quick", "new"}
    assert (alone["relative_error"] < 1e-6).all()  # these devices add up
    moved = rows[rows["predictor"] == "transfer"]
    assert len(moved) == 2
    assert (moved["relative_error"] < 0.1).all()
    assert (moved["tau"] > 0.9).all()


def test_a_mean_has_the_interval_of_student():
    from scipy import stats

    values = [0.7, 0.8, 0.75, 0.9]
    (made,) = predictors.means([{"a": "x", "tau": value} for value in values], ("a",), ("tau",))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (made["tau_low"], made["tau_high"]) == (pytest.approx(low), pytest.approx(high))
    (alone,) = predictors.means([{"a": "x", "tau": 0.7}], ("a",), ("tau",))
    assert math.isnan(alone["tau_low"])
