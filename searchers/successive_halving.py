"""Successive halving: many short trainings, the best 1/eta of them trained on, and so on up to the full length.

Jamieson, Talwalkar. "Non-stochastic Best Arm Identification and Hyperparameter Optimization". AISTATS 2016.
https://arxiv.org/abs/1502.07943. With eta and floors as in Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar. "Hyperband".
JMLR 18, 2018. https://arxiv.org/abs/1603.06560

The resource is epochs, and a rung is a stage of one run of the proxy: training goes on from there and pays only for the
new epochs. The learning rate follows the proxy's whole schedule, so errors are compared inside a rung only.

Departures: brackets of one size follow each other until the budget ends, where the paper sizes one bracket to the
budget and Hyperband varies the shortest training. No architecture is drawn twice. Failures are never trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from searchers.parts.draw import unseen
from searchers.parts.options import AtLeast, Count, checked
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial


class SuccessiveHalving:
    """Brackets of random architectures; a rung waits for all its answers."""

    family = "multi-fidelity"
    objectives = ("val_error",)
    needs = ("stages",)
    paper = "Jamieson & Talwalkar, AISTATS 2016, arXiv:1502.07943"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, eta: Annotated[int, AtLeast(2)] = 3, initial: Count | None = None, min_epochs: Count = 1,
        rungs: tuple[Count, ...] | None = None, stages: tuple[Count, ...] | None = None,
    ) -> None:  # fmt: skip
        """Start with an empty bracket.

        Args:
            space: What to search.
            proxy: The run that the rungs are stages of.
            rng: All chance comes from here.
            eta: The best one in so many is trained on, for so many times the epochs.
            initial: Architectures of a bracket; None: so many that one reaches the last rung.
            min_epochs: The first rung is no shorter.
            rungs: Epochs of the rungs, shortest first; None: `proxy.epochs` / eta^k, of `stages` those nearest.
            stages: Epochs at which a run can be stopped; None: any.
        """
        method = "successive_halving"
        for name, epochs in (("min_epochs", (min_epochs,)), ("rungs", rungs), ("stages", stages)):
            if epochs == ():
                raise BadInput(f"{method}: {name} must name at least one number of epochs")
            if epochs is not None and max(epochs) > proxy.epochs:
                raise BadInput(f"{method}: {name} must be at most the proxy's {proxy.epochs} epochs, not {max(epochs)}")
        self.space, self.proxy, self.rng, self.stages, self.eta = space, proxy, rng, stages, eta
        if rungs is None:
            self.rungs = geometric(proxy.epochs, eta, min_epochs, stages)
        else:
            self.rungs = rungs
            if list(self.rungs) != sorted(set(self.rungs)):
                raise BadInput(f"{method}: rungs must rise, not {self.rungs}")
            if stages is not None and not set(self.rungs) <= set(stages):
                raise BadInput(f"{method}: rungs {self.rungs} are not all among the stages there are: {stages}")
        self.initial = eta ** (len(self.rungs) - 1) if initial is None else initial
        self.note = f"one stage, {self.rungs[0]} epochs: random search without repeats" if len(self.rungs) == 1 else ""
        """Remark for readers of the result; empty unless the rungs make it another method."""
        self.drawn: set[Architecture] = set()
        self.rung = len(self.rungs) - 1
        self.members: list[Architecture] = []
        self.errors: dict[Architecture, float] = {}
        """Answers of the current rung."""

    def ask(self) -> list[Trial]:
        """A whole rung; nothing while one of it is due."""
        if len(self.errors) < len(self.members):
            return []
        self.members = self.promoted()
        self.rung += 1
        if not self.members:
            self.members, self.rung = self.draw(), 0
        self.errors = {}
        return [Trial(arch, self.proxy, self.rungs[self.rung]) for arch in self.members]

    def promoted(self) -> list[Architecture]:
        """The best 1/eta of a rung, at least one, the earlier of equals; none of the last rung, none that failed."""
        if self.rung == len(self.rungs) - 1:
            return []
        ranked = sorted(self.members, key=self.errors.__getitem__)
        best = ranked[: max(1, len(ranked) // self.eta)]
        return [arch for arch in best if math.isfinite(self.errors[arch])]

    def draw(self) -> list[Architecture]:
        """The members of a new bracket; fewer where the space ends."""
        members: list[Architecture] = []
        while len(members) < self.initial and (arch := unseen(self.space, self.rng, self.drawn)) is not None:
            self.drawn.add(arch)
            members.append(arch)
        return members

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Note the errors, in whatever order."""
        self.errors.update((e.trial.arch, e.metrics["val_error"]) for e in evaluations)


def geometric(epochs: int, eta: int, min_epochs: int, stages: Sequence[int] | None) -> tuple[int, ...]:
    """Rungs at epochs / eta^k down to `min_epochs`, each moved to the nearest stage there is, by ratio.

    >>> geometric(200, 3, 1, None)
    (2, 7, 22, 67, 200)
    >>> geometric(200, 3, 1, (12, 200))
    (12, 200)
    """
    rungs = math.floor(math.log(epochs / min_epochs, eta) + 1e-9) + 1
    wanted = {max(min_epochs, round(epochs / eta**k)) for k in range(rungs)}
    if stages is None:
        return tuple(sorted(wanted))
    there = [stage for stage in stages if stage >= min_epochs] or [max(stages)]
    nearest = {min(there, key=lambda stage: (abs(math.log(stage / epochs)), -stage)) for epochs in wanted}
    return tuple(sorted(nearest))
