"""What `kendall run` and `kendall study` are told: TOML, checked before anything starts."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator, model_validator

from searchers import available
from searchers import load as load_method
from suite.search import Budget
from suite.spaces import SPACES, SearchSpace
from suite.tables import TABLES
from suite.types import JSON, BadInput, Proxy, nearest

MAX_SEED = 2**62
"""So that all seeds of a spec fit 64 bits, as TOML's and numpy's integers do."""


class Part(BaseModel):
    """A table of a spec; keys that it does not have are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ProxyPart(Part):
    """A proxy, as in `suite.types.Proxy`; what is left out is as in the space's full training."""

    epochs: int | None = Field(default=None, ge=1)
    channels: int | None = Field(default=None, ge=1)
    resolution: int | None = Field(default=None, ge=1)
    """None: the side of the data set's images."""
    samples: float = Field(default=1.0, gt=0, le=1)
    cells: int | None = Field(default=None, ge=1)

    def proxy(self, space: SearchSpace, side: int) -> Proxy:
        """As the suite's type, for images of this side [pixels]."""
        epochs, channels = self.epochs or space.full.epochs, self.channels or space.full.channels
        return space.canonical(Proxy(epochs, channels, self.resolution or side, self.samples, self.cells))


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
    """Answers by training."""

    kind: Literal["live"]
    recipe: str | dict[str, Any] = "nas_bench_201"
    """A name, or a table of values that differ from the default recipe's."""
    data: str | None = None
    """Folder of the images, if not in the usual places."""
    shards: list[int] | None = None
    """Of CIFAR-10 in shards: which fifths of the training part; None: all that are there."""
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
    deterministic: bool = False
    """On a GPU, only algorithms whose sums have a fixed order."""

    @property
    def first_device(self) -> str:
        """For what is done on one: supernets, zero-cost scores."""
        return self.device if isinstance(self.device, str) else self.device[0]


EvaluatorPart = Annotated[TablePart | LivePart, Field(discriminator="kind")]


class BudgetPart(Part):
    """What each search may spend."""

    device_s: float | None = Field(default=None, gt=0)
    evaluations: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def some(self) -> Self:
        """A search has to end."""
        if self.device_s is None and self.evaluations is None:
            raise ValueError("give device_s, evaluations or both")
        return self

    def budget(self) -> Budget:
        """As the loop's type."""
        return Budget(float("inf") if self.device_s is None else self.device_s, self.evaluations)


class Common(Part):
    """What runs and studies share."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    space: str
    datasets: list[str] = Field(min_length=1)
    evaluator: EvaluatorPart
    full: ProxyPart = ProxyPart()
    """The full setting that judges."""
    seed0: int = Field(default=0, ge=0, le=MAX_SEED)
    """The first seed; the others follow it."""

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
        """A registered space."""
        if name not in SPACES:
            raise ValueError(f"no space {name!r}: {nearest(name, SPACES)}")
        return name

    def resolved(self) -> JSON:
        """All values, defaults included, as TOML has them."""
        values: JSON = without_none(self.model_dump(mode="json"))
        return values

    @property
    def short_hash(self) -> str:
        """Eight digits that differ between specs."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()[:8]


class SearcherPart(Part):
    """A searcher and its options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str
    label: str = ""
    """What its rows are called, where one searcher stands in a spec twice; empty: the name."""
    proxy: ProxyPart | None = None
    """What its candidates, or its supernet, are trained under; None: as the spec says for all."""
    recipe: str | dict[str, Any] | None = None
    """How its supernet is trained, if it has one; None: "darts_search"."""

    @field_validator("name")
    @classmethod
    def known(cls, name: str) -> str:
        """A registered searcher."""
        if name not in available():
            raise ValueError(f"no searcher {name!r}: {nearest(name, available())}")
        return name

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of its constructor."""
        return dict(self.model_extra or {})

    @property
    def row(self) -> str:
        """What its rows are called."""
        return self.label or self.name


class RunSpec(Common):
    """`kendall run`: searchers against each other, each data set its own leaderboard."""

    searchers: list[SearcherPart] = Field(min_length=1)
    seeds: int = Field(ge=1)
    """Searches of each searcher."""
    budget: BudgetPart
    proxy: ProxyPart | None = None
    """What candidates are trained under; None: the full setting."""
    workers: int = Field(default=1, ge=1)
    """Trials in flight."""
    judge_seeds: int = Field(default=1, ge=1)
    """Full trainings of each winner, where the judge trains live."""
    judge: TablePart | None = None
    """A published table that judges winners of live searches; None: they are trained in full."""
    objectives: Annotated[list[str], Field(min_length=1)] | None = None
    """Metrics to minimise, the most important first; None: val_error alone."""
    resources: list[ResourcePart] | None = None
    """Where metrics beside the error come from; None: what the evaluator gives."""
    constraints: dict[str, float] | None = None
    """Metric -> the largest value that is feasible."""
    stores: str | None = None
    """Folder of what searches hand on to later ones: weights, trained samples; None: each begins with nothing."""
    reference: dict[str, float] | None = None
    """Objective -> its coordinate of the reference point of hypervolumes; None: beyond the worst of all fronts."""

    @model_validator(mode="after")
    def fitting(self) -> Self:
        """Keys that only make sense beside others."""
        if self.judge is not None and isinstance(self.evaluator, TablePart):
            raise ValueError("judge: a table judges its own searches; leave judge away, or set evaluator.kind to live")
        names = self.objectives or ["val_error"]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives: one is there twice: {', '.join(names)}")
        if self.reference is not None and set(self.reference) != set(names):
            raise ValueError(f"reference: give one value for each of {', '.join(names)}, no more and no fewer")
        return self

    @model_validator(mode="before")
    @classmethod
    def named(cls, content: object) -> object:
        """Names and tables mixed; "all" is every searcher that the list does not name itself and that can run here."""
        if not isinstance(content, dict) or "searchers" not in content:
            return content
        value = content["searchers"]
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list):
            return content
        parts = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
        rest: list[JSON] = []
        if {"name": "all"} in parts:
            evaluator = content.get("evaluator")
            trains = isinstance(evaluator, dict) and evaluator.get("kind") == "live"
            given = {part.get("name") for part in parts if isinstance(part, dict)}
            names = [name for name in available() if name not in given]
            rest = [{"name": name} for name in names if trains or "supernet" not in load_method(name).needs]
        return {**content, "searchers": [p for part in parts for p in (rest if part == {"name": "all"} else [part])]}

    @field_validator("searchers")
    @classmethod
    def distinct(cls, value: list[SearcherPart]) -> list[SearcherPart]:
        """Rows must be told apart."""
        rows = [part.row for part in value]
        if len(set(rows)) < len(rows):
            raise ValueError(f"two searchers with one name: {', '.join(rows)}; give each a label")
        return value


class ResourcePart(Part):
    """Metrics that need no training: docs/resources.md."""

    kind: Literal["formula", "table", "measured"]
    metrics: list[str] | None = None
    """Which; None: all that the source has."""
    label: str | None = None
    """Put before the metrics' names, where two sources have the same."""
    table: str | None = None
    """Of kind table: a name of `kendall list`, or a converted table's file."""
    file: str | None = None
    """Where the benchmark's own file lies."""
    dataset: str | None = None
    """The table's, if another than the run's."""
    device: str | None = None
    """Of the table's; or to measure on: "auto", "cpu", "cuda"."""
    cpu_threads: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    """Of a measured latency."""
    repeats: int | None = Field(default=None, ge=1)
    """Forward passes that a measured latency is the median of."""
    warm_up_s: float | None = Field(default=None, ge=0)
    """Before a measured latency."""
    energy_batch_size: int | None = Field(default=None, ge=1)
    """Of measured energy and power, as are the numbers below."""
    energy_s: float | None = Field(default=None, ge=0)
    """Of a window."""
    energy_windows: int | None = Field(default=None, ge=1)
    energy_warm_up_s: float | None = Field(default=None, ge=0)
    idle_s: float | None = Field(default=None, ge=0)
    """How long the idle power is averaged, once."""
    sample_hz: float | None = Field(default=None, ge=20)


class ArchitecturesPart(Part):
    """Which networks are studied: `count` drawn at random, all, or those of a file with one text form a line."""

    count: int | None = Field(default=None, ge=1)
    all: bool = False
    file: str | None = None
    quick: str | None = None
    """A quick score by which the `count` networks are drawn in strata, so that the top is there."""
    strata: int = Field(default=4, ge=2, le=10)
    """How many: the best half of the best half of ..., each with as many networks."""
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
    stages: Ints | None = None
    """Epochs of each training at which it is read too; those beyond its schedule are left out."""
    econas: list[str] | None = None
    """EcoNAS's notation, instead of epochs, channels, resolution and samples."""

    @field_validator("epochs", "channels", "resolution", "samples", "cells", "stages", "econas", mode="before")
    @classmethod
    def one_or_many(cls, value: object) -> object:
        """A single value is a list of one."""
        return value if value is None or isinstance(value, list) else [value]

    @model_validator(mode="after")
    def one_notation(self) -> Self:
        """Either EcoNAS's notation or values."""
        if self.econas is not None and (self.epochs or self.channels or self.resolution or self.samples != [1.0]):
            raise ValueError("econas already says epochs, channels, resolution and samples; leave these away")
        return self

    @field_serializer("epochs", "channels", "resolution", "samples", "cells", "econas")
    def plain(self, value: list[Any] | None) -> Any:
        """A list of one is a single value."""
        return value[0] if value is not None and len(value) == 1 else value


class LevelsPart(Part):
    """What the levels of EcoNAS's notation mean here, level 0 first."""

    channels: Ints | None = None
    resolution: Ints | None = None
    samples: Shares | None = None


class StudySpec(Common):
    """`kendall study`: how well each proxy ranks the networks that full training ranks."""

    architectures: ArchitecturesPart
    proxies: list[StudyProxyPart] = Field(min_length=1)
    full_seeds: int = Field(default=2, ge=1)
    """Full trainings of each network; two or more give the noise ceiling."""
    proxy_seeds: int = Field(default=1, ge=1)
    """Trainings of each network under each proxy."""
    draws: int | None = Field(default=None, ge=100)
    """Bootstrap draws; None: 10,000, or 1,000 for more than 2,000 networks."""
    scores: list[str] | None = None
    """Rankings without training: params, macs, random, and zero-cost scores; None: the first three."""
    score_file: str | None = None
    """Published scores of the same networks."""
    tse: bool = True
    """Rank by the area under the training loss too, where it is known."""
    levels: LevelsPart | None = None
    """None: as in `suite.proxies`."""
    truth: Literal["judge", "validation"] = "judge"
    """What proxies are compared with; "validation": what a search sees of full training on a table."""
    reference: str | None = None
    """The proxy that all others are compared with; None: all pairs."""
    reach: list[Annotated[float, Field(gt=-1, lt=1)]] | None = None
    """Taus for which the cheapest proxy is named; None: 0.4, 0.5 ... 0.9."""
    budgets: list[Annotated[float, Field(gt=0)]] | None = None
    """Budgets of the strategies, in full trainings; None: 1, 3, 10."""

    @field_validator("proxies", mode="before")
    @classmethod
    def written(cls, value: object) -> object:
        """Tables, and EcoNAS's notation as text."""
        return [{"econas": entry} if isinstance(entry, str) else entry for entry in value] if isinstance(
            value, list) else value  # fmt: skip


Spec = TypeVar("Spec", RunSpec, StudySpec)


def load(kind: type[Spec], path: Path, settings: Sequence[str] = ()) -> Spec:
    """Read a spec, with `--set key=value` on top.

    Raises:
        BadInput: It is missing, not TOML, or has a wrong key or value: one line with the nearest right one.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not TOML: {error}") from None
    for setting in settings:
        put(content, setting)
    return check(kind, content, str(path))


def check(kind: type[Spec], content: JSON, source: str) -> Spec:
    """A spec from what TOML held."""
    for command, only in (("run", "searchers"), ("study", "proxies")):
        if only in content and only not in kind.model_fields:
            raise BadInput(f"{source}: a spec for `kendall {command}` (it has {only})")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{source}: {first_problem(kind, error)}") from None


def put(content: JSON, setting: str) -> None:
    """Apply one `key=value`: dotted keys, list places by number, values as TOML writes them (bare words are text)."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {setting}: write key=value, for example --set seeds=20")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()
    *path, last = key.strip().split(".")
    place: Any = content
    for word in path:
        place = place[list_place(place, word, setting)] if isinstance(place, list) else place.setdefault(word, {})
        if not isinstance(place, dict | list):
            raise BadInput(f"--set {setting}: {word} holds a value, not a table")
    if isinstance(place, list):
        place[list_place(place, last, setting)] = value
    else:
        place[last] = value


def list_place(items: list[Any], word: str, setting: str) -> int:
    """A list's place, counted from 0."""
    if not word.isdecimal() or int(word) >= len(items):
        places = f"places are 0..{len(items) - 1}" if items else "it is empty"
        raise BadInput(f"--set {setting}: {word!r} is no place of a list of {len(items)}; {places}")
    return int(word)


def first_problem(kind: type[BaseModel], error: ValidationError) -> str:
    """One line for the first thing wrong."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    loc = problem["loc"]  # what follows these words is which kind of it, which the spec does not write
    place = [str(word) for i, word in enumerate(loc) if i == 0 or loc[i - 1] not in ("evaluator", "recipe", "device")]
    where = ".".join(place)
    if problem["type"] == "extra_forbidden":
        return f"no key {where!r}: {nearest(place[-1], keys_beside(kind, loc))}"
    if problem["type"] == "missing":
        return f"the key {where!r} is missing"
    if problem["type"] == "value_error":
        return f"{where}: {problem['ctx']['error']}" if where else str(problem["ctx"]["error"])
    if problem["type"].startswith("union_tag"):
        given = problem.get("ctx", {}).get("tag")
        return f"{where}.kind must be 'table' or 'live'" + (f", not {given!r}" if given else "")
    value = problem.get("input")
    if problem["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: must be a table of keys and values, not {value!r}"
    if problem["type"] == "too_short":
        return f"{where}: must not be empty"
    return f"{where}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {value!r}"


def keys_beside(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed where an unknown one stood."""
    parts: dict[str, type[BaseModel]] = {
        "table": TablePart, "live": LivePart, "budget": BudgetPart, "proxy": ProxyPart, "full": ProxyPart,
        "proxies": StudyProxyPart, "architectures": ArchitecturesPart, "levels": LevelsPart, "judge": TablePart,
        "resources": ResourcePart,
    }  # fmt: skip
    model = next((parts[word] for word in reversed(loc[:-1]) if isinstance(word, str) and word in parts), kind)
    return list(model.model_fields)


def without_none(value: Any) -> Any:
    """TOML has no null: what is None is left out."""
    if isinstance(value, dict):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value
