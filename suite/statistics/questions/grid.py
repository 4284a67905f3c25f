"""A study read back from its `scores.csv` and `consistency.csv`: arrays that line up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suite.statistics.questions.taus import Floats
from suite.types import BadInput, Proxy

if TYPE_CHECKING:
    import pandas as pd

FULL = "full"
"""The name of the full setting in `scores.csv`."""


@dataclass(frozen=True)
class Grid:
    """Proxies and full training on the same networks of one space and data set."""

    space: str
    dataset: str
    architectures: tuple[str, ...]
    errors: Mapping[str, Floats]
    """Proxy -> validation errors, shape (n,) [%]; inf for a failed training."""
    truth: Floats
    """The judge's errors after full training, shape (n,) [%]."""
    judged: Floats
    """The same run by run, shape (n, seeds)."""
    device_s: Mapping[str, float]
    """Mean seconds a network, of each proxy and of "full"; nan: not known."""
    settings: Mapping[str, Proxy] = field(default_factory=dict)
    """Settings of the proxies that are trainings; a score of an untrained network has none."""


def read(folder: Path, **which: Any) -> Grid:
    """`from_frames` on a folder's files.

    Raises:
        BadInput: A file is missing, or as `from_frames`.
    """
    import pandas as pd

    frames = []
    for name in ("scores.csv", "consistency.csv"):
        if not (folder / name).exists():
            raise BadInput(f"{folder}: no {name}; a study's folder has it")
        frames.append(pd.read_csv(folder / name))
    return from_frames(*frames, **which)


def from_frames(
    scores: pd.DataFrame, consistency: pd.DataFrame | None = None, *, space: str | None = None,
    dataset: str | None = None, judge_seed: int | None = None, proxy_seed: int | None = None,
) -> Grid:  # fmt: skip
    """One space and data set of a study.

    Args:
        scores: Columns of `scores.csv`.
        consistency: Columns of `consistency.csv`: what the proxies' names mean.
        space, dataset: Which, where there are several.
        judge_seed: Whose answer is the truth; None: the mean over the seeds of full training, as for a live study.
            For a table study the seed it began with, so that the proxy's own run is not among the judges.
        proxy_seed: Which run of the proxies, where there are several.

    Raises:
        BadInput: A column is missing; a space, data set or seed is not there or not unique; a network lacks an answer;
            no full training.

    >>> import pandas as pd
    >>> rows = [("s", "d", a, p, 0, e, e + 1) for p in ("e1", "full") for a, e in zip("xyz", (3.0, 1.0, 2.0))]
    >>> names = ["space", "dataset", "architecture", "proxy", "seed", "val_error", "test_error"]
    >>> grid = from_frames(pd.DataFrame(rows, columns=names))
    >>> grid.architectures, grid.errors["e1"], grid.truth
    (('x', 'y', 'z'), array([3., 1., 2.]), array([4., 2., 3.]))
    """
    needed = ["space", "dataset", "architecture", "proxy", "seed", "val_error", "test_error"]
    if missing := [name for name in needed if name not in scores]:
        raise BadInput(f"scores: no column {', '.join(missing)}; scores.csv has {', '.join(needed)} and more")
    rows = scores
    for name, wanted in (("space", space), ("dataset", dataset)):
        there = [str(value) for value in rows[name].unique()]
        if wanted is None and len(there) != 1:
            raise BadInput(f"scores: there are {len(there)} of {name}, choose one of {', '.join(there)}")
        if wanted is not None and wanted not in there:
            raise BadInput(f"scores: no {name} {wanted!r}; there are {', '.join(there)}")
        rows = rows[rows[name].astype(str) == (wanted or there[0])]
    full = rows[rows["proxy"] == FULL]
    if full.empty:
        raise BadInput("scores: no rows with proxy 'full', so there is no truth to compare with")
    judged = _wide(full, "seed", "test_error")
    if judge_seed is not None and judge_seed not in judged:
        raise BadInput(f"scores: full training has no seed {judge_seed}; there are {_list(judged)}")
    archs = list(judged.index)
    errors: dict[str, Floats] = {}
    for key, part in rows[rows["proxy"] != FULL].groupby("proxy", sort=False):
        name = str(key)
        wide = _wide(part, "seed", "val_error")
        if proxy_seed is None and wide.shape[1] > 1:
            raise BadInput(f"scores: proxy {name} was run with seeds {_list(wide)}; choose proxy_seed")
        seed = wide.columns[0] if proxy_seed is None else proxy_seed
        if seed not in wide:
            raise BadInput(f"scores: proxy {name} has no seed {seed}; there are {_list(wide)}")
        if lacking := sorted(set(archs) ^ set(wide.index)):
            raise BadInput(f"scores: {lacking[0]} ({len(lacking)} such) lacks an answer under {name} or in full")
        errors[name] = wide[seed].loc[archs].to_numpy(float)
    truth = judged.mean(axis=1) if judge_seed is None else judged[judge_seed]
    here = (str(rows["space"].iloc[0]), str(rows["dataset"].iloc[0]))
    seconds = dict.fromkeys((*errors, FULL), math.nan)
    if "device_s" in rows:
        paid = rows[rows["device_s"] != 0]
        seconds |= {str(name): float(value) for name, value in paid.groupby("proxy")["device_s"].mean().items()}
    return Grid(*here, tuple(map(str, archs)), errors, truth.to_numpy(float), judged.to_numpy(float), seconds,
                {} if consistency is None else settings(consistency))  # fmt: skip


def settings(consistency: pd.DataFrame) -> dict[str, Proxy]:
    """The settings that the proxies' names stand for; names without epochs (scores of untrained networks) are left out.

    So are those of another task than the board's: its factors are compared within one task.

    >>> import pandas as pd
    >>> settings(pd.DataFrame({"proxy": ["a"], "epochs": [9], "channels": [4], "resolution": [8], "samples": [0.5]}))
    {'a': Proxy(epochs=9, channels=4, resolution=8, samples=0.5, cells=None)}
    """
    found = {}
    for row in consistency.drop_duplicates("proxy").to_dict("records"):
        if isinstance(row.get("task"), str) and row["task"]:
            continue
        numbers = [float(row.get(name, math.nan)) for name in ("epochs", "channels", "resolution", "samples")]
        if any(map(math.isnan, numbers)) or numbers[0] < 1:
            continue
        cells = row.get("cells")
        depth = None if cells is None or math.isnan(float(cells)) else int(cells)
        epochs, channels, resolution = (int(number) for number in numbers[:3])
        found[str(row["proxy"])] = Proxy(epochs, channels, resolution, numbers[3], depth)
    return found


def _wide(rows: pd.DataFrame, across: str, value: str) -> pd.DataFrame:
    """(architectures, seeds); every cell filled."""
    if rows.duplicated(["architecture", across]).any():
        raise BadInput(f"scores: a network has two answers under {rows['proxy'].iloc[0]} with one seed")
    order = rows["architecture"].drop_duplicates()
    wide = rows.pivot(index="architecture", columns=across, values=value).loc[order]
    holes = np.flatnonzero(wide.isna().to_numpy().any(axis=1))
    if len(holes):
        raise BadInput(f"scores: {wide.index[holes[0]]} ({len(holes)} such) has no {value} under "
                       f"{rows['proxy'].iloc[0]}; a failed training is inf")  # fmt: skip
    return wide


def _list(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame.columns))
