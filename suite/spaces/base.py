"""What every search space can do: draw, mutate, list neighbours, count, read and write its text form."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from operator import ge, mul

import numpy as np
import numpy.typing as npt

from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy, Unsupported


class SearchSpace(ABC):
    """A fixed list of decisions, each with a number of options; every combination is an architecture.

    A space with forbidden combinations overrides `check`, and `sample` and `mutate` with it.
    """

    name: str
    """As in `SPACES` and in every result."""
    decisions: tuple[int, ...]
    """Options of each decision."""
    full: Proxy
    """The full training that the space was published with: what a proxy is cheap against."""
    cells: int | None = None
    """Its own depth, where `Proxy.cells` may ask for another."""
    paper: str
    """Where the space comes from."""
    operations: tuple[str, ...] = ()
    """Operations on the edges of its cells, in the order of `adjacency`; empty: its networks are chains of layers."""
    inputs: int = 1
    """Inputs of a cell: the first nodes of `adjacency`."""

    def __repr__(self) -> str:
        return self.name

    @property
    def size(self) -> int:
        """Number of architectures, isomorphic ones counted apart."""
        return int(np.prod(np.asarray(self.decisions, dtype=object)))

    def __iter__(self) -> Iterator[Architecture]:
        """All architectures, in the order of `index`."""
        return (self.at(i) for i in range(self.size))

    def check(self, arch: Architecture) -> None:
        """Raises BadInput unless `arch` is an architecture of this space."""
        if len(arch) != len(self.decisions):
            raise BadInput(f"{self.name}: an architecture has {len(self.decisions)} decisions, not {len(arch)}: {arch}")
        # Quicker than the loop, which then says which.
        if any(map(ge, arch, self.decisions)) or min(arch, default=0) < 0:
            for place, (option, options) in enumerate(zip(arch, self.decisions, strict=True)):
                if not 0 <= option < options:
                    raise BadInput(f"{self.name}: decision {place} is 0..{options - 1}, not {option}: {arch}")

    def index(self, arch: Architecture) -> int:
        """Place of `arch` among all, the first decision most significant."""
        self.check(arch)
        return sum(map(mul, arch, self._strides))

    @functools.cached_property
    def _strides(self) -> tuple[int, ...]:
        """What one more of each decision adds to `index`."""
        return tuple(math.prod(self.decisions[place + 1 :]) for place in range(len(self.decisions)))

    def at(self, index: int) -> Architecture:
        """The architecture whose `index` this is."""
        if not 0 <= index < self.size:
            raise BadInput(f"{self.name}: architectures are numbered 0..{self.size - 1}, not {index}")
        options_left = []
        for options in reversed(self.decisions):
            index, option = divmod(index, options)
            options_left.append(option)
        return tuple(reversed(options_left))

    def sample(self, rng: np.random.Generator) -> Architecture:
        """An architecture, all equally likely."""
        return tuple(int(option) for option in rng.integers(self.decisions))

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """A copy with one decision, all equally likely, changed to another of its options."""
        place = int(rng.choice([i for i, options in enumerate(self.decisions) if options > 1]))
        other = int(rng.integers(self.decisions[place] - 1))
        return (*arch[:place], other + (other >= arch[place]), *arch[place + 1 :])

    def neighbours(self, arch: Architecture) -> list[Architecture]:
        """All architectures that differ in exactly one decision, in a fixed order."""
        return [
            (*arch[:place], option, *arch[place + 1 :])
            for place, options in enumerate(self.decisions)
            for option in range(options)
            if option != arch[place]
        ]

    def canonical(self, proxy: Proxy) -> Proxy:
        """The same proxy as tables and logs write it: the space's own depth is None."""
        return replace(proxy, cells=None) if proxy.cells is not None and proxy.cells == self.cells else proxy

    def simplified(self, arch: Architecture) -> Architecture:
        """The same network without what changes nothing: decisions with no effect are set to their first option."""
        self.check(arch)
        return arch

    def isomorphism(self, arch: Architecture) -> Hashable:
        """The class of `arch`: architectures of one class are the same network, written in different ways."""
        return self.simplified(arch)

    def adjacency(self, archs: Sequence[Architecture]) -> npt.NDArray[np.float32]:
        """The cells as graphs, nodes in topological order, inputs first, the output last.

        Returns:
            Number of edges from one node to another with one operation, shape (n, cells, nodes, nodes, operations).

        Raises:
            Unsupported: The networks of the space are chains of layers.
        """
        raise Unsupported(f"{self.name}: its networks are chains without paths; encode them as one_hot")

    @abstractmethod
    def text(self, arch: Architecture) -> str:
        """The form in which the space's papers write an architecture."""

    @abstractmethod
    def parse(self, text: str) -> Architecture:
        """The architecture that `text` writes.

        Raises:
            BadInput: It writes none of this space.
        """

    def check_proxy(self, proxy: Proxy) -> None:
        """Raises Unsupported unless the space's networks can be built under `proxy`."""
        raise Unsupported(f"{self.name}: no networks to train here; this space is searched on its table")

    def _check_quarters(self, proxy: Proxy, halvings: str) -> None:
        """Raises Unsupported unless images can be halved twice."""
        if proxy.resolution % 4:
            below = proxy.resolution // 4 * 4
            raise Unsupported(
                f"{self.name}: resolution {proxy.resolution} is too small or uneven for {halvings}; "
                f"use a multiple of 4: {f'{below} or ' if below else ''}{below + 4}"
            )

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters of the network, by formula."""
        raise Unsupported(f"{self.name}: parameters are known from its table only")

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of convolutions and classifier in one forward pass of one image, by formula."""
        raise Unsupported(f"{self.name}: multiply-adds are known from its table only")

    def trained_macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds that training executes forward: more than `macs` where the network is cut down on the way."""
        return self.macs(arch, proxy, ends=ends)
