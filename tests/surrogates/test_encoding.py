"""Encodings: what the columns mean, against walks through the graph by brute force."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from suite.spaces import SPACES
from suite.spaces.nas_bench_201 import EDGES, OPERATIONS
from suite.types import BadInput, Unsupported
from surrogates.encoding import ENCODINGS, Encoder

NB201 = SPACES["nas_bench_201"]
ALL = [NB201.sample(np.random.default_rng(seed)) for seed in range(60)]


def walks(arch):
    """The operations along each walk from input to output, found by trying every sequence of nodes."""
    options = dict(zip(EDGES, arch, strict=True))
    for inner in ((), (1,), (2,), (1, 2)):
        nodes = (0, *inner, 3)
        steps = [options[edge] for edge in pairwise(nodes)]
        if all(steps):
            yield tuple(OPERATIONS[step] for step in steps)


def column(encoder, rows, name):
    return rows[:, encoder.names.index(name)]


def test_paths_are_those_of_a_walk_through_the_cell():
    encoder = Encoder(NB201, "paths")
    rows = encoder(ALL)
    assert len(encoder.names) == 4 + 4**2 + 4**3
    for arch, row in zip(ALL, rows, strict=True):
        there = {name for name, value in zip(encoder.names, row, strict=True) if value}
        assert there == {f"path {' '.join(walk)}" for walk in walks(arch)}


def test_graph_features_are_those_of_walks_through_the_cell():
    encoder = Encoder(NB201, "graph")
    rows = encoder(ALL)
    for subset in (("nor_conv_3x3",), ("skip_connect", "nor_conv_3x3"), OPERATIONS[1:]):
        label = "|".join(subset)
        for arch, row in zip(ALL, rows, strict=True):
            value = dict(zip(encoder.names, row, strict=True))
            allowed = [walk for walk in walks(arch) if set(walk) <= set(subset)]
            assert value[f"shortest path of {label}"] == min((len(walk) for walk in allowed), default=4)
            assert value[f"longest path of {label}"] == max((len(walk) for walk in allowed), default=0)
            counts = [sum(step in subset for step in walk) for walk in walks(arch)]
            assert value[f"most on a path of {label}"] == max(counts, default=0)
            assert value[f"least on a path of {label}"] == min(counts, default=4)
            live = [OPERATIONS[option] for option in NB201.simplified(arch)]
            assert value[f"count of {label}"] == sum(operation in subset for operation in live)


def test_the_simplified_form_is_what_is_encoded_unless_told_otherwise():
    dead = (0, 3, 3, 0, 0, 2)  # node 1 has no input
    for name in ("one_hot", "adjacency", "graph", "paths", "neighbourhoods", "size"):
        encoder = Encoder(NB201, name)
        assert np.array_equal(encoder([dead]), encoder([NB201.simplified(dead)]))
    written = Encoder(NB201, "one_hot", simplified=False)
    assert not np.array_equal(written([dead]), written([NB201.simplified(dead)]))
    assert written.label == "one_hot as written"


def test_one_hot_has_one_column_an_option_and_one_a_decision_set():
    for space in SPACES.values():
        encoder = Encoder(space, "one_hot")
        rows = encoder([space.sample(np.random.default_rng(seed)) for seed in range(5)])
        assert rows.shape == (5, sum(space.decisions))
        assert (rows.sum(axis=1) == len(space.decisions)).all()


def test_isomorphic_orders_of_a_darts_node_have_the_same_neighbourhoods():
    space = SPACES["darts_econas"]
    arch = space.sample(np.random.default_rng(1))
    swapped = (*arch[2:4], *arch[:2], *arch[4:])  # the two inputs of the first node
    encoder = Encoder(space, "neighbourhoods")
    assert np.array_equal(encoder([arch]), encoder([swapped]))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_auto_encodes_every_space_and_different_networks_differently(space):
    rng = np.random.default_rng(0)
    encoder = Encoder(space)
    archs = [space.simplified(space.sample(rng)) for _ in range(20)]
    rows = encoder(archs)
    assert rows.shape == (20, len(encoder.names))
    assert len(set(encoder.names)) == len(encoder.names)
    assert np.isfinite(rows).all()
    assert len({row.tobytes() for row in rows}) == len(set(archs))
    assert encoder([]).shape == (0, len(encoder.names))


@pytest.mark.parametrize(("name", "space"), list(product(ENCODINGS, ["nas_bench_201", "darts", "nas_bench_macro"])))
def test_every_encoding_works_or_says_why_not(name, space):
    try:
        encoder = Encoder(SPACES[space], name)
    except Unsupported:
        if space != "nas_bench_macro":
            raise
        return
    archs = [SPACES[space].sample(np.random.default_rng(seed)) for seed in range(3)]
    assert encoder(archs).shape == (3, len(encoder.names))
    assert np.array_equal(encoder(archs[1:2]), encoder(archs)[1:2])


def test_further_columns_stand_behind_and_are_nan_where_unknown():
    encoder = Encoder(NB201, "size", extra={"nwot": {ALL[0]: 3.5}})
    rows = encoder(ALL[:2])
    assert encoder.label == "size+nwot"
    assert column(encoder, rows, "nwot")[0] == 3.5
    assert np.isnan(column(encoder, rows, "nwot")[1])


def test_a_wrong_part_is_one_clear_error():
    with pytest.raises(BadInput, match="did you mean 'paths'"):
        Encoder(NB201, "graph+path")
