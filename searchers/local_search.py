"""Local search: from a random architecture always on to a better neighbour, and anew where there is none.

White, Nolen, Savani. "Local Search is State of the Art for Neural Architecture Search Benchmarks". 2020; as "Exploring
the Loss Landscape in Neural Architecture Search" in UAI 2021. https://arxiv.org/abs/2005.02960

`move="best"` is the paper's plain hill climbing: all neighbours are trained, and the best of them is next if it is
better. `move="first"` is its variant that trains neighbours in random order until one is better, the default of the
authors' code together with `initial=10`.

Departures: neighbours that were trained before are not trained again, but count, also those of an earlier climb; the
authors' code leaves them out. A climb starts at an architecture not asked before. With several workers `move="first"`
trains several neighbours at once, and whichever answer is better than where the search stands by then moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from searchers.parts.draw import unseen
from searchers.parts.options import Count, checked
from suite.spaces import SearchSpace
from suite.types import Architecture, Evaluation, Proxy, Trial


class LocalSearch:
    """Climbs from random starts, no architecture asked twice; it ends when all are known."""

    family = "local"
    objectives = ("val_error",)
    needs = ()
    paper = "White et al., UAI 2021, arXiv:2005.02960"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, move: Literal["best", "first"] = "best", initial: Count = 1,
    ) -> None:  # fmt: skip
        """Start without an architecture to climb from.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            move: "best": to the best of all neighbours; "first": to the first better one.
            initial: Random architectures before a climb, which starts at the best of them.
        """
        self.space, self.proxy, self.rng = space, proxy, rng
        self.move, self.initial = move, initial
        self.errors: dict[Architecture, float] = {}
        self.asked: set[Architecture] = set()
        self.here: Architecture | None = None
        self.candidates: list[Architecture] = []
        """The neighbours of `here`, or the random starts while there is no `here`."""
        self.unasked: list[Architecture] = []
        """Candidates that are not asked yet, the next one last."""
        self.optima: list[Architecture] = []
        """Local optima found so far, in order."""

    def ask(self) -> list[Trial]:
        """All candidates not known yet, or the next one where the first better one will do."""
        while not self.unasked:
            if len(self.errors) < len(self.asked):
                return []
            if self.candidates:
                self.step()
            elif not self.restart():
                return []
        count = 1 if self.here is not None and self.move == "first" else len(self.unasked)
        asked = [self.unasked.pop() for _ in range(count)]
        self.asked.update(asked)
        return [Trial(arch, self.proxy) for arch in asked]

    def restart(self) -> bool:
        """Draw random starts; False if all architectures are known."""
        self.here, self.candidates = None, []
        while len(self.candidates) < self.initial:
            arch = unseen(self.space, self.rng, self.asked)
            if arch is None:
                break
            self.asked.add(arch)
            self.candidates.append(arch)
        self.unasked = self.candidates[::-1]
        return bool(self.candidates)

    def step(self) -> None:
        """All candidates are known: on to the best of them, or it was an optimum."""
        best = min(self.candidates, key=self.errors.__getitem__)
        if self.here is None or self.errors[best] < self.errors[self.here]:
            self.go(best)
        else:
            self.optima.append(self.here)
            self.here, self.candidates = None, []

    def go(self, arch: Architecture) -> None:
        """Stand at `arch`, its neighbours before us."""
        self.here = arch
        neighbours = self.space.neighbours(arch)
        self.candidates = [neighbours[i] for i in self.rng.permutation(len(neighbours))]
        self.unasked = [other for other in self.candidates if other not in self.asked]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Note the errors; "first" moves at once."""
        for evaluation in evaluations:
            arch, error = evaluation.trial.arch, evaluation.metrics["val_error"]
            self.errors[arch] = error
            if self.move == "first" and self.here is not None and error < self.errors[self.here]:
                self.go(arch)
