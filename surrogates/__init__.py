"""Models that predict answers from earlier answers, one a file; SURROGATES names them all.

    >>> import numpy as np
    >>> from suite.spaces import SPACES
    >>> from surrogates.encoding import Encoder
    >>> space, rng = SPACES["nas_bench_201"], np.random.default_rng(0)
    >>> encoder = Encoder(space, "one_hot")
    >>> archs = [space.sample(rng) for _ in range(60)]
    >>> errors = np.array([60.0 - 8 * space.simplified(arch).count(3) for arch in archs])
    >>> model = make("ridge", columns=encoder.names, target="plain").fit(encoder(archs), errors)
    >>> mean, _ = model.predict(encoder([(3, 3, 0, 4, 3, 3)]))
    >>> low, high = model.interval(encoder([(3, 3, 0, 4, 3, 3)]), 0.9)
    >>> bool(low[0] < mean[0] < high[0]), round(float(mean[0]))
    (True, 28)

Nothing but numpy is imported before a model is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.types import BadInput, nearest

if TYPE_CHECKING:
    from surrogates.base import Model

__all__ = ["DEFAULT", "SURROGATES", "Entry", "default_options", "load", "load_class", "make"]

DEFAULT = "ensemble"
"""The predictor of those who name none."""


@dataclass(frozen=True)
class Entry:
    """Where a predictor is found; nothing is imported before it is asked for."""

    where: str
    """module:Class."""
    what: str
    needs: str = ""
    """The package that it needs beside the core; `pip install` brings it."""


SURROGATES: dict[str, Entry] = {
    "ensemble": Entry("surrogates.ensemble:Ensemble", "boosted trees and a Gaussian process, averaged: the default"),
    "boosted_trees": Entry("surrogates.boosted_trees:BoostedTrees", "LightGBM, several seeds averaged"),
    "extra_trees": Entry("surrogates.extra_trees:ExtraTrees", "extremely randomised trees"),
    "gaussian_process": Entry(
        "surrogates.gaussian_process:GaussianProcess", "one length scale for each kind of column; Hamming on one_hot"
    ),
    "mlp": Entry("surrogates.mlp:MLP", "perceptrons in torch, squared or ranking loss; differentiable"),
    "lstm": Entry("surrogates.lstm:LSTM", "reads a network decision by decision: the predictor of PNAS"),
    "additive": Entry("surrogates.additive:Additive", "a look-up table: the base for latency and energy"),
    "ridge": Entry("surrogates.ridge:Ridge", "linear, penalised: the floor"),
    "size": Entry("surrogates.size:Size", "larger is better: the trivial one"),
}


def load_class(name: str) -> type[Model]:
    """The class of a predictor.

    Raises:
        BadInput: There is none of this name, or the package that it needs is not installed.
    """
    if name not in SURROGATES:
        raise BadInput(f"no predictor {name!r}: {nearest(name, SURROGATES)}")
    entry = SURROGATES[name]
    module, _, kind = entry.where.partition(":")
    try:
        found: type[Model] = getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"predictor {name}: needs {error.name}, which is not installed; pip install {error.name}"
        ) from None
    return found


def default_options(name: str) -> dict[str, object]:
    """The options of a predictor and their defaults.

    >>> default_options("boosted_trees")["members"]
    3
    """
    return {
        f.name: f.default if f.default is not MISSING else None
        for f in fields(load_class(name))
        if f.init and f.name != "columns"
    }


def make(name: str = DEFAULT, **options: Any) -> Model:
    """A predictor with nothing learnt.

    Raises:
        BadInput: No such predictor or option, or an option's value is out of its range.
    """
    kind = load_class(name)
    known = [f.name for f in fields(kind) if f.init]
    for option in options:
        if option not in known:
            raise BadInput(f"predictor {name}: no option {option!r}: {nearest(option, known)}")
    return kind(**options)


def load(path: str | Path) -> Model:
    """The model of a file that `save` wrote.

    Raises:
        BadInput: The file is missing, damaged, or none of ours.
    """
    from surrogates.base import read

    path = Path(path)
    said, held = read(path)
    return restored(said, held, path)


def restored(said: Mapping[str, Any], held: Mapping[str, Any], path: Path) -> Model:
    """The model of what a file says and holds.

    Raises:
        BadInput: It is damaged.
    """
    try:
        options = {key: tuple(v) if isinstance(v, list) else v for key, v in said["options"].items()}
        return make(str(said["predictor"]), **options).resume(said, held)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadInput(f"{path}: a damaged model: {type(error).__name__}: {error}; fit it again") from None
