"""Training of one network under a proxy, from a trial to its answer.

Nothing here depends on what was trained before: initial weights, subset, order and augmentation come from generators
seeded by the trial's seed (and the epoch), so that on a CPU a run in stages equals the run in one go bit for bit.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.data.augment import COMPILING_PAYS, Augmentation, resize
from suite.data.images import ImageData
from suite.data.seeding import generator
from suite.networks import build
from suite.spaces import SearchSpace
from suite.training.checkpoints import Checkpoints, State
from suite.training.compiled import kernels
from suite.training.compiled.program import Program, refusal
from suite.training.device import (
    DeviceLost,
    Diverged,
    device_clock,
    device_name,
    energy_counter,
    exact,
    free,
    reason,
    threads,
)
from suite.training.recipe import Recipe
from suite.training.weights.pool import KnowledgePool
from suite.types import POOL, BadInput, Cost, Ends, Evaluation, KendallError, Proxy, Trial, Unsupported, refuse_origin

EVALUATION_BATCH = 500
"""Images of a forward pass without training."""
NOTE_S = 2.0
"""Between two states of a run that are kept in memory, to be written if the user stops it [s]."""
BACKWARD = 2
"""A backward pass counts as two forward passes: gradients of the inputs and of the weights."""


def subset(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Places of a share of the images, the same share of each class and at least one image.

    Args:
        labels: Shape (n,), int64.
        fraction: In (0, 1]; a larger one contains a smaller one of the same seed.
        seed: Which images.

    Returns:
        Ascending places, int64.

    >>> subset(torch.tensor([0, 1] * 10), 0.2, seed=0).shape
    torch.Size([4])
    """
    chosen = []
    for label in torch.unique(labels).tolist():
        places = (labels == label).nonzero().flatten()
        first = torch.randperm(len(places), generator=generator(seed, "subset", label))
        chosen.append(places[first[: max(1, math.floor(fraction * len(places) + 0.5))]])
    return torch.cat(chosen).sort().values


def batches(images: int, size: int) -> list[slice]:
    """An epoch in batches of `size`, the last one smaller; a single image left over joins the batch before it."""
    ends = [*range(size, images, size), images]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@dataclass
class Leg:
    """What was spent between where a run was resumed and where it was evaluated."""

    trained: int = 0
    """Images forward and backward."""
    evaluated: int = 0
    """Images forward only."""
    device_s: float = 0.0
    energy_j: float | None = None


@dataclass
class Run:
    """One network on its way."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    curve: list[dict[str, float]] = field(default_factory=list)
    """One entry an epoch done."""
    program: Program | None = None
    """The network as machine code, if the recipe asks for it; the network has its weights after each epoch."""


class Trainer:
    """Answers trials one at a time, on one device.

    Cost: `device_s` is the time of the device (`clock`) for the epochs that were newly trained, training and validation
    (and the test, for a judge) with augmentation; building the network, resizing the data once a resolution, and
    reading and writing checkpoints are not in it. `macs` counts one forward pass an image evaluated and three an image
    trained. `energy_j` is the difference of the GPU's own counter over the same epochs.

    Args:
        space: Whose networks.
        data: Stays where it is; what is needed of it is copied to the device.
        recipe: How to train.
        device: "cpu", "cuda", "cuda:1".
        threads: Of a CPU; results depend on their number in the last bits.
        judge: Measure `test_error` too; otherwise the test images are never looked at.
        checkpoints: Folder of the runs under way.
        pool: Where trials of origin "pool" get their first weights from, and leave their last ones; None: nowhere. Its
            reading and writing are in `device_s`.
        deterministic: On a GPU, only algorithms that give the same bits every time; on a CPU all do.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: ImageData,
        recipe: Recipe,
        *,
        device: str,
        threads: int,
        judge: bool,
        checkpoints: Path,
        pool: KnowledgePool | None = None,
        deterministic: bool = False,
    ) -> None:
        self.space, self.recipe, self.threads, self.judge = space, recipe, threads, judge
        self.deterministic = deterministic
        self.device = torch.device(device)
        self.checkpoints, self.pool = Checkpoints(checkpoints), pool
        self.data = data
        self.side = data.side
        self.train_labels = data.train_labels.cpu()
        if not len(data.valid_labels):
            raise BadInput(f"{data.name}: no images are held out for validation; load it with a valid_fraction above 0")
        self.labels = {"train": data.train_labels.to(self.device), "valid": data.valid_labels.to(self.device)}
        if judge:
            self.labels["test"] = data.test_labels.to(self.device)
        self.resized: dict[tuple[str, int], Tensor] = {}
        self.compiles = False
        """Whether augmentation is: it changes no image, and pays for long runs only."""
        self.half = recipe.precision == "bfloat16" or (
            recipe.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        if recipe.step == "compiled" and (why := refusal(space, self.device, threads)):
            raise Unsupported(f'recipe: step = "compiled" {why}; set step = "torch"')
        self.device_name = device_name(self.device, threads)
        self.energy, self.clock = energy_counter(self.device), device_clock(self.device, threads)
        self.at_work: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered while the device works for a trial."""

    def check(self, trial: Trial) -> None:
        """Raises Unsupported or BadInput if `trial` cannot be trained here."""
        self.space.check(trial.arch)
        self.check_proxy(trial.proxy)
        refuse_origin(trial, "live training")

    def check_proxy(self, proxy: Proxy) -> None:
        """Raises Unsupported if no network can be trained here under `proxy`."""
        self.space.check_proxy(proxy)
        images, classes = len(self.train_labels), self.data.classes
        if proxy.samples * images < classes:
            raise Unsupported(
                f"{self.data.name}: samples {proxy.samples:g} of {images} training images are fewer than its {classes} "
                f"classes; use at least {math.ceil(classes / images * 1e4) / 1e4:g}"
            )
        if proxy.epochs <= self.recipe.warmup_epochs:
            raise Unsupported(
                f"recipe: a warm-up of {self.recipe.warmup_epochs} epochs leaves nothing of the proxy's "
                f"{proxy.epochs}; use at least {self.recipe.warmup_epochs + 1} epochs or a shorter warm-up"
            )

    def key(self, trial: Trial) -> str:
        """All that the run of `trial` depends on."""
        run = (self.space.text(trial.arch), trial.proxy, trial.seed)
        here = (self.data.fingerprint, self.recipe, self.device_name, self.half, torch.__version__)
        inherited = () if self.pool is None or trial.origin != POOL else ("pool", self.pool.version)
        exact = ("deterministic",) if self.deterministic else ()
        compiled = (kernels.VERSION,) if self.recipe.step == "compiled" else ()
        return repr((self.space.name, *run, *here, *inherited, *exact, *compiled))

    def answer(self, trial: Trial) -> Evaluation:
        """Train, from the checkpoint if there is one, and evaluate; a failure of this network is its answer.

        Raises:
            KendallError: The trial cannot be trained here, or a checkpoint not be written.
        """
        self.check(trial)
        leg = Leg()
        curve: list[dict[str, float]] = []
        try:
            with threads(self.threads), exact(self.deterministic and self.device.type == "cuda"):
                metrics, curve = self.train(trial, leg)
            failure = ""
        except (KendallError, ImportError):  # a broken installation is no network's failure
            raise
        except Exception as error:
            metrics, failure = dict.fromkeys(self.metrics, math.inf), reason(error, self.device_name)
        if failure:
            try:
                free(self.device)  # a device that is lost raises here: no later network could be trained
            except RuntimeError as error:
                lost = f"{self.device_name} does not answer any more ({reason(error, self.device_name)})"
                raise DeviceLost(f"{lost}; the same command goes on once it does") from None
        return Evaluation(trial, metrics, self.cost(trial, leg), failure, tuple(curve))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What an answer holds."""
        return ("val_error", *(("test_error",) if self.judge else ()), "params", "macs")

    def failed(self, trial: Trial, failure: str, device_s: float) -> Evaluation:
        """The answer if this process itself did not survive the trial."""
        return Evaluation(trial, dict.fromkeys(self.metrics, math.inf), Cost(device_s, self.device_name), failure)

    def cost(self, trial: Trial, leg: Leg) -> Cost:
        """The price of a leg."""
        forward = (1 + BACKWARD) * leg.trained + leg.evaluated
        return Cost(leg.device_s, self.device_name, leg.energy_j, float(forward * self.trained_macs(trial)))

    def macs(self, trial: Trial) -> int:
        """Multiply-adds of one image forward, as reported."""
        return self.space.macs(trial.arch, trial.proxy, ends=self.ends)

    def trained_macs(self, trial: Trial) -> int:
        """Multiply-adds of one image forward, as executed here."""
        return self.space.trained_macs(trial.arch, trial.proxy, ends=self.ends)

    @property
    def ends(self) -> Ends:
        """What the data ask of a network."""
        return self.data.ends

    def train(self, trial: Trial, leg: Leg) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Metrics and curve; what it took is added to `leg` as it is spent."""
        proxy, key = trial.proxy, self.key(trial)
        run = self.start(trial)
        places = subset(self.train_labels, proxy.samples, trial.seed)
        stage = trial.epochs < proxy.epochs
        kept = self.checkpoints.load(key)
        if kept is not None and len(kept["curve"]) <= trial.epochs:
            restore(run, kept)
            if kept.get("cut") or len(run.curve) == trial.epochs:  # nobody heard of these epochs: their price is due
                vars(leg).update(kept["leg"])
        pool = self.pool if trial.origin == POOL else None
        if pool is not None and not run.curve:
            with self.metered(leg):
                pool.inherit(run.network, trial, ends=self.ends)
        if self.recipe.step == "compiled":
            largest = max(batch.stop - batch.start for batch in batches(len(places), self.recipe.batch_size))
            run.program = Program(run.network, side=proxy.resolution, channels=self.ends.inputs, batch=largest)
            run.program.take(run.optimizer)
        if len(run.curve) < trial.epochs:
            for part in ("train", "valid"):
                self.images(part, proxy.resolution)
            values = (trial.epochs - len(run.curve)) * len(places) * self.ends.inputs * proxy.resolution**2
            if self.device.type == "cpu" and (run.program is not None or values > COMPILING_PAYS):
                self.compiles = True
                self.augmentation(proxy)  # here, where no seconds are charged
            with self.kept_if_stopped(key, run, leg) as note:
                while len(run.curve) < trial.epochs:
                    with self.metered(leg):
                        self.epoch(run, trial, places, leg)
                    note()
            if stage and (kept is None or len(kept["curve"]) < trial.epochs):
                self.checkpoints.save(key, state(run, leg))
        metrics = {"val_error": run.curve[-1]["val_error"]}
        if pool is not None:
            with self.metered(leg):
                pool.stage(run.network, trial, metrics["val_error"], ends=self.ends)
        if self.judge:
            self.images("test", proxy.resolution)
            with self.kept_if_stopped(key, run, leg, at_once=True), self.metered(leg):
                metrics["test_error"] = self.evaluate(run.network, "test", proxy.resolution, leg, run.program)[1]
        metrics["params"] = float(self.space.params(trial.arch, proxy, ends=self.ends))
        metrics["macs"] = float(self.macs(trial))
        return metrics, run.curve

    @contextmanager
    def kept_if_stopped(self, key: str, run: Run, leg: Leg, *, at_once: bool = False) -> Iterator[Callable[[], None]]:
        """Leave a checkpoint if the user stops the run inside the block, of when the block last called what it gets.

        Calls within two seconds of one another are one: copies take time. With `at_once` the block's beginning is one.
        """
        latest: State | None = copy.deepcopy(state(run, leg)) if at_once else None
        noted = time.monotonic()

        def note() -> None:
            nonlocal latest, noted
            if time.monotonic() - noted > NOTE_S:
                latest, noted = copy.deepcopy(state(run, leg)), time.monotonic()

        try:
            yield note
        except (KeyboardInterrupt, SystemExit):
            if latest is not None:
                with suppress(BadInput):  # the user wants to leave: then these epochs are trained again
                    self.checkpoints.save(key, latest | {"cut": True})
            raise

    def start(self, trial: Trial) -> Run:
        """The run before its first epoch."""
        network = build(
            self.space,
            trial.arch,
            trial.proxy,
            ends=self.ends,
            seed=trial.seed,
            lean=True,
        )
        layout: Any = {"memory_format": torch.channels_last}  # faster on CPUs too: docs/training.md
        network = network.to(self.device, **layout)
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.nesterov,
            weight_decay=self.recipe.weight_decay,
            foreach=True,  # bit for bit what a loop over the weights gives, in half of its time
        )
        return Run(network, optimizer)

    def epoch(self, run: Run, trial: Trial, places: Tensor, leg: Leg) -> None:
        """One epoch of training and its validation, added to the curve; the device is waited for at its end only."""
        began = self.clock()
        recipe, proxy, epoch = self.recipe, trial.proxy, len(run.curve)
        pool, labels = self.images("train", proxy.resolution), self.labels["train"]
        augmentation = self.augmentation(proxy)
        shuffled = torch.randperm(len(places), generator=generator(trial.seed, epoch, "order"))
        order = places[shuffled].to(self.device, non_blocking=True)
        drawn = augmentation.draw(len(order), trial.seed, epoch)
        loss_sum, wrong = torch.zeros(2, device=self.device, dtype=torch.float64).unbind()
        run.network.train()
        steps = batches(len(order), recipe.batch_size)
        progress = getattr(run.network, "progress", None)  # of a network that changes in the course of its run
        for number, batch in enumerate(steps):
            rate = recipe.learning_rate(epoch * len(steps) + number, len(steps), proxy.epochs)
            if progress is not None:
                progress((epoch * len(steps) + number) / (proxy.epochs * len(steps)))
            chosen = order[batch]
            x, y = augmentation.batch(pool, chosen, drawn, batch), labels[chosen]
            loss, mistakes = self.step(run, x, y, rate)
            loss_sum += loss
            wrong += mistakes
            leg.trained += len(y)
        if run.program is not None:
            run.program.give(run.optimizer, len(steps))
        valid_loss, valid_error = self.evaluate(run.network, "valid", proxy.resolution, leg, run.program)
        train_loss, train_wrong = torch.stack([loss_sum, wrong]).tolist()
        if not (math.isfinite(train_loss) and math.isfinite(valid_loss)):
            what = "training" if not math.isfinite(train_loss) else "validation"
            raise Diverged(f"diverged: the {what} loss of epoch {epoch + 1} is not finite")
        run.curve.append(
            {
                "epoch": epoch + 1,
                "train_loss": train_loss / len(order),
                "train_error": 100 * train_wrong / len(order),
                "val_loss": valid_loss,
                "val_error": valid_error,
                "lr": rate,
                "device_s": self.clock() - began,
            }
        )

    def step(self, run: Run, x: Tensor, y: Tensor, rate: float) -> tuple[Tensor | float, Tensor | int]:
        """One step of SGD; loss summed over its images, and how many were classified wrongly."""
        recipe = self.recipe
        if run.program is not None:
            return run.program.step(
                x.permute(0, 2, 3, 1).numpy(), y.numpy(), rate=rate, momentum=recipe.momentum,
                nesterov=recipe.nesterov, decay=recipe.weight_decay, clip=recipe.grad_clip,
                smoothing=recipe.label_smoothing,
            )  # fmt: skip
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = run.network(x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
        run.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.grad_clip:
            nn.utils.clip_grad_norm_(run.network.parameters(), recipe.grad_clip)
        run.optimizer.step()
        return loss.detach() * len(y), (logits.detach().argmax(1) != y).sum()

    @torch.no_grad()
    def evaluate(
        self, network: nn.Module, part: str, side: int, leg: Leg, program: Program | None = None
    ) -> tuple[float, float]:  # fmt: skip
        """Mean loss and error [%] on "valid" or "test", with the running statistics of the norms."""
        images, labels = self.images(part, side), self.labels[part]
        augmentation = Augmentation(self.data.mean, self.data.std, side, device=self.device)
        loss_sum, wrong = torch.zeros(2, device=self.device, dtype=torch.float64).unbind()
        network.eval()
        size = EVALUATION_BATCH if program is None else program.batch
        for start in range(0, len(labels), size):
            batch = slice(start, start + size)
            if program is not None:
                inputs = augmentation.normalise(images[batch]).permute(0, 2, 3, 1).numpy()
                loss, mistakes = program.evaluate(inputs, labels[batch].numpy())
                loss_sum += loss
                wrong += mistakes
                continue
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                logits = network(augmentation.normalise(images[batch]))
            loss_sum += F.cross_entropy(logits.float(), labels[batch], reduction="sum")
            wrong += (logits.argmax(1) != labels[batch]).sum()
        loss, errors = torch.stack([loss_sum, wrong]).tolist()
        leg.evaluated += len(labels)
        return loss / len(labels), 100 * errors / len(labels)

    def images(self, part: str, side: int) -> Tensor:
        """The images of a part at a resolution, on the device, uint8."""
        if (part, side) not in self.resized:
            images: Tensor = getattr(self.data, f"{part}_images")
            self.resized[part, side] = resize(images.to(self.device), side)
        return self.resized[part, side]

    def augmentation(self, proxy: Proxy) -> Augmentation:
        """What is done to training images under `proxy`; the padding shrinks and grows with the resolution."""
        padding = math.floor(self.data.crop_padding * proxy.resolution / self.side + 0.5) if self.recipe.crop else 0
        made = Augmentation(
            self.data.mean,
            self.data.std,
            proxy.resolution,
            padding=padding,
            flip=self.recipe.flip and self.data.flip,
            cutout=math.floor(self.recipe.cutout * proxy.resolution + 0.5),
            device=self.device,
        )
        if self.compiles:
            made.compile()
        return made

    @contextmanager
    def metered(self, leg: Leg) -> Iterator[None]:
        """Add the time and energy of a block to `leg`, however it ends."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what came before is not charged here
        with self.at_work():
            energy, began = self.energy() if self.energy else None, self.clock()
            try:
                yield
            finally:
                leg.device_s += self.clock() - began
                if self.energy and energy is not None:
                    leg.energy_j = (leg.energy_j or 0.0) + self.energy() - energy


def state(run: Run, leg: Leg) -> State:
    """What goes into a checkpoint."""
    return {
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "curve": run.curve,
        "leg": vars(leg),
    }


def restore(run: Run, kept: State) -> None:
    """The run as it was when `kept` was made of it."""
    run.network.load_state_dict(kept["network"])
    run.optimizer.load_state_dict(kept["optimizer"])
    run.curve = list(kept["curve"])
