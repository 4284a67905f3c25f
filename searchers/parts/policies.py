"""Distributions over architectures that are moved by gradients: what the policy-gradient searchers share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from searchers.parts.options import Count, Nonnegative, Positive, Value
from suite.types import Architecture

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """An architecture, as its policy drew it."""

    arch: Architecture
    log_probability: float
    entropy: float
    """Entropy of its decisions, each given those before, summed [nats]."""
    score: Array
    """Gradient of the log probability by the policy's parameters, (parameters,)."""
    entropy_slope: Array
    """Gradient of the entropy, (parameters,)."""


class Policy(Protocol):
    """A distribution over architectures with parameters to move."""

    theta: Array
    """All parameters in one array, shape (parameters,)."""

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw one architecture from the policy."""

    def log_probability(self, arch: Architecture) -> float:
        """Log probability of drawing `arch` [nats]."""

    def likeliest(self) -> Architecture:
        """The likeliest option of each decision, one after the other."""

    def entropy(self) -> float:
        """Mean over the decisions [nats]; ln(options) where nothing was learnt."""


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


@dataclass(frozen=True)
class LSTM(Value):
    """Size and first weights of a recurrent policy; `lstm` of a spec."""

    hidden: Count = 64
    """Number of units in a layer."""
    layers: Count = 1
    """Number of layers in the LSTM."""
    embedding: Count = 32
    """Length of a decision's embedding."""
    tanh: Nonnegative = 2.5
    """Bound of the logits, c; 0: none."""
    temperature: Positive = 5.0
    """Divisor of the output before the bound, tau_c."""
    spread: Nonnegative = 0.1
    """Half range of the first weights."""


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
        """Log probability of `arch`, summed over the decisions [nats]."""
        with np.errstate(divide="ignore"):  # a policy may come to exclude an option
            return float(np.log(self.probabilities[np.arange(len(arch)), list(arch)]).sum())

    def likeliest(self) -> Architecture:
        """The most probable architecture: the mode of each decision."""
        return tuple(self.probabilities.argmax(axis=1).tolist())

    def entropy(self) -> float:
        """Exact mean entropy over the decisions [nats]."""
        p = self.probabilities
        return float(-(p * logarithm(p)).sum(axis=1).mean())


def on_one_thread(method: Callable[P, T]) -> Callable[P, T]:
    """Run on one thread of torch: small networks are fastest so, and sums do not depend on the number of threads."""

    @functools.wraps(method)
    def alone(*args: P.args, **kwargs: P.kwargs) -> T:
        import torch

        before = torch.get_num_threads()
        if before == 1:
            return method(*args, **kwargs)
        torch.set_num_threads(1)
        try:
            return method(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return alone


class RNNPolicy:
    """An LSTM that reads the embedding of its last decision; the first input is learnt.

    Decisions with equally many options share an embedding and an output layer, as on NAS-Bench-201 all do in ENAS.
    One architecture at a time carries its own gradients (`sample`); `draw` and `evaluate` work on many at once.
    """

    def __init__(self, decisions: Sequence[int], rng: np.random.Generator, size: LSTM) -> None:
        import torch
        from torch import nn

        self.decisions, self.tanh, self.temperature = tuple(decisions), size.tanh, size.temperature
        sizes = sorted(set(decisions))
        with torch.random.fork_rng(devices=[]):  # torch draws first weights too; the global state must stay as it was
            self.start = nn.Embedding(1, size.embedding).double()
            self.lstm = nn.LSTM(size.embedding, size.hidden, size.layers).double()
            self.read = {count: nn.Embedding(count, size.embedding).double() for count in sizes}
            self.write = {count: nn.Linear(size.hidden, count).double() for count in sizes}
        modules = nn.ModuleList([self.start, self.lstm, *self.read.values(), *self.write.values()])
        self.parameters = list(modules.parameters())
        self.theta = rng.uniform(-size.spread, size.spread, sum(p.numel() for p in self.parameters))
        self.latest = math.nan

    @on_one_thread
    def unroll(self, choose: Callable[[int, torch.Tensor], int]) -> tuple[Architecture, torch.Tensor, torch.Tensor]:
        """An architecture decision by decision, with its log probability and entropy, both differentiable."""
        import torch

        set_parameters(self.parameters, self.theta)
        options: list[int] = []
        log_probability = entropy = torch.zeros((), dtype=torch.float64)
        inputs, state = self.start.weight, None  # (1, embedding)
        for place, count in enumerate(self.decisions):
            output, state = self.lstm(inputs, state)
            log_p = torch.log_softmax(self.bounded(self.write[count](output[0])), 0)  # (options,)
            option = choose(place, log_p)
            options.append(option)
            log_probability = log_probability + log_p[option]
            entropy = entropy - (log_p.exp() * log_p).sum()
            inputs = self.read[count].weight[option : option + 1]
        return tuple(options), log_probability, entropy

    def bounded(self, output: torch.Tensor) -> torch.Tensor:
        """The logits of an output, of any shape; `tanh` 0 leaves them without a bound."""
        import torch

        scaled = output / self.temperature
        return self.tanh * torch.tanh(scaled) if self.tanh else scaled

    @on_one_thread
    def unroll_batch(
        self, count: int, choose: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Many architectures at once: options (count, decisions), log probabilities and entropies (count,).

        `choose` gets the place and log probabilities (count, options), and gives options (count,).
        """
        import torch

        set_parameters(self.parameters, self.theta)
        options: list[torch.Tensor] = []
        log_probability = entropy = torch.zeros(count, dtype=torch.float64)
        inputs, state = self.start.weight.expand(count, -1), None  # (count, embedding)
        for place, size in enumerate(self.decisions):
            output, state = self.lstm(inputs[None], state)
            log_p = torch.log_softmax(self.bounded(self.write[size](output[0])), 1)  # (count, options)
            chosen = choose(place, log_p)
            options.append(chosen)
            log_probability = log_probability + log_p.gather(1, chosen[:, None])[:, 0]
            entropy = entropy - (log_p.exp() * log_p).sum(1)
            inputs = self.read[size](chosen)
        return torch.stack(options, 1), log_probability, entropy

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[Architecture], Array]:
        """So many architectures, independent of one another, and their log probabilities, (count,)."""
        import torch

        def choose(place: int, log_p: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(drawn(log_p.exp().numpy(), rng.random((count, 1))))

        with torch.no_grad():
            options, log_probability, entropy = self.unroll_batch(count, choose)
        self.latest = float(entropy.mean()) / len(self.decisions)
        return [tuple(row) for row in options.tolist()], log_probability.numpy()

    def evaluate(self, archs: Sequence[Architecture]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities and entropies of the decisions of `archs`, (archs,) each, both differentiable."""
        import torch

        told = torch.tensor(archs)
        _, log_probability, entropy = self.unroll_batch(len(archs), lambda place, _: told[:, place])
        return log_probability, entropy

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

    @on_one_thread
    def slope(self, value: torch.Tensor) -> Array:
        """Gradient of `value` by `theta`, shape (parameters,)."""
        import torch

        slopes = torch.autograd.grad(value, self.parameters, retain_graph=True, allow_unused=True)
        pairs = zip(slopes, self.parameters, strict=True)
        flat = [torch.zeros(p.numel(), dtype=p.dtype) if slope is None else slope.flatten() for slope, p in pairs]
        gradient: Array = torch.cat(flat).numpy()
        return gradient

    def log_probability(self, arch: Architecture) -> float:
        """Log probability of these decisions, each given those before [nats]."""
        return float(self.unroll(lambda place, _: arch[place])[1].detach())

    def likeliest(self) -> Architecture:
        """Greedy: the likeliest option after the likeliest before it."""
        return self.unroll(lambda _, log_p: int(log_p.argmax()))[0]

    def entropy(self) -> float:
        """Mean entropy along the latest sample [nats]."""
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
