"""Extremely randomised trees.

Geurts, Ernst, Wehenkel. "Extremely Randomized Trees". Machine Learning 63, 2006.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from suite.types import BadInput
from surrogates.base import Arrays, Floats, Model
from surrogates.trees import Forest


@dataclass(kw_only=True)
class ExtraTrees(Model):
    """The mean over trees that try random thresholds; their spread is for acquisition, and no interval."""

    name = "extra_trees"
    trees: int = 300
    columns_share: float = 0.5
    """Columns that a node may split on."""
    least_rows: int = 1
    """Of a leaf."""

    forest: Forest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trees < 1 or self.least_rows < 1:
            raise BadInput(f"{self.name}: trees and least_rows must be at least 1, not {self.trees}, {self.least_rows}")
        if not 0 < self.columns_share <= 1:
            raise BadInput(f"{self.name}: columns_share must lie in (0, 1], not {self.columns_share}")

    def learn(self, x: Floats, z: Floats) -> None:
        """Grow the trees."""
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(
            self.trees, max_features=self.columns_share, min_samples_leaf=self.least_rows, random_state=self.seed
        )
        self.forest = Forest.of_sklearn(forest.fit(np.nan_to_num(x), z))

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and spread of the trees."""
        trees = self.forest.predict(np.nan_to_num(x).astype(np.float32).astype(np.float64))  # as scikit-learn sees rows
        return trees.mean(axis=0), trees.std(axis=0) + 1e-3

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The trees."""
        return self.forest.arrays()

    def restore(self, arrays: Arrays) -> None:
        """The trees."""
        self.forest = Forest.of_arrays(arrays)
