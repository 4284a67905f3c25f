"""Single-DARTS: the checkable properties of its card, numbered as there, its options, its golden first steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from searchers.darts import DARTS
from searchers.parts.logits import Alpha
from searchers.single_darts import SingleDARTS
from suite.data.images import load
from suite.networks.learner import Batch, Learner
from suite.spaces import SPACES
from suite.training.device import threads
from suite.training.gradient_loop import epochs
from suite.training.supernet import SupernetTrainer
from suite.types import BadInput, Ends, GradientSearch, Proxy

NB201, CELLS = SPACES["nas_bench_201"], SPACES["darts"]
TINY = {NB201.name: Proxy(2, 4, 8, 0.2, 1), CELLS.name: Proxy(2, 2, 8, 0.06, 3)}
RECIPE = {"base": "darts_search", "batch_size": 32}
GOLDEN = Path(__file__).parents[1] / "golden" / "steps" / "single_darts.json"
every_space = pytest.mark.parametrize("space", [NB201, CELLS], ids=lambda space: space.name)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def double():
    """Everything that a test makes is in float64, so that what differs by rounding alone is equal to 1e-12."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def begun(method: type[Any] = SingleDARTS, space=NB201, **options) -> Any:
    """A search before its first step, on a supernet whose weights have momentum."""
    search = method(space, TINY[space.name], np.random.default_rng(0), **options)
    supernet = search.build(Ends(3, 5), 3).train()
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4)
    search.begin(Learner(supernet, optimizer, seed=3, grad_clip=5.0), epochs=2)
    search.learner.descend(batch(9), search.weights())
    return search


def batch(seed: int) -> Batch:
    return Batch(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(8) % 5)


def never() -> Batch:
    pytest.fail("the images of another level were asked for")


def everything(search: Any) -> list[Tensor]:
    """Logits, the moments of both optimizers, weights and running statistics."""
    moments = [
        value
        for optimizer in (search.optimizer, search.learner.optimizer)
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    tensors = [search.logits.detach(), *moments, *search.learner.supernet.state_dict().values()]
    return [tensor.clone() for tensor in tensors]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# The card's properties


@every_space
def test_1_a_step_is_one_forward_and_one_backward_pass_of_the_training_batch(space, monkeypatch):
    search = begun(space=space)
    forwards: list[Tensor] = []
    backwards: list[int] = []
    search.learner.supernet.register_forward_pre_hook(lambda _, inputs: forwards.append(inputs[0]))
    once = torch.autograd.grad

    def counted(*args, **kwargs):
        backwards.append(1)
        return once(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(Tensor, "backward", lambda *_, **__: backwards.append(1))
    search.learner.macs = 0.0
    train = batch(1)
    search.step(train, never)
    assert [x is train.inputs for x in forwards] == [True]
    assert backwards == [1]
    assert search.learner.macs == 3 * 8 * search.learner.supernet.computed_macs()


@pytest.mark.parametrize("data", ["full", "half"])
def test_1_the_images_of_another_level_are_never_made(data, digits, tmp_path, monkeypatch):
    search = SingleDARTS(NB201, Proxy(1, 4, 8, 0.2, 1), np.random.default_rng(0), data=data)
    seen = []

    def watched(train: Batch, held: Callable[[], Batch]) -> Any:
        seen.append(train.size)
        return SingleDARTS.step(search, train, never)

    monkeypatch.setattr(search, "step", watched)
    (answer,) = epochs(search, digits, search.proxy, recipe=RECIPE, checkpoints=tmp_path, device="cpu")
    assert not answer.failure
    images = round(0.2 * len(digits.train_labels))
    assert sum(seen) == pytest.approx(images if data == "full" else images / 2, abs=10)  # rounded class by class


@every_space
def test_2_the_gradient_of_alpha_is_first_order_darts_on_the_training_batch_before_the_weights_step(
    space, double, monkeypatch
):
    search, darts = begun(space=space), begun(DARTS, space)
    assert same(everything(search), everything(darts))
    expected = darts.first_order(batch(1))
    found: list[Tensor] = []
    monkeypatch.setattr(search, "move", found.append)
    search.step(batch(1), never)
    (gradient,) = found
    assert (gradient - expected).norm() <= 1e-10 * expected.norm()
    after = search.learner.gradients(search.learner.forward(batch(1), search.mixture()), [search.logits])[0]
    assert (gradient - after).norm() > 1e-4 * expected.norm()  # at the weights after the step it is another


@every_space
def test_3_the_order_of_the_two_optimizers_changes_no_bit(space, monkeypatch):
    first, second = begun(space=space), begun(space=space)
    for number in range(3):
        first.step(batch(number), never)
        real = second.learner.optimizer.step
        with monkeypatch.context() as patch:
            patch.setattr(second.learner.optimizer, "step", lambda: None)  # the weights wait
            second.step(batch(number), never)
        real()
    assert same(everything(first), everything(second))


def test_4_with_logits_that_do_not_move_the_weights_are_those_of_plain_training(digits, tmp_path):
    class Fixed(SingleDARTS):
        def begin(self, learner: Learner, epochs: int) -> None:
            super().begin(learner, epochs)
            self.optimizer.param_groups[0]["lr"] = 0.0

    proxy = TINY[NB201.name]
    search = Fixed(NB201, proxy, np.random.default_rng(0), alpha=Alpha(scale=1.0))
    list(epochs(search, digits, proxy, recipe=RECIPE, checkpoints=tmp_path / "search", seed=1, device="cpu"))
    trainer = SupernetTrainer(
        NB201, digits, recipe=RECIPE, device="cpu", weights=search.weights(), checkpoints=tmp_path / "plain",
        norms=search.learner.supernet.norms,
    )  # fmt: skip
    plain = trainer.train(proxy, seed=1).supernet.state_dict()
    learnt = search.learner.supernet.state_dict()
    assert learnt.keys() == plain.keys()
    assert all(torch.equal(learnt[name], plain[name]) for name in plain)


def test_5_weights_step_towards_their_own_batch_and_hardly_towards_another(double, digits):
    """p_o^2 <J_B' g_B, J_A' g_A> is the inner product of the gradients of the operation's weights on B and on A.

    More seeds and batches of 64 are in docs/methods/single_darts.md.
    """
    search = begun()
    names = [name for name, _ in search.learner.supernet.named_parameters()]
    places = [f"edge{edge}.{operation}." for edge in range(6) for operation in ("nor_conv_1x1", "nor_conv_3x3")]
    pixels = (digits.train_images.double() - digits.mean[0]) / digits.std[0]
    rng = torch.Generator().manual_seed(0)

    def drawn() -> Batch:
        chosen = torch.randint(len(pixels), (8,), generator=rng)
        return Batch(pixels[chosen].expand(-1, 3, -1, -1), digits.train_labels[chosen] % 5)

    def slopes(of: Batch) -> list[Tensor]:
        passed = search.learner.forward(of, search.mixture())
        found = list(zip(names, search.learner.gradients(passed, search.learner.parameters), strict=True))
        return [torch.cat([slope.flatten() for name, slope in found if place in name]) for place in places]

    same_batch, another = [], []
    for _ in range(10):
        a, b = drawn(), drawn()
        on_a, on_b = slopes(a), slopes(b)
        same_batch += [float(slope @ slope) for slope in on_a]
        another += [float(x @ y) for x, y in zip(on_a, on_b, strict=True)]
        search.step(a, never)
    assert min(same_batch) > 0
    assert abs(np.mean(another)) < 0.2 * np.mean(same_batch)
    assert min(another) < 0


@every_space
def test_7_at_equal_data_it_computes_at_most_0_65_of_first_order_darts(space):
    macs = {}
    for method in (SingleDARTS, DARTS):
        search = begun(method, space)
        search.learner.macs = 0.0
        for number in range(2):
            search.step(batch(number), lambda: batch(7))
        macs[method] = search.learner.macs
    assert macs[SingleDARTS] / macs[DARTS] == pytest.approx(3 / 5)  # 3 passes of one batch against 3 + 2 of two


# Options, and what a change must not move


def test_it_begins_like_darts_and_has_its_options():
    search = SingleDARTS(NB201, TINY[NB201.name], np.random.default_rng(0))
    assert isinstance(search, GradientSearch)
    assert (search.bilevel, search.keep, search.data) == (False, "last", "full")
    assert torch.equal(begun().logits, begun(DARTS).logits)
    with pytest.raises(BadInput, match="single_darts: data must be"):
        SingleDARTS(NB201, TINY[NB201.name], np.random.default_rng(0), data="all")


def test_logits_rest_in_the_warm_up():
    search = begun(alpha=Alpha(warmup_epochs=1))
    logits = search.logits.clone()
    search.step(batch(1), never)
    assert torch.equal(search.logits, logits)
    search.epoch(1)
    search.step(batch(1), never)
    assert not torch.equal(search.logits, logits)


def steps(space: Any) -> list[list[float]]:
    """The logits after each of three steps with a large rate."""
    search = begun(space=space, alpha=Alpha(lr=0.1))
    found = []
    for number in range(3):
        search.step(batch(number), never)
        found.append([round(value, 6) for value in search.logits.flatten().tolist()])
    return found


@every_space
def test_its_first_steps_are_the_golden_ones(space, double):
    golden = json.loads(GOLDEN.read_text())[space.name]
    for ours, kept in zip(steps(space), golden, strict=True):
        np.testing.assert_allclose(ours, kept, rtol=0, atol=2e-6)  # six decimals are kept


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    GOLDEN.write_text(json.dumps({space.name: steps(space) for space in (NB201, CELLS)}) + "\n")
