"""Networks taken apart in blocks: each tensor belongs to one layer of one block, and the keys say what is there."""

from __future__ import annotations

import numpy as np
import pytest

from suite.networks import build
from suite.networks.blocks import BLOCKS, blocks
from suite.spaces import SPACES
from suite.types import BadInput, Ends, Proxy, Unsupported

MNAS, NB201 = SPACES["mnas"], SPACES["nas_bench_201"]
SHAPE = {"ends": Ends(3, 7)}
every_space = pytest.mark.parametrize("space", [SPACES[name] for name in BLOCKS], ids=BLOCKS)


def drawn(space, seed=0):
    return space.sample(np.random.default_rng(seed))


@every_space
@pytest.mark.parametrize("proxy", [Proxy(1, channels=4, resolution=8), Proxy(1, channels=7, resolution=12)], ids=str)
def test_every_tensor_belongs_to_one_layer_of_one_block(space, proxy):
    for seed in range(4):
        arch = drawn(space, seed)
        state = build(space, arch, proxy, **SHAPE, seed=None).state_dict()
        found = blocks(space, arch, proxy, **SHAPE)
        assert len({block.position for block in found}) == len(found)
        prefixes = [prefix for block in found for prefix in block.layers]
        assert all(prefix.endswith(".") for prefix in prefixes)
        for name in state:
            assert sum(name.startswith(prefix) for prefix in prefixes) == 1, name
        assert all(any(name.startswith(prefix) for name in state) for prefix in prefixes)


def shapes(state, prefix):
    return {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in state.items() if name.startswith(prefix)}


@every_space
def test_layers_of_a_block_have_the_same_tensors_and_but_for_the_first_the_same_shapes(space):
    proxy = Proxy(1, channels=5, resolution=8)
    for seed in range(4):
        arch = drawn(space, seed)
        state = build(space, arch, proxy, **SHAPE, seed=None).state_dict()
        for block in blocks(space, arch, proxy, **SHAPE):
            layers = [shapes(state, prefix) for prefix in block.layers]
            assert all(layer.keys() == layers[0].keys() for layer in layers)
            assert all(layer == layers[1] for layer in layers[1:])


def test_keys_of_mnas_say_what_is_there():
    text = (
        "r2_k3_s11_conv_i16_o16_se0.25 r2_k5_s22_e1_i16_o30_pool r2_k3_s22_e3_i30_o30_se0.25_pool "
        "r2_k5_s22_e6_i30_o80_noskip r1_k5_s11_conv_i80_o96"
    )
    arch, proxy = MNAS.parse(text), Proxy(1, channels=8, resolution=8)
    found = blocks(MNAS, arch, proxy, **SHAPE)
    assert [block.key for block in found] == [
        ("stem", "stem", 3, 1, 0.0, "none", 3, 8, 1),
        ("block0", "conv", 3, 1, 0.25, "identity", 8, 8, 1),
        ("block1", "sep", 5, 1, 0.0, "pool", 8, 15, 2),
        ("block2", "mbconv", 3, 3, 0.25, "pool", 15, 15, 2),
        ("block3", "mbconv", 5, 6, 0.0, "none", 15, 40, 2),
        ("block4", "conv", 5, 1, 0.0, "identity", 40, 48, 1),
        ("head", "head", 1, 1, 0.0, "none", 48, 192, 1),
        ("classifier", "classifier", 1, 1, 0.0, "none", 192, 7, 1),
    ]
    assert found[4].layers == ("blocks.3.layers.0.mb6_k5.", "blocks.3.layers.1.mb6_k5.")
    state = build(MNAS, arch, proxy, **SHAPE, seed=None).state_dict()
    assert shapes(state, found[4].layers[0])["expand.weight"] == (6 * 15, 15, 1, 1)
    assert shapes(state, found[4].layers[1])["expand.weight"] == (6 * 40, 40, 1, 1)
    parts = {name.split(".")[0] for block in found[1:6] for name in shapes(state, block.layers[0])}
    assert parts == {
        "conv", "conv_norm", "expand", "expand_norm", "depthwise", "depthwise_norm", "squeeze", "project",
        "project_norm",
    }  # fmt: skip


def test_a_block_of_nas_bench_201_is_an_edge_in_all_cells_of_a_stage():
    proxy = Proxy(1, channels=8, resolution=16, cells=2)
    found = {block.position: block for block in blocks(NB201, (3, 0, 2, 1, 4, 0), proxy, **SHAPE)}
    assert list(found) == [
        "stem", "stem_norm", "stage0.edge0", "stage0.edge2", "reduction1", "stage1.edge0", "stage1.edge2", "reduction2",
        "stage2.edge0", "stage2.edge2", "norm", "classifier",
    ]  # fmt: skip
    assert found["stage1.edge0"].key == ("stage1.edge0", "nor_conv_3x3", 3, 1, 0.0, "none", 16, 16, 1)
    assert found["stage1.edge2"].op == "nor_conv_1x1"
    assert found["stage1.edge2"].kernel == 1
    assert found["stage2.edge0"].layers == ("cells.6.edge0.nor_conv_3x3.", "cells.7.edge0.nor_conv_3x3.")
    assert found["reduction2"].key == ("reduction2", "reduction", 3, 1, 0.0, "none", 16, 32, 2)
    assert found["reduction2"].layers == ("cells.5.",)


def test_what_cannot_be_taken_apart_is_refused():
    with pytest.raises(
        Unsupported, match="darts: its networks are not taken apart in blocks; those of nas_bench_201, m"
    ):
        blocks(SPACES["darts"], drawn(SPACES["darts"]), Proxy(1, 4, 8, cells=3), **SHAPE)
    with pytest.raises(BadInput, match="30 decisions"):
        blocks(MNAS, (0,) * 6, Proxy(1, 4, 8), **SHAPE)
    with pytest.raises(Unsupported, match="leave cells out"):
        blocks(MNAS, drawn(MNAS), Proxy(1, 4, 8, cells=3), **SHAPE)
