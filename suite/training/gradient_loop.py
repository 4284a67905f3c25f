"""The loop of gradient searches: a supernet's weights and its mixture are trained, an answer an epoch.

It is the counterpart of `suite.search.run`: the searcher (`suite.types.GradientSearch`) builds the supernet, takes
steps and says what cell it would hand over; images, schedule, checkpoints and cost are here. As in all training here,
chance comes from generators seeded by the seed, the epoch and the step, so that on a CPU a search that was cut off and
goes on equals the search in one go bit for bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suite.data.images import ImageData
from suite.networks.learner import Batch, Validated
from suite.networks.mixture import Mixes
from suite.pareto import Incumbents
from suite.tasks.base import Half, Session
from suite.training.checkpoints import State
from suite.training.device import Diverged, pick_device, reason, threads
from suite.training.recipe import Recipe, resolve_for_supernet
from suite.training.supernet import Seen, begun, learner_of, not_finite, show
from suite.training.trainer import Run, Spent, Trainer, restore, state
from suite.types import (
    ERROR_ALONE,
    Architecture,
    BadInput,
    Cost,
    Ends,
    Evaluation,
    Goal,
    GradientSearch,
    Proxy,
    Recommendation,
    Trial,
)


def differentiable(
    searcher: GradientSearch, data: ImageData, proxy: Proxy,
    *, checkpoints: Path, recipe: str | Mapping[str, Any] | Recipe = "darts_search", seed: int = 0,
    device: str = "auto", cpu_threads: int = 1,
) -> Iterator[Recommendation]:  # fmt: skip
    """A search from its last checkpoint on, a recommendation an epoch; those before the checkpoint come again.

    Arguments and refusals are those of `epochs`.
    """
    answers = epochs(
        searcher, data, proxy, checkpoints=checkpoints, recipe=recipe, seed=seed, device=device, cpu_threads=cpu_threads
    )
    return recommendations(answers, searcher.keep)


def recommendations(answers: Iterable[Evaluation], keep: str, goal: Goal = ERROR_ALONE) -> Iterator[Recommendation]:
    """Recommendations of a gradient search, one an answer, in the order of epochs.

    Args:
        answers: Epochs of one search, from its first on.
        keep: Which epochs compete for the incumbent: "last", the newest that is feasible; "best", all of them.
        goal: What picks among them; a failed or infeasible epoch is never recommended.
    """
    incumbents = Incumbents(goal, "the search", among="all" if keep == "best" else "longest")
    device_s = 0.0
    for count, answer in enumerate(answers, start=1):
        device_s += answer.cost.device_s
        incumbents.add(answer)
        yield incumbents.recommend(count, device_s, device_s)


def epochs(
    searcher: GradientSearch, data: ImageData, proxy: Proxy,
    *, checkpoints: Path, recipe: str | Mapping[str, Any] | Recipe = "darts_search", seed: int = 0,
    device: str = "auto", cpu_threads: int = 1, done: int = 0,
) -> Iterator[Evaluation]:  # fmt: skip
    """Train, and answer at the end of every epoch.

    An answer is about the cell that would be handed over after the epoch, asked as the trial of so many epochs. Its
    `val_error` is that of the supernet under `searcher.weights()` on the held-out images, which neither the weights nor
    the mixture see; `params` and `macs` are the cell's by itself; its cost and its curve, of one entry, are the
    epoch's alone. An epoch that fails (its loss is not finite, no memory) is answered with infinite metrics and ends
    the search.

    A checkpoint is written before an answer is given and holds all answers so far. So whoever writes answers to a log
    and is killed between the two is given the answer of the checkpoint, and none is charged twice.

    Args:
        searcher: Who learns; at its beginning.
        data: Images; the test part is not looked at.
        proxy: Size and schedule. Its `samples` are of the training part, before that is halved.
        checkpoints: Folder of the searches under way.
        recipe: For the weights: "darts_search", "nas_bench_201_search", a table of values, a Recipe.
        seed: Of everything that is drawn.
        device: "auto", "cpu", "cuda", "cuda:1".
        cpu_threads: Of a CPU; results depend on their number in the last bits.
        done: Answers that the caller has from before; they are not given again.

    Raises:
        Unsupported: The space has no supernet, or not under `proxy`, or the searcher cannot search it.
        BadInput: A value is out of its range; or a checkpoint cannot be written.
    """
    if done >= proxy.epochs:
        return
    trainer = Trainer(
        searcher.space, data, resolve_for_supernet(recipe), device=str(pick_device(device)), threads=cpu_threads,
        judge=False, checkpoints=checkpoints,
    )  # fmt: skip
    trainer.check_proxy(proxy)
    search = GradientRun(searcher, trainer, proxy, seed)
    lost = done - len(search.answers)
    if lost > 0:
        warnings.warn(
            f"{trainer.checkpoints.path(search.key)}: no checkpoint of the {done} epochs that are done; "
            f"{lost} of them are trained again, and not charged again",
            stacklevel=2,
        )
    yield from search.answers[done:]
    while len(search.answers) < proxy.epochs and not (search.answers and search.answers[-1].failure):
        answer = search.epoch()
        if len(search.answers) > done:
            yield answer


class GradientRun:
    """A gradient search between two epochs, taken up from its checkpoint if there is one."""

    def __init__(self, searcher: GradientSearch, trainer: Trainer, proxy: Proxy, seed: int) -> None:
        self.searcher, self.trainer, self.proxy, self.seed = searcher, trainer, proxy, seed
        self.key = key(searcher, trainer, proxy, seed)
        self.answers: list[Evaluation] = []
        kept = trainer.checkpoints.load(self.key)
        if kept is not None:
            searcher.load(kept["searcher"])
            self.answers = [answer_in(row) for row in kept["answers"]]
        size = proxy if kept is None else Proxy(**kept.get("proxy", asdict(proxy)))
        run = begun(trainer, built(searcher, trainer.task(proxy.task).ends, seed), size, seed)
        self.opened: tuple[nn.Module, Proxy, Session] = (run.network, size, run.session)
        self.learner = learner_of(run, trainer, size, seed, self.validated)
        if kept is not None:
            restore(run, kept)
        searcher.begin(self.learner, proxy.epochs)
        self.arch = self.answers[-1].trial.arch if self.answers else None
        self.half: Half = "weights" if searcher.bilevel else "all"

    def epoch(self) -> Evaluation:
        """Train and score an epoch; its answer, which is in the checkpoint then."""
        trainer, proxy, leg = self.trainer, self.proxy, Spent()
        number = len(self.answers)
        self.learner.macs = 0.0
        curve: tuple[dict[str, float], ...] = ()
        failure = ""
        try:
            with threads(trainer.threads):
                self.session.ready("train")
                self.session.ready("valid")
                with trainer.metered(leg):
                    self.arch = self.arch or self.searcher.derive()  # here, as it may cost passes
                    entry = self.train(number)
            metrics = {
                "val_error": entry["val_error"],
                "params": float(trainer.space.params(self.arch, proxy, ends=trainer.ends)),
                "macs": float(trainer.space.macs(self.arch, proxy, ends=trainer.ends)),
            }
            curve = ({**entry, **chosen(self.learner.supernet, self.arch), "device_s": leg.device_s},)
        except (Diverged, MemoryError, RuntimeError) as error:  # torch's own, out of memory too, are the last
            self.arch = self.arch or self.searcher.derive()
            failure = reason(error, trainer.device_name)
            metrics = dict.fromkeys(("val_error", "params", "macs"), math.inf)
        trial = Trial(self.arch, proxy, epochs=number + 1, seed=self.seed)
        cost = Cost(leg.device_s, trainer.device_name, leg.energy_j, self.learner.macs)
        self.answers.append(Evaluation(trial, metrics, cost, failure, curve))
        self.save()
        return self.answers[-1]

    @property
    def size(self) -> Proxy:
        """The proxy under which images are shown to the present network."""
        return self.learner.proxy or self.proxy

    @property
    def session(self) -> Session:
        """The task with the present network; opened again where the searcher has put another in its place."""
        network, size, session = self.opened
        present = self.learner.supernet
        assert isinstance(present, nn.Module)
        if present is not network or self.size != size:
            show(self.trainer, present, self.size)
            successor = self.trainer.opened(present, self.size, self.seed)
            successor.load(session.state())
            session, self.learner.loss = successor, successor.loss
            self.opened = (present, self.size, session)
        return session

    def validated(self, network: Mixes) -> Validated:
        """Loss and error of what a network was told to compute, on the data set's held-out images."""
        assert isinstance(network, nn.Module)
        session = self.session
        scored = session.score("valid")
        return Validated(scored["loss"], scored["error"], session.size("valid"))

    def train(self, number: int) -> dict[str, float]:
        """The steps of an epoch and the score after it; the device is waited for at its end only."""
        trainer, learner, searcher = self.trainer, self.learner, self.searcher
        learner.epoch, learner.number = number, 0
        searcher.epoch(number)
        session = self.session
        steps, seen = session.steps(self.half), Seen(trainer.device)
        learner.supernet.train()
        learner.stepping = True
        try:
            for step, train in enumerate(session.batches(number, self.half)):
                learner.number = step
                learner.lr = trainer.recipe.learning_rate(number * steps + step, steps, self.proxy.epochs)
                held = cache(partial(session.held, number, step)) if searcher.bilevel else partial(same, train)
                seen.add(searcher.step(train, held), session)
        finally:
            learner.stepping = False
        valid_loss, valid_error, _ = learner.scored(searcher.weights())
        self.arch = searcher.derive()
        child_error = learner.score(self.arch)
        train_loss, train_error = seen.means()
        for what, loss in (("training", train_loss), ("validation", valid_loss)):
            if not math.isfinite(loss):
                raise Diverged(f"diverged: {not_finite(f'{what} loss', number, trainer.recipe)}")
        return {
            "epoch": number + 1,
            "train_loss": train_loss,
            "train_error": train_error,
            "val_loss": valid_loss,
            "val_error": valid_error,
            "child_error": child_error,
            "lr": learner.lr,
            **searcher.log(),
        }

    def save(self) -> None:
        """All that going on needs."""
        assert isinstance(self.learner.supernet, nn.Module)
        kept = state(Run(self.learner.supernet, self.learner.optimizer, self.session), Spent()) | {
            "searcher": self.searcher.state(),
            "proxy": asdict(self.size),
            "answers": [answer_out(answer) for answer in self.answers],
        }
        self.trainer.checkpoints.save(self.key, kept)


def same(batch: Batch) -> Batch:
    """Where there is one level, what the logits step on."""
    return batch


def built(searcher: GradientSearch, ends: Ends, seed: int) -> nn.Module:
    """The network of mixtures that a searcher wants to train, on the CPU.

    Raises:
        BadInput: It is none.
    """
    network = searcher.build(ends, seed)
    if not (isinstance(network, nn.Module) and isinstance(network, Mixes)):
        raise BadInput(
            f"{type(searcher).__name__}.build must return a module with the methods of suite.networks.mixture.Mixes, "
            f"not a {type(network).__name__}"
        )
    return network


def chosen(supernet: Mixes, arch: Architecture) -> dict[str, float]:
    """How many operations of a cell are `skip_connect`, how many `none`, where there are such operations."""
    names = [supernet.options[option] for option in supernet.one_hot(arch).nonzero()[:, 1].tolist()]
    counted = {"skips": "skip_connect", "nones": "none"}
    return {word: float(names.count(name)) for word, name in counted.items() if name in supernet.options}


def key(searcher: GradientSearch, trainer: Trainer, proxy: Proxy, seed: int) -> str:
    """All that a search depends on; of the searcher its class, plain attributes and option values, at its beginning."""
    plain = (bool, int, float, str, tuple, type(None))
    options = sorted(
        (name, repr(value) if is_dataclass(value) else value)
        for name, value in vars(searcher).items()
        if isinstance(value, plain) or (is_dataclass(value) and not isinstance(value, Proxy))
    )
    here = (trainer.data.fingerprint, trainer.recipe, trainer.device_name, trainer.half, torch.__version__)
    run = (trainer.space.name, trainer.space.canonical(proxy), seed)
    return repr(("gradient search", type(searcher).__qualname__, options, *run, *here))


def answer_out(answer: Evaluation) -> State:
    """An answer as a checkpoint holds it."""
    return {
        "arch": list(answer.trial.arch), "proxy": asdict(answer.trial.proxy), "epochs": answer.trial.epochs,
        "seed": answer.trial.seed, "metrics": dict(answer.metrics), "cost": asdict(answer.cost),
        "failure": answer.failure, "curve": [dict(entry) for entry in answer.curve],
    }  # fmt: skip


def answer_in(kept: State) -> Evaluation:
    """What `answer_out` wrote."""
    trial = Trial(tuple(kept["arch"]), Proxy(**kept["proxy"]), kept["epochs"], kept["seed"])
    return Evaluation(trial, kept["metrics"], Cost(**kept["cost"]), kept["failure"], tuple(kept["curve"]))
