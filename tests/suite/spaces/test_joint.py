"""Joint spaces: decisions on training beside those on the network, and conditions among them."""

from __future__ import annotations

import math
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.spaces import SPACES, named
from suite.spaces.joint import Choice, Joint, grid, options
from suite.types import BadInput, Proxy

MACRO = SPACES["nas_bench_macro"]
CONDITIONAL = Joint(
    MACRO,
    [
        options("warmup_epochs", [0, 1]),
        options("nesterov", [False, True]),
        options("momentum", [0.0, 0.5, 0.9], when={"nesterov": [True]}),
        grid("grad_clip", 0.1, 10.0, steps=5, when={"nesterov": [True], "momentum": [0.5, 0.9]}),
        options("flip", [True, False]),
    ],
)
"""A chain of conditions: grad_clip depends on momentum, which depends on nesterov."""
TRAININGS = 2 * (1 + (1 + 2 * 5)) * 2
"""Those of CONDITIONAL, by hand: nesterov off, or on with momentum 0 or two momenta of five clips each."""
seeds = st.integers(0, 2**32 - 1)
any_options = st.tuples(*(st.integers(0, count - 1) for count in CONDITIONAL.decisions))


def valid(arch):
    try:
        CONDITIONAL.check(arch)
    except BadInput:
        return False
    return True


# Grids


@pytest.mark.parametrize("steps", [64, 256])
def test_a_log_grid_has_equal_ratios_and_both_ends(steps):
    values = grid("lr", 1e-3, 1.0, steps=steps).values
    assert len(values) == steps
    assert (values[0], values[-1]) == (1e-3, 1.0)
    ratios = np.diff(np.log(values))
    assert ratios == pytest.approx(math.log(1000) / (steps - 1), rel=1e-3)  # values have six digits


def test_a_linear_grid_has_equal_steps():
    assert grid("momentum", 0.5, 0.9, steps=5, scale="linear").values == (0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.mark.parametrize(("low", "high"), [(16, 512), (8, 1024), (1, 1000)])
def test_a_grid_of_whole_numbers_keeps_each_once_and_most_steps(low, high):
    values = grid("batch_size", low, high, steps=64).values
    assert all(type(value) is int for value in values)
    assert sorted(set(values)) == list(values)
    assert (values[0], values[-1]) == (low, high)
    exact = np.geomspace(low, high, 64)
    assert set(values) == {int(np.floor(value + 0.5)) for value in exact}


def test_choices_know_whether_they_are_a_scale():
    assert grid("lr", 0.1, 1.0).ordered
    assert options("batch_size", [16, 64, 256]).ordered
    assert not options("batch_size", [64, 16]).ordered
    assert not options("flip", [False, True]).ordered
    assert not options("lr_changes", ["epoch", "step"]).ordered


# Valid architectures


def test_the_size_counts_valid_combinations_by_brute_force():
    space = Joint(MACRO.restricted([(0,)] * 8), CONDITIONAL.choices)
    every = np.ndindex(*space.decisions)
    assert space.size == sum(valid(tuple(map(int, arch))) for arch in every) == TRAININGS
    archs = list(space)
    assert archs == sorted(set(archs))
    assert len(archs) == TRAININGS
    assert [space.index(arch) for arch in archs] == list(range(TRAININGS))
    assert len({space.text(arch) for arch in archs}) == TRAININGS


@given(st.integers(0, CONDITIONAL.size - 1))
def test_index_and_at_are_inverse_on_valid_architectures(place):
    arch = CONDITIONAL.at(place)
    CONDITIONAL.check(arch)
    assert CONDITIONAL.index(arch) == place
    assert CONDITIONAL.parse(CONDITIONAL.text(arch)) == arch


@given(any_options)
def test_settling_makes_anything_valid_and_leaves_what_is(arch):
    settled = CONDITIONAL.settled(arch)
    CONDITIONAL.check(settled)
    assert CONDITIONAL.settled(settled) == settled
    assert (settled == arch) == valid(arch)
    kept = [a == b or not b for a, b in zip(arch, settled, strict=True)]
    assert all(kept)


@given(any_options, any_options, seeds)
def test_a_settled_crossover_is_valid(mother, father, seed):
    coins = np.random.default_rng(seed).integers(2, size=len(mother))
    child = tuple(m if coin else f for m, f, coin in zip(mother, father, coins, strict=True))
    CONDITIONAL.check(CONDITIONAL.settled(child))


def test_crossovers_need_to_be_settled():
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(1000):
        mother, father = CONDITIONAL.sample(rng), CONDITIONAL.sample(rng)
        coins = rng.integers(2, size=len(mother))
        broken += not valid(tuple(m if coin else f for m, f, coin in zip(mother, father, coins, strict=True)))
    assert 50 < broken < 500


def test_options_that_are_not_active_are_refused_with_the_choice():
    network = (0,) * 8
    with pytest.raises(BadInput, match="momentum is not active here, so its decision is 0, not 2"):
        CONDITIONAL.check((*network, 0, 0, 2, 0, 0))
    with pytest.raises(BadInput, match="grad_clip is not active"):
        CONDITIONAL.check((*network, 0, 1, 0, 3, 0))
    CONDITIONAL.check((*network, 0, 1, 1, 3, 0))


# Moving


@given(seeds)
def test_samples_mutants_and_neighbours_are_valid(seed):
    rng = np.random.default_rng(seed)
    arch = CONDITIONAL.sample(rng)
    CONDITIONAL.check(arch)
    neighbours = CONDITIONAL.neighbours(arch)
    assert len(set(neighbours)) == len(neighbours)
    assert arch not in neighbours
    for other in neighbours:
        CONDITIONAL.check(other)
        changed = [place for place, (a, b) in enumerate(zip(arch, other, strict=True)) if a != b]
        assert CONDITIONAL.settled((*arch[: changed[0]], other[changed[0]], *arch[changed[0] + 1 :])) == other
    mutants = {CONDITIONAL.mutate(arch, rng) for _ in range(20)}
    assert mutants <= set(neighbours)
    assert all(type(option) is int for mutant in mutants for option in mutant)


def test_every_active_decision_mutates_equally_often():
    arch = (*(0,) * 8, 0, 1, 1, 2, 0)  # all five choices are active
    rng, places = np.random.default_rng(0), Counter()
    for _ in range(13 * 400):
        mutant = CONDITIONAL.mutate(arch, rng)
        places[next(place for place, (a, b) in enumerate(zip(arch, mutant, strict=True)) if a != b)] += 1
    chi_square = sum((places[place] - 400) ** 2 / 400 for place in range(13))
    assert chi_square < 41.0  # 12 degrees of freedom, one in ten thousand beyond
    quiet = (*(0,) * 8, 0, 0, 0, 0, 0)
    moved = {CONDITIONAL.mutate(quiet, rng)[10:12] for _ in range(500)}
    assert moved == {(0, 0)}  # momentum and grad_clip are not active


def test_options_of_an_active_choice_are_drawn_evenly():
    rng = np.random.default_rng(0)
    momenta = Counter(arch[10] for arch in (CONDITIONAL.sample(rng) for _ in range(6000)) if arch[9] == 1)
    total = sum(momenta.values())
    assert total == pytest.approx(3000, abs=4 * math.sqrt(1500))
    assert all(momenta[option] == pytest.approx(total / 3, abs=4 * math.sqrt(total * 2 / 9)) for option in range(3))


# The network and its training


def test_an_architecture_says_its_network_and_its_recipe():
    arch = CONDITIONAL.parse("00120012 ; warmup_epochs=1 nesterov=true momentum=0.9 grad_clip=1.0 flip=false")
    assert CONDITIONAL.part(arch) == (MACRO, (0, 0, 1, 2, 0, 0, 1, 2))
    assert CONDITIONAL.training(arch) == {
        "warmup_epochs": 1, "nesterov": True, "momentum": 0.9, "grad_clip": 1.0, "flip": False
    }  # fmt: skip
    off = CONDITIONAL.parse("00120012 ; warmup_epochs=0 nesterov=false flip=true")
    assert set(CONDITIONAL.training(off)) == {"warmup_epochs", "nesterov", "flip"}


@pytest.mark.parametrize("name", ["nas_bench_201", "mnas", "darts", "alexnet"])
def test_texts_of_any_network_go_before_those_of_its_training(name):
    space = Joint(SPACES[name], [grid("lr", 0.01, 1.0), options("batch_size", [32, 64])])
    rng = np.random.default_rng(1)
    for _ in range(5):
        arch = space.sample(rng)
        assert space.parse(f" {space.text(arch)}\n") == arch
        assert space.text(arch).startswith(SPACES[name].text(arch[:-2]) + " ; lr=")
        proxy = Proxy(1, 8, 32)
        assert space.params(arch, proxy) == SPACES[name].params(arch[:-2], proxy)
        assert space.macs(arch, proxy) == SPACES[name].macs(arch[:-2], proxy)


def test_the_name_says_everything_and_is_read_again():
    again = named(CONDITIONAL.name)
    assert again.name == CONDITIONAL.name
    assert again.decisions == CONDITIONAL.decisions
    assert again.choices == CONDITIONAL.choices
    words = Joint(
        MACRO, [options("lr_changes", ["epoch", "step"]), grid("momentum", 0.5, 0.9, scale="linear", steps=3)]
    )
    assert named(words.name).choices == words.choices
    assert named("nas_bench_201") is SPACES["nas_bench_201"]


@given(st.sampled_from(CONDITIONAL.choices))
def test_choices_are_read_as_they_are_written(choice):
    assert Choice.read(str(choice)) == choice


def test_a_joint_space_goes_to_other_processes():
    again = pickle.loads(pickle.dumps(CONDITIONAL))
    assert [again.text(again.at(place)) for place in (0, 777)] == [
        CONDITIONAL.text(CONDITIONAL.at(place)) for place in (0, 777)
    ]


# Refusals


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Joint(MACRO, []), "at least one choice"),
        (lambda: Joint(CONDITIONAL, [options("lr", [1.0])]), "joint space already"),
        (lambda: Joint(MACRO, [options("lr", [1.0]), options("lr", [2.0])]), "a choice is there twice"),
        (lambda: Joint(MACRO, [options("lr", [1.0], when={"flip": [True]})]), "flip, which is no earlier choice"),
        (
            lambda: Joint(MACRO, [options("a", [1, 2]), options("b", [1], when={"a": [3]})]),
            "a is one of 1, 2, not 3",
        ),
        (lambda: options("lr", []), "no values"),
        (lambda: options("lr", [0.1, 0.1]), "a value twice: 0.1, 0.1"),
        (lambda: options("lr", ["two words"]), "two words"),
        (lambda: options("lr", [math.inf]), "cannot be inf"),
        (lambda: options("a b", [1]), "'a b' is no key"),
        (lambda: grid("lr", 1.0, 0.1), "low < high"),
        (lambda: grid("lr", 0.0, 0.1), "low above 0"),
        (lambda: grid("lr", 0.1, 1.0, steps=1), "at least 2 steps"),
        (lambda: grid("lr", 0.1, 1.0, scale="cubic"), "'cubic'"),
        (lambda: named("nas_bench_202"), "nas_bench_201"),
        (lambda: named("nas_bench_201 + lr"), "not a choice"),
        (lambda: named("nas_bench_201 + lr=0.1..b:3:log"), "not a grid"),
    ],
)
def test_wrong_joint_spaces_are_refused_in_one_line(make, says):
    with pytest.raises(BadInput, match=says) as refused:
        make()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("00120012", "no training after the network"),
        ("00120019 ; flip=true", "eight digits"),
        ("00120012 ; warmup_epochs=0 nesterov=false", "flip is one of true, false, not None"),
        ("00120012 ; warmup_epochs=5 nesterov=false flip=true", "warmup_epochs is one of 0, 1, not 5"),
        ("00120012 ; warmup_epochs=0 nesterov=false momentum=0.5 flip=true", "momentum is not active here"),
        ("00120012 ; warmup_epochs=0 nesterov=false flip=true lr=1.0", "no choice 'lr'"),
    ],
)
def test_wrong_texts_are_refused_in_one_line(text, says):
    with pytest.raises(BadInput, match=says) as refused:
        CONDITIONAL.parse(text)
    assert str(refused.value).startswith("nas_bench_macro + ")
