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
from typing import TYPE_CHECKING

import numpy as np

from searchers.parts.logits import Logits
from searchers.parts.options import flag, number, whole
from suite.spaces import SearchSpace
from suite.types import Proxy

if TYPE_CHECKING:
    from torch import Tensor

    from suite.networks.learner import Batch, Pass


class DARTS(Logits):
    """Logits and weights in turn, each on their own half of the training images."""

    paper = "Liu et al., ICLR 2019, arXiv:1806.09055"

    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, order: int = 1, xi: float | None = None, epsilon: float = 0.01, alpha_first: bool = True,
        alpha_lr: float = 3e-4, alpha_betas: Sequence[float] = (0.5, 0.999), alpha_decay: float = 1e-3,
        scale: float = 1e-3, warmup_epochs: int = 0, statistics: str = "running",
    ) -> None:  # fmt: skip
        """Nothing is built until the loop hands over a learner.

        Args:
            space: What to search; one that has a supernet.
            proxy: Size and schedule of the supernet's training.
            rng: Not used: the loop's seed is that of the logits.
            order: 1: the gradient at the weights as they are; 2: through one step of them.
            xi: Length of that step; None: the weights' present learning rate, as in the paper.
            epsilon: The weights are moved by so much, in norm, for the Hessian-vector product.
            alpha_first: Logits before weights in each step, as in the authors' code.
            alpha_lr: Learning rate of the logits.
            alpha_betas: Of their Adam.
            alpha_decay: Their weight decay.
            scale: Standard deviation of the initial logits.
            warmup_epochs: In so many the logits rest.
            statistics: Of the supernet's norms outside training: "running" or "batch".
        """
        super().__init__(
            "darts", space, proxy, alpha_lr=alpha_lr, alpha_betas=alpha_betas, alpha_decay=alpha_decay, scale=scale,
            warmup_epochs=warmup_epochs, statistics=statistics,
        )  # fmt: skip
        self.order = whole("darts: order", order, least=1, most=2)
        self.xi = None if xi is None else number("darts: xi", xi)
        self.epsilon = number("darts: epsilon", epsilon, above=0.0)
        self.alpha_first = flag("darts: alpha_first", alpha_first)

    def step(self, train: Batch, held: Callable[[], Batch]) -> Pass:
        """One step of alpha and one of w."""
        if self.learning and self.alpha_first:
            self.move(self.gradient(train, held()))
        passed, _ = self.learner.descend(train, self.weights())
        if self.learning and not self.alpha_first:
            self.move(self.gradient(train, held()))
        return passed

    def gradient(self, train: Batch, held: Batch) -> Tensor:
        """Of the validation loss with respect to alpha, shape (rows, options)."""
        return self.first_order(held) if self.order == 1 else self.second_order(train, held)

    def first_order(self, held: Batch) -> Tensor:
        """At w as it is."""
        learner = self.learner
        (gradient,) = learner.gradients(learner.forward(held, self.mixture()), [self.logits])
        return gradient

    def second_order(self, train: Batch, held: Batch) -> Tensor:
        """At w' = w - xi (momentum buffer + dL_train/dw + decay w), and through w'."""
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
