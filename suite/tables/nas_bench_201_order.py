"""The benchmark's own numbering of NAS-Bench-201's cells, which is shuffled: files that name a cell by it alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from suite.tables import nas_bench_201_facts as nb201
from suite.tables.base import Array, read_parquet
from suite.types import BadInput

BESIDE = "nb201.parquet"
"""Has the cell string of every number."""


def columns_in_order(source: Path, wanted: list[str]) -> dict[str, Array]:
    """Columns of a Parquet file with one row an `arch_index`, in the order of the space's `index`.

    Raises:
        BadInput: nb201.parquet is not beside the file, or the file has not one row for each cell.
    """
    beside = source.with_name(BESIDE)
    if not beside.exists():
        raise BadInput(f"{source}: its cells are named in {BESIDE}, which is not beside it; put it there")
    held = read_parquet(source, ["arch_index", *wanted])
    names = read_parquet(beside, ["arch_index", "arch_str"]).set_index("arch_index")["arch_str"]
    numbers = held["arch_index"].to_numpy()
    if len(held) != nb201.SPACE.size or not held["arch_index"].is_unique or not np.isin(numbers, names.index).all():
        raise BadInput(f"{source}: {len(held):,} rows instead of {nb201.SPACE.size:,} different cells")
    places = [nb201.SPACE.index(nb201.SPACE.parse(text)) for text in names.loc[numbers]]
    order = np.argsort(places)
    return {name: held[name].to_numpy(np.float64, na_value=np.nan)[order] for name in wanted}
