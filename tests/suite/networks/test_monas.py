"""MONAS's spaces, AlexNet-like and CondenseNet: text form, counts, networks, condensation, supernets, training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.numeric import close, same_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import searchers
from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.evaluators.shared import SharedEvaluator
from suite.networks import build
from suite.networks.condensenet import LearnedGroupConv
from suite.networks.operations import Norms
from suite.networks.supernet import Supernet
from suite.spaces import SPACES
from suite.spaces.alexnet import AlexNet
from suite.spaces.condensenet import GROWTHS, STAGES, CondenseNet, count, groups, growth_under, kept, stage_under
from suite.training.device import threads
from suite.training.gradient_loop import epochs
from suite.training.supernet import SupernetTrainer
from suite.training.trainer import Spent
from suite.types import BadInput, Ends, Proxy, Trial, Unsupported

ALEX, DENSE = AlexNet(), CondenseNet()
BOTH = (ALEX, DENSE)
both = pytest.mark.parametrize("space", BOTH, ids=lambda space: space.name)
TINY = {"alexnet": Proxy(1, channels=2, resolution=8), "condensenet": Proxy(1, channels=4, resolution=8, cells=7)}
MIXED_GROUPS = Proxy(1, channels=8, resolution=4, cells=7)
"""Under which CondenseNet's 3x3 have two groups."""
SHAPE = {"ends": Ends(3, 5)}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return load("digits", valid_fraction=0.05)


def drawn(space, seed=0):
    return space.sample(np.random.default_rng(seed))


def images(side=8, n=6, seed=0, channels=3):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(seed)).double()


def size(network):
    return sum(weight.numel() for weight in network.parameters())


def counted_macs(network, image_channels, side):
    """By hooks on what is executed; biases of linear layers are counted."""
    total = 0

    def counting(module, inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()
        if isinstance(module, nn.Linear):
            total += len(module.bias)

    hooked = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in hooked:
        module.register_forward_hook(counting)
    device = next(network.parameters()).device
    with torch.no_grad():
        network.eval()(torch.zeros(1, image_channels, side, side, device=device))
    return total


# Published numbers


@pytest.mark.parametrize(
    ("stage", "millions_of_flops", "millions_of_params"),
    [(8, 28.6, 0.22), (12, 51.9, 0.41), (14, 65.8, 0.52), (16, 81.3, 0.65), (18, 98.2, 0.79), (20, 116.7, 0.95)],
)
def test_published_condensenets_have_their_parameters_and_flops(stage, millions_of_flops, millions_of_params):
    """CondenseNet-50 to -122 on CIFAR-10; the authors count an operation for each ReLU and each pixel pooled, too."""
    stages, growths = (stage,) * 3, (8, 16, 32)
    params, macs = count(stages, growths, DENSE.full, Ends(3, 10), deployed=True)
    others, width, pixels = 0, 16, 32 * 32
    for block, growth in enumerate(growths):
        if block:
            others += width * pixels  # a pooling of 2x2 to a quarter of the pixels
            pixels //= 4
        for _ in range(stage):
            others += (width + 4 * growth) * pixels  # two ReLUs
            width += growth
    others += 2 * width * pixels  # the last ReLU, the mean
    assert round((macs + others) / 1e6, 1) == millions_of_flops
    assert round(params / 1e6, 2) == millions_of_params
    if stage in STAGES:
        arch = DENSE.parse(f"{stage}-{stage}-{stage}/8-16-32")
        assert (DENSE.params(arch, DENSE.full), DENSE.macs(arch, DENSE.full)) == (params, macs)


def test_condensenet_86_has_these_numbers_as_a_module_too():
    arch = DENSE.parse("14-14-14/8-16-32")
    trained = build(DENSE, arch, DENSE.full, ends=Ends(3, 10), seed=0)
    assert len([module for module in trained.modules() if isinstance(module, nn.Conv2d | nn.Linear)]) == 86
    assert size(trained) == DENSE.trained_params(arch, DENSE.full) == 1_451_594
    deployed = trained.deployed()
    assert size(deployed) == DENSE.params(arch, DENSE.full) == 520_202
    assert counted_macs(deployed, 3, 32) == DENSE.macs(arch, DENSE.full) == 62_381_898


def test_alexnet_by_hand():
    """16 filters of 3x3 on 32 pixels, 32 of 5x5 on 16; 4 x 4 pixels reach 128 hidden units."""
    arch = ALEX.parse("16@3-32@5")
    first, second, hidden, outputs = 9 * 3 * 16, 25 * 16 * 32, 512 * 128 + 128, 128 * 10 + 10
    assert ALEX.params(arch, ALEX.full) == first + 2 * 16 + second + 2 * 32 + hidden + outputs == 80_282
    assert ALEX.macs(arch, ALEX.full) == first * 32**2 + second * 16**2 + hidden + outputs == 3_786_122


def test_sizes():
    assert DENSE.size == 15_625
    assert ALEX.size == 4 * 15**5
    assert sum(15**depth for depth in (2, 3, 4, 5)) == 813_600  # networks, as the space's docstring says
    two_layers = range(0, 15**5, 15**3)  # the first decision is the depth, the last six are unused
    assert len({ALEX.canonical_form(ALEX.at(i + 77)) for i in two_layers}) == 15**2


# Text form


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_unused_decisions_change_nothing_and_have_a_canonical_form(seed):
    arch, rng = drawn(ALEX, seed), np.random.default_rng(seed)
    canonical = ALEX.canonical_form(arch)
    assert ALEX.canonical_form(canonical) == canonical
    used = 1 + 2 * len(ALEX.convolutions(arch))
    other = (*arch[:used], *ALEX.sample(rng)[used:])
    assert ALEX.canonical_form(other) == canonical
    assert ALEX.convolutions(other) == ALEX.convolutions(canonical)
    assert "|" not in ALEX.text(canonical)
    for form in (arch, other, canonical):
        assert ALEX.parse(ALEX.text(form)) == form
        assert ALEX.macs(form, ALEX.full) == ALEX.macs(canonical, ALEX.full)
        assert ALEX.params(form, ALEX.full) == ALEX.params(canonical, ALEX.full)


def test_unused_decisions_do_not_change_the_network():
    one, two = (
        build(ALEX, ALEX.parse(text), TINY["alexnet"], **SHAPE, seed=1).state_dict()
        for text in ("8@3-16@5", "8@3-16@5|64@7-32@3-8@3")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("space", "text", "says"),
    [
        (ALEX, "8@3", "not 2 to 5 convolutions"),
        (ALEX, "-".join(["8@3"] * 6), "not 2 to 5 convolutions"),
        (ALEX, "8@3-16@5|8@3", "not 2 to 5 convolutions"),
        (ALEX, "8@3-16@4", "not filters@kernel: '16@4'; filters are 8, 16, 32, 48, 64, kernels 3, 5, 7"),
        (ALEX, "8@3-24@3", "not filters@kernel: '24@3'"),
        (DENSE, "14-14-14", "not three stages of 6, 8, 10, 12, 14 and three growths of 4, 8, 16, 24, 32"),
        (DENSE, "14-14-7/8-16-32", "not three stages"),
        (DENSE, "14-14-14/8-16-64", "one reads 14-14-14/8-16-32"),
    ],
)
def test_what_is_no_architecture_is_refused_in_one_line(space, text, says):
    with pytest.raises(BadInput, match=says) as refused:
        space.parse(text)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{space.name}: ")


# Proxies


@pytest.mark.parametrize(
    ("space", "proxy", "says"),
    [
        (ALEX, Proxy(1, 4, 8, cells=3), "its depth is a decision, so a proxy cannot ask for 3 cells; leave cells out"),
        (DENSE, Proxy(1, 16, 6), "use a multiple of 4: 4 or 8"),
        (DENSE, Proxy(1, 2, 8), "under channels 2 different growths become the same; use at least 3"),
        (DENSE, Proxy(1, 16, 8, cells=6), "under cells 6 different stages become the same; use at least 7"),
    ],
)
def test_proxies_that_no_network_can_have_are_refused_with_what_works(space, proxy, says):
    for ask in (space.check_proxy, lambda proxy: space.macs(drawn(space), proxy)):
        with pytest.raises(Unsupported, match=says):
            ask(proxy)


def test_options_stay_apart_under_every_width_and_depth():
    for channels in range(3, 70):
        proxy = Proxy(1, channels, 8)
        widths = [growth_under(growth, proxy) for growth in GROWTHS]
        assert widths == sorted(set(widths))
        assert len(widths) == len(GROWTHS)
        assert all(width % groups(proxy) == 0 for width in widths)
    for cells in range(7, 40):
        depths = [stage_under(stage, Proxy(1, 16, 8, cells=cells)) for stage in STAGES]
        assert depths == sorted(set(depths))
        assert len(depths) == len(STAGES)
    assert [growth_under(growth, DENSE.full) for growth in GROWTHS] == list(GROWTHS)
    assert [stage_under(stage, DENSE.full) for stage in STAGES] == list(STAGES)
    assert DENSE.canonical(replace(DENSE.full, cells=14)) == DENSE.full


def test_a_narrower_proxy_is_cheaper():
    """Though the 3x3 have fewer groups then."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        arch = DENSE.sample(rng)
        macs = [DENSE.macs(arch, Proxy(1, channels, 32)) for channels in (16, 11, 8, 6, 4)]
        assert macs == sorted(macs, reverse=True)


# Networks


@pytest.mark.parametrize(
    ("space", "proxy", "classes", "image_channels"),
    [
        (ALEX, ALEX.full, 10, 3),
        (ALEX, Proxy(1, 1, 8), 2, 1),
        (ALEX, Proxy(1, 3, 28), 100, 1),
        (ALEX, Proxy(1, 5, 9), 10, 3),
        (ALEX, Proxy(1, 8, 1), 10, 3),
        (DENSE, DENSE.full, 10, 3),
        (DENSE, Proxy(1, 3, 8), 2, 1),
        (DENSE, Proxy(1, 6, 28, cells=7), 100, 1),
        (DENSE, Proxy(1, 11, 12, cells=10), 10, 3),
        (DENSE, Proxy(1, 20, 4), 10, 3),
    ],
    ids=str,
)
def test_modules_have_the_parameters_and_multiply_adds_of_the_formula(space, proxy, classes, image_channels):
    shape = {"ends": Ends(image_channels, classes)}
    trained_params = getattr(space, "trained_params", space.params)
    for seed in range(2):
        arch = drawn(space, seed)
        network = build(space, arch, proxy, **shape, seed=0)
        assert size(network) == trained_params(arch, proxy, **shape)
        if space is ALEX:
            assert counted_macs(network, image_channels, proxy.resolution) == ALEX.macs(arch, proxy, **shape)
            assert ALEX.trained_macs(arch, proxy, **shape) == ALEX.macs(arch, proxy, **shape)


@pytest.mark.parametrize(
    "proxy",
    [Proxy(1, 16, 4, cells=7), Proxy(1, 3, 8, cells=7), Proxy(1, 11, 12, cells=7), MIXED_GROUPS],
    ids=str,
)
def test_deployed_networks_have_the_parameters_and_multiply_adds_of_the_formula(proxy):
    arch = drawn(DENSE, 3)
    network = build(DENSE, arch, proxy, **SHAPE, seed=0)
    deployed = network.deployed()
    assert size(deployed) == DENSE.params(arch, proxy, **SHAPE)
    assert counted_macs(deployed, 3, proxy.resolution) == DENSE.macs(arch, proxy, **SHAPE)
    assert not any(isinstance(module, LearnedGroupConv) for module in deployed.modules())


def test_multiply_adds_of_training_are_those_of_1x1s_with_all_inputs():
    arch, proxy = drawn(DENSE), Proxy(1, 8, 8, cells=7)
    network = build(DENSE, arch, proxy, **SHAPE, seed=0)
    seen = []
    for module in network.modules():
        if isinstance(module, LearnedGroupConv):  # calls its convolution's weight, not its forward
            module.register_forward_hook(
                lambda module, given, made: seen.append(made[0].numel() * module.conv.weight[0].numel())
            )
    others = counted_macs(network, 3, 8)
    assert others + sum(seen) == DENSE.trained_macs(arch, proxy, **SHAPE)


def hand_norm(x, weights, name):
    """By the statistics of the batch."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return (x - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]


def test_the_output_of_an_alexnet_is_what_is_written_here_by_hand():
    proxy, x = Proxy(1, 3, 9), images(9)
    network = build(ALEX, ALEX.parse("16@3-8@7-32@5"), proxy, **SHAPE, seed=3).double().train()
    weights = dict(network.named_parameters())
    expected = x
    for number, kernel in enumerate((3, 7, 5)):
        name = f"layers.{number}.conv_{kernel}x{kernel}"
        expected = F.conv2d(expected, weights[f"{name}.conv.weight"], padding=kernel // 2)
        expected = hand_norm(expected, weights, f"{name}.norm").clamp(min=0)
        if number < 2:
            expected = -F.max_pool2d(F.pad(expected, (1, 1, 1, 1), value=-math.inf), 3, 2) * -1
    expected = F.max_pool2d(F.pad(expected, (1, 1, 1, 1), value=-math.inf), 3, 2).flatten(1)
    assert expected.shape == (6, 12 * 2 * 2)  # 9, 5, 3, 2 pixels
    expected = (expected @ weights["hidden.weight"].T + weights["hidden.bias"]).clamp(min=0)
    expected = expected @ weights["classifier.weight"].T + weights["classifier.bias"]
    close(network(x), expected)


def test_the_output_of_a_condensenet_is_that_of_the_paper_written_out_by_hand():
    proxy, x = Proxy(1, 8, 8, cells=7), images()
    network = build(DENSE, DENSE.parse("6-8-6/8-4-16"), proxy, **SHAPE, seed=3).double().train()
    network.progress(0.2)  # one stage: a quarter of each group's inputs is lost
    state = network.state_dict()
    features = F.conv2d(x, state["stem.weight"], padding=1)
    for block, (stage, growth) in enumerate(((3, 4), (4, 2), (3, 8))):
        if block:
            features = features.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
        for number in range(stage):
            name = f"blocks.{block}.{number}"
            seen = hand_norm(features, state, f"{name}.reduce.norm").clamp(min=0)
            outputs = []
            for output in range(4 * growth):
                weight = state[f"{name}.reduce.conv.weight"][output, :, 0, 0] * state[f"{name}.reduce.mask"][output % 4]
                outputs.append(torch.einsum("nchw,c->nhw", seen, weight))
            inner = hand_norm(torch.stack(outputs, dim=1), state, f"{name}.norm").clamp(min=0)
            halves = inner.chunk(2, dim=1), state[f"{name}.conv.weight"].chunk(2)  # two groups at half width
            made = [F.conv2d(part, weight, padding=1) for part, weight in zip(*halves, strict=True)]
            features = torch.cat([features, *made], dim=1)
    expected = hand_norm(features, state, "norm").clamp(min=0).mean((2, 3))
    expected = expected @ state["classifier.weight"].T + state["classifier.bias"]
    close(network(x), expected)


# Condensation


def dense(proxy=TINY["condensenet"], seed=0):
    return build(DENSE, drawn(DENSE, 2), proxy, **SHAPE, seed=seed).double()


def masks(network):
    return [module.mask.clone() for module in network.modules() if isinstance(module, LearnedGroupConv)]


def test_a_group_loses_a_quarter_in_each_of_three_stages_over_the_first_half():
    network = dense()
    for share, stage in ((0.0, 0), (0.16, 0), (1 / 6, 1), (0.33, 1), (1 / 3, 2), (0.49, 2), (0.5, 3), (1.0, 3)):
        network.progress(share)
        for mask in masks(network):
            assert (mask.sum(dim=1) == kept(mask.shape[1], stage)).all()
    assert [kept(16, stage) for stage in range(4)] == [16, 12, 8, 4]
    assert [kept(5, stage) for stage in range(4)] == [5, 4, 3, 2]
    skipping = dense()
    skipping.progress(1.0)
    assert all((mask.sum(dim=1) == kept(mask.shape[1])).all() for mask in masks(skipping))


def test_a_group_loses_the_inputs_of_the_smallest_weights_and_never_gets_them_back():
    learned = LearnedGroupConv(8, 12, nn.BatchNorm2d(8))
    with torch.no_grad():
        learned.conv.weight.copy_(torch.randn(12, 8, 1, 1, generator=torch.Generator().manual_seed(0)))
    sums = torch.stack([learned.conv.weight.detach()[group::4, :, 0, 0].abs().sum(0) for group in range(4)])
    learned.condense(1)
    for group in range(4):
        lost = set(sums[group].argsort()[:2].tolist())
        assert {place for place in range(8) if not learned.mask[group, place]} == lost
    before = learned.mask.clone()
    learned.condense(1)
    assert torch.equal(learned.mask, before)
    with torch.no_grad():
        learned.conv.weight[:, :, 0, 0] += 100 * (before[torch.arange(12) % 4] == 0)  # however large they would be now
    learned.condense(2)
    assert (learned.mask <= before).all()
    assert (learned.mask.sum(dim=1) == 4).all()


def test_lost_inputs_get_no_gradient():
    network = dense()
    network.progress(0.5)
    network.train()(images()).square().sum().backward()
    for module in network.modules():
        if isinstance(module, LearnedGroupConv):
            gradient = module.conv.weight.grad[:, :, 0, 0]
            mask = module.mask.repeat(len(gradient) // 4, 1)
            assert not gradient[mask == 0].any()
            assert gradient[mask == 1].any()


@pytest.mark.parametrize("proxy", [TINY["condensenet"], MIXED_GROUPS, Proxy(1, 3, 8, cells=7)], ids=str)
@pytest.mark.parametrize("norms", [Norms(), Norms(affine=False, statistics="batch")], ids=["plain", "batch"])
def test_the_deployed_network_is_the_same_function(proxy, norms):
    if norms == Norms():
        network = dense(proxy).float()
    else:
        supernet = Supernet(DENSE, proxy, **SHAPE, seed=0, norms=norms)
        network = supernet.standalone(drawn(DENSE, 2))
    for seed in range(2):
        network.train()(images(proxy.resolution, seed=seed).float())
    network.progress(1.0)
    x = images(proxy.resolution, seed=5).float()
    close(network.eval().deployed()(x), network(x))
    unfinished = dense(proxy).float().eval()
    before = masks(unfinished)
    unfinished.deployed()
    assert all(torch.equal(a, b) for a, b in zip(before, masks(unfinished), strict=True))  # a copy was condensed


# Supernets


def made(space, proxy=None, norms=None, seed=3):
    return Supernet(space, proxy or TINY[space.name], **SHAPE, seed=seed, norms=norms).double()


def gradients(network, x):
    network.zero_grad()
    F.cross_entropy(network(x), torch.arange(len(x)) % 5).backward()
    found = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return {name.removeprefix("network."): gradient for name, gradient in found.items()}


@pytest.mark.parametrize(
    ("space", "proxy", "norms"),
    [
        (ALEX, None, None),
        (ALEX, Proxy(1, 3, 9), Norms(affine=False)),
        (ALEX, None, Norms(statistics="batch")),
        (DENSE, None, None),
        (DENSE, MIXED_GROUPS, Norms(affine=False)),
        (DENSE, Proxy(1, 16, 4, cells=7), None),
        (DENSE, Proxy(1, 3, 4, cells=8), Norms(statistics="batch")),
    ],
)
def test_a_one_hot_mixture_is_the_stand_alone_network_forward_and_backward(space, proxy, norms):
    supernet = made(space, proxy, norms).train()
    proxy = supernet.proxy
    x = images(proxy.resolution)
    for seed in range(2):
        arch = drawn(space, seed)
        alone = supernet.standalone(arch)
        assert size(alone) == size(supernet.kind.standalone(arch, proxy, **SHAPE, norms=supernet.norms))
        expected, theirs = alone(x), gradients(alone, x)
        for mix in (lambda arch=arch: supernet.mix(supernet.one_hot(arch)), lambda arch=arch: supernet.path(arch)):
            close(mix()(x), expected)
            ours = gradients(mix(), x)
            part = supernet.kind.narrow(arch, proxy, ours)
            assert theirs.keys() == part.keys()
            same_tensors(part, theirs)
            everything, inside = (sum(int(g.count_nonzero()) for g in found.values()) for found in (ours, part))
            assert everything == inside  # what the network does not have gets no gradient


@both
def test_in_single_precision_too_and_outside_training(space):
    supernet = made(space).float().train()
    supernet.mix(torch.rand(supernet.shape))
    for seed in range(2):
        supernet(images(seed=seed).float())
    arch, x = drawn(space, 1), images(seed=9).float()
    alone = supernet.eval().standalone(arch)
    assert not alone.training
    close(supernet.path(arch)(x), alone(x))
    close(supernet.mix(supernet.one_hot(arch))(x), alone(x))
    assert any(tensor.any() for name, tensor in alone.state_dict().items() if name.endswith("running_mean"))


@both
def test_a_path_leaves_the_running_statistics_of_other_channels_alone(space):
    supernet = made(space).train()
    arch = ALEX.parse("8@3-16@5") if space is ALEX else DENSE.parse("6-6-6/4-8-4")
    before = {name: tensor.clone() for name, tensor in supernet.network.state_dict().items()}
    alone = supernet.standalone(arch)
    supernet.path(arch)(images())
    alone(images())
    after = supernet.network.state_dict()
    theirs = {name: x for name, x in alone.state_dict().items() if "running" in name}
    for name, x in supernet.kind.narrow(arch, supernet.proxy, after).items():
        if "running" in name:
            close(x, theirs.pop(name))
    assert not theirs
    changed = sum(int((after[name] != before[name]).sum()) for name in before if "running_mean" in name)
    assert changed == sum(x.numel() for name, x in alone.state_dict().items() if "running_mean" in name)


@both
def test_masked_options_are_neither_computed_nor_counted(space):
    supernet, x = made(space).train(), images()
    weights = torch.rand(supernet.shape, dtype=torch.float64)
    rng = np.random.default_rng(0)
    mask = rng.random(supernet.shape) < 0.5
    mask[:, 0] = True
    close(supernet.mix(weights, mask)(x), supernet.mix(weights * torch.from_numpy(mask))(x))
    supernet.mix(weights, mask)
    few = supernet.computed_macs()
    supernet.mix(weights)
    assert few < supernet.computed_macs()
    arch = drawn(space)
    supernet.path(arch)
    assert supernet.computed_macs() == space.trained_macs(arch, supernet.proxy, **SHAPE)
    mask[2] = False
    with pytest.raises(BadInput, match="the mask leaves row 2 no option; it needs at least one"):
        supernet.mix(weights, mask)


@both
def test_weights_of_options_that_are_not_there_are_not_looked_at(space):
    supernet, x = made(space).train(), images()
    assert supernet.shape == (len(space.decisions), 5)
    assert supernet.valid.sum(axis=1).tolist() == list(space.decisions)
    weights = torch.rand(supernet.shape)
    other = torch.where(torch.from_numpy(supernet.valid), weights, torch.nan)
    assert torch.equal(supernet.mix(weights)(x), supernet.mix(other)(x))


@both
def test_gradients_of_the_weights_are_the_differences(space):
    supernet = made(space, norms=Norms(statistics="batch")).double().train()
    x = images().double()
    weights = torch.rand(supernet.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = (weights - 0.2).requires_grad_()
    (gradient,) = torch.autograd.grad(supernet.mix(weights)(x).square().sum(), weights)
    assert not gradient[torch.from_numpy(~supernet.valid)].any()
    step = 1e-6
    with torch.no_grad():
        for row, option in [(0, 1), (1, 3), (2, 2), (len(space.decisions) - 1, 0)]:
            moved = []
            for sign in (1, -1):
                other = weights.clone()
                other[row, option] += sign * step
                moved.append(supernet.mix(other)(x).square().sum())
            difference = (moved[0] - moved[1]) / (2 * step)
            torch.testing.assert_close(gradient[row, option], difference, rtol=1e-3, atol=1e-4)


@both
def test_architectures_are_read_from_weights_and_costs_are_not_tabled(space):
    supernet = made(space)
    for seed in range(5):
        arch = drawn(space, seed)
        canonical = ALEX.canonical_form(arch) if space is ALEX else arch
        noise = torch.where(torch.from_numpy(supernet.valid), 0.1 * torch.rand(supernet.shape), 9.0)
        assert supernet.derive(supernet.one_hot(arch) + noise) == canonical
    with pytest.raises(Unsupported, match=f"{space.name}: the macs of an option depend on the other rows"):
        _ = supernet.macs


# Training


def factors(space):
    base = replace(TINY[space.name], samples=0.03)
    changes = [{}, {"epochs": 2}, {"channels": 5}, {"resolution": 4}, {"samples": 0.06}]
    return [replace(base, **change) for change in changes + [{"cells": 8}] * (space is DENSE)]


@both
def test_networks_are_trained_live_under_every_factor_of_a_proxy(space, digits):
    live = LiveEvaluator(space, digits, recipe={"batch_size": 64, "lr": 0.05}, device="cpu")
    trials = [Trial(drawn(space, seed), proxy) for seed, proxy in enumerate(factors(space))]
    for trial, answer in zip(trials, live.evaluate(trials), strict=True):
        assert answer.failure == ""
        assert 0 < answer.metrics["val_error"] <= 100
        assert answer.metrics["params"] == space.params(trial.arch, trial.proxy, ends=Ends(1, 10))
        assert answer.metrics["macs"] == space.macs(trial.arch, trial.proxy, ends=Ends(1, 10))


@both
def test_shared_weights_are_trained_and_scored_under_every_factor_of_a_proxy(space, digits, tmp_path):
    trainer = SupernetTrainer(space, digits, recipe={"batch_size": 64}, device="cpu", checkpoints=tmp_path)
    for seed, proxy in enumerate(factors(space)):
        trained = trainer.train(proxy, seed=seed)
        statistics = ("batch", "recalibrated", "running")[seed % 3]
        shared = SharedEvaluator(trained.supernet, digits, device="cpu", statistics=statistics, calibration=50)
        arch = drawn(space, seed)
        (answer,) = shared.evaluate([Trial(arch, proxy, seed=seed)])
        assert answer.failure == ""
        assert 0 < answer.metrics["val_error"] <= 100
        assert answer.metrics["macs"] == space.macs(arch, proxy, ends=Ends(1, 10))
        assert answer.cost.macs >= len(digits.valid_labels) * space.trained_macs(arch, proxy, ends=Ends(1, 10))


def test_masks_are_condensed_by_training_and_survive_checkpoints(digits):
    proxy, recipe = Proxy(6, 4, 8, samples=0.05, cells=7), {"batch_size": 64, "lr": 0.05}
    trial = Trial(DENSE.parse("6-6-6/8-8-16"), proxy)
    staged = LiveEvaluator(DENSE, digits, recipe=recipe, device="cpu")
    answers = staged.evaluate([replace(trial, epochs=epochs) for epochs in (1, 2, 5, 6)])
    through = LiveEvaluator(DENSE, digits, recipe=recipe, device="cpu")
    (whole,) = through.evaluate([trial])
    assert answers[-1].metrics == whole.metrics
    assert [entry["train_loss"] for entry in answers[-1].curve] == [entry["train_loss"] for entry in whole.curve]
    assert sum(answer.cost.macs for answer in answers) == whole.cost.macs
    executed = DENSE.trained_macs(trial.arch, proxy, ends=Ends(1, 10))
    images_seen = 3 * 6 * round(0.05 * len(digits.train_labels)) + 6 * len(digits.valid_labels)
    assert whole.cost.macs == pytest.approx(executed * images_seen, rel=0.02)

    trainer, run = through.trainer, through.trainer.start(trial)
    stepper, left = trainer.stepper(run, proxy), []
    for _ in range(proxy.epochs):
        trainer.epoch(run, trial, stepper, Spent())
        left.append(int(masks(run.network)[-1].sum(dim=1)[0]))
    inputs = masks(run.network)[-1].shape[1]
    assert left == [kept(inputs, stage) for stage in (0, 1, 2, 3, 3, 3)]
    x = images(channels=1).float().contiguous(memory_format=torch.channels_last)
    close(run.network.eval().deployed()(x), run.network(x))


@both
def test_a_search_by_gradients_runs_on_them(space, digits, tmp_path):
    proxy = replace(TINY[space.name], epochs=2, resolution=4, samples=0.05)
    searcher = searchers.make("darts", space, proxy, np.random.default_rng(0))
    answers = list(epochs(searcher, digits, proxy, checkpoints=tmp_path, device="cpu"))
    assert len(answers) == 2
    assert all(answer.failure == "" for answer in answers)
    assert answers[-1].metrics["params"] == space.params(answers[-1].trial.arch, proxy, ends=Ends(1, 10))


def test_an_alexnet_learns(digits):
    trial = Trial(ALEX.parse("32@3-64@3-16@5"), Proxy(8, channels=3, resolution=8, samples=0.3))
    (answer,) = LiveEvaluator(ALEX, digits, recipe={"batch_size": 32, "lr": 0.05}, device="cpu").evaluate([trial])
    assert answer.metrics["val_error"] < 50  # of 90


@pytest.mark.slow
def test_a_condensenet_learns_and_condensing_costs_it_little():
    trial = Trial(DENSE.parse("6-6-6/8-16-32"), Proxy(20, 8, 8, samples=0.6, cells=7))
    live = LiveEvaluator(DENSE, load("digits"), recipe={"batch_size": 32, "lr": 0.05}, device="cpu")
    (answer,) = live.evaluate([trial])
    errors = [entry["val_error"] for entry in answer.curve]
    assert errors[-1] < 10  # of 90
    assert errors[-1] < errors[9] + 2  # which was before the last inputs were lost


def test_the_spaces_are_registered():
    assert type(SPACES["alexnet"]) is AlexNet
    assert type(SPACES["condensenet"]) is CondenseNet
