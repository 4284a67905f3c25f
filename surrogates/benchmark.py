"""Surrogate benchmarks: error and cost of every network of a space, predicted from those that were trained.

Zela, Siems, Zimmer, Lukasik, Keuper, Hutter. "Surrogate NAS Benchmarks: Going Beyond the Limited Search Spaces of
Tabular NAS Benchmarks". ICLR 2022. https://arxiv.org/abs/2008.09777

A benchmark is fitted on rows: an architecture, a setting (proxy and stage), a mean error and its seconds. Asked with a
seed it draws: the mean plus the noise of a training seed, as large as the runs of the fitted networks say; asked
without it gives the mean. It refuses settings that it was not fitted on.

Departure: one model of errors and one of seconds over all settings, whose proxy and stage are columns; NAS-Bench-301
has one setting, and its noise comes from an ensemble instead of repeated trainings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import surrogates
from suite.spaces.base import SearchSpace
from suite.types import Architecture, BadInput, Proxy, Unsupported
from surrogates.base import Floats, Model, read, write
from surrogates.encoding import Encoder

FORMAT = "kendall surrogate benchmark 1"
LISTED = 100_000
"""Architectures of a space, at most, that are all predicted at the first question."""
SIZES = ("epochs", "channels", "resolution", "samples", "stage")


@dataclass(frozen=True)
class Setting:
    """What a network is trained under, and how long."""

    proxy: Proxy
    stage: int
    """Epochs trained when it was measured."""

    @property
    def sizes(self) -> list[float]:
        """Logarithms of what makes a training cheap."""
        named = [getattr(self.proxy, name) for name in SIZES[:-1]]
        return [float(np.log2(value)) for value in (*named, self.stage)]


@dataclass
class Rows:
    """Trained networks of one data set."""

    archs: list[Architecture] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    """Means over runs [%]; inf for a failed training."""
    seconds: list[float] = field(default_factory=list)
    """nan where nobody knows."""
    runs: list[tuple[float, ...]] = field(default_factory=list)
    """Errors of single runs, where there are several."""


class Benchmark:
    """Errors and seconds of all networks of a space on one data set.

    Args:
        space: Whose networks.
        dataset: On which they were trained.
        settings: Under which.
        encoding: How networks are encoded.
        error: The model of errors.
        cost: The model of seconds; None: they are not known.
        noise: Standard deviation of a training seed, in the scale of the model of errors.
        about: What it was fitted on: table, fingerprint, networks, device of the seconds.
    """

    def __init__(
        self, space: SearchSpace, dataset: str, settings: Sequence[Setting], encoding: str, error: Model,
        cost: Model | None, noise: float, about: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.space, self.dataset, self.settings = space, dataset, list(settings)
        self.encoder, self.error, self.cost, self.noise = Encoder(space, encoding), error, cost, noise
        self.about = dict(about)
        self._listed: dict[tuple[int, Setting], Floats] = {}

    @classmethod
    def fit(
        cls, space: SearchSpace, dataset: str, rows: Rows, *, predictor: str = surrogates.DEFAULT,
        encoding: str = "auto", seed: int = 0, about: Mapping[str, str] | None = None,
    ) -> Benchmark:  # fmt: skip
        """The benchmark of trained networks.

        Raises:
            BadInput: There are too few rows, or all errors are the same.
        """
        encoder = Encoder(space, encoding)
        settings = sorted(set(rows.settings), key=lambda setting: setting.sizes)
        x = with_settings(encoder(rows.archs), rows.settings)
        columns = (*encoder.names, *(f"proxy {name}" for name in SIZES))
        groups: list[Hashable] = [space.isomorphism(arch) for arch in rows.archs]
        error = surrogates.make(predictor, columns=columns, seed=seed).fit(x, np.array(rows.errors), groups)
        seconds = np.array(rows.seconds)
        known = np.isfinite(seconds) & (seconds > 0)
        cost = None
        if known.all() and np.ptp(seconds) > 0:
            cost = surrogates.make("boosted_trees", columns=columns, seed=seed, target="log").fit(x, seconds)
        noise = seed_noise(error, rows.runs)
        said = {
            **(about or {}), "rows": str(len(rows.archs)), "networks": str(len(set(rows.archs))),
            "failed": str(error.failed), "seed noise": "from repeated runs" if noise else "not known: taken as 0",
        }  # fmt: skip
        return cls(space, dataset, settings, encoder.encoding, error, cost, noise, said)

    def check(self, proxy: Proxy, stage: int) -> Setting:
        """The setting of a question.

        Raises:
            Unsupported: It was not fitted on it; those that it was are named.
        """
        setting = Setting(self.space.canonical(proxy), stage)
        if setting not in self.settings:
            there = "; ".join(f"{held.stage} of {held.proxy}" for held in self.settings[:8])
            raise Unsupported(
                f"surrogate of {self.about.get('table', '?')} was fitted on {there}, not {stage} of {proxy}"
            )
        return setting

    def mean(self, archs: Sequence[Architecture], setting: Setting) -> Floats:
        """Mean errors of networks [%]."""
        return np.clip(self.said(self.error, archs, setting), 0.0, 100.0)

    def drawn(self, arch: Architecture, setting: Setting, seed: int) -> float:
        """The error of one training: the mean and the noise of its seed [%]."""
        if not self.noise:
            return float(self.mean([arch], setting)[0])
        key = hashlib.sha256(repr((arch, setting, seed)).encode()).digest()[:8]
        noise = self.noise * np.random.default_rng(int.from_bytes(key, "big")).normal()
        z = self.error.scale.to(self.mean([arch], setting)) + noise
        return float(np.clip(self.error.scale.back(z)[0], 0.0, 100.0))

    def seconds(self, archs: Sequence[Architecture], setting: Setting) -> Floats:
        """Seconds of trainings; nan where they are not known."""
        return np.full(len(archs), np.nan) if self.cost is None else self.said(self.cost, archs, setting)

    def said(self, model: Model, archs: Sequence[Architecture], setting: Setting) -> Floats:
        """What a model says; of a space that can be listed all is said at once, and then looked up."""
        if self.space.size > LISTED:
            return model.mean(self.rows(archs, setting))
        key = (id(model), setting)
        if key not in self._listed:
            self._listed[key] = model.mean(self.rows(list(self.space), setting))
        return self._listed[key][[self.space.index(arch) for arch in archs]]

    def rows(self, archs: Sequence[Architecture], setting: Setting) -> Floats:
        """Networks and a setting as the models see them."""
        return with_settings(self.encoder(archs), [setting] * len(archs))

    def save(self, path: Path) -> None:
        """Write one file."""
        models = {"error": self.error, **({"cost": self.cost} if self.cost is not None else {})}
        packed = {name: model.packed() for name, model in models.items()}
        said = {
            "format": FORMAT, "space": self.space.name, "dataset": self.dataset, "encoding": self.encoder.encoding,
            "settings": [[*asdict(setting.proxy).values(), setting.stage] for setting in self.settings],
            "noise": self.noise, "about": self.about, "models": {name: told for name, (told, _) in packed.items()},
        }  # fmt: skip
        write(path, said, {f"{name}/{key}": array for name, (_, held) in packed.items() for key, array in held.items()})

    @classmethod
    def load(cls, path: Path, spaces: Mapping[str, SearchSpace]) -> Benchmark:
        """The benchmark of a file.

        Raises:
            BadInput: The file is missing, damaged or another, or its space is none of `spaces`.
        """
        said, held = read(path, FORMAT)
        try:
            if said["space"] not in spaces:
                raise BadInput(f"{path}: a surrogate of the space {said['space']!r}, which is not known here")
            models: dict[str, Model] = {
                name: surrogates.restored(
                    told,
                    {key.removeprefix(f"{name}/"): a for key, a in held.items() if key.startswith(f"{name}/")},
                    path,
                )
                for name, told in said["models"].items()
            }
            names = list(Proxy.__dataclass_fields__)
            settings = [
                Setting(Proxy(**dict(zip(names, values, strict=False))), stage) for *values, stage in said["settings"]
            ]
            return cls(
                spaces[said["space"]], said["dataset"], settings, said["encoding"], models["error"], models.get("cost"),
                float(said["noise"]), said["about"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{path}: a damaged surrogate: {type(error).__name__}: {error}; fit it again") from None

    def info(self) -> dict[str, Any]:
        """What it is, ready for JSON."""
        return {
            "space": self.space.name, "dataset": self.dataset, "predictor": self.error.name,
            "encoding": self.encoder.encoding, "settings": [f"{s.stage} of {s.proxy}" for s in self.settings],
            "seconds": self.cost is not None, "data": self.error.data, **self.about,
        }  # fmt: skip


def with_settings(x: Floats, settings: Sequence[Setting]) -> Floats:
    """Rows with the sizes of their settings behind."""
    sizes = {setting: setting.sizes for setting in set(settings)}
    return np.concatenate([x, np.array([sizes[setting] for setting in settings])], axis=1)


def seed_noise(error: Model, runs: Sequence[tuple[float, ...]]) -> float:
    """Standard deviation of single runs around their network's mean, in the scale of the model; 0 if nobody knows."""
    squares, freedom = 0.0, 0
    for several in runs:
        finite = np.array([value for value in several if np.isfinite(value)])
        if len(finite) > 1:
            z = error.scale.to(finite)
            squares += float(((z - z.mean()) ** 2).sum())
            freedom += len(finite) - 1
    return (squares / freedom) ** 0.5 if freedom else 0.0
