"""Published pairs and our own proxy tables."""

from __future__ import annotations

import json

import pytest
from helpers.harness import ROOT, SHARED, needs_shared

from suite.evaluators.table import TableEvaluator
from suite.statistics.measures import kendall_tau
from suite.study.published import study_of
from suite.study.rows import possible_tau
from suite.tables import TABLES, open_table
from suite.tables.pairs import PAIRS, read
from suite.types import BadInput, Proxy, Trial

LOG = ROOT / "results" / "digits_study" / "trials.jsonl"


@needs_shared
def test_the_recipe_pair_of_accel_nasbench_ranks_as_published():
    pairs = read("accel_nasbench", SHARED / "data")
    mean, one = pairs.cheap["reduced recipe, mean of 3 runs"], pairs.cheap["reduced recipe, one run"]
    assert (len(pairs.networks), mean.shape, one.shape) == (117, (1, 117), (3, 117))
    assert kendall_tau(mean[0], pairs.full.mean(axis=0)) == pytest.approx(0.926, abs=0.0006)
    assert all(0.88 < kendall_tau(run, pairs.full.mean(axis=0)) < 0.926 for run in one)
    top, how = possible_tau(study_of(pairs))
    assert top is not None
    assert top.value == pytest.approx(0.98, abs=0.005)
    assert how == "a perfect proxy against the mean of 3 runs of full training"


@needs_shared
def test_curves_of_nas_bench_nlp_rank_as_published():
    pairs = read("nas_bench_nlp", SHARED / "data")
    assert pairs.full.shape == (1, 341)
    found = {name: kendall_tau(errors[0], pairs.full[0]) for name, errors in pairs.cheap.items() if "TSE" not in name}
    expected = {1: 0.58, 3: 0.69, 5: 0.76, 10: 0.83, 20: 0.90, 25: 0.93, 40: 0.97}
    assert found == pytest.approx({f"{stage} of 50 epochs": tau for stage, tau in expected.items()}, abs=0.0051)


def test_pairs_that_there_are_not_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no pairs 'accel': did you mean 'accel_nasbench'"):
        read("accel", tmp_path)
    for name in PAIRS:
        with pytest.raises(BadInput, match="no file"):
            read(name, tmp_path)


def test_a_live_study_is_a_table_that_is_read_at_every_epoch():
    assert "proxy_table" in TABLES
    table = open_table("proxy_table", LOG)
    evaluator = TableEvaluator(table, "digits")
    lines = [json.loads(line) for line in LOG.read_text().splitlines()]
    line = next(line for line in lines if line["phase"] == "proxy" and len(line["curve"]) > 3)
    proxy, arch = Proxy(**line["proxy"]), table.space.parse(line["arch"])
    assert evaluator.stages(proxy) == tuple(range(1, proxy.epochs + 1))
    early, end = evaluator.evaluate([Trial(arch, proxy, epochs=3), Trial(arch, proxy)])
    assert early.metrics["val_error"] == pytest.approx(line["curve"][2]["val_error"])
    assert end.metrics["val_error"] == pytest.approx(line["metrics"]["val_error"])
    judge = TableEvaluator(table, "digits", view="judge", full=evaluator.full)
    (judged,) = judge.evaluate([Trial(arch, evaluator.full)])
    mine = [
        li["metrics"]["test_error"] for li in lines if li["arch"] == line["arch"] and li["phase"] == "full training"
    ]
    assert judged.metrics["test_error"] == pytest.approx(sum(mine) / len(mine))
