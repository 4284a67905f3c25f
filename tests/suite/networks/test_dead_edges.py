"""Dead edges: what is left out changes nothing that is trained."""

import functools

import numpy as np
import pytest
import torch
from helpers.numeric import close, same_tensors
from torch import nn
from torch.nn import functional as F

from suite.networks import build
from suite.networks.supernet import Supernet
from suite.spaces import SPACES
from suite.spaces.darts import EDGES as PAIRS
from suite.spaces.darts import OPERATIONS, DARTSEcoNAS
from suite.training.device import threads
from suite.types import Ends, Proxy

NB201, DARTS, ECONAS, EDGES = (SPACES[name] for name in ("nas_bench_201", "darts", "darts_econas", "darts_edges"))
SKIP_ONLY = (1, 0, 0, 1, 0, 6, 2, 4, 0, 0, 1, 3, 3, 3, 1, 1, 1, 5, 0, 0, 1, 3, 2, 4, 1, 3, 2, 4, 0, 5, 3, 7)
"""Of ECONAS: a node that is an input handed on, beside a `none`, and is used by several."""
CASES = [
    *((NB201, NB201.sample(np.random.default_rng(seed)), Proxy(1, 4, 8, cells=1)) for seed in range(6)),
    (NB201, (0, 3, 3, 0, 2, 3), Proxy(1, 4, 8, cells=2)),  # convolutions of nothing
    (NB201, (3, 3, 3, 3, 3, 0), Proxy(1, 4, 8, cells=1)),  # node 2 reaches nothing
    (NB201, (3, 4, 1, 0, 0, 0), Proxy(1, 4, 8, cells=1)),  # nothing reaches the output
    (NB201, (3, 2, 1, 1, 4, 2), Proxy(1, 16, 16, cells=1)),
    (DARTS, DARTS.sample(np.random.default_rng(0)), Proxy(1, 2, 8, cells=4)),
    (ECONAS, SKIP_ONLY, Proxy(1, 2, 8, cells=4)),
    (ECONAS, (0,) * len(ECONAS.decisions), Proxy(1, 2, 8, cells=3)),
    (EDGES, EDGES.sample(np.random.default_rng(1)), Proxy(1, 2, 8, cells=3)),
]
every_case = pytest.mark.parametrize(
    ("space", "arch", "proxy"), CASES, ids=[f"{space.name}-{i}" for i, (space, *_) in enumerate(CASES)]
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


def images(step, side, n=6):
    drawn = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(step))
    return drawn.to(memory_format=torch.channels_last)


@functools.cache
def trained(space, arch, proxy, *, skip_dead_edges, steps=2):
    """Logits, gradients and states after some steps as a trainer takes them, and logits outside training."""
    network = build(space, arch, proxy, ends=Ends(3, 5), seed=1, skip_dead_edges=skip_dead_edges).train()
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    logits = []
    for step in range(steps):
        logits.append(network(images(step, proxy.resolution)))
        optimizer.zero_grad()
        F.cross_entropy(logits[-1], torch.arange(6) % 5).backward()
        optimizer.step()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    with torch.no_grad():
        logits.append(network.eval()(images(9, proxy.resolution)))
    return logits, gradients, network.state_dict(), optimizer.state_dict()["state"]


@every_case
def test_training_is_that_of_the_plain_network_bit_for_bit(space, arch, proxy):
    (plain, their, before, momentum), (lean, ours, after, own) = (
        trained(space, arch, proxy, skip_dead_edges=skips) for skips in (False, True)
    )
    assert all(torch.equal(one, other) for one, other in zip(plain, lean, strict=True))
    assert their.keys() == ours.keys()
    for (
        name,
        gradient,
    ) in their.items():  # none where there is none, zeros where there are zeros: weight decay sees them
        assert (gradient is None) == (ours[name] is None), name
        assert gradient is None or torch.equal(gradient, ours[name]), name
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in their)
    assert momentum.keys() == own.keys()
    assert all(torch.equal(momentum[key]["momentum_buffer"], own[key]["momentum_buffer"]) for key in own)


@every_case
def test_running_statistics_are_those_of_the_plain_network_wherever_something_reads_them(space, arch, proxy):
    plain, lean = (trained(space, arch, proxy, skip_dead_edges=skips) for skips in (False, True))
    for name, tensor in plain[2].items():
        if not torch.equal(tensor, lean[2][name]):
            scale = f"{name.rpartition('.')[0]}.weight"
            assert plain[1][scale] is None, name  # the output does not depend on this norm
            fresh = torch.zeros_like(tensor) if not name.endswith("var") else torch.ones_like(tensor)
            assert torch.equal(lean[2][name], fresh)


def test_only_what_reaches_the_output_is_computed():
    network = build(NB201, (3, 3, 3, 3, 3, 0), Proxy(1, 4, 8, cells=1), ends=Ends(3, 5), seed=0, skip_dead_edges=True)
    computed = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and "edge" in name:
            module.register_forward_hook(lambda *_, name=name: computed.append(name.split(".")[2]))
    network(images(0, 8))
    assert computed == ["edge0", "edge3", "edge4"] * 3


def test_convolutions_of_nothing_are_not_computed():
    network = build(NB201, (0, 3, 3, 0, 2, 0), Proxy(1, 4, 8, cells=1), ends=Ends(3, 5), seed=0, skip_dead_edges=True)
    computed = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and "edge" in name:
            module.register_forward_hook(lambda *_, name=name: computed.append(name))
    logits = network.train()(images(0, 8))
    assert not computed
    assert torch.equal(logits[0], logits[1])


def test_cells_of_darts_that_the_output_does_not_depend_on_are_left_out():
    """All nodes take what comes from two cells back: the cell before the last is for nothing."""
    zeros = (0,) * len(EDGES.decisions)
    skip = OPERATIONS.index("skip_connect")
    arch = tuple(skip if start == 0 else none for none, (start, _) in zip(zeros, [*PAIRS, *PAIRS], strict=True))
    network = build(EDGES, arch, Proxy(1, 2, 8, cells=4), ends=Ends(3, 5), seed=0, skip_dead_edges=True)
    computed = []
    for number, cell in enumerate(network.cells):
        cell.preprocess0.register_forward_hook(lambda *_, number=number: computed.append(number))
        cell.preprocess1.register_forward_hook(lambda *_: computed.append("last"))
    network(images(0, 8))
    assert computed == [1, 3]


@pytest.mark.parametrize("space", [NB201, DARTS, EDGES, DARTSEcoNAS("all")], ids=lambda space: space.name)
@pytest.mark.parametrize("masked", [False, True])
def test_a_lean_supernet_is_the_plain_one_to_rounding_of_its_gradients(space, masked):
    proxy = Proxy(1, 4, 8, cells=1) if space is NB201 else Proxy(1, 2, 8, cells=3)
    found = []
    for skips in (False, True):
        supernet = Supernet(space, proxy, ends=Ends(3, 5), seed=3).train()
        supernet.network.skip_dead_edges = skips
        rng = torch.Generator().manual_seed(0)
        weights = torch.rand(supernet.shape, generator=rng).softmax(1).requires_grad_()
        mask = torch.rand(supernet.shape, generator=rng) < 0.3 if masked else None
        logits = supernet.mix(weights, mask)(images(0, 8))
        F.cross_entropy(logits, torch.arange(6) % 5).backward()
        found.append((logits, weights.grad, {n: p.grad for n, p in supernet.named_parameters()}, supernet.state_dict()))
    (logits, mixing, gradients, state), (ours, own, mine, after) = found
    assert torch.equal(logits, ours)
    close(own, mixing)
    assert {name for name, gradient in gradients.items() if gradient is None} == {n for n in mine if mine[n] is None}
    same_tensors(mine, {name: gradient for name, gradient in gradients.items() if gradient is not None})
    if not masked:
        assert all(torch.equal(state[name], after[name]) for name in state)


@pytest.mark.parametrize("space", [NB201, DARTS], ids=lambda space: space.name)
def test_what_several_begin_with_is_computed_once(space):
    proxy = Proxy(1, 4, 8, cells=1) if space is NB201 else Proxy(1, 2, 8, cells=3)
    counts = []
    for skips in (False, True):
        supernet = Supernet(space, proxy, ends=Ends(3, 5), seed=3)
        supernet.network.skip_dead_edges = skips
        supernet.mix(torch.full(supernet.shape, 0.1))
        with torch.profiler.profile() as profile:
            supernet(images(0, 8))
        named = {event.key: event.count for event in profile.key_averages()}
        counts.append([named.get(f"aten::{name}", 0) for name in ("relu", "avg_pool2d", "max_pool2d")])
    if space is NB201:  # three cells, each of 6 edges from 3 states; 2 ReLUs an edge. Elsewhere: 4 and 1
        assert counts == [[3 * 12 + 4 + 1, 3 * 6 + 2, 0], [3 * 3 + 4 + 1, 3 * 3 + 2, 0]]
    else:  # each cell: 5 states with edges; the sep_convs' second halves
        assert counts[1][0] < counts[0][0] / 2
        assert (counts[0][1:], counts[1][1:]) == ([3 * 14] * 2, [3 * 5] * 2)
