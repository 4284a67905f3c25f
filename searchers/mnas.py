"""MNAS: an LSTM policy draws architectures and learns, by PPO, from accuracy traded against latency.

Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le. "MnasNet: Platform-Aware Neural Architecture Search for Mobile".
CVPR 2019. https://arxiv.org/abs/1807.11626

The reward is ACC x (LAT / T)^w: with the soft constraint w = -0.07, so that twice the latency is worth 5 % of the
accuracy; with the hard one w = 0 up to the target and -1 above it. The latency is any metric that the harness knows.

Departures: the paper does not say what its policy, its clip, learning rate and batch are; ours are common values of PPO
and of NAS controllers. The advantage of a sample is its reward, less the mean of its batch, over their standard
deviation. T is the median of random architectures unless it is given. The top samples are not trained in full by the
search: the harness does that with the winner, which the run's goal picks and not the reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np

from searchers.parts.options import AtLeast, AtMost, Positive, Value, checked
from searchers.parts.policies import LSTM
from searchers.parts.ppo import PPO, Agent, Due, normalised
from searchers.parts.rewards import GoalReward, accuracy
from suite.spaces import SearchSpace
from suite.types import ERROR_ALONE, BadInput, Evaluation, Goal, Proxy, Trial, Unsupported, nearest

EXPONENTS = {"soft": (-0.07, -0.07), "hard": (0.0, -1.0)}
"""(a, b) of the paper's two constraints."""
USUAL = ("latency_ms", "macs")
"""The first of these that there is, else the first that there is at all, unless another is named."""
FORMULAS = ("macs", "params")
"""Metrics that a space knows without resources, where it has formulas."""
CALIBRATION = (0, 64)
"""Seed and size of the sample whose median is the target: the same in every search, so that rewards compare."""


@dataclass(frozen=True)
class Reward:
    """ACC x (LAT / T)^w, with w = a up to the target T and b above it: equation 2 of the paper.

    >>> soft = Reward("latency_ms", 75.0, -0.07, -0.07)
    >>> soft({"val_error": 25.0, "latency_ms": 75.0})
    0.75
    >>> round(soft({"val_error": 25.0, "latency_ms": 150.0}), 4)
    0.7145
    """

    metric: str | None
    """LAT; None: the reward is the accuracy."""
    target: float
    a: float
    b: float

    def __call__(self, metrics: Mapping[str, float]) -> float:
        """Reward of an answer; a failed training has none, 0, nor has a network that the device cannot run.

        Raises:
            Unsupported: The answer has no such metric, or it is not above 0.
        """
        acc = accuracy(metrics)
        if self.metric is None:
            return acc
        if self.metric not in metrics:
            raise Unsupported(f"the reward needs {self.metric!r}; the evaluator gives {', '.join(sorted(metrics))}")
        lat = metrics[self.metric]
        if not acc or not math.isfinite(lat):
            return 0.0
        if not lat > 0:
            raise Unsupported(f"the reward needs a {self.metric} above 0, not {lat:g}")
        w = self.a if lat <= self.target else self.b
        return float(acc * (lat / self.target) ** w)

    def known(self, metrics: Mapping[str, float]) -> bool:
        """Whether an answer holds what the reward needs."""
        return "val_error" in metrics and (self.metric is None or self.metric in metrics)

    def __str__(self) -> str:
        return "reward is the accuracy" if self.metric is None else f"target {self.target:.4g} {self.metric}"


@dataclass(frozen=True)
class Tradeoff(Value):
    """Options of the reward: the metric traded against accuracy, and how; `tradeoff` of a spec."""

    constraint: Literal["soft", "hard"] = "soft"
    """"soft": a = b = -0.07; "hard": a = 0, b = -1."""
    a: Annotated[float, AtMost(0)] | None = None
    """Exponent up to the target; None: the constraint's."""
    b: Annotated[float, AtMost(0)] | None = None
    """Exponent above the target; None: the constraint's."""
    metric: str | None = None
    """Metric traded against accuracy: "latency_ms", "energy_mj", "macs" ...; None: "latency_ms" if it is among the
    resources, else "macs", by the space's formula without resources. Where there is none, the reward is the accuracy.
    """
    target: Positive | None = None
    """T, in the metric's unit; None: the median over 64 random architectures, the same for every seed."""

    def reward(self, name: str, space: SearchSpace, proxy: Proxy, resources: Resources | None) -> Reward:
        """The reward that these options describe.

        Raises:
            BadInput: Nobody knows the metric; `name` is the searcher's, for refusals.
        """
        a, b = EXPONENTS[self.constraint]
        a, b = a if self.a is None else self.a, b if self.b is None else self.b
        known = formulas(space, proxy) if resources is None else resources.names
        metric = self.metric or next((word for word in (*USUAL, *known) if word in known), None)
        if metric is None:
            if self.target is not None:
                raise BadInput(f"{name}: a target of {self.target:g} needs a metric; name one that the evaluator gives")
            return Reward(None, 1.0, a, b)
        if self.target is not None:
            return Reward(metric, self.target, a, b)
        if metric not in known:
            near = nearest(metric, known)
            raise BadInput(f"{name}: no metric {metric!r} without training: {near}; or give tradeoff.target")
        target = (
            median(space, proxy, metric) if resources is None else resources.calibrate(proxy).percentile(metric, 50)
        )
        if not target > 0:
            raise BadInput(
                f"{name}: the median of {metric} over random architectures is {target:g}; give tradeoff.target"
            )
        return Reward(metric, target, a, b)


class MNAS:
    """Draws a batch, waits for its rewards, moves the policy."""

    family = "reinforcement learning"
    objectives = ("val_error",)
    needs = ("resources",)
    paper = "Tan et al., CVPR 2019, arXiv:1807.11626"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, reward: Literal["own", "goal"] = "own", tradeoff: Tradeoff = Tradeoff(),
        batch: Annotated[int, AtLeast(2)] = 16, ppo: PPO = PPO(),
        lstm: LSTM = LSTM(hidden=100, tanh=0.0, temperature=1.0),
        resources: Resources | None = None, goal: Goal = ERROR_ALONE,
    ) -> None:  # fmt: skip
        """Start with a policy that is almost uniform.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            reward: "own": the paper's, by `tradeoff`; "goal": the accuracy within the limits of the run's goal.
            tradeoff: The paper's reward: which metric is traded against accuracy, and how.
            batch: Architectures a step of PPO.
            ppo: How the policy is moved.
            lstm: Size of the policy.
            resources: Knows metrics without training.
            goal: What the run is about.
        """
        self.space, self.proxy, self.rng, self.batch = space, proxy, rng, batch
        self.reward = GoalReward(goal) if reward == "goal" else tradeoff.reward("mnas", space, proxy, resources)
        self.agent = Agent(space, rng, ppo, lstm)
        self.archs: list[tuple[int, ...]] = []
        self.rewards = np.zeros(0)
        """Rewards of the batch under way; nan: not told yet."""
        self.due = Due()

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
        settled = map(self.space.settled, self.archs)
        return [self.due.add(Trial(arch, self.proxy), place) for place, arch in enumerate(settled)]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Reward the samples, in whatever order they come; with the last of a batch the policy learns."""
        for evaluation in evaluations:
            self.rewards[self.due.take(evaluation.trial)] = self.reward(evaluation.metrics)
        if not self.due:
            self.agent.learn(self.archs, normalised(self.rewards))


# What the reward is made from


class Calibration(Protocol):
    """Resources of random architectures, frozen."""

    def percentile(self, metric: str, share: float) -> float:
        """The value that `share` percent do not exceed."""


class Resources(Protocol):
    """The capability: metrics that need no training."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics that need no training."""

    def calibrate(self, proxy: Proxy) -> Calibration:
        """Measures 64 random architectures, the same for every search of a run."""


def formulas(space: SearchSpace, proxy: Proxy) -> tuple[str, ...]:
    """Metrics that the space itself knows."""
    try:
        space.macs(space.at(0), proxy)
    except Unsupported:
        return ()
    return FORMULAS


def median(space: SearchSpace, proxy: Proxy, metric: str) -> float:
    """Median of a formula over the calibration sample."""
    rng = np.random.default_rng(CALIBRATION)
    formula = {"macs": space.macs, "params": space.params}[metric]
    return float(np.median([formula(space.sample(rng), proxy) for _ in range(CALIBRATION[1])]))
