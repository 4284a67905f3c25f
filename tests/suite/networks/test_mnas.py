"""MNAS's blocks: released networks, space, counts, networks, training and supernet."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.numeric import close, same_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.evaluators.shared import SharedEvaluator
from suite.networks import build
from suite.networks.mnas import Layer, Widths, from_encoding, normed
from suite.networks.operations import Norms
from suite.networks.supernet import Supernet
from suite.spaces import SPACES
from suite.spaces.mnas import A1, B1, DEPTHS, RELEASED, SMALL, Block, read
from suite.training.device import threads
from suite.training.supernet import SupernetTrainer
from suite.types import BadInput, Ends, Proxy, Trial, Unsupported

SPACE = SPACES["mnas"]
TINY = Proxy(1, channels=4, resolution=8)
HAND = (
    "r2_k3_s11_conv_i16_o16_se0.25 r2_k5_s22_e1_i16_o30_pool r2_k3_s22_e3_i30_o30_se0.25_pool "
    "r2_k5_s22_e6_i30_o80_se0.25_noskip r1_k5_s11_conv_i80_o96"
)
every_released = pytest.mark.parametrize("name", RELEASED)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


def drawn(seed=0):
    return SPACE.sample(np.random.default_rng(seed))


def images(side=8, n=6, seed=0):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed)).double()


def parameters(network):
    return sum(weight.numel() for weight in network.parameters())


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


def on_meta(encoding):
    with torch.device("meta"):
        return from_encoding(encoding, ends=Ends(3, 1000))


# The released networks: property 1 of the card


@pytest.mark.parametrize(
    ("encoding", "params", "published", "madds"),
    [
        (A1, 3_887_038, 3.9e6, 312),
        (B1, 4_383_312, 4.4e6, None),  # to the last: torchvision's mnasnet1_0 is B1 (its documentation's num_params)
        (SMALL, 2_030_264, 2.0e6, 68),
    ],
    ids=RELEASED,
)
def test_1_released_strings_have_their_published_parameters_and_multiply_adds(encoding, params, published, madds):
    cost = encoding.cost(224, ends=Ends(3, 1000))
    assert cost.params == params == parameters(on_meta(encoding))
    assert round(params, -5) == published
    assert cost.macs == counted_macs(on_meta(encoding), 3, 224)
    assert madds in (None, round(cost.macs / 1e6))


@pytest.mark.parametrize(
    ("multiplier", "params", "madds"), [(1.4, 6.1e6, 591.5e6), (0.75, 2.9e6, 226.7e6), (0.5, 2.1e6, 105.2e6)]
)
def test_1_widths_of_a1_have_theirs(multiplier, params, madds):
    cost = A1.scaled(multiplier).cost(224, ends=Ends(3, 1000))
    assert round(cost.params, -5) == params
    assert cost.macs == pytest.approx(madds, rel=0.02)  # the readme's figures lie 1 to 2 % above multiply-adds


@every_released
def test_1_encodings_are_written_back_as_they_were_released(name):
    encoding = RELEASED[name]
    assert read(str(encoding)) == encoding.blocks
    assert read(str(str(encoding).split())) == encoding.blocks  # a list of strings, as pasted
    assert str(A1).split()[4] == "r2_k3_s11_e6_i80_o112_se0.25"


def test_a_layer_adds_its_input_where_stride_and_written_filters_allow():
    def skipping(encoding):
        return "".join("01"[layer.skip == "identity"] for layers in encoding.layers() for layer in layers)

    assert skipping(A1) == "0" + "01" + "011" + "0111" + "01" + "011" + "0"
    assert skipping(B1) == "0" + "011" * 3 + "01" + "0111" + "0"
    assert skipping(SMALL) == "0" + "0" + "01" + "0111" + "111" + "011" + "0"  # its first block: i16 behind a stem of 8


@every_released
def test_released_networks_have_the_released_norms_and_dropout_and_end_on_7_pixels(name):
    network, seen = on_meta(RELEASED[name]), []
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.001, 0.01)}  # released: 0.99, of what was
    assert network.dropout.p == (0.0 if name == "small" else 0.2)
    network.head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    network(torch.zeros(1, 3, 224, 224, device="meta"))
    assert seen == [(1, 1280, 7, 7)]


# Property 4


def test_4_layers_of_a_block_are_identical_but_for_stride_and_input_of_the_first():
    networks = [on_meta(encoding) for encoding in RELEASED.values()]
    networks += [build(SPACE, drawn(seed), SPACE.full, ends=Ends(3, 10), seed=None) for seed in range(20)]
    for network in networks:
        for block in network.blocks:
            operations = [next(iter(layer.values())) for layer in block.layers]
            described = [str(operation) for operation in operations]
            assert len(set(described[1:])) <= 1
            assert len({next(iter(layer)) for layer in block.layers}) == 1
            if len(operations) > 1:
                first, second = (dict(operation.named_modules()) for operation in operations[:2])
                assert first.keys() == second.keys()
                last = "project" if "project" in first else "conv"
                assert first[last].out_channels == second[last].out_channels
                kernel = "depthwise" if "depthwise" in first else "conv"
                assert first[kernel].kernel_size == second[kernel].kernel_size
                assert second[kernel].stride == (1, 1)


# The space


def test_the_space_has_the_size_of_its_decisions():
    assert 4 * 2 * 2 * 3 * 3 * 3 == 432
    assert SPACE.size == 288 * 432**4  # a first block of one layer cannot have one fewer
    assert DEPTHS == ((1, 2), (1, 2, 3), (2, 3, 4), (2, 3, 4), (1, 2, 3))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_architecture_is_valid_and_survives_its_text(seed):
    rng = np.random.default_rng(seed)
    arch = SPACE.sample(rng)
    assert SPACE.parse(SPACE.text(arch)) == arch
    assert SPACE.parse(SPACE.text(arch).replace("s11", "s1").replace("s22", "s2").replace(" ", ", ")) == arch
    blocks = SPACE.encoding(arch).blocks
    assert [block.stride for block in blocks] == [1, 2, 2, 2, 1]
    assert all(block.layers >= 1 for block in blocks)
    assert all(one.filters == other.inputs for one, other in pairwise(blocks))
    child = SPACE.mutate(arch, rng)
    assert sum(a != b for a, b in zip(arch, child, strict=True)) == 1
    assert child in SPACE.neighbours(arch)


def test_the_middle_of_the_space_is_its_base():
    text = "r1_k3_s11_e6_i16_o16 r2_k3_s22_e6_i16_o24 r3_k3_s22_e6_i24_o40 r3_k3_s22_e6_i40_o80 r2_k3_s11_e6_i80_o96"
    arch = (3, 0, 0, 1, 1, 0, *(3, 0, 0, 1, 1, 1) * 4)
    assert SPACE.text(arch) == text
    assert SPACE.encoding(arch).widths(8) == [8, 8, 12, 20, 40, 48, 192]
    assert len(SPACE.neighbours(arch)) == 10 + 4 * 11


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 blocks in ''; there are 5"),
        ("r1_k3", "not a block: 'r1_k3'; one reads r3_k5_s22_e3_i24_o40_se0.25"),
        (HAND.replace("s11", "s12"), "not a block"),
        (HAND.replace("k3_s11", "k4_s11"), "not a block"),
        (HAND.replace("conv_i16_o16", "e0_i16_o16"), "not a block"),
        (HAND.replace("r2_k3_s11", "r0_k3_s11"), "not a block"),
        (HAND + " r1_k5_s11_conv_i96_o96", "6 blocks in"),
        (HAND.replace("s11_conv_i16", "s22_conv_i16"), "block 0 has s1 here, not s2"),
        (HAND.replace("i16_o30", "i20_o30"), "block 1 has i16 here, not i20"),
        (HAND.replace("e1_", "e2_"), r"block 1 has e \(0: conv\) of 0, 1, 3, 6, not 2"),
        (HAND.replace("k5_s22_e1", "k7_s22_e1"), "block 1 has k of 3, 5, not 7"),
        (HAND.replace("o16_se0.25", "o16_se0.5"), "block 0 has se of 0, 0.25, not 0.5"),
        (HAND.replace("o96", "o97"), "block 4 has o of 72, 96, 120, not 97"),
        (HAND.replace("r2_k3_s11", "r3_k3_s11"), "block 0 has r of 1, 2, not 3"),
    ],
)
def test_what_is_no_network_of_the_space_is_refused_in_one_line(text, says):
    with pytest.raises(BadInput, match=says) as refused:
        SPACE.parse(text)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("mnas: ")


def test_a_block_reads_what_the_released_code_writes():
    assert Block.read("r2_k3_s2_e1_i32_o16_se0.25_noskip") == Block(2, 3, 2, 1, 32, 16, 0.25, "none")


def test_proxies_that_no_network_can_have_are_refused_with_ones_that_work():
    with pytest.raises(Unsupported, match="resolution 4 is too small for three strides of 2; use at least 5"):
        SPACE.check_proxy(Proxy(1, 4, 4))
    with pytest.raises(Unsupported, match="a proxy cannot set cells = 3; leave cells out"):
        SPACE.check_proxy(Proxy(1, 4, 8, cells=3))
    SPACE.check_proxy(Proxy(1, 1, 5))


# Networks


CORNERS = [tuple(0 for _ in SPACE.decisions), tuple(options - 1 for options in SPACE.decisions), SPACE.parse(HAND)]


@pytest.mark.parametrize(
    ("proxy", "classes", "image_channels"),
    [
        (SPACE.full, 10, 3),
        (Proxy(1, channels=8, resolution=32), 100, 3),
        (Proxy(1, channels=4, resolution=8), 10, 1),
        (Proxy(1, channels=1, resolution=5), 2, 3),
        (Proxy(1, channels=7, resolution=27), 120, 3),
        (Proxy(1, channels=40, resolution=13), 10, 1),
    ],
)
def test_modules_have_the_parameters_and_multiply_adds_of_the_formula(proxy, classes, image_channels):
    shape = {"ends": Ends(image_channels, classes)}
    for arch in [*CORNERS, *map(drawn, range(4))]:
        network = build(SPACE, arch, proxy, **shape, seed=None)
        assert parameters(network) == SPACE.params(arch, proxy, **shape)
        assert counted_macs(network, image_channels, proxy.resolution) == SPACE.macs(arch, proxy, **shape)


def test_parameters_counted_by_hand():
    """Of `HAND` at full width: stem 16, blocks 16, 30, 30, 80, 96, head 384; squeezed 4, 7, 7."""
    stem = 9 * 3 * 16 + 2 * 16
    block0 = 2 * (9 * 16 * 16 + 2 * 16 + 16 * 4 + 4 + 4 * 16 + 16)
    block1 = (25 * 16 + 2 * 16 + 16 * 30 + 2 * 30) + (25 * 30 + 2 * 30 + 30 * 30 + 2 * 30)
    block2 = 2 * (30 * 90 + 2 * 90 + 9 * 90 + 2 * 90 + 90 * 7 + 7 + 7 * 90 + 90 + 90 * 30 + 2 * 30)
    block3 = (30 * 180 + 2 * 180 + 25 * 180 + 2 * 180 + 180 * 7 + 7 + 7 * 180 + 180 + 180 * 80 + 2 * 80) + (
        80 * 480 + 2 * 480 + 25 * 480 + 2 * 480 + 480 * 20 + 20 + 20 * 480 + 480 + 480 * 80 + 2 * 80
    )
    block4 = 25 * 80 * 96 + 2 * 96
    head = 96 * 384 + 2 * 384 + 384 * 10 + 10
    total = stem + block0 + block1 + block2 + block3 + block4 + head
    assert SPACE.params(SPACE.parse(HAND), SPACE.full) == total


def test_the_output_is_that_of_the_blocks_written_out_by_hand():
    network = build(SPACE, SPACE.parse(HAND), TINY, ends=Ends(3, 5), seed=3).double().train()
    weights = dict(network.named_parameters())

    def norm(x, name):  # batch statistics
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (x - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]

    def conv(x, name, **options):
        return F.conv2d(x, weights[f"{name}.weight"], **options)

    def attend(x, name):
        squeezed = x.mean((2, 3)) @ weights[f"{name}.reduce.weight"][:, :, 0, 0].T + weights[f"{name}.reduce.bias"]
        restored = squeezed.clamp(min=0) @ weights[f"{name}.restore.weight"][:, :, 0, 0].T
        return x / (1 + (-restored - weights[f"{name}.restore.bias"]).exp())[:, :, None, None]

    def regular(x, name, padding):
        return norm(conv(x, f"{name}.conv", padding=padding), f"{name}.conv_norm").clamp(min=0)

    def separable(x, name, padding, stride, se):
        x = conv(x, f"{name}.depthwise", padding=padding, stride=stride, groups=x.shape[1])
        x = norm(x, f"{name}.depthwise_norm").clamp(min=0)
        x = attend(x, f"{name}.squeeze") if se else x
        return norm(conv(x, f"{name}.project"), f"{name}.project_norm")

    def inverted(x, name, padding, stride):
        expanded = norm(conv(x, f"{name}.expand"), f"{name}.expand_norm").clamp(min=0)
        return separable(expanded, name, padding, stride, se=True)

    def means(x, stride):
        ones = x.new_ones(1, 1, 3, 3)
        sums = F.conv2d(x.flatten(0, 1)[:, None], ones, padding=1, stride=stride)
        counts = F.conv2d(x.new_ones(1, 1, *x.shape[2:]), ones, padding=1, stride=stride)
        return sums.unflatten(0, x.shape[:2])[:, :, 0] / counts

    x = norm(conv(images(), "stem.conv", padding=1), "stem.norm").clamp(min=0)
    for layer in (0, 1):  # written 16 to 16: an identity beside both
        name = f"blocks.0.layers.{layer}.conv_k3_se"
        x = x + attend(regular(x, name, 1), f"{name}.squeeze")
    x = separable(x, "blocks.1.layers.0.sep_k5", 2, 2, se=False)  # 16 to 30
    x = means(x, 1) + separable(x, "blocks.1.layers.1.sep_k5", 2, 1, se=False)
    x = means(x, 2) + inverted(x, "blocks.2.layers.0.mb3_k3_se", 1, 2)  # 30 to 30
    x = means(x, 1) + inverted(x, "blocks.2.layers.1.mb3_k3_se", 1, 1)
    x = inverted(x, "blocks.3.layers.0.mb6_k5_se", 2, 2)
    x = inverted(x, "blocks.3.layers.1.mb6_k5_se", 2, 1)
    x = regular(x, "blocks.4.layers.0.conv_k5", 2)
    x = norm(conv(x, "head.conv"), "head.norm").clamp(min=0)
    expected = x.mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    close(network(images()), expected)


def test_initial_weights_come_from_seed_and_name_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    arch = SPACE.parse(HAND)
    other = (*arch[:24], 3, *arch[25:])
    one, two = (build(SPACE, a, TINY, ends=Ends(3, 10), seed=5).state_dict() for a in (arch, other))
    assert torch.equal(torch.get_rng_state(), before)
    shared = one.keys() & two.keys()
    assert {"head.conv.weight", "blocks.3.layers.1.mb6_k5_se.depthwise.weight"} <= shared
    assert all(torch.equal(one[name], two[name]) for name in shared)


# Live training


def test_networks_are_trained_live_under_every_factor_of_a_proxy():
    live = LiveEvaluator(SPACE, load("digits"), recipe={"batch_size": 64, "lr": 0.05}, device="cpu")
    base = Proxy(1, channels=2, resolution=8, samples=0.05)
    changes = ({}, {"epochs": 2}, {"channels": 4}, {"resolution": 5}, {"resolution": 11}, {"samples": 0.1})
    trials = [Trial(drawn(seed), replace(base, **change)) for seed, change in enumerate(changes)]
    for trial, answer in zip(trials, live.evaluate(trials), strict=True):
        assert answer.failure == ""
        assert 0 < answer.metrics["val_error"] <= 100
        assert answer.metrics["params"] == SPACE.params(trial.arch, trial.proxy, ends=Ends(1, 10))
        assert answer.metrics["macs"] == SPACE.macs(trial.arch, trial.proxy, ends=Ends(1, 10))


def test_a_network_learns_and_its_stages_are_one_training():
    text = "r1_k3_s11_e3_i16_o16 r1_k3_s22_e3_i16_o24 r2_k3_s22_e3_i24_o40_se0.25 r2_k3_s22_conv_i40_o80"
    arch = SPACE.parse(f"{text} r1_k3_s11_e3_i80_o96")
    trial = Trial(arch, Proxy(4, channels=4, resolution=8, samples=0.4))
    recipe = {"batch_size": 32, "lr": 0.05}
    staged = LiveEvaluator(SPACE, load("digits"), recipe=recipe, device="cpu")
    staged.evaluate([replace(trial, epochs=2)])
    (end,) = staged.evaluate([trial])
    (through,) = LiveEvaluator(SPACE, load("digits"), recipe=recipe, device="cpu").evaluate([trial])
    assert end.metrics == through.metrics
    assert end.metrics["val_error"] < 75  # of 90


# Supernet


@pytest.fixture(scope="module")
def supernet():
    return Supernet(SPACE, TINY, ends=Ends(3, 5), seed=3).double().train()


@pytest.fixture(scope="module")
def with_scales():
    return Supernet(SPACE, TINY, ends=Ends(3, 5), seed=3, norms=Norms()).double().train()


def gradients(network, x):
    network.zero_grad()
    F.cross_entropy(network(x), torch.arange(len(x)) % 5).backward()
    found = {name.removeprefix("network."): weight.grad for name, weight in network.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def part(gradient, like):
    return gradient[tuple(slice(length) for length in like.shape)]


@pytest.mark.parametrize("text", [SPACE.text(drawn(0)), HAND])
def test_a_path_is_the_stand_alone_network_forward_and_backward(supernet, text):
    arch, x = SPACE.parse(text), images()
    alone = supernet.standalone(arch)
    expected, theirs = alone(x), gradients(alone, x)
    close(supernet.path(arch)(x), expected)
    ours = gradients(supernet, x)
    assert ours.keys() == theirs.keys()  # nothing else is computed
    same_tensors({name: part(ours[name], gradient) for name, gradient in theirs.items()}, theirs)
    for name, gradient in theirs.items():
        assert ours[name].count_nonzero() == gradient.count_nonzero()


def test_a_one_hot_mixture_of_everything_is_the_stand_alone_network_too(with_scales):
    """In double precision: with more channels, of zeros, a convolution rounds its sums in another order."""
    arch, x = drawn(1), images().double()
    alone = with_scales.standalone(arch).double()
    expected, theirs = alone(x), gradients(alone, x)
    close(with_scales.mix(with_scales.one_hot(arch).double())(x), expected)
    ours = gradients(with_scales, x)
    same_tensors({name: part(ours[name], gradient) for name, gradient in theirs.items()}, theirs)
    for name, gradient in theirs.items():
        rest = ours[name].clone()
        part(rest, gradient).zero_()
        assert rest.abs().max() < 1e-12
    assert all(ours[name].abs().max() < 1e-12 for name in ours.keys() - theirs.keys())


def test_so_it_is_outside_training_where_running_statistics_count(with_scales):
    arch, x = SPACE.parse(HAND), images(seed=9).double()
    before = {name: tensor.clone() for name, tensor in with_scales.state_dict().items()}
    with_scales.mix(with_scales.one_hot(drawn(4)).double() + 0.1)(images().double())
    with_scales.path(arch)(images(seed=1).double())
    with_scales.eval()
    alone = with_scales.standalone(arch).double()
    close(with_scales.path(arch)(x), alone(x))
    close(with_scales.mix(with_scales.one_hot(arch).double())(x), alone(x))
    with_scales.train().load_state_dict(before)


def test_rows_are_decisions_and_columns_that_do_not_exist_are_ignored(supernet):
    assert supernet.shape == (30, 4)
    assert supernet.valid.sum(axis=1).tolist() == list(SPACE.decisions)
    arch = drawn(5)
    weights = supernet.one_hot(arch)
    noisy = torch.where(torch.as_tensor(supernet.valid), weights, torch.tensor(7.0))
    assert supernet.derive(noisy) == arch
    masked = weights.bool() | ~torch.as_tensor(supernet.valid)
    assert torch.equal(supernet.mix(noisy, masked)(images()), supernet.path(arch)(images()))
    with pytest.raises(BadInput, match="the mask leaves row 0 no option"):
        supernet.mix(weights, torch.zeros(30, 4, dtype=torch.bool))
    with pytest.raises(Unsupported, match="depend on the other rows"):
        _ = supernet.macs


def rows(**chosen):
    """Of a block: options and their weights by name of the decision; the first option alone where none is named."""
    given = [chosen.get(name, {0: 1.0}) for name in ("op", "kernel", "se", "skip", "filters", "depth")]
    made = []
    for options in given:
        weights = torch.zeros(4)
        weights[list(options)] = torch.tensor(list(options.values()))
        made.append((weights, tuple(options)))
    return made


@torch.no_grad()
def test_operations_are_weighted_by_products_and_depths_mix_the_outputs_of_layers(supernet):
    block, x, arriving = supernet.network.blocks[1], torch.rand(3, 4, 8, 8).double(), Widths(((16, 4, None),))
    narrow = Widths(((18, 5, None),))

    def layer(number, x, inputs):
        total = torch.zeros(())
        for op, u in (("conv", 0.3), ("sep", 0.2)):
            for kernel, v in ((3, 0.6), (5, 0.4)):
                for se, w in (("", 1.0), ("_se", 0.5)):
                    total = total + u * v * w * block.layers[number][f"{op}_k{kernel}{se}"](x, inputs, narrow)
        return total

    mixed, widths = block.mix(
        x, arriving,
        rows(op={0: 0.3, 1: 0.2}, kernel={0: 0.6, 1: 0.4}, se={0: 1.0, 1: 0.5}, depth={0: 0.7, 2: 0.4}),
    )  # fmt: skip
    outputs = [layer(0, x, arriving)]
    for number in (1, 2):
        outputs.append(layer(number, outputs[-1], narrow))
    assert widths.widest == 5
    close(mixed.float(), 0.7 * outputs[0] + 0.4 * outputs[2])  # the mixture's own weights are float32


@torch.no_grad()
def test_skips_are_weighted_and_only_where_filters_are_written_equal(supernet):
    block, x = supernet.network.blocks[2], torch.rand(3, 8, 8, 8).double()
    arriving, narrow = Widths(((24, 6, torch.tensor(0.9)), (30, 8, torch.tensor(0.1)))), Widths(((30, 8, None),))
    skips = {0: 0.1, 1: 0.7, 2: 0.2}
    mixed, _ = block.mix(x, arriving, rows(skip=skips, filters={0: 1.0}))

    def means(x, stride):
        return F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)

    first = block.layers[0]["conv_k3"](x, arriving, narrow) + 0.2 * 0.1 * means(x, 2)  # the 30 that arrive, halved
    second = block.layers[1]["conv_k3"](first, narrow, narrow) + 0.7 * first + 0.2 * means(first, 1)
    close(mixed.float(), second)  # the mixture's own weights are float32


@torch.no_grad()
def test_a_channel_counts_as_much_as_the_widths_that_have_it(supernet):
    block, x, arriving = supernet.network.blocks[0], torch.rand(2, 4, 8, 8).double(), supernet.network.arriving
    mixed, widths = block.mix(x, arriving, rows(filters={0: 0.2, 1: 0.3, 2: 0.5}))
    wide = block.layers[0]["conv_k3"](x, arriving, Widths(((20, 5, None),)))
    assert [channels for _, channels, _ in widths.mixed] == [3, 4, 5]  # 12, 16, 20 of 16 at 4
    close(mixed, wide * torch.tensor([1.0, 1.0, 1.0, 0.8, 0.5])[:, None, None])


def test_multiply_adds_of_a_mixture_are_those_that_are_computed(supernet, monkeypatch):
    done, convolve, linear = [0], F.conv2d, F.linear

    def counting_conv(x, weight, *args, **options):
        y = convolve(x, weight, *args, **options)
        done[0] += y[0].numel() * weight[0].numel()
        return y

    def counting_linear(x, weight, bias):
        done[0] += weight.numel() + bias.numel()
        return linear(x, weight, bias)

    monkeypatch.setattr(F, "conv2d", counting_conv)
    monkeypatch.setattr(F, "linear", counting_linear)
    mask = np.random.default_rng(0).random((30, 4)) < 0.5
    mask[np.arange(30), drawn(8)] = True
    with torch.no_grad():
        for mix in (
            lambda: supernet.path(drawn(7)),
            lambda: supernet.mix(torch.rand(30, 4)),
            lambda: supernet.mix(torch.rand(30, 4), mask),
        ):
            done[0] = 0
            mix()(images())
            assert done[0] == supernet.computed_macs()
    supernet.path(drawn(7))
    assert supernet.computed_macs() == SPACE.macs(drawn(7), TINY, ends=Ends(3, 5))


def test_gradients_of_a_mixture_reach_every_row(supernet):
    logits = torch.zeros(30, 4).masked_fill(~torch.as_tensor(supernet.valid), -torch.inf).requires_grad_()
    F.cross_entropy(supernet.mix(logits.softmax(dim=1))(images()), torch.arange(6) % 5).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum(dim=1).gt(0).all()
    assert not logits.grad[~torch.as_tensor(supernet.valid)].any()


@pytest.mark.parametrize("proxy", [Proxy(1, 1, 5), pytest.param(Proxy(1, 16, 32), marks=pytest.mark.slow)], ids=str)
def test_there_are_supernets_under_every_proxy_and_with_batch_statistics(proxy):
    norms = Norms(affine=False, statistics="batch")
    supernet = Supernet(SPACE, proxy, ends=Ends(3, 5), seed=0, norms=norms).double()
    assert not any("running" in name for name in supernet.state_dict())
    x = images(proxy.resolution, n=3)
    for seed in range(3):
        expected = supernet.standalone(drawn(seed))(x)
        assert torch.equal(supernet.path(drawn(seed)).train()(x), expected)
        assert torch.equal(supernet.eval()(x), expected)


def test_shared_weights_are_trained_by_single_paths_and_score_architectures(tmp_path):
    digits, proxy = load("digits"), Proxy(1, channels=2, resolution=8, samples=0.1)
    trainer = SupernetTrainer(SPACE, digits, recipe={"batch_size": 32, "lr": 0.05}, checkpoints=tmp_path, device="cpu")
    trained = trainer.train(proxy)
    assert trained.cost.macs > 0
    for statistics in ("batch", "recalibrated"):
        shared = SharedEvaluator(trained.supernet, digits, statistics=statistics, device="cpu")
        for answer in shared.evaluate([Trial(drawn(seed), proxy) for seed in range(2)]):
            assert answer.failure == ""
            assert 0 < answer.metrics["val_error"] <= 100
            assert answer.metrics["params"] == SPACE.params(answer.trial.arch, proxy, ends=Ends(1, 10))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_used_in_part_moves_the_statistics_of_that_part_only(momentum):
    whole, narrow = nn.BatchNorm2d(5, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum)
    for seed in range(2):
        x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(normed(x, whole), narrow(x))
    assert torch.equal(whole.running_mean[:3], narrow.running_mean)
    assert torch.equal(whole.running_var[:3], narrow.running_var)
    assert whole.running_mean[3:].tolist() + whole.running_var[3:].tolist() == [0, 0, 1, 1]
    assert torch.equal(normed(x, whole.eval()), narrow.eval()(x))


def test_a_layer_has_one_operation_alone_and_all_in_a_supernet(supernet):
    network = build(SPACE, drawn(), TINY, ends=Ends(3, 5), seed=0)
    assert {len(module) for module in network.modules() if isinstance(module, Layer)} == {1}
    assert {len(module) for module in supernet.modules() if isinstance(module, Layer)} == {16}
