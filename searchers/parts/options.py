"""Options of searchers: ranges stand once, in the signature; they are checked, and described for `kendall list`.

    batch: Annotated[int, AtLeast(2)] = 16
    alpha: Alpha = Alpha()                      # an option value; in TOML alpha = { lr = 1e-3 }

A constructor under `@checked` gets options that fit their annotations, however it is called; `searchers.make` does the
same for classes of other packages. Annotations that are none of bool, int, float, str, Literal, tuple, option values
and unions of these are not looked at.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import math
import re
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from suite.types import JSON, BadInput, nearest

Constructor = TypeVar("Constructor", bound=Callable[..., None])


@dataclass(frozen=True)
class AtLeast:
    """The least value of an option."""

    value: float


@dataclass(frozen=True)
class AtMost:
    """The largest value of an option."""

    value: float


@dataclass(frozen=True)
class Above:
    """A bound that an option must exceed."""

    value: float


@dataclass(frozen=True)
class Below:
    """A bound that an option must stay under."""

    value: float


Bound: TypeAlias = AtLeast | AtMost | Above | Below
Count = Annotated[int, AtLeast(1)]
Positive = Annotated[float, Above(0)]
Nonnegative = Annotated[float, AtLeast(0)]
Share = Annotated[float, AtLeast(0), AtMost(1)]


class Value:
    """Base of option values: frozen dataclasses whose fields are checked as options are."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for field in fields(kind):
            given = fit(hints_of(kind)[field.name], getattr(self, field.name), f"{kind.__name__}: {field.name}")
            object.__setattr__(self, field.name, given)


def checked(init: Constructor) -> Constructor:
    """Check a searcher's options before its constructor runs; refusals begin with the name of its file."""

    @functools.wraps(init)
    def constructor(self: object, *args: Any, **options: Any) -> None:
        name = type(self).__module__.rpartition(".")[2]
        init(self, *args, **checked_options(init, name, options))

    return cast(Constructor, constructor)


def checked_options(constructor: Callable[..., object], name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """Options as the constructor's annotations have them: whole numbers as floats, lists as tuples, tables as values.

    Args:
        constructor: A class or its `__init__`.
        name: Of the searcher, for refusals.
        options: By name; those that it does not have are left for the call to refuse.

    Raises:
        BadInput: A value does not fit, one line that names option, range and value.
    """
    init = constructor.__init__ if isinstance(constructor, type) else constructor  # type: ignore[misc]
    hints, parameters = hints_of(init), inspect.signature(init).parameters
    return {
        option: fit(hints[option], value, f"{name}: {option}", parameters[option].default) if option in hints else value
        for option, value in options.items()
    }


@functools.cache
def hints_of(annotated: Any) -> Mapping[str, Any]:
    """Annotations by name; none where they cannot be resolved, as in other packages they may be."""
    try:
        return get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def fit(hint: Any, value: Any, where: str, default: object = None) -> Any:
    """`value` as the annotation has it.

    Args:
        hint: The annotation.
        value: Given by a user or a program.
        where: Searcher and option, for refusals.
        default: Option value whose fields stand where a table does not name them.

    Raises:
        BadInput: It does not fit.

    >>> fit(Annotated[int, AtLeast(2)], 3, "mnas: batch"), fit(tuple[float, float], [0, 0.5], "darts: alpha.betas")
    (3, (0.0, 0.5))
    """
    found = attempt(hint, value, where, default)
    if found is MISSING:
        raise BadInput(f"{where} must be {described(hint)}, not {value!r}")
    return found


def attempt(hint: Any, value: Any, where: str, default: object) -> Any:
    """As `fit`; MISSING where it does not fit as a whole."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        found = attempt(arguments[0], value, where, default)
        return found if found is MISSING or all(map(functools.partial(holds, found), arguments[1:])) else MISSING
    if origin in (Union, types.UnionType):
        return attempt_any(arguments, value, where, default)
    if origin is Literal:
        return next((one for one in arguments if one == value and type(one) is type(value)), MISSING)
    if origin is tuple:
        return attempt_list(arguments, value, where)
    if isinstance(hint, type) and issubclass(hint, Value):
        return attempt_table(hint, value, where, default)
    if hint is float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if good else MISSING
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else MISSING
    if hint in (bool, str, types.NoneType):
        return value if isinstance(value, hint) else MISSING
    return value


def attempt_any(arms: tuple[Any, ...], value: Any, where: str, default: object) -> Any:
    """The first of several annotations that fits; false and true switch an option value off and on."""
    values = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, Value)]
    if values and isinstance(value, bool) and types.NoneType in arms:
        return (default if isinstance(default, Value) else values[0]()) if value else None
    return next((found for arm in arms if (found := attempt(arm, value, where, default)) is not MISSING), MISSING)


def attempt_list(items: tuple[Any, ...], value: Any, where: str) -> Any:
    """A list whose items fit, as a tuple."""
    if not isinstance(value, list | tuple):
        return MISSING
    hints = [items[0]] * len(value) if items[-1] is Ellipsis else list(items)
    if len(hints) != len(value):
        return MISSING
    found = tuple(attempt(hint, item, where, None) for hint, item in zip(hints, value, strict=True))
    return MISSING if MISSING in found else found


def attempt_table(kind: type[Value], value: Any, where: str, default: object) -> Any:
    """An option value, or the table of what differs from the default one."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        return MISSING
    hints = hints_of(cast(Any, kind))
    for name in value:
        if name not in hints:
            raise BadInput(f"{where}: no option {name!r}: {nearest(str(name), list(hints))}")
    given = {name: fit(hints[name], each, f"{where}.{name}") for name, each in value.items()}
    base: Any = default if isinstance(default, kind) else kind()
    return replace(base, **given)


def holds(value: Any, bound: object) -> bool:
    """Whether a number keeps a bound; other metadata bind nothing."""
    if isinstance(bound, AtLeast):
        return bool(value >= bound.value)
    if isinstance(bound, AtMost):
        return bool(value <= bound.value)
    if isinstance(bound, Above):
        return bool(value > bound.value)
    return bool(value < bound.value) if isinstance(bound, Below) else True


# Words


def described(hint: Any, *, several: bool = False) -> str:
    """The values that fit an annotation, in words.

    >>> described(Annotated[int, AtLeast(2)]), described(tuple[Share, Share])
    ('a whole number of at least 2', 'two numbers in [0, 1]')
    >>> described(Literal["soft", "hard"] | Annotated[float, AtMost(0)] | None)
    'one of soft, hard, or a number of at most 0'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = described(arguments[0], several=several)
        limits = limits_of(arguments[1:], whole=arguments[0] is int)
        return f"{words} {limits}" if limits else words
    if origin in (Union, types.UnionType):
        arms = [described(arm) for arm in arguments if arm is not types.NoneType]
        switched = ["false"] if len(arms) < len(arguments) and any(map(is_value, arguments)) else []
        return ", or ".join([*arms, *switched])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {described(arguments[0], several=True)}"
        return f"{ {2: 'two', 3: 'three'}.get(len(arguments), len(arguments)) } {described(arguments[0], several=True)}"
    if is_value(hint):
        return "a table of " + ", ".join(hints_of(hint))
    one = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    many = {int: "whole numbers", float: "numbers", str: "texts"}
    return (many if several else one).get(hint, "an object")


def limits_of(bounds: tuple[object, ...], *, whole: bool) -> str:
    """Bounds in words: "in [0, 1)", "in 1..3", "above 0", "of at least 2"."""
    low = next((bound for bound in bounds if isinstance(bound, AtLeast | Above)), None)
    high = next((bound for bound in bounds if isinstance(bound, AtMost | Below)), None)
    if low is not None and high is not None:
        if whole and isinstance(low, AtLeast) and isinstance(high, AtMost):
            return f"in {low.value:g}..{high.value:g}"
        left, right = "[" if isinstance(low, AtLeast) else "(", "]" if isinstance(high, AtMost) else ")"
        return f"in {left}{low.value:g}, {high.value:g}{right}"
    bound = low or high
    if bound is None:
        return ""
    words = {AtLeast: "of at least", AtMost: "of at most", Above: "above", Below: "below"}
    return f"{words[type(bound)]} {bound.value:g}"


def is_value(hint: Any) -> bool:
    """Whether an annotation is an option value's class."""
    return isinstance(hint, type) and issubclass(hint, Value)


# Listing


def listing(method: Callable[..., object]) -> Iterator[JSON]:
    """Each option of a searcher's class: name, type, default, range and meaning; an option value's fields below it.

    Args:
        method: The class; its keyword-only parameters are its options.
    """
    said = meanings(method)
    init = method.__init__ if isinstance(method, type) else method  # type: ignore[misc]
    hints = hints_of(init)
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            hint = hints.get(parameter.name, Any)
            yield entry(parameter.name, hint, parameter.default, said.get(parameter.name, ""))


def entry(name: str, hint: Any, default: object, meaning: str) -> JSON:
    """One option as JSON holds it."""
    arms = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    value = next(filter(is_value, arms), None)
    found: JSON = {"name": name, "type": type_of(hint), "default": plain(default), "range": described(hint)}
    found["meaning"] = meaning
    if value is not None:
        held = default if isinstance(default, value) else value()
        texts, hints = field_meanings(value), hints_of(value)
        found["options"] = [
            entry(field.name, hints[field.name], getattr(held, field.name), texts.get(field.name, ""))
            for field in fields(value)
        ]
    return found


def type_of(hint: Any) -> str:
    """The kind of an annotation's values, in a word of TOML: "integer", "float", "boolean", "string", "array", "table".

    >>> type_of(Literal["adam", "sgd"]), type_of(Annotated[int, AtLeast(1)] | None)
    ('string', 'integer')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_of(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_of(arm) for arm in arguments if arm is not types.NoneType))
    if origin is Literal:
        return " or ".join(dict.fromkeys(type_of(type(one)) for one in arguments))
    if origin is tuple:
        return "array"
    if is_value(hint):
        return "table"
    return {bool: "boolean", int: "integer", float: "float", str: "string"}.get(hint, "object")


def plain(value: object) -> object:
    """A default as JSON holds it; "needed" where there is none."""
    if value is inspect.Parameter.empty:
        return "needed"
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def meanings(method: Callable[..., object]) -> dict[str, str]:
    """Meaning of each option, from `Args` in docstrings: of the class, those that it builds on, and `__init__`."""
    found: dict[str, str] = {}
    for kind in reversed(inspect.getmro(method) if isinstance(method, type) else (method,)):
        own = vars(kind).get("__init__") if isinstance(kind, type) else None
        for documented in (kind, own):
            found |= arguments_of(documented.__doc__ or "") if documented is not None else {}
    return found


def arguments_of(text: str) -> dict[str, str]:
    """Names and texts below `Args:` of a docstring.

    >>> arguments_of(chr(10).join(["Do it.", "", "Args:", "    lr: Learning rate", "        of Adam.", "", "Raises:"]))
    {'lr': 'Learning rate of Adam.'}
    """
    _, _, below = inspect.cleandoc(text).partition("Args:\n")
    block = re.split(r"\n(?=\S)", below, maxsplit=1)[0]
    pairs = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", block, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in pairs}


@functools.cache
def field_meanings(kind: type) -> Mapping[str, str]:
    """Meaning of each field of an option value: the string below it; none where there is no source."""
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError):
        return {}
    statements = body.body if isinstance(body, ast.ClassDef) else []
    found: dict[str, str] = {}
    for line, after in itertools.pairwise(statements):
        named = isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[line.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return found
