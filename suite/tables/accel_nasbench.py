"""Accel-NASBench: 5,138 networks of the MnasNet space on ImageNet-1k, one short training each.

Ahmad et al. DAC 2024. https://arxiv.org/abs/2404.08005

What a row means: top-1 error on ImageNet's validation images after one run of the authors' reduced recipe (16 epochs,
160 to 192 pixels, batches of 512). Where the file has a network again it is another run, with the next seed. There is
no other split. The last resolution stands in the proxy. Seconds are wall time on four RTX 3090; a few are implausibly
long.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from suite.spaces import SPACES
from suite.tables.base import read_parquet, sha256_of
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

SPACE = SPACES["accel_nasbench"]
BLOCKS = 7
NETWORKS = 5_138
DEVICE = "table:four RTX 3090"


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All rows in the long schema."""
    import pandas as pd

    if source is None:
        raise BadInput("accel_nasbench: give its file, accel_nasbench.parquet")
    parts = [f"block{block}_{what}" for block in range(BLOCKS) for what in ("e", "k", "l", "se")]
    held = read_parquet(source, [*parts, "val_top1", "train_time_s", "mmacs", "mparams"])
    if len(held) != NETWORKS:
        raise BadInput(f"{source}: {len(held):,} rows instead of {NETWORKS:,} networks")
    where = f"{source.name} sha256:{sha256_of(source)}"
    numbers = held[parts].to_numpy(int).reshape(len(held), BLOCKS, 4)
    rows = pd.DataFrame(
        {
            "architecture": [
                " ".join(f"e{e}k{k}l{layers}s{se}" for e, k, layers, se in network) for network in numbers
            ],
            **vars(SPACE.full),
            "stage": SPACE.full.epochs,
            "dataset": "imagenet-1k",
            "split": "valid",
            "error": 100 - held["val_top1"].to_numpy(np.float64),
            "params": held["mparams"].to_numpy(np.float64) * 1e6,
            "macs": held["mmacs"].to_numpy(np.float64) * 1e6,
            "device_s": held["train_time_s"].to_numpy(np.float64),
            "device": DEVICE,
            "source": where,
        }
    )
    rows["seed"] = rows.groupby("architecture").cumcount()  # networks that were trained again
    return rows, {"source": where, "licence": "Apache-2.0"}
