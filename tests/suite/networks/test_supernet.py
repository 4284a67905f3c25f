"""Supernets: mixtures of all operations, which are the stand-alone networks where only one counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.numeric import close, same_tensors
from torch import nn

from suite.networks import build
from suite.networks.mixture import MixedEdge
from suite.networks.operations import Norms
from suite.networks.supernet import Supernet, inherit
from suite.spaces import SPACES
from suite.spaces.darts import DARTS_V2, DARTSEcoNAS
from suite.training.device import threads
from suite.types import BadInput, Ends, Proxy, Unsupported

NB201, DARTS, EDGES, ECONAS = SPACES["nas_bench_201"], SPACES["darts"], SPACES["darts_edges"], DARTSEcoNAS("all")
TINY = {NB201.name: Proxy(1, 4, 8, cells=1)} | {s.name: Proxy(1, 2, 8, cells=3) for s in (DARTS, EDGES, ECONAS)}
every_space = pytest.mark.parametrize("space", [NB201, DARTS, EDGES, ECONAS], ids=lambda space: space.name)
every_skeleton = pytest.mark.parametrize("space", [NB201, DARTS], ids=lambda space: space.name)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


def made(space, norms=None, seed=3, proxy=None):
    """In float64, so that neither rounding nor a ReLU at its border hides or feigns a difference."""
    return Supernet(space, proxy or TINY[space.name], ends=Ends(3, 5), seed=seed, norms=norms).double()


def drawn(space, seed=0):
    return space.sample(np.random.default_rng(seed))


def images(side=8, n=6, seed=0):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed)).double()


def gradients(network, x):
    network.zero_grad()
    nn.functional.cross_entropy(network(x), torch.arange(len(x)) % 5).backward()
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def names(found):
    """As in the stand-alone network."""
    return {name.removeprefix("network."): value for name, value in found.items()}


# One network definition


@pytest.mark.parametrize(
    ("space", "norms"),
    [(NB201, None), (DARTS, None), (EDGES, None), (ECONAS, None)]
    + [(space, norms) for space in (NB201, DARTS) for norms in (Norms(), Norms(statistics="batch"))],
)
def test_a_one_hot_mixture_is_the_stand_alone_network_forward_and_backward(space, norms):
    arch, x = drawn(space), images()
    supernet = made(space, norms).train()
    alone = supernet.standalone(arch)
    weights = supernet.one_hot(arch)
    expected, theirs = alone(x), gradients(alone, x)
    for mix in (lambda: supernet.mix(weights), lambda: supernet.path(arch)):
        close(mix()(x), expected)
        ours = names(gradients(supernet, x))
        assert theirs.keys() <= ours.keys()
        same_tensors(ours, theirs)
        for name in ours.keys() - theirs.keys():
            assert not ours[name].any()


@every_skeleton
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_so_it_is_outside_training(space, statistics):
    arch = drawn(space, 1)
    supernet = made(space, Norms(affine=False, statistics=statistics)).train()
    supernet.mix(torch.rand(supernet.shape))
    for seed in range(3):
        supernet(images(seed=seed))
    supernet.eval()
    alone, x = supernet.standalone(arch), images(seed=9)
    assert not alone.training
    close(supernet.path(arch)(x), alone(x))
    close(supernet.mix(supernet.one_hot(arch))(x), alone(x))


@every_space
def test_under_one_seed_the_networks_of_build_are_in_it(space):
    supernet = made(space, Norms()).float()
    everything = names(supernet.state_dict())
    for seed in range(2):
        arch = drawn(space, seed)
        network = build(space, arch, TINY[space.name], ends=Ends(3, 5), seed=3)
        state = network.state_dict()
        assert state.keys() <= everything.keys()
        assert all(torch.equal(everything[name], tensor) for name, tensor in state.items())
        assert inherit(network, everything) == list(state)


@pytest.mark.parametrize(
    ("space", "proxy"),
    [
        (NB201, Proxy(1, 3, 12, cells=2)),
        (NB201, Proxy(1, 16, 4, cells=1)),
        (NB201, Proxy(1, 1, 8)),
        (DARTS, Proxy(1, 3, 4, cells=4)),
        (DARTS, Proxy(1, 5, 12, cells=3)),
        (DARTS, Proxy(1, 1, 8, cells=6)),
        (EDGES, Proxy(1, 2, 16, cells=3)),
        (ECONAS, Proxy(1, 2, 4, cells=4)),
    ],
    ids=str,
)
def test_there_are_supernets_under_every_proxy(space, proxy):
    supernet, arch = made(space, proxy=proxy), drawn(space)
    x = images(proxy.resolution, n=3)
    close(supernet.path(arch)(x), supernet.standalone(arch)(x))
    mixed = supernet.mix(torch.rand(supernet.shape))(x)
    assert mixed.shape == (3, 5)
    assert mixed.isfinite().all()


def test_the_search_network_of_darts_has_its_published_size():
    supernet = Supernet(DARTS, Proxy(50, 16, 32, cells=8), ends=Ends(3, 10), seed=0)
    assert sum(weight.numel() for weight in supernet.parameters()) == 1_930_618  # the authors' log: 1.930618MB
    pools = [module for name, module in supernet.named_modules() if name.endswith("pool_3x3")]
    assert len(pools) == 8 * 14 * 2
    assert all(isinstance(pool[1], nn.BatchNorm2d) and not pool[1].affine for pool in pools)
    affine = {name.split(".")[1] for name, m in supernet.named_modules() if isinstance(m, nn.BatchNorm2d) and m.affine}
    assert affine == {"stem_norm"}


# Weights


def test_an_edge_is_the_weighted_sum_of_its_operations_on_the_simplex_or_off_it():
    edge = MixedEdge({"a": nn.Conv2d(2, 2, 1), "b": nn.Identity(), "c": nn.AvgPool2d(1)})
    x = torch.rand(1, 2, 3, 3)
    weights = torch.tensor([-0.3, 1.7, 0.0])
    torch.testing.assert_close(edge(x, (weights, (0, 1, 2))), -0.3 * edge["a"](x) + 1.7 * x)
    torch.testing.assert_close(edge(x, (weights, (0,))), -0.3 * edge["a"](x))
    assert edge(x, (weights, ())) is None


@every_skeleton
def test_gradients_of_the_weights_are_the_differences(space):
    supernet = made(space, Norms(statistics="batch")).double().train()
    x = images().double()
    weights = torch.rand(supernet.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = (weights - 0.2).requires_grad_()
    (gradient,) = torch.autograd.grad(supernet.mix(weights)(x).square().sum(), weights)
    step = 1e-6
    with torch.no_grad():
        for row, option in [(0, 2), (1, 3), (supernet.shape[0] - 1, supernet.shape[1] - 1)]:
            moved = []
            for sign in (1, -1):
                other = weights.clone()
                other[row, option] += sign * step
                moved.append(supernet.mix(other)(x).square().sum())
            difference = (moved[0] - moved[1]) / (2 * step)
            torch.testing.assert_close(gradient[row, option], difference, rtol=1e-4, atol=1e-5)


@every_skeleton
def test_cells_can_have_weights_of_their_own(space):
    supernet, x = made(space).train(), images()
    weights = torch.rand(supernet.shape)
    together = supernet.mix(weights)(x)
    assert torch.equal(supernet.mix(weights.expand(supernet.cells, -1, -1))(x), together)
    other = weights.repeat(supernet.cells, 1, 1)
    other[-1] += 1
    assert not torch.equal(supernet.mix(other)(x), together)


EVERYWHERE = {
    **{space: TINY[space.name] for space in (NB201, DARTS, EDGES, ECONAS)},
    SPACES["mnas"]: Proxy(1, 4, 8),
    SPACES["alexnet"]: Proxy(1, 2, 8),
    SPACES["condensenet"]: Proxy(1, 4, 8, cells=7),
}
ROUNDING = 1e4 * torch.finfo(torch.float64).eps
"""Relative, by norm: sums have fewer than 100 terms and follow one another through fewer than 100 layers."""


def apart(a, b):
    return float(((a - b).norm() / b.norm()).detach())


@pytest.mark.parametrize(
    ("space", "cells", "skips"),
    [(space, "own", space in (NB201, DARTS)) for space in EVERYWHERE]
    + [(space, "one", False) for space in (NB201, DARTS)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_mixtures_of_each_example_are_those_of_single_examples_forward_and_backward(space, cells, skips):
    supernet = made(space, proxy=EVERYWHERE[space]).double().train()
    supernet.network.skip_dead_edges = skips
    n, rng = 3, torch.Generator().manual_seed(0)
    supernet.mix(torch.rand(supernet.shape, dtype=torch.float64, generator=rng))
    for seed in range(2):
        supernet(images(seed=seed).double())  # running statistics of their own: then examples are independent
    supernet.eval()
    x = images(n=n).double()
    shape = (n, 1 if cells == "one" else supernet.cells, *supernet.shape)
    weights = torch.rand(shape, dtype=torch.float64, generator=rng).requires_grad_()
    mask = torch.rand(supernet.shape, generator=rng) < 0.8
    mask[:, 0] = True
    parameters = list(supernet.parameters())

    def found(outputs):
        slopes = torch.autograd.grad(outputs.square().sum(), [weights, *parameters], materialize_grads=True)
        return outputs.detach(), slopes[0], torch.cat([slope.flatten() for slope in slopes[1:]])

    together = found(supernet.mix(weights, mask)(x))
    own = weights if cells == "own" else weights.expand(-1, supernet.cells, -1, -1)
    alone = found(torch.cat([supernet.mix(own[i], mask)(x[i : i + 1]) for i in range(n)]))
    for ours, theirs in zip(together, alone, strict=True):
        assert apart(ours, theirs) < ROUNDING
    assert apart(together[0], supernet.mix(own[0], mask)(x).detach()) > 1e-3  # the mixtures matter


@every_skeleton
def test_equal_mixtures_of_each_example_are_one_mixture_while_training(space):
    supernet, x = made(space).double().train(), images().double()
    weights = torch.rand(supernet.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert apart(supernet.mix(weights.expand(6, 1, -1, -1))(x), supernet.mix(weights)(x)) < ROUNDING


def test_as_many_mixtures_as_cells_are_not_taken_for_mixtures_of_each_example():
    supernet = made(NB201)
    weights = torch.rand(3, 6, 5)  # three cells: shape (n, rows, options) would be ambiguous
    assert supernet.mix(weights).mixture.weights.dim() == 3
    with pytest.raises(
        BadInput, match=r"\(n, 3 or 1, 6, 5\) with a mixture for each of n examples, not \(4, 2, 6, 5\)"
    ):
        supernet.mix(torch.rand(4, 2, 6, 5))
    with pytest.raises(BadInput, match="4 mixtures, one an example, do not fit 6 images"):
        supernet.mix(torch.rand(4, 1, 6, 5))(images())


@every_skeleton
def test_masked_options_are_neither_computed_nor_counted(space):
    supernet, x = made(space).train(), images()
    mask = np.random.default_rng(0).random(supernet.shape) < 0.5
    mask[:, -1] = True
    weights = torch.rand(supernet.shape)
    masked = supernet.mix(weights, mask)(x)
    torch.testing.assert_close(masked, supernet.mix(weights * torch.from_numpy(mask))(x))
    computed = watched(supernet)
    supernet.mix(weights, mask)(x)
    assert len(computed) == sum(mask[group].sum() * count for group, count in cell_counts(supernet))


@every_skeleton
def test_a_path_computes_only_what_its_network_has(space):
    supernet, arch = made(space).train(), drawn(space)
    computed = watched(supernet)
    supernet.path(arch)(images())
    chosen = list(supernet.kind.chosen(arch))
    assert len(computed) == sum(
        count * sum(group.start <= row < group.stop for row, _ in chosen) for group, count in cell_counts(supernet)
    )
    assert set(computed) <= set(supernet.options)


def watched(supernet):
    """The names of operations of edges, as they are computed."""
    computed = []
    for edge in supernet.modules():
        if isinstance(edge, MixedEdge):
            for name, operation in edge.items():
                operation.register_forward_hook(lambda module, inputs, output, name=name: computed.append(name))
    return computed


def cell_counts(supernet):
    """(rows, cells that have them)"""
    if "cell" in supernet.groups:
        return [(supernet.groups["cell"], supernet.cells)]
    return [(supernet.groups["normal"], supernet.cells - 2), (supernet.groups["reduce"], 2)]


@every_skeleton
def test_where_nothing_arrives_there_are_zeros(space):
    supernet = made(space).train()
    nothing = np.zeros(supernet.shape, bool)
    logits = supernet.mix(torch.ones(supernet.shape), nothing)(images())
    assert torch.equal(logits[0], logits[1])
    assert supernet.computed_macs() == supernet.macs.skeleton


# Inheritance


def test_weights_go_over_by_name_between_kinds_of_norms():
    arch, x = drawn(NB201), images()
    supernet = made(NB201).train()
    trained = supernet.standalone(arch, Norms())  # with scales and shifts, which the supernet does not have
    close(trained(x), supernet.path(arch)(x))
    assert sum(weight.numel() for weight in trained.parameters()) == NB201.params(
        arch, TINY[NB201.name], ends=Ends(3, 5)
    )


def test_a_copy_of_another_name_or_shape_is_left():
    one = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = one[1].weight.clone()
    assert inherit(one, {"0.weight": torch.ones(3, 2), "1.weight": torch.ones(2, 3), "2.weight": torch.ones(1)}) == [
        "0.weight"
    ]
    assert torch.equal(one[0].weight, torch.ones(3, 2))
    assert torch.equal(one[1].weight, before)


def test_a_stand_alone_copy_does_not_share_memory():
    supernet, arch = made(DARTS).train(), drawn(DARTS)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    alone = supernet.standalone(arch)
    alone(images())
    with torch.no_grad():
        for weight in alone.parameters():
            weight.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())


# Statistics of norms


@every_skeleton
def test_batch_statistics_are_the_same_in_and_outside_training_and_leave_no_trace(space):
    supernet, x = made(space, Norms(affine=False, statistics="batch")), images()
    assert not any("running" in name for name in supernet.state_dict())
    supernet.path(drawn(space))
    assert torch.equal(supernet.train()(x), supernet.eval()(x))
    running = made(space, Norms(affine=False)).path(drawn(space))
    torch.testing.assert_close(running.train()(x), supernet(x))
    assert not torch.allclose(running.eval()(x), supernet(x))


# Architectures and costs


def test_weights_are_read_by_the_rule_of_each_space():
    for space in (NB201, DARTS, EDGES):
        arch, supernet = drawn(space), made(space)
        assert supernet.derive(supernet.one_hot(arch) + 0.1 * torch.rand(supernet.shape)) == arch
    with pytest.raises(Unsupported, match="no paper derives its cells"):
        made(ECONAS).derive(torch.rand(56, 8))


@every_space
def test_costs_add_up_over_edges(space):
    supernet = made(space)
    for metric in ("macs", "params"):
        table = getattr(supernet, metric)
        for seed in range(3):
            arch = drawn(space, seed)
            cost = getattr(space, metric)(arch, supernet.proxy, ends=Ends(3, 5))
            assert table.skeleton + (table.edges * supernet.one_hot(arch).long().numpy()).sum() == cost
    supernet.path(arch)
    assert supernet.computed_macs() == space.macs(arch, supernet.proxy, ends=Ends(3, 5))
    supernet.mix(torch.ones(supernet.shape))
    assert supernet.computed_macs() == supernet.macs.skeleton + supernet.macs.edges.sum()


def test_the_weights_of_darts_are_rows_of_edges_normal_cells_first():
    supernet = made(DARTS)
    assert supernet.shape == (28, 8)
    assert supernet.groups == {"normal": slice(0, 14), "reduce": slice(14, 28)}
    hot = supernet.one_hot(DARTS.parse(str(DARTS_V2)))
    assert hot.sum(dim=1).tolist()[:14] == [1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0]
    assert supernet.options[int(hot[11].argmax())] == "dil_conv_3x3"  # from 2 to 5


# What is refused, and chance


def test_what_cannot_be_is_refused():
    with pytest.raises(Unsupported, match="darts_econas: no supernet; there are some for nas_bench_201, darts,"):
        made(SPACES["darts_econas"], proxy=TINY["darts"])
    with pytest.raises(Unsupported, match="multiple of 4"):
        made(NB201, proxy=Proxy(1, 4, 6))
    supernet = made(NB201)
    with pytest.raises(BadInput, match=r"call mix\(weights\) or path\(arch\) first"):
        supernet(images())
    with pytest.raises(BadInput, match=r"weights have shape \(6, 5\) or \(3, 6, 5\), or .* not \(5, 6\)"):
        supernet.mix(torch.ones(5, 6))
    with pytest.raises(BadInput, match=r"a mask has shape \(6, 5\), not \(6,\)"):
        supernet.mix(torch.ones(6, 5), torch.ones(6, dtype=torch.bool))
    with pytest.raises(BadInput, match="6 decisions"):
        supernet.path((1, 2))
    with pytest.raises(BadInput, match="statistics must be one of running, batch, not 'none'"):
        Norms(statistics="none")


def test_the_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = made(DARTS)
    one.standalone(drawn(DARTS))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    two = made(DARTS)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = made(DARTS, seed=4)
    assert not torch.equal(one.network.stem.weight, other.network.stem.weight)


def test_norms_of_the_published_supernets():
    assert made(DARTS).norms == Norms(affine=False, pools=True)
    assert made(NB201).norms == Norms(affine=False)
    assert replace(Norms(), pools=True).inside(3, affine=False).affine is False
