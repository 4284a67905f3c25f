"""Every task of the registry keeps the laws of `suite.tasks.base`."""

from __future__ import annotations

import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.colours import CELL, CPU, PROXY, RECIPE, SPACE, coloured, network

from suite.data.images import ImageData, load
from suite.evaluators.live import LiveEvaluator
from suite.spaces import SPACES
from suite.tasks import TASKS, make
from suite.training.recipe import resolve
from suite.types import BadInput, Ends, Proxy, Trial, Unsupported


@pytest.fixture(scope="module")
def data() -> ImageData:
    return coloured()


@pytest.fixture(params=TASKS)
def task(request, data):
    return make(request.param, data, RECIPE)


def session(task, seed: int = 0):
    return task.session(network(task), PROXY, seed=seed, device=CPU)


def same(a, b) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


def test_the_same_seed_and_epoch_show_the_same_whatever_the_global_state(task):
    first = list(session(task).batches(1))
    torch.manual_seed(7)
    torch.rand(5)
    again = list(session(task).batches(1))
    assert len(first) == len(again) == session(task).steps()
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not same(first[0], next(iter(session(task).batches(2))))
    assert not same(first[0], next(iter(session(task, seed=1).batches(1))))


def test_a_network_of_its_ends_takes_its_batches_and_learns_from_its_loss(task):
    opened = session(task)
    for batch in (next(iter(opened.batches(0))), opened.held(0, 1), opened.look("valid", slice(0, 5))):
        outputs = opened.network.eval()(batch.inputs)
        loss = opened.loss(outputs, batch)
        assert loss.ndim == 0
        assert opened.loss(outputs, batch, each=True).mean().item() == pytest.approx(loss.item(), rel=1e-5)
        assert 0 <= int(opened.wrong(outputs, batch)) <= batch.answers
        assert batch.size == len(batch.inputs)
        assert torch.autograd.grad(loss, opened.network.stem.weight)[0].abs().sum() > 0


def test_a_score_is_plain_numbers_in_the_metric_and_counts_what_it_looks_at(task, data):
    opened, seen = session(task), []
    opened.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    score = opened.score("valid")
    assert set(score) >= {"loss", "error"}
    assert all(type(value) is float for value in score.values())
    assert 0 <= score["error"] <= task.metric.worst
    assert sum(seen) == opened.size("valid") == task.copies * len(data.valid_images)
    assert opened.score("valid") == score


def test_an_untrained_networks_mean_loss_is_that_of_blind_guesses(task):
    classes = round(100 / (100 - task.metric.chance))
    assert session(task).score("valid")["loss"] == pytest.approx(np.log(classes), rel=0.15)


def test_halves_of_a_bilevel_search_are_apart_and_together_all(task):
    opened = session(task)
    steps = opened.steps("weights")
    of_weights = sum(batch.size for batch in opened.batches(0, "weights"))
    assert steps == len(list(opened.batches(0, "weights")))
    assert of_weights * 2 == sum(batch.size for batch in opened.batches(0))
    assert same(opened.held(0, 0), session(task).held(0, 0))


def test_state_is_kept_and_taken_up(task):
    opened = session(task)
    other = session(task)
    other.load(opened.state())
    assert all(same(a, b) for a, b in zip(opened.batches(0), other.batches(0), strict=True))


@pytest.mark.parametrize("name", TASKS)
def test_training_in_stages_equals_training_through_and_costs_its_inputs(name, data):
    def live():
        return LiveEvaluator(SPACE, data, recipe={"batch_size": 8}, device="cpu", full=PROXY)

    proxy = replace(PROXY, task="" if name == "classification" else name)
    half, whole = live().evaluate([Trial(CELL, proxy, epochs=1), Trial(CELL, proxy)])
    (through,) = live().evaluate([Trial(CELL, proxy)])
    assert whole.metrics == through.metrics
    assert half.failure == whole.failure == ""
    task = make(name, data, RECIPE)
    forward = SPACE.macs(CELL, task.seen(proxy), task.ends)
    images = 2 * (3 * len(data.train_images) + len(data.valid_images))
    assert through.cost.macs == task.copies * forward * images
    assert through.metrics["params"] == SPACE.params(CELL, proxy, data.ends)  # the board's network, whatever is asked


@pytest.mark.parametrize("name", TASKS)
def test_backbones_have_the_same_weights_for_all_tasks(name, data):
    """Property 5 of UnNAS: all but stem input and head."""
    own, other = make("", data, RECIPE), make(name, data, RECIPE)
    weights, others = network(own).state_dict(), network(other).state_dict()
    assert weights.keys() == others.keys()
    for key in weights.keys() - {"stem.weight", "classifier.weight", "classifier.bias"}:
        assert torch.equal(weights[key], others[key])


def test_classification_is_cross_entropy_of_the_same_batch_bit_for_bit(data):
    smooth = replace(RECIPE, label_smoothing=0.1)
    task = make("classification", data, smooth)
    opened = task.session(network(task), PROXY, seed=0, device=CPU)
    batch = next(iter(opened.batches(0)))
    outputs = opened.network(batch.inputs)
    expected = torch.nn.functional.cross_entropy(outputs, batch.targets, label_smoothing=0.1)
    assert torch.equal(opened.loss(outputs, batch), expected)


def test_unknown_tasks_are_refused_with_the_nearest_name(data):
    with pytest.raises(BadInput, match="no task 'rotations': did you mean 'rotation'"):
        make("rotations", data, RECIPE)


def test_a_judge_never_scores_on_another_task(data):
    judge = LiveEvaluator(SPACE, data, recipe={"batch_size": 8}, device="cpu", full=PROXY, view="judge")
    with pytest.raises(Unsupported, match="the judge scores on the board's own task, classification, not on rotation"):
        judge.evaluate([Trial(CELL, replace(PROXY, task="rotation"))])


def test_the_compiled_step_takes_the_tasks_that_it_can(data):
    live = LiveEvaluator(SPACE, data, recipe={"batch_size": 8, "step": "compiled"}, device="cpu", full=PROXY)
    for name, why in (("jigsaw", "not the tiles"), ("colourisation", "one on each pixel")):
        with pytest.raises(Unsupported, match=f'{why}.*; set step = "torch"'):
            live.evaluate([Trial(CELL, replace(PROXY, task=name))])


def test_the_task_of_the_page_is_one_file_and_one_line(monkeypatch, tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
    file, line = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    module = types.ModuleType("suite.tasks.upside_down")
    exec(compile(file, "docs/tasks.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ((name, place),) = eval("{" + line + "}").items()
    monkeypatch.setitem(TASKS, name, place)
    digits, proxy = load("digits"), Proxy(3, 4, 8, 1.0, 1, task=name)
    live = LiveEvaluator(SPACE, digits, recipe={"batch_size": 32, "step": "compiled"}, device="cpu", full=proxy)
    (answer,) = live.evaluate([Trial(CELL, proxy)])
    assert 0 < answer.metrics["val_error"] < 50


@pytest.mark.parametrize("space", ["mnas", "alexnet", "condensenet"])
def test_spaces_without_a_map_say_so(space):
    with pytest.raises(Unsupported, match="no head 'map'"):
        SPACES[space].params(SPACES[space].at(0), SPACES[space].full, Ends(1, 313, "map"))


def test_a_recipe_prepares_images_for_every_task():
    assert resolve("nas_bench_201").batch_size == 256
