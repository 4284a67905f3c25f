"""Surrogate benchmarks: what they answer, refuse and keep; the evaluator and the search on them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from helpers.analytic import quality

import searchers
import surrogates
from suite.evaluators.surrogate import SurrogateEvaluator
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.study import surrogate as study
from suite.study.conclusions import Board, agreement
from suite.tables.base import Table
from suite.types import BadInput, Proxy, Trial, Unsupported
from surrogates.benchmark import Benchmark, Rows, Setting, seed_noise

SPACE = SPACES["nas_bench_macro"]
SHORT, LONG = Proxy(10, 32, 32), Proxy(50, 32, 32)
NOISE = 0.3


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """400 networks under two proxies, three runs each, errors by formula."""
    rng = np.random.default_rng(0)
    archs = list({SPACE.sample(rng) for _ in range(400)})
    rows = [
        {
            "architecture": SPACE.text(arch), "epochs": proxy.epochs, "channels": 32, "resolution": 32,
            "stage": proxy.epochs, "dataset": "toys", "split": "valid", "seed": seed,
            "error": quality(SPACE.simplified(arch)) + 60 / proxy.epochs + NOISE * rng.normal(),
            "device_s": proxy.epochs * (1 + sum(arch)), "device": "toy",
        }
        for arch in archs for proxy in (SHORT, LONG) for seed in range(3)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("table") / "toys.table"
    Table.from_frame(pd.DataFrame(rows), SPACE, {"table": "toys"}).save(path)
    return path


@pytest.fixture(scope="module")
def benchmark(table):
    return study.fit(str(table), None, None, networks=200, predictor="ridge")


def test_a_proxy_is_an_input(benchmark):
    rng = np.random.default_rng(1)
    archs = [SPACE.sample(rng) for _ in range(100)]
    short = benchmark.mean(archs, benchmark.check(SHORT, 10))
    long = benchmark.mean(archs, benchmark.check(LONG, 50))
    assert np.mean(short - long) == pytest.approx(60 / 10 - 60 / 50, abs=1.0)
    assert np.corrcoef(long, [quality(SPACE.simplified(arch)) for arch in archs])[0, 1] > 0.6


def test_seconds_are_those_of_the_table(benchmark):
    archs = [SPACE.sample(np.random.default_rng(seed)) for seed in range(50)]
    said = benchmark.seconds(archs, benchmark.check(LONG, 50))
    assert np.mean(np.abs(said / [50 * (1 + sum(arch)) for arch in archs] - 1)) < 0.1


def test_a_seed_draws_and_the_mean_can_be_asked_for(benchmark):
    arch, setting = SPACE.at(1234), benchmark.check(LONG, 50)
    drawn = np.array([benchmark.drawn(arch, setting, seed) for seed in range(400)])
    assert benchmark.drawn(arch, setting, 3) == drawn[3]
    mean = benchmark.mean([arch], setting)[0]
    assert drawn.mean() == pytest.approx(mean, abs=5 * drawn.std() / 20)
    assert (
        0.4 * NOISE < drawn.std() < 2.5 * NOISE
    )  # in the model's scale it is the same everywhere, in percent it is not


def test_seed_noise_is_the_pooled_deviation_of_runs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    runs = [tuple(5 + row.sum() + 0.2 * rng.normal(size=3)) for row in x]
    model = surrogates.make("ridge", target="plain").fit(x, np.array([np.mean(several) for several in runs]))
    assert seed_noise(model, runs) * model.scale.spread == pytest.approx(0.2, rel=0.1)
    assert seed_noise(model, [()] * 10) == 0.0


def test_a_saved_benchmark_answers_the_same(benchmark, tmp_path):
    benchmark.save(tmp_path / "s.npz")
    again = Benchmark.load(tmp_path / "s.npz", SPACES)
    archs = [SPACE.at(index) for index in (0, 77, 6000)]
    for setting in benchmark.settings:
        assert np.array_equal(again.mean(archs, setting), benchmark.mean(archs, setting))
        assert np.array_equal(again.seconds(archs, setting), benchmark.seconds(archs, setting))
        assert again.drawn(archs[1], setting, 5) == benchmark.drawn(archs[1], setting, 5)
    assert again.info() == benchmark.info()
    assert again.info()["networks"] == "200"


def test_what_lies_outside_is_refused(benchmark):
    evaluator = SurrogateEvaluator(benchmark)
    with pytest.raises(Unsupported, match="was fitted on 10 of e10"):
        evaluator.evaluate([Trial(SPACE.at(0), Proxy(20, 32, 32))])
    with pytest.raises(Unsupported, match="not 5 of"):
        evaluator.evaluate([Trial(SPACE.at(0), LONG, 5)])
    with pytest.raises(BadInput, match="decisions"):
        evaluator.evaluate([Trial((0, 1), LONG)])


def test_damaged_and_foreign_files_are_one_clear_error(benchmark, tmp_path):
    path = tmp_path / "s.npz"
    benchmark.save(path)
    with pytest.raises(BadInput, match="not known here"):
        Benchmark.load(path, {})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(BadInput, match="damaged"):
        Benchmark.load(path, SPACES)
    benchmark.error.save(path)
    with pytest.raises(BadInput, match="its format is not"):
        Benchmark.load(path, SPACES)
    benchmark.save(path)
    with pytest.raises(BadInput, match="its format is not"):
        surrogates.load(path)


def test_searches_run_on_it_and_the_judge_knows_the_mean(benchmark):
    evaluator = SurrogateEvaluator(benchmark)
    searcher = searchers.make("regularized_evolution", SPACE, LONG, np.random.default_rng(0), population_size=10,
                              sample_size=3)  # fmt: skip
    last = list(run(searcher, evaluator, budget=Budget(evaluations=60)))[-1]
    judge = SurrogateEvaluator(benchmark, view="judge")
    (judged,) = judge.evaluate([Trial(last.best.trial.arch, LONG)])
    everyone = benchmark.mean(list(SPACE), benchmark.check(LONG, 50))
    assert judged.metrics["val_error"] < np.quantile(everyone, 0.2)
    assert last.best.cost.simulated


def test_failed_trainings_are_counted():
    rng = np.random.default_rng(0)
    archs = [SPACE.sample(rng) for _ in range(60)]
    errors = [math.inf if i % 10 == 0 else quality(arch) for i, arch in enumerate(archs)]
    rows = Rows(archs, [Setting(LONG, 50)] * 60, errors, [math.nan] * 60, [()] * 60)
    made = Benchmark.fit(SPACE, "toys", rows, predictor="ridge")
    assert made.info()["failed"] == "6"
    assert math.isnan(made.seconds(archs[:1], Setting(LONG, 50))[0])


def test_a_check_knows_twins_trivial_predictors_and_the_limit_of_seeds(table):
    rows = study.check(str(table), None, "toys", networks=100, splits=2, predictor="ridge")
    assert {(row["held_out"], row["twins"]) for row in rows} >= {("random", "kept"), ("random", "removed"),
                                                                 ("better", "kept")}  # fmt: skip
    for row in rows:
        if row["held_out"] == "random":
            assert row["tau"] > 0.4
            assert 0.9 < row["seed_tau"] < 1
            assert row["networks"] <= 300
    kept = next(row for row in rows if row["twins"] == "kept")
    removed = next(row for row in rows if row["twins"] == "removed")
    assert removed["networks"] < kept["networks"]


def test_wrong_questions_are_one_clear_error(table):
    with pytest.raises(BadInput, match="at most the"):
        study.fit(str(table), None, None, networks=5000)
    with pytest.raises(Unsupported, match="no data set"):
        study.fit(str(table), None, "cifar10")
    with pytest.raises(BadInput, match="at most half"):
        study.check(str(table), None, None, networks=300)


# Do conclusions survive?


def board(means, seeds=12, spread=0.1, slope=1.0):
    rng = np.random.default_rng(0)
    errors = {name: mean + spread * rng.normal(size=seeds) for name, mean in means.items()}
    curves = {
        name: (np.array([1.0, 5.0, 10.0]), slope * np.array([3.0, 1.0, 0.0]) + mean) for name, mean in means.items()
    }
    return Board(errors, curves)


def test_the_same_board_agrees_in_everything():
    real = board({"a": 5.0, "b": 6.0, "c": 7.0})
    told = agreement(real, real, np.random.default_rng(0))
    assert (told["tau"], told["pairs"], told["same"], told["anytime_tau"], told["curve_gap"]) == (1.0, 3, 3, 1.0, 0.0)
    assert told["tau_low"] == 1.0


def test_lost_found_and_reversed_conclusions_are_counted():
    real = board({"a": 5.0, "b": 6.0, "c": 6.001})
    other = board({"c": 5.0, "b": 6.0, "a": 6.001})
    told = agreement(real, other, np.random.default_rng(0))
    assert {key: told[key] for key in ("same", "lost", "found", "reversed")} == {
        "same": 0, "lost": 1, "found": 1, "reversed": 1,
    }  # fmt: skip


def test_curves_are_compared_above_their_own_best():
    real, shifted = board({"a": 5.0, "b": 6.0}), board({"a": 8.0, "b": 9.0})
    assert agreement(real, shifted, np.random.default_rng(0))["curve_gap"] == pytest.approx(0)
    steeper = board({"a": 5.0, "b": 6.0}, slope=2.0)
    assert agreement(real, steeper, np.random.default_rng(0))["curve_gap"] > 0.5
