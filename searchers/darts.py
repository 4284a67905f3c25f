"""DARTS: the mixture of all operations is trained by gradients, on images that the weights do not see.

Liu, Simonyan, Yang. "DARTS: Differentiable Architecture Search". ICLR 2019. https://arxiv.org/abs/1806.09055

A bi-level problem, min over alpha of L_val(w*(alpha), alpha) with w*(alpha) the weights that minimise L_train: in turn
a step of the mixture logits alpha (Adam, on a validation batch) and one of the weights w (SGD, on a training batch).
First order takes w for w*(alpha); second order takes one step of w, and the gradient through that step, its
Hessian-vector product as a difference of two gradients. The cell is read off alpha by the rule of the space
(`Supernet.derive`): in DARTS's space the two strongest edges a node, never `none`; in NAS-Bench-201 the strongest
operation of each edge, `none` too.

In NAS-Bench-201's own scripts weights go first and SGD has Nesterov's momentum: `alpha_first=False` and the recipe
`nas_bench_201_search`.

Departures: passes for alpha do not move the running statistics of the norms; the authors' move them, with the
validation batches. The winner is the last epoch's cell; the paper takes the best of four searches after a short
training of each. More in docs/methods/darts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from searchers.parts.logits import Alpha, Logits, Statistics
from searchers.parts.options import Nonnegative, Positive, checked
from suite.spaces import SearchSpace
from suite.types import Proxy

if TYPE_CHECKING:
    from torch import Tensor

    from suite.networks.learner import Batch, Pass


class DARTS(Logits):
    """Logits and weights in turn, each on their own half of the training images."""

    paper = "Liu et al., ICLR 2019, arXiv:1806.09055"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, order: Literal[1, 2] = 1, xi: Nonnegative | None = None, epsilon: Positive = 0.01,
        alpha_first: bool = True, alpha: Alpha = Alpha(), statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        """Nothing is built until the loop hands over a learner.

        Args:
            order: 1: the gradient at the weights as they are; 2: through one step of them.
            xi: Length of that step; None: the weights' present learning rate, as in the paper.
            epsilon: Norm by which the weights are moved for the Hessian-vector product.
            alpha_first: Logits before weights in each step, as in the authors' code.
        """
        super().__init__(space, proxy, rng, alpha=alpha, statistics=statistics)
        self.order, self.xi, self.epsilon, self.alpha_first = order, xi, epsilon, alpha_first

    def step(self, train: Batch, held: Callable[[], Batch]) -> Pass:
        """One step of alpha and one of w."""
        if self.learning and self.alpha_first:
            self.move(self.gradient(train, held()))
        passed, _ = self.learner.descend(train, self.weights())
        if self.learning and not self.alpha_first:
            self.move(self.gradient(train, held()))
        return passed

    def gradient(self, train: Batch, held: Batch) -> Tensor:
        """Gradient of the validation loss with respect to alpha, shape (rows, options)."""
        return self.first_order(held) if self.order == 1 else self.second_order(train, held)

    def first_order(self, held: Batch) -> Tensor:
        """Gradient at the weights w as they are."""
        learner = self.learner
        (gradient,) = learner.gradients(learner.forward(held, self.mixture()), [self.logits])
        return gradient

    def second_order(self, train: Batch, held: Batch) -> Tensor:
        """Gradient at w' = w - xi (momentum buffer + dL_train/dw + decay w), and through w'."""
        import torch

        learner, w = self.learner, [weight.data for weight in self.learner.parameters]
        xi = learner.lr if self.xi is None else self.xi

        training = learner.gradients(learner.forward(train, self.weights()), learner.parameters)
        step = torch._foreach_mul(learner.momentum_buffers(), learner.momentum)
        torch._foreach_add_(step, training)
        torch._foreach_add_(step, w, alpha=learner.weight_decay)
        with learner.at(torch._foreach_sub(w, step, alpha=xi)):
            passed = learner.forward(held, self.mixture())
            direct, *v = learner.gradients(passed, [self.logits, *learner.parameters])
        return direct - xi * self.hessian_vector(train, w, v)

    def hessian_vector(self, train: Batch, w: list[Tensor], v: list[Tensor]) -> Tensor:
        """d2 L_train / (dalpha dw) times v: dL_train/dalpha at w + eps v minus that at w - eps v, over 2 eps."""
        import torch

        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(v)))
        eps: Tensor = self.epsilon / norm.clamp(min=1e-12)
        plus, minus = (self.moved(train, w, torch._foreach_mul(v, sign * eps)) for sign in (1, -1))
        return (plus - minus) / (2 * eps)

    def moved(self, train: Batch, w: list[Tensor], by: Sequence[Tensor]) -> Tensor:
        """dL_train/dalpha where the weights are moved."""
        import torch

        with self.learner.at(torch._foreach_add(w, tuple(by))):
            (gradient,) = self.learner.gradients(self.learner.forward(train, self.mixture()), [self.logits])
        return gradient
