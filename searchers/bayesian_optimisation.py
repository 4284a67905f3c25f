"""Bayesian optimisation: a Gaussian process over architectures, the largest expected improvement is trained.

Mockus, Tiesis, Zilinskas. "The Application of Bayesian Methods for Seeking the Extremum". 1978 (expected improvement).
Kandasamy, Neiswanger, Schneider, Poczos, Xing. "Neural Architecture Search with Bayesian Optimisation and Optimal
Transport". NeurIPS 2018. https://arxiv.org/abs/1802.07191 (for architectures, with another distance)

The process is that of `surrogates/gaussian_process.py`: on `one_hot` rows its distance is Hamming's, on "auto" rows it
has a length scale for each kind of graph feature.

Departures: candidates are mutants of the best networks and random ones; with several workers a network in flight counts
as not known, but is not asked again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from searchers.parts.guided import Floats, Guided
from searchers.parts.options import Count, checked
from suite.spaces import SearchSpace
from suite.types import Evaluation, Proxy, Trial


class BayesianOptimisation:
    """Trains the candidate whose expected improvement over the best known network is largest."""

    family = "Bayesian optimisation"
    objectives = ("val_error",)
    needs = ("predictor",)
    paper = "Mockus et al., 1978; Kandasamy et al., NeurIPS 2018, arXiv:1802.07191"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, initial: Count = 10, batch: Count = 1, candidates: Count = 200, parents: Count = 10,
        predictor: str = "gaussian_process", encoding: str = "auto",
    ) -> None:  # fmt: skip
        """Start with nothing known.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            initial: Random networks before the first fit.
            batch: Networks that are chosen from one fit.
            candidates: Networks that are predicted for a choice.
            parents: The best networks, whose mutants are candidates.
            predictor: Who predicts, a name of `surrogates.SURROGATES`.
            encoding: How networks are encoded: parts joined by +, or "auto".
        """
        options = {"tuned_on": 100, "steps": 15} if predictor == "gaussian_process" else {}
        self.guided = Guided(
            space, proxy, rng, initial=initial, batch=batch, candidates=candidates, parents=parents,
            predictor=predictor, encoding=encoding, options=options,
        )  # fmt: skip

    def ask(self) -> list[Trial]:
        """One network: random at first, then where improvement is expected."""
        return self.guided.ask(expected_improvement)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Remember the answers."""
        self.guided.tell(evaluations)


def expected_improvement(mean: Floats, spread: Floats, best: float) -> Floats:
    """Minus the expected improvement over `best` of normal predictions.

    >>> expected_improvement(np.array([5.0, 4.0]), np.array([1.0, 1.0]), 5.0).round(4)
    array([-0.3989, -1.0833])
    """
    scaled = (best - mean) / spread
    below = np.array([(1 + math.erf(u / math.sqrt(2))) / 2 for u in scaled])
    density = np.exp(-(scaled**2) / 2) / math.sqrt(2 * math.pi)
    wanted: Floats = (mean - best) * below - spread * density
    return wanted
