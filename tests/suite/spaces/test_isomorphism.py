"""Canonical forms: what is the same network, against published counts and brute force."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from suite.spaces import SPACES
from suite.spaces.darts import DARTS_V2, EDGES, Genotype
from suite.types import Unsupported

NB201, MACRO = SPACES["nas_bench_201"], SPACES["nas_bench_macro"]
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the published tables are not on this machine")
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def test_nas_bench_201_has_4930_different_cells_and_9445_without_dead_operations():
    assert len({NB201.isomorphism(arch) for arch in NB201}) == 4_930
    assert sum(NB201.simplified(arch) == arch for arch in NB201) == 9_445


@needs_data
def test_nas_bench_201_classes_are_those_that_others_found():
    pandas = pytest.importorskip("pandas")
    held = pandas.read_parquet(DATA / "nb201.parquet", columns=["arch_str", "iso_class"])
    ours = [NB201.isomorphism(NB201.parse(text)) for text in held["arch_str"]]
    assert len(set(zip(ours, held["iso_class"], strict=True))) == len(set(ours)) == held["iso_class"].nunique()


def test_nas_bench_201_classes_are_joined_by_the_benchmarks_own_strings():
    of_string: dict[str, set[object]] = {}
    for arch in NB201:
        of_string.setdefault(NB201.unique_string(arch), set()).add(NB201.isomorphism(arch))
    assert all(len(classes) == 1 for classes in of_string.values())  # theirs are finer, never coarser


def test_nas_bench_201_operations_go_that_no_walk_from_input_to_output_takes():
    through = ((3,), (0, 4), (1, 5), (0, 2, 5))  # the four walks, by the places of their decisions
    for arch in [NB201.sample(np.random.default_rng(seed)) for seed in range(300)]:
        live = {place for walk in through if all(arch[place] for place in walk) for place in walk}
        assert NB201.simplified(arch) == tuple(option if place in live else 0 for place, option in enumerate(arch))


def test_nas_bench_macro_has_3969_different_networks():
    assert len({MACRO.isomorphism(arch) for arch in MACRO}) == 3_969


@needs_data
def test_nas_bench_macro_forms_are_the_published_ones():
    pandas = pytest.importorskip("pandas")
    held = pandas.read_parquet(DATA / "nas_bench_macro.parquet", columns=["arch_str", "canonical_arch"])
    ours = [MACRO.text(MACRO.simplified(MACRO.parse(text))) for text in held["arch_str"]]
    assert ours == held["canonical_arch"].tolist()


@every_space
def test_a_simplified_network_stays_and_is_of_the_same_class(space):
    rng = np.random.default_rng(0)
    for arch in [space.sample(rng) for _ in range(20)]:
        simple = space.simplified(arch)
        space.check(simple)
        assert space.simplified(simple) == simple
        assert space.isomorphism(simple) == space.isomorphism(arch)
        hash(space.isomorphism(arch))


def test_a_skip_of_mnas_that_has_no_place_changes_nothing():
    space = SPACES["mnas"]
    rng = np.random.default_rng(1)
    same = 0
    for arch in [space.sample(rng) for _ in range(50)]:
        skips = [(*arch[:9], skip, *arch[10:]) for skip in range(3)]  # of the second block, which has a stride of 2
        classes = {space.isomorphism(other) for other in skips}
        layers = {tuple(map(tuple, space.encoding(other).layers()[1])) for other in skips}
        assert len(classes) == len(layers)
        same += len(classes) < len(skips)
    assert same


def test_darts_classes_do_not_know_the_order_of_nodes():
    darts = SPACES["darts_edges"]
    rng = np.random.default_rng(2)
    arch = tuple(option * (rng.random() < 0.6) for option in darts.sample(rng))
    genotype = darts.genotype(arch)
    operation = {(start, end): name for (name, start), (_, end) in zip(genotype.normal, EDGES, strict=True)}
    classes, cells = set(), 0
    for order in permutations(range(2, 6)):  # renumber the nodes of the normal cell
        number = {0: 0, 1: 1, **dict(zip(order, range(2, 6), strict=True))}
        edges = {(number[start], number[end]): name for (start, end), name in operation.items()}
        if all(start < end or name == "none" for (start, end), name in edges.items()):
            normal = tuple((edges.get((start, end), "none"), start) for start, end in EDGES)
            classes.add(Genotype(normal, (2, 3, 4, 5), genotype.reduce, (2, 3, 4, 5)).isomorphism())
            cells += 1
    assert cells > 1
    assert classes == {darts.isomorphism(arch)}


def test_darts_swapped_nodes_without_an_edge_between_them_are_one_network():
    first, second = (("sep_conv_3x3", 0), ("skip_connect", 1)), (("max_pool_3x3", 0), ("sep_conv_5x5", 1))
    later, renamed = DARTS_V2.normal[4:], tuple((name, {2: 3, 3: 2}.get(i, i)) for name, i in DARTS_V2.normal[4:])
    nodes, reduce = (2, 3, 4, 5), DARTS_V2.reduce
    one = Genotype((*first, *second, *later), nodes, reduce, nodes)
    assert Genotype((*second, *first, *renamed), nodes, reduce, nodes).isomorphism() == one.isomorphism()
    assert Genotype((*second, *first, *later), nodes, reduce, nodes).isomorphism() != one.isomorphism()


def test_chains_have_no_adjacency():
    with pytest.raises(Unsupported, match="chains"):
        SPACES["nats_bench_size"].adjacency([(0,) * 5])


@pytest.mark.parametrize("name", ["nas_bench_201", "darts", "darts_econas", "darts_edges"])
def test_adjacency_leads_forward_and_has_the_live_edges(name):
    space = SPACES[name]
    rng = np.random.default_rng(3)
    archs = [space.sample(rng) for _ in range(10)]
    edges = space.adjacency(archs)
    nodes = edges.shape[2]
    assert edges.shape == (10, edges.shape[1], nodes, nodes, len(space.operations))
    assert not edges.sum(axis=-1)[..., np.tri(nodes, dtype=bool)].any()
    if name == "nas_bench_201":
        assert edges.sum(axis=(1, 2, 3, 4)).tolist() == [sum(option > 0 for option in arch) for arch in archs]
