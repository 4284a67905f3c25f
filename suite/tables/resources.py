"""Tables of what networks take on devices: latency and energy of inference that others measured.

A second kind of table, beside the answers: no errors, no seeds, no stages. A column has one number for every
architecture of its space; nan is an architecture that the device could not run. Each setting names data set (the
shape of images and classifier), device and batch size.

File: as a table of answers (suite/tables/base.py), with other magic bytes and another header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from suite.spaces.base import SearchSpace
from suite.tables.base import METER, Array, Payload, read_column, seal, space_of, unseal
from suite.types import JSON, Architecture, BadInput, Unsupported, nearest

METRICS = {"latency_ms": "ms for a batch", "energy_mj": "mJ"}
"""The metrics that a column may hold, with their units."""


@dataclass(frozen=True)
class DeviceSetting:
    """On what, and which size of network, a column was measured."""

    dataset: str
    device: str
    """The device's name as its publisher writes it."""
    batch_size: int
    """Images of one forward pass; 0: the publisher does not say."""
    channels: int
    """Width of the first stage."""
    resolution: int
    """Side of the images [pixels]."""

    def __str__(self) -> str:
        return f"{self.device}, {self.dataset}"


class ResourceTable:
    """Resources of all architectures of one space.

    Args:
        space: Whose architectures.
        columns: Setting -> metric of `METRICS` -> one number an architecture, in the order of `index`.
        about: Where it comes from: table, source, licence ...

    Raises:
        BadInput: A column has a wrong name or length, or a number that is not above 0 (nan: cannot be run).
    """

    def __init__(
        self,
        space: SearchSpace,
        columns: Mapping[DeviceSetting, Mapping[str, Array]],
        about: Mapping[str, str] | None = None,
    ) -> None:
        for setting, held in columns.items():
            for metric, column in held.items():
                if metric not in METRICS:
                    raise BadInput(f"resources: no metric {metric!r}: {nearest(metric, METRICS)}")
                if column.shape != (space.size,):
                    raise BadInput(f"resources: {metric} of {setting} has {len(column):,} of {space.size:,} numbers")
                wrong = ~(np.isnan(column) | ((column > 0) & np.isfinite(column)))
                if wrong.any():
                    i = int(np.argmax(wrong))
                    raise BadInput(
                        f"resources: {metric} of {space.text(space.at(i))} on {setting} must be above 0, or nan where "
                        f"the device cannot run it, not {column[i]}"
                    )
        self.space = space
        self.columns = {setting: dict(held) for setting, held in columns.items()}
        self.about: dict[str, str] = dict(about or {})
        self.fingerprint = ""
        """SHA-256 of the header, which holds that of the content; set by `save` and `open`."""

    def __len__(self) -> int:
        return self.space.size

    @property
    def name(self) -> str:
        """The source that it was converted from: name, files, hashes."""
        return self.about.get("table", "resources")

    def setting(self, device: str, dataset: str) -> DeviceSetting:
        """The setting of a device and a data set.

        Raises:
            Unsupported: There is none; those that there are are named.
        """
        devices = list(dict.fromkeys(held.device for held in self.columns))
        if device not in devices:
            raise Unsupported(f"table {self.name} has no device {device!r}: {nearest(device, devices)}")
        there = {held.dataset: held for held in self.columns if held.device == device}
        if dataset not in there:
            raise Unsupported(f"table {self.name} has no data set {dataset!r} of {device}: {nearest(dataset, there)}")
        return there[dataset]

    def value(self, arch: Architecture, setting: DeviceSetting, metric: str) -> float:
        """One number; nan if the device cannot run the network."""
        return float(self.columns[setting][metric][self.space.index(arch)])

    def info(self) -> JSON:
        """A summary of its content, ready for JSON."""
        return {
            "table": self.name,
            "space": self.space.name,
            "architectures": len(self),
            "complete": True,
            "settings": [
                {
                    "device": setting.device,
                    "dataset": setting.dataset,
                    "batch_size": setting.batch_size or "not stated",
                    "network": f"c{setting.channels} r{setting.resolution}",
                    "metrics": list(held),
                    "cannot_run": int(max(np.isnan(column).sum() for column in held.values())),
                }
                for setting, held in self.columns.items()
            ],
            "metrics": [
                f"{metric} [{METRICS[metric]}]" for metric in METRICS if any(metric in h for h in self.columns.values())
            ],
            "device": list(dict.fromkeys(setting.device for setting in self.columns)),
            "source": [self.about.get("source", "")],
            "licence": self.about.get("licence", ""),
            "fingerprint": self.fingerprint,
        }

    # The file

    def save(self, path: Path) -> ResourceTable:
        """Write the file and open it; whoever looks sees the old file or all of the new one."""
        payload = Payload()
        header = {
            "space": self.space.name,
            "about": self.about,
            "settings": [
                {
                    **asdict(setting),
                    "columns": {name: payload.add(column[:, None], None) for name, column in held.items()},
                }
                for setting, held in self.columns.items()
            ],
        }
        seal(path, METER, header, payload)
        return ResourceTable.open(path, self.space)

    @classmethod
    def open(cls, path: Path, space: SearchSpace | None = None, *, verify: bool = True) -> ResourceTable:
        """Map a file into memory.

        Args:
            path: What `save` wrote.
            space: Its space, where that is none of `SPACES`.
            verify: Compare the content's sums too, not only the sizes and the header's SHA-256.
        """
        header, payload, fingerprint = unseal(path, METER, verify=verify)
        space = space_of(header, space, path)
        columns = {}
        for entry in header["settings"]:
            stored = entry.pop("columns")
            columns[DeviceSetting(**entry)] = {
                name: read_column(payload, column, (space.size, 1))[:, 0] for name, column in stored.items()
            }
        table = cls(space, columns, header["about"])
        table.fingerprint = fingerprint
        return table
