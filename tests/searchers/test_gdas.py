"""GDAS: hard samples, what they compute, where the gradient goes, the temperature."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from searchers.darts import DARTS
from searchers.gdas import GDAS
from suite.networks.learner import Batch, Learner
from suite.networks.supernet import Supernet
from suite.spaces import SPACES
from suite.training.device import threads
from suite.types import BadInput, Ends, GradientSearch, Proxy

NB201 = SPACES["nas_bench_201"]
TINY = Proxy(5, 4, 8, 0.2, 1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


def begun(method=GDAS, **options):
    supernet = Supernet(NB201, TINY, ends=Ends(3, 5), seed=3).train()
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9)
    search = method(NB201, TINY, np.random.default_rng(0), **options)
    search.begin(Learner(supernet, optimizer, seed=3), epochs=5)
    return search


def batch(seed: int) -> Batch:
    return Batch(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(8) % 5)


def test_a_draw_is_the_network_of_its_operations():
    search = begun()
    drawn, mask = search.sample("weights")
    assert torch.equal(drawn.detach(), mask.float())
    arch = tuple(mask.int().argmax(1).tolist())
    supernet, x = search.learner.supernet, batch(0).inputs
    alone = supernet.standalone(arch)
    torch.testing.assert_close(supernet.mix(drawn, mask)(x), alone(x))
    assert supernet.computed_macs() == NB201.macs(arch, TINY, ends=Ends(3, 5))


def test_operations_are_drawn_by_the_softmax_of_the_logits_at_any_temperature():
    search = begun()
    with torch.no_grad():
        search.logits.copy_(torch.tensor([1.0, 0.0, 0.5, -1.0, 0.2]).expand(6, 5))
    expected = search.mixture()[0].detach()
    for epoch in (0, 4):
        search.epoch(epoch)
        found: Counter[int] = Counter()
        for number in range(400):
            search.learner.number = number
            found.update(search.sample("weights")[1].int().argmax(1).tolist())
        shares = torch.tensor([found[option] / 2400 for option in range(5)])
        torch.testing.assert_close(shares, expected, rtol=0, atol=0.04)


def test_draws_of_a_step_are_its_own_and_come_again():
    search = begun()

    def draws():
        return [search.sample(name)[1].int().argmax(1).tolist() for name in ("weights", "logits")]

    first = draws()
    assert first == draws()
    assert first[0] != first[1]
    search.learner.number = 1
    assert first != draws()


def test_the_gradient_goes_through_the_drawn_operation_to_all_logits_of_its_edge():
    """dL/dalpha = J' g, J the softmax's, g non-zero for the drawn operation alone."""
    search = begun(tau_max=2.0)
    gradient = search.gradient(batch(2))
    drawn, mask = search.sample("logits")
    weights = drawn.detach().requires_grad_()
    passed = search.learner.forward(batch(2), weights, mask)
    (direct,) = search.learner.gradients(passed, [weights])
    assert not direct[~mask].any()
    noise = -torch.empty(6, 5).exponential_(generator=search.learner.chance("logits")).log()
    soft = ((search.logits.detach().log_softmax(1) + noise) / 2.0).softmax(1)
    expected = soft * (direct - (direct * soft).sum(1, keepdim=True)) / 2.0
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    assert gradient.sum(1).abs().max() < 1e-6


def test_operations_that_were_not_drawn_stay_as_they_are():
    search = begun(alpha={"warmup_epochs": 1})
    before = {name: tensor.clone() for name, tensor in search.learner.supernet.state_dict().items()}
    _, mask = search.sample("weights")
    search.step(batch(1), lambda: pytest.fail("the logits rest"))
    after = search.learner.supernet.state_dict()
    names = search.learner.supernet.options
    off = [f"edge{row}.{names[option]}." for row in range(6) for option in range(5) if not mask[row, option]]
    assert all(torch.equal(after[name], before[name]) for name in after if any(place in name for place in off))
    assert not torch.equal(after["network.stem.weight"], before["network.stem.weight"])


def test_a_step_costs_about_as_much_as_one_of_a_single_network():
    macs = {}
    for method in (GDAS, DARTS):
        search = begun(method)
        search.learner.macs = 0.0
        search.step(batch(1), lambda: batch(2))
        macs[method] = search.learner.macs
    assert macs[GDAS] < macs[DARTS] / 2


def test_the_temperature_falls_linearly():
    search = begun()
    taus = []
    for epoch in range(5):
        search.epoch(epoch)
        taus.append(search.log()["tau"])
    assert taus == pytest.approx([10.0, 7.525, 5.05, 2.575, 0.1])


@pytest.mark.parametrize("alpha_first", [True, False])
def test_either_level_goes_first(alpha_first, monkeypatch):
    search, order = begun(alpha_first=alpha_first), []
    monkeypatch.setattr(search, "move", lambda gradient: order.append("alpha"))
    monkeypatch.setattr(search.learner, "descend", lambda *_: (order.append("w"), ()))
    search.step(batch(1), lambda: batch(2))
    assert order == (["alpha", "w"] if alpha_first else ["w", "alpha"])


def test_what_is_scored_is_the_cell_that_would_be_handed_over():
    search = begun()
    assert isinstance(search, GradientSearch)
    assert tuple(search.weights().argmax(1).tolist()) == search.derive()
    assert search.weights().sum() == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tau_min": 0}, "gdas: tau_min must be a number above 0, not 0"),
        ({"tau_min": 20.0}, "gdas: tau_min must be at most tau_max = 10, not 20"),
        ({"alpha": {"scale": -1.0}}, "gdas: alpha.scale must be a number of at least 0, not -1"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(BadInput, match=says):
        begun(**options)
