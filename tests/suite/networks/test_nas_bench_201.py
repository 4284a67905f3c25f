import numpy as np
import pytest
import torch
from helpers.numeric import close
from torch import nn
from torch.nn import functional as F

from suite.networks import build
from suite.networks.operations import OPERATIONS, initialise
from suite.spaces import SPACES
from suite.training.device import threads
from suite.types import BadInput, Ends, Proxy, Unsupported

SPACE = SPACES["nas_bench_201"]
CELL = (3, 0, 1, 4, 2, 3)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):  # tiny tensors: more of them only wait for one another
        yield


def random_cells(count, seed=0):
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(count)]


def counted_macs(network, image_channels, side):
    """By hooks on what is executed; the classifier's bias is counted, as the benchmark does."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()
        if isinstance(module, nn.Linear):
            total += len(module.bias)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.to_empty(device="cpu").eval()(torch.zeros(1, image_channels, side, side))
    return total


@pytest.mark.parametrize(
    ("cells", "proxy"),
    [
        (300, Proxy(1, channels=16, resolution=8, cells=1)),
        (20, SPACE.full),
        pytest.param(300, SPACE.full, marks=pytest.mark.slow),
    ],
)
def test_modules_of_random_cells_have_the_parameters_and_multiply_adds_of_the_formula(cells, proxy):
    for arch in random_cells(cells):
        network = build(SPACE, arch, proxy, ends=Ends(3, 10), seed=None)
        assert sum(weight.numel() for weight in network.parameters()) == SPACE.params(arch, proxy)
        assert counted_macs(network, 3, proxy.resolution) == SPACE.macs(arch, proxy)


@pytest.mark.parametrize(
    ("proxy", "classes", "image_channels"),
    [
        (Proxy(1, channels=4, resolution=8, cells=1), 10, 1),
        (Proxy(1, channels=8, resolution=16, cells=2), 100, 3),
        (Proxy(1, channels=7, resolution=28, cells=3), 120, 1),
        (Proxy(1, channels=1, resolution=4, cells=1), 2, 3),
        (Proxy(1, channels=16, resolution=16), 120, 3),
    ],
)
def test_other_widths_depths_and_images_agree_with_the_formula_too(proxy, classes, image_channels):
    shape = {"ends": Ends(image_channels, classes)}
    for arch in random_cells(10):
        network = build(SPACE, arch, proxy, **shape, seed=None)
        assert sum(weight.numel() for weight in network.parameters()) == SPACE.params(arch, proxy, **shape)
        assert counted_macs(network, image_channels, proxy.resolution) == SPACE.macs(arch, proxy, **shape)


def test_the_output_is_that_of_the_paper_written_out_by_hand():
    proxy = Proxy(1, channels=4, resolution=8, cells=1)
    network = build(SPACE, CELL, proxy, ends=Ends(3, 5), seed=3).double()
    weights = dict(network.named_parameters())

    def norm(x, name):  # batch statistics
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return (x - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]

    def relu_conv_norm(x, name, **options):
        return norm(F.conv2d(x.clamp(min=0), weights[f"{name}.conv.weight"], **options), f"{name}.norm")

    def mean_of_neighbours(x):
        ones = x.new_ones(1, 1, 3, 3)
        sums = F.conv2d(x.flatten(0, 1)[:, None], ones, padding=1).view_as(x)
        return sums / F.conv2d(x.new_ones(1, 1, *x.shape[2:]), ones, padding=1)

    def cell(x, name):  # CELL: node 1 = conv3x3(0); node 2 = none(0) + 1; node 3 = pool(0) + conv1x1(1) + conv3x3(2)
        one = relu_conv_norm(x, f"{name}.edge0.nor_conv_3x3", padding=1)
        two = 0 * x + one
        end = relu_conv_norm(one, f"{name}.edge4.nor_conv_1x1")
        return mean_of_neighbours(x) + end + relu_conv_norm(two, f"{name}.edge5.nor_conv_3x3", padding=1)

    def reduction(x, name):
        half = relu_conv_norm(x, f"{name}.first", stride=2, padding=1)
        quarters = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        shortcut = F.conv2d(quarters, weights[f"{name}.shortcut.weight"])
        return relu_conv_norm(half, f"{name}.second", padding=1) + shortcut

    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    x = norm(F.conv2d(images, weights["stem.weight"], padding=1), "stem_norm")
    for place, block in enumerate([cell, reduction, cell, reduction, cell]):
        x = block(x, f"cells.{place}")
    features = norm(x, "norm").clamp(min=0).mean((2, 3))
    expected = features @ weights["classifier.weight"].T + weights["classifier.bias"]
    close(network.train()(images), expected)


def test_a_cell_of_zeros_sees_nothing_of_the_image():
    network = build(SPACE, (0,) * 6, Proxy(1, 4, 8), ends=Ends(1, 10), seed=0).eval()
    logits = network(torch.rand(3, 1, 8, 8))
    assert torch.equal(logits[0], logits[1])


def test_weights_come_from_seed_and_name_alone():
    proxy = Proxy(1, 4, 8, cells=2)
    one, two = (build(SPACE, arch, proxy, ends=Ends(3, 10), seed=5) for arch in (CELL, (3, 3, 1, 0, 2, 2)))
    first, second = one.state_dict(), two.state_dict()
    shared = first.keys() & second.keys()
    assert "cells.1.edge0.nor_conv_3x3.conv.weight" in shared
    assert "cells.1.edge5.nor_conv_3x3.conv.weight" in first.keys() - shared
    assert all(torch.equal(first[name], second[name]) for name in shared)
    other = build(SPACE, CELL, proxy, ends=Ends(3, 10), seed=6).state_dict()
    assert not torch.equal(first["stem.weight"], other["stem.weight"])
    assert not torch.equal(
        first["cells.0.edge0.nor_conv_3x3.conv.weight"], first["cells.1.edge0.nor_conv_3x3.conv.weight"]
    )


def test_weights_are_distributed_as_torch_draws_them():
    network = build(SPACE, (3,) * 6, SPACE.full, ends=Ends(3, 10), seed=0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel() > 2000:
            fresh = type(module)(*_shape_of(module))
            ours, theirs = module.weight.detach(), fresh.weight.detach()
            assert ours.abs().max() <= theirs.abs().max() * 1.01
            assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
    assert all((module.weight == 1).all() for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def _shape_of(module):
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels, module.kernel_size


def test_the_global_generator_is_neither_used_nor_moved():
    proxy = Proxy(1, 4, 8)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = build(SPACE, CELL, proxy, ends=Ends(3, 10), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    two = build(SPACE, CELL, proxy, ends=Ends(3, 10), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_every_operation_of_the_space_keeps_the_shape():
    x = torch.rand(2, 3, 8, 8)
    for name, operation in OPERATIONS.items():
        assert operation(3)(x).shape == x.shape, name


def test_average_pooling_does_not_count_the_padding():
    assert torch.equal(OPERATIONS["avg_pool_3x3"](1)(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_what_cannot_be_built_is_refused():
    proxy = Proxy(1, 4, 8)
    with pytest.raises(Unsupported, match="nas_bench_macro: no networks to train"):
        build(SPACES["nas_bench_macro"], (0,) * 8, proxy, ends=Ends(3, 10), seed=0)
    with pytest.raises(Unsupported, match="multiple of 4"):
        build(SPACE, CELL, Proxy(1, 4, 6), ends=Ends(3, 10), seed=0)
    with pytest.raises(BadInput, match="6 decisions"):
        build(SPACE, (1, 2), proxy, ends=Ends(3, 10), seed=0)
    with pytest.raises(Unsupported, match="ConvTranspose2d"):
        initialise(nn.Sequential(nn.ConvTranspose2d(1, 1, 1)), seed=0)
