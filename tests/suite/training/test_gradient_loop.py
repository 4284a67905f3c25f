"""The loop of gradient searches: what an epoch answers, what it costs, and how a search that was cut off goes on."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from searchers.darts import DARTS
from searchers.gdas import GDAS
from suite.data.images import load
from suite.networks.learner import Batch, Learner
from suite.networks.supernet import Supernet
from suite.records.log import Log
from suite.spaces import SPACES
from suite.tasks.images import halves, subset
from suite.training.device import threads
from suite.training.gradient_loop import GradientRun, differentiable, epochs, recommendations
from suite.training.recipe import resolve
from suite.training.trainer import Trainer
from suite.types import BadInput, Cost, Ends, Evaluation, Proxy, Trial, Unsupported

NB201, CELLS = SPACES["nas_bench_201"], SPACES["darts"]
TINY = Proxy(3, 4, 8, 0.2, 1)
SMALL = Proxy(2, 2, 4, 0.03, 3)
RECIPE = {"base": "darts_search", "batch_size": 32}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def searcher(method=DARTS, space=NB201, proxy=TINY, **options):
    return method(space, proxy, np.random.default_rng(0), **options)


def answers(search, data, proxy=TINY, **options):
    return epochs(search, data, proxy, **{"recipe": RECIPE, "device": "cpu", **options})


def learnt(search):
    """Logits, moments of their optimiser, the network: all of it."""
    state = search.optimizer.state_dict()["state"][0] if search.optimizer.state else {}
    return [search.logits.detach(), *state.values(), *search.learner.supernet.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(learnt(a), learnt(b), strict=True))


def told(evaluations):
    """All but the clock."""
    return [
        (answer.trial, answer.metrics, answer.cost.macs, answer.failure,
         [{name: value for name, value in entry.items() if name != "device_s"} for entry in answer.curve])
        for answer in evaluations
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A search in one go: the searcher, its answers, the folder of its checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    search = searcher(alpha_first=False)
    return search, list(answers(search, digits, checkpoints=folder, seed=1)), folder


# What an epoch answers


def test_an_epoch_answers_for_the_cell_that_would_be_handed_over(whole, digits):
    search, found, _ = whole
    assert [answer.trial.epochs for answer in found] == [1, 2, 3]
    assert found[-1].trial == Trial(search.derive(), TINY, epochs=3, seed=1)
    for answer in found:
        arch = answer.trial.arch
        assert answer.metrics["params"] == NB201.params(arch, TINY, ends=Ends(1, 10))
        assert answer.metrics["macs"] == NB201.macs(arch, TINY, ends=Ends(1, 10))
        (entry,) = answer.curve
        assert entry["epoch"] == answer.trial.epochs
        assert entry["val_error"] == answer.metrics["val_error"]
        assert (entry["skips"], entry["nones"]) == (arch.count(1), arch.count(0))
        assert 0 < entry["entropy"] <= math.log(5)
        assert all(math.isfinite(value) for value in entry.values())
    assert [answer.curve[0]["lr"] for answer in found] == pytest.approx([0.025, 0.019, 0.007])


def test_the_score_is_the_mixtures_on_the_held_out_images(whole, digits):
    search, found, _ = whole
    supernet = search.learner.supernet.eval()
    trainer = Trainer(NB201, digits, resolve(RECIPE), device="cpu", threads=1, judge=False, checkpoints=whole[2])
    x = trainer.opened(supernet, TINY, 0).look("valid", slice(None)).inputs
    with torch.no_grad():
        for name, network in (("val_error", supernet.mix(search.weights())), ("child_error", None)):
            network = network or supernet.path(search.derive())
            wrong = (network(x).argmax(1) != digits.valid_labels).double().mean().item()
            assert found[-1].curve[0][name] == pytest.approx(100 * wrong, abs=0.5)


@pytest.mark.parametrize("bilevel", [True, False])
def test_images_of_weights_and_logits_are_apart_or_the_same(bilevel, digits, tmp_path):
    class Watched(DARTS):
        def step(self, train, held):
            used.append((train.targets, held().targets, held() is held(), held() is train))
            return super().step(train, held)

    used: list = []
    search = searcher(Watched)
    search.bilevel = bilevel
    proxy = replace(TINY, epochs=1)
    list(answers(search, digits, proxy, checkpoints=tmp_path))
    of_all = len(subset(digits.train_labels, proxy.samples, 0))
    images = sum(len(train) for train, *_ in used)
    assert images == (math.ceil(of_all / 2) if bilevel else of_all)
    assert all(once for _, _, once, _ in used)
    assert [is_train for *_, is_train in used] == [not bilevel] * len(used)
    if bilevel:
        assert {len(held) for _, held, *_ in used} == {32}


def test_batches_of_logits_are_drawn_from_their_half_anew_in_every_step(digits, tmp_path):
    trainer = Trainer(NB201, digits, resolve(RECIPE), device="cpu", threads=1, judge=False, checkpoints=tmp_path)
    search = GradientRun(searcher(), trainer, TINY, seed=0)
    session = search.session
    weights, held = halves(session.task.groups, session.places, 0)
    assert session.half_of("weights").tolist() == weights.tolist()
    assert not set(weights.tolist()) & set(held.tolist())

    def order(epoch):
        session.held(epoch, 0)
        return session.streams["held"][1].order

    drawn = order(0).split(32)
    assert all(len(set(batch.tolist())) == 32 for batch in drawn)  # without replacement in a batch
    assert set(order(0).tolist()) <= set(held.tolist())
    assert len(set(order(0).tolist())) < len(order(0))  # with replacement across batches
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(order(0), order(1))


def test_multiply_adds_are_those_of_every_pass(whole, digits):
    search, found, _ = whole
    supernet = search.learner.supernet
    images = math.ceil(len(subset(digits.train_labels, TINY.samples, 1)) / 2)
    steps = math.ceil(images / 32)
    mixture = supernet.mix(search.weights()).computed_macs()
    for answer in found:
        child = NB201.macs(answer.trial.arch, TINY, ends=Ends(1, 10))
        assert answer.cost.macs == mixture * (3 * images + 2 * 32 * steps + 360) + child * 360
        assert 0 < answer.curve[0]["device_s"] == answer.cost.device_s


def test_a_recommendation_an_epoch(whole, digits):
    _, found, folder = whole
    again = list(differentiable(searcher(alpha_first=False), digits, TINY, checkpoints=folder, recipe=RECIPE, seed=1,
                                device="cpu"))  # fmt: skip
    assert [r.best for r in again] == found
    assert [r.evaluations for r in again] == [1, 2, 3]
    assert again[-1].device_s == again[-1].clock_s == sum(answer.cost.device_s for answer in found)


def test_the_winner_is_the_last_epochs_cell_or_the_best_ones():
    def answer(epoch, error, failure=""):
        metrics = {"val_error": error}
        return Evaluation(Trial((0,) * 6, Proxy(9, 4, 8), epoch), metrics, Cost(1.0, "CPU"), failure)

    given = [answer(1, 50.0), answer(2, 30.0), answer(3, 30.0), answer(4, 40.0), answer(5, math.inf, "diverged")]
    assert [r.best.trial.epochs for r in recommendations(given, "last")] == [1, 2, 3, 4, 4]
    assert [r.best.trial.epochs for r in recommendations(given, "best")] == [1, 2, 2, 2, 2]
    (none,) = recommendations(given[-1:], "last")
    assert (none.best, none.front, none.device_s) == (None, (), 1.0)


# Going on


@pytest.mark.parametrize("cut", [1, 2])
def test_a_search_cut_off_and_gone_on_with_is_the_search_in_one_go(whole, digits, tmp_path, cut):
    first = list(islice(answers(searcher(alpha_first=False), digits, checkpoints=tmp_path, seed=1), cut))
    search = searcher(alpha_first=False)
    rest = list(answers(search, digits, checkpoints=tmp_path, seed=1, done=cut))
    assert told([*first, *rest]) == told(whole[1])
    assert same(search, whole[0])


@pytest.mark.parametrize(
    ("method", "space", "options"),
    [(DARTS, NB201, {"order": 2}), (DARTS, CELLS, {}), (GDAS, NB201, {})],
    ids=["second order", "darts", "gdas"],
)
def test_so_it_is_for_the_others(method, space, options, digits, tmp_path):
    proxy = SMALL if space is CELLS else replace(TINY, epochs=2, samples=0.15)

    def made():
        return searcher(method, space, proxy, **options)

    whole, parts = made(), made()
    expected = list(answers(whole, digits, proxy, checkpoints=tmp_path / "whole"))
    first = list(islice(answers(made(), digits, proxy, checkpoints=tmp_path / "parts"), 1))
    rest = list(answers(parts, digits, proxy, checkpoints=tmp_path / "parts", done=1))
    assert told([*first, *rest]) == told(expected)
    assert same(parts, whole)


def test_a_kill_between_checkpoint_and_log_charges_nothing_twice(whole, digits, tmp_path):
    """The log lacks the epoch whose checkpoint is there."""
    path = tmp_path / "trials.jsonl"

    def go(until=None):
        """As a run does it; killed when the checkpoint of epoch `until` is written, before its answer is logged."""
        with Log(path, NB201) as log:
            known = log.answers("digits", "darts/1", "search")
            yield from known
            for answer in answers(searcher(alpha_first=False), digits, checkpoints=tmp_path, seed=1, done=len(known)):
                if answer.trial.epochs == until:
                    return
                log.append("digits", "darts/1", "search", answer)
                yield answer

    assert len(list(go(until=2))) == 1
    assert len(list(tmp_path.glob("*.pt"))) == 1
    gone_on = list(go())
    assert told(gone_on) == told(whole[1])
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert list(go()) == gone_on  # from the log alone
    assert path.read_text().splitlines() == lines


def test_epochs_that_are_done_build_nothing(digits, tmp_path):
    search = searcher()
    assert list(answers(search, digits, checkpoints=tmp_path / "none", done=3)) == []
    assert not hasattr(search, "learner")
    assert not (tmp_path / "none").exists()


def test_without_its_checkpoint_a_search_is_trained_again_and_says_so(whole, digits, tmp_path):
    with pytest.warns(UserWarning, match="no checkpoint of the 2 epochs that are done; 2 of them are trained again"):
        (last,) = answers(searcher(alpha_first=False), digits, checkpoints=tmp_path, seed=1, done=2)
    assert told([last]) == told(whole[1][2:])


def test_searches_of_other_seeds_options_and_recipes_are_not_taken_up(whole, digits):
    _, found, folder = whole

    def first(recipe=RECIPE, seed=1, **options):
        search = searcher(**{"alpha_first": False, **options})
        return told(islice(answers(search, digits, checkpoints=folder, seed=seed, recipe=recipe), 1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = told(found[:1])
        assert first() == expected
        assert first(seed=2) != expected
        assert first(alpha={"scale": 0.5}) != expected
        assert first(recipe={**RECIPE, "nesterov": True}) != expected


def test_the_global_generators_are_neither_used_nor_moved(whole, digits, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    (first,) = islice(answers(searcher(alpha_first=False), digits, checkpoints=tmp_path, seed=1), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert told([first]) == told(whole[1][:1])


# Another network in the course of a search


class Growing(DARTS):
    """A toy that grows: one cell a stage, from its second epoch on two; its logits stay."""

    grown, keeps = False, True

    def size(self) -> Proxy:
        return replace(self.proxy, cells=2) if self.grown else self.proxy

    def build(self, ends: Ends, seed: int) -> Supernet:
        return Supernet(self.space, self.size(), ends=ends, seed=seed, skip_dead_edges=True)

    def epoch(self, number: int) -> None:
        super().epoch(number)
        if number == 1:
            self.before = {name: tensor.clone() for name, tensor in self.learner.supernet.state_dict().items()}
            self.moments = self.named_moments()
            self.grown = True
            ends, size = self.learner.supernet.ends, replace(self.size(), resolution=4)
            self.learner.replace(self.build(ends, self.learner.seed), keep=self.keeps, proxy=size)
            self.after = {name: tensor.clone() for name, tensor in self.learner.supernet.state_dict().items()}
            self.moments_after = self.named_moments()

    def named_moments(self) -> dict[str, torch.Tensor]:
        names = [name for name, _ in self.learner.supernet.named_parameters()]
        return {name: moment.clone() for name, moment in zip(names, self.learner.momentum_buffers(), strict=True)}

    def state(self):
        return super().state() | {"grown": self.grown}

    def load(self, state):
        super().load(state)
        self.grown = state["grown"]


GROWING = replace(TINY, samples=0.1)


@pytest.fixture(scope="module")
def grown(digits, tmp_path_factory):
    search = searcher(Growing, proxy=GROWING)
    return search, list(answers(search, digits, GROWING, checkpoints=tmp_path_factory.mktemp("grown"), seed=1))


@pytest.mark.parametrize("cut", [1, 2])
def test_a_search_cut_off_before_or_after_a_replacement_goes_on_to_the_same_bit(grown, digits, tmp_path, cut):
    first = answers(searcher(Growing, proxy=GROWING), digits, GROWING, checkpoints=tmp_path, seed=1)
    held = list(islice(first, cut))
    search = searcher(Growing, proxy=GROWING)
    rest = list(answers(search, digits, GROWING, checkpoints=tmp_path, seed=1, done=cut))
    assert told([*held, *rest]) == told(grown[1])
    assert same(search, grown[0])
    assert (search.learner.supernet.cells, search.learner.proxy.resolution) == (6, 4)


def test_a_replacement_keeps_weights_statistics_and_moments_by_name(grown):
    search, _ = grown
    before, after, fresh = search.before, search.after, search.build(Ends(1, 10), 1).state_dict()
    kept = [name for name in before if name in after and before[name].shape == after[name].shape]
    assert 40 < len(kept) < len(after)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name] if name in kept else fresh[name])
    for name, moment in search.moments_after.items():
        assert torch.equal(moment, search.moments[name] if name in kept else torch.zeros_like(moment))
    assert any(moment.any() for moment in search.moments_after.values())


def test_a_replacement_that_keeps_nothing_begins_anew(digits, tmp_path):
    search = searcher(Growing, proxy=GROWING)
    search.keeps = False
    list(islice(answers(search, digits, GROWING, checkpoints=tmp_path, seed=1), 2))
    fresh = search.build(Ends(1, 10), 1).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in search.after.items())
    assert not any(moment.any() for moment in search.moments_after.values())
    group = search.learner.optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 3e-4)


def test_a_replacement_in_the_midst_of_an_epoch_or_of_another_schedule_is_refused(digits, tmp_path):
    class Hasty(DARTS):
        def step(self, train, held):
            self.learner.replace(self.build(Ends(1, 10), 0))

    class Longer(DARTS):
        def epoch(self, number):
            self.learner.replace(self.build(Ends(1, 10), 0), proxy=replace(self.proxy, epochs=9))

    with pytest.raises(BadInput, match="step 1 of epoch 1 is under way; a network is replaced between epochs"):
        list(answers(searcher(Hasty), digits, checkpoints=tmp_path))
    with pytest.raises(BadInput, match="the proxy changes epochs from 3 to 9; a search keeps its epochs"):
        list(answers(searcher(Longer), digits, checkpoints=tmp_path))


def test_what_is_built_must_be_a_network_of_mixtures(digits, tmp_path):
    class Plain(DARTS):
        def build(self, ends, seed):
            return torch.nn.Linear(2, 2)

    with pytest.raises(BadInput, match=r"Plain.build must return a module with the methods of .*Mixes, not a Linear"):
        list(answers(searcher(Plain), digits, checkpoints=tmp_path))


def test_scores_are_those_of_the_loop_and_are_counted(digits, tmp_path):
    class Scoring(DARTS):
        def step(self, train, held):
            passed = super().step(train, held)
            before = self.learner.macs
            found.append((self.learner.score(self.derive()), self.learner.score(self.weights())))
            counted.append(self.learner.macs - before)
            return passed

    found: list = []
    counted: list = []
    proxy = replace(TINY, epochs=1)
    plain, search = searcher(), searcher(Scoring)
    (expected,) = answers(plain, digits, proxy, checkpoints=tmp_path / "plain")
    (answer,) = answers(search, digits, proxy, checkpoints=tmp_path / "scoring")
    assert found[-1] == (answer.curve[0]["child_error"], answer.curve[0]["val_error"])
    supernet = search.learner.supernet
    mixture, child = supernet.mix(search.weights()).computed_macs(), supernet.path(search.derive()).computed_macs()
    assert counted[-1] == len(digits.valid_labels) * (mixture + child)
    assert answer.cost.macs == expected.cost.macs + sum(counted)
    assert answer.metrics == expected.metrics  # a score moves nothing
    assert same(search, plain)
    with pytest.raises(Unsupported, match="one mixture for all held-out images"):
        search.learner.score(torch.rand(3, 1, *supernet.shape))


def test_without_a_loop_there_is_nothing_to_score_on():
    search = searcher()
    supernet = search.build(Ends(1, 10), 0)
    learner = Learner(supernet, torch.optim.SGD(supernet.parameters(), 0.1), seed=0)
    with pytest.raises(Unsupported, match="no held-out images"):
        learner.score((0,) * 6)


def test_losses_of_each_example_are_given_where_they_are_asked_for():
    supernet = searcher().build(Ends(1, 10), 0).double().train()
    learner = Learner(supernet, torch.optim.SGD(supernet.parameters(), 0.1), seed=0)
    rng = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=rng), torch.arange(5))
    weights = torch.rand(5, 1, 6, 5, dtype=torch.float64, generator=rng).requires_grad_()
    passed = learner.forward(batch, weights, each=True)
    expected = torch.stack([
        torch.nn.functional.cross_entropy(logits[None], label[None])
        for logits, label in zip(passed.outputs, batch.targets, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(passed.losses, expected)
    torch.testing.assert_close(passed.loss, expected.mean())
    (slope,) = torch.autograd.grad(passed.losses[2], weights)
    assert slope[2].any()
    assert learner.forward(batch, weights.mean(dim=(0, 1))).losses is None


# What goes wrong


def test_a_search_that_diverges_says_so_and_ends(digits, tmp_path):
    recipe = {**RECIPE, "lr": 1e20, "grad_clip": 0.0}
    found = list(answers(searcher(), digits, checkpoints=tmp_path, recipe=recipe))
    assert [answer.trial.epochs for answer in found] == list(range(1, len(found) + 1))
    assert "loss of epoch" in found[-1].failure
    assert set(found[-1].metrics.values()) == {math.inf}
    assert found[-1].cost.device_s > 0
    again = answers(searcher(), digits, checkpoints=tmp_path, recipe=recipe, done=len(found))
    assert list(again) == []


def test_what_cannot_be_searched_is_refused(digits, tmp_path):
    with pytest.raises(Unsupported, match="no supernet"):
        list(answers(searcher(space=SPACES["darts_econas"]), digits, SMALL, checkpoints=tmp_path))
    with pytest.raises(Unsupported, match="multiple of 4"):
        list(answers(searcher(), digits, replace(TINY, resolution=6), checkpoints=tmp_path))
    with pytest.raises(BadInput, match="no 'dart_search'"):
        list(answers(searcher(), digits, checkpoints=tmp_path, recipe="dart_search"))


def test_statistics_of_the_norms_are_the_searchers_choice(digits, tmp_path):
    proxy = replace(TINY, epochs=1)
    search = searcher(statistics="batch")
    list(answers(search, digits, proxy, checkpoints=tmp_path))
    supernet: Supernet = search.learner.supernet
    assert (supernet.norms.statistics, supernet.norms.affine) == ("batch", False)
    assert search.learner.norms == []


def test_the_recipes_are_the_published_ones():
    darts, bench = resolve("darts_search"), resolve("nas_bench_201_search")
    for recipe in (darts, bench):
        assert (recipe.lr, recipe.lr_min, recipe.momentum, recipe.batch_size, recipe.grad_clip) == (
            0.025, 0.001, 0.9, 64, 5.0,
        )  # fmt: skip
    assert (darts.nesterov, darts.weight_decay) == (False, 3e-4)
    assert (bench.nesterov, bench.weight_decay) == (True, 5e-4)
