"""Proximal policy optimisation on MnasNet's reward: what `mnas` and `fnas` share.

Schulman, Wolski, Dhariwal, Radford, Klimov. "Proximal Policy Optimization Algorithms". 2017.
https://arxiv.org/abs/1707.06347, equation 7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from searchers.parts.options import number, one_of, whole
from searchers.parts.policies import Adam, Array, RNNPolicy
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Proxy, Trial, Unsupported, nearest

CONSTRAINTS = {"soft": (-0.07, -0.07), "hard": (0.0, -1.0)}
"""Exponents (a, b) below and above the target."""
USUAL = ("latency_ms", "macs")
"""The first of these that there is, else the first that there is at all, unless another is named."""
FORMULAS = ("macs", "params")
"""Metrics that a space knows without resources, where it has formulas."""
CALIBRATION = (0, 64)
"""Seed and size of the sample whose median is the target: the same in every search, so that rewards compare."""


class Calibration(Protocol):
    """Resources of random architectures, frozen."""

    def percentile(self, metric: str, share: float) -> float:
        """The value that `share` percent do not exceed."""


class Resources(Protocol):
    """The capability: metrics that need no training."""

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics."""

    def calibrate(self, proxy: Proxy) -> Calibration:
        """Of 64 random architectures, the same for every search of a run."""


@dataclass(frozen=True)
class Reward:
    """Accuracy x (metric / target)^w, with w = a up to the target and b above it.

    Tan et al. "MnasNet", CVPR 2019, equation 2.

    >>> soft = Reward("latency_ms", 75.0, -0.07, -0.07)
    >>> soft({"val_error": 25.0, "latency_ms": 75.0})
    0.75
    >>> round(soft({"val_error": 25.0, "latency_ms": 150.0}), 4)
    0.7145
    """

    metric: str | None
    """None: the reward is the accuracy."""
    target: float
    a: float
    b: float

    def __call__(self, metrics: Mapping[str, float]) -> float:
        """Of an answer; a failed training has none, 0.

        Raises:
            Unsupported: The answer has no such metric, or it is not above 0.
        """
        accuracy = max(0.0, 1.0 - metrics["val_error"] / 100.0)
        if self.metric is None:
            return accuracy
        if self.metric not in metrics:
            raise Unsupported(f"the reward needs {self.metric!r}; the evaluator gives {', '.join(sorted(metrics))}")
        value = metrics[self.metric]
        if not accuracy or not math.isfinite(value):
            return 0.0
        if not value > 0:
            raise Unsupported(f"the reward needs a {self.metric} above 0, not {value:g}")
        return float(accuracy * (value / self.target) ** (self.a if value <= self.target else self.b))

    def minimised(self, metrics: Mapping[str, float]) -> float:
        """What picks the winner: -R; inf where the training failed or the network cannot be run."""
        whole = math.isfinite(metrics["val_error"]) and math.isfinite(metrics.get(self.metric or "", 0.0))
        return -self(metrics) if whole else math.inf

    def known(self, metrics: Mapping[str, float]) -> bool:
        """Whether an answer holds what the reward needs."""
        return "val_error" in metrics and (self.metric is None or self.metric in metrics)

    def __str__(self) -> str:
        return "reward is the accuracy" if self.metric is None else f"target {self.target:.4g} {self.metric}"


def reward(
    name: str, space: SearchSpace, proxy: Proxy,
    *, constraint: str, a: float | None, b: float | None, metric: str | None, target: float | None,
    resources: Resources | None,
) -> Reward:  # fmt: skip
    """The reward that a searcher's options describe.

    Raises:
        BadInput: An option is out of its range, or nobody knows the metric.
    """
    below, above = CONSTRAINTS[one_of(f"{name}: constraint", constraint, tuple(CONSTRAINTS))]
    for option, value in (("a", a), ("b", b)):
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value <= 0):
            raise BadInput(f"{name}: {option} must be a number of at most 0, not {value!r}")
    exponents = float(below if a is None else a), float(above if b is None else b)
    goal = None if target is None else number(f"{name}: target", target, above=0)
    known = formulas(space, proxy) if resources is None else resources.names
    usual = next((name for name in (*USUAL, *known) if name in known), None)
    chosen = usual if metric is None else metric
    if chosen is None:
        if goal is not None:
            raise BadInput(f"{name}: a target of {goal:g} needs a metric; name one that the evaluator gives")
        return Reward(None, 1.0, *exponents)
    if goal is None:
        if chosen not in known:
            near = nearest(str(chosen), known)
            raise BadInput(f"{name}: no metric {chosen!r} without training: {near}; or give target")
        goal = median(space, proxy, chosen) if resources is None else resources.calibrate(proxy).percentile(chosen, 50)
        if not goal > 0:
            raise BadInput(f"{name}: the median of {chosen} over random architectures is {goal:g}; give target")
    return Reward(chosen, goal, *exponents)


def formulas(space: SearchSpace, proxy: Proxy) -> tuple[str, ...]:
    """Metrics that the space itself knows."""
    try:
        space.macs(space.at(0), proxy)
    except Unsupported:
        return ()
    return FORMULAS


def median(space: SearchSpace, proxy: Proxy, metric: str) -> float:
    """Of a formula over the calibration sample."""
    rng = np.random.default_rng(CALIBRATION)
    formula = {"macs": space.macs, "params": space.params}[metric]
    return float(np.median([formula(space.sample(rng), proxy) for _ in range(CALIBRATION[1])]))


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
        name: Of the searcher, for refusals.
        space: What it draws from.
        rng: Of its first weights.
        lr: Of Adam.
        clip: c: how far the ratio of probabilities may move, 1 - c to 1 + c, before it is followed no further.
        passes: Steps of Adam on each batch.
        entropy_weight: beta: of the policy's entropy, in nats summed over the decisions.
        hidden: Units of an LSTM layer.
        layers: Of the LSTM.
        embedding: Length of a decision's embedding.
        spread: Half range of its first weights.
    """

    def __init__(
        self, name: str, space: SearchSpace, rng: np.random.Generator,
        *, lr: float, clip: float, passes: int, entropy_weight: float, hidden: int, layers: int, embedding: int,
        spread: float,
    ) -> None:  # fmt: skip
        self.clip = number(f"{name}: clip", clip, above=0)
        self.passes = whole(f"{name}: passes", passes, least=1)
        self.entropy_weight = number(f"{name}: entropy_weight", entropy_weight)
        self.adam = Adam(number(f"{name}: lr", lr, above=0))
        self.policy = RNNPolicy(
            space.decisions, rng, number(f"{name}: spread", spread),
            hidden=whole(f"{name}: hidden", hidden, least=1), layers=whole(f"{name}: layers", layers, least=1),
            embedding=whole(f"{name}: embedding", embedding, least=1), tanh=0.0, temperature=1.0,
        )  # fmt: skip

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
            advantages: Shape (archs,).
            weights: Of each architecture's part of the loss, constants, (archs,); None: ones.
        """
        import torch

        advantage = torch.from_numpy(advantages)
        weight = torch.ones_like(advantage) if weights is None else torch.from_numpy(weights)
        old: torch.Tensor | None = None
        for _ in range(self.passes):
            log_p, entropy = self.policy.evaluate(archs)
            old = log_p.detach() if old is None else old
            ratio = (log_p - old).exp()
            clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
            gain = weight * torch.minimum(ratio * advantage, clipped * advantage)
            loss = -gain.mean() - self.entropy_weight * entropy.mean()
            self.policy.theta = self.policy.theta - self.adam.step(self.policy.slope(loss))


class Due:
    """Which places of a batch wait for the answer to which trial."""

    def __init__(self) -> None:
        self.places: dict[Trial, list[int]] = {}

    def add(self, trial: Trial, place: int) -> Trial:
        """One more."""
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
