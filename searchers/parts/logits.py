"""What gradient searches share: mixture logits, the optimiser that moves them, and what a log says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from searchers.parts.options import number, one_of, whole
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Ends, Proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from suite.networks.learner import Learner
    from suite.networks.mixture import Mixes

STATISTICS = ("running", "batch")
OPTIMIZERS = ("adam", "sgd")


class Logits:
    """One logit for each operation of each edge; a softmax over an edge's is its mixture.

    A method is this with a `step`.

    Args:
        method: Its name, for refusals.
        space: What to search.
        proxy: Size and schedule of the supernet's training.
        alpha_lr: Learning rate of the logits.
        alpha_betas: Of Adam.
        alpha_decay: Weight decay of the logits.
        alpha_optimizer: "adam" or "sgd"; the second has no momentum.
        mean: Of the initial logits.
        scale: Their standard deviation.
        warmup_epochs: In so many the logits rest.
        statistics: Of the supernet's norms outside training: "running" or "batch".
    """

    family = "differentiable"
    objectives = ("val_error",)
    needs = ("supernet",)
    bilevel = True
    keep = "last"

    def __init__(
        self, method: str, space: SearchSpace, proxy: Proxy,
        *, alpha_lr: float, alpha_decay: float, alpha_betas: Sequence[float] = (0.5, 0.999),
        alpha_optimizer: str = "adam", mean: float = 0.0, scale: float = 1e-3, warmup_epochs: int = 0,
        statistics: str = "running",
    ) -> None:  # fmt: skip
        self.space, self.proxy = space, proxy
        self.alpha_lr = number(f"{method}: alpha_lr", alpha_lr, above=0.0)
        self.alpha_decay = number(f"{method}: alpha_decay", alpha_decay)
        self.alpha_betas = tuple(number(f"{method}: alpha_betas", beta) for beta in alpha_betas)
        if len(self.alpha_betas) != 2 or not all(beta < 1 for beta in self.alpha_betas):
            raise BadInput(f"{method}: alpha_betas must be two numbers in [0, 1), not {list(alpha_betas)}")
        self.alpha_optimizer = one_of(f"{method}: alpha_optimizer", alpha_optimizer, OPTIMIZERS)
        if isinstance(mean, bool) or not isinstance(mean, int | float) or not math.isfinite(mean):
            raise BadInput(f"{method}: mean must be a finite number, not {mean!r}")
        self.mean, self.scale = float(mean), number(f"{method}: scale", scale)
        self.warmup_epochs = whole(f"{method}: warmup_epochs", warmup_epochs, least=0)
        self.statistics = one_of(f"{method}: statistics", statistics, STATISTICS)
        self.learner: Learner
        self.logits: Tensor
        self.optimizer: torch.optim.Optimizer
        self.absent: Tensor
        """The options that a row does not have, shape (rows, options), bool; their weight is 0."""
        self.loaded: dict[str, Any] | None = None
        """The state that `begin` goes on from."""
        self.epochs = self.number = 0
        """Length of the schedule, and the present epoch, counted from 0."""

    @property
    def learning(self) -> bool:
        """Whether the logits move in this epoch."""
        return self.number >= self.warmup_epochs

    def build(self, ends: Ends, seed: int) -> Mixes:
        """The supernet of the space, with its published norms but for the statistics."""
        from suite.networks.supernet import Supernet, mixable

        norms = replace(mixable(self.space).norms, statistics=self.statistics)
        return Supernet(self.space, self.proxy, ends=ends, seed=seed, norms=norms, skip_dead_edges=True)

    def begin(self, learner: Learner, epochs: int) -> None:
        """Draw the logits, or take those that were loaded."""
        import torch

        self.learner, self.epochs = learner, epochs
        drawn = torch.randn(learner.supernet.shape, generator=learner.chance("logits"))
        self.logits = (self.mean + self.scale * drawn).to(learner.device).requires_grad_()
        self.absent = torch.from_numpy(~learner.supernet.valid).to(learner.device)
        if self.alpha_optimizer == "adam":
            self.optimizer = torch.optim.Adam(
                [self.logits], self.alpha_lr, (self.alpha_betas[0], self.alpha_betas[1]), weight_decay=self.alpha_decay
            )
        else:
            self.optimizer = torch.optim.SGD([self.logits], self.alpha_lr, weight_decay=self.alpha_decay)
        if self.loaded is not None:
            with torch.no_grad():
                self.logits.copy_(self.loaded["logits"])
            self.optimizer.load_state_dict(self.loaded["optimizer"])
            self.loaded = None

    def epoch(self, number: int) -> None:
        """Where the schedules stand."""
        self.number = number

    def move(self, gradient: Tensor) -> None:
        """One step of the logits."""
        self.logits.grad = gradient
        self.optimizer.step()

    def log_mixture(self) -> Tensor:
        """Logarithm of the mixture, shape (rows, options), with its graph; -inf where there is no option."""
        return self.logits.masked_fill(self.absent, float("-inf")).log_softmax(dim=1)

    def mixture(self) -> Tensor:
        """Softmax of each row's logits, with its graph."""
        return self.logits.masked_fill(self.absent, float("-inf")).softmax(dim=1)

    def weights(self) -> Tensor:
        """The mixture, shape (rows, options); rows sum to 1."""
        return self.mixture().detach()

    def derive(self) -> Architecture:
        """By the rule of the space's paper."""
        return self.learner.supernet.derive(self.mixture())

    def log(self) -> dict[str, float]:
        """Mean entropy of an edge's mixture [nats]."""
        logs = self.log_mixture().detach().double().masked_fill(self.absent, 0.0)
        mixture = self.mixture().detach().double()
        return {"entropy": float(-(mixture * logs).sum(dim=1).mean())}

    def state(self) -> dict[str, Any]:
        """The logits and their optimiser."""
        return {"logits": self.logits.detach(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from this state once the search begins."""
        self.loaded = state
