"""Our own logs as tables: each line of trials.jsonl is an answer (format in docs/tables.md).

What a row means: `val_error` is split `valid`, `test_error` split `test`, the seed is the trial's. A log charges a
resumed training for its new epochs only; a table's seconds are those from the start, so the stages of one run are
added up. Of repeated trials the first is kept, and what judges say about validation (a mean of other runs) is left
out. Answers that inherited weights from other architectures are left out too: they depend on more than the trial.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.spaces import SearchSpace, named
from suite.tables.base import sha256_of
from suite.types import JSON, BadInput, Proxy

if TYPE_CHECKING:
    import pandas as pd

ERRORS = {"val_error": "valid", "test_error": "test"}
PER_ARCHITECTURE = ("params", "macs", "latency_ms", "energy_mj")
SPENT = {"device_s": "device_s", "energy_j": "energy_j", "macs": "spent_macs"}
"""Field of a log's cost -> column."""


def frame(source: Path | None) -> tuple[pd.DataFrame, dict[str, str]]:
    """All answers in the long schema; `about` names the space."""
    import pandas as pd

    if source is None:
        raise BadInput("log: give its file, trials.jsonl")
    where = f"{source.name} sha256:{sha256_of(source)}"
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    trained: dict[tuple[Any, ...], tuple[int, dict[str, float]]] = {}  # a run -> how far, and what that took
    space: SearchSpace | None = None
    for number, line in lines(source):
        try:
            space = space or named(line["space"])
            if line["space"] != space.name:
                raise BadInput(f"its space is {line['space']}, and the first line's is {space.name}")
            proxy = space.canonical(Proxy(**line["proxy"]))
            stage, seed = line["epochs"], line["seed"]
            run = (line["dataset"], line["arch"], proxy, seed)
            cost = {column: number_in(line["cost"][field]) for field, column in SPENT.items()}
            # judges are asked about runs of their own, so a search's stages and theirs are not one training
            training = (line["run"], line["phase"] == "judging", *run)
            reached, before = trained.get(training, (0, dict.fromkeys(cost, 0.0)))
            if stage > reached:
                cost = {column: before[column] + value for column, value in cost.items()}
            trained[training] = (stage, cost)
            if inherited(line):
                continue
            metrics = {name: number_in(value) for name, value in line["metrics"].items()}
            for metric, split in ERRORS.items():
                of_others = line["phase"] == "judging" and "test_error" not in metrics
                if metric not in metrics or of_others:
                    continue
                row = {
                    "architecture": line["arch"],
                    **vars(proxy),
                    "stage": stage,
                    "dataset": line["dataset"],
                    "split": split,
                    "seed": seed,
                    "error": metrics[metric],
                    **{name: metrics[name] for name in PER_ARCHITECTURE if name in metrics},
                    **cost,
                    "device": line["cost"]["device"],
                    "source": where,
                    "failure": line["failure"],
                }
                rows.setdefault((*run, stage, split), row)
        except BadInput as error:
            raise BadInput(f"{source}:{number}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{source}:{number}: not a line of our log: {error!r}") from None
    if space is None or not rows:
        raise BadInput(f"{source}: no answers")
    return pd.DataFrame(list(rows.values())), {"source": where, "space": space.name}


def inherited(line: JSON) -> bool:
    """Whether an answer began with others' weights: by `origin`, or by the older `inherit`."""
    return bool(line.get("origin") or line.get("inherit"))


def lines(source: Path) -> Iterator[tuple[int, JSON]]:
    """(number, line); a torn last one is left out with a warning."""
    try:
        raw = source.read_bytes().split(b"\n")
    except OSError as error:
        raise BadInput(f"{source}: cannot be read: {error.strerror}") from None
    for number, text in enumerate(raw, start=1):
        last = number == len(raw)
        if last:
            if text:
                warnings.warn(f"{source}:{number}: the last line was torn; left out", stacklevel=2)
            return
        try:
            line = json.loads(text)
        except ValueError as error:
            raise BadInput(f"{source}:{number}: damaged: {error}") from None
        if not isinstance(line, dict):
            raise BadInput(f"{source}:{number}: not a line of our log")
        yield number, line


def number_in(value: float | str | None) -> float:
    """A number of the log, where inf is "inf" and NaN is null."""
    return math.nan if value is None else float(value)
