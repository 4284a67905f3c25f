"""Learning curves of NAS-Bench-201: 200 cells, every epoch of the 200-epoch training on half of CIFAR-10.

Dong, Yang. ICLR 2020. https://arxiv.org/abs/2001.00326 (records: MIT), as nb201_curves200.parquet has them from
SamuelMintal/Masters_Thesis (Apache-2.0). The cells are the benchmark's own first 200; its order is shuffled, so they
are in effect a random sample.

What a row means: `valid` is the accuracy on the other half of the training set after so many epochs of the one
200-epoch schedule, the mean over the benchmark's runs, seed -1. It is not a training of so many epochs: the learning
rate is still high. `test` is there at epoch 200 only, of the networks trained on the whole training set, so that the
table has a judge. Training accuracies are left out: the schema has no place for them.

Cell strings, seconds and the test accuracy come from nb201.parquet, which must lie beside the file. Seconds of a stage
are those of `nas_bench_201_parquet`: half an epoch of 50,000 images for each epoch, and one pass over the split.

Checked against: the curves end at nb201.parquet's `c10_valid_200`; files that disagree there are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from suite.tables import nas_bench_201_facts as nb201
from suite.tables.base import MEAN, read_parquet, sha256_of
from suite.tables.nas_bench_201_parquet import IMAGES, SCORING, SECONDS
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

BESIDE = "nb201.parquet"
EPOCHS = nb201.SPACE.full.epochs
SAME = 0.01
"""Accuracies that are two roundings of one number differ by less [percentage points]."""


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All rows in the long schema."""
    import pandas as pd

    if source is None:
        raise BadInput("nas_bench_201_curves: give its file, nb201_curves200.parquet")
    beside = source.with_name(BESIDE)
    if not beside.exists():
        raise BadInput(f"{source}: its cells are named in {BESIDE}, which is not beside it; put it there")
    curves = read_parquet(source, ["arch_index", "epoch", "c10_valid_acc"])
    facts = read_parquet(beside, ["arch_index", "arch_str", SECONDS, "c10_valid_200", "c10_test_200"])
    cells = facts.set_index("arch_index").reindex(curves["arch_index"].unique())
    if cells["arch_str"].isna().any():
        raise BadInput(f"{source}: cell {cells.index[cells['arch_str'].isna()][0]} is not in {BESIDE}")
    ends = curves[curves["epoch"] == EPOCHS].set_index("arch_index")["c10_valid_acc"].reindex(cells.index)
    apart = ~((ends - cells["c10_valid_200"]).abs() < SAME)
    if apart.any():
        cell = cells.index[apart][0]
        raise BadInput(f"{source}: cell {cell} ends at {ends[cell]}, not at {BESIDE}'s {cells['c10_valid_200'][cell]}")

    data = nb201.DATASETS["cifar10"]
    archs = [nb201.SPACE.parse(text) for text in cells["arch_str"]]
    sizes = {"params": nb201.SPACE.params, "macs": nb201.SPACE.macs}
    for name, formula in sizes.items():
        cells[name] = [float(formula(arch, data.proxy(EPOCHS), ends=data.ends)) for arch in archs]

    def rows(split: str, index: pd.Series, stage: pd.Series | int, accuracy: pd.Series, where: str) -> pd.DataFrame:
        """One row an accuracy, of the cell of that index after that stage."""
        of = cells.loc[index]
        train_s = of[SECONDS].to_numpy(np.float64)
        score_s = SCORING[0] * train_s + SCORING[1]
        macs, epochs = of["macs"].to_numpy(), np.asarray(stage)
        trained, scored = data.train_images[split], data.images[split]
        return pd.DataFrame(
            {
                "architecture": of["arch_str"].to_numpy(),
                **vars(data.proxy(EPOCHS)),
                "stage": epochs,
                "dataset": data.name,
                "split": split,
                "seed": MEAN,
                "error": 100 - accuracy.to_numpy(np.float64),
                "params": of["params"].to_numpy(),
                "macs": macs,
                "device_s": (train_s * epochs * trained + score_s * scored) / IMAGES,
                "spent_macs": macs * ((1.0 + nb201.BACKWARD) * epochs * trained + scored),
                "device": nb201.DEVICE,
                "source": where,
            }
        )

    mine, theirs = (f"{path.name} sha256:{sha256_of(path)}" for path in (source, beside))
    valid = rows("valid", curves["arch_index"], curves["epoch"], curves["c10_valid_acc"], mine)
    test = rows("test", cells.index.to_series(), EPOCHS, cells["c10_test_200"], theirs)
    about = {"source": f"{mine}, {theirs}", "licence": "MIT (NAS-Bench-201), Apache-2.0 (export of the curves)"}
    return pd.concat([valid, test], ignore_index=True), about
