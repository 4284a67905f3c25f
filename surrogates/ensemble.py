"""The default: boosted trees and a Gaussian process, each seen in the same scale and averaged.

Trees take what is abrupt (a cell without a convolution), the process what is smooth; at 50 networks the mean of both is
better than either. Its figures are in results/predictors_nb201.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from surrogates.base import Arrays, Floats, Model
from surrogates.boosted_trees import BoostedTrees
from surrogates.gaussian_process import GaussianProcess


@dataclass(kw_only=True)
class Ensemble(Model):
    """The mean of both models; the spread holds their own and how far they are apart."""

    name = "ensemble"
    members: int = 3
    """Of the trees, as are `rounds` and `threads`."""
    rounds: int = 400
    threads: int = 1

    trees: BoostedTrees = field(init=False, repr=False)
    process: GaussianProcess = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.trees = BoostedTrees(
            columns=self.columns, seed=self.seed, members=self.members, rounds=self.rounds, threads=self.threads
        )
        self.process = GaussianProcess(columns=self.columns, seed=self.seed)

    def for_fold(self) -> Self:
        """The same without a fold: the length scales of the process stay."""
        model = replace(self)
        model.process = self.process.for_fold()
        return model

    def learn(self, x: Floats, z: Floats) -> None:
        """Fit both."""
        self.trees.learn(x, z)
        self.process.learn(x, z)

    def centre(self, x: Floats) -> Floats:
        """The mean of both."""
        return (self.trees.centre(x) + self.process.centre(x)) / 2

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """The mean of both, and the standard deviation of their mixture."""
        (a, of_a), (b, of_b) = self.trees.centre_and_spread(x), self.process.centre_and_spread(x)
        return (a + b) / 2, np.sqrt((of_a**2 + of_b**2) / 2 + (a - b) ** 2 / 4)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Those of both."""
        trees = {f"trees/{key}": value for key, value in self.trees.arrays().items()}
        return trees | {f"process/{key}": value for key, value in self.process.arrays().items()}

    def restore(self, arrays: Arrays) -> None:
        """Those of both."""
        for part, model in (("trees/", self.trees), ("process/", self.process)):
            model.restore({key.removeprefix(part): v for key, v in arrays.items() if key.startswith(part)})
