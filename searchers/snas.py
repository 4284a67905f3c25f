"""SNAS: the cell is drawn, and the draw is relaxed, so that one backward pass trains weights and distribution.

Xie, Zheng, Liu, Lin. "SNAS: Stochastic Neural Architecture Search". ICLR 2019. https://arxiv.org/abs/1812.09926

Every edge draws its operation from a categorical distribution, relaxed by the concrete one, whose temperature falls
until a draw is nearly one-hot. Weights and logits step on the same batch; a resource cost that adds up over edges can
be added to the loss. The child has the likeliest operation of every edge, `none` too.

`SNAS` is the authors' method, `SNASBilevel` the one whose numbers on NAS-Bench-201 are quoted: that of DrNAS's code
(Chen et al., ICLR 2021). Departures, also in docs/methods/snas.md: Adam moves the logits by default, as in the authors'
training on several GPUs; the log density needs no floor, and of it the draw is held fixed when the resource cost is a
reward, which the authors' code does not do; the test images are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from searchers.parts.costs import known, shares, table
from searchers.parts.logits import Alpha, Logits, Statistics
from searchers.parts.options import AtLeast, Nonnegative, Positive, Share, checked
from suite.spaces import SearchSpace, darts, nas_bench_201
from suite.types import Architecture, Proxy, Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from suite.networks.learner import Batch, Learner, Pass

LEVELS = {"mild": 1.5e-3, "moderate": 5e-3, "aggressive": 1e-2}
"""Values of eta, for the logarithmic form: the authors' command for 20 cells, ours, the authors' default.

The paper's values for its three constraints are not known.
"""
Eta = Literal["mild", "moderate", "aggressive"] | Nonnegative
Way = Literal["reparametrization", "discrete", "policy_gradient"]
Form = Literal["log", "linear"]
DROP_PATH = 0.3
"""The authors' for 8 cells; 0.2 for 20."""


class SNAS(Logits):
    """One draw a step, the same for all images and all cells of a kind.

    Args:
        space: nas_bench_201 or darts_edges, whose architectures have all edges; darts with `two_edges`.
        eta: Weight of the resource cost: "mild", "moderate", "aggressive", or a number; 0: none; None: "mild" where
            costs of the operations are known, none elsewhere.
        resource: How it reaches the logits: "reparametrization", "discrete", "policy_gradient"; see `penalty`.
        resource_form: "log" or "linear".
        ratio: What reduction cells count in it against normal ones.
        temperature: Temperature in the beginning.
        temperature_end: Temperature when the horizon is reached.
        horizon: Epochs over which the temperature falls; 0: the run's.
        bilevel: Whether logits step on images of their own, alternating with the weights.
        resample_cells: Whether every cell draws anew.
        drop_path: Probability with which an edge's mixture is left out; None: 0.3 in DARTS's cells, none elsewhere.
        two_edges: Derive as DARTS does, two edges a node, none of them `none`.
    """

    method = "snas"
    paper = "Xie et al., ICLR 2019, arXiv:1812.09926"
    ahead = 1
    """Epochs by which the temperature is ahead: its first value is that after one epoch, its last the end's."""

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, eta: Eta | None = None, resource: Way = "reparametrization", resource_form: Form = "log",
        ratio: Nonnegative = 1.0, temperature: Positive = 1.0, temperature_end: Positive = 0.03,
        horizon: Annotated[int, AtLeast(0)] = 0, bilevel: bool = False, resample_cells: bool = False,
        drop_path: Share | None = None, two_edges: bool = False,
        alpha: Alpha = Alpha(clip=10.0, mean=1.0, scale=0.01), statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        super().__init__(space, proxy, rng, alpha=alpha, statistics=statistics)
        method, darts_cells = self.method, space.name.startswith("darts")
        self.eta = level("mild" if known(space) else 0.0) if eta is None else level(eta)
        self.resource, self.resource_form, self.ratio = resource, resource_form, ratio
        self.temperature, self.temperature_end, self.horizon = temperature, temperature_end, horizon
        self.bilevel, self.resample_cells, self.two_edges = bilevel, resample_cells, two_edges
        self.drop_path = DROP_PATH * darts_cells if drop_path is None else drop_path
        if self.drop_path and not darts_cells:
            raise Unsupported(f"{method}: {space.name} has no path dropout; use drop_path = 0")
        if self.two_edges and space.name != "darts":
            raise Unsupported(f"{method}: two_edges = true goes with darts; the cells of {space.name} keep all edges")
        if space.name == "darts" and not self.two_edges:
            raise Unsupported(
                f"{method}: darts keeps two edges a node, SNAS all; search darts_edges, or choose two_edges = true"
            )
        if self.eta:
            table(space, proxy)

    def begin(self, learner: Learner, epochs: int) -> None:
        """Draw the logits; look up what the operations cost."""
        import torch

        super().begin(learner, epochs)
        if self.eta:
            self.costs = torch.from_numpy(table(self.space, self.proxy)).float().to(learner.device)
            self.counted = torch.from_numpy(shares(self.space, self.proxy, self.ratio)).float().to(learner.device)

    def epoch(self, number: int) -> None:
        """Set the temperature of this epoch."""
        super().epoch(number)
        self.tau = temperature(number + self.ahead, self.horizon or self.epochs, self.temperature, self.temperature_end)

    def draw(self, name: str) -> Tensor:
        """Logarithm of a draw, shape (rows, options), or (cells, rows, options)."""
        import torch

        supernet = self.learner.supernet
        shape = (supernet.cells, *supernet.shape) if self.resample_cells else supernet.shape
        uniform = torch.rand(shape, generator=self.learner.chance(name)).to(self.learner.device)
        return concrete(self.log_mixture(), uniform, self.tau)

    def step(self, train: Batch, held: Callable[[], Batch]) -> Pass:
        """Draw, one backward pass, both optimisers; or, on two levels, one after the other with a draw each."""
        learner = self.learner
        if self.drop_path:
            supernet: Any = learner.supernet
            dropping = supernet.network.drop_path
            dropping.probability, dropping.generator = self.drop_path, learner.chance("drop path")
        if self.bilevel and self.learning:
            log_z = self.draw("logits' draw")
            passed = learner.forward(held(), log_z.exp())
            (gradient,) = learner.gradients(passed, [self.logits], penalty=self.penalty(log_z))
            self.move(gradient)
        log_z = self.draw("draw")
        if self.bilevel or not self.learning:
            return learner.descend(train, log_z.exp().detach())[0]
        passed, (gradient,) = learner.descend(train, log_z.exp(), penalty=self.penalty(log_z), also=[self.logits])
        self.move(gradient)
        return passed

    def penalty(self, log_z: Tensor) -> Tensor | None:
        """The resource term that is added to the loss; None without one."""
        if not self.eta:
            return None
        cost = penalty(
            log_z, self.logits, self.tau, self.costs, self.counted, way=self.resource, form=self.resource_form
        )
        return self.eta * cost

    def weights(self) -> Tensor:
        """A draw at the present temperature: what is trained is what is scored."""
        return self.draw("score").exp().detach()

    def log(self) -> dict[str, float]:
        """Temperature; the resource term of the distribution as it is; whether nothing reaches the child's output."""
        entry = super().log() | {"temperature": self.tau}
        if self.eta:
            logits = self.logits.detach()
            cost = penalty(logits, logits, 1.0, self.costs, self.counted, way="discrete", form=self.resource_form)
            entry["resource"] = float(cost)
        return entry | {"degenerate": float(not reachable(self.space, self.derive()))}


class SNASBilevel(SNAS):
    """As in DrNAS's code for NAS-Bench-201: two levels, first order, logits first; temperature from 10 to nearly 1."""

    method = "snas_bilevel"
    paper = "Xie et al., ICLR 2019, arXiv:1812.09926, as run by Chen et al., ICLR 2021, arXiv:2006.10355"
    ahead = 0

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, temperature: Positive = 10.0, temperature_end: Positive = 1.0,
        horizon: Annotated[int, AtLeast(0)] = 0, two_edges: bool = False, alpha: Alpha = Alpha(),
        statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        super().__init__(
            space, proxy, rng, eta=0.0, temperature=temperature, temperature_end=temperature_end, horizon=horizon,
            bilevel=True, drop_path=0.0, two_edges=two_edges, alpha=alpha, statistics=statistics,
        )  # fmt: skip


def level(eta: str | float) -> float:
    """The number that a level is.

    >>> level("moderate"), level(1e-3)
    (0.005, 0.001)
    """
    return LEVELS[eta] if isinstance(eta, str) else eta


def temperature(done: float, horizon: int, first: float, last: float) -> float:
    """Linear from `first` to `last`, which it keeps once `horizon` epochs are done.

    >>> round(temperature(1, 150, 1.0, 0.03), 4), temperature(150, 150, 1.0, 0.03)
    (0.9935, 0.03)
    """
    return last + (first - last) * max(0.0, 1 - done / horizon)


def concrete(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Logarithm of a draw Z from the concrete distribution; gradients flow to the logits.

    Maddison, Mnih, Teh. "The Concrete Distribution". ICLR 2017. https://arxiv.org/abs/1611.00712

    Args:
        logits: a, shape (..., n).
        uniform: U in [0, 1), of that shape or one that it is broadcast to.
        temperature: tau.
    """
    import torch

    gumbel = -(-uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log()).log()
    return ((logits + gumbel) / temperature).log_softmax(-1)


def log_density(log_z: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Log density at Z on the simplex (with respect to its first n - 1 coordinates), shape (...).

    Args:
        log_z: log Z, shape (..., n); kept as a logarithm, it needs no floor, as the authors' code has one, that would
            make it wrong at low temperature.
        logits: a, of that shape.
        temperature: tau.
    """
    import torch

    n = logits.shape[-1]
    constant = math.lgamma(n) + (n - 1) * math.log(temperature)
    total = torch.logsumexp(logits - temperature * log_z, -1)
    return constant + logits.sum(-1) - (temperature + 1) * log_z.sum(-1) - n * total


def penalty(
    log_z: Tensor, logits: Tensor, temperature: float, costs: Tensor, counted: Tensor, *, way: str, form: str
) -> Tensor:  # fmt: skip
    """The resource term of the loss, before it is multiplied by eta.

    Args:
        log_z: Logarithm of the draw, shape (rows, options), or (cells, rows, options) if cells differ.
        logits: a, shape (rows, options).
        temperature: That of the draw.
        costs: Of each option, shape (cells, rows, options, 3): `searchers.parts.costs.table`.
        counted: What an edge counts, shape (cells, rows): `searchers.parts.costs.shares`.
        way: "reparametrization": gradients flow through Z; "discrete": of the probabilities, whatever was drawn;
            "policy_gradient": the cost is a reward; the value means nothing then, its gradient does.
        form: "log": the mean of the logarithms of the three expected costs, each at least 1; "linear": their sum,
            scaled as in the authors' code.
    """
    z = logits.softmax(-1) if way == "discrete" else log_z.exp()
    expected = (z.unsqueeze(-1) * costs).sum(-2)  # (cells, rows, 3)
    if form == "log":
        each = expected.clamp(min=1).log().mean(-1)
    else:
        size, flops, memory = expected.unbind(-1)
        each = 0.43 * (2 * size + flops / 4000 + memory / 100)
    if way == "policy_gradient":
        each = each.detach() * log_density(log_z.detach(), logits, temperature)
    return (counted * each).sum()


def reachable(space: SearchSpace, arch: Architecture) -> bool:
    """Whether what enters each cell of an architecture can reach what leaves it; True for spaces of other kinds."""
    if isinstance(space, nas_bench_201.NASBench201):
        cells = [
            [(nas_bench_201.OPERATIONS[option], *edge) for option, edge in zip(arch, nas_bench_201.EDGES, strict=True)]
        ]
        inputs, outputs = {0}, {nas_bench_201.NODES - 1}
    elif isinstance(space, darts.DARTS | darts.DARTSEdges):
        genotype = space.genotype(arch)
        cells = [
            [(edge.operation, edge.start, edge.end) for edge in genotype.edges(kind)] for kind in darts.CELLS
        ]  # fmt: skip
        inputs, outputs = set(range(darts.INPUTS)), set(darts.ALL_NODES)
    else:
        return True
    for edges in cells:
        reached = set(inputs)
        for operation, start, end in sorted(edges, key=lambda edge: edge[2]):
            if operation != "none" and start in reached:
                reached.add(end)
        if not reached & outputs:
            return False
    return True
