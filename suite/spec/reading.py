"""Reading of specs: TOML, `--set key=value` on top, one line for the first thing that is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from suite.spec.parts import (
    ArchitecturesPart,
    BudgetPart,
    ChoicePart,
    GoalPart,
    LevelsPart,
    LivePart,
    ProxyPart,
    ResourcePart,
    StudyProxyPart,
    SurrogatePart,
    TablePart,
)
from suite.spec.predictors import DataPart, DevicesPart, PredictorPart, PredictorsSpec, TransferPart
from suite.spec.run import RunSpec
from suite.spec.study import StudySpec
from suite.types import JSON, BadInput, nearest

Spec = TypeVar("Spec", RunSpec, StudySpec, PredictorsSpec)


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
    for command, only in (("run", "searchers"), ("study", "proxies"), ("predictors", "predictors")):
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
    faults = error.errors()
    fault = next((p for p in faults if p["type"] == "extra_forbidden"), faults[0])
    loc = fault["loc"]  # what follows these words is which kind of it, which the spec does not write
    place = [str(word) for i, word in enumerate(loc) if i == 0 or loc[i - 1] not in ("evaluator", "recipe", "device")]
    where = ".".join(place)
    if fault["type"] == "extra_forbidden":
        return f"no key {where!r}: {nearest(place[-1], keys_beside(kind, loc))}"
    if fault["type"] == "missing":
        return f"the key {where!r} is missing"
    if fault["type"] == "value_error":
        return f"{where}: {fault['ctx']['error']}" if where else str(fault["ctx"]["error"])
    if fault["type"].startswith("union_tag"):
        given = fault.get("ctx", {}).get("tag")
        return f"{where}.kind must be 'table', 'live' or 'surrogate'" + (f", not {given!r}" if given else "")
    value = fault.get("input")
    if fault["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: must be a table of keys and values, not {value!r}"
    if fault["type"] == "too_short":
        return f"{where}: must not be empty"
    return f"{where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, not {value!r}"


def keys_beside(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed where an unknown one stood."""
    parts: dict[str, type[BaseModel]] = {
        "table": TablePart, "live": LivePart, "surrogate": SurrogatePart, "budget": BudgetPart, "proxy": ProxyPart,
        "full": ProxyPart,
        "proxies": StudyProxyPart, "architectures": ArchitecturesPart, "levels": LevelsPart, "judge": TablePart,
        "resources": ResourcePart, "goal": GoalPart, "predictors": PredictorPart, "data": DataPart,
        "devices": DevicesPart, "transfer": TransferPart, "joint": ChoicePart,
    }  # fmt: skip
    model = next((parts[word] for word in reversed(loc[:-1]) if isinstance(word, str) and word in parts), kind)
    return list(model.model_fields)
