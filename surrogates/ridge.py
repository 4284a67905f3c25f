"""Ridge regression, its penalty by the closed form of leave-one-out: the floor for every other predictor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from surrogates.base import Arrays, Floats, Model


@dataclass(kw_only=True)
class Ridge(Model):
    """Linear in the columns; each is divided by its standard deviation, constant ones are left out."""

    name = "ridge"
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    """Out of which the one with the least leave-one-out error is taken."""

    weights: Floats = field(init=False, repr=False)
    centres: Floats = field(init=False, repr=False)
    noise: float = field(default=1.0, init=False, repr=False)

    def learn(self, x: Floats, z: Floats) -> None:
        """Choose the penalty, then the weights."""
        x = np.nan_to_num(x)
        self.centres = x.mean(axis=0)
        spread = x.std(axis=0)
        unit = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        u, s, vt = np.linalg.svd((x - self.centres) * unit, full_matrices=False)
        part, mean = u.T @ (z - z.mean()), z.mean()
        best = np.inf
        for penalty in self.penalties:
            kept = s**2 / (s**2 + penalty)
            left = z - mean - u @ (kept * part)
            leverage = 1 / len(z) + (u**2) @ kept
            error = float(((left / np.maximum(1 - leverage, 1e-6)) ** 2).mean())
            if error < best:
                best = error
                self.weights = np.append(unit * (vt.T @ (s / (s**2 + penalty) * part)), mean)
        self.noise = float(np.sqrt(best))

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """The line, and the leave-one-out error everywhere."""
        z = (np.nan_to_num(x) - self.centres) @ self.weights[:-1] + self.weights[-1]
        return z, np.full(len(x), self.noise)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The line."""
        return {"weights": self.weights, "centres": self.centres, "noise": np.array(self.noise)}

    def restore(self, arrays: Arrays) -> None:
        """The line."""
        self.weights, self.centres, self.noise = arrays["weights"], arrays["centres"], float(arrays["noise"])
