"""Resources of a network beside training: size, latency, energy, peak power; from formulas, tables or measurement.

`Resources` answers for an architecture under a proxy without training it. The same network always has the same
value: a measured one is written down when it is first measured and read from there ever after. What cannot be run on
a device has an infinite latency, with the reason; never 0. docs/resources.md has units, protocols and definitions.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from suite.pareto import Normaliser
from suite.spaces import SearchSpace
from suite.tables import open_resources
from suite.tables.base import write_whole
from suite.tables.resources import METRICS as OF_TABLES
from suite.tables.resources import ResourceTable
from suite.types import CIFAR10_ENDS, JSON, Architecture, BadInput, Cost, Ends, Proxy, Unsupported, nearest

if TYPE_CHECKING:
    from suite.resources.measured import Meter

KINDS = ("formula", "table", "measured")
FORMULAS = {"params": "trainable parameters", "macs": "multiply-adds of an image"}
CALIBRATION_SAMPLES = 64


@dataclass(frozen=True)
class Reading:
    """The values that one source has of one network."""

    metrics: dict[str, float]
    reason: str = ""
    """Why a metric is infinite."""
    cost: Cost | None = None
    """Cost of measuring it; None where nothing is measured."""
    noisy: tuple[str, ...] = ()
    """Metrics that varied too much when they were measured."""


class Source(Protocol):
    """Where some metrics come from."""

    names: tuple[str, ...]

    def of(self, arch: Architecture, proxy: Proxy) -> Reading:
        """Values of one network, by the names of `names`."""

    def about(self) -> list[JSON]:
        """One entry a metric: name, unit, device, how, source."""

    def measures(self, arch: Architecture, proxy: Proxy) -> bool:
        """Whether `of` would measure the network now, on a device that has to be free for it."""

    def known(self, arch: Architecture, proxy: Proxy) -> Reading | None:
        """The first measurement of a network, without measuring it now; None: there is none."""

    def again(self, arch: Architecture, proxy: Proxy) -> dict[str, tuple[float, float]]:
        """Metrics that are measured, anew: metric -> (value, standard deviation)."""


class Unmeasured:
    """Part of a source that measures nothing."""

    def measures(self, arch: Architecture, proxy: Proxy) -> bool:
        """No: this source only looks values up."""
        return False

    def known(self, arch: Architecture, proxy: Proxy) -> Reading | None:
        """None: this source has no measurements."""
        return None

    def again(self, arch: Architecture, proxy: Proxy) -> dict[str, tuple[float, float]]:
        """There are no measured metrics."""
        return {}


class Formulas(Unmeasured):
    """Parameters and multiply-adds by the space's own formulas.

    Raises:
        BadInput: No such formula.
        Unsupported: The space has none.
    """

    def __init__(
        self, space: SearchSpace, metrics: Sequence[str] = tuple(FORMULAS),
        ends: Ends = CIFAR10_ENDS,
    ) -> None:  # fmt: skip
        check_names("formula", metrics, FORMULAS)
        self.space, self.names = space, tuple(metrics)
        self.ends = ends
        self.of(space.at(0), space.full)

    def of(self, arch: Architecture, proxy: Proxy) -> Reading:
        """The exact values of the formulas."""
        formulas: dict[str, Callable[..., int]] = {"params": self.space.params, "macs": self.space.macs}
        return Reading({name: float(formulas[name](arch, proxy, ends=self.ends)) for name in self.names})

    def about(self) -> list[JSON]:
        """The origin of params and macs, for the results folder."""
        how = {"device": "", "how": "formula", "source": f"suite.spaces, {self.space.name}"}
        return [{"metric": name, "unit": FORMULAS[name], **how} for name in self.names]


class LookedUp(Unmeasured):
    """One device's columns of a table, whatever the proxy: of the network that the publisher measured, in full size.

    Args:
        table: From `suite.tables.open_resources`.
        dataset: One of the table's.
        device: Likewise.
        metrics: latency_ms, energy_mj; None: all that the table has of the device.
        label: Put before the metrics' names, where another source has the same: "pixel3" makes pixel3_latency_ms.
        space: Where architectures come from, if that is not the table's space but one with its networks.

    Raises:
        Unsupported: The table has no such device, data set or metric.
    """

    def __init__(
        self, table: ResourceTable, dataset: str, device: str, metrics: Sequence[str] | None = None,
        *, label: str = "", space: SearchSpace | None = None,
    ) -> None:  # fmt: skip
        self.space = space or table.space
        if table.space.name != self.space.part(self.space.at(0))[0].name:
            raise Unsupported(f"table {table.name} holds {table.space.name}, not {self.space.name}")
        self.table, self.setting, self.device = table, table.setting(device, dataset), device
        held = table.columns[self.setting]
        wanted = [name for name in OF_TABLES if name in held] if metrics is None else list(metrics)
        for name in wanted:
            if name not in held:
                raise Unsupported(f"table {table.name} has no {name} of {device}; it has {', '.join(held)}")
        self.metrics = {f"{label}_{name}" if label else name: name for name in wanted}
        self.names = tuple(self.metrics)

    def of(self, arch: Architecture, proxy: Proxy) -> Reading:
        """As published; infinite where the device could not run it."""
        _, arch = self.space.part(arch)
        found = {name: self.table.value(arch, self.setting, metric) for name, metric in self.metrics.items()}
        missing = [name for name, value in found.items() if math.isnan(value)]
        reason = f"{self.device} cannot run it: no {missing[0]} in {self.table.name}" if missing else ""
        return Reading({name: math.inf if math.isnan(value) else value for name, value in found.items()}, reason)

    def about(self) -> list[JSON]:
        """The origin of each column, for the results folder."""
        where = {"device": self.device, "how": f"table {self.table.name}", "source": self.table.fingerprint}
        return [{"metric": name, "unit": OF_TABLES[metric], **where} for name, metric in self.metrics.items()]


class Measured:
    """The network of a trial, untrained, on the device at hand; each network once.

    Args:
        space: Whose networks.
        meter: How, and on which device.
        store: Where values are kept; of several devices and protocols, apart.
        ends: What goes in and comes out.
        label: Put before the metrics' names.
    """

    def __init__(
        self, space: SearchSpace, meter: Meter, store: Store,
        ends: Ends = CIFAR10_ENDS, label: str = "",
    ) -> None:  # fmt: skip
        from suite.resources.measured import METRICS

        self.space, self.meter, self.store = space, meter, store
        self.ends = ends
        self.metrics = {f"{label}_{name}" if label else name: name for name in meter.metrics}
        self.names, self.units = tuple(self.metrics), METRICS
        self.key = {
            "space": space.name,
            "device": meter.device_name,
            "setting": meter.setting(),
            "classes": ends.outputs,
            "image_channels": ends.inputs,
        }

    def of(self, arch: Architecture, proxy: Proxy) -> Reading:
        """The values that were measured first, or measured now."""
        key = self.key_of(arch, proxy)
        row = self.store.get(key) or self.store.put(key, lambda: self.measure(arch, proxy)[0])
        return self.reading(row)

    def measures(self, arch: Architecture, proxy: Proxy) -> bool:
        """Whether the network was not measured yet."""
        return self.known(arch, proxy) is None

    def known(self, arch: Architecture, proxy: Proxy) -> Reading | None:
        """As first measured; None if it never was, and then it is not measured now."""
        row = self.store.get(self.key_of(arch, proxy))
        return None if row is None else self.reading(row)

    def again(self, arch: Architecture, proxy: Proxy) -> dict[str, tuple[float, float]]:
        """Measured anew, and not kept: metric -> (value, standard deviation)."""
        row, variation = self.measure(arch, proxy)
        read = self.reading(row).metrics
        return {name: (read[name], read[name] * variation.get(old, math.nan)) for name, old in self.metrics.items()}

    def measure(self, arch: Architecture, proxy: Proxy) -> tuple[JSON, dict[str, float]]:
        """One line of the store, and the coefficients of variation."""
        import torch

        from suite.networks import build

        idle_w = self.store.idle_w.get(self.meter.device_name)
        if self.meter.idle_w is None and idle_w is not None:
            self.meter.idle_w = idle_w
        network: Any = build(self.space, arch, proxy, ends=self.ends, seed=0)
        if hasattr(network, "deployed"):  # another one than is trained
            network = network.deployed()
        try:
            found = self.meter.measure(network, (self.ends.inputs, proxy.resolution, proxy.resolution))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            cost = Cost(0.0, self.meter.device_name)
            return self.row(cost, None, f"out of memory on {self.meter.device_name}"), {}
        spread = {name: None if math.isnan(value) else value for name, value in found.spread.items()}
        more = {"spread": spread, "idle_w": found.idle_w, "noisy": list(found.noisy)}
        return self.row(found.cost, found.values) | more, found.variation

    def row(self, cost: Cost, values: Mapping[str, float] | None, reason: str = "") -> JSON:
        """A line of the store."""
        paid = {"device_s": cost.device_s, "device": cost.device, "energy_j": cost.energy_j}
        return {"values": values, "reason": reason, "cost": paid, "noisy": []}

    def reading(self, row: JSON) -> Reading:
        """The reading that a line of the store holds."""
        cost = Cost(**row["cost"])
        values = row["values"] or dict.fromkeys(self.metrics.values(), math.inf)
        noisy = tuple(name for name, metric in self.metrics.items() if metric in row["noisy"])
        return Reading({name: values[metric] for name, metric in self.metrics.items()}, row["reason"], cost, noisy)

    def key_of(self, arch: Architecture, proxy: Proxy) -> str:
        """All that a value depends on: epochs and samples make no difference."""
        size = {"channels": proxy.channels, "resolution": proxy.resolution, "cells": self.space.canonical(proxy).cells}
        space, arch = self.space.part(arch)  # one measurement of a network, however it is trained
        return json.dumps({**self.key, "space": space.name, "arch": space.text(arch), **size}, sort_keys=True)

    def about(self) -> list[JSON]:
        """The origin of each metric, for the results folder."""
        where = {"device": self.meter.device_name, "how": "measured", "source": str(self.store.path.name)}
        return [{"metric": name, "unit": self.units[metric], **where} for name, metric in self.metrics.items()]


class Store:
    """An append-only file of measurements, one JSON line each, on disk before anyone hears of it.

    Several processes may share it: whoever measures a network first writes it down, the others read that. A torn last
    line, left by a kill, is cut off with a warning.

    Raises:
        BadInput: The file cannot be written, or is damaged elsewhere than at its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, JSON] = {}
        self.idle_w: dict[str, float] = {}
        """Device -> its idle power, as first measured [W]."""
        self.seen = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a+b")
        except OSError as error:
            raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
        with self.locked():
            self.read()

    def get(self, key: str) -> JSON | None:
        """The stored row of a network; the file may hold more by now."""
        return self.rows.get(key)

    def put(self, key: str, measure: Callable[[], JSON]) -> JSON:
        """Measure a network, unless another process has by now."""
        with self.locked():
            self.read()
            if key not in self.rows:
                row = measure()
                line = json.dumps({"key": json.loads(key), **row}, allow_nan=False).encode() + b"\n"
                try:
                    self.file.write(line)
                    self.file.flush()
                    os.fsync(self.file.fileno())
                except OSError as error:
                    raise BadInput(f"{self.path}: {error.strerror}; make room and run the same command again") from None
                self.read()
        return self.rows[key]

    def read(self) -> None:
        """Take in what was appended since."""
        self.file.seek(self.seen)
        for line in self.file:
            if not line.endswith(b"\n"):
                warnings.warn(f"{self.path}: the last line was torn by a kill; dropped", stacklevel=4)
                self.file.truncate(self.seen)
                break
            try:
                row = json.loads(line)
                key = row.pop("key")
                self.rows.setdefault(json.dumps(key, sort_keys=True), row)
                if row.get("idle_w") is not None:
                    self.idle_w.setdefault(key["device"], row["idle_w"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                number = len(self.rows) + 1
                raise BadInput(
                    f"{self.path}:{number}: not a line of measurements: {error}; repair or move it"
                ) from None
            self.seen += len(line)

    def locked(self) -> Lock:
        """A lock that keeps other processes from the file."""
        return Lock(self.file.fileno())


class Lock:
    """A lock of an open file against other processes."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __enter__(self) -> None:
        fcntl.flock(self.handle, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self.handle, fcntl.LOCK_UN)


@dataclass(frozen=True)
class Calibration:
    """Resources of random architectures, measured once before the search and then frozen."""

    values: Mapping[str, tuple[float, ...]]
    """Metric -> one value an architecture; inf: cannot be run."""

    def finite(self, metric: str) -> np.ndarray:
        """The values of those that can be run.

        Raises:
            BadInput: No such metric, or none can be run.
        """
        if metric not in self.values:
            raise BadInput(f"calibration: no metric {metric!r}: {nearest(metric, self.values)}")
        every = np.array(self.values[metric])
        held: np.ndarray = every[np.isfinite(every)]
        if not len(held):
            raise BadInput(f"calibration: {metric} is infinite for all {len(self.values[metric])} random architectures")
        return held

    def normaliser(self, metric: str) -> Normaliser:
        """From the least to the largest value."""
        held = self.finite(metric)
        return Normaliser(float(held.min()), float(held.max()))

    def percentile(self, metric: str, share: float) -> float:
        """The value that `share` percent of the architectures that can be run do not exceed."""
        return float(np.percentile(self.finite(metric), share))


@dataclass
class Resources:
    """Metrics of networks that need no training, from one or several sources.

    Args:
        space: Whose networks.
        sources: Of the metrics.
        file: Where calibrations are kept; None: nowhere.

    Raises:
        BadInput: Two sources give a metric of one name.
    """

    space: SearchSpace
    sources: Sequence[Source]
    file: Path | None = None
    costs: list[Cost] = field(default_factory=list)
    """Costs of measuring: one for each network that was asked for here, in the order of asking."""
    charged: set[tuple[int, Architecture, Proxy]] = field(default_factory=set)
    noisy: dict[str, int] = field(default_factory=dict)
    """Metric -> how many networks' values are noisy."""

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise BadInput(f"resources: two give {name}; give one of them a label")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all metrics, source by source."""
        return tuple(name for source in self.sources for name in source.names)

    def view(self) -> Resources:
        """The same for another search: the values are shared, each search pays for all that it asked for."""
        return Resources(self.space, self.sources, self.file)

    def of(self, arch: Architecture, proxy: Proxy) -> dict[str, float]:
        """All metrics of the network; infinite where it cannot be run.

        Raises:
            BadInput: The architecture is none of the space.
            Unsupported: The space has no such network.
        """
        return self.read(arch, proxy).metrics

    def read(self, arch: Architecture, proxy: Proxy) -> Reading:
        """All metrics, why some are infinite, and which are noisy."""
        self.space.check(arch)
        readings = [source.of(arch, proxy) for source in self.sources]
        for number, reading in enumerate(readings):
            self.charge(number, arch, proxy, reading)
        return Reading(
            {name: value for reading in readings for name, value in reading.metrics.items()},
            "; ".join(reading.reason for reading in readings if reading.reason),
            noisy=tuple(name for reading in readings for name in reading.noisy),
        )

    def recall(self, arch: Architecture, proxy: Proxy) -> None:
        """Note that the network was asked for earlier, by a search that is now replayed: nothing is measured."""
        for number, source in enumerate(self.sources):
            known = source.known(arch, proxy)
            if known is not None:
                self.charge(number, arch, proxy, known)

    def measures(self, arch: Architecture, proxy: Proxy) -> bool:
        """Whether reading the metrics of a network would measure it now."""
        return any(source.measures(arch, proxy) for source in self.sources)

    def charge(self, number: int, arch: Architecture, proxy: Proxy, reading: Reading) -> None:
        """The price of a measurement, once a network."""
        if reading.cost is None:
            return
        network = number, arch, replace(self.space.canonical(proxy), epochs=1, samples=1.0)
        if network in self.charged:
            return
        self.charged.add(network)
        self.costs.append(reading.cost)
        for name in reading.noisy:
            self.noisy[name] = self.noisy.get(name, 0) + 1

    def again(self, arch: Architecture, proxy: Proxy) -> dict[str, tuple[float, float]]:
        """Measured metrics of a network anew, for the last word on a winner: metric -> (value, standard deviation)."""
        return {name: pair for source in self.sources for name, pair in source.again(arch, proxy).items()}

    def calibrate(self, proxy: Proxy, *, samples: int = CALIBRATION_SAMPLES, seed: int = 0) -> Calibration:
        """All metrics of random architectures, the same for every search of a run.

        Args:
            proxy: Of their networks.
            samples: How many, drawn with replacement.
            seed: Which; apart from the searches' own chance.

        Raises:
            BadInput: The file of calibrations is damaged.
        """
        rng = np.random.default_rng([seed, samples])
        archs = [self.space.sample(rng) for _ in range(samples)]
        found = [self.of(arch, proxy) for arch in archs]  # what is frozen below costs the same whoever asks
        values = {name: tuple(row[name] for row in found) for name in self.names}
        if self.file is None:
            return Calibration(values)
        key = json.dumps([self.about(), str(proxy), samples, seed], sort_keys=True)
        kept = self.kept()
        if key not in kept:
            entry = {
                "about": self.about(), "proxy": str(proxy), "samples": samples, "seed": seed,
                "architectures": [self.space.text(arch) for arch in archs],
                "values": {name: [value if math.isfinite(value) else "inf" for value in row]
                           for name, row in values.items()},
            }  # fmt: skip
            kept[key] = entry
            write_whole(self.file, [json.dumps(list(kept.values()), indent=1).encode() + b"\n"])
        return Calibration({name: tuple(map(float, row)) for name, row in kept[key]["values"].items()})

    def kept(self) -> dict[str, JSON]:
        """The calibrations in the file."""
        assert self.file is not None
        if not self.file.exists():
            return {}
        try:
            entries = json.loads(self.file.read_text(encoding="utf-8"))
            return {
                json.dumps([e[k] for k in ("about", "proxy", "samples", "seed")], sort_keys=True): e for e in entries
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{self.file}: not a file of calibrations: {error}; repair or move it") from None

    def about(self) -> list[JSON]:
        """One entry a metric: name, unit, device, how, source."""
        return [entry for source in self.sources for entry in source.about()]


def borderline(again: float, limit: float, deviation: float) -> bool:
    """Whether a winner that was feasible breaks its limit, measured again, by more than the noise.

    >>> borderline(10.3, 10.0, 0.1), borderline(10.1, 10.0, 0.1)
    (True, False)
    """
    return again > limit + 2 * (0.0 if math.isnan(deviation) else deviation)


def open_source(
    part: Mapping[str, Any], space: SearchSpace, dataset: str,
    *, base: Path | None = None, store: Path | None = None, ends: Ends = CIFAR10_ENDS,
) -> Source:  # fmt: skip
    """A source as a spec's `[[resources]]` describes it.

    Args:
        part: `kind` of `KINDS`, and for "formula": `metrics`; for "table": `table`, `device`, and if need be `file`,
            `dataset`, `metrics`, `label`; for "measured": `metrics`, and if need be `device`, `cpu_threads`, `label`
            and the numbers of `suite.resources.measured.Setting`.
        space: Whose networks.
        dataset: Of the run; a table may be asked for another one.
        base: A folder that paths may be relative to, besides the current one.
        store: The file of measurements; needed for "measured".
        ends: Of the run's networks.

    Raises:
        BadInput: A key or value is wrong.
        Unsupported: Space, table or device cannot give a metric.
    """
    given = {key: value for key, value in part.items() if value is not None}
    kind = given.pop("kind", None)
    if kind not in KINDS:
        raise BadInput(f"resources: kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "formula":
        only(given, ("metrics",), kind)
        return Formulas(space, given.get("metrics", tuple(FORMULAS)), ends=ends)
    if kind == "table":
        only(given, ("table", "device", "file", "dataset", "metrics", "label"), kind)
        for needed in ("table", "device"):
            if needed not in given:
                raise BadInput(f"resources: a table needs {needed}")
        table = open_resources(given["table"], given.get("file"), base)
        return LookedUp(
            table, given.get("dataset", dataset), given["device"], given.get("metrics"),
            label=given.get("label", ""), space=space,
        )  # fmt: skip
    from suite.resources.measured import Meter, Setting

    numbers = tuple(Setting.__dataclass_fields__)
    only(given, ("metrics", "device", "cpu_threads", "label", *numbers), kind)
    if store is None:
        raise BadInput("resources: measured values need a file to be kept in")
    meter = Meter(
        tuple(given.get("metrics", ("latency_ms",))), device=given.get("device", "auto"),
        cpu_threads=given.get("cpu_threads", 1),
        protocol=Setting(**{name: value for name, value in given.items() if name in numbers}),
    )  # fmt: skip
    return Measured(space, meter, Store(store), ends=ends, label=given.get("label", ""))


def only(given: Mapping[str, object], known: Sequence[str], kind: str) -> None:
    """Raises BadInput if a key is none of `known`."""
    for key in given:
        if key not in known:
            raise BadInput(f"resources: {kind} has no {key!r}: {nearest(key, known)}")


def check_names(kind: str, names: Sequence[str], known: Mapping[str, object]) -> None:
    """Raises BadInput if a metric is none of `known`."""
    for name in names:
        if name not in known:
            raise BadInput(f"resources: {kind} gives no {name!r}: {nearest(name, known)}")
