"""MS-DARTS: DARTS whose weights are trained at a mean-shifted mixture, to be good around the learnt one.

Hsieh, Chang, Chen, Santra, Chou, Huang. "MS-DARTS: Mean-Shift Based Differentiable Architecture Search". IEEE
Transactions on Artificial Intelligence 5(3), 2024. https://arxiv.org/abs/2108.09996

Before each step of the weights the mixture softmax(alpha) is replaced: N points are drawn in a box around it, weighted
by a Gaussian kernel of their distance and by their losses, and it moves to their mean, T times. The logits step as in
first-order DARTS, from the sixth epoch on; the winner is the cell of the epoch with the best supernet.

The formulas are those of the authors' code (attacker/perturb_ms.py); the paper's were not available. A higher loss
weighs more there: `loss_weight_sign`. Departures, also in docs/methods/ms_darts.md: the bandwidth follows the number of
weights of a cell, so that the kernel keeps the spread it has on DARTS's cells; the genotype of an epoch is read at its
end, when its supernet is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from searchers.parts.logits import Alpha, Logits, Statistics
from searchers.parts.options import AtLeast, Count, Nonnegative, Positive, checked
from suite.spaces import SearchSpace
from suite.types import Proxy

if TYPE_CHECKING:
    from torch import Tensor

    from suite.networks.learner import Batch, Learner, Pass

WEIGHTS = 112
"""Weights in the mixture of a cell of DARTS: 14 edges, 8 operations."""


class MSDARTS(Logits):
    """Logits at their mixture, weights at a mean-shifted one."""

    paper = "Hsieh et al., IEEE TAI 2024, arXiv:2108.09996"
    keep = "best"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, eps_max: Nonnegative = 0.25, bandwidth: Positive = 1.0, samples: Count = 3,
        iterations: Annotated[int, AtLeast(0)] = 2, loss_weight_sign: Literal[1, -1] = 1,
        project_output: bool = False, alpha: Alpha = Alpha(warmup_epochs=5), statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        """Nothing is built until the loop hands over a learner.

        Args:
            eps_max: Half the side of the box, which the last epochs near.
            bandwidth: h of the kernel for a cell of DARTS; elsewhere it is scaled by sqrt(weights of a cell / 112).
            samples: N, points drawn in an iteration.
            iterations: T; 0: no shift, DARTS.
            loss_weight_sign: +1: a point with a higher loss weighs more, as in the authors' code; -1: less.
            project_output: Whether the shifted mixture is brought back to the simplex.
        """
        super().__init__(space, proxy, rng, alpha=alpha, statistics=statistics)
        self.eps_max, self.bandwidth, self.samples, self.iterations = eps_max, bandwidth, samples, iterations
        self.loss_weight_sign, self.project_output = loss_weight_sign, project_output

    def begin(self, learner: Learner, epochs: int) -> None:
        """Draw the logits; a kernel for each kind of cell."""
        super().begin(learner, epochs)
        self.groups = list(learner.supernet.groups.values())
        sizes = [int(learner.supernet.valid[rows].sum()) for rows in self.groups]
        self.bandwidths = [self.bandwidth * math.sqrt(size / WEIGHTS) for size in sizes]

    def epoch(self, number: int) -> None:
        """Grow the box for this epoch."""
        super().epoch(number)
        self.eps = radius(number, self.epochs, self.eps_max)
        self.effective: list[Tensor] = []

    def step(self, train: Batch, held: Callable[[], Batch]) -> Pass:
        """One step of alpha, after the warm-up, and one of w at the shifted mixture."""
        if self.learning:
            learner = self.learner
            (gradient,) = learner.gradients(learner.forward(held(), self.mixture()), [self.logits])
            self.move(gradient)
        return self.learner.descend(train, self.shifted(train))[0]

    def shifted(self, train: Batch) -> Tensor:
        """Mean-shifted mixture that stands in for the learnt one while the weights step."""
        import torch

        learner = self.learner
        size = (self.iterations, self.samples, *learner.supernet.shape)
        drawn = 2 * torch.rand(size, generator=learner.chance("box")).to(learner.device) - 1

        def losses(mixtures: Tensor) -> Tensor:
            return torch.stack([learner.forward(train, mixture).loss for mixture in mixtures])

        with learner.evaluating():
            point, effective = shift(
                self.weights(), self.eps * drawn.masked_fill(self.absent, 0.0), losses,
                groups=self.groups, bandwidths=self.bandwidths, sign=self.loss_weight_sign,
            )  # fmt: skip
        self.effective.append(effective)
        return project(point) if self.project_output else point

    def log(self) -> dict[str, float]:
        """Entropy, size of the box, and by how many equal ones of the N samples the mean was as if made."""
        import torch

        entry = super().log() | {"eps": self.eps}
        if self.effective and self.iterations:
            entry["effective_samples"] = float(torch.stack(self.effective).mean())
        return entry


def radius(epoch: int, epochs: int, largest: float) -> float:
    """Half the side of the box in an epoch, from 0; the last one stays below `largest`.

    >>> [round(radius(epoch, 40, 0.25), 4) for epoch in (0, 20, 39)]
    [0.025, 0.1375, 0.2444]
    """
    return largest / 10 + 0.9 * largest * epoch / epochs


def project(points: Tensor) -> Tensor:
    """Rows clamped to [0, 1] and divided by their sum; one that is all 0 then becomes one-hot at its argmax."""
    import torch

    clamped = points.clamp(0, 1)
    total = clamped.sum(-1, keepdim=True)
    one_hot = torch.zeros_like(points).scatter(-1, points.argmax(-1, keepdim=True), 1.0)
    return torch.where(total > 0, clamped / total.clamp(min=torch.finfo(points.dtype).tiny), one_hot)


def shift(
    start: Tensor, boxes: Tensor, losses: Callable[[Tensor], Tensor],
    *, groups: Sequence[slice], bandwidths: Sequence[float], sign: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The point that mean shift reaches from `start`, and the effective sample sizes on the way.

    Args:
        start: a, shape (rows, options).
        boxes: U(-eps, eps), shape (T, N, rows, options).
        losses: Of N mixtures, shape (N, rows, options), to (N,).
        groups: Rows of each kind of cell; each has a kernel of its own.
        bandwidths: h of each.
        sign: +1 gives a higher loss more weight, -1 less.

    Returns:
        The point, and 1 / sum of squared weights of each iteration and group, in [1, N], shape (T, groups).
    """
    import torch

    point = start
    effective = torch.ones(len(boxes), len(groups), device=start.device)
    for t, box in enumerate(boxes):  # (N, rows, options)
        mixtures = project(point + box)
        log_omega = sign * losses(mixtures)  # softmax's constant cancels below, as does the kernel's
        moved = point.clone()
        for c, (rows, bandwidth) in enumerate(zip(groups, bandwidths, strict=True)):
            distance = (mixtures[:, rows] - point[rows]).square().sum((1, 2))  # (N,)
            weights = torch.softmax(log_omega - distance / (2 * bandwidth**2), 0)
            moved[rows] += torch.einsum("n,nro->ro", weights, box[:, rows])
            effective[t, c] = 1 / weights.square().sum()
        point = moved
    return point, effective
