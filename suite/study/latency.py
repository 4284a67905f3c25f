"""The study of latency and energy predictors: relative error and rank agreement on each device.

On a device that was never measured before, few samples suffice if others were: what the other devices' predictors say
are the columns, in logarithms, of a ridge regression. The setting is HELP's: Lee, Lee, Chong, Hwang. "HELP:
Hardware-Adaptive Efficient Latency Prediction for NAS via Meta-Learning". NeurIPS 2021. https://arxiv.org/abs/2106.08630
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import surrogates
from suite.records.folder import Row
from suite.spaces import SearchSpace
from suite.spec.predictors import DevicesPart, PredictorPart, PredictorsSpec, TransferPart
from suite.statistics.measures import kendall_tau, spearman
from suite.study.predictors import label_of, means
from suite.tables import open_resources
from suite.types import BadInput, Unsupported, nearest
from surrogates.encoding import Encoder, Floats

LATENCY = ("device", "predictor", "n", "split", "relative_error", "tau", "spearman")
"""Columns of latency.csv."""
MEASURED = ("relative_error", "tau", "spearman")
KEY = ("device", "predictor", "n")
SUMMARY = (*KEY, "splits", *(f"{name}{end}" for name in MEASURED for end in ("", "_low", "_high")))
"""Columns of latency_summary.csv: means over splits with their 95 % t intervals."""
TESTED = 5_000
"""Networks, at most, that a split predicts."""
MIXED = "transfer"
"""The predictor that learns from other devices."""


@dataclass(frozen=True)
class Device:
    """What all networks of a space take on one device."""

    name: str
    table: str
    space: SearchSpace
    values: Floats
    """Of each network by `index` [ms or mJ]; nan where the device cannot run it."""
    fingerprint: str


def known(part: DevicesPart, base: Path) -> Iterator[Device]:
    """The devices of a part of the spec.

    Raises:
        BadInput, Unsupported: The table is missing, or has no such device, data set or metric.
    """
    table = open_resources(part.table, part.file, base)
    there = {
        setting.device: held[part.metric]
        for setting, held in table.columns.items()
        if setting.dataset == part.dataset and part.metric in held
    }
    if not there:
        raise Unsupported(f"table {table.name} has no {part.metric} of {part.dataset}")
    for device in part.devices or there:
        if device not in there:
            raise Unsupported(f"table {table.name} has no {part.metric} of {device!r}: {nearest(device, there)}")
        yield Device(device, table.name, table.space, np.asarray(there[device], dtype=np.float64), table.fingerprint)


class Study:
    """All devices of a spec; a block is one device and split.

    Raises:
        BadInput: A predictor is wrong, a device is there twice, or `transfer` names one that is not there.
    """

    def __init__(self, spec: PredictorsSpec, devices: Sequence[Device]) -> None:
        self.spec = spec
        self.devices = {device.name: device for device in devices}
        if len(self.devices) < len(devices):
            raise BadInput("devices: one is there twice; name each once")
        spaces = {device.space.name for device in devices}
        if len(spaces) > 1:
            raise BadInput(f"devices: of several spaces, {', '.join(sorted(spaces))}; study one at a time")
        for name in [*spec.transfer.sources, *spec.transfer.targets] if spec.transfer else []:
            if name not in self.devices:
                raise BadInput(f"transfer: no device {name!r}: {nearest(name, self.devices)}")
        self.space = devices[0].space
        self.archs = [self.space.at(index) for index in range(self.space.size)]
        self.encoders: dict[str, Encoder] = {}
        for part in spec.predictors:
            surrogates.make(part.name, **part.options)
            self.encoder(part)

    @property
    def steps(self) -> int:
        """Blocks."""
        return self.spec.splits * (len(self.devices) + (len(self.spec.transfer.targets) if self.spec.transfer else 0))

    def encoder(self, part: PredictorPart) -> Encoder:
        """The encoder of a predictor: networks as they are written, since dead operations take time, too."""
        encoding = part.encoding or surrogates.load_class(part.name).encoding
        return self.encoders.setdefault(encoding, Encoder(self.space, encoding, simplified=False))

    def rows_of(self, part: PredictorPart, index: Sequence[int]) -> Floats:
        """Encoded networks."""
        return self.encoder(part)([self.archs[i] for i in index])

    def blocks(self) -> Iterator[list[Row]]:
        """The rows of each device and split, then of each new device and split."""
        for device in self.devices.values():
            for k in range(self.spec.splits):
                yield list(self.alone(device, k))
        if self.spec.transfer is not None:
            for k in range(self.spec.splits):
                yield from self.moved(self.spec.transfer, k)

    def order(self, device: Device, k: int) -> Sequence[int]:
        """The networks that a device can run, in the order of a split."""
        can = np.flatnonzero(np.isfinite(device.values))
        drawn: list[int] = np.random.default_rng(self.spec.seed0 + k).permutation(can).tolist()
        return drawn

    def alone(self, device: Device, k: int) -> Iterator[Row]:
        """All predictors and sizes on one device."""
        order = self.order(device, k)
        held = order[max(self.spec.sizes) :][:TESTED]
        for part in self.spec.predictors:
            x = self.rows_of(part, held)
            for n in self.spec.sizes:
                model = surrogates.make(part.name, columns=self.encoder(part).names, **{"seed": k, **part.options})
                mean = model.fit(self.rows_of(part, order[:n]), device.values[order[:n]]).mean(x)
                yield self.row(device, label_of(part), n, k, mean, held)

    def moved(self, transfer: TransferPart, k: int) -> Iterator[list[Row]]:
        """Each new device from few networks; the first predictor of the spec learns the devices measured before."""
        part = self.spec.predictors[0]
        names = self.encoder(part).names
        everything = self.rows_of(part, range(len(self.archs)))
        columns = []
        for name in transfer.sources:
            source = self.devices[name]
            learnt = self.order(source, k)[: transfer.measured]
            model = surrogates.make(part.name, columns=names, **{"seed": k, **part.options})
            columns.append(np.log(model.fit(everything[learnt], source.values[learnt]).mean(everything)))
        features = np.stack(columns, axis=1)  # (networks, sources)
        for name in transfer.targets:
            target = self.devices[name]
            order = self.order(target, k + self.spec.splits)  # other networks than those of the sources
            held, rows = order[max(transfer.samples) :][:TESTED], []
            for n in transfer.samples:
                few = order[:n]
                model = surrogates.make("ridge", target="log").fit(features[few], target.values[few])
                rows.append(self.row(target, MIXED, n, k, model.mean(features[held]), held))
            yield rows

    def row(self, device: Device, predictor: str, n: int, k: int, mean: Floats, held: Sequence[int]) -> Row:
        """What a predictor is worth on networks that it did not see."""
        truth = device.values[held]
        return {
            "device": device.name, "predictor": predictor, "n": n, "split": k,
            "relative_error": float((np.abs(mean - truth) / truth).mean()),
            "tau": kendall_tau(mean, truth), "spearman": spearman(mean, truth),
        }  # fmt: skip


def summary(rows: Sequence[Row]) -> list[Row]:
    """Means over splits with their 95 % t intervals."""
    return means(rows, KEY, MEASURED)
