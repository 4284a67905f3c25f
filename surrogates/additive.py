"""The additive look-up table: what a network takes is the sum of what its operations take, and a constant.

One number for each column, by non-negative least squares: on `one_hot` rows a time for each option of each decision, as
tables of measured operators have it. The base for every predictor of latency and energy.

Cai, Zhu, Han. "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware". ICLR 2019.
https://arxiv.org/abs/1812.00332 (a look-up table of operators)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from surrogates.base import Arrays, Floats, Model


@dataclass(kw_only=True)
class Additive(Model):
    """The sum of the columns' times; its targets are seen as they are."""

    name = "additive"
    encoding: ClassVar[str] = "one_hot"
    target: str = "plain"

    times: Floats = field(init=False, repr=False)
    """Of each column; then the constant, then the error of the fit."""

    def learn(self, x: Floats, z: Floats) -> None:
        """Least squares; no column takes less than nothing, the constant may be anything."""
        from scipy.optimize import nnls

        one = np.ones((len(x), 1))
        rows = np.concatenate([np.nan_to_num(x), one, -one], axis=1)
        times, _ = nnls(rows, z, maxiter=100 * rows.shape[1])
        self.times = np.array([*times[:-2], times[-2] - times[-1], np.std(z - rows @ times) + 1e-9])

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """The sum, and the same error everywhere."""
        return np.nan_to_num(x) @ self.times[:-2] + self.times[-2], np.full(len(x), self.times[-1])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The table."""
        return {"times": self.times}

    def restore(self, arrays: Arrays) -> None:
        """The table."""
        self.times = arrays["times"]
