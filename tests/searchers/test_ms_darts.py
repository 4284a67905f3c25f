"""MS-DARTS: what its card says must hold, in the card's order, its variants and its departures."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from searchers.darts import DARTS
from searchers.ms_darts import MSDARTS, project, radius, shift
from suite.data.images import load
from suite.networks.learner import Batch, Learner
from suite.networks.supernet import Supernet
from suite.spaces import SPACES, SearchSpace
from suite.training.gradient_loop import epochs, recommendations
from suite.types import BadInput, Ends, GradientSearch, Proxy

NB201 = SPACES["nas_bench_201"]
IMAGES = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
TINY = Proxy(7, channels=4, resolution=8, samples=0.02, cells=1)
SHORT = Proxy(2, channels=4, resolution=8, samples=0.02, cells=1)
RECIPE = {"batch_size": 16, "lr": 0.025, "lr_min": 0.001, "grad_clip": 5.0}
GROUPS = (slice(0, 2), slice(2, 5))


def search(space: SearchSpace = NB201, proxy: Proxy = TINY, **options: Any) -> MSDARTS:
    return MSDARTS(space, proxy, np.random.default_rng(0), **options)


def trace(searcher: MSDARTS | DARTS, folder: Path, proxy: Proxy = TINY, seed: int = 0) -> tuple[Any, ...]:
    """All that a search says but its times and what only mean shift says; and its logits."""
    found = list(epochs(searcher, load("digits"), proxy, checkpoints=folder, recipe=RECIPE, seed=seed))
    apart = ("device_s", "eps", "effective_samples")
    said = [{name: value for name, value in one.curve[0].items() if name not in apart} for one in found]
    return [one.trial.arch for one in found], said, searcher.logits.detach().numpy().tobytes()


def begun(searcher: MSDARTS, seed: int = 0) -> MSDARTS:
    """A searcher before its first step, and what the loop would hand it."""
    supernet = Supernet(searcher.space, searcher.proxy, ends=Ends(1, 10), seed=seed)
    weights = torch.optim.SGD(supernet.parameters(), 0.025, momentum=0.9)
    searcher.begin(Learner(supernet, weights, seed=seed), searcher.proxy.epochs)
    searcher.epoch(0)
    return searcher


def batch(seed: int = 0, images: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(images, 1, 8, 8, generator=generator), torch.randint(0, 10, (images,), generator=generator)
    )


def start(seed: int = 0) -> Tensor:
    return torch.rand(5, 4, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def boxes(iterations: int, samples: int, size: float = 0.25, seed: int = 1) -> Tensor:
    drawn = torch.rand(iterations, samples, 5, 4, generator=torch.Generator().manual_seed(seed))
    return (2 * drawn - 1) * size


def shifted(box: Tensor, losses: Any, bandwidth: float = 1.0, sign: int = 1) -> tuple[Tensor, Tensor]:
    return shift(start(), box, losses, groups=GROUPS, bandwidths=[bandwidth] * 2, sign=sign)


def made_up(mixtures: Tensor) -> Tensor:
    return mixtures.square().sum((1, 2))


def flat(mixtures: Tensor) -> Tensor:
    return torch.ones(len(mixtures))


def test_1_without_a_shift_it_is_first_order_darts_with_a_warm_up_of_five_epochs(tmp_path):
    base = trace(DARTS(NB201, TINY, np.random.default_rng(0), alpha={"warmup_epochs": 5}), tmp_path / "base")
    assert trace(search(eps_max=0.0), tmp_path / "no box") == base
    assert trace(search(iterations=0), tmp_path / "no iteration") == base
    assert len(base[0]) == 7


def test_1_the_shift_changes_the_trace(tmp_path):
    still = trace(search(proxy=SHORT, eps_max=0.0), tmp_path / "still", SHORT)
    assert trace(search(proxy=SHORT), tmp_path / "shifting", SHORT) != still


def test_2_the_shift_and_the_weights_step_leave_alpha_and_its_optimiser_as_they_were():
    searcher = begun(search())
    searcher.epoch(5)
    searcher.step(batch(), lambda: batch(1))  # an alpha step, so that Adam has a state
    logits = searcher.logits.detach().clone()
    state = {name: value.clone() for name, value in searcher.optimizer.state[searcher.logits].items()}
    searcher.learner.descend(batch(), searcher.shifted(batch()))
    assert torch.equal(searcher.logits.detach(), logits)
    assert all(torch.equal(value, state[name]) for name, value in searcher.optimizer.state[searcher.logits].items())
    searcher.epoch(0)  # the warm-up has no alpha step at all
    searcher.step(batch(), lambda: batch(1))
    assert torch.equal(searcher.logits.detach(), logits)


@pytest.mark.parametrize("bandwidth", [0.01, 1.0, 100.0])
def test_3_one_sample_is_where_the_shift_ends(bandwidth):
    box = boxes(1, 1)
    point, effective = shifted(box, made_up, bandwidth)
    assert torch.equal(point, start() + box[0, 0])
    assert effective.tolist() == [[1.0, 1.0]]


def test_4_equal_losses_and_a_wide_kernel_give_the_plain_mean():
    box = boxes(1, 3)
    point, effective = shifted(box, flat, 1e6)
    assert point.numpy() == pytest.approx((start() + box[0]).mean(0).numpy(), abs=1e-6)
    assert effective.numpy() == pytest.approx(3.0)


def test_the_shift_is_the_cards_formula():
    """Kernel and loss weights as the card writes them, with the constants that cancel."""
    box, h = boxes(2, 3), 0.7
    a = start()
    for draws in box:
        samples = a + draws
        mixtures = project(samples)
        omega = made_up(mixtures).softmax(0)
        moved = a.clone()
        for rows in GROUPS:
            squared = (a[rows] - mixtures[:, rows]).square().sum((1, 2))
            kernel = torch.exp(-squared / (2 * h**2)) / (h * math.sqrt(2 * math.pi))
            weight = omega * kernel
            moved[rows] = (weight[:, None, None] * samples[:, rows]).sum(0) / weight.sum()
        a = moved
    assert shifted(box, made_up, h)[0].numpy() == pytest.approx(a.numpy(), abs=1e-6)


def test_the_sign_says_whether_a_high_loss_weighs_more():
    box = boxes(1, 3)
    mixtures = project(start() + box[0])
    worst = int(made_up(mixtures).argmax())

    def far(sign: int) -> float:
        point, _ = shifted(box, lambda m: 50 * made_up(m), 1e3, sign)
        return float((point - (start() + box[0, worst])).norm())

    assert far(1) < 0.1 < far(-1)


def test_no_iteration_and_no_box_leave_the_point_bit_for_bit():
    assert torch.equal(shifted(boxes(0, 3), made_up)[0], start())
    assert torch.equal(shifted(boxes(2, 3, size=0.0), made_up)[0], start())


def test_5_projected_rows_are_distributions_and_an_empty_row_is_one_hot():
    points = torch.tensor([[0.5, -0.2, 1.7], [-0.3, -0.1, -0.2], [0.2, 0.3, 0.5]])
    projected = project(points)
    assert (projected >= 0).all()
    assert projected.sum(-1).numpy() == pytest.approx([1, 1, 1])
    assert projected[0].numpy() == pytest.approx([1 / 3, 0, 2 / 3])
    assert projected[1].tolist() == [0, 1, 0]
    assert projected[2].numpy() == pytest.approx(points[2].numpy())


@pytest.mark.parametrize("epochs", [1, 5, 40, 100])
def test_7_the_box_grows_from_a_tenth_and_never_reaches_its_largest(epochs):
    sizes = [radius(epoch, epochs, 0.25) for epoch in range(epochs)]
    assert sizes[0] == 0.025
    assert all(a < b for a, b in itertools.pairwise(sizes))
    assert max(sizes) < 0.25


# The searcher


def test_5_a_mixture_off_the_simplex_is_kept_unless_asked_otherwise():
    faithful, projected = begun(search(iterations=1, samples=1)), begun(search(project_output=True))
    for searcher in (faithful, projected):
        searcher.epoch(6)
    assert float(faithful.shifted(batch()).min()) < 0
    rows = projected.shifted(batch())
    assert float(rows.min()) >= 0
    assert rows.sum(1).numpy() == pytest.approx(np.ones(6), abs=1e-6)


@pytest.mark.parametrize(("iterations", "samples"), [(0, 3), (1, 2), (2, 3)])
def test_6_the_meter_counts_t_times_n_forward_passes_more(iterations, samples):
    searcher = begun(search(iterations=iterations, samples=samples))
    searcher.step(batch(), lambda: batch(1))  # in the warm-up: forward, and backward as two
    forward = 16 * searcher.learner.supernet.computed_macs()
    assert searcher.learner.macs == (3 + iterations * samples) * forward
    searcher.epoch(5)
    searcher.learner.macs = 0.0
    searcher.step(batch(), lambda: batch(1))  # alpha too: forward, and backward as one
    assert searcher.learner.macs == (5 + iterations * samples) * forward


def test_6_they_have_no_graph_and_use_running_statistics_and_leave_them():
    searcher = begun(search())
    norms = [module for module in searcher.learner.supernet.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    point = searcher.shifted(batch())
    assert not point.requires_grad
    assert before
    assert all(torch.equal(a, norm.running_mean) for a, norm in zip(before, norms, strict=True))
    assert searcher.learner.supernet.training


@pytest.mark.parametrize(("space", "expected"), [("nas_bench_201", math.sqrt(30 / 112)), ("darts", 1.0)])
def test_the_kernel_keeps_the_spread_that_it_has_in_dartss_cells(space, expected):
    proxy = Proxy(2, 4, 8, cells=None if space == "nas_bench_201" else 3)
    searcher = begun(search(SPACES[space], proxy))
    assert searcher.bandwidths == pytest.approx([expected] * len(searcher.groups))


def test_it_is_a_gradient_search_that_logs_its_samples_and_hands_over_the_best_epoch(tmp_path):
    proxy = Proxy(3, channels=4, resolution=8, samples=0.02, cells=1)
    searcher = search(proxy=proxy, alpha={"warmup_epochs": 1})
    assert isinstance(searcher, GradientSearch)
    assert searcher.keep == "best"
    answers = list(epochs(searcher, load("digits"), proxy, checkpoints=tmp_path, recipe=RECIPE))
    errors = [answer.metrics["val_error"] for answer in answers]
    assert list(recommendations(answers, searcher.keep))[-1].best == answers[errors.index(min(errors))]
    assert all(1 <= answer.curve[0]["effective_samples"] <= 3 for answer in answers)
    assert [answer.curve[0]["eps"] for answer in answers] == [radius(epoch, 3, 0.25) for epoch in range(3)]


def test_a_search_that_goes_on_is_the_search_in_one_go(tmp_path):
    whole = trace(search(proxy=SHORT, alpha={"warmup_epochs": 1}), tmp_path / "whole", SHORT)
    next(
        epochs(
            search(proxy=SHORT, alpha={"warmup_epochs": 1}), load("digits"), SHORT, checkpoints=tmp_path, recipe=RECIPE
        )
    )
    assert trace(search(proxy=SHORT, alpha={"warmup_epochs": 1}), tmp_path, SHORT) == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_weight_sign": 0}, r"loss_weight_sign must be one of 1, -1, not 0"),
        ({"samples": 0}, r"samples must be a whole number of at least 1, not 0"),
        ({"bandwidth": 0.0}, r"bandwidth must be a number above 0, not 0"),
        ({"eps_max": -0.1}, r"eps_max must be a number of at least 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message):
    with pytest.raises(BadInput, match=message) as refusal:
        search(**options)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.xfail(
    strict=False, reason="the card's expectation; three seeds decide little, outcomes are in the method's page"
)
@pytest.mark.skipif(not IMAGES.exists(), reason="needs ../shared/data/images")
def test_8_the_final_cell_has_fewer_skips_than_dartss_with_the_same_budget_and_seeds(tmp_path, monkeypatch):
    """The search of results/nb201_snas_ms_darts, three seeds; 13 minutes of one core."""
    path = Path(__file__).parents[2] / "results" / "nb201_snas_ms_darts" / "compare.py"
    spec = importlib.util.spec_from_file_location("compare", path)
    assert spec is not None
    assert spec.loader is not None
    compare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compare)
    monkeypatch.setattr(compare, "HERE", tmp_path / "one")
    compare.HERE.mkdir()
    compare.search(IMAGES, ("darts", "ms_darts"))
    last = [(row["method"], row["skips"]) for row in compare.rows() if row["epoch"] == compare.EPOCHS]
    skips = {method: float(np.median([n for name, n in last if name == method])) for method in ("darts", "ms_darts")}
    print(f"median skips: {skips}")
    assert skips["ms_darts"] < skips["darts"]
