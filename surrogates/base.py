"""Predictors: rows of numbers in, a number with its spread and an interval out.

All models share one contract. `fit` learns from rows and targets; `predict` gives a mean and a standard deviation,
which acquisition functions need; `interval` is for readers: it covers as often as it says, whatever the model, because
it comes from the errors on rows that were held out (cross-conformal prediction).

Vovk. "Cross-Conformal Predictors". Annals of Mathematics and Artificial Intelligence 74, 2015.
https://arxiv.org/abs/1208.0806
Barber, Candes, Ramdas, Tibshirani. "Predictive Inference with the Jackknife+". Annals of Statistics 49(1), 2021.
https://arxiv.org/abs/1905.02928

Held-out errors are divided by the model's spread plus half its median, so that intervals are narrow where the model
knows more (Lei, G'Sell, Rinaldo, Tibshirani, Wasserman. "Distribution-Free Predictive Inference for Regression". JASA
113, 2018, section 5.2); what they cover does not depend on how good the spread is.

Departure: an interval is centred on the prediction of the model that saw all rows, instead of the union over the models
of all folds (CV+); so a prediction asks one model, not as many as there are folds.

A file of a model is an npz of numbers and one text of settings, with the SHA-256 of the rows and targets that it was
fitted on. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from suite.types import BadInput, nearest

if TYPE_CHECKING:
    from torch import Tensor

Floats: TypeAlias = npt.NDArray[np.float64]
Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

FORMAT = "kendall predictor 1"
LEAST_ROWS = 5
MANY_ROWS = 300
TARGETS = ("shifted_log", "log", "plain")
FAILURES = ("censored", "dropped")


@runtime_checkable
class Predictor(Protocol):
    """Learns a number from rows of numbers; scikit-learn's two verbs, with a spread."""

    def fit(self, x: Floats, y: Floats) -> Self:
        """Learn from rows, shape (n, columns), and their targets, shape (n,); lower is better."""
        ...

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each row, in the unit of the targets: for acquisition."""
        ...

    def interval(self, x: Floats, level: float) -> tuple[Floats, Floats]:
        """Lower and upper end of an interval that holds a new target with probability `level`: for readers."""
        ...


class Differentiable(Predictor, Protocol):
    """A predictor in torch, whose output has a gradient with respect to its input: a term of a loss."""

    def __call__(self, code: Tensor) -> Tensor:
        """The prediction of encoded rows, shape (n, columns); in the unit of the targets."""
        ...


@dataclass(frozen=True)
class Scale:
    """How targets are seen by a model: shifted, perhaps as logarithms, with mean 0 and standard deviation 1."""

    kind: str
    shift: float
    centre: float
    spread: float

    @classmethod
    def of(cls, kind: str, y: Floats) -> Scale:
        """The scale of these targets.

        "shifted_log" spreads the low end, where searches look: the logarithm of the distance to a point below the least
        target by 0.3 times the distance from there to the median. "log" is for what is compared by ratios.
        """
        shift = 0.0
        if kind == "shifted_log":
            reach = float(np.median(y) - y.min()) or float(y.max() - y.min())
            shift = float(y.min()) - 0.3 * reach
        elif kind == "log" and y.min() <= 0:
            raise BadInput(f"predictor: target log needs targets above 0, not {y.min():g}; use shifted_log or plain")
        z = y - shift if kind == "plain" else np.log(y - shift)
        return cls(kind, shift, float(z.mean()), float(z.std()))

    def to(self, y: Floats) -> Floats:
        """Targets as a model sees them."""
        z = y - self.shift if self.kind == "plain" else np.log(np.maximum(y - self.shift, 1e-12))
        return (z - self.centre) / self.spread

    def back(self, z: Floats) -> Floats:
        """What a model says, in the unit of the targets."""
        z = np.asarray(z) * self.spread + self.centre
        return z + self.shift if self.kind == "plain" else np.exp(np.minimum(z, 700.0)) + self.shift

    def slope(self, z: Floats) -> Floats:
        """Units of the target for one of the model's, at what the model says."""
        return np.full(np.shape(z), self.spread) if self.kind == "plain" else self.spread * (self.back(z) - self.shift)


@dataclass(kw_only=True)
class Model(ABC):
    """What all models share: checked input, the scale of targets, intervals, files.

    A model has `learn`, `centre_and_spread`, `arrays` and `restore`, all in the scale of the model.
    """

    name: ClassVar[str]
    """As in `SURROGATES`."""
    encoding: ClassVar[str] = "auto"
    """The encoding that suits it."""

    columns: tuple[str, ...] = ()
    """Names of the columns, where the model groups them; the encoder's `names`."""
    seed: int = 0
    target: str = "shifted_log"
    """How it sees targets: "shifted_log", "log", "plain"."""
    failures: str = "censored"
    """Infinite targets are "censored" (as bad as the worst that did not fail) or "dropped"."""
    folds: int = 0
    """Parts that are held out in turn for intervals; 0: ten up to `MANY_ROWS` rows, five above."""

    failed: int = field(default=0, init=False)
    """Rows with infinite targets in what it was fitted on."""
    data: str = field(default="", init=False)
    """SHA-256 of the rows and targets that it was fitted on."""
    scale: Scale = field(init=False, repr=False)
    about: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """What its file says beside the model: space, encoding, source ..."""
    _rows: tuple[Floats, Floats] | None = field(default=None, init=False, repr=False)
    _groups: npt.NDArray[np.intp] | None = field(default=None, init=False, repr=False)
    _errors: Floats | None = field(default=None, init=False, repr=False)
    """Of rows held out, as multiples of their spread and `_least`, ascending."""
    _least: float = field(default=0.0, init=False, repr=False)
    _width: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.columns = tuple(self.columns)
        for key, value, allowed in (("target", self.target, TARGETS), ("failures", self.failures, FAILURES)):
            if value not in allowed:
                raise BadInput(f"{self.name}: no {key} {value!r}: {nearest(str(value), allowed)}")
        if self.folds == 1 or self.folds < 0:
            raise BadInput(f"{self.name}: folds must be at least 2 (0: as many as suit the rows), not {self.folds}")

    # What a model adds

    @abstractmethod
    def learn(self, x: Floats, z: Floats) -> None:
        """Learn from scaled targets of mean 0 and standard deviation 1."""

    @abstractmethod
    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of scaled targets."""

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that it has learnt."""

    @abstractmethod
    def restore(self, arrays: Arrays) -> None:
        """Be as it was when `arrays` were made."""

    def centre(self, x: Floats) -> Floats:
        """Mean of scaled targets, where the spread costs more."""
        return self.centre_and_spread(x)[0]

    def for_fold(self) -> Self:
        """The same model with nothing learnt, to be fitted without a fold."""
        return replace(self)

    # The contract

    def fit(self, x: Floats, y: Floats, groups: Sequence[Hashable] | None = None) -> Self:
        """Learn from rows and targets; infinite targets are failed trainings.

        Args:
            x: Rows, shape (n, columns).
            y: Targets, shape (n,); lower is better.
            groups: Rows of one group are held out together for intervals: isomorphic networks, which tell each other's
                answer. None: each row is its own.

        Raises:
            BadInput: Too few rows, rows and targets that do not match, a target that is nan, or constant targets.
        """
        x, y = np.ascontiguousarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if x.ndim != 2 or y.shape != (len(x),):
            raise BadInput(
                f"{self.name}: rows {x.shape} and targets {y.shape} do not match; give (n, columns) and (n,)"
            )
        if self.columns and len(self.columns) != x.shape[1]:
            raise BadInput(f"{self.name}: rows have {x.shape[1]} columns, not the {len(self.columns)} that were named")
        if np.isnan(y).any() or np.isneginf(y).any():
            raise BadInput(
                f"{self.name}: target {int(np.argmax(np.isnan(y) | np.isneginf(y)))} is no number; leave it out"
            )
        finite = np.isfinite(y)
        self.failed = int((~finite).sum())
        if finite.sum() < LEAST_ROWS:
            raise BadInput(
                f"{self.name}: {finite.sum()} rows with finite targets are too few; give {LEAST_ROWS} or more"
            )
        if groups is not None and len(groups) != len(y):
            raise BadInput(f"{self.name}: {len(groups)} groups for {len(y)} rows; give one for each")
        number: dict[Hashable, int] = {}
        group = np.array([number.setdefault(one, len(number)) for one in (range(len(y)) if groups is None else groups)])
        if self.failures == "dropped":
            x, y, group = x[finite], y[finite], group[finite]
        else:
            y = np.minimum(y, y[finite].max())
        if np.ptp(y) <= 1e-12 * max(1.0, float(np.abs(y).max())):
            raise BadInput(f"{self.name}: all {len(y)} targets are {y[0]:g}; there is nothing to learn from a constant")
        self.scale = Scale.of(self.target, y)
        self._rows, self._groups, self._errors, self._width = (x, self.scale.to(y)), group, None, x.shape[1]
        self.data = hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()
        self.learn(*self._rows)
        return self

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation in the unit of the targets; equal rows are computed once."""
        z, spread = self._of_each(x, lambda rows: np.stack(self.centre_and_spread(rows)))
        return self.scale.back(z), np.abs(self.scale.slope(z)) * spread

    def mean(self, x: Floats) -> Floats:
        """The mean alone, which can be much quicker."""
        return self.scale.back(self._of_each(x, lambda rows: self.centre(rows)[None])[0])

    def interval(self, x: Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """An interval that holds a new target with probability `level` on average over rows drawn as the fitted ones.

        The first call fits the model again without each fold; `calibrate` does so beforehand.
        """
        if not 0 < level < 1:
            raise BadInput(f"interval: level must lie between 0 and 1, not {level}")
        errors = self.calibrate()._errors
        assert errors is not None
        rank = math.ceil(level * (len(errors) + 1))
        z, spread = self._of_each(x, lambda rows: np.stack(self.centre_and_spread(rows)))
        half = (np.inf if rank > len(errors) else errors[rank - 1]) * (spread + self._least)
        return self.scale.back(z - half), np.where(np.isinf(half), np.inf, self.scale.back(z + half))

    def calibrate(self) -> Self:
        """Work out the held-out errors that `interval` needs."""
        if self._errors is None:
            if self._rows is None:
                raise BadInput(f"{self.name}: was saved without intervals; fit it again, or call calibrate before save")
            x, z = self._rows
            assert self._groups is not None
            kinds, group = np.unique(self._groups, return_inverse=True)
            folds = min(self.folds or (10 if len(z) <= MANY_ROWS else 5), len(kinds))
            if folds < 2:
                raise BadInput(f"{self.name}: all rows are of one group; intervals need at least two")
            fold = (np.random.default_rng(self.seed).permutation(len(kinds)) % folds)[group]
            error, spread = np.empty(len(z)), np.empty(len(z))
            for number in range(fold.max() + 1):
                out = fold == number
                model = self.for_fold()
                model.learn(x[~out], z[~out])
                centre, spread[out] = model.centre_and_spread(x[out])
                error[out] = np.abs(centre - z[out])
            self._least = float(np.median(spread)) / 2 + 1e-9
            self._errors = np.sort(error / (spread + self._least))
        return self

    def _of_each(self, x: Floats, answer: Any) -> Floats:
        x = np.ascontiguousarray(x, dtype=np.float64)
        if not self.data:
            raise BadInput(f"{self.name}: fit it before it predicts")
        if x.ndim != 2 or x.shape[1] != self._width:
            raise BadInput(
                f"{self.name}: fitted on rows of {self._width} columns, asked about {x.shape}; encode likewise"
            )
        if not len(x):
            return np.empty((2, 0))
        first, back = distinct(x)
        found: Floats = answer(x[first])[:, back]
        return found

    # The file

    def save(self, path: Path) -> None:
        """Write the model; whoever looks sees the old file or all of the new one.

        Raises:
            BadInput: The file cannot be written.
        """
        said, held = self.packed()
        write(path, {"format": FORMAT, **said}, held)

    def packed(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What its file says, and its arrays."""
        said = {
            "predictor": self.name, "options": self.options(), "data": self.data, "failed": self.failed,
            "scale": list(vars(self.scale).values()), "width": self._width, "about": self.about,
        }  # fmt: skip
        held = {f"model/{key}": value for key, value in self.arrays().items()}
        if self._errors is not None:
            held["errors"] = np.append(self._least, self._errors)
        return said, held

    def options(self) -> dict[str, Any]:
        """Its settings, ready for JSON."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items()}

    def resume(self, said: Mapping[str, Any], held: Arrays) -> Self:
        """Be the model of a file; see `surrogates.load`."""
        kind, shift, centre, spread = said["scale"]
        self.scale = Scale(str(kind), float(shift), float(centre), float(spread))
        self.data, self.failed, self._width = str(said["data"]), int(said["failed"]), int(said["width"])
        self.about = {str(key): str(value) for key, value in said["about"].items()}
        if "errors" in held:
            self._least, self._errors = float(held["errors"][0]), held["errors"][1:]
        self.restore({key.removeprefix("model/"): value for key, value in held.items() if key.startswith("model/")})
        return self


def write(path: Path, said: Mapping[str, Any], held: Arrays) -> None:
    """Write a text of settings and arrays as one npz; whoever looks sees the old file or all of the new one.

    Raises:
        BadInput: The file cannot be written.
    """
    written = io.BytesIO()
    everything: dict[str, Any] = {**held, "said": np.array(json.dumps(said))}
    np.savez(written, allow_pickle=False, **everything)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(written.getvalue())
        os.chmod(name, 0o644)  # a temporary file is its owner's alone
        os.replace(name, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None


def read(path: Path, form: str = FORMAT) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """What a file says, and its arrays.

    Raises:
        BadInput: It is missing, damaged, or no model of ours.
    """
    wrong = f"{path}: no model of `kendall surrogate fit`, or damaged"
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
        said = json.loads(str(held.pop("said")))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise BadInput(f"{wrong}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from None
    if not isinstance(said, dict) or said.get("format") != form:
        raise BadInput(f"{wrong}: its format is not {form!r}; fit it again")
    return said, held


def distinct(x: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Places of different rows, and for each row the place among these."""
    key = np.nan_to_num(x) @ np.random.default_rng(0).normal(size=x.shape[1])  # equal rows, equal sums
    _, first, back = np.unique(key, return_index=True, return_inverse=True)
    back = back.reshape(-1)
    if not np.array_equal(x[first][back], x, equal_nan=True):  # as good as never, or a sum in another order
        first = back = np.arange(len(x))
    return first, back
