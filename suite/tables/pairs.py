"""Published pairs of trainings, for studies only: spaces that are not searched here, and no table of their own.

accel_nasbench_proxy_pairs.parquet: Ahmad et al., "Accel-NASBench: Sustainable Benchmarking for Accelerator-Aware NAS",
DAC 2024, github.com/afzalxo/Accel-NASBench (Apache-2.0): 117 networks of the MnasNet space on ImageNet, each trained
three times under a reduced recipe (16 epochs, 160 to 192 pixels) and three times under a longer one.
nas_bench_nlp_wt2_curves.parquet: Klyuchnikov et al., "NAS-Bench-NLP", IEEE Access 2022,
github.com/fmsnew/nas-bench-nlp-release (Apache-2.0): losses of 345 runs of recurrent networks on WikiText-2 at each of
50 epochs; the four that stopped early with a NaN loss are left out, as in the figures below.

Checked against: tau of the means of the two recipes 0.926; validation loss after 1 / 3 / 5 / 10 / 20 / 25 / 40 epochs
against that after 50: 0.58 / 0.69 / 0.76 / 0.83 / 0.90 / 0.93 / 0.97.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from suite.tables import find_data
from suite.tables.base import read_parquet
from suite.types import BadInput, nearest

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Networks under some cheaper trainings, and in full."""

    space: str
    dataset: str
    unit: str
    """The unit of the errors."""
    device: str
    networks: tuple[str, ...]
    cheap: Mapping[str, Floats]
    """Name -> errors, (seeds, n), lower is better; inf: failed."""
    cheap_s: Mapping[str, Floats]
    """Name -> seconds, (seeds, n)."""
    full: Floats
    """Errors after full training, shape (seeds, n)."""
    full_s: Floats
    """Seconds of full training, shape (seeds, n)."""
    sizes: Mapping[str, Floats]
    """Parameters and multiply-adds by name, shape (n,)."""
    judge: str


def accel_nasbench(file: str | Path, base: Path | None = None) -> Pairs:
    """The two recipes of Accel-NASBench, error 100 - top-1 [%]."""
    path = find_data(file, base)
    held = read_parquet(path, ["model", "regime", "seed", "val_top1", "train_time_s", "mmacs", "mparams"])
    runs, seconds = {}, {}
    for regime, part in held.groupby("regime", observed=True):
        runs[str(regime)] = 100 - part.pivot(index="seed", columns="model", values="val_top1").to_numpy(float)
        seconds[str(regime)] = part.pivot(index="seed", columns="model", values="train_time_s").to_numpy(float)
    if set(runs) != {"proxified", "fewproxy"} or any(np.isnan(of_one).any() for of_one in runs.values()):
        raise BadInput(f"{path}: not the two recipes of the same networks: {', '.join(runs)}")
    sizes = held.drop_duplicates("model").sort_values("model")
    cheap, paid = runs["proxified"], seconds["proxified"]
    return Pairs(
        "accel_nasbench", "imagenet-1k", "%", "table:four RTX 3090", tuple(map(str, sizes["model"])),
        {"reduced recipe, one run": cheap, "reduced recipe, mean of 3 runs": cheap.mean(axis=0, keepdims=True)},
        {"reduced recipe, one run": paid, "reduced recipe, mean of 3 runs": paid.sum(axis=0, keepdims=True)},
        runs["fewproxy"], seconds["fewproxy"],
        {"params": 1e6 * sizes["mparams"].to_numpy(float), "macs": 1e6 * sizes["mmacs"].to_numpy(float)}, "validation",
    )  # fmt: skip


STAGES = (1, 3, 5, 10, 20, 25, 40)
LAST = 50


def nas_bench_nlp(file: str | Path, base: Path | None = None) -> Pairs:
    """Stages of NAS-Bench-NLP's trainings and the area under their training loss [nats]."""
    path = find_data(file, base)
    held = read_parquet(path, ["run", "epoch", "train_loss", "val_loss", "wall_time_s"])
    wide = {
        name: held.pivot(index="epoch", columns="run", values=name).to_numpy(float)  # (epochs, runs)
        for name in ("train_loss", "val_loss", "wall_time_s")
    }
    whole = ~np.isnan(wide["val_loss"]).any(axis=0)
    runs = held["run"].drop_duplicates().sort_values().to_numpy()
    cheap, paid = {}, {}
    seconds = np.cumsum(np.nan_to_num(wide["wall_time_s"]), axis=0)
    for stage in STAGES:
        known = {
            f"{stage} of {LAST} epochs": wide["val_loss"][stage - 1],
            f"TSE {stage} of {LAST} epochs": wide["train_loss"][:stage].sum(axis=0),
        }
        for name, values in known.items():
            cheap[name], paid[name] = values[whole][None], seconds[stage - 1][whole][None]
    full = wide["val_loss"][LAST - 1][whole][None]
    return Pairs(
        "nas_bench_nlp", "wikitext-2", "nats", "table:as published", tuple(f"run {run}" for run in runs[whole]), cheap,
        paid, full, seconds[LAST - 1][whole][None], {}, "validation",
    )  # fmt: skip


PAIRS: Mapping[str, tuple[str, Callable[..., Pairs]]] = {
    "accel_nasbench": ("accel_nasbench_proxy_pairs.parquet", accel_nasbench),
    "nas_bench_nlp": ("nas_bench_nlp_wt2_curves.parquet", nas_bench_nlp),
}
"""Name -> its file, its reader."""


def read(name: str, folder: Path) -> Pairs:
    """Published pairs by name, from a folder that holds their file.

    Raises:
        BadInput: No such name, or the file is missing or another.
    """
    if name not in PAIRS:
        raise BadInput(f"no pairs {name!r}: {nearest(name, PAIRS)}")
    file, reader = PAIRS[name]
    found = reader(folder / file)
    assert not math.isnan(float(found.full.sum()))
    return found
