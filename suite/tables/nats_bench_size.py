"""The NATS-Bench size space after 90 epochs: 32,768 networks, test accuracy only.

Dong, Liu, Musial, Gabrys. TPAMI 2021. https://arxiv.org/abs/2009.00437 (records: MIT), as nats_sss.parquet copies
them from MONET (no licence of its own).

What a row means: test accuracy at the end of the 90-epoch schedule, seed -1 (the source does not say how many
runs). There is no validation split, so no search can be shown this table; it judges, and studies compare with it.
No seconds are known.

Checked against: the published optima 93.65 / 71.34 / 47.40.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from suite.spaces import SPACES
from suite.tables.base import MEAN, read_parquet, sha256_of
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

SPACE = SPACES["nats_bench_size"]
DATASETS = {"cifar10": ("c10", 32), "cifar100": ("c100", 32), "imagenet16-120": ("in16", 16)}
"""Data set -> prefix of its columns, side of its images."""


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All rows in the long schema."""
    import pandas as pd

    if source is None:
        raise BadInput("nats_bench_size: give its file, nats_sss.parquet")
    wanted = [f"{prefix}_{what}" for prefix, _ in DATASETS.values() for what in ("params", "test_90")]
    held = read_parquet(source, ["arch_str", *wanted])
    if len(held) != SPACE.size:
        raise BadInput(f"{source}: {len(held):,} rows instead of {SPACE.size:,} networks")
    where = f"{source.name} sha256:{sha256_of(source)}"
    full = SPACE.full
    parts = [
        pd.DataFrame(
            {
                "architecture": held["arch_str"],
                "epochs": full.epochs,
                "channels": full.channels,
                "resolution": side,
                "stage": full.epochs,
                "dataset": dataset,
                "split": "test",
                "seed": MEAN,
                "error": 100 - held[f"{prefix}_test_90"].to_numpy(np.float64),
                "params": held[f"{prefix}_params"].to_numpy(np.float64),
                "source": where,
            }
        )
        for dataset, (prefix, side) in DATASETS.items()
    ]
    return pd.concat(parts, ignore_index=True), {"source": where, "licence": "MIT (NATS-Bench)"}
