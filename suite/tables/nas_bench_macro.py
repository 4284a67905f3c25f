"""NAS-Bench-Macro: 6,561 networks on CIFAR-10, three runs each.

Su et al. CVPR 2021. https://arxiv.org/abs/2103.11922, data from https://github.com/xiusu/NAS-Bench-Macro
(Apache-2.0).

What a row means: accuracy after 50 epochs, one row a run, seeds 0, 1, 2. The benchmark has one split, CIFAR-10's
test set, and calls its accuracy "test". As nothing else could be searched on, it stands here as `valid`: a search
sees one run and is judged by the mean of the others (`judge` says "validation, other seeds"), never both on the
same run. Its "flops" are multiply-adds (the smallest network's follow from its layers). No seconds are known. 3,969
networks are different; the others repeat their results.

Checked against: the published optimum of the mean, 93.13.
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

SPACE = SPACES["nas_bench_macro"]
RUNS = 3


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All rows in the long schema."""
    import pandas as pd

    if source is None:
        raise BadInput("nas_bench_macro: give its file, nas_bench_macro.parquet")
    held = read_parquet(source, ["arch_str", "params", "flops", *(f"test_acc_{run}" for run in range(RUNS))])
    if len(held) != SPACE.size:
        raise BadInput(f"{source}: {len(held):,} rows instead of {SPACE.size:,} networks")
    where = f"{source.name} sha256:{sha256_of(source)}"
    parts = [
        pd.DataFrame(
            {
                "architecture": held["arch_str"],
                **vars(SPACE.full),
                "stage": SPACE.full.epochs,
                "dataset": "cifar10",
                "split": "valid",
                "seed": run,
                "error": 100 - held[f"test_acc_{run}"].to_numpy(np.float64),
                "params": held["params"].to_numpy(np.float64),
                "macs": held["flops"].to_numpy(np.float64),
                "source": where,
            }
        )
        for run in range(RUNS)
    ]
    return pd.concat(parts, ignore_index=True), {"source": where, "licence": "Apache-2.0"}
