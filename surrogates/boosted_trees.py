"""Gradient-boosted trees: LightGBM, several members that differ in the rows and columns that they see.

Ke, Meng, Finley, Wang, Chen, Ma, Ye, Liu. "LightGBM: A Highly Efficient Gradient Boosting Decision Tree". NeurIPS 2017.

The settings suit small samples: leaves may hold three rows, every value of a column may be a threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from suite.types import BadInput
from surrogates.base import Arrays, Floats, Model
from surrogates.trees import Forest


@dataclass(kw_only=True)
class BoostedTrees(Model):
    """The mean over members, with their standard deviation beside the error on the fitted rows left out of a member."""

    name = "boosted_trees"
    members: int = 3
    rounds: int = 400
    """Trees of a member."""
    learning_rate: float = 0.06
    leaves: int = 15
    least_rows: int = 3
    """Of a leaf."""
    columns_share: float = 0.3
    """Columns that a tree sees."""
    rows_share: float = 0.6
    """Rows that a tree sees."""
    penalty: float = 1.0
    """Of squared leaf values."""
    threads: int = 1

    forest: Forest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("members", "rounds", "threads", "least_rows"):
            if getattr(self, key) < 1:
                raise BadInput(f"{self.name}: {key} must be at least 1, not {getattr(self, key)}")
        if self.leaves < 2:
            raise BadInput(f"{self.name}: leaves must be at least 2, not {self.leaves}")
        for key in ("columns_share", "rows_share"):
            if not 0 < getattr(self, key) <= 1:
                raise BadInput(f"{self.name}: {key} must lie in (0, 1], not {getattr(self, key)}")

    def learn(self, x: Floats, z: Floats) -> None:
        """Grow all members."""
        import lightgbm

        texts = []
        for member in range(self.members):
            settings = {
                "objective": "regression", "num_leaves": self.leaves, "learning_rate": self.learning_rate,
                "min_data_in_leaf": min(self.least_rows, max(1, len(z) // 10)), "feature_fraction": self.columns_share,
                "bagging_fraction": self.rows_share, "bagging_freq": 1, "lambda_l2": self.penalty,
                "min_data_in_bin": 1, "verbose": -1, "num_threads": self.threads, "deterministic": True,
                "force_col_wise": True, "seed": self.seed * 1_000 + member, "feature_pre_filter": False,
            }  # fmt: skip
            data = lightgbm.Dataset(x, z, params=settings)
            texts.append(lightgbm.train(settings, data, self.rounds).model_to_string())
        self.forest = Forest.of_lightgbm(texts)

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and spread of the members."""
        members = self.forest.predict(x)
        return members.mean(axis=0), members.std(axis=0) + 1e-3

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The trees."""
        return self.forest.arrays()

    def restore(self, arrays: Arrays) -> None:
        """The trees."""
        self.forest = Forest.of_arrays(arrays)
