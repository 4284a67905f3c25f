"""One method a file; SEARCHERS names them all.

Packages beside this one register theirs in the entry point group `kendall.searchers`; see docs/adding-a-searcher.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from searchers.bananas import BANANAS
from searchers.bayesian_optimisation import BayesianOptimisation
from searchers.darts import DARTS
from searchers.econas import EcoNAS
from searchers.fnas import FNAS
from searchers.gdas import GDAS
from searchers.local_search import LocalSearch
from searchers.mnas import MNAS
from searchers.monas import MONAS
from searchers.ms_darts import MSDARTS
from searchers.parts.options import checked_options, listing
from searchers.parts.renamed import refusal
from searchers.random_search import RandomSearch
from searchers.regularized_evolution import RegularizedEvolution
from searchers.reinforce import Reinforce
from searchers.single_darts import SingleDARTS
from searchers.snas import SNAS, SNASBilevel
from searchers.successive_halving import SuccessiveHalving
from suite.types import JSON, BadInput, GradientSearch, Proxy, Searcher, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import numpy as np

    from suite.spaces import SearchSpace

__all__ = [
    "CAPABILITIES", "GROUP", "SEARCHERS", "About", "Method", "about", "available", "listed", "load", "load_all", "make",
    "options",
]  # fmt: skip

CAPABILITIES = ("stages", "resources", "goal", "pool", "stores")
"""Options that the harness fills, where a searcher has them and the user did not choose them."""


class Method(Protocol):
    """A searcher's class: `(space, proxy, rng, *, its options)`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Searcher | GradientSearch:
        """A searcher at its beginning."""


SEARCHERS: dict[str, Method] = {
    "random_search": RandomSearch,
    "regularized_evolution": RegularizedEvolution,
    "local_search": LocalSearch,
    "successive_halving": SuccessiveHalving,
    "econas": EcoNAS,
    "bananas": BANANAS,
    "bayesian_optimisation": BayesianOptimisation,
    "reinforce": Reinforce,
    "monas": MONAS,
    "mnas": MNAS,
    "fnas": FNAS,
    "darts": DARTS,
    "gdas": GDAS,
    "single_darts": SingleDARTS,
    "snas": SNAS,
    "snas_bilevel": SNASBilevel,
    "ms_darts": MSDARTS,
}

GROUP = "kendall.searchers"
"""Entry point group of searchers in other packages: name = "module:Class"."""


@dataclass(frozen=True)
class About:
    """Description of a searcher, from its class; attributes that the class lacks have these defaults."""

    family: str = "other"
    """Family of methods: "random", "evolution", "local", "multi-fidelity", "reinforcement learning" ..."""
    objectives: tuple[str, ...] = ("val_error",)
    """Metrics that it looks at."""
    needs: tuple[str, ...] = ()
    """Capabilities that it makes use of beyond questions and answers: "stages", "supernet" ..."""
    paper: str = ""
    """Source of the method, in one line."""


def about(method: Method) -> About:
    """Read a class's description, with defaults where it says nothing."""
    said = {field.name: getattr(method, field.name) for field in fields(About) if hasattr(method, field.name)}
    return About(**said)


def available() -> tuple[str, ...]:
    """Names of all searchers, those of other packages last; nothing is imported.

    Raises:
        BadInput: Two searchers have the same name.
    """
    return (*SEARCHERS, *sorted(_plug_ins()))


def load(name: str) -> Method:
    """The class of a searcher.

    Raises:
        BadInput: There is none of this name, or the package that registers it is broken.
    """
    return _load(name, _plug_ins())


def load_all() -> dict[str, Method | BadInput]:
    """The class of every searcher, or why there is none; what is installed is looked through once.

    Raises:
        BadInput: Two searchers have the same name.
    """
    plug_ins = _plug_ins()
    found: dict[str, Method | BadInput] = {}
    for name in (*SEARCHERS, *sorted(plug_ins)):
        try:
            found[name] = _load(name, plug_ins)
        except BadInput as error:
            found[name] = error
    return found


def _load(name: str, plug_ins: Mapping[str, EntryPoint]) -> Method:
    if name in SEARCHERS:
        return SEARCHERS[name]
    if name not in plug_ins:
        raise BadInput(f"no searcher {name!r}: {nearest(name, [*SEARCHERS, *sorted(plug_ins)])}")
    plug_in = plug_ins[name]
    where = f"searcher {name!r} ({plug_in.value}, package {_package(plug_in)})"
    try:
        method: Method = plug_in.load()
    except Exception as error:  # whatever a foreign import does
        raise BadInput(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    asks = all(hasattr(method, word) for word in ("ask", "tell"))
    if not callable(method) or not (asks or all(hasattr(method, word) for word in ("begin", "step", "derive"))):
        raise BadInput(f"{where} is no searcher: it must be a class with ask and tell, or begin, step and derive")
    return method


def options(name: str) -> dict[str, object]:
    """Options of a searcher and their defaults, `inspect.Parameter.empty` where there is none.

    >>> options("regularized_evolution")["population_size"]
    100
    """
    parameters = inspect.signature(load(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def listed(name: str) -> JSON:
    """A searcher as `kendall list --json` has it: what it says of itself, its options, the capabilities that it takes.

    Raises:
        BadInput: There is none of this name, or the package that registers it is broken.

    >>> [option["name"] for option in listed("local_search")["options"]]
    ['move', 'initial']
    """
    method = load(name)
    entries = list(listing(method))
    return {
        "name": name,
        **asdict(about(method)),
        "capabilities": [entry["name"] for entry in entries if entry["name"] in CAPABILITIES],
        "options": [entry for entry in entries if entry["name"] not in CAPABILITIES],
    }


def make(
    name: str,
    space: SearchSpace,
    proxy: Proxy,
    rng: np.random.Generator,
    /,
    *,
    capabilities: Mapping[str, object] | None = None,
    **chosen: Any,
) -> Searcher | GradientSearch:
    """A searcher at its beginning.

    Args:
        name: One of `available()`.
        space: What to search.
        proxy: What its candidates are trained under.
        rng: All chance comes from here.
        capabilities: What the harness has to offer, by name ("stages"); a searcher with an option of that name gets it
            unless it was chosen.
        chosen: Options, by name.

    Raises:
        BadInput: No such searcher or option, or an option's value is out of its range.

    >>> import numpy as np
    >>> from suite.spaces import SPACES
    >>> space = SPACES["nas_bench_201"]
    >>> searcher = make("regularized_evolution", space, space.full, np.random.default_rng(0), population_size=10,
    ...                 sample_size=3)
    >>> searcher.ask()[0].arch
    (4, 3, 2, 1, 1, 0)
    """
    known = options(name)
    for option in chosen:
        if option not in known:
            if old := refusal(name, option):
                raise BadInput(old)
            raise BadInput(f"{name}: no option {option!r}: {nearest(option, list(known)) if known else 'it has none'}")
    offered = {word: value for word, value in (capabilities or {}).items() if word in known and word not in chosen}
    missing = [word for word, default in known.items() if default is inspect.Parameter.empty]
    missing = [word for word in missing if word not in chosen and word not in offered]
    if missing:
        raise BadInput(f"{name}: needs {', '.join(missing)}, which was not given")
    method = load(name)
    return method(space, proxy, rng, **offered, **checked_options(method, name, chosen))


def _plug_ins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for plug_in in entry_points(group=GROUP):
        rival = found.get(plug_in.name)
        if plug_in.name in SEARCHERS or (rival and rival.value != plug_in.value):
            others = "kendall" if rival is None else f"package {_package(rival)}"
            raise BadInput(
                f"searcher {plug_in.name!r} is registered twice: by {others} and by package {_package(plug_in)}; "
                "rename or uninstall one"
            )
        found[plug_in.name] = plug_in
    return found


def _package(plug_in: EntryPoint) -> str:
    return plug_in.dist.name if plug_in.dist else "unknown"
