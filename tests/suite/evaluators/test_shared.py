"""Scores by the weights of a supernet, and how these are trained."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import searchers
from suite.data.images import load
from suite.evaluators.shared import SharedEvaluator
from suite.networks.operations import Norms
from suite.networks.supernet import Supernet
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.training.device import threads
from suite.training.supernet import SupernetTrainer
from suite.types import BadInput, Ends, Evaluator, Proxy, Trial, Unsupported

NB201, DARTS = SPACES["nas_bench_201"], SPACES["darts"]
TINY = Proxy(epochs=3, channels=4, resolution=8, samples=0.2, cells=1)
SMALL = Proxy(epochs=2, channels=2, resolution=8, samples=0.06, cells=3)
GOOD, OTHER, NONE = (3, 2, 1, 1, 4, 2), (1, 1, 2, 0, 3, 1), (0,) * 6
RECIPE = {"batch_size": 32}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    trainer = SupernetTrainer(NB201, digits, recipe=RECIPE, device="cpu", checkpoints=tmp_path_factory.mktemp("runs"))
    return trainer.train(replace(TINY, epochs=12, samples=0.5))


@pytest.fixture
def shared(trained, digits):
    return lambda **options: SharedEvaluator(trained.supernet, digits, **{"device": "cpu", **options})


def at_its_end(trained, *archs):
    return [Trial(arch, trained.supernet.proxy) for arch in archs]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def told(curve):
    return [{name: value for name, value in entry.items() if name != "device_s"} for entry in curve]


# Training


@pytest.mark.parametrize(("space", "proxy"), [(NB201, TINY), (DARTS, SMALL)], ids=["nas_bench_201", "darts"])
@pytest.mark.parametrize("weights", [None, 0.2], ids=["paths", "mixture"])
def test_a_training_cut_off_and_gone_on_with_is_the_training_in_one_go(space, proxy, weights, digits, tmp_path):
    shape = Supernet(space, proxy, ends=Ends(1, 10), seed=0).shape
    options = {"recipe": RECIPE, "device": "cpu", "weights": None if weights is None else torch.full(shape, weights)}
    whole = SupernetTrainer(space, digits, checkpoints=tmp_path / "whole", **options).train(proxy, seed=1)
    half = SupernetTrainer(space, digits, checkpoints=tmp_path / "parts", **options).train(proxy, seed=1, epochs=1)
    assert half.supernet.epochs == 1
    assert not same(half.supernet, whole.supernet)
    rest = SupernetTrainer(space, digits, checkpoints=tmp_path / "parts", **options).train(proxy, seed=1)
    assert same(rest.supernet, whole.supernet)
    assert told(rest.curve) == told(whole.curve)
    assert rest.cost.macs == whole.cost.macs
    assert rest.cost.device_s == pytest.approx(sum(entry["device_s"] for entry in rest.curve), rel=0.2)
    again = SupernetTrainer(space, digits, checkpoints=tmp_path / "parts", **options).train(proxy, seed=1)
    assert again.cost == rest.cost  # found finished: it cost what it had cost


def test_runs_of_other_seeds_recipes_and_norms_are_not_taken_up(digits, tmp_path):
    proxy = replace(TINY, epochs=1, samples=0.2)

    def train(seed=0, recipe=RECIPE, **options):
        trainer = SupernetTrainer(NB201, digits, recipe=recipe, device="cpu", checkpoints=tmp_path, **options)
        return trainer.train(proxy, seed=seed).supernet

    first = train()
    assert not same(first, train(seed=1))
    assert not same(first, train(recipe={"batch_size": 33}))
    assert first.norms != train(norms=Norms()).norms
    assert not same(first, train(weights=torch.ones(6, 5)))
    assert same(first, train())


def test_the_cost_of_paths_is_that_of_the_networks_drawn(digits, tmp_path):
    proxy = replace(TINY, epochs=1, samples=0.2)
    trained = SupernetTrainer(NB201, digits, recipe=RECIPE, device="cpu", checkpoints=tmp_path).train(proxy, seed=5)
    images = round(0.2 * len(digits.train_labels))
    drawn = [NB201.sample(np.random.default_rng((5, 0, number))) for number in range(math.ceil(images / 32))]
    macs = [NB201.macs(arch, proxy, ends=Ends(1, 10)) for arch in drawn]
    assert 3 * 32 * sum(macs[:-1]) < trained.cost.macs <= 3 * 32 * sum(macs) + 3 * 32 * max(macs)


def test_the_global_generators_are_neither_used_nor_moved(digits, tmp_path):
    proxy = replace(TINY, epochs=1, samples=0.2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = SupernetTrainer(NB201, digits, recipe=RECIPE, device="cpu", checkpoints=tmp_path / "a").train(proxy)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = SupernetTrainer(NB201, digits, recipe=RECIPE, device="cpu", checkpoints=tmp_path / "b").train(proxy)
    assert same(first.supernet, second.supernet)


def test_what_cannot_be_trained_is_refused(digits, tmp_path):
    trainer = SupernetTrainer(NB201, digits, recipe={"lr": 1e20}, device="cpu", checkpoints=tmp_path)
    with pytest.raises(BadInput, match=r"epochs must lie in 1\.\.3 \(its proxy's\), not 5"):
        trainer.train(TINY, epochs=5)
    with pytest.raises(Unsupported, match="multiple of 4"):
        trainer.train(replace(TINY, resolution=6))
    with pytest.raises(BadInput, match=r"loss of epoch \d is not finite; lower the recipe's lr"):
        trainer.train(replace(TINY, samples=0.2))
    other = SupernetTrainer(SPACES["darts_econas"], digits, device="cpu", checkpoints=tmp_path)
    with pytest.raises(Unsupported, match="darts_econas: no supernet"):
        other.train(SMALL)


# Scores


def test_it_is_an_evaluator(shared, trained):
    evaluator = shared()
    assert isinstance(evaluator, Evaluator)
    assert (evaluator.name, evaluator.space, evaluator.dataset) == ("shared", NB201, "digits")
    assert evaluator.stages(trained.supernet.proxy) == (12,)
    (answer,) = evaluator.evaluate(at_its_end(trained, GOOD))
    assert list(answer.metrics) == ["val_error", "params", "macs"]
    assert answer.metrics["params"] == NB201.params(GOOD, TINY, ends=Ends(1, 10))
    macs = NB201.macs(GOOD, TINY, ends=Ends(1, 10))
    assert answer.metrics["macs"] == macs
    assert answer.cost.macs == macs * 360
    assert answer.cost.device_s > 0
    assert answer.cost.device == evaluator.device


@pytest.mark.parametrize("statistics", ["batch", "recalibrated"])
def test_a_good_cell_scores_better_than_one_of_zeros(shared, trained, statistics):
    good, none = shared(statistics=statistics).evaluate(at_its_end(trained, GOOD, NONE))
    assert good.metrics["val_error"] < 75
    assert none.metrics["val_error"] > 80


@pytest.mark.parametrize("statistics", ["batch", "recalibrated", "running"])
def test_a_score_depends_on_its_architecture_alone_and_leaves_the_supernet_alone(shared, trained, statistics):
    before = {name: tensor.clone() for name, tensor in trained.supernet.state_dict().items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    forwards = shared(statistics=statistics).evaluate(at_its_end(trained, GOOD, OTHER, NONE))
    backwards = shared(statistics=statistics).evaluate(at_its_end(trained, NONE, OTHER, GOOD))
    assert [answer.metrics for answer in forwards] == [answer.metrics for answer in backwards[::-1]]
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.supernet.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_statistics_are_those_of_a_supernet_without_running_ones(shared, trained, digits):
    supernet = trained.supernet
    without = Supernet(
        NB201, supernet.proxy, ends=Ends(1, 10), seed=0, norms=replace(supernet.norms, statistics="batch")
    )
    without.load_state_dict(supernet.state_dict(), strict=False)
    for statistics in ("batch", "recalibrated"):
        evaluator = SharedEvaluator(without, digits, device="cpu", statistics=statistics)
        theirs = shared(statistics=statistics).evaluate(at_its_end(trained, GOOD, OTHER))
        assert [a.metrics for a in evaluator.evaluate(at_its_end(trained, GOOD, OTHER))] == [a.metrics for a in theirs]
    with pytest.raises(Unsupported, match="no running statistics; use batch or recalibrated"):
        SharedEvaluator(without, digits, device="cpu", statistics="running")


def test_recalibration_on_all_images_is_their_statistics(shared, trained, digits):
    """With one batch of everything the running statistics are that batch's."""
    evaluator = shared(statistics="recalibrated", calibration=400)
    network = trained.supernet.standalone(GOOD).eval()
    session = evaluator.trainer.opened(network, evaluator.proxy, 0)
    with torch.no_grad():
        evaluator.recalibrate(network, session, 0, _leg())
    stem = network.stem_norm
    assert int(stem.num_batches_tracked) == 1
    assert not torch.equal(stem.running_mean, trained.supernet.network.stem_norm.running_mean)


def _leg():
    from suite.training.trainer import Spent

    return Spent()


def test_a_trial_asked_again_costs_nothing(shared, trained):
    evaluator = shared()
    first, second = evaluator.evaluate(at_its_end(trained, GOOD, GOOD))
    assert second.metrics == first.metrics
    assert (second.cost.device_s, second.cost.macs) == (0.0, 0.0)


def test_seeds_are_supernets(trained, digits, tmp_path):
    trainer = SupernetTrainer(NB201, digits, recipe=RECIPE, device="cpu", checkpoints=tmp_path)
    proxy = replace(TINY, epochs=2)
    both = SharedEvaluator([trainer.train(proxy, seed=seed).supernet for seed in (0, 7)], digits, device="cpu")
    zero, seven = both.evaluate([Trial(GOOD, proxy), Trial(GOOD, proxy, seed=7)])
    assert zero.metrics["val_error"] != seven.metrics["val_error"]
    with pytest.raises(Unsupported, match="no supernet of seed 1; there are seeds 0, 7"):
        both.evaluate([Trial(GOOD, proxy, seed=1)])
    with pytest.raises(BadInput, match="different seeds and the same number of epochs"):
        SharedEvaluator([trained.supernet, trained.supernet], digits, device="cpu")
    with pytest.raises(BadInput, match="need an evaluator each"):
        SharedEvaluator([trained.supernet, trainer.train(proxy, seed=7).supernet], digits, device="cpu")


def test_weights_that_are_not_numbers_fail_with_a_reason(digits):
    supernet = Supernet(NB201, TINY, ends=Ends(1, 10), seed=0)
    with torch.no_grad():
        supernet.network.classifier.weight.fill_(math.nan)
    (answer,) = SharedEvaluator(supernet, digits, device="cpu").evaluate([Trial(GOOD, TINY)])
    assert all(value == math.inf for value in answer.metrics.values())
    assert "not finite" in answer.failure


def test_the_test_images_are_never_looked_at(trained, digits):
    blind = replace(digits, test_images=torch.empty(0), test_labels=torch.empty(0))
    SharedEvaluator(trained.supernet, blind, device="cpu").evaluate(at_its_end(trained, GOOD))


def test_what_it_was_not_trained_for_is_refused_before_anything_is_scored(shared, trained):
    evaluator, proxy = shared(), trained.supernet.proxy
    with pytest.raises(Unsupported, match=r"was trained under e12 c4 r8 s0\.5 n1; ask for that, not e12 c8"):
        evaluator.evaluate([Trial(GOOD, proxy), Trial(GOOD, replace(proxy, channels=8))])
    with pytest.raises(Unsupported, match="trained for 12 epochs, not 3"):
        evaluator.evaluate([Trial(GOOD, proxy, epochs=3)])
    with pytest.raises(BadInput, match="6 decisions"):
        evaluator.evaluate([Trial((1,), proxy)])
    assert not evaluator.known


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"statistics": "mean"}, "statistics must be one of batch, recalibrated, running, not 'mean'"),
        ({"calibration": 1}, "calibration must be a whole number of images, at least 2, not 1"),
        ({"device": "gpu"}, "device: no 'gpu' here"),
    ],
)
def test_options_are_checked(shared, options, says):
    with pytest.raises((BadInput, Unsupported), match=says):
        shared(**options)


def test_supernets_and_data_must_belong_together(trained, digits):
    with pytest.raises(BadInput, match="no supernet was given"):
        SharedEvaluator([], digits)
    grey = Supernet(NB201, TINY, ends=Ends(3, 10), seed=0)
    with pytest.raises(BadInput, match="10 classes and 3 channels cannot look at digits, which has 10 and 1"):
        SharedEvaluator(grey, digits)


# Searches


@pytest.mark.parametrize("name", ["random_search", "regularized_evolution", "local_search", "reinforce"])
def test_black_box_searchers_run_on_a_supernet(name, shared, trained):
    options = {"population_size": 5, "sample_size": 2} if name == "regularized_evolution" else {}
    searcher = searchers.make(name, NB201, trained.supernet.proxy, np.random.default_rng(0), **options)
    recommendations = list(run(searcher, shared(), budget=Budget(evaluations=10)))
    assert len(recommendations) == 10
    assert recommendations[-1].best is not None
    assert recommendations[-1].device_s > 0


def test_so_they_do_on_the_cells_of_darts(digits, tmp_path):
    trained = SupernetTrainer(DARTS, digits, recipe=RECIPE, device="cpu", checkpoints=tmp_path).train(SMALL)
    searcher = searchers.make("random_search", DARTS, SMALL, np.random.default_rng(0))
    evaluator = SharedEvaluator(trained.supernet, digits, device="cpu")
    *_, last = run(searcher, evaluator, budget=Budget(evaluations=3))
    assert last.best is not None
    assert 0 < last.best.metrics["val_error"] <= 100
