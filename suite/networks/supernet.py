"""Supernets: the skeleton of a space with all operations on each edge, mixed by weights that are handed in.

A supernet knows nothing of how its weights come about: the methods differ there. A one-hot mixture is the stand-alone
network of its architecture, weights and names the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from suite.networks.mixed import Active, CostTable
from suite.networks.mixture import EACH, Mixture
from suite.networks.operations import Norms, initialise
from suite.spaces import SearchSpace
from suite.types import Architecture, BadInput, Ends, Proxy, Unsupported

SUPERNETS: dict[str, str] = {
    "nas_bench_201": "suite.networks.nas_bench_201:mixed",
    "darts": "suite.networks.darts:mixed_darts",
    "darts_edges": "suite.networks.darts:mixed_edges",
    "darts_econas_all": "suite.networks.darts:mixed_econas_all",
    "mnas": "suite.networks.mnas:mixed",
    "alexnet": "suite.networks.alexnet:mixed",
    "condensenet": "suite.networks.condensenet:mixed",
}
"""Search space to "module:name" of a `Mixable`."""


class Mixable(Protocol):
    """What a space's networks must say of themselves to become a supernet."""

    @property
    def options(self) -> Sequence[str]:
        """Operations: the columns of the weights."""

    @property
    def groups(self) -> Mapping[str, slice]:
        """The rows of each kind of cell."""

    @property
    def edges(self) -> SearchSpace:
        """A space with one of `options` for each edge, in which option 0 costs nothing."""

    @property
    def norms(self) -> Norms:
        """Those of the published supernet."""

    @property
    def counts(self) -> Sequence[int]:
        """Options of each decision of `edges`, the first of `options`."""

    def rows(self) -> list[int]:
        """The decision of `edges` that each row is."""

    def cells(self, proxy: Proxy) -> int:
        """That mix, in the order of the network."""

    def network(self, proxy: Proxy, *, ends: Ends, norms: Norms) -> nn.Module:
        """All operations on each edge; its forward takes images and a `Mixture`."""

    def standalone(
        self, arch: Architecture, proxy: Proxy, *, ends: Ends, norms: Norms
    ) -> nn.Module:  # fmt: skip
        """One operation on each edge, its weights named as in the supernet."""

    def chosen(self, arch: Architecture) -> Iterator[tuple[int, int]]:
        """(row, option) of each operation that `arch` has."""

    def derive(self, weights: npt.NDArray[np.floating[Any]]) -> Architecture:
        """The architecture that the space's paper reads from weights, shape (rows, options)."""

    def narrow(self, arch: Architecture, proxy: Proxy, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of the stand-alone network of `arch`, with its names and shapes, out of the supernet's."""

    def costs(self, metric: str, proxy: Proxy, *, ends: Ends) -> CostTable:
        """A cost that adds up over rows, "macs" or "params"; Unsupported where it does not."""

    def computed_macs(self, proxy: Proxy, active: Active, *, ends: Ends) -> int:
        """Multiply-adds of one image forward where these options of each row are computed."""

    def check(self, active: Active) -> None:
        """See that these options of each row can be computed; BadInput where they cannot."""


def mixable(space: SearchSpace) -> Mixable:
    """What the networks of a space say of themselves.

    Raises:
        Unsupported: It has no supernet.
    """
    if space.name not in SUPERNETS:
        raise Unsupported(f"{space.name}: no supernet; there are some for {', '.join(SUPERNETS)}")
    module, name = SUPERNETS[space.name].split(":")
    kind: Mixable = getattr(import_module(module), name)
    return kind


class Supernet(nn.Module):
    """All networks of a space in one.

    Call `mix` or `path` first; a forward pass then computes that, until the next call.

    Args:
        space: Whose networks.
        proxy: Width, depth and resolution.
        ends: What goes in and comes out.
        seed: Of the initial weights; they are those that `suite.networks.build` draws under the same names.
        norms: Batch norms; None: those of the published supernet (docs/supernets.md).
        skip_dead_edges: Compute only what can reach the output (`suite.networks.dead_edges`).

    Raises:
        Unsupported: The space has no supernet, or not under `proxy`.

    >>> from suite.spaces import SPACES
    >>> space = SPACES["nas_bench_201"]
    >>> supernet = Supernet(space, Proxy(1, 4, 8, cells=1), ends=Ends(1, 10), seed=0)
    >>> supernet.shape
    (6, 5)
    >>> uniform = torch.full(supernet.shape, 1 / 5, requires_grad=True)
    >>> supernet.mix(uniform)(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, space: SearchSpace, proxy: Proxy,
        *, ends: Ends, seed: int, norms: Norms | None = None, skip_dead_edges: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kind = mixable(space)
        space.check_proxy(proxy)
        self.space, self.proxy, self.seed = space, proxy, seed
        self.ends = ends
        self.norms = self.kind.norms if norms is None else norms
        with torch.device("meta"):  # nothing is drawn here, so torch's global generator stays where it is
            self.network = self.kind.network(proxy, ends=ends, norms=self.norms)
        self.network.to_empty(device="cpu")
        initialise(self.network, seed)
        self.network.skip_dead_edges = skip_dead_edges  # type: ignore[assignment]
        self.shape = (len(self.kind.rows()), len(self.kind.options))
        """(rows, options) of the weights."""
        counts = np.array(self.kind.counts)[self.kind.rows()]
        self.valid = np.arange(self.shape[1]) < counts[:, None]
        """Shape (rows, options), bool: which options there are; the weights of others are never looked at."""
        self.whole = space.part(space.at(0))[0]
        """The space whose networks these are; another than `space` if that is restricted."""
        self.mixes = self.whole is space or tuple(counts) == self.whole.decisions
        """Whether mixtures can be kept to what `space` allows: if a row is a decision."""
        if self.whole is not space and self.mixes:
            self.valid &= allowed_options(space, self.shape[1])
        self.mixture: Mixture | None = None
        self.under = proxy
        """The proxy that it was asked for; a task may show it smaller images. Whoever trains it says so."""
        self.epochs = proxy.epochs
        """For how many its weights were trained; whoever trains it says so."""

    @property
    def options(self) -> Sequence[str]:
        """Operations: the columns of the weights."""
        return self.kind.options

    @property
    def groups(self) -> Mapping[str, slice]:
        """The rows of each kind of cell: {"cell": ...} or {"normal": ..., "reduce": ...}."""
        return self.kind.groups

    @property
    def cells(self) -> int:
        """That mix."""
        return self.kind.cells(self.proxy)

    def mix(self, weights: Tensor, mask: Tensor | npt.NDArray[np.bool_] | None = None) -> Supernet:
        """From now on the sum of all options, each times its weight.

        Args:
            weights: Any numbers, shape (rows, options), or (cells, rows, options) if cells differ, or (n, 1, rows,
                options) or (n, cells, rows, options) if the n examples of the next batches differ; gradients flow back.
            mask: Shape (rows, options), bool; options that are False are neither computed nor counted. None: all are.

        Returns:
            Itself, to be called on images.

        Raises:
            BadInput: A shape is another.
        """
        if not self.mixes:
            raise Unsupported(
                f"{self.space.name}: a row of the supernet is no decision, so a restricted space has no mixtures; "
                "use path(arch), or mixtures of the whole space"
            )
        options, found, cells = self.shape[1], tuple(weights.shape), (self.cells, *self.shape)
        if found not in (self.shape, cells) and (len(found) != EACH or found[1:] not in ((1, *self.shape), cells)):
            raise BadInput(
                f"supernet: weights have shape {self.shape} or {cells}, or (n, {cells[0]} or 1, {self.shape[0]}, "
                f"{self.shape[1]}) with a mixture for each of n examples, not {found}"
            )
        if mask is not None and tuple(mask.shape) != self.shape:
            raise BadInput(f"supernet: a mask has shape {self.shape}, not {tuple(mask.shape)}")
        chosen = self.valid if mask is None else self.valid & np.array(mask.tolist(), bool)
        active = tuple(tuple(option for option in range(options) if row[option]) for row in chosen.tolist())
        self.kind.check(active)
        self.mixture = Mixture(weights, active)
        return self

    def path(self, arch: Architecture) -> Supernet:
        """From now on the network of `arch`: one operation an edge, nothing else is computed."""
        self.space.check(arch)
        active: list[tuple[int, ...]] = [()] * self.shape[0]
        for row, option in self.kind.chosen(self.space.part(arch)[1]):
            active[row] = (option,)
        self.mixture = Mixture(None, tuple(active))
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (n, outputs).

        Raises:
            BadInput: Nobody has said what to mix.
        """
        if self.mixture is None:
            raise BadInput("supernet: nothing to compute yet; call mix(weights) or path(arch) first")
        self.mixture.check(len(images))
        logits: Tensor = self.network(images, self.mixture)
        return logits

    def one_hot(self, arch: Architecture) -> Tensor:
        """The weights whose mixture is the network of `arch`, shape (rows, options)."""
        self.space.check(arch)
        weights = torch.zeros(self.shape)
        for row, option in self.kind.chosen(self.space.part(arch)[1]):
            weights[row, option] = 1.0
        return weights

    def derive(self, weights: Tensor) -> Architecture:
        """The architecture that the space's paper reads from weights, shape (rows, options)."""
        if tuple(weights.shape) != self.shape:
            raise BadInput(f"supernet: an architecture is derived from shape {self.shape}, not {tuple(weights.shape)}")
        given = weights.detach().cpu().double().numpy()
        if self.whole is self.space:
            return self.kind.derive(given)
        found = self.kind.derive(np.where(self.valid, given, -np.inf))
        return self.space.parse(self.whole.text(found))

    def standalone(self, arch: Architecture, norms: Norms | None = None) -> nn.Module:
        """The network of `arch` with copies of these weights, on their device and as precise as they are.

        Args:
            arch: An architecture of the space.
            norms: Its batch norms; None: as here. What they have and these have not is as at the beginning: scale 1,
                shift 0, mean 0, variance 1.
        """
        self.space.check(arch)
        _, arch = self.space.part(arch)
        with torch.device("meta"):
            network = self.kind.standalone(arch, self.proxy, ends=self.ends, norms=norms or self.norms)
        network.to_empty(device="cpu")
        initialise(network, self.seed)
        first = next(self.network.parameters())
        network.to(first.dtype)
        given, state = dict(self.network.named_parameters()), self.network.state_dict()
        inherit(network, self.kind.narrow(arch, self.proxy, state))
        for name, weight in network.named_parameters():
            if name in given and given[name].shape == weight.shape:  # one layout in memory gives one sum
                weight.data = torch.empty_like(given[name]).copy_(weight.data)
        return network.to(first.device).train(self.training)

    @property
    def macs(self) -> CostTable:
        """Multiply-adds of one image forward."""
        return self.kind.costs("macs", self.proxy, ends=self.ends)

    @property
    def params(self) -> CostTable:
        """Trainable parameters, those of a stand-alone network's norms included."""
        return self.kind.costs("params", self.proxy, ends=self.ends)

    def computed_macs(self) -> int:
        """Multiply-adds of one image forward, of what is mixed now."""
        if self.mixture is None:
            raise BadInput("supernet: nothing to compute yet; call mix(weights) or path(arch) first")
        return self.kind.computed_macs(self.proxy, self.mixture.active, ends=self.ends)


def allowed_options(space: SearchSpace, columns: int) -> npt.NDArray[np.bool_]:
    """Which options of the whole space each decision of a restricted one still has, shape (decisions, columns)."""
    first = space.at(0)
    found = np.zeros((len(first), columns), bool)
    for place, options in enumerate(space.decisions):
        for option in range(options):
            _, whole = space.part((*first[:place], option, *first[place + 1 :]))
            found[place, whole[place]] = True
    return found


def inherit(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy into `network` every tensor that `state` has under the same name in the same shape; their names.

    >>> one, other = nn.Linear(2, 1), nn.Linear(2, 1, bias=False)
    >>> inherit(one, other.state_dict())
    ['weight']
    """
    taken = []
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            given = state.get(name)
            if given is not None and given.shape == tensor.shape:
                tensor.copy_(given)
                taken.append(name)
    return taken
