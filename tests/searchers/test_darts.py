"""DARTS: the checkable properties of its paper, numbered as there, its two orders, its options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from searchers.darts import DARTS
from suite.data.images import load
from suite.networks.learner import Batch, Learner, Pass
from suite.networks.supernet import Supernet
from suite.spaces import SPACES
from suite.spaces.darts import DARTS_V1, DARTS_V2, EDGES, OPERATIONS, Genotype
from suite.tasks.images import halves
from suite.training.device import threads
from suite.training.gradient_loop import epochs
from suite.types import BadInput, Ends, GradientSearch, Proxy

NB201, CELLS = SPACES["nas_bench_201"], SPACES["darts"]
TINY = {NB201.name: Proxy(2, 4, 8, 0.2, 1), CELLS.name: Proxy(2, 2, 8, 0.06, 3)}
IMAGES = Path(__file__).parents[3] / "shared" / "data" / "images"
every_space = pytest.mark.parametrize("space", [NB201, CELLS], ids=lambda space: space.name)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def searcher(space=NB201, **options) -> DARTS:
    return DARTS(space, TINY[space.name], np.random.default_rng(0), **options)


def begun(space=NB201, *, seed: int = 3, lr: float = 0.1, double: bool = False, **options) -> DARTS:
    """A search before its first step, on a supernet whose weights have momentum."""
    supernet = Supernet(space, TINY[space.name], ends=Ends(3, 5), seed=seed)
    supernet = (supernet.double() if double else supernet).train()
    optimizer = torch.optim.SGD(supernet.parameters(), lr=lr, momentum=0.9, weight_decay=3e-4)
    search = searcher(space, **options)
    search.begin(Learner(supernet, optimizer, seed=seed, grad_clip=5.0), epochs=2)
    if double:
        search.logits = search.logits.detach().double().requires_grad_()
    search.learner.descend(batch(9, double), search.weights())
    return search


def batch(seed: int, double: bool = False) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(8, 3, 8, 8, generator=rng)
    return Batch(drawn.double() if double else drawn, torch.arange(8) % 5)


def network(search: DARTS) -> dict[str, Tensor]:
    """Weights and running statistics as they are."""
    return {name: tensor.clone() for name, tensor in search.learner.supernet.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The paper's properties


@every_space
def test_1_rows_sum_to_one_and_a_one_hot_mixture_is_the_stand_alone_network(space):
    search = begun(space, alpha={"scale": 2.0})
    torch.testing.assert_close(search.weights().sum(1), torch.ones(len(search.weights())))
    supernet = search.learner.supernet.eval()
    arch = space.sample(np.random.default_rng(0))
    alone = supernet.standalone(arch)
    torch.testing.assert_close(supernet.mix(supernet.one_hot(arch))(batch(0).inputs), alone(batch(0).inputs))


def test_2_without_a_virtual_step_second_order_is_first_order():
    search = begun(order=2, xi=0.0)
    first = search.first_order(batch(2))
    assert torch.equal(search.gradient(batch(1), batch(2)), first)
    search.xi = None
    assert not torch.allclose(search.gradient(batch(1), batch(2)), first, rtol=1e-3)


class Quadratic(Learner):
    """Losses that are quadratic in w: L_train = |A w - B s - x|^2 / 2, L_val = |w - s' C|^2 / 2, s the mixture."""

    def __init__(self, supernet: Supernet, curved: float) -> None:
        rng = torch.Generator().manual_seed(0)
        self.curved = curved
        self.toy = nn.Module()
        self.toy.w = nn.Parameter(torch.randn(4, generator=rng, dtype=torch.float64))
        optimizer = torch.optim.SGD(self.toy.parameters(), lr=0.3, momentum=0.9, weight_decay=3e-4)
        super().__init__(supernet, optimizer, seed=0)
        self.parameters = [self.toy.w]
        self.optimizer.state[self.toy.w]["momentum_buffer"] = torch.randn(4, generator=rng, dtype=torch.float64)
        self.a = torch.randn(4, 4, generator=rng, dtype=torch.float64)
        self.b, self.c = torch.randn(2, 4, 30, generator=rng, dtype=torch.float64)

    def train_loss(self, w: Tensor, s: Tensor) -> Tensor:
        residual = self.a @ w - self.b @ s.flatten()
        return residual.square().sum() / 2 + self.curved * (w.pow(3) * (self.b @ s.flatten())).sum()

    def held_loss(self, w: Tensor, s: Tensor) -> Tensor:
        return (w - self.c @ s.flatten()).square().sum() / 2

    def forward(self, batch, mixture=None, mask=None) -> Pass:
        loss = self.train_loss if batch == "train" else self.held_loss
        return Pass(loss(self.toy.w, mixture), torch.empty(0), torch.empty(0), 1.0)


@pytest.mark.parametrize("curved", [0.0, 0.3], ids=["quadratic", "cubic"])
def test_3_the_second_order_gradient_is_that_through_one_step(curved):
    search = begun(order=2, alpha={"scale": 1.0}, double=True)
    toy = search.learner = Quadratic(search.learner.supernet, curved)
    gradient = search.gradient("train", "held")

    w, s = toy.toy.w.detach(), search.logits.softmax(dim=1)
    through = w.clone().requires_grad_()
    (of_w,) = torch.autograd.grad(toy.train_loss(through, s), through, create_graph=True)
    buffer = toy.momentum_buffers()[0]
    virtual = w - 0.3 * (0.9 * buffer + of_w + 3e-4 * w)
    (exact,) = torch.autograd.grad(toy.held_loss(virtual, s), search.logits)
    assert (gradient - exact).norm() / exact.norm() < 0.01
    if not curved:
        torch.testing.assert_close(gradient, exact, rtol=1e-6, atol=1e-9)
    first = begun(alpha={"scale": 1.0}, double=True)
    first.learner = toy
    assert (first.gradient("train", "held") - exact).norm() / exact.norm() > 0.1


def through_a_step(search: DARTS, train: Batch, held: Batch) -> Tensor:
    """The second-order gradient without differences: backward through the step of the weights."""
    learner, cross_entropy = search.learner, nn.functional.cross_entropy
    supernet, weights = learner.supernet, dict(learner.supernet.named_parameters())
    with learner.still():
        supernet.mix(search.mixture())
        loss = cross_entropy(torch.func.functional_call(supernet, weights, (train.inputs,)), train.targets)
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
        moved = {
            name: weight - learner.lr * (learner.momentum * buffer + slope + learner.weight_decay * weight)
            for (name, weight), buffer, slope in zip(weights.items(), learner.momentum_buffers(), slopes, strict=True)
        }
        loss = cross_entropy(torch.func.functional_call(supernet, moved, (held.inputs,)), held.targets)
    return torch.autograd.grad(loss, search.logits)[0]


def test_3_so_it_is_on_a_supernet_where_the_difference_crosses_no_kink():
    search = begun(order=2, double=True, lr=0.05, epsilon=1e-7)
    exact = through_a_step(search, batch(1, True), batch(2, True))
    gradient = search.gradient(batch(1, True), batch(2, True))
    assert (gradient - exact).norm() / exact.norm() < 1e-4
    assert (search.first_order(batch(2, True)) - exact).norm() / exact.norm() > 0.1


@pytest.mark.parametrize("order", [1, 2])
def test_4_each_step_leaves_the_other_level_alone(order):
    search = begun(order=order)
    before, pointers = network(search), [weight.data_ptr() for weight in search.learner.parameters]
    buffers = [buffer.clone() for buffer in search.learner.momentum_buffers()]
    search.move(search.gradient(batch(1), batch(2)))
    assert equal(network(search), before)  # running statistics too
    assert [weight.data_ptr() for weight in search.learner.parameters] == pointers
    assert all(map(torch.equal, buffers, search.learner.momentum_buffers()))
    logits, moments = search.logits.clone(), search.optimizer.state[search.logits]["exp_avg"].clone()
    search.learner.descend(batch(1), search.weights())
    assert torch.equal(search.logits, logits)
    assert torch.equal(search.optimizer.state[search.logits]["exp_avg"], moments)
    assert not equal(network(search), before)


def test_4_the_weights_are_restored_whatever_happens():
    search = begun(order=2)
    before = network(search)
    moved = [weight + 1 for weight in search.learner.parameters]
    with pytest.raises(RuntimeError, match="in the middle"), search.learner.at(moved):
        raise RuntimeError("in the middle")
    assert equal(network(search), before)


def test_5_the_halves_are_disjoint_and_of_equal_size(digits):
    for places in (torch.arange(len(digits.train_labels)), torch.arange(3, 500, 2)):
        weights, logits = halves(digits.train_labels, places, seed=1)
        assert sorted([*weights.tolist(), *logits.tolist()]) == places.tolist()
        assert len(weights) - len(logits) == len(places) % 2
        counts = [torch.bincount(digits.train_labels[half], minlength=10) for half in (weights, logits)]
        assert (counts[0] - counts[1]).abs().max() <= 1
    assert not torch.equal(weights, halves(digits.train_labels, places, seed=2)[0])


def test_6_cells_of_darts_have_two_edges_a_node_and_never_none():
    search = begun(CELLS)
    for seed in range(20):
        with torch.no_grad():
            search.logits.copy_(torch.randn(28, 8, generator=torch.Generator().manual_seed(seed)))
            search.logits[:, 0] += 10.0 * (seed % 2)  # none is the strongest everywhere
        genotype = Genotype.read(CELLS.text(search.derive()))
        for kind, rows in search.learner.supernet.groups.items():
            chosen = genotype.edges(kind)
            assert [edge.end for edge in chosen] == [2, 2, 3, 3, 4, 4, 5, 5]
            assert "none" not in {edge.operation for edge in chosen}
            strength = search.logits.softmax(1)[rows, 1:]
            for end in range(2, 6):
                best = {EDGES.index((start, end)): strength[EDGES.index((start, end))].max() for start in range(end)}
                kept = {EDGES.index((edge.start, edge.end)) for edge in chosen if edge.end == end}
                assert kept == set(sorted(best, key=lambda row: -best[row])[:2])
            for edge in chosen:
                row = strength[EDGES.index((edge.start, edge.end))]
                assert edge.operation == OPERATIONS[1 + int(row.argmax())]


def test_6_cells_of_nas_bench_201_have_the_strongest_operation_none_too():
    search = begun()
    with torch.no_grad():
        search.logits.copy_(torch.eye(5)[[0, 1, 2, 3, 4, 0]])
    assert search.derive() == (0, 1, 2, 3, 4, 0)


def test_8_the_published_cells_have_their_size():
    full = Proxy(600, 36, 32, cells=20)
    assert (DARTS_V1.params(full), DARTS_V2.params(full)) == (3_169_414, 3_349_342)
    for genotype in (DARTS_V1, DARTS_V2):
        assert CELLS.params(CELLS.parse(str(genotype)), full) == pytest.approx(3.3e6, rel=0.05)


# What the two orders take, and the options


def test_what_the_orders_take_is_counted():
    search = begun()
    forward = 8 * search.learner.supernet.computed_macs()
    for order, passes in (
        (1, 2 + 3),  # logits: a forward pass and the gradient of the inputs; weights: with the gradient of the weights
        (2, 3 + 3 + 2 + 2 + 3),  # dL_train/dw, dL_val/d(alpha, w'), two gradients of alpha at w+-; then the weights
    ):
        search.order, search.learner.macs = order, 0.0
        search.step(batch(1), lambda: batch(2))
        assert search.learner.macs == passes * forward


@pytest.mark.parametrize("alpha_first", [True, False])
def test_either_level_goes_first(alpha_first, monkeypatch):
    search, order = begun(alpha_first=alpha_first), []
    monkeypatch.setattr(search, "move", lambda gradient: order.append("alpha"))
    monkeypatch.setattr(search.learner, "descend", lambda *_: (order.append("w"), ()))
    search.step(batch(1), lambda: batch(2))
    assert order == (["alpha", "w"] if alpha_first else ["w", "alpha"])


def test_logits_rest_in_the_warm_up():
    search = begun(alpha={"warmup_epochs": 1})
    logits = search.logits.clone()
    search.step(batch(1), lambda: pytest.fail("no images of the logits are needed"))
    assert torch.equal(search.logits, logits)
    search.epoch(1)
    search.step(batch(1), lambda: batch(2))
    assert not torch.equal(search.logits, logits)


def test_it_begins_as_the_authors_do():
    search = searcher()
    assert isinstance(search, GradientSearch)
    assert (search.bilevel, search.keep, search.order, search.alpha_first) == (True, "last", 1, True)
    search = begun(CELLS)
    assert search.logits.mean().item() == pytest.approx(0, abs=2e-4)
    assert search.logits.std().item() == pytest.approx(1e-3, rel=0.15)
    adam = search.optimizer.param_groups[0]
    assert (adam["lr"], adam["betas"], adam["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": 3}, "darts: order must be one of 1, 2, not 3"),
        ({"xi": -1.0}, "darts: xi must be a number of at least 0, not -1"),
        ({"alpha": {"lr": 0}}, "darts: alpha.lr must be a number above 0, not 0"),
        ({"alpha": {"betas": [0.5, 1.0]}}, r"darts: alpha.betas must be two numbers in \[0, 1\), not \[0.5, 1.0\]"),
        ({"statistics": "none"}, "darts: statistics must be one of running, batch, not 'none'"),
        ({"alpha_first": 1}, "darts: alpha_first must be true or false, not 1"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(BadInput, match=says):
        searcher(**options)


def test_it_is_imported_without_torch():
    code = "import sys, searchers.darts, searchers.gdas; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not (IMAGES / "cifar10").exists(), reason="needs CIFAR-10")
def test_7_skip_connections_gain_and_the_log_shows_it(tmp_path):
    """A scale for one core; what came out of it, and out of more seeds, is in docs/methods/darts.md."""
    data, proxy = load("cifar10", root=IMAGES, valid_fraction=0.04), Proxy(50, 4, 16, 0.1, 1)
    search = DARTS(NB201, proxy, np.random.default_rng(0), alpha_first=False)
    answers = list(epochs(search, data, proxy, recipe="nas_bench_201_search", checkpoints=tmp_path, device="cpu"))
    assert len(answers) == 50
    skips = [answer.curve[0]["skips"] for answer in answers]
    assert sum(skips[-5:]) > sum(skips[:5])
    for answer in answers:
        assert answer.curve[0]["skips"] == answer.trial.arch.count(1)
