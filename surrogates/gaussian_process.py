"""A Gaussian process whose kernel has a length scale for each kind of column.

Rasmussen, Williams. "Gaussian Processes for Machine Learning". MIT Press, 2006: chapter 2 and section 5.4.

The distance of two networks is a weighted sum of squared distances, one for each kind of column (`paths`, path
lengths, degrees ...), and the kernel is Matern 5/2 of it. On rows that are `one_hot` alone it is a Hamming kernel, on
`neighbourhoods` one of Weisfeiler-Lehman histograms. Weights, amplitude and noise are those of largest posterior under
priors that are one and a half wide in their logarithm; where there are many rows they come from a subset.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from suite.types import BadInput
from surrogates.base import Arrays, Floats, Model

ROOT5 = 5.0**0.5
JITTER = 1e-6
WIDTH = 1.5
"""Standard deviation of the priors of logarithms."""
MOST_ROWS = 5_000
"""More have no room for their covariance, and no need for a process."""
BLOCK = 4_096
"""Rows that are predicted at once."""


@dataclass(kw_only=True)
class GaussianProcess(Model):
    """Mean and standard deviation of the posterior, the noise of a new answer not counted."""

    name = "gaussian_process"
    tuned_on: int = 600
    """Rows that length scales are chosen on."""
    steps: int = 40
    """Of L-BFGS, at most."""

    tuned: Floats | None = field(default=None, init=False, repr=False)
    """Logarithms of the weights of each kind, of amplitude and noise."""
    group: npt.NDArray[np.intp] = field(init=False, repr=False)
    centres: Floats = field(init=False, repr=False)
    units: Floats = field(init=False, repr=False)
    points: Floats = field(init=False, repr=False)
    """Fitted rows as the kernel sees them."""
    factor: Floats = field(init=False, repr=False)
    """Lower Cholesky factor of their covariance."""
    weights: Floats = field(init=False, repr=False)
    offset: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tuned_on < 10 or self.steps < 1:
            raise BadInput(f"{self.name}: tuned_on must be at least 10 and steps 1, not {self.tuned_on}, {self.steps}")

    def for_fold(self) -> Self:
        """The same without a fold: its length scales stay."""
        model = replace(self)
        model.tuned = self.tuned
        return model

    def learn(self, x: Floats, z: Floats) -> None:
        """Length scales, unless they are chosen; then the weights of the fitted rows."""
        from scipy.linalg import cho_factor, cho_solve

        if len(z) > MOST_ROWS:
            raise BadInput(f"{self.name}: {len(z):,} rows are more than {MOST_ROWS:,}; use boosted_trees")
        x = np.nan_to_num(x)
        self.group = kinds(self.columns, x.shape[1])
        self.centres, spread = x.mean(axis=0), x.std(axis=0)
        self.units = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        self.units /= np.sqrt(np.bincount(self.group))[self.group]
        self.offset = float(z.mean())
        scaled = (x - self.centres) * self.units
        if self.tuned is None:
            rows = np.arange(len(z))
            if len(z) > self.tuned_on:
                rows = np.random.default_rng(self.seed).choice(len(z), self.tuned_on, replace=False)
            self.tuned = tune(scaled[rows], z[rows] - self.offset, self.group, self.steps)
        self.points = self._weighted(scaled)
        covariance = self._covariance(self.points, self.points)
        covariance[np.diag_indices(len(z))] += np.exp(self.tuned[-1]) + JITTER
        whole, _ = cho_factor(covariance, lower=True)
        self.factor = np.tril(whole)
        self.weights = cho_solve((self.factor, True), z - self.offset)

    def centre(self, x: Floats) -> Floats:
        """The mean of the posterior."""
        points = self._weighted((np.nan_to_num(x) - self.centres) * self.units)
        blocks = [points[start : start + BLOCK] for start in range(0, len(points), BLOCK)]
        return np.concatenate([self._covariance(b, self.points) @ self.weights for b in blocks]) + self.offset

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the posterior."""
        from scipy.linalg import solve_triangular

        assert self.tuned is not None
        points = self._weighted((np.nan_to_num(x) - self.centres) * self.units)
        mean, variance = [], []
        for start in range(0, len(points), BLOCK):
            across = self._covariance(points[start : start + BLOCK], self.points)  # (rows, fitted)
            mean.append(across @ self.weights)
            half = solve_triangular(self.factor, across.T, lower=True, check_finite=False)
            variance.append(np.exp(self.tuned[-2]) - (half**2).sum(axis=0))
        return np.concatenate(mean) + self.offset, np.sqrt(np.maximum(np.concatenate(variance), JITTER))

    def _weighted(self, scaled: Floats) -> Floats:
        assert self.tuned is not None
        return scaled * np.exp(self.tuned[:-2] / 2)[self.group]

    def _covariance(self, a: Floats, b: Floats) -> Floats:
        assert self.tuned is not None
        r = np.sqrt(5 * squared_distances(a, b))
        covariance: Floats = np.exp(self.tuned[-2]) * (1 + r + r * r / 3) * np.exp(-r)
        return covariance

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of the posterior."""
        assert self.tuned is not None
        return {
            "tuned": self.tuned, "group": self.group, "centres": self.centres, "units": self.units,
            "points": self.points, "factor": self.factor, "weights": self.weights, "offset": np.array(self.offset),
        }  # fmt: skip

    def restore(self, arrays: Arrays) -> None:
        """All of the posterior."""
        self.tuned, self.group, self.centres = arrays["tuned"], arrays["group"], arrays["centres"]
        self.units, self.points, self.factor = arrays["units"], arrays["points"], arrays["factor"]
        self.weights, self.offset = arrays["weights"], float(arrays["offset"])


def kinds(columns: tuple[str, ...], width: int) -> npt.NDArray[np.intp]:
    """The number of each column's kind: its name up to the first number or operation; all one kind without names.

    >>> kinds(("decision 0 is 1", "decision 1 is 1", "path a", "path a b", "count of a|b", "count of a"), 6).tolist()
    [1, 1, 2, 3, 0, 0]
    """
    if not columns:
        return np.zeros(width, dtype=np.intp)
    return np.unique([kind_of(name) for name in columns], return_inverse=True)[1].reshape(-1)


def kind_of(name: str) -> str:
    """What kind of column a name of `surrogates.encoding` is."""
    words = name.split()
    if words[0] == "cell":
        words = words[2:]
    if words[0] == "path":
        return f"paths of {len(words) - 1}"
    if " of " in name and not words[0].isdecimal():
        return " ".join(words).split(" of ")[0]
    return words[0] if not words[0].isdecimal() else "counts"


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Squared distances between rows, shape (rows of a, rows of b)."""
    across: Floats = a @ b.T
    across *= -2
    across += (a**2).sum(axis=1)[:, None]
    across += (b**2).sum(axis=1)
    return np.maximum(across, 0, out=across)


def tune(scaled: Floats, z: Floats, group: npt.NDArray[np.intp], steps: int) -> Floats:
    """Logarithms of weights, amplitude and noise of largest posterior, by L-BFGS with exact gradients."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    n, many = len(z), int(group.max()) + 1
    apart = np.stack([squared_distances(scaled[:, group == g], scaled[:, group == g]) for g in range(many)])
    start = np.concatenate([np.full(many, -2.0), [0.0, -3.0]])  # weights, amplitude, noise

    def loss(at: Floats) -> tuple[float, Floats]:
        weights, amplitude, noise = np.exp(at[:-2]), np.exp(at[-2]), np.exp(at[-1])
        r = ROOT5 * np.sqrt(np.tensordot(weights, apart, 1) + 1e-12)
        fall = np.exp(-r)
        kernel = amplitude * (1 + r + r * r / 3) * fall
        covariance = kernel.copy()
        covariance[np.diag_indices(n)] += noise + JITTER
        try:
            factor = cho_factor(covariance, lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(at)
        solved = cho_solve(factor, z)
        w = (cho_solve(factor, np.eye(n)) - np.outer(solved, solved)) / 2
        slope = w * (-5 / 6 * amplitude * (1 + r) * fall)  # by the squared distance
        prior = (at - start) / WIDTH
        gradient = np.concatenate([weights * np.tensordot(apart, slope, 2), [(w * kernel).sum(), np.trace(w) * noise]])
        value = z @ solved / 2 + np.log(np.diag(factor[0])).sum() + (prior**2).sum() / 2
        return float(value), gradient + prior / WIDTH

    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(-8.0, 6.0)] * len(start), options={"maxiter": steps}
    )
    tuned: Floats = found.x
    return tuned
