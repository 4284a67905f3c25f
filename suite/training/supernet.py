"""Training of a supernet's weights: one architecture drawn anew for every batch, or a fixed mixture of all.

Guo et al. "Single Path One-Shot Neural Architecture Search with Uniform Sampling". ECCV 2020.
https://arxiv.org/abs/1904.00420

As in `suite.training.trainer`, nothing depends on what was trained before: weights, subset, order, augmentation and
paths come from generators seeded by the seed, the epoch and the batch, so that on a CPU a run that was cut off and went
on equals the run in one go bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.data.images import ImageData
from suite.networks.learner import Learner, Pass, Validated
from suite.networks.mixture import Mixes
from suite.networks.operations import Norms
from suite.networks.supernet import Supernet
from suite.spaces import SearchSpace
from suite.tasks.base import Session
from suite.training.device import pick_device, threads
from suite.training.recipe import Recipe, resolve_for_supernet
from suite.training.trainer import Run, Spent, Trainer, restore, state
from suite.types import BadInput, Cost, Proxy


@dataclass(frozen=True)
class Trained:
    """A supernet and how it came about."""

    supernet: Supernet
    cost: Cost
    """Of the whole training, from the first epoch on, that of runs that were cut off too."""
    curve: Sequence[Mapping[str, float]]
    """One entry an epoch: epoch, train_loss, train_error [%], lr, device_s."""


class SupernetTrainer:
    """Trains supernets of one space on one data set.

    Args:
        space: Whose networks.
        data: Images; those held out are not looked at.
        recipe: How to train: a name, a table of values, a Recipe. The length of the schedule is the proxy's.
        checkpoints: Folder of the runs under way, written after every epoch.
        device: "auto", "cpu", "cuda", "cuda:1"; "auto" is a CUDA device if there is one.
        cpu_threads: Of a CPU; results depend on their number in the last bits.
        norms: Batch norms; None: those of the space's published supernet.
        weights: Of a fixed mixture, shape (rows, options); None: an architecture a batch, all equally likely.
    """

    def __init__(
        self, space: SearchSpace, data: ImageData, *, checkpoints: Path,
        recipe: str | Mapping[str, Any] | Recipe = "nas_bench_201", device: str = "auto", cpu_threads: int = 1,
        norms: Norms | None = None, weights: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.space, self.data, self.norms, self.weights = space, data, norms, weights
        self.trainer = Trainer(
            space, data, resolve_for_supernet(recipe), device=str(pick_device(device)), threads=cpu_threads,
            judge=False, checkpoints=checkpoints,
        )  # fmt: skip

    def train(self, proxy: Proxy, *, seed: int = 0, epochs: int = 0) -> Trained:
        """A supernet under `proxy`, from its last checkpoint if there is one.

        Args:
            proxy: Width, depth, resolution, share of the images, and length of the schedule.
            seed: Of everything that is drawn.
            epochs: Where to stop, 1..proxy.epochs; 0: at the end.

        Raises:
            Unsupported: There are no supernets of this space, or not under `proxy`.
            BadInput: A value is out of its range; or the loss is not a number any more.
        """
        stop = epochs or proxy.epochs
        if not 1 <= stop <= proxy.epochs:
            raise BadInput(f"supernet: epochs must lie in 1..{proxy.epochs} (its proxy's), not {epochs}")
        trainer = self.trainer
        trainer.check_proxy(proxy)
        run = self.start(proxy, seed)
        learner = learner_of(run, trainer, proxy, seed)
        assert isinstance(run.network, Supernet)
        supernet = run.network
        leg, key = Spent(), self.key(proxy, seed, supernet.norms)
        kept = trainer.checkpoints.load(key)
        if kept is not None and len(kept["curve"]) <= stop:
            restore(run, kept)
            vars(leg).update(kept["leg"])
            learner.macs = kept["macs"]
        with threads(trainer.threads):
            while len(run.curve) < stop:
                run.session.ready("train")
                with trainer.metered(leg):
                    self.epoch(run, learner, seed)
                trainer.checkpoints.save(key, state(run, leg) | {"macs": learner.macs})
        supernet.epochs = stop
        cost = Cost(leg.device_s, trainer.device_name, leg.energy_j, learner.macs)
        return Trained(supernet, cost, tuple(run.curve))

    def key(self, proxy: Proxy, seed: int, norms: Norms) -> str:
        """All that a run depends on."""
        trainer, mixed = self.trainer, "path" if self.weights is None else self.weights.tolist()
        here = (self.data.fingerprint, trainer.recipe, trainer.device_name, trainer.half, torch.__version__)
        return repr(("supernet", self.space.name, self.space.canonical(proxy), seed, norms, mixed, *here))

    def start(self, proxy: Proxy, seed: int) -> Run:
        """The run before its first epoch."""
        ends = self.trainer.task(proxy.task).ends
        supernet = Supernet(self.space, proxy, ends=ends, seed=seed, norms=self.norms, skip_dead_edges=True)
        run = begun(self.trainer, supernet, proxy, seed)
        if self.weights is not None:
            supernet.mix(self.weights.detach().to(self.trainer.device))
        return run

    def epoch(self, run: Run, learner: Learner, seed: int) -> None:
        """One epoch, added to the curve. Weights off a batch's path are left alone."""
        began = self.trainer.clock()
        trainer, supernet, epoch = self.trainer, run.network, len(run.curve)
        assert isinstance(supernet, Supernet)
        steps, seen = run.session.steps(), Seen(trainer.device)
        supernet.train()
        for number, batch in enumerate(run.session.batches(epoch)):
            learner.lr = trainer.recipe.learning_rate(epoch * steps + number, steps, supernet.proxy.epochs)
            if self.weights is None:
                supernet.path(self.space.sample(np.random.default_rng((seed, epoch, number))))
            passed, _ = learner.descend(batch)
            seen.add(passed, run.session)
        train_loss, train_error = seen.means()
        if not math.isfinite(train_loss):
            raise BadInput(f"supernet: {not_finite('loss', epoch, trainer.recipe)}")
        run.curve.append(
            {
                "epoch": epoch + 1,
                "train_loss": train_loss,
                "train_error": train_error,
                "lr": learner.lr,
                "device_s": trainer.clock() - began,
            }
        )


def show(trainer: Trainer, network: nn.Module, proxy: Proxy) -> None:
    """Tell a supernet what it will see under a proxy, so that it counts its multiply-adds right."""
    if isinstance(network, Supernet):
        network.under, network.proxy = proxy, trainer.task(proxy.task).seen(network.under)


def begun(trainer: Trainer, network: nn.Module, proxy: Proxy, seed: int) -> Run:
    """A network of mixtures on its device and the optimizer of its weights, before the first step."""
    recipe = trainer.recipe
    show(trainer, network, proxy)
    layout: Any = {"memory_format": torch.channels_last}
    network = network.to(trainer.device, **layout)
    session = trainer.opened(network, proxy, seed)
    optimizer = torch.optim.SGD(
        [*network.parameters(), *session.modules.to(trainer.device).parameters()],
        lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay,
    )  # fmt: skip
    return Run(network, optimizer, session)


def learner_of(
    run: Run, trainer: Trainer, proxy: Proxy, seed: int, validate: Callable[[Mixes], Validated] | None = None
) -> Learner:
    """The learner that takes the steps of a run and, where `validate` is given, scores mixtures."""
    assert isinstance(run.network, Mixes)
    assert isinstance(run.optimizer, torch.optim.SGD)
    return Learner(
        run.network, run.optimizer, seed=seed, grad_clip=trainer.recipe.grad_clip,
        loss=run.session.loss, half=trainer.half, proxy=proxy, validate=validate,
    )  # fmt: skip


class Seen:
    """Sums over the training batches of an epoch; they stay on the device until they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self.loss, self.wrong = torch.zeros(2, device=device, dtype=torch.float64).unbind()
        self.answers = 0

    def add(self, passed: Pass, session: Session) -> None:
        """One batch more, of a session."""
        self.loss += passed.loss.detach() * passed.batch.answers
        self.wrong += session.wrong(passed.outputs, passed.batch)
        self.answers += passed.batch.answers

    def means(self) -> tuple[float, float]:
        """Loss, and error [%]."""
        loss, wrong = torch.stack([self.loss, self.wrong]).tolist()
        return loss / self.answers, 100 * wrong / self.answers


def not_finite(what: str, epoch: int, recipe: Recipe) -> str:
    """The end of a refusal to go on."""
    return (
        f"the {what} of epoch {epoch + 1} is not finite; lower the recipe's lr = {recipe.lr:g}, "
        "or clip the gradient (grad_clip)"
    )
