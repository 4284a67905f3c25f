"""HELP's latencies of NAS-Bench-201's networks on 23 more device settings.

Lee, Lee, Chong, Hwang. "HELP: Hardware-Adaptive Efficient Latency Prediction for NAS via Meta-Learning". NeurIPS 2021.
https://arxiv.org/abs/2106.08630 (MIT), as nb201_help_latency.parquet has them.

What a row means: one forward pass of the whole network (C = 16, N = 5) on 32-pixel images, in ms. The number after a
GPU's name is the batch size, and the time is of the whole batch; for the others it is not stated. The phones' times
(`pixel2`, `samsung_a50`, `samsung_s7`, `essential_ph_1`) are whole milliseconds, so many cells are tied there.

The data set is CIFAR-10: the publisher does not say, but the four devices that its repository shares with
HW-NAS-Bench (raspi4, pixel3, eyeriss, fpga; not in this file) equal HW-NAS-Bench's CIFAR-10 columns in all 15,625 cells
and its CIFAR-100 columns, where those differ, in at most 9. Its paper searches on CIFAR-100 with them, whose networks
differ in the classifier alone.

Cells are named by the benchmark's own index; their strings come from nb201.parquet, which must lie beside the file.

Checked against: cells whose latency stands in the publisher's table of searches (its file names have one decimal).
"""

from __future__ import annotations

from pathlib import Path

from suite.tables import nas_bench_201_facts as nb201
from suite.tables.base import Array, sha256_of
from suite.tables.nas_bench_201_order import columns_in_order
from suite.tables.resources import DeviceSetting
from suite.types import BadInput

GPUS = ("1080ti", "2080ti", "titan_rtx", "titanx", "titanxp")
BATCHES = (1, 32, 256)
OTHERS = (
    "essential_ph_1", "gold_6226", "gold_6240", "pixel2", "samsung_a50", "samsung_s7", "silver_4114", "silver_4210r",
)  # fmt: skip
DEVICES = {f"{gpu}_{batch}": batch for gpu in GPUS for batch in BATCHES} | dict.fromkeys(OTHERS, 0)
"""Name -> batch size, 0: not stated."""


def columns(source: Path | None) -> tuple[dict[DeviceSetting, dict[str, Array]], dict[str, str]]:
    """All columns in the order of `index`, and where they come from."""
    if source is None:
        raise BadInput("help_latency: give its file, nb201_help_latency.parquet")
    numbers = columns_in_order(source, [f"{device}_latency_ms" for device in DEVICES])
    full, side = nb201.SPACE.full, nb201.DATASETS["cifar10"].resolution
    settings = {
        DeviceSetting("cifar10", device, batch, full.channels, side): {"latency_ms": numbers[f"{device}_latency_ms"]}
        for device, batch in DEVICES.items()
    }
    return settings, {"source": f"{source.name} sha256:{sha256_of(source)}", "licence": "MIT (HELP)"}
