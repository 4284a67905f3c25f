"""EcoNAS: evolution under one proxy in three stages; only the better networks are trained on.

Zhou, Zhou, Zhang, Loy, Yi, Zhang, Ouyang. "EcoNAS: Finding Proxies for Economical Neural Architecture Search".
CVPR 2020. https://arxiv.org/abs/2001.01233

A network stands in the group of its longest stage: P_E, P_2E, P_3E. Each cycle trains children of all groups for E
epochs and the best of P_E and P_2E for E more, each from its checkpoint. Three stages are one run of the proxy, whose
schedule they share, so E is a third of `proxy.epochs`: 20 of the paper's 60. Fitness is the least error over the stages
of a network, and compared inside a group only: P_E stands at a high learning rate.

`hierarchy=False` is the paper's control, the authors' `main_single`: one group, trained to the proxy's end at once. At
equal cost its proxy has 35 epochs: 16 x 35 = 28 x 20 epochs a cycle.

Departures: a tournament and mutation that give a network seen before are drawn again (`repeats=False`), since in a
small space most mutants of the best are known; a failed training takes its network out; where no network is left, the
search begins anew with random ones. With several workers a cycle waits for all its answers, as the authors' does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from searchers.parts.draw import unseen
from searchers.parts.options import AtLeast, Count, checked
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial

Whole = Annotated[int, AtLeast(0)]
TRIES = 100
"""So many children in vain, and the cycle has one child less."""


@dataclass(eq=False)
class Network:
    """A network and its stage records."""

    arch: Architecture
    trained: int
    """The cycle in which it was last trained."""
    errors: list[float] = field(default_factory=list)
    """Validation errors after each stage [%]."""


class EcoNAS:
    """Children of three groups, and promotions from each group to the next."""

    family = "evolution"
    objectives = ("val_error",)
    needs = ("stages",)
    paper = "Zhou et al., CVPR 2020, arXiv:2001.01233"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, initial: Count = 16, children: tuple[Whole, ...] = (6, 5, 5), promoted: tuple[Whole, ...] = (8, 4),
        life: Count = 10, tournament: Count = 4, cycles: Whole = 100, hierarchy: bool = True,
        stage_epochs: tuple[Count, ...] | None = None, repeats: bool = False, group_size: Count | None = None,
        stages: tuple[Count, ...] | None = None,
    ) -> None:  # fmt: skip
        """Start without any networks, at cycle 0.

        Args:
            space: What to search.
            proxy: The run whose stages networks go through.
            rng: All chance comes from here.
            initial: N0: random networks at the beginning.
            children: Of each group in a cycle, P_E first. With fewer stages the last group has those of the missing.
            promoted: Networks of each group but the last that are trained on in a cycle.
            life: Cycles after its last training in which a network may be parent or promoted.
            tournament: One in so many of a group, rounded down, and one more contend.
            cycles: The search ends after so many; 0: it goes on until the budget ends.
            hierarchy: Whether there are stages; without, every network is trained to the proxy's end.
            stage_epochs: Epochs of the stages, E, 2E, 3E; None: thirds of the proxy's, of `stages` those nearest.
            repeats: Whether a network may be drawn again, as in the authors' code.
            group_size: Beyond so many, those of a group that were trained longest ago leave it; None: any number.
            stages: Epochs at which a run can be stopped; None: any.
        """
        self.space, self.proxy, self.rng = space, proxy, rng
        self.initial, self.life, self.tournament, self.cycles = initial, life, tournament, cycles
        self.repeats, self.group_size = repeats, group_size
        if not any(children) or len(promoted) != len(children) - 1:
            raise BadInput(
                "econas: children must name one number a group, not all 0, and promoted one less, "
                f"not {list(children)} and {list(promoted)}"
            )
        groups = len(children) if hierarchy else 1
        self.stage_epochs = staged(proxy.epochs, groups, stage_epochs, stages)
        last = len(self.stage_epochs) - 1
        self.children = (*children[:last], sum(children[last:]))
        self.promoted = promoted[:last]
        self.remarks = remarks(self.stage_epochs, groups, proxy.epochs)
        self.cycle = 0
        self.networks: list[Network] = []
        """Those that may yet be parents or promoted, the oldest first."""
        self.due: dict[Trial, list[Network]] = {}
        self.seen: set[Architecture] = set()

    @property
    def note(self) -> str:
        """Deviation from the paper's search, for readers of the result; empty if there is none."""
        ended = [f"ended after {self.cycles} cycles"] if self.cycles and self.cycle == self.cycles else []
        return ", ".join([*self.remarks, *ended])

    def ask(self) -> list[Trial]:
        """All trainings of a cycle; nothing while one of the last is due."""
        if self.due or (self.cycles and self.cycle == self.cycles):
            return []
        groups = [self.group(stage) for stage in range(1, len(self.stage_epochs) + 1)]
        living = {network for group in groups for network in group}
        self.networks = [network for network in self.networks if network in living]
        asked = [*self.continued(groups), *self.mutants(groups)]
        if not asked:
            return self.beginners()
        self.cycle += 1
        return asked

    def group(self, stage: int) -> list[Network]:
        """Those with so many stage records whose time is not over, the earliest drawn first."""
        members = [
            network
            for network in self.networks
            if len(network.errors) == stage and self.cycle - network.trained < self.life
        ]
        if self.group_size is None or len(members) <= self.group_size:
            return members
        latest = set(sorted(members, key=lambda network: network.trained)[-self.group_size :])
        return [network for network in members if network in latest]

    def continued(self, groups: Sequence[Sequence[Network]]) -> list[Trial]:
        """The next stage of the best of each group but the last; of equals the one drawn earlier."""
        ranked = [sorted(group, key=fitness) for group in groups]
        return [
            self.trial(network)
            for group, promoted in zip(ranked[:-1], self.promoted, strict=True)
            for network in group[:promoted]
        ]

    def mutants(self, groups: Sequence[Sequence[Network]]) -> list[Trial]:
        """The first stage of the children; an empty group has none."""
        asked = []
        for group, children in zip(groups, self.children, strict=True):
            for _ in range(children if group else 0):
                arch = self.child(group)
                if arch is not None:
                    asked.append(self.first(arch))
        return asked

    def child(self, group: Sequence[Network]) -> Architecture | None:
        """A mutant of the winner of a tournament; None if all that were drawn are known."""
        for _ in range(TRIES):
            contenders = self.rng.choice(len(group), len(group) // self.tournament + 1)  # with replacement
            parent = min((group[i] for i in contenders), key=fitness)
            arch = self.space.mutate(parent.arch, self.rng)
            if self.repeats or arch not in self.seen:
                return arch
        return None

    def beginners(self) -> list[Trial]:
        """The first stage of random networks; fewer where the space ends."""
        asked: list[Trial] = []
        while len(asked) < self.initial:
            arch = self.space.sample(self.rng) if self.repeats else unseen(self.space, self.rng, self.seen)
            if arch is None:
                break
            asked.append(self.first(arch))
        return asked

    def first(self, arch: Architecture) -> Trial:
        """The first stage of a new network."""
        self.seen.add(arch)
        self.networks.append(Network(arch, self.cycle))
        return self.trial(self.networks[-1])

    def trial(self, network: Network) -> Trial:
        """The next stage of a network."""
        network.trained = self.cycle
        trial = Trial(network.arch, self.proxy, self.stage_epochs[len(network.errors)])
        self.due.setdefault(trial, []).append(network)
        return trial

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Write the records, in whatever order they come."""
        for evaluation in evaluations:
            networks = self.due[evaluation.trial]
            network = networks.pop(0)
            if not networks:
                del self.due[evaluation.trial]
            error = evaluation.metrics["val_error"]
            if math.isfinite(error):
                network.errors.append(error)
            else:
                self.networks.remove(network)


def fitness(network: Network) -> float:
    """The least error over the stages so far [%]."""
    return min(network.errors)


def staged(
    epochs: int, groups: int, chosen: Sequence[int] | None, stages: Sequence[int] | None
) -> tuple[int, ...]:  # fmt: skip
    """Epochs of the stages: equal parts of the run, rounded up, or the nearest stages there are, by ratio.

    >>> staged(60, 3, None, None), staged(20, 3, None, None), staged(60, 1, None, None)
    ((20, 40, 60), (7, 14, 20), (60,))
    >>> staged(60, 3, None, (1, 15, 60)), staged(60, 3, None, (1, 60))
    ((15, 60), (60,))
    """
    if chosen is None:
        wanted = [math.ceil(epochs * (k + 1) / groups) for k in range(groups)]
        if stages is not None:
            wanted = [min(stages, key=lambda stage: (abs(math.log(stage / target)), -stage)) for target in wanted]
        return tuple(sorted(set(wanted)))
    if list(chosen) != sorted(set(chosen)) or not 1 <= len(chosen) <= groups or chosen[-1] > epochs:
        raise BadInput(
            f"econas: stage_epochs must rise to at most {epochs} and be 1 to {groups} numbers, not {list(chosen)}"
        )
    if stages is not None and not set(chosen) <= set(stages):
        raise BadInput(f"econas: stage_epochs {list(chosen)} are not all among the stages there are: {list(stages)}")
    return tuple(chosen)


def remarks(stage_epochs: Sequence[int], groups: int, epochs: int) -> list[str]:
    """In what the stages are not the paper's."""
    found = []
    if len(stage_epochs) < groups:
        named = ", ".join(map(str, stage_epochs))
        found.append(
            f"one stage, {named} epochs: flat evolution" if len(stage_epochs) == 1 else f"stages of {named} epochs only"
        )
    if stage_epochs[-1] < epochs:
        found.append(f"curve replay: stages of a {epochs}-epoch schedule")
    return found
