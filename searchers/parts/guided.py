"""What searches share that ask a predictor which networks to train next.

They begin with random networks; from then on a predictor is fitted to all answers, candidates are mutants of the best
networks and random ones, and those of the least acquisition are trained. Failed trainings are as bad as the worst that
did not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import surrogates
from searchers.parts.draw import unseen
from suite.spaces import SearchSpace
from suite.types import Architecture, Evaluation, Proxy, Trial
from surrogates.base import LEAST_ROWS
from surrogates.encoding import Encoder

Floats = npt.NDArray[np.float64]
RANDOM_SHARE = 4
"""One of so many candidates is drawn at random, not mutated."""


class Guided:
    """Networks asked and known, the queue of those to train next, and where it comes from.

    Args:
        space: What to search.
        proxy: What every network is trained under.
        rng: All chance comes from here.
        initial: Random networks before the first fit.
        batch: Networks that are chosen from one fit.
        candidates: Networks that are predicted for a batch.
        parents: The best networks, whose mutants are candidates.
        predictor: One of `surrogates.SURROGATES`.
        encoding: Parts joined by +, or "auto".
        options: Of the predictor.
    """

    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator, *, initial: int, batch: int, candidates: int,
        parents: int, predictor: str, encoding: str, options: dict[str, Any],
    ) -> None:  # fmt: skip
        self.space, self.proxy, self.rng = space, proxy, rng
        self.initial, self.batch, self.candidates, self.parents = initial, batch, candidates, parents
        self.predictor, self.options = predictor, options
        self.encoder = Encoder(space, encoding)
        surrogates.make(predictor, columns=self.encoder.names, **options)
        self.asked: dict[Architecture, None] = {}
        self.known: dict[Architecture, float] = {}
        self.queue: list[Architecture] = []

    def ask(self, acquisition: Callable[[Floats, Floats, float], Floats]) -> list[Trial]:
        """The next network; `acquisition(mean, spread, best)` is least where it is wanted most."""
        if not self.queue and len(self.asked) >= self.initial and self.learnable():
            self.queue = self.chosen(acquisition)
        arch = self.queue.pop(0) if self.queue else unseen(self.space, self.rng, self.asked)
        if arch is None:
            return []
        self.asked[arch] = None
        return [Trial(arch, self.proxy)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Remember what the networks are worth."""
        for answer in evaluations:
            self.known[answer.trial.arch] = answer.metrics["val_error"]

    def learnable(self) -> bool:
        """Whether a predictor can be fitted: enough answers, and not all the same."""
        errors = np.array(list(self.known.values()))
        finite = errors[np.isfinite(errors)]
        return len(finite) >= LEAST_ROWS and float(np.ptp(finite)) > 1e-9 * max(1.0, float(np.abs(finite).max()))

    def chosen(self, acquisition: Callable[[Floats, Floats, float], Floats]) -> list[Architecture]:
        """The networks of the next batch, the most wanted first."""
        pool = self.pool()
        if not pool:
            return []
        archs, errors = list(self.known), np.array(list(self.known.values()))
        seed = int(self.rng.integers(2**31))
        model = surrogates.make(self.predictor, columns=self.encoder.names, **{"seed": seed, **self.options})
        mean, spread = model.fit(self.encoder(archs), errors).predict(self.encoder(pool))
        wanted = acquisition(mean, spread, float(errors.min()))
        return [pool[i] for i in np.argsort(wanted, kind="stable")[: self.batch]]

    def pool(self) -> list[Architecture]:
        """Networks not asked before: mutants of the best, each decision once or twice, and random ones."""
        best = sorted(self.known, key=self.known.__getitem__)[: self.parents]
        found: dict[Architecture, None] = {}
        for number in range(2 * self.candidates):
            if len(found) == self.candidates:
                break
            if number % RANDOM_SHARE == 0:
                arch = self.space.sample(self.rng)
            else:
                arch = self.space.mutate(best[int(self.rng.integers(len(best)))], self.rng)
                if number % 2:
                    arch = self.space.mutate(arch, self.rng)
            if arch not in self.asked:
                found[arch] = None
        return list(found)
