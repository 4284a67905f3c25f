"""REINFORCE: a policy draws architectures and is moved towards those that beat the running mean of rewards.

Williams. "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning". Machine Learning
8, 1992. https://doi.org/10.1007/BF00992696
With a recurrent policy: Zoph, Le. "Neural Architecture Search with Reinforcement Learning". ICLR 2017.
https://arxiv.org/abs/1611.01578, in the form of ENAS: Pham et al., ICML 2018. https://arxiv.org/abs/1802.03268
With a tabular one, as baseline: Dong, Yang. "NAS-Bench-201". ICLR 2020. https://arxiv.org/abs/2001.00326

The policy is a table of independent softmaxes, one a decision, or an LSTM that reads its last decision before the next.
The reward is the validation accuracy in [0, 1]; a failed training has none, 0. The baseline is a debiased moving
average; as in the authors' code it holds the current reward before it is subtracted, which shortens the expected
gradient to `momentum` of its length and leaves its direction.

Departures: learning rate 0.1, with which the policy learns within the about 100 samples of NAS-Bench-201's protocol;
its authors' runs have 0.001, 0.01 or 0.5 (docs/methods/reinforce.md has all four). The recurrent policy is smaller than
the papers', 64 units. With several workers an answer is credited to the policy that drew it, updates later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from searchers.parts.adam import Adam
from searchers.parts.options import AtLeast, Below, Count, Nonnegative, Positive, Share, checked
from searchers.parts.policies import LSTM, Array, Baseline, Policy, RNNPolicy, Sample, TabularPolicy
from searchers.parts.rewards import accuracy
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial

DEFAULTS: dict[str, dict[str, Any]] = {
    "tabular": {
        "lr": 0.1, "samples": 1, "momentum": 0.9, "entropy_weight": 0.0,
        "betas": (0.9, 0.999), "epsilon": 1e-8, "clip": 0.0,
    },
    "rnn": {
        "lr": 1e-3, "samples": 4, "momentum": 0.95, "entropy_weight": 1e-4,
        "betas": (0.0, 0.999), "epsilon": 1e-3, "clip": 5.0,
    },
}  # fmt: skip
"""Options that differ between the policies."""
SPREAD = 1e-3
"""Standard deviation of a tabular policy's first parameters, unless another is given."""
Beta = Annotated[float, AtLeast(0), Below(1)]


class Reinforce:
    """Draws from a policy; every `samples` answers are a step of Adam up the reward."""

    family = "reinforcement learning"
    objectives = ("val_error",)
    needs = ()
    paper = "Williams 1992; Zoph & Le, ICLR 2017, arXiv:1611.01578; Dong & Yang, ICLR 2020, arXiv:2001.00326"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, policy: Literal["tabular", "rnn"] = "tabular", lr: Positive | None = None, samples: Count | None = None,
        momentum: Share | None = None, baseline_first: bool = True,
        entropy_weight: Nonnegative | None = None, entropy_bonus: Literal["reward", "loss"] = "reward",
        scale: Positive = 1.0, betas: tuple[Beta, Beta] | None = None, epsilon: Positive | None = None,
        clip: Nonnegative | None = None, spread: Nonnegative | None = None, lstm: LSTM = LSTM(),
    ) -> None:  # fmt: skip
        """Start with a policy that is almost uniform.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            policy: "tabular" or "rnn" (needs torch); options that are None have the values of `DEFAULTS` for it.
            lr: Learning rate of Adam.
            samples: N: answers averaged for a step.
            momentum: Share that the baseline, the moving average of rewards, keeps; 0: the last reward.
            baseline_first: Whether the baseline takes in a reward before it is subtracted from it.
            entropy_weight: beta: weight of the entropy, in nats summed over the decisions.
            entropy_bonus: "reward": added to the reward, as ENAS does; "loss": its own gradient is followed.
            scale: Reward of accuracy 1.
            betas: Decays of Adam's two moments.
            epsilon: Added to the root of Adam's second moment.
            clip: Largest norm of a step's gradient; 0: any.
            spread: Standard deviation of the table's first parameters; None: 0.001.
            lstm: Size of the recurrent policy.
        """
        default = DEFAULTS[policy]

        def chosen(option: str, value: Any) -> Any:
            return default[option] if value is None else value

        self.space, self.proxy, self.rng = space, proxy, rng
        self.lr, self.samples = chosen("lr", lr), chosen("samples", samples)
        self.entropy_weight, self.entropy_bonus = chosen("entropy_weight", entropy_weight), entropy_bonus
        self.scale, self.clip = scale, chosen("clip", clip)
        self.baseline = Baseline(chosen("momentum", momentum), baseline_first)
        self.adam: Adam[np.float64] = Adam(self.lr, chosen("betas", betas), chosen("epsilon", epsilon))
        self.policy: Policy
        if policy == "tabular":
            self.policy = TabularPolicy(space.decisions, rng, SPREAD if spread is None else spread)
        else:
            if spread is not None:
                raise BadInput("reinforce: spread is the tabular policy's; write lstm.spread for the recurrent one's")
            self.policy = RNNPolicy(space.decisions, rng, lstm)
        self.due: dict[Trial, list[Sample]] = {}
        self.told: list[tuple[Sample, float]] = []
        """Samples of the next step, with their rewards."""
        self.trace: list[tuple[Architecture, float, float, float]] = []
        """Architecture, log probability, entropy and reward of every answer."""

    @property
    def note(self) -> str:
        """Learning rate, and the policy's final entropy."""
        return f"lr {self.lr:g}, final entropy {self.policy.entropy():.1f} nats per decision"

    def ask(self) -> list[Trial]:
        """One draw from the policy as it is now."""
        sample = self.policy.sample(self.rng)
        trial = Trial(self.space.settled(sample.arch), self.proxy)
        self.due.setdefault(trial, []).append(sample)
        return [trial]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Reward the samples; a step for every `samples` of them, in the order of completion."""
        for evaluation in evaluations:
            samples = self.due[evaluation.trial]
            sample = samples.pop(0)
            if not samples:
                del self.due[evaluation.trial]
            reward = self.scale * accuracy(evaluation.metrics)
            self.trace.append((sample.arch, sample.log_probability, sample.entropy, reward))
            self.told.append((sample, reward))
            if len(self.told) == self.samples:
                self.policy.theta = self.policy.theta - self.adam.step(-self.ascent())
                self.told = []

    def ascent(self) -> Array:
        """Gradient of the expected reward, estimated from the samples told."""
        total = np.zeros_like(self.policy.theta)
        for sample, reward in self.told:
            if self.entropy_bonus == "reward":
                reward += self.entropy_weight * sample.entropy
            elif self.entropy_weight:
                total += self.entropy_weight * sample.entropy_slope
            total += self.baseline.advantage(reward) * sample.score
        total /= len(self.told)
        norm = float(np.linalg.norm(total))
        return total * (self.clip / norm) if 0 < self.clip < norm else total
