"""The cells of DARTS: spaces, text form, counts and networks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.numeric import close
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.networks import build
from suite.networks.darts import from_genotype
from suite.spaces import SPACES
from suite.spaces.darts import (
    ALL_NODES,
    DARTS,
    DARTS_V1,
    DARTS_V2,
    ECONAS,
    EDGES,
    OPERATIONS,
    DARTSEcoNAS,
    DARTSEdges,
    Genotype,
)
from suite.training.device import threads
from suite.types import BadInput, Ends, Proxy, Trial, Unsupported

PLAIN, ECO, ALL, EDGEWISE = DARTS(), DARTSEcoNAS(), DARTSEcoNAS("all"), DARTSEdges()
FOUR = (PLAIN, ECO, ALL, EDGEWISE)
every_space = pytest.mark.parametrize("space", FOUR, ids=lambda space: space.name)
FULL = PLAIN.full
PASTED_V2 = (  # as in the file of the authors, at any width of a line
    "DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0),\n('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


# Published numbers


@pytest.mark.parametrize(
    ("genotype", "channels", "params"),
    [
        (DARTS_V2, 36, 3_349_342),
        (ECONAS, 36, 3_180_862),
        (ECONAS, 9, 251_146),
        (replace(ECONAS, normal_concat=(3, 5), reduce_concat=(4, 5)), 36, 2_558_494),
        (replace(ECONAS, normal_concat=(3, 5), reduce_concat=(4, 5)), 9, 211_708),
    ],
)
def test_published_cells_have_their_parameters(genotype, channels, params):
    proxy = replace(FULL, channels=channels)
    assert genotype.params(proxy) == params
    with torch.device("meta"):
        network = from_genotype(genotype, proxy, ends=Ends(3, 10))
    assert sum(weight.numel() for weight in network.parameters()) == params


def test_first_order_darts_has_about_3_3_million_parameters():
    assert DARTS_V1.params(FULL) == pytest.approx(3.3e6, rel=0.05)


def test_the_space_has_its_published_size():
    pairs_of_cells = (1 * 3 * 6 * 10 * 7**8) ** 2
    assert PLAIN.size == pairs_of_cells
    assert f"{PLAIN.size:.0e}" == "1e+18"
    assert ECO.size == (2**2 * 3**2 * 4**2 * 5**2 * 8**8) ** 2
    assert EDGEWISE.size == 8**28


def test_operations_and_edges_are_in_the_order_of_the_paper_s_code():
    assert OPERATIONS == (
        "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
        "dil_conv_5x5",
    )  # fmt: skip
    assert len(EDGES) == 14
    assert EDGES[:5] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


# Text form


def test_a_pasted_genotype_is_read_and_written_back():
    arch = PLAIN.parse(PASTED_V2)
    assert Genotype.read(PASTED_V2) == DARTS_V2
    written = PLAIN.text(arch)
    assert "normal_concat=range(2, 6)" in written
    assert PLAIN.parse(written) == arch
    positional = PASTED_V2
    for word in ("normal=", "normal_concat=", "reduce=", "reduce_concat="):
        positional = positional.replace(f", {word}", ", ").replace(f"({word}", "(")
    assert Genotype.read(positional) == DARTS_V2


def test_the_order_of_a_node_s_pairs_does_not_matter():
    swapped = list(DARTS_V2.normal)
    swapped[4], swapped[5] = swapped[5], swapped[4]
    assert PLAIN.parse(str(replace(DARTS_V2, normal=tuple(swapped)))) == PLAIN.parse(PASTED_V2)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(FOUR), st.integers(0, 2**32 - 1))
def test_every_architecture_is_valid_and_survives_its_text(space, seed):
    arch = space.sample(np.random.default_rng(seed))
    genotype = space.genotype(arch)
    assert space.parse(space.text(arch)) == arch
    assert Genotype.read(str(genotype)) == genotype
    assert genotype.normal_concat
    assert genotype.reduce_concat
    if space is PLAIN:
        assert all(operation != "none" for operation, _ in genotype.normal + genotype.reduce)
        for chosen in (genotype.normal, genotype.reduce):
            assert all(chosen[2 * node][1] != chosen[2 * node + 1][1] for node in range(4))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a genotype"),
        ("Genotype(", "not a genotype"),
        ("Genotype(normal=[])", "not a genotype"),
        ("__import__('os').system('true')", "not a genotype"),
        (PASTED_V2.replace("[2, 3, 4, 5]", "list((2, 3, 4, 5))"), "not a genotype"),
        (PASTED_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 9)"), "node 5 of normal has inputs 0..4, not 9"),
        (PASTED_V2.replace("'dil_conv_3x3'", "'conv_7x7'"), "no operation 'conv_7x7'; there are none, max_pool_3x3"),
        (PASTED_V2.replace("'dil_conv_3x3'", "'none'"), "'none' in normal; there are max_pool_3x3"),
        (PASTED_V2.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0)"), "node 5 of normal has input 0 twice"),
        (PASTED_V2.replace(", ('dil_conv_3x3', 2)", ""), "normal has 7 pairs"),
        (PASTED_V2.replace("[2, 3, 4, 5]", "[4, 5]"), r"normal_concat is \[2, 3, 4, 5\] by this space's rule"),
        (PASTED_V2.replace("reduce_concat=[2, 3, 4, 5]", "reduce_concat=[1, 2]"), "rising states out of 2..5"),
        (PASTED_V2.replace("reduce_concat=[2, 3, 4, 5]", "reduce_concat=[]"), "rising states out of 2..5"),
    ],
)
def test_what_is_no_genotype_of_the_space_is_refused_in_one_line(text, says):
    with pytest.raises(BadInput, match=says) as refused:
        PLAIN.parse(text)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("darts: ")


def test_a_cell_of_two_a_node_is_one_of_all_edges_too():
    arch = EDGEWISE.parse(PASTED_V2)
    assert Counter(arch)[0] == 28 - 16
    assert EDGEWISE.params(arch, FULL) == 3_349_342
    with pytest.raises(BadInput, match="here it is two for each of 4 nodes"):
        PLAIN.parse(EDGEWISE.text(arch))


# EcoNAS's rules


def test_the_output_of_an_econas_cell_are_its_unused_states():
    recomputed = replace(ECONAS, normal_concat=(3, 5), reduce_concat=(4, 5))
    arch = ECO.parse(str(recomputed))
    assert ECO.genotype(arch) == recomputed
    assert ALL.genotype(arch).normal_concat == ALL_NODES
    with pytest.raises(BadInput, match=r"normal_concat is \[3, 5\] by this space's rule, not \[2, 3, 4, 5\]"):
        ECO.parse(str(ECONAS))


def test_unused_inputs_are_part_of_a_normal_cell_s_output_only():
    chain = tuple(("skip_connect", max(0, node - 1)) for node in range(2, 6) for _ in range(2))
    slots = tuple(x for operation, start in chain for x in (start, OPERATIONS.index(operation)))
    genotype = ECO.genotype(slots + slots)
    assert genotype.normal_concat == (0, 5)
    assert genotype.reduce_concat == (5,)


def test_econas_mutates_an_input_or_an_operation_with_equal_chance_in_any_slot():
    rng, draws = np.random.default_rng(0), 6400
    arch = ECO.sample(rng)
    counts = Counter()
    for _ in range(draws):
        child = ECO.mutate(arch, rng)
        (place,) = (i for i, (a, b) in enumerate(zip(arch, child, strict=True)) if a != b)
        counts[place] += 1
    assert len(counts) == 32
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 70  # chi-square, 31 degrees: 1 in 10,000
    rewired = sum(count for place, count in counts.items() if place % 2 == 0)
    assert rewired / draws == pytest.approx(0.5, abs=0.03)


# Derivation


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_darts_keeps_two_edges_a_node_and_never_none(seed):
    weights = np.random.default_rng(seed).random((28, 8))
    weights[:, 0] += 1  # none is the strongest everywhere
    genotype = PLAIN.genotype(PLAIN.strongest(weights))
    for kind, rows in (("normal", weights[:14]), ("reduce", weights[14:])):
        edges = genotype.edges(kind)
        assert len(edges) == 8
        for node in range(2, 6):
            kept = {edge.start: edge.operation for edge in edges if edge.end == node}
            assert len(kept) == 2
            best = {start: rows[EDGES.index((start, node)), 1:].max() for start in range(node)}
            assert set(kept) == set(sorted(best, key=best.get)[-2:])  # type: ignore[arg-type]
            for start, operation in kept.items():
                assert operation == OPERATIONS[1 + rows[EDGES.index((start, node)), 1:].argmax()]


def test_snas_keeps_the_strongest_of_every_edge_none_too():
    weights = np.random.default_rng(0).random((28, 8))
    assert EDGEWISE.strongest(weights) == tuple(weights.argmax(axis=1))


# Networks


def counted_macs(network, image_channels, side):
    """By hooks on what is executed; the classifier's bias is counted, as NAS-Bench-201 does."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()
        if isinstance(module, nn.Linear):
            total += len(module.bias)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():  # without weights: shapes are enough
        network.eval()(torch.zeros(2, image_channels, side, side, device="meta"))
    return total


@every_space
@pytest.mark.parametrize(
    ("proxy", "classes", "image_channels"),
    [
        (FULL, 10, 3),
        (Proxy(1, channels=9, resolution=8, cells=6), 10, 3),
        (Proxy(1, channels=5, resolution=28, cells=3), 100, 1),
        (Proxy(1, channels=1, resolution=4, cells=4), 2, 3),
        (Proxy(1, channels=16, resolution=16, cells=7), 120, 3),
        (Proxy(1, channels=3, resolution=12, cells=5), 10, 1),
    ],
)
def test_modules_have_the_parameters_and_multiply_adds_of_the_formula(space, proxy, classes, image_channels):
    rng, shape = np.random.default_rng(0), {"ends": Ends(image_channels, classes)}
    for _ in range(1 if proxy.cells is None else 2):
        arch = space.sample(rng)
        network = build(space, arch, proxy, **shape, seed=None)
        assert sum(weight.numel() for weight in network.parameters()) == space.params(arch, proxy, **shape)
        assert counted_macs(network, image_channels, proxy.resolution) == space.macs(arch, proxy, **shape)


def test_the_output_is_that_of_the_paper_written_out_by_hand():
    proxy = Proxy(1, channels=4, resolution=8, cells=4)
    network = build(PLAIN, PLAIN.parse(PASTED_V2), proxy, ends=Ends(3, 5), seed=3).double().train()
    weights = dict(network.named_parameters())

    def norm(x, name):  # batch statistics
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (x - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]

    def conv(x, name, **options):
        return F.conv2d(x, weights[f"{name}.weight"], **options)

    def relu_conv_norm(x, name):
        return norm(conv(x.clamp(min=0), f"{name}.conv"), f"{name}.norm")

    def factorised(x, name):
        x = x.clamp(min=0)
        halves = [conv(x[:, :, ::2, ::2], f"{name}.even"), conv(x[:, :, 1::2, 1::2], f"{name}.odd")]
        return norm(torch.cat(halves, 1), f"{name}.norm")

    def separable(x, name, padding, dilation=1):
        x = conv(x.clamp(min=0), f"{name}.depthwise", padding=padding, dilation=dilation, groups=x.shape[1])
        return norm(conv(x, f"{name}.pointwise"), f"{name}.norm")

    def sep3(x, name):
        return separable(separable(x, f"{name}.sep_conv_3x3.0", 1), f"{name}.sep_conv_3x3.1", 1)

    def normal(a, b, name):  # node 2: sep(0) sep(1); 3: sep(0) sep(1); 4: skip(0) sep(1); 5: skip(0) dil(2)
        two = sep3(a, f"{name}.edge0") + sep3(b, f"{name}.edge1")
        three = sep3(a, f"{name}.edge2") + sep3(b, f"{name}.edge3")
        four = a + sep3(b, f"{name}.edge6")
        five = a + separable(two, f"{name}.edge11.dil_conv_3x3", 2, 2)
        return torch.cat([two, three, four, five], 1)

    def reduction(a, b, name):  # 2: max(0) max(1); 3: max(1) skip(2); 4: max(0) skip(2); 5: max(1) skip(2)
        def largest(x):
            return F.max_pool2d(x, 3, stride=2, padding=1)

        two = largest(a) + largest(b)
        return torch.cat([two, largest(b) + two, largest(a) + two, largest(b) + two], 1)

    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    before = last = norm(conv(images, "stem", padding=1), "stem_norm")
    for place, cell in enumerate([normal, reduction, reduction, normal]):  # 4 // 3 and 8 // 3
        larger = before.shape[-1] > last.shape[-1]
        a = (factorised if larger else relu_conv_norm)(before, f"cells.{place}.preprocess0")
        b = relu_conv_norm(last, f"cells.{place}.preprocess1")
        before, last = last, cell(a, b, f"cells.{place}")
    expected = last.mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    close(network(images), expected)


def test_a_second_operation_on_one_input_has_weights_of_its_own():
    proxy = Proxy(1, 4, 8, cells=3)
    with torch.device("meta"):
        network = from_genotype(ECONAS, proxy, ends=Ends(3, 10))
    names = {name for name, _ in network.named_parameters() if name.startswith("cells.0.")}
    assert {"cells.0.edge5.sep_conv_3x3.0.depthwise.weight", "cells.0.again5.sep_conv_3x3.0.depthwise.weight"} <= names
    assert {"cells.0.edge4.sep_conv_5x5.0.norm.weight", "cells.0.again4.dil_conv_3x3.norm.weight"} <= names


def test_drop_path_is_off_and_never_drops_what_is_handed_on():
    proxy, images = Proxy(1, 4, 8, cells=3), torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    skips = replace(DARTS_V2, normal=tuple(("skip_connect", start) for start in (0, 1) * 4))
    network = from_genotype(skips, proxy, ends=Ends(3, 10)).train()
    cell, seen = network.cells[0], []
    cell.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    network(images)
    network.drop_path.probability, network.drop_path.generator = 0.5, torch.Generator().manual_seed(0)
    network(images)
    assert torch.equal(seen[0], seen[1])
    evaluated = network.eval()(images)
    network.drop_path.probability = 0.0
    assert torch.equal(network(images), evaluated)

    network = from_genotype(DARTS_V2, proxy, ends=Ends(3, 10)).train()
    edge = network.cells[0].edge0  # node 2 = edge 0 + edge 1: dropped for some images, twice as large for the others
    network.drop_path.probability, network.drop_path.generator = 0.5, torch.Generator().manual_seed(0)
    dropped = network.drop_path(edge(torch.randn(64, 4, 8, 8)))
    zero = (dropped == 0).flatten(1).all(1)
    assert 16 < int(zero.sum()) < 48
    one = from_genotype(DARTS_V2, proxy, ends=Ends(3, 10)).train()
    one.load_state_dict(network.state_dict())
    state = torch.get_rng_state()
    assert not torch.equal(one(images), network(images))
    assert torch.equal(torch.get_rng_state(), state)  # its own generator


def test_the_auxiliary_head_adds_its_own_weights_and_looks_on_in_training_only():
    proxy, shape = Proxy(1, 4, 32, cells=3), {"ends": Ends(3, 7)}
    network = from_genotype(DARTS_V2, proxy, **shape, auxiliary=True)
    inputs = 4 * 16
    head = 128 * inputs + 2 * 128 + 4 * 128 * 768 + 2 * 768 + 768 * 7 + 7
    assert sum(weight.numel() for weight in network.parameters()) == DARTS_V2.params(proxy, ends=Ends(3, 7)) + head
    images = torch.randn(2, 3, 32, 32)
    network.eval()(images)
    assert network.auxiliary_logits is None
    network.train()(images)
    assert network.auxiliary_logits.shape == (2, 7)
    with pytest.raises(Unsupported, match="resolution 32, not 16"):
        from_genotype(DARTS_V2, replace(proxy, resolution=16), **shape, auxiliary=True)


@every_space
def test_proxies_that_no_network_can_have_are_refused_with_ones_that_work(space):
    with pytest.raises(Unsupported, match="multiple of 4: 4 or 8"):
        space.check_proxy(Proxy(1, 4, 6))
    with pytest.raises(Unsupported, match="2 cells are too few for two reductions; use at least 3"):
        space.check_proxy(Proxy(1, 4, 8, cells=2))
    assert space.canonical(replace(FULL, cells=20)) == FULL == space.full


def test_the_spaces_are_registered_and_the_option_is_checked():
    assert {"darts", "darts_econas", "darts_edges"} <= set(SPACES)
    with pytest.raises(BadInput, match="concat is unused or all, not 'some'"):
        DARTSEcoNAS("some")


# Live training


@every_space
def test_networks_are_trained_live_under_every_factor_of_a_proxy(space):
    digits, rng = load("digits"), np.random.default_rng(1)
    live = LiveEvaluator(space, digits, recipe={"batch_size": 64, "lr": 0.05}, device="cpu")
    base = Proxy(1, channels=2, resolution=8, samples=0.05, cells=3)
    changes = ({}, {"epochs": 2}, {"channels": 3}, {"resolution": 4}, {"samples": 0.1}, {"cells": 4})
    trials = [Trial(space.sample(rng), replace(base, **change)) for change in changes[: None if space is PLAIN else 2]]
    for trial, answer in zip(trials, live.evaluate(trials), strict=True):
        assert answer.failure == ""
        assert 0 < answer.metrics["val_error"] <= 100
        assert answer.metrics["params"] == space.params(trial.arch, trial.proxy, ends=Ends(1, 10))
        assert answer.metrics["macs"] == space.macs(trial.arch, trial.proxy, ends=Ends(1, 10))


def test_a_narrow_reduction_harms_nothing_where_onednn_has_avx2_and_no_more():
    reduction = """
import torch
from suite.networks.operations import FactorizedReduce

torch.manual_seed(0)
reduction = FactorizedReduce(6, 8, norm=torch.nn.Identity()).to(memory_format=torch.channels_last)
for _ in range(8):
    x = torch.randn(53, 6, 16, 16).to(memory_format=torch.channels_last)
    reduction.zero_grad()
    given = torch.randn(53, 8, 8, 8).to(memory_format=torch.channels_last)
    reduction(x).backward(given)
    for half, pixels, back in ((reduction.even, x.relu()[:, :, ::2, ::2], given[:, :4]),
                               (reduction.odd, x.relu()[:, :, 1:, 1:][:, :, ::2, ::2], given[:, 4:])):
        wanted = torch.einsum("nohw,nihw->oi", back.double(), pixels.double())
        assert torch.allclose(half.weight.grad[:, :, 0, 0].double(), wanted, atol=1e-3, rtol=1e-4)
"""
    limited = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", reduction], env=limited, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # a negative code: the process was killed by a signal


def test_a_cell_of_darts_learns_and_its_stages_are_one_training():
    trial = Trial(PLAIN.parse(PASTED_V2), Proxy(4, channels=4, resolution=8, samples=0.4, cells=3))
    recipe = {"batch_size": 32, "lr": 0.05}
    staged = LiveEvaluator(PLAIN, load("digits"), recipe=recipe, device="cpu")
    (half,) = staged.evaluate([replace(trial, epochs=2)])
    (end,) = staged.evaluate([trial])
    (through,) = LiveEvaluator(PLAIN, load("digits"), recipe=recipe, device="cpu").evaluate([trial])
    assert end.metrics == through.metrics
    assert end.metrics["val_error"] < 75  # of 90
    assert half.cost.macs + end.cost.macs == through.cost.macs
