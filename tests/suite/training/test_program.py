"""Networks as machine code: the same function, gradients and training as torch's, whatever the cell."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.numeric import flips, rounding, same_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.networks import build
from suite.spaces import SPACES
from suite.training.compiled.program import Program
from suite.training.device import threads
from suite.training.recipe import Recipe, resolve_for_supernet
from suite.types import BadInput, Ends, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
TINY = Proxy(epochs=4, channels=4, resolution=8, cells=1)
CELL = (3, 2, 1, 1, 4, 2)
COMPILED = Recipe(batch_size=128, step="compiled")
ODD_CELLS = [
    (0, 3, 3, 0, 2, 3),  # convolutions of nothing
    (3, 3, 3, 3, 3, 0),  # node 2 reaches nothing
    (3, 4, 1, 0, 0, 0),  # nothing reaches the output
    (1, 1, 1, 1, 1, 1),  # skips
    (4, 4, 4, 4, 4, 4),  # pools
    (1, 0, 0, 0, 1, 0),  # the output is the input
    (0, 4, 0, 0, 1, 0),  # nothing but zeros on the way
    (0, 0, 3, 0, 3, 4),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with threads(1):
        yield


@functools.cache
def digits():
    return load("digits")


def made(arch, proxy, seed=0):
    network = build(SPACE, arch, proxy, ends=Ends(3, 10), seed=seed, skip_dead_edges=True)
    return network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


def batch(n, side, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, side, side, generator=rng), torch.randint(10, (n,), generator=rng)


def lanes(images):
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def check_gradients(arch, proxy, n, smoothing=0.0):
    """Against torch in float64, by the length of the whole gradient: weights before a norm may have none but rounding.

    Where a ReLU's input is within rounding of 0, the gradient may also be that of the other side.
    """
    network, optimizer = made(arch, proxy)
    images, labels = batch(n, proxy.resolution)
    program = Program(network, side=proxy.resolution, channels=3, batch=n + 3)
    program.take(optimizer)
    loss, wrong = program.gradient(lanes(images), labels.numpy(), smoothing=smoothing)
    exact = made(arch, proxy)[0].double().train()

    def gradients_in_float64():
        twin = made(arch, proxy)[0].double().train()
        F.cross_entropy(twin(images.double()), labels, label_smoothing=smoothing).backward()
        return {name: weight.grad for name, weight in twin.named_parameters() if weight.grad is not None}

    logits = exact(images.double())
    truth = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    truth.backward()
    assert loss / n == pytest.approx(truth.item(), rel=1e-5)
    assert wrong == int((logits.argmax(1) != labels).sum())
    names = {id(weight): name for name, weight in network.named_parameters()}
    gradients = {name: weight.grad for name, weight in exact.named_parameters()}
    other_side = flips(gradients_in_float64)
    ours = {names[id(weight)]: program.G[at : at + weight.numel()] for weight, at in program.weights}
    for name, gradient in gradients.items():
        assert gradient is None or not gradient.any() or name in ours, name
    theirs = {name: 0.0 if gradients[name] is None else gradients[name].flatten().numpy() for name in ours}
    length = np.sqrt(sum(np.square(value).sum() for value in theirs.values()))
    for name, value in ours.items():
        difference = np.linalg.norm(value - theirs[name])
        assert difference <= rounding(torch.float32) * length + other_side, name
    for module, at in program.norms:
        size = module.num_features
        twin = dict(exact.named_modules())[{id(m): name for name, m in network.named_modules()}[id(module)]]
        assert program.R[at : at + size] == pytest.approx(twin.running_mean.numpy(), rel=1e-4, abs=1e-5)
        assert program.R[at + size : at + 2 * size] == pytest.approx(twin.running_var.numpy(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("arch", ODD_CELLS, ids=SPACE.text)
def test_gradients_of_odd_cells_are_torchs(arch):
    check_gradients(arch, TINY, n=21)


def test_no_place_is_used_twice_at_once():
    """Twelve pixels and four or eight channels: values as large as what instructions use for themselves."""
    for channels, n in ((4, 26), (8, 128)):
        check_gradients((0, 2, 4, 4, 1, 0), Proxy(1, channels, 12, cells=1), n)


@settings(max_examples=25)
@given(
    arch=st.tuples(*[st.integers(0, 4)] * 6), channels=st.sampled_from([3, 4, 6, 8, 16]),
    side=st.sampled_from([4, 8, 12]), cells=st.sampled_from([1, 2]), n=st.integers(2, 40),
    smoothing=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_gradients_are_torchs(arch, channels, side, cells, n, smoothing):
    check_gradients(arch, Proxy(1, channels, side, cells=cells), n, smoothing)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_steps_of_sgd_are_torchs(nesterov, clip):
    network, _ = made(CELL, TINY)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=nesterov, weight_decay=1e-2)
    program = Program(network, side=8, channels=3, batch=20)
    program.take(optimizer)
    twin = made(CELL, TINY)[0].double()
    theirs = torch.optim.SGD(twin.parameters(), 0.05, momentum=0.9, nesterov=nesterov, weight_decay=1e-2)
    twin.train()
    for step in range(4):
        images, labels = batch(20, 8, seed=step)
        program.step(
            lanes(images), labels.numpy(), rate=0.05, momentum=0.9, nesterov=nesterov, decay=1e-2, clip=clip,
            smoothing=0.0,
        )  # fmt: skip
        theirs.zero_grad()
        F.cross_entropy(twin(images.double()), labels).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
        theirs.step()
    program.give(optimizer, 4)
    same_tensors({name: x.float() for name, x in network.state_dict().items()}, twin.state_dict())
    ours = {name: optimizer.state[weight]["momentum_buffer"] for name, weight in network.named_parameters()}
    same_tensors(
        ours, {name: theirs.state[weight]["momentum_buffer"].float() for name, weight in twin.named_parameters()}
    )


def test_evaluation_is_torchs_by_the_running_statistics():
    network, optimizer = made(CELL, TINY)
    network.train()
    for step in range(3):
        network(batch(32, 8, seed=step)[0])
    program = Program(network, side=8, channels=3, batch=40)
    program.take(optimizer)
    images, labels = batch(37, 8, seed=9)
    loss, wrong = program.evaluate(lanes(images), labels.numpy())
    logits = network.eval()(images)
    assert loss == pytest.approx(F.cross_entropy(logits, labels, reduction="sum").item(), rel=1e-5)
    assert wrong == int((logits.argmax(1) != labels).sum())


def test_what_is_not_a_number_stays_so():
    network, optimizer = made(CELL, TINY)
    program = Program(network, side=8, channels=3, batch=16)
    program.take(optimizer)
    images, labels = batch(16, 8)
    images[3, 1, 2, 2] = torch.nan
    assert np.isnan(program.gradient(lanes(images), labels.numpy())[0])


def answers(trials, recipe=COMPILED, **options):
    return LiveEvaluator(SPACE, digits(), recipe=recipe, device="cpu", **options).evaluate(trials)


def test_a_training_follows_torchs():
    whole = Trial(CELL, TINY)
    (ours,), (theirs,) = answers([whole]), answers([whole], Recipe(batch_size=128))
    first, other = ours.curve[0], theirs.curve[0]
    assert first["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
    assert ours.metrics["val_error"] == pytest.approx(theirs.metrics["val_error"], abs=5)
    assert ours.cost.macs == theirs.cost.macs


def test_stages_and_company_change_no_bit():
    half, whole = Trial(CELL, TINY, epochs=2), Trial(CELL, TINY)
    (alone,) = answers([whole], view="judge")
    assert answers([half, whole], view="judge")[1].metrics == alone.metrics
    others = [Trial(arch, TINY) for arch in ODD_CELLS[:3]]
    beside = answers([*others, whole], view="judge", workers=2)
    assert beside[-1].metrics == alone.metrics
    assert [entry["val_loss"] for entry in beside[-1].curve] == [entry["val_loss"] for entry in alone.curve]


def test_code_just_compiled_and_code_from_the_cache_compute_the_same_bits(tmp_path):
    training = """
import sys
sys.path[:0] = sys.argv[1:]
from test_program import CELL, TINY, Program, batch, lanes, made
network, optimizer = made(CELL, TINY)
program = Program(network, side=8, channels=3, batch=20)
program.take(optimizer)
for step in range(3):
    images, labels = batch(20, 8, seed=step)
    program.step(
        lanes(images), labels.numpy(), rate=0.1, momentum=0.9, nesterov=True, decay=1e-3, clip=1.0, smoothing=0.1
    )
print(program.P.tobytes().hex(), program.R.tobytes().hex())
"""
    words = [sys.executable, "-c", training, str(Path(__file__).parent), str(Path(__file__).parents[2])]
    here = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    cold, warm = (subprocess.run(words, env=here, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert any(tmp_path.rglob("kernels.execute*.nbc"))
    assert len(cold) > 1000
    assert cold == warm


def test_a_diverging_training_is_the_networks_failure():
    (answer,) = answers([Trial(CELL, TINY)], Recipe(batch_size=128, lr=1e9, step="compiled"))
    assert "diverged" in answer.failure
    assert answer.metrics["val_error"] == np.inf


def test_refusals_name_what_would_work():
    with pytest.raises(BadInput, match="torch, compiled"):
        Recipe(step="fast")
    with pytest.raises(BadInput, match="float32"):
        Recipe(step="compiled", precision="bfloat16")
    with pytest.raises(Unsupported, match=r'nas_bench_201 only.*set step = "torch"'):
        LiveEvaluator(SPACES["darts"], digits(), recipe=COMPILED, device="cpu", full=Proxy(1, 4, 8, cells=3))
    with pytest.raises(Unsupported, match="one thread"):
        LiveEvaluator(SPACE, digits(), recipe=COMPILED, device="cpu", threads=2, full=TINY)
    with pytest.raises(Unsupported, match="no supernets"):
        resolve_for_supernet({"base": "darts_search", "step": "compiled"})


def test_every_operand_of_an_instruction_fits_its_row():
    program = Program(made(CELL, TINY)[0], side=8, channels=3, batch=16)
    assert program.training.shape[1] == 19
    assert set(program.training[:, 0]) <= set(range(14))
