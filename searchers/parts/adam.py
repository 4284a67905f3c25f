"""Adam, for parameters in one flat array of numpy."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Precision = TypeVar("Precision", np.float64, np.float32)


class Adam(Generic[Precision]):
    """Kingma, Ba. "Adam: A Method for Stochastic Optimization". ICLR 2015, Algorithm 1. https://arxiv.org/abs/1412.6980

    Args:
        lr: Step size, alpha.
        betas: Decay of the first and of the second moment.
        epsilon: Added to the root of the second moment.
    """

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> None:
        self.lr, self.betas, self.epsilon = lr, betas, epsilon
        self.steps = 0
        self.first: npt.NDArray[Precision] | float = 0.0
        self.second: npt.NDArray[Precision] | float = 0.0

    def step(self, gradient: npt.NDArray[Precision]) -> npt.NDArray[Precision]:
        """Step to subtract from the parameters, in the precision of the gradient."""
        (b1, b2), self.steps = self.betas, self.steps + 1
        self.first = b1 * self.first + (1 - b1) * gradient
        self.second = b2 * self.second + (1 - b2) * gradient**2
        mean, square = self.first / (1 - b1**self.steps), self.second / (1 - b2**self.steps)
        change: npt.NDArray[Precision] = self.lr * mean / (np.sqrt(square) + self.epsilon)
        return change
