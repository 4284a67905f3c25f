"""Zero-cost scores: what one minibatch says about a network that was never trained. Higher is better in all of them.

synflow: Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow", NeurIPS 2020, arXiv:2006.05467. nwot and jacov: Mellor, Turner, Storkey, Crowley, "Neural Architecture Search
without Training", ICML 2021, arXiv:2006.04647, and its first version. snip: Lee, Ajanthan, Torr, ICLR 2019,
arXiv:1810.02340. These and grad_norm as scores of whole networks: Abdelfattah, Mehrotra, Dudziak, Lane, "Zero-Cost
Proxies for Lightweight NAS", ICLR 2021, arXiv:2101.08134.

Batch norm: the network is in training mode, so norms work with the minibatch's own statistics; for synflow they are
taken out. docs/zero-cost.md has each score's details, and how it agrees with published values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from suite.data.images import ImageData
from suite.data.seeding import generator
from suite.networks import build
from suite.networks.batch import Batch, Loss
from suite.spaces import SearchSpace
from suite.tasks import make
from suite.tasks.base import Session, Task
from suite.training.device import device_clock, device_name, reason, threads
from suite.training.recipe import Recipe
from suite.training.trainer import BACKWARD
from suite.types import BadInput, Cost, Evaluation, KendallError, Proxy, Trial, nearest, refuse_origin

Score: TypeAlias = Callable[[nn.Module, Batch, Loss], float]
"""(a fresh network, which it may spoil; a minibatch; the task's loss) -> score."""


def synflow(network: nn.Module, batch: Batch, loss: Loss) -> float:
    """Log of the synaptic flow: the sum of weight times gradient, all weights made positive, of an image of ones.

    Norms are taken out, and all is in float64: the flow of a deep network exceeds float32. Only the shape of the
    images counts.
    """
    take_out_norms(network)
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    ones = torch.ones_like(inputs(batch)[:1], dtype=torch.float64)
    flow = saliency(network, network(ones).sum())
    return math.log(flow) if flow > 0 else -math.inf


def nwot(network: nn.Module, batch: Batch, loss: Loss) -> float:
    """Log-determinant of how many ReLUs two images share the state of, for all pairs of images.

    As in the authors' code, a ReLU counts only if the output depends on it.
    """
    network.train()
    with ReLUs() as relus:
        logits = network(inputs(batch))
    used = ancestors(logits.grad_fn)
    kernels = [kernel for node, kernel in relus.kernels if node in used]
    if not kernels:
        return -math.inf
    return float(torch.linalg.slogdet(torch.stack(kernels).sum(dim=0)).logabsdet)


def jacov(network: nn.Module, batch: Batch, loss: Loss) -> float:
    """How little correlated are the gradients of the summed logits in different images, from the eigenvalues."""
    network.train().requires_grad_(False)
    images = inputs(batch).clone().requires_grad_()
    logits = network(images)
    if not logits.requires_grad:
        return math.nan  # the output does not depend on the images
    (gradients,) = torch.autograd.grad(logits.sum(), images)
    correlations = torch.corrcoef(gradients.flatten(1).double())
    if not correlations.isfinite().all():
        return math.nan
    shifted = torch.linalg.eigvalsh(correlations) + 1e-5
    return -float((shifted.log() + 1 / shifted).sum())


def grad_norm(network: nn.Module, batch: Batch, loss: Loss) -> float:
    """Sum over convolutions and classifier of the Euclidean norm of the loss's gradient in their weights."""
    value = loss(network.train()(batch.inputs), batch)
    return float(sum(gradient.norm() for gradient in gradients(network, value)))


def snip(network: nn.Module, batch: Batch, loss: Loss) -> float:
    """Sum over weights of convolutions and classifier of |weight x gradient of the loss|."""
    return saliency(network, loss(network.train()(batch.inputs), batch))


SCORES: dict[str, Score] = {"synflow": synflow, "nwot": nwot, "jacov": jacov, "grad_norm": grad_norm, "snip": snip}
"""Scores of a network."""
PASSES = {
    "synflow": 1 + BACKWARD,  # of one image
    "nwot": 1,
    "jacov": 2,  # gradients of activations, not of weights
    "grad_norm": 1 + BACKWARD,
    "snip": 1 + BACKWARD,
}
"""Forward passes an image that a score takes as much work as."""
BASELINES = ("params", "macs", "random")
"""Scores that need no network: what any other has to beat."""
PLAIN = Recipe()
"""How images are prepared: as they are, as nothing is trained."""
KEPT = 8
"""Minibatches that are kept."""


def inputs(batch: Batch) -> Tensor:
    """The images of a batch, shape (n, c, h, w)."""
    assert isinstance(batch.inputs, Tensor)
    return batch.inputs


def weights(network: nn.Module) -> list[Tensor]:
    """Of convolutions and classifier."""
    return [module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def gradients(network: nn.Module, value: Tensor) -> Sequence[Tensor]:
    """Of `value` in each of the `weights`, zeros where it does not depend on them."""
    return torch.autograd.grad(value, weights(network), materialize_grads=True)


def saliency(network: nn.Module, value: Tensor) -> float:
    """Sum of |weight x gradient of `value`| over all weights."""
    pairs = zip(weights(network), gradients(network, value), strict=True)
    return float(sum((weight.detach() * gradient).abs().sum() for weight, gradient in pairs))


def take_out_norms(network: nn.Module) -> None:
    """Put the identity where batch norms are."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


class ReLUs(TorchFunctionMode):
    """Watches every ReLU that is applied inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Any, Tensor]] = []
        """For each ReLU its node in the graph, and the number of its units that images i and j agree in, (n, n)."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function not in RELUS:
            return function(*args, **(kwargs or {}))
        sign = (args[0].detach() > 0).flatten(1).float().mul_(2).sub_(1)  # (n, units)
        result = function(*args, **(kwargs or {}))
        self.kernels.append((result.grad_fn, (sign.shape[1] + (sign @ sign.T).double()) / 2))
        return result


def ancestors(node: Any) -> set[Any]:
    """All nodes of a graph that this one depends on, and itself."""
    found, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [before for before, _ in node.next_functions]
    return found


class Scorer:
    """Scores the networks of trials, one at a time, on one device.

    Initial weights and minibatch are drawn from the trial's seed; the minibatch is the same for all networks. Training
    images only, without augmentation, at the proxy's resolution. The proxy's epochs and samples make no difference.

    Cost: `device_s` is the wall time from the architecture to its score, building the network included. `macs` counts
    as much for a score as so many forward passes take (PASSES); a baseline takes none.

    Args:
        space: Whose networks.
        data: Its training part.
        score: One of SCORES and BASELINES.
        batch_size: Images of the minibatch.
        device: "cpu", "cuda", "cuda:1".
        threads: Of a CPU; scores depend on their number in the last bits.

    Raises:
        BadInput: No such score, or not so many images.
    """

    metrics = ("zero_cost", "params", "macs")

    def __init__(
        self, space: SearchSpace, data: ImageData, score: str, *, batch_size: int, device: str, threads: int
    ) -> None:
        if score not in SCORES and score not in BASELINES:
            raise BadInput(f"no zero-cost score {score!r}: {nearest(score, [*SCORES, *BASELINES])}")
        images = len(data.train_labels)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or not 2 <= batch_size <= images:
            raise BadInput(f"zero cost: batch_size must be a whole number in 2..{images}, not {batch_size!r}")
        self.space, self.data, self.score, self.batch_size, self.threads = space, data, score, batch_size, threads
        self.device = torch.device(device)
        self.device_name, self.clock = (
            device_name(self.device, threads),
            device_clock(self.device, threads),
        )
        self.tasks: dict[str, Task] = {}
        self.ends = self.task("").ends
        self.minibatches: dict[tuple[int, Proxy], tuple[Session, Batch]] = {}

    def check(self, trial: Trial) -> None:
        """Raises Unsupported or BadInput if `trial` has no score here."""
        self.space.check(trial.arch)
        self.space.check_proxy(trial.proxy)
        refuse_origin(trial, "zero_cost")
        task = self.task(trial.proxy.task)
        task.check(replace(trial.proxy, samples=1.0))
        self.space.check_proxy(task.seen(trial.proxy))

    def task(self, name: str) -> Task:
        """The task of a proxy, made once."""
        if name not in self.tasks:
            self.tasks[name] = make(name, self.data, PLAIN)
        return self.tasks[name]

    def minibatch(self, trial: Trial) -> tuple[Session, Batch]:
        """Training images as they are, asked what the trial's task asks, and who knows the loss."""
        proxy = replace(trial.proxy, epochs=1, channels=1, samples=1.0, cells=None)
        if (trial.seed, proxy) not in self.minibatches:
            if len(self.minibatches) == KEPT:
                self.minibatches.clear()
            session = self.task(proxy.task).session(nn.Identity(), proxy, seed=trial.seed, device=self.device)
            places = session.draw(self.batch_size, trial.seed, "minibatch")
            self.minibatches[trial.seed, proxy] = session, session.look("train", places)
        return self.minibatches[trial.seed, proxy]

    def answer(self, trial: Trial) -> Evaluation:
        """The trial's score, negated; a network that has none is answered with the reason.

        Raises:
            KendallError: The trial cannot be scored here.
        """
        self.check(trial)
        if self.score in SCORES:
            self.minibatch(trial)
        params, macs = (size(trial.arch, trial.proxy, ends=self.ends) for size in (self.space.params, self.space.macs))
        task = self.task(trial.proxy.task)
        images = {"synflow": 1}.get(self.score, self.minibatch(trial)[1].size if self.score in SCORES else 0)
        trained = self.space.trained_macs(trial.arch, task.seen(trial.proxy), ends=task.ends)
        spent = PASSES.get(self.score, 0) * images * trained
        began = self.clock()
        try:
            with threads(self.threads):
                score = self.value(trial, params, macs)
            failure = "" if math.isfinite(score) else f"{self.score} is {score}: {NOT_FINITE}"
        except KendallError:
            raise
        except Exception as error:
            failure = reason(error, self.device_name)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.synchronize(self.device)  # a device that is lost raises here
        cost = Cost(self.clock() - began, self.device_name, None, float(spent))
        if failure:
            return Evaluation(trial, dict.fromkeys(self.metrics, math.inf), cost, failure)
        metrics = {"zero_cost": -score, "params": float(params), "macs": float(macs)}
        return Evaluation(trial, metrics, cost)

    def value(self, trial: Trial, params: int, macs: int) -> float:
        """The score itself."""
        if self.score == "params":
            return float(params)
        if self.score == "macs":
            return float(macs)
        if self.score == "random":
            return float(torch.rand((), generator=generator(trial.seed, "random score", self.space.text(trial.arch))))
        task = self.task(trial.proxy.task)
        network = build(self.space, trial.arch, task.seen(trial.proxy), seed=trial.seed, ends=task.ends)
        layout: Any = {"memory_format": torch.channels_last}
        session, batch = self.minibatch(trial)
        return SCORES[self.score](network.to(self.device, **layout), batch, session.loss)


NOT_FINITE = "images that the network cannot tell apart, or no path from them to its output"
