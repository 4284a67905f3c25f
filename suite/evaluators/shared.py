"""Answers from the shared weights of a trained supernet: nothing is trained, an architecture inherits and is scored."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from suite.data.images import ImageData
from suite.data.seeding import generator
from suite.networks.supernet import Supernet
from suite.tasks.base import Batch, Session
from suite.tasks.images import EVALUATION_BATCH, batches
from suite.training.device import Diverged, pick_device, reason, threads
from suite.training.recipe import Recipe
from suite.training.trainer import Spent, Trainer
from suite.types import Architecture, BadInput, Cost, Evaluation, KendallError, Proxy, Trial, Unsupported, refuse_origin

STATISTICS = ("batch", "recalibrated", "running")


class SharedEvaluator:
    """Scores architectures with a supernet's weights on the held-out images; the test images are never looked at.

    Answers trials of the proxy that the supernet was trained under, at the epochs that it was trained for. `Trial.seed`
    says which supernet: that of the same seed. A trial asked again costs nothing.

    Args:
        supernets: One, or several of one space and proxy and different seeds; they are left as they are.
        data: Those that they were trained on.
        statistics: What batch norms normalise by. "batch": each batch of held-out images, of 500 in a fixed order, by
            its own; "recalibrated": averages over training images that are taken anew for each architecture;
            "running": those of the supernet's training, which are of all paths together.
        calibration: Number of training images for "recalibrated".
        device: "auto", "cpu", "cuda", "cuda:1".
        cpu_threads: Of a CPU.
        precision: As in `Recipe`.

    Raises:
        BadInput: A value is out of its range; or supernets that do not belong together, or not to the data.
        Unsupported: The device is not there; or running statistics are asked of a supernet that has none.
    """

    name = "shared"

    def __init__(
        self, supernets: Supernet | Sequence[Supernet], data: ImageData,
        *, statistics: str = "batch", calibration: int = 1000, device: str = "auto", cpu_threads: int = 1,
        precision: str = "auto",
    ) -> None:  # fmt: skip
        every = [supernets] if isinstance(supernets, Supernet) else list(supernets)
        if not every:
            raise BadInput("shared: no supernet was given; train one first (docs/supernets.md)")
        if statistics not in STATISTICS:
            raise BadInput(f"shared: statistics must be one of {', '.join(STATISTICS)}, not {statistics!r}")
        if isinstance(calibration, bool) or not isinstance(calibration, int) or calibration < 2:
            raise BadInput(f"shared: calibration must be a whole number of images, at least 2, not {calibration!r}")
        first = every[0]
        self.space, self.proxy, self.epochs = first.space, first.space.canonical(first.under), first.epochs
        self.supernets = {supernet.seed: supernet for supernet in every}
        for supernet in every:
            if (supernet.space.name, self.space.canonical(supernet.under)) != (self.space.name, self.proxy):
                raise BadInput(
                    f"shared: supernets of {self.space.name} under {self.proxy} and of {supernet.space.name} under "
                    f"{supernet.under} need an evaluator each"
                )
            if statistics == "running" and supernet.norms.statistics != "running":
                raise Unsupported("shared: this supernet has no running statistics; use batch or recalibrated")
        if len(self.supernets) < len(every) or any(supernet.epochs != self.epochs for supernet in every):
            raise BadInput("shared: several supernets must have different seeds and the same number of epochs")
        self.statistics, self.calibration, self.dataset = statistics, calibration, data.name
        temporary = tempfile.TemporaryDirectory(prefix="kendall-")  # the trainer wants a folder; nothing is kept in it
        weakref.finalize(self, temporary.cleanup)
        self.trainer = Trainer(
            self.space, data, Recipe(precision=precision), device=str(pick_device(device)), threads=cpu_threads,
            judge=False, checkpoints=Path(temporary.name),
        )  # fmt: skip
        asked = self.trainer.task(self.proxy.task)
        for supernet in every:
            if supernet.ends != asked.ends:
                raise BadInput(
                    f"shared: a supernet for {supernet.ends.outputs} classes and {supernet.ends.inputs} channels "
                    f"cannot look at {data.name}, which has {asked.ends.outputs} and {asked.ends.inputs}"
                )
        self.device = self.trainer.device_name
        self.known: dict[tuple[Architecture, int], Evaluation] = {}

    def stages(self, proxy: Proxy) -> tuple[int, ...]:
        """The epochs at which it can be asked: those that the supernet was trained for.

        Raises:
            Unsupported: The supernet was trained under another proxy.
        """
        if self.space.canonical(proxy) != self.proxy:
            raise Unsupported(f"shared: the supernet was trained under {self.proxy}; ask for that, not {proxy}")
        return (self.epochs,)

    def check(self, trial: Trial) -> None:
        """Raises Unsupported or BadInput if `trial` cannot be answered."""
        self.space.check(trial.arch)
        refuse_origin(trial, self.name)
        if trial.epochs not in self.stages(trial.proxy):
            raise Unsupported(f"shared: the supernet was trained for {self.epochs} epochs, not {trial.epochs}")
        if trial.seed not in self.supernets:
            seeds = ", ".join(map(str, self.supernets))
            raise Unsupported(f"shared: no supernet of seed {trial.seed}; there are seeds {seeds}")

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in the order of the trials.

        Raises:
            Unsupported: Another proxy, stage or seed than the supernets'; nothing was scored.
            BadInput: An architecture is none of the space.
        """
        for trial in trials:
            self.check(trial)
        return [self.answer(trial) for trial in trials]

    def answer(self, trial: Trial) -> Evaluation:
        """The score of an architecture, from memory if it is there."""
        key = trial.arch, trial.seed
        if key in self.known:
            known = self.known[key]
            free = Cost(0.0, self.device, None if known.cost.energy_j is None else 0.0, 0.0)
            return replace(known, trial=trial, cost=free)
        leg, failure = Spent(), ""
        macs = float(self.trainer.macs(trial))
        metrics = {"params": float(self.space.params(trial.arch, trial.proxy, ends=self.trainer.ends)), "macs": macs}
        try:
            with threads(self.trainer.threads):
                metrics = {"val_error": self.error(trial, leg), **metrics}
        except KendallError:
            raise
        except Exception as error:
            metrics, failure = dict.fromkeys(("val_error", *metrics), math.inf), reason(error, self.device)
        executed = float(leg.evaluated * self.trainer.trained_macs(trial))
        cost = Cost(leg.device_s, self.device, leg.energy_j, executed)
        self.known[key] = Evaluation(trial, metrics, cost, failure)
        return self.known[key]

    @torch.no_grad()
    def error(self, trial: Trial, leg: Spent) -> float:
        """Of the held-out images [%]."""
        supernet, trainer = self.supernets[trial.seed], self.trainer
        keeps = self.statistics != "batch"
        norms = replace(supernet.norms, statistics="running") if keeps else supernet.norms
        network = supernet.standalone(trial.arch, norms).to(trainer.device).eval()
        session = trainer.task(self.proxy.task).session(
            network, self.proxy, seed=trial.seed, device=trainer.device, half=trainer.half
        )
        session.ready("train")
        session.ready("valid")
        with trainer.metered(leg):
            if self.statistics == "recalibrated":
                self.recalibrate(network, session, trial.seed, leg)
            elif self.statistics == "batch":
                by_batch(network)
            valid = session.count("valid")
            order = torch.randperm(valid, generator=generator("shared", "order")).to(trainer.device)
            loss, wrong = torch.zeros(2, device=trainer.device, dtype=torch.float64).unbind()
            answers = 0
            for places in batches(valid, EVALUATION_BATCH):
                batch = session.look("valid", order[places])
                outputs = self.outputs(network, batch)
                loss += session.loss(outputs, batch) * batch.answers
                wrong += session.wrong(outputs, batch)
                answers += batch.answers
            total, errors = torch.stack([loss, wrong]).tolist()
            leg.evaluated += session.size("valid")
        if not math.isfinite(total):
            raise Diverged("diverged: the loss on the held-out images is not finite")
        return float(100 * errors / answers)

    def recalibrate(self, network: nn.Module, session: Session, seed: int, leg: Spent) -> None:
        """Running statistics anew: plain averages over batches of training images, as they are."""
        chosen = session.draw(self.calibration, seed, "calibration").to(self.trainer.device)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for places in batches(len(chosen), EVALUATION_BATCH):
            batch = session.look("train", chosen[places])
            self.outputs(network, batch)
            leg.evaluated += batch.size
        network.eval()

    def outputs(self, network: nn.Module, batch: Batch) -> Tensor:
        """What a network gives for a batch."""
        with torch.autocast(self.trainer.device.type, torch.bfloat16, enabled=self.trainer.half):
            given: Tensor = network(batch.inputs)
        return given.float()


def by_batch(network: nn.Module) -> None:
    """Have its norms go by the statistics of the batch, and leave their running ones alone."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.track_running_stats = False
