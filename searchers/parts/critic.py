"""A critic that knows how far off it is: V predicts rewards of architectures, U the error of V."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from searchers.parts.adam import Adam
from suite.types import Architecture

Array: TypeAlias = npt.NDArray[np.float64]
Weights: TypeAlias = npt.NDArray[np.float32]

MINIBATCH = 64
"""Number of samples in a step."""


class Perceptron:
    """Inputs, two layers of ReLU, one output; in single precision."""

    def __init__(self, inputs: int, hidden: int, rng: np.random.Generator, lr: float) -> None:
        self.shapes: list[tuple[int, ...]] = [(inputs, hidden), (hidden,), (hidden, hidden), (hidden,), (hidden,), (1,)]
        bounds = [math.sqrt(6 / inputs), 0.0, math.sqrt(6 / hidden), 0.0, math.sqrt(1 / hidden), 0.0]
        drawn = [rng.uniform(-b, b, math.prod(s)) for s, b in zip(self.shapes, bounds, strict=True)]
        self.theta: Weights = np.concatenate(drawn).astype(np.float32)
        self.adam: Adam[np.float32] = Adam(lr)

    def layers(self) -> list[Weights]:
        """Weights of the layers, as views of `theta`."""
        found, start = [], 0
        for shape in self.shapes:
            end = start + math.prod(shape)
            found.append(self.theta[start:end].reshape(shape))
            start = end
        return found

    def __call__(self, x: Weights) -> Array:
        """Outputs for inputs of shape (n, inputs), shape (n,)."""
        return self.forward(x)[2].astype(np.float64)

    def forward(self, x: Weights) -> tuple[Weights, Weights, Weights]:
        """Both layers, (n, hidden), and the output, (n,)."""
        w1, b1, w2, b2, w3, b3 = self.layers()
        first: Weights = np.maximum(x @ w1 + b1, 0)
        second: Weights = np.maximum(first @ w2 + b2, 0)
        return first, second, second @ w3 + b3

    def descend(self, x: Weights, slope: Callable[[Weights], Weights]) -> None:
        """One step of Adam down a loss whose slopes by outputs are `slope(outputs)`, (n,)."""
        first, second, output = self.forward(x)
        by_output = slope(output)
        _, _, w2, _, w3, _ = self.layers()
        by_second = np.outer(by_output, w3) * (second > 0)
        by_first = (by_second @ w2.T) * (first > 0)
        parts = (x.T @ by_first, by_first.sum(0), first.T @ by_second, by_second.sum(0), by_output @ second)
        gradient = np.concatenate([*(part.ravel() for part in parts), by_output.sum()[None]])
        self.theta -= self.adam.step(gradient)


class Critic:
    """Learns from trained rewards only; U's targets are errors that V made before it saw the reward.

    Args:
        decisions: Options of each decision; architectures are read one-hot.
        rng: Of first weights and minibatches.
        hidden: Units of a layer.
        lr: Of Adam.
        steps: On each batch of rewards, of V and of U.
        window: So many of the latest errors are U's targets: V gets better, and old errors say little of it.
    """

    def __init__(
        self, decisions: Sequence[int], rng: np.random.Generator, *, hidden: int, lr: float, steps: int, window: int
    ) -> None:
        self.inputs, self.offsets = sum(decisions), np.cumsum([0, *decisions[:-1]])
        self.rng, self.steps, self.window = rng, steps, window
        self.v, self.u = (Perceptron(self.inputs, hidden, rng, lr) for _ in range(2))
        self.codes: Weights = np.zeros((0, self.inputs), np.float32)
        """One-hot codes of the trained samples, shape (samples, options)."""
        self.rewards: Array = np.zeros(0)
        self.errors: Array = np.zeros(0)
        """|V - R| before V saw R, of all samples but those of the first batch."""
        self.mean, self.scale = 0.0, 1.0

    def code(self, archs: Sequence[Architecture]) -> Weights:
        """One-hot codes of architectures, shape (archs, options)."""
        coded: Weights = np.zeros((len(archs), self.inputs), np.float32)
        coded[np.arange(len(archs))[:, None], np.array(archs) + self.offsets] = 1.0
        return coded

    def values(self, archs: Sequence[Architecture]) -> Array:
        """Rewards that V predicts, shape (archs,)."""
        return self.mean + self.scale * self.v(self.code(archs))

    def uncertainties(self, archs: Sequence[Architecture]) -> Array:
        """Errors of V that U expects, above 0, shape (archs,)."""
        return self.scale * np.logaddexp(0.0, self.u(self.code(archs)))

    def learn(self, archs: Sequence[Architecture], rewards: Array) -> None:
        """Take in trained rewards: first the errors made in them, then the steps."""
        if len(self.rewards):
            self.errors = np.concatenate([self.errors, np.abs(self.values(archs) - rewards)])
        self.codes = np.concatenate([self.codes, self.code(archs)])
        self.rewards = np.concatenate([self.rewards, rewards])
        self.mean, self.scale = float(self.rewards.mean()), max(float(self.rewards.std()), 1e-6)
        wanted = ((self.rewards - self.mean) / self.scale).astype(np.float32)
        for _ in range(self.steps):
            at = self.rng.integers(len(wanted), size=min(MINIBATCH, len(wanted)))
            self.v.descend(self.codes[at], partial(squared_slope, wanted[at]))
        recent = min(self.window, len(self.errors))
        if not recent:
            return
        codes, errors = self.codes[-recent:], (self.errors[-recent:] / self.scale).astype(np.float32)
        for _ in range(self.steps):
            at = self.rng.integers(recent, size=min(MINIBATCH, recent))
            self.u.descend(codes[at], partial(absolute_slope, errors[at]))


def squared_slope(wanted: Weights, output: Weights) -> Weights:
    """Slopes of the mean squared error by the outputs."""
    return (output - wanted) * np.float32(2 / len(wanted))


def absolute_slope(wanted: Weights, output: Weights) -> Weights:
    """Slopes of the mean absolute error of ln(1 + e^output)."""
    rises = np.exp(-np.logaddexp(np.float32(0), -output))  # the logistic function, the slope of softplus
    return np.sign(np.logaddexp(np.float32(0), output) - wanted) * rises * np.float32(1 / len(wanted))
