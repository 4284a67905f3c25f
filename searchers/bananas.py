"""BANANAS: an ensemble of networks predicts from path encodings, independent Thompson sampling chooses.

White, Neiswanger, Savani. "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search".
AAAI 2021, section 4. https://arxiv.org/abs/1910.11858

Departures: the five networks are those of `surrogates/mlp.py` with a squared loss in the scale of shifted logarithms,
where the paper has ten layers of 20 and a loss of relative errors; spaces without cells are encoded as one_hot; a
quarter of the candidates is random, the paper mutates all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from searchers.parts.guided import Floats, Guided
from searchers.parts.options import Count, checked
from suite.spaces import SearchSpace
from suite.types import Evaluation, Proxy, Trial


class BANANAS:
    """Trains in each round the candidates whose sampled predictions are least."""

    family = "Bayesian optimisation"
    objectives = ("val_error",)
    needs = ("predictor",)
    paper = "White et al., AAAI 2021, arXiv:1910.11858"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, initial: Count = 10, batch: Count = 10, candidates: Count = 100, parents: Count = 10,
        predictor: str = "mlp", encoding: str = "",
    ) -> None:  # fmt: skip
        """Start with nothing known.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            initial: Random networks before the first fit.
            batch: Networks trained in a round.
            candidates: Networks that are predicted in a round.
            parents: The best networks, whose mutants are candidates.
            predictor: Who predicts, a name of `surrogates.SURROGATES`.
            encoding: How networks are encoded; "": paths, or one_hot where there are no cells.
        """
        self.rng = rng
        chosen = encoding or ("paths" if space.operations else "one_hot")
        options = {"members": 5, "epochs": 100, "widths": (64, 64)} if predictor == "mlp" else {}
        self.guided = Guided(
            space, proxy, rng, initial=initial, batch=batch, candidates=candidates, parents=parents,
            predictor=predictor, encoding=chosen, options=options,
        )  # fmt: skip

    def ask(self) -> list[Trial]:
        """One network: random at first, then the next of the round."""
        return self.guided.ask(self.thompson)

    def thompson(self, mean: Floats, spread: Floats, best: float) -> Floats:
        """A draw from each candidate's own prediction."""
        return mean + spread * self.rng.normal(size=len(mean))

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Remember the answers."""
        self.guided.tell(evaluations)
