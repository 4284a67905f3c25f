"""Parts of gradient searches: mixture logits, the optimiser that moves them, and their log entries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np

from searchers.parts.options import AtLeast, Below, Nonnegative, Positive, Value, checked
from suite.spaces import SearchSpace
from suite.types import Architecture, Ends, Proxy

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from suite.networks.learner import Learner
    from suite.networks.mixture import Mixes

Statistics: TypeAlias = Literal["running", "batch"]
Beta = Annotated[float, AtLeast(0), Below(1)]


@dataclass(frozen=True)
class Alpha(Value):
    """First values and optimizer of mixture logits; `alpha` of a spec.

    >>> Alpha(optimizer="sgd").weight_decay
    0.0
    """

    lr: Positive = 3e-4
    """Learning rate of the logits."""
    betas: tuple[Beta, Beta] = (0.5, 0.999)
    """Decays of Adam's two moments."""
    decay: Nonnegative | None = None
    """Weight decay of the logits; None: 1e-3 with Adam, 0 with SGD."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer of the logits; SGD has no momentum."""
    clip: Nonnegative = 0.0
    """Largest norm of the logits' gradient; 0: any."""
    mean: float = 0.0
    """Mean of the initial logits."""
    scale: Nonnegative = 1e-3
    """Standard deviation of the initial logits."""
    warmup_epochs: Annotated[int, AtLeast(0)] = 0
    """First epochs in which the logits rest."""

    @property
    def weight_decay(self) -> float:
        """Weight decay with the optimizer's default put in."""
        return (1e-3 if self.optimizer == "adam" else 0.0) if self.decay is None else self.decay


class Logits:
    """One logit for each operation of each edge; a softmax over an edge's is its mixture.

    A method is this with a `step`. Nothing is built until the loop hands over a learner.

    Args:
        space: Search space; one that has a supernet.
        proxy: Size and schedule of the supernet's training.
        rng: Not used: the loop's seed draws the logits and all else.
        alpha: First values and optimizer of the logits.
        statistics: Statistics of the supernet's norms outside training: "running" or "batch".
    """

    family = "differentiable"
    objectives = ("val_error",)
    needs = ("supernet",)
    bilevel = True
    keep = "last"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, alpha: Alpha = Alpha(), statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        self.space, self.proxy, self.alpha = space, proxy, alpha
        self.statistics: str = statistics
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
        return self.number >= self.alpha.warmup_epochs

    def build(self, ends: Ends, seed: int) -> Mixes:
        """The supernet of the space, with its published norms but for the statistics."""
        from suite.networks.supernet import Supernet, mixable

        norms = replace(mixable(self.space).norms, statistics=self.statistics)
        return Supernet(self.space, self.proxy, ends=ends, seed=seed, norms=norms, skip_dead_edges=True)

    def begin(self, learner: Learner, epochs: int) -> None:
        """Make the optimizer; draw the first logits, or take those that were loaded."""
        import torch

        alpha = self.alpha
        self.learner, self.epochs = learner, epochs
        drawn = torch.randn(learner.supernet.shape, generator=learner.chance("logits"))
        self.logits = (alpha.mean + alpha.scale * drawn).to(learner.device).requires_grad_()
        self.absent = torch.from_numpy(~learner.supernet.valid).to(learner.device)
        if alpha.optimizer == "adam":
            self.optimizer = torch.optim.Adam([self.logits], alpha.lr, alpha.betas, weight_decay=alpha.weight_decay)
        else:
            self.optimizer = torch.optim.SGD([self.logits], alpha.lr, weight_decay=alpha.weight_decay)
        if self.loaded is not None:
            with torch.no_grad():
                self.logits.copy_(self.loaded["logits"])
            self.optimizer.load_state_dict(self.loaded["optimizer"])
            self.loaded = None

    def epoch(self, number: int) -> None:
        """Set the schedules to an epoch."""
        self.number = number

    def move(self, gradient: Tensor) -> None:
        """One step of the logits; a gradient beyond the largest norm is shortened, as torch does it."""
        if self.alpha.clip:
            gradient = gradient * (self.alpha.clip / (gradient.norm() + 1e-6)).clamp(max=1.0)
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
