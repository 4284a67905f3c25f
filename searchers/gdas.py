"""GDAS: one operation an edge is drawn for every batch, and the gradient goes through the draw.

Dong, Yang. "Searching for a Robust Neural Architecture in Four GPU Hours". CVPR 2019. https://arxiv.org/abs/1910.04465

The problem is DARTS's, on two halves of the training images; the mixture is a hard sample of the Gumbel-softmax
distribution. Forward, an edge is the operation with the largest (log softmax(alpha) + Gumbel noise) / tau; backward, it
is the softmax of these. Only the drawn operations are computed, forward and backward, so a step costs about as much as
one of a single network. tau falls linearly from 10 to 0.1. The cell is read off alpha by the rule of the space, as for
DARTS. Weights go first, as in the authors' code for NAS-Bench-201.

Departure: the authors' code for NAS-Bench-201 adds the weights of the operations that were not drawn to the edge as
plain numbers; their value is 0, but their gradient, the sum of the edge's gradient over the image, is not. Here what is
not drawn gives no gradient of its own, as the paper says. More in docs/methods/gdas.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from searchers.parts.logits import Alpha, Logits, Statistics
from searchers.parts.options import Positive, checked
from suite.spaces import SearchSpace
from suite.types import BadInput, Proxy

if TYPE_CHECKING:
    from torch import Tensor

    from suite.networks.learner import Batch, Pass


class GDAS(Logits):
    """Logits and weights in turn, each on a network drawn for them."""

    paper = "Dong & Yang, CVPR 2019, arXiv:1910.04465"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, tau_max: Positive = 10.0, tau_min: Positive = 0.1, alpha_first: bool = False, alpha: Alpha = Alpha(),
        statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        """Nothing is built until the loop hands over a learner.

        Args:
            tau_max: Temperature of the first epoch.
            tau_min: Temperature of the last epoch, at most that of the first.
            alpha_first: Logits before weights in each step.
        """
        super().__init__(space, proxy, rng, alpha=alpha, statistics=statistics)
        if tau_min > tau_max:
            raise BadInput(f"gdas: tau_min must be at most tau_max = {tau_max:g}, not {tau_min:g}")
        self.tau_max, self.tau_min, self.alpha_first = tau_max, tau_min, alpha_first

    @property
    def tau(self) -> float:
        """Temperature of the present epoch, linear between its ends."""
        return self.tau_max - (self.tau_max - self.tau_min) * self.number / max(1, self.epochs - 1)

    def step(self, train: Batch, held: Callable[[], Batch]) -> Pass:
        """One step of w and one of alpha, each on a network of its own."""
        if self.learning and self.alpha_first:
            self.move(self.gradient(held()))
        drawn, mask = self.sample("weights")
        passed, _ = self.learner.descend(train, drawn.detach(), mask)
        if self.learning and not self.alpha_first:
            self.move(self.gradient(held()))
        return passed

    def gradient(self, held: Batch) -> Tensor:
        """Gradient of a drawn network's validation loss with respect to alpha, shape (rows, options)."""
        drawn, mask = self.sample("logits")
        (gradient,) = self.learner.gradients(self.learner.forward(held, drawn, mask), [self.logits])
        return gradient

    def sample(self, name: str) -> tuple[Tensor, Tensor]:
        """One operation an edge: its weight is 1 and has the gradient of the softmax; and which they are."""
        import torch

        noise = -torch.empty(self.logits.shape).exponential_(generator=self.learner.chance(name)).log()  # Gumbel
        soft = ((self.log_mixture() + noise.to(self.logits.device)) / self.tau).softmax(dim=1)
        mask = torch.zeros_like(soft, dtype=torch.bool).scatter_(1, soft.argmax(dim=1, keepdim=True), True)
        return mask + (soft - soft.detach()), mask

    def weights(self) -> Tensor:
        """One-hot: the network that would be handed over."""
        return self.learner.supernet.one_hot(self.derive()).to(self.logits.device)

    def log(self) -> dict[str, float]:
        """Mean entropy of the mixtures, and the temperature."""
        return {**super().log(), "tau": self.tau}
