"""Proximal policy optimisation of an LSTM policy on batches of architectures.

Schulman, Wolski, Dhariwal, Radford, Klimov. "Proximal Policy Optimization Algorithms". 2017.
https://arxiv.org/abs/1707.06347, equation 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from searchers.parts.adam import Adam
from searchers.parts.options import Count, Nonnegative, Positive, Value
from searchers.parts.policies import LSTM, Array, RNNPolicy
from suite.spaces import SearchSpace
from suite.types import Architecture, Trial


@dataclass(frozen=True)
class PPO(Value):
    """Options of the steps that move a policy; `ppo` of a spec."""

    lr: Positive = 3.5e-4
    """Learning rate of Adam, which moves the policy."""
    clip: Positive = 0.2
    """c: the ratio of probabilities is followed from 1 - c to 1 + c and no further."""
    passes: Count = 4
    """Steps of Adam on each batch."""
    entropy_weight: Nonnegative = 0.01
    """beta: weight of the policy's entropy, in nats summed over the decisions."""


def normalised(advantages: Array) -> Array:
    """Mean 0 and standard deviation 1; zeros where all are equal to the last digits."""
    deviations = advantages - advantages.mean()
    spread = float(deviations.std())
    if spread <= 1e-12 * max(1.0, float(np.abs(advantages).max())):
        return np.zeros_like(advantages)
    scaled: Array = deviations / spread
    return scaled


class Agent:
    """An LSTM policy and the steps that move it.

    Args:
        space: Space that it draws from.
        rng: Draws its first weights.
        ppo: How it is moved.
        lstm: Its size.
    """

    def __init__(self, space: SearchSpace, rng: np.random.Generator, ppo: PPO, lstm: LSTM) -> None:
        self.ppo = ppo
        self.adam: Adam[np.float64] = Adam(ppo.lr)
        self.policy = RNNPolicy(space.decisions, rng, lstm)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[Architecture], Array]:
        """So many architectures and their log probabilities, (count,)."""
        return self.policy.draw(count, rng)

    def log_probabilities(self, archs: Sequence[Architecture]) -> Array:
        """Under the policy as it is now, (archs,)."""
        import torch

        with torch.no_grad():
            found: Array = self.policy.evaluate(archs)[0].numpy()
        return found

    def learn(self, archs: Sequence[Architecture], advantages: Array, weights: Array | None = None) -> None:
        """`passes` steps on a batch, the policy at their beginning being the old one of the ratios.

        Args:
            archs: The batch.
            advantages: A of each architecture, shape (archs,).
            weights: Weight of each architecture's part of the loss, constants, (archs,); None: ones.
        """
        import torch

        a = torch.from_numpy(advantages)
        weight = torch.ones_like(a) if weights is None else torch.from_numpy(weights)
        old: torch.Tensor | None = None
        for _ in range(self.ppo.passes):
            log_p, entropy = self.policy.evaluate(archs)
            old = log_p.detach() if old is None else old
            r = (log_p - old).exp()
            clipped = r.clamp(1 - self.ppo.clip, 1 + self.ppo.clip)
            objective = weight * torch.minimum(r * a, clipped * a)  # equation 7: L^CLIP
            loss = -objective.mean() - self.ppo.entropy_weight * entropy.mean()
            self.policy.theta = self.policy.theta - self.adam.step(self.policy.slope(loss))


class Due:
    """Trials of a batch whose answers are due, and their places in it."""

    def __init__(self) -> None:
        self.places: dict[Trial, list[int]] = {}

    def add(self, trial: Trial, place: int) -> Trial:
        """Note one more trial that is due."""
        self.places.setdefault(trial, []).append(place)
        return trial

    def take(self, trial: Trial) -> int:
        """The place whose answer this is, the first of equals."""
        places = self.places[trial]
        place = places.pop(0)
        if not places:
            del self.places[trial]
        return place

    def __bool__(self) -> bool:
        return bool(self.places)
