"""Zero-cost scores against independent answers, and their evaluator against the laws of evaluators."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suite.data.images import load
from suite.evaluators.recorded import Recorded
from suite.evaluators.zero_cost import ZeroCostEvaluator
from suite.networks import build
from suite.networks.batch import Batch, cross_entropy
from suite.records.log import Log
from suite.search import Budget, run
from suite.spaces import SPACES
from suite.statistics.measures import spearman
from suite.training import zero_cost
from suite.training.device import threads
from suite.types import BadInput, Ends, Evaluator, Goal, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
GOOD, OTHER, NONE = (3, 2, 1, 1, 4, 2), (1, 1, 2, 0, 3, 1), (0,) * 6
TINY = Proxy(epochs=1, channels=4, resolution=8, cells=1)
EVERY = [*zero_cost.SCORES, *zero_cost.BASELINES]
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def scored(digits):
    return lambda score, **options: ZeroCostEvaluator(SPACE, digits, score=score, device="cpu", **options)


def value(evaluator, arch=GOOD, proxy=TINY, seed=0):
    (answer,) = evaluator.evaluate([Trial(arch, proxy, seed=seed)])
    return answer.metrics["zero_cost"]


def minibatch(images=6, side=5):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(images, 3, side, side, generator=rng), torch.arange(images) % 4


def small(**options):
    """Convolution, ReLU, classifier, without norms."""
    parts = nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4, **options)
    network = nn.Sequential(*parts)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) / 5)
    return network


def normed(seed=0):
    return build(SPACE, GOOD, TINY, ends=Ends(3, 4), seed=seed)


# The scores


def test_synflow_of_each_layer_is_the_whole_flow():  # Tanaka et al., theorem 1: conserved from layer to layer
    network = small(bias=False)
    with torch.no_grad():
        convolution, classifier = network[0].weight.abs().double(), network[3].weight.abs().double()
        flow = F.linear(F.conv2d(torch.ones(1, 3, 5, 5).double(), convolution).flatten(1), classifier).sum()
    assert zero_cost.synflow(network, Batch(*minibatch()), cross_entropy) == pytest.approx(math.log(2 * flow))


def test_synflow_sees_no_images_and_no_signs():
    images, labels = minibatch(side=8)
    flipped = normed()
    with torch.no_grad():
        for parameter in flipped.parameters():
            parameter.neg_()
    assert zero_cost.synflow(normed(), Batch(images, labels), cross_entropy) == zero_cost.synflow(
        flipped, Batch(-3 * images, labels), cross_entropy
    )


def test_nwot_is_the_determinant_of_units_less_hamming_distances():
    images, labels = minibatch()
    network = small()
    codes = (network[0](images) > 0).flatten(1).numpy()
    hamming = (codes[:, None] != codes[None]).sum(-1)
    expected = np.linalg.slogdet((codes.shape[1] - hamming).astype(float))[1]
    assert zero_cost.nwot(network, Batch(images, labels), cross_entropy) == pytest.approx(expected)


def test_nwot_leaves_out_relus_that_the_output_does_not_depend_on():
    images, labels = minibatch(side=8)
    with_dead_edge, without = (3, 0, 0, 1, 0, 0), (0, 0, 0, 1, 0, 0)
    scores = [
        zero_cost.nwot(build(SPACE, arch, TINY, ends=Ends(3, 4), seed=0), Batch(images, labels), cross_entropy)
        for arch in (with_dead_edge, without)
    ]
    assert scores[0] == scores[1]


def test_jacov_is_that_of_the_first_version_of_the_paper():
    images, labels = minibatch()
    network = small()
    jacobians = []
    for image in images:
        image = image[None].clone().requires_grad_()
        network(image).sum().backward()
        jacobians.append(image.grad.flatten().numpy())
    eigenvalues = np.linalg.eig(np.corrcoef(jacobians))[0] + 1e-5
    expected = -np.sum(np.log(eigenvalues) + 1 / eigenvalues)
    assert zero_cost.jacov(network, Batch(images, labels), cross_entropy) == pytest.approx(expected, rel=1e-4)


def test_grad_norm_is_over_convolutions_and_classifier():
    images, labels = minibatch(side=8)
    network = normed().train()
    F.cross_entropy(network(images), labels).backward()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    expected = sum(0.0 if layer.weight.grad is None else float(layer.weight.grad.norm()) for layer in layers)
    assert zero_cost.grad_norm(normed(), Batch(images, labels), cross_entropy) == pytest.approx(expected, rel=1e-5)


def test_snip_is_the_gradient_in_masks_of_the_weights():
    images, labels = minibatch(side=8)
    network = normed().train()
    masked = {name: weight for name, weight in network.named_parameters() if weight.ndim > 1}
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in masked.items()}
    held = {name: masks[name] * weight.detach() for name, weight in masked.items()}
    F.cross_entropy(torch.func.functional_call(network, held, (images,)), labels).backward()
    expected = sum(float(mask.grad.abs().sum()) for mask in masks.values() if mask.grad is not None)
    assert zero_cost.snip(normed(), Batch(images, labels), cross_entropy) == pytest.approx(expected, rel=1e-5)


# The evaluator


@pytest.mark.parametrize("score", EVERY)
def test_the_same_trial_scores_the_same_and_no_global_chance_is_moved(scored, score):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = value(scored(score))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(6)
    assert value(scored(score)) == first


@pytest.mark.parametrize("score", EVERY)
def test_it_depends_on_the_seed_but_for_sizes(scored, score):
    same = score in ("params", "macs")
    assert (value(scored(score), seed=1) == value(scored(score), seed=0)) == same


@pytest.mark.parametrize("score", EVERY)
def test_a_cell_with_weights_beats_one_that_lets_everything_through(scored, score):
    if score == "random":
        assert -1 < value(scored(score)) <= 0
    else:
        assert value(scored(score), (3,) * 6) < value(scored(score), (1,) * 6)


@pytest.mark.parametrize("score", ["synflow", "nwot", "jacov"])
def test_a_cell_of_zeros_has_no_score_and_says_why(scored, score):
    (answer,) = scored(score).evaluate([Trial(NONE, TINY)])
    assert set(answer.metrics.values()) == {math.inf}
    assert answer.failure.startswith(f"{score} is ")
    assert "no path" in answer.failure


def test_gradients_of_a_cell_of_zeros_are_zero_and_so_are_their_scores(scored):
    assert value(scored("grad_norm"), NONE) == value(scored("snip"), NONE) == 0


def test_an_error_of_one_network_is_its_answer(scored, monkeypatch):
    def broken(network, images, labels):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setitem(zero_cost.SCORES, "nwot", broken)
    (answer,) = scored("nwot").evaluate([Trial(GOOD, TINY)])
    assert answer.metrics["zero_cost"] == math.inf
    assert answer.failure.startswith("out of memory on CPU")


def test_it_is_an_evaluator_without_any_error_or_test_metric(scored):
    evaluator = scored("nwot")
    (answer,) = evaluator.evaluate([Trial(GOOD, TINY)])
    assert isinstance(evaluator, Evaluator)
    assert (evaluator.name, evaluator.dataset, evaluator.stages(TINY)) == ("zero_cost:nwot", "digits", None)
    assert set(answer.metrics) == {"zero_cost", "params", "macs"}
    assert answer.metrics["params"] == SPACE.params(GOOD, TINY, ends=Ends(1, 10))
    assert answer.cost.device_s > 0
    assert answer.cost.device.startswith("CPU (")


@pytest.mark.parametrize(
    ("score", "forwards"),
    [("synflow", 3), ("nwot", 64), ("jacov", 128), ("grad_norm", 192), ("snip", 192), ("params", 0), ("random", 0)],
)
def test_its_price_is_counted_in_multiply_adds(scored, score, forwards):
    (answer,) = scored(score).evaluate([Trial(GOOD, TINY)])
    assert answer.cost.macs == forwards * answer.metrics["macs"]


def test_epochs_and_samples_make_no_difference_and_what_is_known_is_free(scored):
    evaluator = scored("jacov")
    longer = replace(TINY, epochs=9, samples=0.5)
    first, again = evaluator.evaluate([Trial(GOOD, TINY), Trial(GOOD, longer, epochs=4)])
    assert again.metrics == first.metrics
    assert again.trial.proxy == longer
    assert (again.cost.device_s, again.cost.macs) == (0, 0)


def test_channels_resolution_and_depth_make_a_difference(scored):
    evaluator = scored("nwot")
    proxies = TINY, replace(TINY, channels=8), replace(TINY, resolution=12), replace(TINY, cells=2)
    assert len({value(evaluator, proxy=proxy) for proxy in proxies}) == 4


def test_only_training_images_are_looked_at(digits, scored):
    blank = {f"{part}_images": torch.zeros_like(getattr(digits, f"{part}_images")) for part in ("valid", "test")}
    blind = ZeroCostEvaluator(SPACE, replace(digits, **blank), score="grad_norm", device="cpu")
    assert value(blind) == value(scored("grad_norm"))


class Listed:
    """Asks for these, one at a time."""

    def __init__(self, *archs):
        self.due = [Trial(arch, TINY) for arch in archs]

    def ask(self):
        return [self.due.pop(0)] if self.due else []

    def tell(self, evaluations):
        pass


def test_a_search_can_have_it_as_its_objective_and_goes_on_from_its_log(scored, tmp_path):
    def search(log):
        recorded = Recorded(scored("nwot"), log, dataset="digits", run="listed/0", phase="search")
        searcher = Listed((1,) * 6, (3,) * 6, NONE, OTHER)
        return list(run(searcher, recorded, budget=Budget(evaluations=4), goal=Goal(("zero_cost", "params"))))[-1]

    with Log(tmp_path / "trials.jsonl", SPACE) as log:
        first = search(log)
    with Log(tmp_path / "trials.jsonl", SPACE) as log:
        assert search(log) == first
    assert first.best.trial.arch == (3,) * 6
    assert {answer.trial.arch for answer in first.front} >= {(3,) * 6, (1,) * 6}


def test_wrong_input_is_refused_in_one_line(scored, digits):
    with pytest.raises(BadInput, match=r"did you mean 'synflow'\?"):
        scored("synflo")
    with pytest.raises(BadInput, match=r"batch_size must be a whole number in 2\.\.1082, not 1083"):
        scored("nwot", batch_size=1083)
    with pytest.raises(BadInput, match="threads"):
        scored("nwot", threads=0)
    with pytest.raises(Unsupported, match="no 'tpu' here"):
        ZeroCostEvaluator(SPACE, digits, score="nwot", device="tpu")
    evaluator = scored("nwot")
    with pytest.raises(Unsupported, match="multiple of 4"):
        evaluator.evaluate([Trial(GOOD, TINY), Trial(GOOD, replace(TINY, resolution=6))])
    assert not evaluator.known


@pytest.mark.gpu
@pytest.mark.parametrize("score", zero_cost.SCORES)
def test_a_gpu_gives_the_score_of_a_cpu(digits, scored, score):
    there = value(ZeroCostEvaluator(SPACE, digits, score=score, device="cuda"))
    assert there == pytest.approx(value(scored(score)), rel=1e-2)


# Against the published scores (NAS-Bench-Suite-Zero)

needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")


def agreement(score, proxy, number):
    """Spearman's rho of our scores and the published ones, on cells drawn at random."""
    published = pd.read_parquet(DATA / "nb201_zero_cost.parquet").set_index("arch_index")[f"c10_{score}"]
    names = pd.read_parquet(DATA / "nb201.parquet", columns=["arch_index", "arch_str"]).set_index("arch_index")
    chosen = np.random.default_rng(0).choice(published.index, number, replace=False)
    data = load("cifar10", root=DATA / "images")
    evaluator = ZeroCostEvaluator(SPACE, data, score=score, device="cpu")
    answers = evaluator.evaluate([Trial(SPACE.parse(names["arch_str"][place]), proxy) for place in chosen])
    return spearman([answer.metrics["zero_cost"] for answer in answers], -published[chosen].to_numpy(float))


@needs_data
@pytest.mark.parametrize(("score", "least"), [("synflow", 0.95), ("nwot", 0.9)])
def test_small_networks_rank_almost_as_published(score, least):
    assert agreement(score, Proxy(1, 4, 16, cells=2), 40) > least


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "least"), [("synflow", 0.99), ("nwot", 0.98), ("jacov", 0.9), ("grad_norm", 0.95), ("snip", 0.95)]
)
def test_full_networks_rank_as_published(score, least):
    assert agreement(score, SPACE.full, 60) > least
