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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from searchers._options import flag, fraction, whole
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

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


@dataclass(frozen=True)
class Sample:
    """An architecture, as its policy drew it."""

    arch: Architecture
    log_probability: float
    entropy: float
    """Of its decisions, each given those before, summed [nats]."""
    score: Array
    """Gradient of the log probability by the policy's parameters, (parameters,)."""
    entropy_slope: Array
    """Gradient of the entropy, (parameters,)."""


class Policy(Protocol):
    """A distribution over architectures with parameters to move."""

    theta: Array
    """All parameters, (parameters,)."""

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw an architecture."""

    def log_probability(self, arch: Architecture) -> float:
        """Of drawing `arch` [nats]."""

    def likeliest(self) -> Architecture:
        """The likeliest option of each decision, one after the other."""

    def entropy(self) -> float:
        """Mean over the decisions [nats]; ln(options) where nothing was learnt."""


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
        self.lr = number("lr", chosen("lr", lr), above=0)
        self.samples = whole("reinforce: samples", chosen("samples", samples), least=1)
        self.entropy_weight = number("entropy_weight", chosen("entropy_weight", entropy_weight))
        self.entropy_bonus = entropy_bonus
        self.scale = number("scale", scale, above=0)
        self.clip = number("clip", chosen("clip", clip))
        average = fraction("reinforce: momentum", chosen("momentum", momentum))
        self.baseline = Baseline(average, flag("reinforce: baseline_first", baseline_first))
        pair = chosen("betas", betas)
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(0 <= beta < 1 for beta in pair):
            raise BadInput(f"reinforce: betas must be two numbers in [0, 1), not {pair!r}")
        self.adam = Adam(self.lr, (pair[0], pair[1]), number("epsilon", chosen("epsilon", epsilon), above=0))
        width = number("spread", chosen("spread", spread))
        self.policy: Policy = (
            TabularPolicy(space.decisions, rng, width)
            if policy == "tabular"
            else RNNPolicy(
                space.decisions, rng, width,
                hidden=whole("reinforce: hidden", hidden, least=1), layers=whole("reinforce: layers", layers, least=1),
                embedding=whole("reinforce: embedding", embedding, least=1),
                tanh=number("tanh", tanh, above=0), temperature=number("temperature", temperature, above=0),
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


class Baseline:
    """A debiased moving average of the rewards."""

    def __init__(self, momentum: float, first: bool) -> None:
        self.momentum, self.first = momentum, first
        self.numerator = self.denominator = 0.0

    def advantage(self, reward: float) -> float:
        """The reward above the average, which takes it in before or after; the very first has none, 0."""
        before = self.value if self.denominator else reward
        self.numerator = self.momentum * self.numerator + (1 - self.momentum) * reward
        self.denominator = self.momentum * self.denominator + (1 - self.momentum)
        return reward - (self.value if self.first else before)

    @property
    def value(self) -> float:
        """The average now; nan before the first reward."""
        return self.numerator / self.denominator if self.denominator else math.nan


class Adam:
    """Kingma, Ba. "Adam: A Method for Stochastic Optimization". ICLR 2015, Algorithm 1. https://arxiv.org/abs/1412.6980"""

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> None:
        self.lr, self.betas, self.epsilon = lr, betas, epsilon
        self.steps = 0
        self.first: Array | float = 0.0
        self.second: Array | float = 0.0

    def step(self, gradient: Array) -> Array:
        """What to subtract from the parameters."""
        (b1, b2), self.steps = self.betas, self.steps + 1
        self.first = b1 * self.first + (1 - b1) * gradient
        self.second = b2 * self.second + (1 - b2) * gradient**2
        mean, square = self.first / (1 - b1**self.steps), self.second / (1 - b2**self.steps)
        change: Array = self.lr * mean / (np.sqrt(square) + self.epsilon)
        return change


class TabularPolicy:
    """Decisions independent of one another, each a softmax of its own logits."""

    def __init__(self, decisions: Sequence[int], rng: np.random.Generator, spread: float) -> None:
        self.there = np.arange(max(decisions)) < np.array(decisions)[:, None]  # (decisions, options)
        self.theta: Array = (spread * rng.standard_normal(self.there.shape) * self.there).ravel()

    @property
    def probabilities(self) -> Array:
        """(decisions, options), 0 where there is no such option."""
        logits = np.where(self.there, self.theta.reshape(self.there.shape), -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        normalised: Array = weights / weights.sum(axis=1, keepdims=True)
        return normalised

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw all decisions at once."""
        p = self.probabilities
        options = drawn(p, rng.random((len(p), 1)))
        log_p = logarithm(p)
        entropies = -(p * log_p).sum(axis=1, keepdims=True)  # (decisions, 1)
        one_hot = np.arange(p.shape[1]) == options[:, None]
        return Sample(
            tuple(options.tolist()),
            float(log_p[one_hot].sum()),
            float(entropies.sum()),
            (one_hot - p).ravel(),
            (-p * (log_p + entropies)).ravel(),
        )

    def log_probability(self, arch: Architecture) -> float:
        """Sum over the decisions."""
        with np.errstate(divide="ignore"):  # a policy may come to exclude an option
            return float(np.log(self.probabilities[np.arange(len(arch)), list(arch)]).sum())

    def likeliest(self) -> Architecture:
        """The mode."""
        return tuple(self.probabilities.argmax(axis=1).tolist())

    def entropy(self) -> float:
        """Exact."""
        p = self.probabilities
        return float(-(p * logarithm(p)).sum(axis=1).mean())


class RNNPolicy:
    """An LSTM that reads the embedding of its last decision; the first input is learnt.

    Decisions with equally many options share an embedding and an output layer, as on NAS-Bench-201 all do in ENAS.
    """

    def __init__(
        self, decisions: Sequence[int], rng: np.random.Generator, spread: float,
        *, hidden: int, layers: int, embedding: int, tanh: float, temperature: float,
    ) -> None:  # fmt: skip
        import torch
        from torch import nn

        self.decisions, self.tanh, self.temperature = tuple(decisions), tanh, temperature
        sizes = sorted(set(decisions))
        with torch.random.fork_rng(devices=[]):  # torch draws first weights too; nobody shall notice
            self.start = nn.Embedding(1, embedding).double()
            self.lstm = nn.LSTM(embedding, hidden, layers).double()
            self.read = {size: nn.Embedding(size, embedding).double() for size in sizes}
            self.write = {size: nn.Linear(hidden, size).double() for size in sizes}
        modules = nn.ModuleList([self.start, self.lstm, *self.read.values(), *self.write.values()])
        self.parameters = list(modules.parameters())
        self.theta = rng.uniform(-spread, spread, sum(p.numel() for p in self.parameters))
        self.latest = math.nan

    def unroll(self, choose: Callable[[int, torch.Tensor], int]) -> tuple[Architecture, torch.Tensor, torch.Tensor]:
        """An architecture decision by decision, with its log probability and entropy, both differentiable."""
        import torch

        set_parameters(self.parameters, self.theta)
        options: list[int] = []
        log_probability = entropy = torch.zeros((), dtype=torch.float64)
        inputs, state = self.start.weight, None  # (1, embedding)
        for place, count in enumerate(self.decisions):
            output, state = self.lstm(inputs, state)
            logits = self.tanh * torch.tanh(self.write[count](output[0]) / self.temperature)  # (options,)
            log_p = torch.log_softmax(logits, 0)
            option = choose(place, log_p)
            options.append(option)
            log_probability = log_probability + log_p[option]
            entropy = entropy - (log_p.exp() * log_p).sum()
            inputs = self.read[count].weight[option : option + 1]
        return tuple(options), log_probability, entropy

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw the decisions one after the other."""

        def choose(place: int, log_p: torch.Tensor) -> int:
            return int(drawn(log_p.detach().exp().numpy()[None], rng.random((1, 1)))[0])

        arch, log_probability, entropy = self.unroll(choose)
        self.latest = float(entropy.detach()) / len(self.decisions)
        return Sample(
            arch,
            float(log_probability.detach()),
            float(entropy.detach()),
            self.slope(log_probability),
            self.slope(entropy),
        )

    def slope(self, value: torch.Tensor) -> Array:
        """Gradient by `theta`."""
        import torch

        slopes = torch.autograd.grad(value, self.parameters, retain_graph=True, allow_unused=True)
        pairs = zip(slopes, self.parameters, strict=True)
        flat = [torch.zeros(p.numel(), dtype=p.dtype) if slope is None else slope.flatten() for slope, p in pairs]
        gradient: Array = torch.cat(flat).numpy()
        return gradient

    def log_probability(self, arch: Architecture) -> float:
        """Of these decisions, each given those before."""
        return float(self.unroll(lambda place, _: arch[place])[1].detach())

    def likeliest(self) -> Architecture:
        """Greedy: the likeliest option after the likeliest before it."""
        return self.unroll(lambda _, log_p: int(log_p.argmax()))[0]

    def entropy(self) -> float:
        """Along the latest sample."""
        return self.latest


def set_parameters(parameters: Sequence[torch.Tensor], theta: Array) -> None:
    """Write the flat vector into the network."""
    import torch

    with torch.no_grad():
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.copy_(torch.from_numpy(theta[start:end]).view_as(parameter))
            start = end


def drawn(probabilities: Array, uniform: Array) -> npt.NDArray[np.int64]:
    """One option a row, by uniform numbers in [0, 1), (rows, 1)."""
    reached = np.cumsum(probabilities, axis=1)
    last = (probabilities > 0).cumsum(axis=1).argmax(axis=1)  # where rounding leaves the sum below 1
    chosen: npt.NDArray[np.int64] = np.minimum((reached <= uniform * reached[:, -1:]).sum(axis=1), last)
    return chosen


def logarithm(probabilities: Array) -> Array:
    """Natural, with 0 for the logarithm of 0: p log p is 0 there."""
    return np.log(np.where(probabilities > 0, probabilities, 1.0))


def number(option: str, value: object, *, above: float | None = None) -> float:
    """`value`, a finite number of at least 0, or above `above`; anything else is BadInput."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if good and isinstance(value, int | float) and (value > above if above is not None else value >= 0):
        return float(value)
    limits = "of at least 0" if above is None else f"above {above:g}"
    raise BadInput(f"reinforce: {option} must be a number {limits}, not {value!r}")
