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
from typing import Any

import numpy as np

from searchers.parts.options import flag, fraction, number, whole
from searchers.parts.policies import Adam, Array, Baseline, Policy, RNNPolicy, Sample, TabularPolicy
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial

DEFAULTS: dict[str, dict[str, Any]] = {
    "tabular": {
        "lr": 0.1, "samples": 1, "momentum": 0.9, "entropy_weight": 0.0,
        "betas": (0.9, 0.999), "epsilon": 1e-8, "clip": 0.0, "spread": 1e-3,
    },
    "rnn": {
        "lr": 1e-3, "samples": 4, "momentum": 0.95, "entropy_weight": 1e-4,
        "betas": (0.0, 0.999), "epsilon": 1e-3, "clip": 5.0, "spread": 0.1,
    },
}  # fmt: skip
"""Options that differ between the policies."""
BONUSES = ("reward", "loss")


class Reinforce:
    """Draws from a policy; every `samples` answers are a step of Adam up the reward."""

    family = "reinforcement learning"
    objectives = ("val_error",)
    needs = ()
    paper = "Williams 1992; Zoph & Le, ICLR 2017, arXiv:1611.01578; Dong & Yang, ICLR 2020, arXiv:2001.00326"

    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, policy: str = "tabular", lr: float | None = None, samples: int | None = None,
        momentum: float | None = None, baseline_first: bool = True,
        entropy_weight: float | None = None, entropy_bonus: str = "reward", scale: float = 1.0,
        betas: Sequence[float] | None = None, epsilon: float | None = None, clip: float | None = None,
        spread: float | None = None, hidden: int = 64, layers: int = 1, embedding: int = 32,
        tanh: float = 2.5, temperature: float = 5.0,
    ) -> None:  # fmt: skip
        """Start with a policy that is almost uniform.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            policy: "tabular" or "rnn" (needs torch); options that are None have the values of `DEFAULTS` for it.
            lr: Of Adam.
            samples: N: answers averaged for a step.
            momentum: Of the baseline, the moving average of rewards; 0: the last reward.
            baseline_first: Whether the baseline takes in a reward before it is subtracted from it.
            entropy_weight: beta: of the entropy, in nats summed over the decisions.
            entropy_bonus: "reward": added to the reward, as ENAS does; "loss": its own gradient is followed.
            scale: Reward of accuracy 1.
            betas: Of Adam.
            epsilon: Of Adam.
            clip: Largest norm of a step's gradient; 0: any.
            spread: Of the first parameters: standard deviation of the table, half range of the LSTM's weights.
            hidden: Units of an LSTM layer.
            layers: Of the LSTM.
            embedding: Length of a decision's embedding.
            tanh: Bound of the LSTM's logits, c.
            temperature: Divisor of the LSTM's output before the bound, tau_c.
        """
        if policy not in DEFAULTS:
            raise BadInput(f"reinforce: policy must be one of {', '.join(DEFAULTS)}, not {policy!r}")
        if entropy_bonus not in BONUSES:
            raise BadInput(f"reinforce: entropy_bonus must be one of {', '.join(BONUSES)}, not {entropy_bonus!r}")
        default = DEFAULTS[policy]

        def chosen(option: str, value: Any) -> Any:
            return default[option] if value is None else value

        self.space, self.proxy, self.rng = space, proxy, rng
        self.lr = number("reinforce: lr", chosen("lr", lr), above=0)
        self.samples = whole("reinforce: samples", chosen("samples", samples), least=1)
        self.entropy_weight = number("reinforce: entropy_weight", chosen("entropy_weight", entropy_weight))
        self.entropy_bonus = entropy_bonus
        self.scale = number("reinforce: scale", scale, above=0)
        self.clip = number("reinforce: clip", chosen("clip", clip))
        average = fraction("reinforce: momentum", chosen("momentum", momentum))
        self.baseline = Baseline(average, flag("reinforce: baseline_first", baseline_first))
        pair = chosen("betas", betas)
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(0 <= beta < 1 for beta in pair):
            raise BadInput(f"reinforce: betas must be two numbers in [0, 1), not {pair!r}")
        self.adam = Adam(self.lr, (pair[0], pair[1]), number("reinforce: epsilon", chosen("epsilon", epsilon), above=0))
        width = number("reinforce: spread", chosen("spread", spread))
        self.policy: Policy = (
            TabularPolicy(space.decisions, rng, width)
            if policy == "tabular"
            else RNNPolicy(
                space.decisions, rng, width,
                hidden=whole("reinforce: hidden", hidden, least=1), layers=whole("reinforce: layers", layers, least=1),
                embedding=whole("reinforce: embedding", embedding, least=1),
                tanh=number("reinforce: tanh", tanh, above=0),
                temperature=number("reinforce: temperature", temperature, above=0),
            )
        )  # fmt: skip
        self.due: dict[Trial, list[Sample]] = {}
        self.told: list[tuple[Sample, float]] = []
        """Samples of the next step, with their rewards."""
        self.trace: list[tuple[Architecture, float, float, float]] = []
        """Of every answer: architecture, log probability, entropy, reward."""

    @property
    def note(self) -> str:
        """How far the policy has gone from uniform."""
        return f"lr {self.lr:g}, final entropy {self.policy.entropy():.1f} nats per decision"

    def ask(self) -> list[Trial]:
        """One draw from the policy as it is now."""
        sample = self.policy.sample(self.rng)
        trial = Trial(sample.arch, self.proxy)
        self.due.setdefault(trial, []).append(sample)
        return [trial]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Reward the samples; a step for every `samples` of them, in the order of completion."""
        for evaluation in evaluations:
            samples = self.due[evaluation.trial]
            sample = samples.pop(0)
            if not samples:
                del self.due[evaluation.trial]
            reward = self.scale * max(0.0, 1.0 - evaluation.metrics["val_error"] / 100.0)
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
