"""MONAS: REINFORCE whose reward looks at accuracy and at what the network takes: energy, peak power, multiply-adds.

Hsu, Chang, Liang, Chou, Liu, Chang, Pan, Chen, Wei, Juan. "MONAS: Multi-Objective Neural Architecture Search using
Reinforcement Learning". 2018. https://arxiv.org/abs/1806.10332

A recurrent network draws an architecture decision by decision. It is trained under the proxy, its resource is read or
measured, and one of three rewards moves the drawing network up the policy gradient:

    mixed        alpha * Acc - (1 - alpha) * E
    constraint   Acc if metric < limit else 0            (peak power, or multiply-adds, in the paper)
    accuracy     1 - E if Acc >= limit else 0

Acc is the validation accuracy in [0, 1]; E the metric as a fraction of the range of 64 random architectures, which are
measured once before the search. The reward steers the search; the winner is picked by the run's goal. So the paper's
constraint on the winner is a limit of the goal.

Departures: the paper gives no sizes, rates, baseline or normalisation; ours are in docs/methods/monas.md. The
recurrent network's first input and the embeddings of its decisions are learnt, where the paper has zeros and one-hot
vectors. A failed training has accuracy 0. If the first 64 samples are all infeasible, the search ends
without a winner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, Protocol

import numpy as np

from searchers.parts.adam import Adam
from searchers.parts.options import AtLeast, AtMost, Count, Nonnegative, Positive, Share, checked
from searchers.parts.policies import LSTM, Array, Baseline, Policy, RNNPolicy, Sample, TabularPolicy
from searchers.parts.rewards import GoalReward, accuracy
from suite.pareto import Normaliser
from suite.spaces import SearchSpace
from suite.types import ERROR_ALONE, Architecture, BadInput, Evaluation, Goal, Proxy, Trial, Unsupported

SPREAD = 1e-3
"""Standard deviation of a tabular policy's first parameters, unless another is given."""
USUAL = {"mixed": "energy_mj", "constraint": "peak_power_w", "accuracy": "energy_mj"}
"""The paper's metric of each reward."""
FALLBACK = "macs"
"""Metric where the usual one is not known: the paper's other constraint."""
ALPHA = 0.75
REJECTED_IN_A_ROW = 1000
"""So many samples rejected before training, one after the other, end the search."""


class Calibration(Protocol):
    """Resources of random architectures, frozen."""

    def normaliser(self, metric: str) -> Normaliser:
        """From the least to the largest value."""

    def percentile(self, metric: str, share: float) -> float:
        """The value that `share` percent do not exceed."""


class Resources(Protocol):
    """The capability: metrics that need no training."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics that need no training."""

    def of(self, arch: Architecture, proxy: Proxy) -> dict[str, float]:
        """Metrics of a network; infinite where it cannot be run."""

    def calibrate(self, proxy: Proxy) -> Calibration:
        """Measure 64 random architectures, the same for every search of a run."""


class MONAS:
    """Draws from a policy that is moved towards accurate and cheap, or accurate and feasible, architectures."""

    family = "reinforcement learning"
    objectives = ("val_error", "energy_mj")
    needs = ("resources",)
    paper = "Hsu et al. 2018, arXiv:1806.10332"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, reward: Literal["mixed", "constraint", "accuracy", "goal"] = "mixed", alpha: Share | None = None,
        metric: str | None = None, limit: Positive | None = None,
        percentile: Annotated[float, AtLeast(0), AtMost(100)] | None = None,
        low: Nonnegative | None = None, high: Nonnegative | None = None, precheck: bool = False,
        patience: Annotated[int, AtLeast(0)] = 64, baseline: Literal["average", "none"] = "average",
        momentum: Share = 0.9, baseline_first: bool = True, policy: Literal["rnn", "tabular"] = "rnn",
        lr: Positive = 3e-3, samples: Count = 1, spread: Nonnegative | None = None, lstm: LSTM = LSTM(),
        resources: Resources | None = None, goal: Goal = ERROR_ALONE,
    ) -> None:  # fmt: skip
        """Start with a policy that is almost uniform.

        Args:
            space: What to search.
            proxy: What every network is trained under.
            rng: All chance comes from here.
            reward: The paper's "mixed", "constraint" or "accuracy"; "goal": the accuracy within the limits of the run's
                goal.
            alpha: Share of the accuracy in the mixed reward; None: 0.75.
            metric: The resource, as the answers name it; None: the paper's (energy_mj, or peak_power_w under a
                constraint) if it is among the resources, else macs, else their only one. Where there are no resources,
                the mixed reward is the accuracy alone.
            limit: Limit of "constraint", in the metric's unit; or of "accuracy", A_min in [0, 1].
            percentile: Limit of "constraint", instead of `limit`: that percentile of 64 random architectures.
            low: Value that E counts as 0, in the metric's unit; None: the least of 64 random architectures.
            high: Value that E counts as 1; None: the largest of them.
            precheck: Under "constraint": reject a violator before it is trained.
            patience: Infeasible samples without a feasible one that end the search; 0: never.
            baseline: "average", a moving average of rewards; or "none", as in the paper's formula.
            momentum: Share that the average keeps at each reward.
            baseline_first: Whether the average takes in a reward before it is subtracted from it.
            policy: "rnn" (needs torch) or "tabular".
            lr: Learning rate of Adam.
            samples: N: answers averaged for a step.
            spread: Standard deviation of the tabular policy's first parameters; None: 0.001.
            lstm: Size of the recurrent policy.
            resources: Metrics without training: for the choice of a metric, the range of E, a percentile, a precheck.
            goal: What the run is about.
        """
        self.space, self.proxy, self.rng, self.resources = space, proxy, rng, resources
        self.reward, self.samples, self.patience, self.precheck = reward, samples, patience, precheck
        self.by_goal = GoalReward(goal) if reward == "goal" else None
        self.metric = None if self.by_goal else self.chosen_metric(metric, alpha)
        self.alpha = (ALPHA if alpha is None else alpha) if self.metric else 1.0
        self.check_limit(limit, percentile)
        self.check_range(low, high)
        self.given_limit, self.percentile, self.given_range = limit, percentile, (low, high)
        self.baseline = Baseline(momentum, baseline_first) if baseline == "average" else None
        self.adam: Adam[np.float64] = Adam(lr)
        self.policy: Policy
        if policy == "tabular":
            self.policy = TabularPolicy(space.decisions, rng, SPREAD if spread is None else spread)
        else:
            if spread is not None:
                raise BadInput("monas: spread is the tabular policy's; write lstm.spread for the recurrent one's")
            self.policy = RNNPolicy(space.decisions, rng, lstm)
        self.due: dict[Trial, list[Sample]] = {}
        self.told: list[tuple[Sample, float]] = []
        """Samples of the next step, with their rewards."""
        self.trace: list[tuple[Architecture, float]] = []
        """Architecture and reward of every sample, in the order in which rewards arrive."""
        self.feasible = self.infeasible = self.rejected = 0

    def ask(self) -> list[Trial]:
        """One draw from the policy as it is now; with a precheck, the first that is feasible."""
        for _ in range(REJECTED_IN_A_ROW):
            if self.patience and not self.feasible and self.infeasible >= self.patience:
                break
            sample = self.policy.sample(self.rng)
            arch = self.space.settled(sample.arch)
            if not self.precheck or self.resource(arch) < self.limit:
                trial = Trial(arch, self.proxy)
                self.due.setdefault(trial, []).append(sample)
                return [trial]
            self.rejected += 1
            self.learn(sample, 0.0, feasible=False)
        return []

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Reward the samples; a step for every `samples` of them, in the order of completion."""
        for evaluation in evaluations:
            samples = self.due[evaluation.trial]
            sample = samples.pop(0)
            if not samples:
                del self.due[evaluation.trial]
            reward = self.reward_of(evaluation.metrics)
            self.learn(sample, reward, feasible=self.is_feasible(evaluation.metrics))

    def reward_of(self, metrics: Mapping[str, float]) -> float:
        """Reward R of an answer, by the chosen formula."""
        if self.by_goal is not None:
            return self.by_goal(metrics)
        if self.reward == "mixed":
            return self.alpha * accuracy(metrics) - (1.0 - self.alpha) * self.normalised(metrics)
        if not self.is_feasible(metrics):
            return 0.0
        return accuracy(metrics) if self.reward == "constraint" else 1.0 - self.normalised(metrics)

    def is_feasible(self, metrics: Mapping[str, float]) -> bool:
        """Whether the network was trained, can be run and keeps the constraint."""
        if self.by_goal is not None:
            return self.by_goal(metrics) > 0.0
        value = self.value(metrics)
        if not (math.isfinite(metrics["val_error"]) and math.isfinite(value)):
            return False
        if self.reward == "constraint":
            return value < self.limit
        return self.reward == "mixed" or 1.0 - metrics["val_error"] / 100.0 >= self.limit

    @property
    def note(self) -> str:
        """Reward in words, share of feasible samples, final entropy of the policy."""
        words = {
            "mixed": f"alpha {self.alpha:g}, {self.metric or 'no resource'}",
            "constraint": f"{self.metric} < {self.limit:.4g}",
            "accuracy": f"accuracy >= {self.limit:.4g}, {self.metric}",
            "goal": str(self.by_goal),
        }
        rejected = f", {self.rejected} rejected untrained" if self.precheck else ""
        if self.reward != "mixed" and not self.feasible:
            return f"{words[self.reward]}: no feasible sample of {self.infeasible}{rejected}"
        many = self.feasible + self.infeasible
        share = f", {100 * self.feasible / many:.0f} % feasible" if many and self.reward != "mixed" else ""
        return f"{words[self.reward]}{share}{rejected}, final entropy {self.policy.entropy():.1f} nats per decision"

    # Learning

    def learn(self, sample: Sample, reward: float, *, feasible: bool) -> None:
        """Take a reward in; a step of Adam if enough are there."""
        self.feasible, self.infeasible = self.feasible + feasible, self.infeasible + (not feasible)
        self.trace.append((sample.arch, reward))
        self.told.append((sample, reward))
        if len(self.told) == self.samples:
            self.policy.theta = self.policy.theta - self.adam.step(-self.ascent())
            self.told = []

    def ascent(self) -> Array:
        """Gradient of the expected reward, estimated from the samples told."""
        total = np.zeros_like(self.policy.theta)
        for sample, reward in self.told:
            advantage = reward if self.baseline is None else self.baseline.advantage(reward)
            total += advantage * sample.score
        total /= len(self.told)
        return total

    # The resource

    def value(self, metrics: Mapping[str, float]) -> float:
        """The metric of an answer; 0 where none is asked for."""
        if self.metric is None:
            return 0.0
        if self.metric not in metrics:
            held = ", ".join(sorted(metrics))
            raise Unsupported(
                f"monas: the answers hold no {self.metric!r} but {held}; add a source under [[resources]]"
            )
        return metrics[self.metric]

    def resource(self, arch: Architecture) -> float:
        """The metric of an architecture that was not trained."""
        assert self.resources is not None  # `check_limit` saw to it
        return self.resources.of(arch, self.proxy)[str(self.metric)]

    def normalised(self, metrics: Mapping[str, float]) -> float:
        """Normalised resource E of an answer, in [0, 1]."""
        return self.normaliser(self.value(metrics))

    # Options

    def chosen_metric(self, metric: str | None, alpha: float | None) -> str | None:
        """The one asked for, else the paper's, else multiply-adds, else the only one; None: accuracy alone."""
        if metric is not None:
            return metric
        names = self.resources.names if self.resources is not None else ()
        if USUAL[self.reward] in names:
            return USUAL[self.reward]
        if len(names) == 1 or FALLBACK in names:
            return FALLBACK if FALLBACK in names else names[0]
        if names:
            raise BadInput(
                f"monas: name the metric of the reward {self.reward!r}; the resources are {', '.join(names)}"
            )
        if self.reward == "mixed" and alpha is None:
            return None
        what = f"alpha {alpha!r}" if self.reward == "mixed" else f"the reward {self.reward!r}"
        raise BadInput(f"monas: {what} needs a metric: name one that the evaluator gives, or add [[resources]]")

    def check_limit(self, limit: float | None, percentile: float | None) -> None:
        """Raises BadInput unless the reward has the limit that it needs."""
        if self.reward in ("mixed", "goal"):
            if limit is not None or percentile is not None or self.precheck:
                raise BadInput("monas: limit, percentile and precheck belong to a constraint; choose such a reward")
        elif self.reward == "accuracy":
            if limit is None or percentile is not None or self.precheck:
                raise BadInput("monas: the reward 'accuracy' needs limit, and has neither percentile nor precheck")
            if limit > 1:
                raise BadInput(f"monas: limit must be a number in [0, 1] under the reward 'accuracy', not {limit:g}")
        else:
            if self.precheck and not self.known:
                raise BadInput(f"monas: precheck needs {self.metric} without training: add a source as [[resources]]")
            if (limit is None) == (percentile is None):
                raise BadInput("monas: the reward 'constraint' needs limit or percentile, one of the two")
            if limit is None and not self.known:
                raise BadInput(f"monas: no source of {self.metric} to calibrate with: add [[resources]], or give limit")

    def check_range(self, low: float | None, high: float | None) -> None:
        """Raises BadInput unless E has a range."""
        if (low is None) != (high is None):
            raise BadInput("monas: give low and high, or neither")
        if low is not None and high is not None:
            if not high > low:
                raise BadInput(f"monas: high must be a number above low = {low:g}, not {high:g}")
        elif self.reward != "constraint" and self.metric is not None and not self.known:
            raise BadInput(
                f"monas: no source of {self.metric} to calibrate with: add [[resources]], or give low and high"
            )

    @property
    def known(self) -> bool:
        """Whether the metric is known without training."""
        return self.resources is not None and self.metric in self.resources.names

    # What is measured before the search, when it is first asked

    @cached_property
    def calibration(self) -> Calibration:
        """The frozen sample of random architectures."""
        assert self.resources is not None  # `check_limit` and `check_range` saw to it
        return self.resources.calibrate(self.proxy)

    @cached_property
    def limit(self) -> float:
        """B or A_min; inf where the reward has none."""
        if self.percentile is not None:
            return self.calibration.percentile(str(self.metric), self.percentile)
        return math.inf if self.given_limit is None else float(self.given_limit)

    @cached_property
    def normaliser(self) -> Normaliser:
        """Range of E, its values 0 and 1: both as given, or both of the calibration."""
        low, high = self.given_range
        if low is not None and high is not None:
            return Normaliser(low, high)
        return Normaliser(0.0, 1.0) if self.metric is None else self.calibration.normaliser(self.metric)
