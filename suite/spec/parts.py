"""The tables that specs are made of; every value is checked before anything starts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from searchers import available
from suite.search import Budget
from suite.spaces import SPACES, SearchSpace
from suite.spaces.joint import Choice, Joint, grid, options
from suite.tables import TABLES
from suite.tasks import OWN, TASKS
from suite.training.recipe import check_keys
from suite.types import JSON, BadInput, Goal, Proxy, nearest
from suite.workers import KINDS

MAX_SEED = 2**62
"""So that all seeds of a spec fit 64 bits, as TOML's and numpy's integers do."""


class Part(BaseModel):
    """A table of a spec; keys that it does not have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def known_task(name: str | None) -> str | None:
    """A task's name; the board's own task has none, so that a proxy has one name."""
    if name is not None and name not in TASKS:
        raise ValueError(f"no task {name!r}: {nearest(name, TASKS)}")
    return None if name == OWN else name


class ProxyPart(Part):
    """A proxy, as in `suite.types.Proxy`; what is left out is as in the space's full training."""

    epochs: int | None = Field(default=None, ge=1)
    channels: int | None = Field(default=None, ge=1)
    resolution: int | None = Field(default=None, ge=1)
    """None: the side of the data set's images."""
    samples: float = Field(default=1.0, gt=0, le=1)
    cells: int | None = Field(default=None, ge=1)
    task: str | None = None
    """Task that networks are trained for, one of `suite.tasks.TASKS`; None: the board's own task."""

    _task = field_validator("task")(known_task)

    def proxy(self, space: SearchSpace, side: int) -> Proxy:
        """As the suite's type, for images of this side [pixels]."""
        epochs, channels = self.epochs or space.full.epochs, self.channels or space.full.channels
        resolution, task = self.resolution or side, self.task or ""
        return space.canonical(Proxy(epochs, channels, resolution, self.samples, self.cells, task))


class TablePart(Part):
    """Answers from a published benchmark or one of our own logs."""

    kind: Literal["table"]
    table: str
    """A name of `kendall list`, or a converted table's file."""
    file: str | None = None
    """Where the benchmark's own file lies, if its package does not ship it."""

    @field_validator("table")
    @classmethod
    def known(cls, name: str) -> str:
        """A registered name, or a file."""
        if name not in TABLES and Path(name).name == name and not Path(name).suffix and not Path(name).exists():
            raise ValueError(f"no table {name!r}: {nearest(name, TABLES)}; or give the path of a converted table")
        return name


class LivePart(Part):
    """An evaluator that trains networks on images."""

    kind: Literal["live"]
    recipe: str | dict[str, Any] = "nas_bench_201"
    """A name, or a table of values that differ from the default recipe's."""
    data: str | None = None
    """Folder of the images, if not in the usual places."""
    shards: list[int] | None = None
    """Shards of CIFAR-10: which fifths of the training part; None: all that are there."""
    test_shards: list[int] | None = None
    """Likewise of the test part, 1 or 2."""
    download: bool = False
    """Fetch the publishers' files if they are in none of the places looked in."""
    valid_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training images held out for validation; None: the data set's default."""
    device: str | list[str] = "auto"
    """A name, or those of several GPUs; "auto" and "cuda" are all GPUs of one model."""
    processes: int = Field(default=0, ge=0, le=64)
    """Networks trained at once on a CPU, one core each, or on each GPU; 0: one a core, or as many as memory holds."""
    workers_kind: str | None = None
    """Who trains: "serial", "processes"; None: serial where `processes` is 1, else processes."""
    deterministic: bool = False
    """On a GPU, only algorithms whose sums have a fixed order."""

    @field_validator("workers_kind")
    @classmethod
    def kind_known(cls, name: str | None) -> str | None:
        """A registered kind of workers."""
        if name is not None and name not in KINDS:
            raise ValueError(f"no kind of workers {name!r}: {nearest(name, KINDS)}")
        return name

    @property
    def first_device(self) -> str:
        """For what is done on one: supernets, zero-cost scores."""
        return self.device if isinstance(self.device, str) else self.device[0]


class SurrogatePart(Part):
    """Answers predicted by a surrogate benchmark."""

    kind: Literal["surrogate"]
    file: str
    """The file that `kendall surrogate fit` wrote."""


EvaluatorPart = Annotated[TablePart | LivePart | SurrogatePart, Field(discriminator="kind")]


class BudgetPart(Part):
    """The limits of each search."""

    device_s: float | None = Field(default=None, gt=0)
    evaluations: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def some(self) -> Self:
        """A search has to end."""
        if self.device_s is None and self.evaluations is None:
            raise ValueError("give device_s, evaluations or both")
        return self

    def budget(self) -> Budget:
        """The budget as the search loop takes it."""
        return Budget(float("inf") if self.device_s is None else self.device_s, self.evaluations)


Name = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class WholeSpec(Part):
    """A spec as a whole: its values with all defaults, and a short name for them."""

    def resolved(self) -> JSON:
        """All values, defaults included, as TOML has them."""
        values: JSON = without_none(self.model_dump(mode="json"))
        return values

    @property
    def short_hash(self) -> str:
        """Eight digits that differ between specs."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()[:8]


class GoalPart(Part):
    """Aim of a run, as in `suite.types.Goal`."""

    minimise: list[str] = ["val_error"]
    """Metrics, the most important first: winners are picked by it, fronts and hypervolumes are of all."""
    limits: dict[str, float] = {}
    """Metric -> the largest value that is feasible."""
    reference: list[float] | None = None
    """Reference point of hypervolumes, a coordinate a metric; None: the stored one."""

    @model_validator(mode="after")
    def fitting(self) -> Self:
        """Refused as the type refuses it."""
        try:
            self.goal()
        except BadInput as error:
            raise ValueError(str(error).removeprefix("goal: ")) from None
        return self

    def goal(self) -> Goal:
        """The goal as the suite's type."""
        return Goal(tuple(self.minimise), self.limits, None if self.reference is None else tuple(self.reference))


Value = bool | int | float | str


class ChoicePart(Part):
    """A decision about training in a joint space: a list of values, or a grid of numbers."""

    values: list[Value] | None = None
    """Numbers, booleans or words; the first is where a choice begins that becomes active in a mutation."""
    low: int | float | None = None
    """Least value of a grid; whole numbers if `low` and `high` are whole."""
    high: int | float | None = None
    """Largest value of a grid."""
    steps: int = Field(default=64, ge=2, le=4096)
    """Number of values in a grid."""
    scale: Literal["log", "linear"] = "log"
    """Spacing of a grid: equal ratios or equal differences."""
    when: dict[str, Value | list[Value]] = {}
    """Earlier choice = its values under which this one is active; empty: it always is."""

    @model_validator(mode="after")
    def one_way(self) -> Self:
        """Either a list or a grid."""
        ends = (self.low is None, self.high is None)
        if any(ends) if self.values is None else not all(ends):
            raise ValueError("give values, or low and high")
        return self

    def choice(self, name: str) -> Choice:
        """The choice as the joint space takes it."""
        when = {earlier: value if isinstance(value, list) else [value] for earlier, value in self.when.items()}
        if self.low is None or self.high is None:
            return options(name, self.values or [], when=when)
        return grid(name, self.low, self.high, steps=self.steps, scale=self.scale, when=when)


class Common(WholeSpec):
    """The keys that specs of runs and studies share."""

    name: Name
    space: str
    datasets: list[str] = Field(min_length=1)
    evaluator: EvaluatorPart
    full: ProxyPart = ProxyPart()
    """The full setting that judges."""
    seed0: Seed = 0
    """The first seed; the others follow it."""
    joint: dict[str, ChoicePart] | None = None
    """Decisions on training beside those of the space: a key of the recipe = its values; None: the recipe is fixed."""

    @field_validator("full")
    @classmethod
    def own_task(cls, full: ProxyPart) -> ProxyPart:
        """Judges score on the board's own task."""
        if full.task is not None:
            raise ValueError(f"the full setting is of the board's own task, {OWN}, not of {full.task}; leave task out")
        return full

    @field_validator("datasets")
    @classmethod
    def each_once(cls, names: list[str]) -> list[str]:
        """A data set twice would be two rows of one thing."""
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is there twice")
        return names

    @field_validator("space")
    @classmethod
    def space_known(cls, name: str) -> str:
        """Refuse a space that is not registered."""
        if name not in SPACES:
            raise ValueError(f"no space {name!r}: {nearest(name, SPACES)}")
        return name

    @model_validator(mode="after")
    def trainable(self) -> Self:
        """The choices are about the recipe, and make a space."""
        for name in self.joint or {}:
            check_choice(name)
        try:
            self.search_space()
        except BadInput as refusal:
            raise ValueError(str(refusal)) from None
        return self

    def search_space(self) -> SearchSpace:
        """The space that is searched or studied: the named one, with the choices of `joint`."""
        space = SPACES[self.space]
        if not self.joint:
            return space
        return Joint(space, [part.choice(name) for name, part in self.joint.items()])


class SearcherPart(Part):
    """A searcher and its options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str
    label: str = ""
    """Name of its rows, where one searcher stands in a spec twice; empty: the name."""
    proxy: ProxyPart | None = None
    """Proxy of its candidates, or of its supernet; None: as the spec says for all."""
    recipe: str | dict[str, Any] | None = None
    """Recipe of its supernet, if it has one; None: "darts_search"."""

    @field_validator("name")
    @classmethod
    def known(cls, name: str) -> str:
        """Refuse a searcher that is not registered."""
        if name not in available():
            raise ValueError(f"no searcher {name!r}: {nearest(name, available())}")
        return name

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of its constructor."""
        return dict(self.model_extra or {})

    @property
    def row(self) -> str:
        """The name of its rows."""
        return self.label or self.name


class ResourcePart(Part):
    """Metrics that need no training: docs/resources.md."""

    kind: Literal["formula", "table", "measured"]
    metrics: list[str] | None = None
    """Which; None: all that the source has."""
    label: str | None = None
    """Put before the metrics' names, where two sources have the same."""
    table: str | None = None
    """Source of kind table: a name of `kendall list`, or a converted table's file."""
    file: str | None = None
    """Where the benchmark's own file lies."""
    dataset: str | None = None
    """The table's, if another than the run's."""
    device: str | None = None
    """One of the table's devices; or the device to measure on: "auto", "cpu", "cuda"."""
    cpu_threads: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    """Images a batch when latency is measured."""
    repeats: int | None = Field(default=None, ge=1)
    """Forward passes that a measured latency is the median of."""
    warm_up_s: float | None = Field(default=None, ge=0)
    """Seconds of forward passes before latency is measured."""
    energy_batch_size: int | None = Field(default=None, ge=1)
    """Images a batch when energy and power are measured; the numbers below are of the same."""
    energy_s: float | None = Field(default=None, ge=0)
    """Length of a window in which energy is measured [s]."""
    energy_windows: int | None = Field(default=None, ge=1)
    energy_warm_up_s: float | None = Field(default=None, ge=0)
    idle_s: float | None = Field(default=None, ge=0)
    """Seconds over which the idle power is averaged, once."""
    sample_hz: float | None = Field(default=None, ge=20)


class ArchitecturesPart(Part):
    """Which networks are studied: `count` drawn at random, all, or those of a file with one text form a line."""

    count: int | None = Field(default=None, ge=1)
    all: bool = False
    file: str | None = None
    quick: str | None = None
    """A quick score by which the `count` networks are drawn in strata, so that the top is there."""
    strata: int = Field(default=4, ge=2, le=10)
    """Number of strata: the best half of the best half of ..., each with as many networks."""
    pool: int | None = Field(default=None, ge=10)
    """Networks that are scored; None: 20 for each one drawn, or all there are."""


Ints = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
Shares = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]


class StudyProxyPart(Part):
    """Proxies of a study: every combination of the values given, each trained to its end and read at its stages."""

    epochs: Ints | None = None
    """Lengths of the schedule, each a training of its own."""
    channels: Ints | None = None
    resolution: Ints | None = None
    samples: Shares = [1.0]
    cells: Ints | None = None
    task: str | None = None
    """Task that networks are trained for; None: the board's own task."""
    stages: Ints | None = None
    """Epochs of each training at which it is read too; those beyond its schedule are left out."""
    econas: list[str] | None = None
    """EcoNAS's notation, instead of epochs, channels, resolution and samples."""

    _task = field_validator("task")(known_task)

    @field_validator("epochs", "channels", "resolution", "samples", "cells", "stages", "econas", mode="before")
    @classmethod
    def one_or_many(cls, value: object) -> object:
        """A single value is a list of one."""
        return value if value is None or isinstance(value, list) else [value]

    @model_validator(mode="after")
    def one_notation(self) -> Self:
        """Either EcoNAS's notation or values."""
        if self.econas is not None and (self.epochs or self.channels or self.resolution or self.samples != [1.0]):
            raise ValueError("econas already says epochs, channels, resolution and samples; remove these keys")
        return self

    @field_serializer("epochs", "channels", "resolution", "samples", "cells", "econas")
    def plain(self, value: list[Any] | None) -> Any:
        """A list of one is a single value."""
        return value[0] if value is not None and len(value) == 1 else value


class LevelsPart(Part):
    """Meaning of the levels of EcoNAS's notation, level 0 first."""

    channels: Ints | None = None
    resolution: Ints | None = None
    samples: Shares | None = None


def check_choice(name: str) -> None:
    """Raises ValueError unless a joint space may choose this key of a recipe."""
    try:
        check_keys([name])
    except BadInput as refusal:
        raise ValueError(f"joint: {refusal}") from None


def without_none(value: Any) -> Any:
    """TOML has no null: what is None is left out."""
    if isinstance(value, dict):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value
