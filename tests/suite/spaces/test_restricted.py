"""What every space says of its decisions, and what stays when their options become fewer."""

from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.spaces import SPACES, SearchSpace
from suite.spaces.darts import EDGES as DARTS_EDGES
from suite.spaces.joint import Joint, options
from suite.spaces.nas_bench_201 import EDGES
from suite.types import BadInput, Proxy, Unsupported

JOINT = Joint(
    SPACES["nas_bench_201"],
    [
        options("lr", [0.01, 0.1, 1.0]),
        options("nesterov", [True, False]),
        options("momentum", [0.5, 0.8, 0.9], when={"nesterov": [True]}),
        options("batch_size", [16, 32, 64]),
    ],
)
"""A joint space with a condition, under the contract of all others."""
EVERY = [*SPACES.values(), JOINT]
every_space = pytest.mark.parametrize("space", EVERY, ids=lambda space: space.name)
seeds = st.integers(0, 2**32 - 1)
TRAINS = {"nas_bench_201", "darts", "darts_econas", "darts_edges", "mnas", "alexnet", "condensenet", JOINT.name}
"""The spaces with networks to train."""


def restrictions(space: SearchSpace) -> st.SearchStrategy[list[list[int]]]:
    """For each decision some of its options, at least one."""
    return st.tuples(
        *(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True) for n in space.decisions)
    ).map(list)


restricted_spaces = st.sampled_from(EVERY).flatmap(lambda space: st.tuples(st.just(space), restrictions(space)))


# Levels and order


@every_space
def test_levels_partition_the_decisions_in_order(space):
    places = [place for level in space.levels for place in range(len(space.decisions))[level]]
    assert places == list(range(len(space.decisions)))
    assert all(level.stop > level.start for level in space.levels)


@every_space
def test_every_decision_says_whether_its_options_are_a_scale(space):
    assert len(space.ordered) == len(space.decisions)
    assert all(type(order) is bool for order in space.ordered)


def test_a_level_of_a_cell_holds_all_that_leads_to_its_node():
    nodes = [{EDGES[place][1] for place in range(6)[level]} for level in SPACES["nas_bench_201"].levels]
    assert nodes == [{1}, {2}, {3}]
    edges = DARTS_EDGES * 2
    ends = [{edges[place][1] for place in range(28)[level]} for level in SPACES["darts_edges"].levels]
    assert ends == [{2}, {3}, {4}, {5}] * 2


@pytest.mark.parametrize("name", ["darts", "darts_econas"])
def test_a_level_of_a_darts_cell_changes_one_node(name):
    space, rng = SPACES[name], np.random.default_rng(0)
    for level in range(8):
        arch = list(space.at(0))
        places = range(len(arch))[space.levels[level]]
        while tuple(arch) == space.at(0):
            for place in places:
                arch[place] = int(rng.integers(space.decisions[place]))
        cells, before = space.genotype(tuple(arch)), space.genotype(space.at(0))
        slots = [*cells.normal, *cells.reduce]
        changed = {number // 2 for number, slot in enumerate(slots) if slot != [*before.normal, *before.reduce][number]}
        assert changed == {level}


@pytest.mark.parametrize("name", ["mnas", "alexnet", "condensenet"])
def test_more_of_an_ordered_decision_is_never_a_smaller_network(name):
    space, proxy = SPACES[name], SPACES[name].full
    rng = np.random.default_rng(0)
    for arch in [space.sample(rng) for _ in range(20)]:
        for place, order in enumerate(space.ordered):
            if order and (name, place) != ("alexnet", 0):  # a further, narrow layer makes the classifier smaller
                sizes = [
                    space.params((*arch[:place], option, *arch[place + 1 :]), proxy)
                    for option in range(space.decisions[place])
                ]
                assert sizes == sorted(sizes), (arch, place)


def test_widths_of_the_size_space_rise():
    space = SPACES["nats_bench_size"]
    widths = [int(space.text((option, 0, 0, 0, 0)).split(":")[0]) for option in range(8)]
    assert all(space.ordered)
    assert widths == sorted(widths)


@every_space
def test_what_most_spaces_leave_as_it_is(space):
    arch = space.at(space.size // 2)
    assert space.settled(arch) == arch
    if space is not JOINT:
        assert space.training(arch) == {}
        assert space.part(arch) == (space, arch)


# Restricted spaces


@given(restricted_spaces, seeds)
def test_a_restricted_space_keeps_name_text_and_costs(drawn, seed):
    space, allowed = drawn
    small = space.restricted(allowed)
    arch = small.sample(np.random.default_rng(seed))
    there = space.parse(small.text(arch))
    assert (small.name, small.full, small.cells) == (space.name, space.full, space.cells)
    assert (small.ordered, small.levels) == (space.ordered, space.levels)
    assert small.text(arch) == space.text(there)
    assert small.parse(space.text(there)) == arch
    assert small.part(arch) == space.part(there)
    assert small.training(arch) == space.training(there)
    for cost in ("params", "macs", "trained_macs"):
        try:
            expected = getattr(space, cost)(there, space.full)
        except Unsupported:
            continue
        assert getattr(small, cost)(arch, space.full) == expected


@given(restricted_spaces, seeds)
def test_a_restricted_space_never_leaves_its_options(drawn, seed):
    space, allowed = drawn
    small, rng = space.restricted(allowed), np.random.default_rng(seed)
    arch = small.sample(rng)
    reached = [arch, *small.neighbours(arch)[:20]]
    if any(count > 1 for count in small.decisions[: len(SPACES["nas_bench_201"].decisions)]):
        mutant = small.mutate(arch, rng)
        assert mutant in small.neighbours(arch)
        reached.append(mutant)
    for other in reached:
        small.check(other)
        if space is not JOINT:  # there a decision that is not active is 0, whatever is allowed
            options_there = space.parse(small.text(other))
            assert all(option in choice for option, choice in zip(options_there, allowed, strict=True))
        assert small.settled(other) == other


@given(restricted_spaces, st.data())
def test_index_and_at_of_a_restricted_space_are_inverse(drawn, data):
    space, allowed = drawn
    small = space.restricted(allowed)
    assert small.size <= space.size
    place = data.draw(st.integers(0, small.size - 1))
    assert small.index(small.at(place)) == place
    with pytest.raises(BadInput):
        small.at(small.size)


@given(restricted_spaces)
def test_restricting_again_is_restricting_once(drawn):
    space, allowed = drawn
    once = space.restricted([sorted(options)[:1] for options in allowed])
    twice = space.restricted(allowed).restricted([[0]] * len(allowed))
    assert twice.text(twice.at(0)) == once.text(once.at(0))
    assert twice.size == once.size == 1


@every_space
def test_allowing_everything_is_the_space_itself(space):
    same = space.restricted([range(options) for options in space.decisions])
    rng = np.random.default_rng(0)
    for _ in range(10):
        arch = space.sample(rng)
        assert (same.text(arch), same.index(arch)) == (space.text(arch), space.index(arch))
        assert same.sample(np.random.default_rng(7)) == space.sample(np.random.default_rng(7))


def test_a_small_restricted_space_lists_what_was_allowed():
    space = SPACES["nas_bench_macro"]
    small = space.restricted([(0, 2), (1,), *[(0,)] * 6])
    assert [small.text(arch) for arch in small] == ["01000000", "21000000"]
    assert {small.sample(np.random.default_rng(seed)) for seed in range(20)} == set(small)


def test_options_may_be_given_in_any_order_and_twice():
    space = SPACES["nas_bench_macro"]
    a, b = space.restricted([(2, 0, 2)] * 8), space.restricted([(0, 2)] * 8)
    assert a.decisions == b.decisions == (2,) * 8
    assert [a.text(arch) for arch in a] == [b.text(arch) for arch in b]


@every_space
def test_empty_and_unknown_options_are_refused_in_one_line(space):
    every = [list(range(options)) for options in space.decisions]
    for wrong, says in (
        ([[], *every[1:]], "decision 0 has no allowed option"),
        ([[99], *every[1:]], "no option 99"),
        ([*every[:-1], [-1]], "no option -1"),
        (every[1:], "decisions"),
    ):
        with pytest.raises(BadInput, match=says) as refused:
            space.restricted(wrong)
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(f"{space.name}: ")


def test_a_text_outside_the_restriction_is_refused():
    small = SPACES["nas_bench_macro"].restricted([(0, 2)] * 8)
    with pytest.raises(BadInput, match="decision 3 is restricted to options 0, 2, not 1"):
        small.parse("00010000")


def test_a_space_of_one_architecture_has_no_mutant():
    alone = SPACES["nas_bench_macro"].restricted([(1,)] * 8)
    assert alone.neighbours(alone.at(0)) == []
    with pytest.raises(Unsupported, match="nothing to mutate"):
        alone.mutate(alone.at(0), np.random.default_rng(0))


def test_restricted_spaces_go_to_other_processes():
    small = SPACES["mnas"].restricted([range(1, options) or [0] for options in SPACES["mnas"].decisions])
    again = pickle.loads(pickle.dumps(small))
    assert again.text(again.at(3)) == small.text(small.at(3))


# Their networks


@pytest.mark.parametrize("name", sorted(TRAINS))
def test_networks_are_those_of_the_whole_space(name):
    from suite.networks import build
    from suite.types import Ends

    space = next(space for space in EVERY if space.name == name)
    rng = np.random.default_rng(3)
    small = space.restricted([sorted(rng.choice(n, max(1, n - 1), replace=False).tolist()) for n in space.decisions])
    proxy = Proxy(1, 4, 8, cells=None if name in ("mnas", "alexnet") else 7)
    arch = small.sample(rng)
    mine = build(small, arch, proxy, ends=Ends(1, 10), seed=0).state_dict()
    theirs = build(space, space.parse(small.text(arch)), proxy, ends=Ends(1, 10), seed=0).state_dict()
    assert mine.keys() == theirs.keys()
    assert all((mine[key] == theirs[key]).all() for key in mine)


def test_paths_of_a_restricted_supernet_are_those_of_the_whole_one():
    import torch

    from suite.networks.supernet import Supernet
    from suite.types import Ends

    space = SPACES["nas_bench_201"]
    small = space.restricted([(1, 3), (2, 3), (3, 4), (0, 3), (1, 2), (3,)])
    proxy, images = Proxy(1, 4, 8, cells=1), torch.rand(3, 1, 8, 8)
    whole, part = (Supernet(each, proxy, ends=Ends(1, 10), seed=0).eval() for each in (space, small))
    for arch in list(small)[::7]:
        there = space.parse(small.text(arch))
        assert torch.equal(part.path(arch)(images), whole.path(there)(images))
        assert torch.equal(part.one_hot(arch), whole.one_hot(there))
        assert part.derive(part.one_hot(arch)) == arch


def test_mixtures_of_a_restricted_supernet_leave_out_what_is_not_allowed():
    import torch

    from suite.networks.supernet import Supernet
    from suite.types import Ends

    space = SPACES["nas_bench_201"]
    allowed = [(1, 3), (2, 3), (3, 4), (0, 3), (1, 2), (3,)]
    proxy, images = Proxy(1, 4, 8, cells=1), torch.rand(3, 1, 8, 8)
    whole = Supernet(space, proxy, ends=Ends(1, 10), seed=0).eval()
    part = Supernet(space.restricted(allowed), proxy, ends=Ends(1, 10), seed=0).eval()
    weights = torch.rand(part.shape, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(part.shape, dtype=torch.bool)
    for row, options_there in enumerate(allowed):
        mask[row, list(options_there)] = True
    assert torch.equal(part.mix(weights)(images), whole.mix(weights, mask)(images))
    best = [max(options_there, key=lambda option: weights[row, option]) for row, options_there in enumerate(allowed)]
    assert space.parse(part.space.text(part.derive(weights))) == tuple(best)


@pytest.mark.parametrize("name", ["nas_bench_201", "darts_edges", "mnas", "alexnet", "condensenet"])
def test_mixtures_have_the_options_of_each_decision_and_no_other(name):
    from suite.networks.supernet import Supernet
    from suite.types import Ends

    space, rng = SPACES[name], np.random.default_rng(0)
    small = space.restricted([sorted(rng.choice(n, max(1, n - 1), replace=False).tolist()) for n in space.decisions])
    cells = None if name in ("mnas", "alexnet") else 7
    supernet = Supernet(small, Proxy(1, 3, 8, cells=cells), ends=Ends(1, 10), seed=0)
    assert supernet.valid.sum() == sum(small.decisions)
    for _ in range(10):
        chosen = supernet.one_hot(small.sample(rng)).numpy() > 0
        assert not (chosen & ~supernet.valid).any()


def test_a_supernet_whose_rows_are_no_decisions_mixes_the_whole_space_only():
    import torch

    from suite.networks.supernet import Supernet
    from suite.types import Ends

    space = SPACES["darts"]
    small = space.restricted([range(max(1, options - 1)) for options in space.decisions])
    supernet = Supernet(small, Proxy(1, 2, 8, cells=3), ends=Ends(1, 10), seed=0)
    supernet.path(small.at(5))(torch.rand(2, 1, 8, 8))
    with pytest.raises(Unsupported, match=r"darts: .*path"):
        supernet.mix(torch.rand(supernet.shape))


def test_all_combinations_of_a_joint_restriction_are_consistent():
    small = JOINT.restricted([*[(3,)] * 6, (0, 2), (0, 1), (1, 2), (2,)])
    texts = [small.text(arch) for arch in small]
    trainings = [f"lr={lr} nesterov=true momentum={m} batch_size=64" for lr, m in product((0.01, 1.0), (0.8, 0.9))] + [
        f"lr={lr} nesterov=false batch_size=64" for lr in (0.01, 1.0)
    ]
    assert sorted(text.partition(" ; ")[2] for text in texts) == sorted(trainings)
    assert [small.index(arch) for arch in small] == list(range(6))
