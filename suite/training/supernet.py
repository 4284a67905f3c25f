"""Training of a supernet's weights: one architecture drawn anew for every batch, or a fixed mixture of all.

Guo et al. "Single Path One-Shot Neural Architecture Search with Uniform Sampling". ECCV 2020.
https://arxiv.org/abs/1904.00420

As in `suite.training.train`, nothing depends on what was trained before: weights, subset, order, augmentation and paths
come from generators seeded by the seed, the epoch and the batch, so that on a CPU a run that was cut off and went on
equals the run in one go bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.networks.chance import generator
from suite.networks.operations import Norms
from suite.networks.supernet import Supernet
from suite.spaces import SearchSpace
from suite.training.data import ImageData
from suite.training.recipe import Recipe, resolve
from suite.training.train import BACKWARD, Leg, Run, Trainer, batches, pick_device, restore, state, subset, threads
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
            space, data, resolve(recipe), device=str(pick_device(device)), threads=cpu_threads, judge=False,
            checkpoints=checkpoints,
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
        supernet = run.network
        assert isinstance(supernet, Supernet)
        leg, key = Leg(), self.key(proxy, seed, supernet.norms)
        spent = {"macs": 0.0}
        kept = trainer.checkpoints.load(key)
        if kept is not None and len(kept["curve"]) <= stop:
            restore(run, kept)
            vars(leg).update(kept["leg"])
            spent = dict(kept["spent"])
        places = subset(trainer.train_labels, proxy.samples, seed)
        with threads(trainer.threads):
            while len(run.curve) < stop:
                trainer.images("train", proxy.resolution)
                with trainer.metered(leg):
                    spent["macs"] += self.epoch(run, supernet, places, seed)
                trainer.checkpoints.save(key, state(run, leg) | {"spent": spent})
        supernet.epochs = stop
        cost = Cost(leg.device_s, trainer.device_name, leg.energy_j, spent["macs"])
        return Trained(supernet, cost, tuple(run.curve))

    def key(self, proxy: Proxy, seed: int, norms: Norms) -> str:
        """All that a run depends on."""
        trainer, mixed = self.trainer, "path" if self.weights is None else self.weights.tolist()
        here = (self.data.fingerprint, trainer.recipe, trainer.device_name, trainer.half, torch.__version__)
        return repr(("supernet", self.space.name, self.space.canonical(proxy), seed, norms, mixed, *here))

    def start(self, proxy: Proxy, seed: int) -> Run:
        """The run before its first epoch."""
        trainer, recipe = self.trainer, self.trainer.recipe
        supernet = Supernet(
            self.space, proxy, classes=self.data.classes, image_channels=trainer.image_channels, seed=seed,
            norms=self.norms,
        )  # fmt: skip
        layout: Any = {"memory_format": torch.channels_last}
        supernet = supernet.to(trainer.device, **layout)
        if self.weights is not None:
            supernet.mix(self.weights.detach().to(trainer.device))
        optimizer = torch.optim.SGD(
            supernet.parameters(),
            lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay,
        )  # fmt: skip
        return Run(supernet, optimizer)

    def epoch(self, run: Run, supernet: Supernet, places: Tensor, seed: int) -> float:
        """One epoch, added to the curve; the multiply-adds that it took. Weights off a batch's path are left alone."""
        began = time.perf_counter()
        trainer, recipe, proxy, epoch = self.trainer, self.trainer.recipe, supernet.proxy, len(run.curve)
        pool, labels = trainer.images("train", proxy.resolution), trainer.labels["train"]
        augmentation = trainer.augmentation(proxy)
        shuffled = torch.randperm(len(places), generator=generator(seed, epoch, "order"))
        order = places[shuffled].to(trainer.device, non_blocking=True)
        drawn = augmentation.draw(len(order), seed, epoch)
        loss_sum, wrong = torch.zeros(2, device=trainer.device, dtype=torch.float64).unbind()
        macs = 0.0
        supernet.train()
        steps = batches(len(order), recipe.batch_size)
        for number, batch in enumerate(steps):
            rate = recipe.learning_rate(epoch * len(steps) + number, len(steps), proxy.epochs)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            if self.weights is None:
                supernet.path(self.space.sample(np.random.default_rng((seed, epoch, number))))
            chosen = order[batch]
            x, y = augmentation(pool[chosen], drawn, batch), labels[chosen]
            with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.half):
                logits = supernet(x)
            loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
            run.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.grad_clip:
                nn.utils.clip_grad_norm_(supernet.parameters(), recipe.grad_clip)
            run.optimizer.step()
            loss_sum += loss.detach() * len(y)
            wrong += (logits.detach().argmax(1) != y).sum()
            macs += float((1 + BACKWARD) * len(y) * supernet.computed_macs())
        train_loss, train_wrong = torch.stack([loss_sum, wrong]).tolist()
        if not math.isfinite(train_loss):
            raise BadInput(
                f"supernet: the loss of epoch {epoch + 1} is not finite; lower the recipe's lr = {recipe.lr:g}, "
                "or clip the gradient (grad_clip)"
            )
        run.curve.append(
            {
                "epoch": epoch + 1,
                "train_loss": train_loss / len(order),
                "train_error": 100 * train_wrong / len(order),
                "lr": rate,
                "device_s": time.perf_counter() - began,
            }
        )
        return macs
