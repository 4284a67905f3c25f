"""Joint spaces: an architecture together with how it is trained.

A hyper-parameter is a decision like any other: its options are the values of a recipe's key, a log scale is a grid of
64 or 256 steps. So searchers, logs and tables need to know nothing of it. A choice may depend on earlier ones (`when`);
where it is not active its decision is 0.

Zela, Klein, Falkner, Hutter. "Towards Automated Deep Learning: Efficient Joint Neural Architecture and Hyperparameter
Search". AutoML workshop at ICML 2018. https://arxiv.org/abs/1807.06906
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from suite.spaces.base import SearchSpace
from suite.types import CIFAR10_ENDS, Architecture, BadInput, Ends, Proxy

Value: TypeAlias = bool | int | float | str
SCALES = ("linear", "log")
DIGITS = 6
"""Significant digits of the values of a grid, so that logs read well."""
JOIN = " + "
"""Between the space and its choices in the name of a joint space."""
BEGIN = " ; "
"""Between a network and its training in the text of an architecture."""
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Choice:
    """One decision about training: the value of a recipe's key, out of several.

    Raises:
        BadInput: There are no values, or two alike, or one that cannot be written.

    >>> grid("lr", 0.001, 1.0, steps=4, scale="log").values
    (0.001, 0.01, 0.1, 1.0)
    >>> grid("batch_size", 2, 6, steps=64, scale="log").values      # whole ends make whole numbers
    (2, 3, 4, 5, 6)
    """

    name: str
    """The key of the recipe, as lr or batch_size."""
    values: tuple[Value, ...]
    """What each option stands for."""
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """(earlier choice, its values) under all of which this one is active; empty: it always is."""
    grid: str = ""
    """How a grid is written; empty for a list of values."""

    def __post_init__(self) -> None:
        if not WORD.fullmatch(self.name):
            raise BadInput(f"joint: {self.name!r} is no key of a recipe; one reads lr or batch_size")
        if not self.values:
            raise BadInput(f"joint: {self.name} has no values; give at least one")
        for value in self.values:
            if read(written(value)) != value or (isinstance(value, float) and not math.isfinite(value)):
                raise BadInput(f"joint: {self.name} cannot be {value!r}; use numbers, true, false or plain words")
        if len(set(map(written, self.values))) < len(self.values):
            raise BadInput(f"joint: {self.name} has a value twice: {', '.join(map(written, self.values))}")

    @property
    def ordered(self) -> bool:
        """Whether the values are rising numbers."""
        if any(isinstance(value, bool | str) for value in self.values):
            return False
        return list(self.values) == sorted(self.values, key=float)

    def __str__(self) -> str:
        text = f"{self.name}={self.grid or ','.join(map(written, self.values))}"
        needs = " & ".join(f"{name}={','.join(map(written, values))}" for name, values in self.when)
        return f"{text} if {needs}" if needs else text

    @classmethod
    def read(cls, text: str) -> Choice:
        """The choice whose `str` this is.

        Raises:
            BadInput: It is none.
        """
        head, _, needs = text.partition(" if ")
        name, equals, content = head.strip().partition("=")
        if not equals:
            raise BadInput(f"joint: not a choice: {text.strip()[:80]!r}; one reads lr=0.001..1.0:64:log")
        when = {}
        for need in needs.split(" & ") if needs else []:
            earlier, _, values = need.partition("=")
            when[earlier] = tuple(map(read, values.split(",")))
        if ".." not in content:
            return options(name, tuple(map(read, content.split(","))), when=when)
        found = re.fullmatch(r"(.+)\.\.(.+):(\d+):(\w+)", content)
        low, high = (read(found[1]), read(found[2])) if found else ("", "")
        if found is None or isinstance(low, str) or isinstance(high, str):
            raise BadInput(f"joint: not a grid: {content[:80]!r}; one reads 0.001..1.0:64:log")
        return grid(name, low, high, steps=int(found[3]), scale=found[4], when=when)


def written(value: Value) -> str:
    """A value as names and texts have it; `read` is the inverse."""
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)


def read(text: str) -> Value:
    """The value that `written` wrote."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if not WORD.fullmatch(text):
        raise BadInput(f"joint: {text[:80]!r} is no value; use numbers, true, false or plain words")
    return text


def options(name: str, values: Sequence[Value], *, when: Mapping[str, Sequence[Value]] | None = None) -> Choice:
    """A choice out of a list of values: numbers, booleans or words."""
    return Choice(name, tuple(values), conditions(when))


def grid(
    name: str, low: float, high: float, *, steps: int = 64, scale: str = "log",
    when: Mapping[str, Sequence[Value]] | None = None,
) -> Choice:  # fmt: skip
    """A choice out of evenly spaced numbers, `low` and `high` among them; whole ones if both ends are whole.

    Raises:
        BadInput: The range is empty, a log scale does not begin above 0, or there are fewer than two steps.
    """
    if isinstance(low, bool) or isinstance(high, bool) or not -math.inf < low < high < math.inf:
        raise BadInput(f"joint: {name} needs numbers low < high, not {low!r} and {high!r}")
    if scale not in SCALES or (scale == "log" and low <= 0):
        raise BadInput(f"joint: {name} has scale linear, or log with low above 0, not {scale!r} from {low!r}")
    if steps < 2:
        raise BadInput(f"joint: {name} needs at least 2 steps, not {steps}")
    spaced = np.geomspace(low, high, steps) if scale == "log" else np.linspace(low, high, steps)
    whole = isinstance(low, int) and isinstance(high, int)
    values: Iterable[Value] = (round(float(v)) if whole else float(f"{v:.{DIGITS}g}") for v in spaced)
    text = f"{written(low)}..{written(high)}:{steps}:{scale}"
    return Choice(name, tuple(dict.fromkeys(values)), conditions(when), text)


def conditions(when: Mapping[str, Sequence[Value]] | None) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    """The condition of a choice as a value that can be compared."""
    return tuple((name, tuple(values)) for name, values in (when or {}).items())


class Joint(SearchSpace):
    """A space with further decisions on how its networks are trained.

    Its name says the choices in full and its texts the values, so a log can be read without anything beside it.
    `sample` draws the choices in order, each active one evenly; `mutate` and `neighbours` change one active decision,
    and choices that become active by that begin at their first value.

    Args:
        space: Whose networks are trained.
        choices: What is chosen beside the network; conditions refer to earlier choices.
        name: Another name than the one that says the choices.

    Raises:
        BadInput: A name is there twice, or a condition refers to what is not an earlier choice or value.

    >>> from suite.spaces import SPACES
    >>> flags = options("nesterov", [True, False])
    >>> space = Joint(SPACES["nas_bench_macro"], [flags, options("momentum", [0.8, 0.9], when={"nesterov": [True]})])
    >>> space.text((*space.space.parse("00120012"), 0, 1)), space.text((*space.space.parse("00120012"), 1, 0))
    ('00120012 ; nesterov=true momentum=0.9', '00120012 ; nesterov=false')
    >>> space.name
    'nas_bench_macro + nesterov=true,false + momentum=0.8,0.9 if nesterov=true'
    """

    def __init__(self, space: SearchSpace, choices: Sequence[Choice], *, name: str = "") -> None:
        if isinstance(space, Joint):
            raise BadInput(f"joint: {space.name} is a joint space already; give all choices to one")
        if not choices:
            raise BadInput("joint: give at least one choice, for example lr = { low = 0.001, high = 1.0 }")
        self.space, self.choices = space, tuple(choices)
        self.name = name or JOIN.join([space.name, *map(str, choices)])
        self.full, self.cells, self.paper = space.full, space.cells, space.paper
        self.networks = len(space.decisions)
        """Decisions on the network, which come first."""
        sizes = tuple(len(choice.values) for choice in choices)
        self.decisions = (*space.decisions, *sizes)
        self.ordered = (*space.ordered, *(choice.ordered for choice in choices))
        self.levels = (*space.levels, slice(self.networks, len(self.decisions)))
        places = {choice.name: place for place, choice in enumerate(choices)}
        if len(places) < len(choices):
            raise BadInput(f"joint: a choice is there twice: {', '.join(choice.name for choice in choices)}")
        self.needs: list[list[tuple[int, frozenset[int]]]] = []
        """Of each choice: (earlier choice, its options) under all of which it is active."""
        for place, choice in enumerate(choices):
            needs = []
            for earlier, values in choice.when:
                if places.get(earlier, place) >= place:
                    raise BadInput(f"joint: {choice.name} depends on {earlier}, which is no earlier choice")
                here = choices[places[earlier]].values
                for value in values:
                    if value not in here:
                        texts = list(map(written, here))
                        raise BadInput(f"joint: {choice.name}: {earlier} is one of {shown(texts)}, not {value!r}")
                needs.append((places[earlier], frozenset(map(here.index, values))))
            self.needs.append(needs)

    def active(self, arch: Architecture) -> tuple[bool, ...]:
        """Whether each choice makes a difference, given those before it."""
        chosen, found = arch[self.networks :], list[bool]()
        for needs in self.needs:
            found.append(all(found[place] and chosen[place] in options for place, options in needs))
        return tuple(found)

    def check(self, arch: Architecture) -> None:
        """Raises BadInput unless `arch` is an architecture with its training, and choices that are not active are 0."""
        super().check(arch)
        self.space.check(arch[: self.networks])
        for choice, active, option in zip(self.choices, self.active(arch), arch[self.networks :], strict=True):
            if option and not active:
                raise BadInput(f"{self.name}: {choice.name} is not active here, so its decision is 0, not {option}")

    def settled(self, arch: Architecture) -> Architecture:
        """The same with 0 for choices that are not active."""
        network = self.space.settled(arch[: self.networks])
        active = self.active(arch)
        return (*network, *(option * on for option, on in zip(arch[self.networks :], active, strict=True)))

    def part(self, arch: Architecture) -> tuple[SearchSpace, Architecture]:
        """The space of the networks, and the network."""
        return self.space.part(arch[: self.networks])

    def training(self, arch: Architecture) -> Mapping[str, Any]:
        """The values of all active choices, by the recipe's keys."""
        self.check(arch)
        return {
            **self.space.training(arch[: self.networks]),
            **{
                choice.name: choice.values[option]
                for choice, on, option in zip(self.choices, self.active(arch), arch[self.networks :], strict=True)
                if on
            },
        }

    # Counting: choices one after the other, as far as they are active.

    @cached_property
    def parents(self) -> frozenset[int]:
        """The choices that others depend on."""
        return frozenset(place for needs in self.needs for place, _ in needs)

    def count(self, chosen: tuple[int, ...]) -> int:
        """Ways to go on after these options of the first choices."""
        known = tuple(option if place in self.parents else 0 for place, option in enumerate(chosen))
        if known not in self._counts:
            place = len(known)
            if place == len(self.choices):
                found = 1
            elif not self._reachable(known):
                found = self.count((*known, 0))
            elif place in self.parents:
                found = sum(self.count((*known, option)) for option in range(len(self.choices[place].values)))
            else:
                found = len(self.choices[place].values) * self.count((*known, 0))
            self._counts[known] = found
        return self._counts[known]

    @cached_property
    def _counts(self) -> dict[tuple[int, ...], int]:
        """Counts by the options of `parents`; 0 stands for those of other choices."""
        return {}

    def _reachable(self, chosen: tuple[int, ...]) -> bool:
        """Whether the next choice is active."""
        filled = (*chosen, *(0,) * (len(self.choices) - len(chosen)))
        return self.active((*(0,) * self.networks, *filled))[len(chosen)]

    @property
    def size(self) -> int:
        """Number of valid architectures with their training."""
        return self.space.size * self.count(())

    def index(self, arch: Architecture) -> int:
        """Place of `arch` among the valid ones, the first decision most significant."""
        self.check(arch)
        place, chosen = self.space.index(arch[: self.networks]) * self.count(()), arch[self.networks :]
        for number, option in enumerate(chosen):
            before = chosen[:number]
            place += sum(self.count((*before, other)) for other in range(option))
        return place

    def at(self, index: int) -> Architecture:
        """The valid architecture whose `index` this is."""
        if not 0 <= index < self.size:
            raise BadInput(f"{self.name}: architectures are numbered 0..{self.size - 1}, not {index}")
        network, left = divmod(index, self.count(()))
        chosen: tuple[int, ...] = ()
        for choice in self.choices:
            option = 0
            if self._reachable(chosen):
                while option < len(choice.values) - 1 and left >= self.count((*chosen, option)):
                    left -= self.count((*chosen, option))
                    option += 1
            chosen = (*chosen, option)
        return (*self.space.at(network), *chosen)

    # Moving

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A network of the space and a training: choices in order, the options of an active one equally likely."""
        drawn = (int(option) for option in rng.integers([len(choice.values) for choice in self.choices]))
        return self.settled((*self.space.sample(rng), *drawn))

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """A copy with one active decision, all equally likely, changed; what that switches off is 0."""
        places = [place for place in self.changeable(arch) if self.decisions[place] > 1]
        place = places[int(rng.integers(len(places)))] if places else 0
        if place < self.networks:
            return (*self.space.mutate(arch[: self.networks], rng), *arch[self.networks :])
        other = int(rng.integers(self.decisions[place] - 1))
        return self.settled((*arch[:place], other + (other >= arch[place]), *arch[place + 1 :]))

    def neighbours(self, arch: Architecture) -> list[Architecture]:
        """All that come of a change of one active decision, networks first, in a fixed order."""
        network, chosen = arch[: self.networks], arch[self.networks :]
        return [(*other, *chosen) for other in self.space.neighbours(network)] + [
            self.settled((*arch[:place], option, *arch[place + 1 :]))
            for place in self.changeable(arch)
            if place >= self.networks
            for option in range(self.decisions[place])
            if option != arch[place]
        ]

    def changeable(self, arch: Architecture) -> list[int]:
        """Places of the network's decisions and of the active choices."""
        active = self.active(arch)
        return [*range(self.networks), *(self.networks + place for place, on in enumerate(active) if on)]

    def restricted(self, allowed: Sequence[Sequence[int]]) -> SearchSpace:
        """The same joint space with fewer networks and fewer values; conditions stay as they are."""
        kept = self._checked(allowed)
        left = {
            choice.name: tuple(choice.values[option] for option in options)
            for choice, options in zip(self.choices, kept[self.networks :], strict=True)
        }
        choices = []
        for choice in self.choices:
            when = ((name, tuple(value for value in values if value in left[name])) for name, values in choice.when)
            choices.append(replace(choice, values=left[choice.name], when=tuple(when), grid=""))
        return Joint(self.space.restricted(kept[: self.networks]), choices, name=self.name)

    # Text

    def text(self, arch: Architecture) -> str:
        """The network's text, then key=value of each active choice."""
        words = [f"{name}={written(value)}" for name, value in self.training(arch).items()]
        return self.space.text(arch[: self.networks]) + BEGIN + " ".join(words)

    def parse(self, text: str) -> Architecture:
        """The architecture and training that `text` writes."""
        network, begin, training = text.strip().rpartition(BEGIN)
        if not begin:
            raise BadInput(
                f"{self.name}: no training after the network in {text.strip()[:80]!r}; one ends in "
                f"{self.text(self.at(0)).rpartition(BEGIN)[2]!r}"
            )
        given = dict(word.partition("=")[::2] for word in training.split())
        try:
            arch = list(self.space.parse(network))
        except BadInput as refusal:
            raise BadInput(f"{self.name}: {refusal}") from None
        for choice in self.choices:
            option, there = 0, given.pop(choice.name, None)
            if self._reachable(tuple(arch[self.networks :])):
                texts = list(map(written, choice.values))
                if there not in texts:
                    raise BadInput(f"{self.name}: {choice.name} is one of {shown(texts)}, not {there}")
                option = texts.index(there)
            elif there is not None:
                raise BadInput(f"{self.name}: {choice.name} is not active here; leave {choice.name}={there} out")
            arch.append(option)
        if given:
            names = ", ".join(choice.name for choice in self.choices)
            raise BadInput(f"{self.name}: no choice {next(iter(given))!r}; there are {names}")
        return tuple(arch)

    # The network's

    def check_proxy(self, proxy: Proxy) -> None:
        """Raises Unsupported unless the networks can be built under `proxy`."""
        self.space.check_proxy(proxy)

    def params(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Trainable parameters of the network."""
        return self.space.params(arch[: self.networks], proxy, ends=ends)

    def macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds of the network, one image forward."""
        return self.space.macs(arch[: self.networks], proxy, ends=ends)

    def trained_macs(self, arch: Architecture, proxy: Proxy, ends: Ends = CIFAR10_ENDS) -> int:
        """Multiply-adds that training the network executes forward."""
        return self.space.trained_macs(arch[: self.networks], proxy, ends=ends)


def shown(texts: Sequence[str]) -> str:
    """Values for a refusal: all, or the ends of many."""
    return ", ".join(texts if len(texts) <= 8 else [*texts[:3], "...", texts[-1]])
