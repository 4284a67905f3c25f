"""Random search: every architecture equally likely, whatever the answers.

Bergstra, Bengio. "Random Search for Hyper-Parameter Optimization". JMLR 13, 2012.
https://jmlr.org/papers/v13/bergstra12a.html
As a baseline of architecture search: Li, Talwalkar. "Random Search and Reproducibility for Neural Architecture Search".
UAI 2019. https://arxiv.org/abs/1902.07638

Draws with replacement, as NAS-Bench-201's baseline does; `repeats=False` draws each architecture once and ends when
there is no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from searchers.parts.draw import unseen
from searchers.parts.options import checked
from suite.spaces import SearchSpace
from suite.types import Architecture, Evaluation, Proxy, Trial


class RandomSearch:
    """Independent draws from the whole space."""

    family = "random"
    objectives = ("val_error",)
    needs = ()
    paper = "Bergstra & Bengio, JMLR 2012; Li & Talwalkar, UAI 2019, arXiv:1902.07638"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, repeats: bool = True,
    ) -> None:  # fmt: skip
        """Start before the first draw.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            repeats: Whether an architecture may be drawn again.
        """
        self.space, self.proxy, self.rng, self.repeats = space, proxy, rng, repeats
        self.drawn: set[Architecture] = set()

    def ask(self) -> list[Trial]:
        """Ask for one random architecture."""
        if self.repeats:
            return [Trial(self.space.sample(self.rng), self.proxy)]
        arch = unseen(self.space, self.rng, self.drawn)
        if arch is None:
            return []
        self.drawn.add(arch)
        return [Trial(arch, self.proxy)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Ignore the answers: every draw is independent."""
