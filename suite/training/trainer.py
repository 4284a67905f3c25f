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
from torch import nn

from suite.data.images import ImageData
from suite.networks import build
from suite.spaces import SearchSpace
from suite.tasks import OWN, make
from suite.tasks.base import Session, Task
from suite.tasks.images import batches
from suite.training.checkpoints import Checkpoints, State
from suite.training.compiled import kernels
from suite.training.compiled.program import refusal
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
from suite.training.recipe import Recipe, check_keys, recipe_of
from suite.training.steps import CompiledStepper, Stepper, TorchStepper
from suite.training.weights.pool import WeightPool
from suite.types import POOL, BadInput, Cost, Ends, Evaluation, KendallError, Proxy, Trial, Unsupported, refuse_origin

NOTE_S = 2.0
"""Between two states of a run that are kept in memory, to be written if the user stops it [s]."""
BACKWARD = 2
"""A backward pass counts as two forward passes: gradients of the inputs and of the weights."""


@dataclass
class Spent:
    """Work and seconds between where a run was resumed and where it was evaluated."""

    trained: int = 0
    """Passes of one image forward and backward."""
    evaluated: int = 0
    """Passes of one image forward only."""
    device_s: float = 0.0
    energy_j: float | None = None


@dataclass
class Run:
    """One network on its way."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    session: Session
    """The task's session with this network."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """One entry an epoch done."""


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
        pool: WeightPool | None = None,
        deterministic: bool = False,
    ) -> None:
        self.space, self.recipe, self.threads, self.judge = space, recipe, threads, judge
        self.base_recipe = recipe
        """The run's recipe; `recipe` is the trial's in a trainer that `trained_by` made."""
        self.deterministic = deterministic
        self.device = torch.device(device)
        self.checkpoints, self.pool = Checkpoints(checkpoints), pool
        self.data = data
        self.tasks: dict[str, Task] = {}
        self.own = self.task("")
        """The task that is judged on."""
        self.half = recipe.precision == "bfloat16" or (
            recipe.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        if recipe.step == "compiled" and (why := refusal(space.part(space.at(0))[0], self.device, threads)):
            raise Unsupported(f'recipe: step = "compiled" {why}; set step = "torch"')
        self.device_name = device_name(self.device, threads)
        self.energy, self.clock = energy_counter(self.device), device_clock(self.device, threads)
        self.at_work: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered while the device works for a trial."""

    def check(self, trial: Trial) -> None:
        """Raises Unsupported or BadInput if `trial` cannot be trained here."""
        self.space.check(trial.arch)
        check_keys(self.space.training(trial.arch))
        self.check_proxy(trial.proxy)
        refuse_origin(trial, "live training")
        if self.judge and self.task(trial.proxy.task) is not self.own:
            raise Unsupported(
                f"the judge scores on the board's own task, {self.own.name}, not on {trial.proxy.task}; "
                "leave task out of the full setting"
            )
        if trial.origin == POOL and self.pool is not None and self.task(trial.proxy.task) is not self.own:
            raise Unsupported(f"pool: its weights have learnt {self.own.name}, not {trial.proxy.task}; do not inherit")

    def task(self, name: str) -> Task:
        """The task of a proxy, made once; "" is the one that is judged on."""
        name = "" if name == OWN else name
        if name not in self.tasks:
            self.tasks[name] = make(name, self.data, self.recipe)
        return self.tasks[name]

    def opened(self, network: nn.Module, proxy: Proxy, seed: int) -> Session:
        """The proxy's task with one network."""
        return self.task(proxy.task).session(network, proxy, seed=seed, device=self.device, half=self.half)

    def check_proxy(self, proxy: Proxy) -> None:
        """Raises Unsupported if no network can be trained here under `proxy`."""
        self.space.check_proxy(proxy)
        task = self.task(proxy.task)
        if self.recipe.step == "compiled" and task.compiled:
            raise Unsupported(f'recipe: step = "compiled" {task.compiled}; set step = "torch"')
        task.check(proxy)
        self.space.check_proxy(task.seen(proxy))
        if proxy.epochs <= self.recipe.warmup_epochs:
            raise Unsupported(
                f"recipe: a warm-up of {self.recipe.warmup_epochs} epochs leaves nothing of the proxy's "
                f"{proxy.epochs}; use at least {self.recipe.warmup_epochs + 1} epochs or a shorter warm-up"
            )

    def key(self, trial: Trial) -> str:
        """All that the run of `trial` depends on."""
        run = (self.space.text(trial.arch), trial.proxy, trial.seed)
        here = (self.data.fingerprint, self.base_recipe, self.device_name, self.half, torch.__version__)
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
        leg = Spent()
        try:
            trainer = self.trained_by(trial)
        except (BadInput, Unsupported) as refusal:
            return Evaluation(trial, dict.fromkeys(self.metrics, math.inf), self.cost(trial, leg), str(refusal))
        curve: list[dict[str, float]] = []
        try:
            with threads(self.threads), exact(self.deterministic and self.device.type == "cuda"):
                metrics, curve = trainer.train(trial, leg)
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

    def trained_by(self, trial: Trial) -> Trainer:
        """This trainer under the recipe of the trial, which its architecture may change; data and clocks are shared.

        Raises:
            BadInput: Its recipe is none: a value is out of its range, or does not go with another.
            Unsupported: Its task refuses the recipe.
        """
        recipe = recipe_of(self.base_recipe, self.space.training(trial.arch), trial.proxy.epochs)
        if recipe == self.recipe:
            return self
        other = copy.copy(self)
        other.recipe = recipe
        other.tasks = {name: task.prepared_by(recipe) for name, task in self.tasks.items()}
        other.own = other.tasks[""]
        other.task(trial.proxy.task).check(trial.proxy)
        return other

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics in an answer."""
        return ("val_error", *(("test_error",) if self.judge else ()), "params", "macs")

    def failed(self, trial: Trial, failure: str, device_s: float) -> Evaluation:
        """The answer if this process itself did not survive the trial."""
        return Evaluation(trial, dict.fromkeys(self.metrics, math.inf), Cost(device_s, self.device_name), failure)

    def cost(self, trial: Trial, leg: Spent) -> Cost:
        """The price of a leg."""
        forward = (1 + BACKWARD) * leg.trained + leg.evaluated
        return Cost(leg.device_s, self.device_name, leg.energy_j, float(forward * self.trained_macs(trial)))

    def macs(self, trial: Trial) -> int:
        """Multiply-adds of one image forward through the network of the board's own task, as reported."""
        return self.space.macs(trial.arch, trial.proxy, ends=self.ends)

    def trained_macs(self, trial: Trial) -> int:
        """Multiply-adds of one input of the task forward, as executed here."""
        task = self.task(trial.proxy.task)
        return self.space.trained_macs(trial.arch, task.seen(trial.proxy), ends=task.ends)

    @property
    def ends(self) -> Ends:
        """The inputs and outputs that the board's own task asks of a network."""
        return self.own.ends

    def train(self, trial: Trial, leg: Spent) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Metrics and curve; what it took is added to `leg` as it is spent."""
        proxy, key = trial.proxy, self.key(trial)
        run = self.start(trial)
        session = run.session
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
        stepper = self.stepper(run, proxy)
        if len(run.curve) < trial.epochs:
            compiled = self.recipe.step == "compiled"
            session.ready("train", epochs=math.inf if compiled else trial.epochs - len(run.curve))
            session.ready("valid")
            with self.kept_if_stopped(key, run, leg) as note:
                while len(run.curve) < trial.epochs:
                    with self.metered(leg):
                        self.epoch(run, trial, stepper, leg)
                    note()
            if stage and (kept is None or len(kept["curve"]) < trial.epochs):
                self.checkpoints.save(key, state(run, leg))
        metrics = {"val_error": run.curve[-1]["val_error"]}
        if pool is not None:
            with self.metered(leg):
                pool.stage(run.network, trial, metrics["val_error"], ends=self.ends)
        if self.judge:
            session.ready("test")
            with self.kept_if_stopped(key, run, leg, at_once=True), self.metered(leg):
                metrics["test_error"] = stepper.score("test")["error"]
                leg.evaluated += session.size("test")
        metrics["params"] = float(self.space.params(trial.arch, proxy, ends=self.ends))
        metrics["macs"] = float(self.macs(trial))
        return metrics, run.curve

    @contextmanager
    def kept_if_stopped(self, key: str, run: Run, leg: Spent, *, at_once: bool = False) -> Iterator[Callable[[], None]]:
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
        task = self.task(trial.proxy.task)
        network = build(
            self.space,
            trial.arch,
            task.seen(trial.proxy),
            ends=task.ends,
            seed=trial.seed,
            skip_dead_edges=True,
        )
        layout: Any = {"memory_format": torch.channels_last}  # faster on CPUs too: docs/training.md
        network = network.to(self.device, **layout)
        session = self.opened(network, trial.proxy, trial.seed)
        optimizer = torch.optim.SGD(
            [*network.parameters(), *session.modules.to(self.device).parameters()],
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.nesterov,
            weight_decay=self.recipe.weight_decay,
            foreach=True,  # bit for bit what a loop over the weights gives, in half of its time
        )
        return Run(network, optimizer, session)

    def stepper(self, run: Run, proxy: Proxy) -> Stepper:
        """Who takes the run's steps, from where it stands."""
        if self.recipe.step == "torch":
            return TorchStepper(
                run.session, run.network, run.optimizer, self.recipe, device=self.device, half=self.half
            )
        task = self.task(proxy.task)
        largest = max(batch.stop - batch.start for batch in batches(run.session.count("train"), self.recipe.batch_size))
        return CompiledStepper(
            run.session, run.network, run.optimizer, self.recipe,
            side=task.seen(proxy).resolution, channels=task.ends.inputs, largest=largest,
            copies=task.copies,
        )  # fmt: skip

    def epoch(self, run: Run, trial: Trial, stepper: Stepper, leg: Spent) -> None:
        """One epoch of training and its validation, added to the curve; the device is waited for at its end only."""
        began = self.clock()
        recipe, proxy, epoch, session = self.recipe, trial.proxy, len(run.curve), run.session
        steps = session.steps()
        loss_sum, wrong = torch.zeros(2, device=self.device, dtype=torch.float64).unbind()
        answers = 0
        run.network.train()
        progress = getattr(run.network, "progress", None)  # of a network that changes in the course of its run
        for number, batch in enumerate(session.batches(epoch)):
            rate = recipe.learning_rate(epoch * steps + number, steps, proxy.epochs)
            if progress is not None:
                progress((epoch * steps + number) / (proxy.epochs * steps))
            loss, mistakes = stepper.step(batch, rate)
            loss_sum += loss
            wrong += mistakes
            answers += batch.answers
            leg.trained += batch.size
        stepper.epoch_over(steps)
        scored = stepper.score("valid")
        leg.evaluated += session.size("valid")
        train_loss, train_wrong = torch.stack([loss_sum, wrong]).tolist()
        if not (math.isfinite(train_loss) and math.isfinite(scored["loss"])):
            what = "training" if not math.isfinite(train_loss) else "validation"
            raise Diverged(f"diverged: the {what} loss of epoch {epoch + 1} is not finite")
        run.curve.append(
            {
                "epoch": epoch + 1,
                "train_loss": train_loss / answers,
                "train_error": 100 * train_wrong / answers,
                **{f"val_{name}": float(value) for name, value in scored.items()},
                "lr": rate,
                "device_s": self.clock() - began,
            }
        )

    @contextmanager
    def metered(self, leg: Spent) -> Iterator[None]:
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


def state(run: Run, leg: Spent) -> State:
    """The state of a run, as a checkpoint holds it."""
    return {
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "curve": run.curve,
        "leg": vars(leg),
        "session": run.session.state(),
    }


def restore(run: Run, kept: State) -> None:
    """The run as it was when `kept` was made of it."""
    run.network.load_state_dict(kept["network"])
    run.optimizer.load_state_dict(kept["optimizer"])
    run.curve = list(kept["curve"])
    run.session.load(kept.get("session", {}))
