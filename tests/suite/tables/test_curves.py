"""The 200 learning curves against what was published about them."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from suite import tables
from suite.evaluators.table import TableEvaluator
from suite.spaces import SPACES
from suite.statistics.measures import kendall_tau
from suite.types import BadInput, Proxy, Trial, Unsupported

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
SPACE = SPACES["nas_bench_201"]
FULL = Proxy(200, 16, 32)
CURVES = "nb201_curves200.parquet"


@pytest.fixture(scope="module")
def table():
    return tables.build("nas_bench_201_curves", DATA / CURVES)


@pytest.fixture
def search(table):
    return TableEvaluator(table, "cifar10")


@pytest.fixture(scope="module")
def facts():
    return pd.read_parquet(DATA / "nb201.parquet").set_index("arch_str")


def errors(evaluator, stage):
    return evaluator.errors(evaluator.table.places, FULL, stage)


def test_every_stage_of_the_full_training_can_be_asked(search):
    assert search.full == FULL
    assert search.stages(FULL) == tuple(range(1, 201))
    assert len(search.table) == 200


def test_the_curves_end_at_the_full_result(search, facts):
    texts = [SPACE.text(SPACE.at(int(place))) for place in search.table.places]
    assert 100 - errors(search, 200) == pytest.approx(facts.loc[texts, "c10_valid_200"].to_numpy(), abs=0.005)


@pytest.mark.parametrize(
    ("stage", "tau"),
    [(1, 0.29), (4, 0.49), (12, 0.61), (20, 0.66), (50, 0.70), (100, 0.74), (150, 0.89), (175, 0.96)],
)
def test_a_stage_ranks_as_published(search, stage, tau):
    assert kendall_tau(errors(search, stage), errors(search, 200)) == pytest.approx(tau, abs=0.005)


def test_the_judge_tests_after_the_last_epoch(table, facts):
    judge = TableEvaluator(table, "cifar10", view="judge")
    text = facts.index[7]
    (answer,) = judge.evaluate([Trial(SPACE.parse(text), FULL)])
    assert judge.judge == "test"
    assert answer.metrics["test_error"] == pytest.approx(100 - facts["c10_test_200"][text], abs=0.005)
    with pytest.raises(Unsupported, match="not at 100"):
        judge.evaluate([Trial(SPACE.parse(text), FULL, epochs=100)])


def test_its_end_costs_what_the_other_table_says_and_a_later_stage_what_it_adds(table, facts):
    whole = tables.build("nas_bench_201_parquet", DATA / "nb201.parquet")
    arch = SPACE.parse(facts.index[3])
    asked = [Trial(arch, FULL, epochs=epochs) for epochs in (50, 120, 200)]
    stages = TableEvaluator(table, "cifar10").evaluate(asked)
    (end,) = TableEvaluator(whole, "cifar10").evaluate([Trial(arch, FULL)])
    assert sum(answer.cost.device_s for answer in stages) == pytest.approx(end.cost.device_s)
    assert sum(answer.cost.macs for answer in stages) == pytest.approx(end.cost.macs)
    assert stages[1].cost.device_s == pytest.approx(70 / 2 * facts["c10_train_s_per_epoch"].iloc[3])
    for name in ("val_error", "params", "macs"):
        assert stages[2].metrics[name] == pytest.approx(end.metrics[name], abs=0.005)


def copies(folder, **changed):
    """Both files, some of them as given, None left out."""
    for name in (CURVES, "nb201.parquet"):
        held = changed.get(name.removesuffix(".parquet"), pd.read_parquet(DATA / name))
        if held is not None:
            held.to_parquet(folder / name)
    return folder / CURVES


def test_without_the_names_of_the_cells_it_says_where_they_are(tmp_path):
    with pytest.raises(BadInput, match=r"nb201\.parquet, which is not beside it"):
        tables.build("nas_bench_201_curves", copies(tmp_path, nb201=None))


def test_curves_of_other_networks_are_refused(tmp_path):
    curves = pd.read_parquet(DATA / CURVES)
    shifted = curves.assign(arch_index=curves["arch_index"] + 1)
    with pytest.raises(BadInput, match="cell 1 ends at"):
        tables.build("nas_bench_201_curves", copies(tmp_path, nb201_curves200=shifted))


def test_a_curve_without_its_end_is_refused(tmp_path):
    curves = pd.read_parquet(DATA / CURVES)
    cut = curves[(curves["arch_index"] != 5) | (curves["epoch"] < 200)]
    with pytest.raises(BadInput, match="cell 5 ends at nan"):
        tables.build("nas_bench_201_curves", copies(tmp_path, nb201_curves200=cut))


def test_what_it_holds_is_known(table):
    assert table.metrics == ["error", "params", "macs", "device_s", "spent_macs"]
    assert table.devices == ["table:GTX 1080 Ti"]
    assert not any(math.isnan(value) for value in np.unique(errors(TableEvaluator(table, "cifar10"), 1)))
