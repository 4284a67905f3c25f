"""Training of a supernet's weights: one architecture drawn anew for every batch, or a fixed mixture of all.

Guo et al. "Single Path One-Shot Neural Architecture Search with Uniform Sampling". ECCV 2020.
https://arxiv.org/abs/1904.00420

As in `suite.training.trainer`, nothing depends on what was trained before: weights, subset, order, augmentation and
paths come from generators seeded by the seed, the epoch and the batch, so that on a CPU a run that was cut off and went
on equals the run in one go bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.data.images import ImageData
from suite.data.seeding import generator
from suite.networks.learner import Batch, Learner, Pass
from suite.networks.operations import Norms
from suite.networks.supernet import Supernet
from suite.spaces import SearchSpace
from suite.training.device import pick_device, threads
from suite.training.recipe import Recipe, resolve_for_supernet
from suite.training.trainer import Leg, Run, Trainer, batches, restore, state, subset
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
        learner = learner_of(run, trainer, seed)
        supernet = learner.supernet
        leg, key = Leg(), self.key(proxy, seed, supernet.norms)
        kept = trainer.checkpoints.load(key)
        if kept is not None and len(kept["curve"]) <= stop:
            restore(run, kept)
            vars(leg).update(kept["leg"])
            learner.macs = kept["macs"]
        places = subset(trainer.train_labels, proxy.samples, seed)
        with threads(trainer.threads):
            while len(run.curve) < stop:
                trainer.images("train", proxy.resolution)
                with trainer.metered(leg):
                    self.epoch(run, learner, places, seed)
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
        run = begun(self.trainer, proxy, seed, self.norms)
        if self.weights is not None:
            assert isinstance(run.network, Supernet)
            run.network.mix(self.weights.detach().to(self.trainer.device))
        return run

    def epoch(self, run: Run, learner: Learner, places: Tensor, seed: int) -> None:
        """One epoch, added to the curve. Weights off a batch's path are left alone."""
        began = self.trainer.clock()
        trainer, supernet, epoch = self.trainer, learner.supernet, len(run.curve)
        images = in_order(trainer, supernet.proxy, places, seed, epoch)
        seen = Seen(trainer.device)
        supernet.train()
        for number in range(len(images)):
            learner.lr = trainer.recipe.learning_rate(epoch * len(images) + number, len(images), supernet.proxy.epochs)
            if self.weights is None:
                supernet.path(self.space.sample(np.random.default_rng((seed, epoch, number))))
            passed, _ = learner.descend(images[number])
            seen.add(passed)
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


def begun(trainer: Trainer, proxy: Proxy, seed: int, norms: Norms | None) -> Run:
    """A supernet and the optimiser of its weights, before the first step."""
    recipe = trainer.recipe
    layout: Any = {"memory_format": torch.channels_last}
    supernet = Supernet(trainer.space, proxy, ends=trainer.ends, seed=seed, norms=norms).to(trainer.device, **layout)
    supernet.network.lean = True  # type: ignore[assignment]
    optimizer = torch.optim.SGD(
        supernet.parameters(),
        lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay,
    )  # fmt: skip
    return Run(supernet, optimizer)


def learner_of(run: Run, trainer: Trainer, seed: int) -> Learner:
    """What takes the steps of a run."""
    assert isinstance(run.network, Supernet)
    assert isinstance(run.optimizer, torch.optim.SGD)
    return Learner(
        run.network, run.optimizer, seed=seed, grad_clip=trainer.recipe.grad_clip,
        label_smoothing=trainer.recipe.label_smoothing, half=trainer.half,
    )  # fmt: skip


class Stream:
    """Batches of training images that follow one another, augmented; all chance is drawn at once.

    Args:
        trainer: Whose images and recipe.
        proxy: Which resolution.
        order: Places of the images, batch after batch.
        steps: Which of `order` are a batch.
        key: Of the chance of the augmentation.
    """

    def __init__(
        self, trainer: Trainer, proxy: Proxy, order: Tensor, steps: Sequence[slice], *key: int | str
    ) -> None:  # fmt: skip
        self.pool, self.labels = trainer.images("train", proxy.resolution), trainer.labels["train"]
        self.augmentation = trainer.augmentation(proxy)
        self.order, self.steps = order.to(trainer.device, non_blocking=True), steps
        self.drawn = self.augmentation.draw(len(order), *key)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, number: int) -> Batch:
        chosen = self.order[self.steps[number]]
        return Batch(self.augmentation(self.pool[chosen], self.drawn, self.steps[number]), self.labels[chosen])


def in_order(trainer: Trainer, proxy: Proxy, places: Tensor, seed: int, epoch: int) -> Stream:
    """Each image once, in the order of this epoch."""
    order = places[torch.randperm(len(places), generator=generator(seed, epoch, "order"))]
    return Stream(trainer, proxy, order, batches(len(order), trainer.recipe.batch_size), seed, epoch)


class Seen:
    """Sums over the training batches of an epoch; they stay on the device until they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self.loss, self.wrong = torch.zeros(2, device=device, dtype=torch.float64).unbind()
        self.images = 0

    def add(self, passed: Pass) -> None:
        """One batch more."""
        self.loss += passed.loss.detach() * len(passed.labels)
        self.wrong += (passed.logits.detach().argmax(1) != passed.labels).sum()
        self.images += len(passed.labels)

    def means(self) -> tuple[float, float]:
        """Loss, and error [%]."""
        loss, wrong = torch.stack([self.loss, self.wrong]).tolist()
        return loss / self.images, 100 * wrong / self.images


def not_finite(what: str, epoch: int, recipe: Recipe) -> str:
    """The end of a refusal to go on."""
    return (
        f"the {what} of epoch {epoch + 1} is not finite; lower the recipe's lr = {recipe.lr:g}, "
        "or clip the gradient (grad_clip)"
    )
