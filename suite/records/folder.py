"""A folder of results: the resolved spec, where it ran, the log, the tables; docs/results.md is its contract."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import math
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import tomli_w

from suite.types import JSON, BadInput

Row: TypeAlias = Mapping[str, object]
"""One line of a CSV file."""

SPEC = "spec.resolved.toml"
ENVIRONMENT = "environment.json"
TRIALS = "trials.jsonl"
RESULTS = (
    TRIALS, "leaderboard.csv", "winners.csv", "anytime.csv", "ledger.csv", "consistency.csv", "scores.csv",
    "predictors.csv",
)  # fmt: skip
"""The files that belong to one spec."""


class Folder:
    """Where one spec's results go, held by one process at a time.

    Going on in it is the default; a folder of another spec, or of other data, is refused.

    Raises:
        BadInput: The folder holds other results, another process is at work in it, or it cannot be written.
    """

    def __init__(self, path: Path, spec: JSON, *, resume: bool = True) -> None:
        self.path = path
        with contextlib.ExitStack() as undo:
            try:
                path.mkdir(parents=True, exist_ok=True)
                self.handle = os.open(path, os.O_RDONLY)
                undo.callback(self.close)
                self.lock()
                if not resume and any(path.iterdir()):
                    raise BadInput(f"{path}: is not empty; choose another --out, or remove --no-resume")
                self.begin(spec)
            except OSError as error:
                raise unwritable(path, error) from None
            undo.pop_all()

    def lock(self) -> None:
        """Keep other processes out until this one is done or dead."""
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # some file systems have no locks: then there are none
                raise BadInput(
                    f"{self.path}: another process is at work in it; wait for it or choose another --out"
                ) from None

    def begin(self, spec: JSON) -> None:
        """Write the spec, or find it there; a folder that holds results of another one is refused."""
        held = self.path / SPEC
        results = [name for name in RESULTS if (self.path / name).exists() and (self.path / name).stat().st_size > 0]
        if results and not held.exists():
            raise BadInput(f"{self.path}: holds a {results[0]} without its {SPEC}; choose another --out")
        self.begun = bool(results)
        if self.begun:
            self.same_spec(held, spec)
        else:
            self.write(SPEC, tomli_w.dumps(spec))

    def describe(self, environment: JSON) -> None:
        """Write where the results are made, or find it there; what was begun on other data is refused."""
        if self.begun and (self.path / ENVIRONMENT).exists():
            self.same_data(environment["data"])
        else:
            self.write(ENVIRONMENT, json.dumps(environment, indent=2) + "\n")

    def same_data(self, data: JSON) -> None:
        """Refuses a folder whose answers come from other data, naming the first that differ."""
        held = self.path / ENVIRONMENT
        try:
            old = json.loads(held.read_text(encoding="utf-8"))["data"]
            key = next((key for key in [*old, *data] if old.get(key) != data.get(key)), None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{held}: damaged: {type(error).__name__}: {error}; choose another --out") from None
        if key is not None:
            raise BadInput(
                f"{self.path}: holds results of other data ({key} was {old.get(key)}, is {data.get(key)}); "
                "choose another --out"
            )

    def close(self) -> None:
        """Release the folder's lock, so that other processes may enter."""
        os.close(self.handle)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def same_spec(self, held: Path, spec: JSON) -> None:
        """Refuses a folder that another spec wrote, naming the first value that differs."""
        try:
            old = tomllib.loads(held.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{held}: damaged: {error}; choose another --out") from None
        if old == spec:
            return
        before, now = flat(old), flat(spec)
        key = next(key for key in [*before, *now] if before.get(key) != now.get(key))
        raise BadInput(
            f"{self.path}: holds results of another spec ({key} was {before.get(key)!r}, is {now.get(key)!r}); "
            "choose another --out"
        )

    def write(self, name: str, text: str) -> None:
        """Write one file whole or not at all.

        Raises:
            BadInput: It cannot be written; the file that was there is untouched.
        """
        try:
            write_whole(self.path / name, text)
        except OSError as error:
            raise unwritable(self.path / name, error) from None

    def write_csv(self, name: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write one table: these columns in this order; nan and None are empty, inf is inf, ten digits."""
        self.write(name, csv_text(columns, rows))


def csv_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """One table as text: these columns in this order; nan and None are empty, inf is inf, ten digits."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: cell(value) for name, value in row.items()})
    return text.getvalue()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a kill leaves either the old one or the new one."""
    part = path.with_name(f".{path.name}.part")  # one name, so that kills do not leave heaps of them
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def unwritable(path: Path, error: OSError) -> BadInput:
    """One line for a folder that is read-only, full or no folder."""
    return BadInput(f"{path}: cannot be written: {error.strerror or error}; choose another --out or make room")


def flat(content: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested tables as dotted keys."""
    keys: dict[str, object] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            keys |= flat(value, f"{prefix}{key}.")
        else:
            keys[prefix + key] = value
    return keys


def cell(value: object) -> object:
    """One value as a CSV file writes it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".10g")
    return value
