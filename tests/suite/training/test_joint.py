"""Training under what an architecture says of its own recipe."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from helpers.colours import coloured
from helpers.harness import live_content, run_content, toy_table

from suite import commands
from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.networks import build
from suite.spaces import SPACES
from suite.spaces.joint import Joint, options
from suite.spaces.nas_bench_201 import NASBench201
from suite.spec.reading import check
from suite.spec.run import RunSpec
from suite.training.recipe import RECIPES, Recipe, recipe_of
from suite.types import BadInput, Ends, Proxy, Trial, Unsupported

CELL = (3, 2, 1, 1, 4, 2)
TINY = Proxy(epochs=2, channels=4, resolution=8, samples=0.5, cells=1)
PLAIN = {"batch_size": 128, "crop": False}
SPACE = Joint(
    SPACES["nas_bench_201"],
    [
        options("lr", [0.1, 0.02]),
        options("batch_size", [128, 32, 1]),
        options("nesterov", [True, False]),
        options("momentum", [0.9, 0.0], when={"nesterov": [True]}),
        options("warmup_epochs", [0, 1, 2]),
        options("flip", [True, False]),
    ],
)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def live(digits):
    def make(space=SPACE, **settings):
        return LiveEvaluator(space, digits, **{"recipe": PLAIN, "device": "cpu", **settings})

    return make


def told(evaluation):
    """What does not depend on the clock, nor on how the architecture is written."""
    curve = [{name: value for name, value in entry.items() if name != "device_s"} for entry in evaluation.curve]
    return dict(evaluation.metrics), evaluation.failure, curve


def arch(**chosen):
    """The cell with these values, the first one of others."""
    return (
        *CELL,
        *(choice.values.index(chosen[choice.name]) if choice.name in chosen else 0 for choice in SPACE.choices),
    )


@pytest.mark.parametrize(
    "chosen",
    [{}, {"lr": 0.02}, {"batch_size": 32}, {"nesterov": False}, {"warmup_epochs": 1}, {"lr": 0.02, "batch_size": 32}],
    ids=str,
)
def test_a_network_learns_as_under_a_recipe_with_its_values(live, chosen):
    (mine,) = live().evaluate([Trial(arch(**chosen), TINY)])
    (theirs,) = live(SPACES["nas_bench_201"], recipe={**PLAIN, **chosen}).evaluate([Trial(CELL, TINY)])
    assert told(mine) == told(theirs)
    assert mine.cost.macs == theirs.cost.macs
    assert math.isfinite(mine.metrics["val_error"])


def test_networks_of_different_trainings_do_not_meet(live):
    evaluator = live()
    trials = [Trial(arch(**chosen), TINY) for chosen in ({"lr": 0.02}, {}, {"lr": 0.02, "batch_size": 32})]
    together = evaluator.evaluate(trials)
    alone = [live().evaluate([trial])[0] for trial in trials]
    assert [told(answer) for answer in together] == [told(answer) for answer in alone]
    assert len({answer.metrics["val_error"] for answer in together}) > 1
    assert len({evaluator.trainer.key(trial) for trial in trials}) == 3


def test_resuming_goes_on_under_the_values_of_the_architecture(live, tmp_path):
    whole = Trial(arch(lr=0.02, batch_size=32, warmup_epochs=1), TINY)
    live(checkpoints=tmp_path).evaluate([replace(whole, epochs=1)])
    (resumed,) = live(checkpoints=tmp_path).evaluate([whole])
    (through,) = live().evaluate([whole])
    assert told(resumed) == told(through)
    assert resumed.cost.macs == through.cost.macs / 2


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"momentum": 0.0}, "nesterov needs a momentum above 0"),
        ({"warmup_epochs": 2}, "a warm-up of 2 epochs leaves nothing of 2"),
    ],
    ids=str,
)
def test_what_is_no_recipe_is_that_networks_failure(live, chosen, why):
    bad, good = live().evaluate([Trial(arch(**chosen), TINY), Trial(arch(), TINY)])
    assert why in bad.failure
    assert all(value == math.inf for value in bad.metrics.values())
    assert set(bad.metrics) == set(good.metrics)
    assert (bad.cost.device_s, bad.cost.macs) == (0.0, 0.0)
    assert not good.failure
    assert math.isfinite(good.metrics["val_error"])


def test_another_task_prepares_its_batches_under_the_values_too(live):
    proxy = replace(TINY, task="rotation", samples=0.1)
    (mine,) = live().evaluate([Trial(arch(batch_size=32, flip=False), proxy)])
    fixed = {**PLAIN, "batch_size": 32, "flip": False}
    (theirs,) = live(SPACES["nas_bench_201"], recipe=fixed).evaluate([Trial(CELL, proxy)])
    assert told(mine) == told(theirs)


def test_a_recipe_that_a_task_refuses_is_that_networks_failure():
    space = Joint(SPACES["nas_bench_201"], [options("cutout", [0.0, 0.5])])
    jigsaw = Proxy(epochs=1, channels=4, resolution=32, cells=1, task="jigsaw")
    live = LiveEvaluator(space, coloured(), recipe={"batch_size": 16}, device="cpu", full=replace(jigsaw, task=""))
    good, bad = live.evaluate([Trial((*CELL, 0), jigsaw), Trial((*CELL, 1), jigsaw)])
    assert not good.failure
    assert "cutout has no meaning for jigsaw" in bad.failure


@pytest.mark.slow
def test_processes_answer_as_one_does(live):
    trials = [Trial(arch(**chosen), TINY) for chosen in ({"lr": 0.02}, {"batch_size": 1}, {"batch_size": 32})]
    side_by_side = live(workers=2)
    try:
        answers = side_by_side.evaluate(trials)
    finally:
        side_by_side.close()
    assert [told(answer) for answer in answers] == [told(answer) for answer in live().evaluate(trials)]


def test_a_learning_rate_that_diverges_is_that_networks_failure(live):
    wild = Joint(SPACES["nas_bench_201"], [options("lr", [1e30, 0.1])])
    bad, good = live(wild).evaluate([Trial((*CELL, 0), TINY), Trial((*CELL, 1), TINY)])
    assert bad.failure.startswith("diverged")
    assert math.isfinite(good.metrics["val_error"])


class Says(NASBench201):
    """NAS-Bench-201, but every network wants these values."""

    def __init__(self, **values):
        self.values = values

    def training(self, arch):
        return self.values


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"lrr": 1.0}, "did you mean 'lr'"),
        ({"step": "compiled"}, "set for a whole run"),
        ({"precision": "float32"}, "run"),
    ],
)
def test_keys_that_no_architecture_may_set_end_the_run_before_it_trains(live, values, says):
    with pytest.raises(BadInput, match=says):
        live(Says(**values)).evaluate([Trial(CELL, TINY)])


def test_the_recipe_of_a_network_is_the_runs_with_its_values():
    base = RECIPES["nas_bench_201"]
    assert recipe_of(base, {}, 3) is base
    assert recipe_of(base, {"lr": 0.5, "flip": False}, 3) == Recipe(lr=0.5, flip=False)
    with pytest.raises(BadInput, match="lr_min"):
        recipe_of(Recipe(lr_min=0.05), {"lr": 0.01}, 3)


def test_the_network_is_that_of_its_part():
    from suite.training.zero_cost import Scorer

    mine = build(SPACE, arch(lr=0.02), TINY, ends=Ends(1, 10), seed=3).state_dict()
    theirs = build(SPACES["nas_bench_201"], CELL, TINY, ends=Ends(1, 10), seed=3).state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert mine.keys() == theirs.keys()
    digits = load("digits")
    scores = [
        Scorer(space, digits, "synflow", batch_size=16, device="cpu", threads=1).answer(Trial(a, TINY)).metrics
        for space, a in ((SPACE, arch()), (SPACES["nas_bench_201"], CELL))
    ]
    assert scores[0] == scores[1]


def test_compiled_steps_train_networks_of_joint_and_restricted_spaces(live):
    recipe = {**PLAIN, "step": "compiled"}
    (mine,) = live(recipe=recipe).evaluate([Trial(arch(batch_size=32), TINY)])
    (theirs,) = live(SPACES["nas_bench_201"], recipe={**recipe, "batch_size": 32}).evaluate([Trial(CELL, TINY)])
    assert told(mine) == told(theirs)
    small = SPACES["nas_bench_201"].restricted([(option,) for option in CELL])
    (restricted,) = live(small, recipe={**recipe, "batch_size": 32}).evaluate([Trial((0,) * 6, TINY)])
    assert told(restricted) == told(theirs)


def test_supernets_know_no_trainings():
    from suite.networks.supernet import Supernet

    with pytest.raises(Unsupported, match="no supernet"):
        Supernet(SPACE, TINY, ends=Ends(1, 10), seed=0)


# From a spec to a table


def joint_content(**values):
    """A live search over a cell, its learning rate and a batch size that cannot be."""
    return live_content(
        **{
            "seeds": 1, "seed0": 2, "budget": {"evaluations": 5},
            "searchers": ["random_search", {"name": "regularized_evolution", "population_size": 3, "sample_size": 2}],
            "joint": {"lr": {"low": 0.01, "high": 0.1, "steps": 16}, "batch_size": {"values": [1, 64]}}, **values,
        }
    )  # fmt: skip


def test_a_live_joint_search_is_logged_resumed_and_a_table(tmp_path):
    spec, out = check(RunSpec, joint_content(), "joint.toml"), tmp_path / "out"
    commands.run(spec, out, base=tmp_path, command="kendall run joint.toml")
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    name = "nas_bench_201 + lr=0.01..0.1:16:log + batch_size=1,64"
    assert {line["space"] for line in lines} == {name}
    searched = [line for line in lines if line["phase"] == "search"]
    failed = [line for line in searched if line["arch"].endswith("batch_size=1")]
    assert failed
    assert all("batch_size must be at least 2" in line["failure"] for line in failed)
    assert all(not line["failure"] for line in searched if line not in failed)

    board = (out / "leaderboard.csv").read_text()
    assert name in board
    kept = (out / "trials.jsonl").read_text().splitlines(keepends=True)
    (out / "trials.jsonl").write_text("".join(kept[:4]))  # as if it had been killed
    commands.run(spec, out, base=tmp_path, command="kendall run joint.toml")
    again = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert [(line["arch"], line["metrics"]) for line in again] == [(line["arch"], line["metrics"]) for line in lines]

    from suite.evaluators.table import TableEvaluator
    from suite.tables import open_table

    table = open_table(str(out / "trials.jsonl"))
    assert table.space.name == name
    good = next(line for line in searched if not line["failure"])
    proxy = Proxy(**good["proxy"])
    evaluator = TableEvaluator(table, "digits", full=proxy)
    (answer,) = evaluator.evaluate([Trial(table.space.parse(good["arch"]), proxy)])
    assert answer.metrics["val_error"] == pytest.approx(good["metrics"]["val_error"])


def test_a_published_table_knows_no_trainings(tmp_path):
    spec = check(RunSpec, run_content(toy_table(), joint={"lr": {"values": [0.1, 0.2]}}), "joint.toml")
    with pytest.raises(Unsupported, match=r"holds nas_bench_macro, not nas_bench_macro \+ lr=0.1,0.2"):
        commands.run(spec, tmp_path / "out", base=tmp_path, command="kendall run joint.toml")
