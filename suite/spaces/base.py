"""What every search space can do: draw, mutate, list neighbours, count, read and write its text form."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import ge, mul
from typing import Any

import numpy as np
import numpy.typing as npt

from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy, Unsupported


class SearchSpace(ABC):
    """A fixed list of decisions, each with a number of options; every combination is an architecture.

    A space with forbidden combinations overrides `check`, and with it `size`, `index`, `at`, `sample`, `mutate`,
    `neighbours`, `settled` and `restricted`; decision by decision, option 0 is always valid.
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

    @functools.cached_property
    def ordered(self) -> tuple[bool, ...]:
        """Whether the options of each decision are a scale (widths, kernel sizes, learning rates), least first."""
        return (False,) * len(self.decisions)

    @functools.cached_property
    def levels(self) -> tuple[slice, ...]:
        """The decisions in the order in which a network is built up: nodes of a cell, blocks, layers."""
        return tuple(slice(place, place + 1) for place in range(len(self.decisions)))

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
        open_places = [i for i, options in enumerate(self.decisions) if options > 1]
        if not open_places:
            raise Unsupported(f"{self.name}: every decision has a single option, so there is nothing to mutate")
        place = int(rng.choice(open_places))
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

    def settled(self, arch: Architecture) -> Architecture:
        """The same network with option 0 for decisions that other decisions switch off; valid if `arch` was not."""
        return arch

    def training(self, arch: Architecture) -> Mapping[str, Any]:
        """Recipe values that the architecture sets for its own training, by their names in the recipe."""
        return {}

    def part(self, arch: Architecture) -> tuple[SearchSpace, Architecture]:
        """The space whose networks these are, and the architecture as that space numbers its options.

        Networks, supernets and tables are found by this space.
        """
        return self, arch

    def restricted(self, allowed: Sequence[Sequence[int]]) -> SearchSpace:
        """The same space with fewer options a decision; its architectures count the allowed options only.

        Name, text form, networks and costs stay: `self.parse(restricted.text(arch))` is the architecture as this
        space numbers it.

        Args:
            allowed: Options of each decision that remain, at least one.

        Raises:
            BadInput: A decision is left without options, or an option does not exist.
        """
        return Restricted(self, allowed)

    def _checked(self, allowed: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
        """Allowed options in ascending order, each once; BadInput if a decision has none or an unknown one."""
        if len(allowed) != len(self.decisions):
            raise BadInput(
                f"{self.name}: allowed must hold the options of {len(self.decisions)} decisions, not of {len(allowed)}"
            )
        for place, (chosen, options) in enumerate(zip(allowed, self.decisions, strict=True)):
            if not chosen:
                raise BadInput(f"{self.name}: decision {place} has no allowed option; leave at least one")
            for option in chosen:
                if not 0 <= option < options:
                    raise BadInput(f"{self.name}: decision {place} has options 0..{options - 1}, no option {option}")
        return tuple(tuple(sorted(set(chosen))) for chosen in allowed)

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


class Restricted(SearchSpace):
    """Another space with fewer options a decision; `SearchSpace.restricted` makes it.

    >>> from suite.spaces import SPACES
    >>> convolutions = SPACES["nas_bench_201"].restricted([(2, 3)] * 6)
    >>> convolutions.size, convolutions.text((0,) * 6)[:14]
    (64, '|nor_conv_1x1~')
    """

    def __init__(self, whole: SearchSpace, allowed: Sequence[Sequence[int]]) -> None:
        self.whole, self.allowed = whole, whole._checked(allowed)
        self.decisions = tuple(map(len, self.allowed))
        self.name, self.full, self.cells, self.paper = whole.name, whole.full, whole.cells, whole.paper
        self.ordered, self.levels = whole.ordered, whole.levels

    def lifted(self, arch: Architecture) -> Architecture:
        """The architecture as the whole space numbers its options."""
        self.check(arch)
        return tuple(options[option] for options, option in zip(self.allowed, arch, strict=True))

    def part(self, arch: Architecture) -> tuple[SearchSpace, Architecture]:
        """The space whose networks these are, and the architecture as that space numbers its options."""
        return self.whole.part(self.lifted(arch))

    def training(self, arch: Architecture) -> Mapping[str, Any]:
        """Recipe values that the architecture sets, as in the whole space."""
        return self.whole.training(self.lifted(arch))

    def restricted(self, allowed: Sequence[Sequence[int]]) -> SearchSpace:
        """The whole space with fewer options yet; `allowed` counts the options that are here."""
        chosen = self._checked(allowed)
        return Restricted(
            self.whole, [[here[i] for i in options] for here, options in zip(self.allowed, chosen, strict=True)]
        )

    def text(self, arch: Architecture) -> str:
        """The text form of the whole space."""
        return self.whole.text(self.lifted(arch))

    def parse(self, text: str) -> Architecture:
        """The architecture that `text` writes; BadInput if one of its options is not allowed here."""
        found = []
        for place, (option, options) in enumerate(zip(self.whole.parse(text), self.allowed, strict=True)):
            if option not in options:
                raise BadInput(
                    f"{self.name}: decision {place} is restricted to options {', '.join(map(str, options))}, "
                    f"not {option}: {text.strip()[:80]!r}"
                )
            found.append(options.index(option))
        return tuple(found)

    def check_proxy(self, proxy: Proxy) -> None:
        """Raises Unsupported unless the whole space's networks can be built under `proxy`."""
        self.whole.check_proxy(proxy)

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters of the network, as in the whole space."""
        return self.whole.params(self.lifted(arch), proxy, ends=ends)

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of one image forward, as in the whole space."""
        return self.whole.macs(self.lifted(arch), proxy, ends=ends)

    def trained_macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds that training executes forward, as in the whole space."""
        return self.whole.trained_macs(self.lifted(arch), proxy, ends=ends)
