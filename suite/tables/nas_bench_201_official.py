"""The official NAS-Bench-201 file, NAS-Bench-201-v1_1-096897.pth, through the package nas-bench-201.

Dong, Yang. ICLR 2020. https://github.com/D-X-Y/NAS-Bench-201 (MIT). The file (about 5 GB) is the authors'; it is not
shipped here.

The package would unpickle whatever the file holds. Here the file is loaded with `weights_only=True` and an
allow-list of numpy numbers and ordered dictionaries, and its dictionary handed to the package.

What a row means: one training run, seed 777, 888 or 999 as in the file, under the 12- or 200-epoch schedule.
`cifar10-valid` in the file (trained on half of the training set, scored on the other half) is split `valid` of
cifar10; `cifar10` there is split `test`. CIFAR-100 and ImageNet16-120 have `x-valid` and `x-test`. Stages before
the end are kept at the epochs in `STAGES` where the file has them. Seconds: training to the stage plus scoring the
split once, as the file says; nan without.

Reading is slow, once: torch's safe reader is written in Python, about 100,000 numbers a second (10,000 if they are
numpy's), and by its size the published file has some hundred million, all held in memory at once.

Checked against: the package's own answers on a small file of exactly this schema. The full file was not at hand.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.tables import nas_bench_201_facts as nb201
from suite.tables.base import sha256_of
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

STAGES = (1, 3, 6, 12, 25, 50, 100, 200)
HYPERPARAMETERS = {"12": 12, "200": 200}
"""Name of the schedule -> its epochs."""
SPLITS = {
    "cifar10-valid": (("cifar10", "valid", "x-valid"),),
    "cifar10": (("cifar10", "test", "ori-test"),),
    "cifar100": (("cifar100", "valid", "x-valid"), ("cifar100", "test", "x-test")),
    "ImageNet16-120": (("imagenet16-120", "valid", "x-valid"), ("imagenet16-120", "test", "x-test")),
}
"""The file's data set -> (ours, our split, the file's split)."""


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All runs in the long schema."""
    import pandas as pd
    from nas_201_api import NASBench201API

    if source is None:
        raise BadInput("nas_bench_201_official: give its file, NAS-Bench-201-v1_1-096897.pth")
    try:
        api = NASBench201API(load(source), verbose=False)
        where = f"{source.name} sha256:{sha256_of(source)}"
        rows = [row for index in api.evaluated_indexes for row in rows_of(api, index)]
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{source}: not a NAS-Bench-201 file: {one_line(error)}") from None
    if not rows:
        raise BadInput(f"{source}: no evaluated architecture")
    about = {"source": where, "licence": "MIT"}
    return pd.DataFrame(rows).assign(device=nb201.DEVICE, source=where), about


def load(source: Path) -> Any:
    """The file's dictionary; nothing in it is run.

    Raises:
        BadInput: It is missing, damaged, or asks for more than numbers and dictionaries.
    """
    import torch

    try:
        with torch.serialization.safe_globals(allowed()):
            held = torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{source}: cannot be read: {error.strerror or error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"{source}: refused, damaged or not plain data: {one_line(error)}") from None
    if not isinstance(held, dict):
        raise BadInput(f"{source}: not a NAS-Bench-201 file: it holds a {type(held).__name__}, not a dictionary")
    return held


def one_line(error: Exception) -> str:
    """The error's message without torch's advice to load the file unsafely."""
    lines = str(error).splitlines()
    return next((line.strip() for line in lines if "Unsupported" in line), lines[0] if lines else type(error).__name__)


def allowed() -> list[Any]:
    """The names that pickles of numpy numbers need; all of them only make numbers."""
    old, new = renamed_scalar("numpy.core.multiarray"), renamed_scalar("numpy._core.multiarray")
    kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")]
    return [old, new, np.dtype, *kinds, collections.OrderedDict]


def renamed_scalar(module: str) -> Callable[[Any, Any], Any]:
    """numpy's reader of a pickled number, under the module name that a pickle says."""

    def scalar(dtype: Any, raw: Any) -> Any:
        if dtype.hasobject:
            raise pickle.UnpicklingError(f"a number of type {dtype} is refused")
        return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype=dtype)[0]

    scalar.__module__ = module
    scalar.__qualname__ = scalar.__name__ = "scalar"
    return scalar


def rows_of(api: Any, index: int) -> list[dict[str, Any]]:
    """The table rows of one architecture."""
    rows = []
    for name, epochs in HYPERPARAMETERS.items():
        results = api.arch2infos_dict[index][name]  # its queries would copy all of it
        for theirs, splits in SPLITS.items():
            if theirs not in results.get_dataset_names():
                continue
            for seed, run in results.query(theirs).items():
                for dataset, split, scored in splits:
                    rows += [
                        row_of(api.arch(index), run, dataset, split, scored, epochs, stage, int(seed))
                        for stage in sorted({*STAGES, epochs})
                        if stage <= epochs and f"{scored}@{stage - 1}" in run.eval_acc1es
                    ]
    return rows


def row_of(
    text: str, run: Any, dataset: str, split: str, scored: str, epochs: int, stage: int, seed: int
) -> dict[str, Any]:
    """One table row of one run."""
    answer = run.get_eval(scored, stage - 1)
    train_s = run.get_train(stage - 1)["all_time"] if run.train_times is not None else None
    score_s = answer["cur_time"]
    latency_s = run.get_latency()
    macs = float(run.flop) * 1e6
    return {
        "architecture": text,
        **vars(nb201.DATASETS[dataset].proxy(epochs)),
        "stage": stage,
        "dataset": dataset,
        "split": split,
        "seed": seed,
        "error": 100 - float(answer["accuracy"]),
        "loss": float(answer["loss"]),
        "params": float(run.params) * 1e6,
        "macs": macs,
        "latency_ms": 1000 * float(latency_s) if latency_s > 0 else np.nan,
        "device_s": np.nan if train_s is None else float(train_s) + (0.0 if score_s is None else float(score_s)),
        "spent_macs": float(nb201.spent_macs(macs, dataset, split, stage)),
    }
