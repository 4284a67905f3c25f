"""MNAS: an LSTM policy draws architectures and learns, by PPO, from accuracy traded against latency.

Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le. "MnasNet: Platform-Aware Neural Architecture Search for Mobile".
CVPR 2019. https://arxiv.org/abs/1807.11626

The reward is ACC x (LAT / T)^w: with the soft constraint w = -0.07, so that twice the latency is worth 5 % of the
accuracy; with the hard one w = 0 up to the target and -1 above it. The latency is any metric that the harness knows.

Departures: the paper does not say what its policy, its clip, learning rate and batch are; ours are common values of PPO
and of NAS controllers. The advantage of a sample is its reward, less the mean of its batch, over their standard
deviation. T is the median of random architectures unless it is given. The top samples are not trained in full by the
search: the harness does that with the winner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from searchers.parts.options import whole
from searchers.parts.ppo import Agent, Due, Resources, normalised, reward
from suite.spaces import SearchSpace
from suite.types import Evaluation, Proxy, Trial


class MNAS:
    """Draws a batch, waits for its rewards, moves the policy; the winner has the largest reward."""

    family = "reinforcement learning"
    objectives = ("val_error",)
    needs = ("resources",)
    paper = "Tan et al., CVPR 2019, arXiv:1807.11626"

    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, constraint: str = "soft", a: float | None = None, b: float | None = None, metric: str | None = None,
        target: float | None = None, batch: int = 16, lr: float = 3.5e-4, clip: float = 0.2,
        passes: int = 4, entropy_weight: float = 0.01, hidden: int = 100, layers: int = 1, embedding: int = 32,
        spread: float = 0.1, resources: Resources | None = None,
    ) -> None:  # fmt: skip
        """Start with a policy that is almost uniform.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            constraint: "soft": a = b = -0.07; "hard": a = 0, b = -1.
            a: Exponent up to the target; None: the constraint's.
            b: Exponent above the target; None: the constraint's.
            metric: What is traded against accuracy: "latency_ms", "energy_mj", "macs" ...; None: "latency_ms" if it is
                among the resources, else "macs", by the space's formula without resources. Where there is none, the
                reward is the accuracy.
            target: T, in the metric's unit; None: the median over 64 random architectures, the same for every seed.
            batch: Architectures a step of PPO.
            lr: Of Adam.
            clip: c, of PPO.
            passes: Steps of Adam on each batch.
            entropy_weight: beta: of the policy's entropy, in nats summed over the decisions.
            hidden: Units of an LSTM layer.
            layers: Of the LSTM.
            embedding: Length of a decision's embedding.
            spread: Half range of the LSTM's first weights.
            resources: Knows metrics without training.
        """
        self.space, self.proxy, self.rng = space, proxy, rng
        self.batch = whole("mnas: batch", batch, least=2)
        self.reward = reward(
            "mnas", space, proxy, constraint=constraint, a=a, b=b, metric=metric, target=target,
            resources=resources,
        )  # fmt: skip
        self.agent = Agent(
            "mnas", space, rng, lr=lr, clip=clip, passes=passes, entropy_weight=entropy_weight, hidden=hidden,
            layers=layers, embedding=embedding, spread=spread,
        )  # fmt: skip
        self.archs: list[tuple[int, ...]] = []
        self.rewards = np.zeros(0)
        """Of the batch under way; nan: not told yet."""
        self.due = Due()

    def objective(self, metrics: Mapping[str, float]) -> float:
        """-R."""
        return self.reward.minimised(metrics)

    @property
    def note(self) -> str:
        """The reward's target, and how far the policy has gone from uniform."""
        entropy = self.agent.policy.entropy()
        return f"{self.reward}, final entropy {entropy:.1f} nats per decision"

    def ask(self) -> list[Trial]:
        """A batch of draws from the policy; nothing while one of the last is due."""
        if self.due:
            return []
        self.archs, _ = self.agent.draw(self.batch, self.rng)
        self.rewards = np.full(self.batch, math.nan)
        return [self.due.add(Trial(arch, self.proxy), place) for place, arch in enumerate(self.archs)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Reward the samples, in whatever order they come; with the last of a batch the policy learns."""
        for evaluation in evaluations:
            self.rewards[self.due.take(evaluation.trial)] = self.reward(evaluation.metrics)
        if not self.due:
            self.agent.learn(self.archs, normalised(self.rewards))
