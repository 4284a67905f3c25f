"""Regularized (aging) evolution: the oldest network dies, not the worst.

Real, Aggarwal, Huang, Le. "Regularized Evolution for Image Classifier Architecture Search".
AAAI 2019, Algorithm 1. https://arxiv.org/abs/1802.01548

With several workers each runs the algorithm's step on one shared population, which holds answers in the order of
completion. While fewer than `population_size` answers have come, every question is a random draw; so k workers draw
`population_size` + k - 1 at random, and none of them waits.

Departures: the identity mutation, 5 % in the paper, is off unless `p_identity` is given, as in the method's use on
NAS-Bench-201. Every training has seed 0 unless `training_seeds` is above 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from searchers.parts.options import Count, Share, checked
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial


class RegularizedEvolution:
    """Each new network is a mutant of the best in a random sample of the population."""

    family = "evolution"
    objectives = ("val_error",)
    needs = ()
    paper = "Real et al., AAAI 2019, arXiv:1802.01548"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, population_size: Count = 100, sample_size: Count = 25, replacement: bool = True,
        p_identity: Share = 0.0, training_seeds: Count = 1,
    ) -> None:  # fmt: skip
        """Start with an empty population.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            population_size: P, the further completions for which each network lives.
            sample_size: S: contenders of a tournament, at most P.
            replacement: Whether a network can be drawn into a tournament twice, as in the paper.
            p_identity: Probability that a child is its parent, trained again.
            training_seeds: Number of seeds that a trial's training seed is drawn from.
        """
        if sample_size > population_size:
            raise BadInput(
                f"regularized_evolution: sample_size must be at most population_size = {population_size}, "
                f"not {sample_size}"
            )
        self.space, self.proxy, self.rng = space, proxy, rng
        self.population_size, self.sample_size, self.replacement = population_size, sample_size, replacement
        self.p_identity, self.training_seeds = p_identity, training_seeds
        self.population: deque[Evaluation] = deque(maxlen=population_size)

    def ask(self) -> list[Trial]:
        """One network: a random one until the population is full, then a child."""
        if len(self.population) < self.population_size:
            return [self.trial(self.space.sample(self.rng))]
        contenders = self.rng.choice(self.population_size, self.sample_size, replace=self.replacement)
        parent = min((self.population[i] for i in contenders), key=lambda e: e.metrics["val_error"])
        return [self.trial(self.child(parent.trial.arch))]

    def child(self, parent: Architecture) -> Architecture:
        """A mutant, or with `p_identity` the parent."""
        if self.p_identity and self.rng.random() < self.p_identity:
            return parent
        return self.space.mutate(parent, self.rng)

    def trial(self, arch: Architecture) -> Trial:
        """The trial that trains `arch`."""
        seed = int(self.rng.integers(self.training_seeds)) if self.training_seeds > 1 else 0
        return Trial(arch, self.proxy, seed=seed)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Each newcomer takes the place of the oldest."""
        self.population.extend(evaluations)  # a full deque drops its oldest
