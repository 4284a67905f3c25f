"""A folder of results: the resolved spec, where it ran, the log, the tables; docs/results.md is its contract."""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
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


class Folder:
    """Where one spec's results go; going on in it is the default, another spec's folder is refused.

    Raises:
        BadInput: The folder holds other results, or cannot be written.
    """

    def __init__(self, path: Path, spec: JSON, *, resume: bool = True) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if resume or not any(path.iterdir()):
                self.begin(spec)
            else:
                raise BadInput(f"{path}: is not empty; choose another --out, or leave --no-resume away")
        except OSError as error:
            raise unwritable(path, error) from None

    def begin(self, spec: JSON) -> None:
        """Write the spec, or find it there; a folder that holds answers to another one is refused."""
        held, trials = self.path / SPEC, self.path / TRIALS
        begun = trials.exists() and trials.stat().st_size > 0
        if begun and not held.exists():
            raise BadInput(f"{self.path}: holds a {TRIALS} without its {SPEC}; choose another --out")
        if begun:
            self.same_spec(held, spec)
        else:
            self.write(SPEC, tomli_w.dumps(spec))

    def same_spec(self, held: Path, spec: JSON) -> None:
        """Refuses a folder that another spec wrote, naming the first value that differs."""
        try:
            old = tomllib.loads(held.read_text())
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

    def write_json(self, name: str, content: JSON) -> None:
        """Write one JSON file."""
        self.write(name, json.dumps(content, indent=2) + "\n")

    def write_csv(self, name: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write one table: these columns in this order; nan and None are empty, inf is inf, ten digits."""
        with tempfile.SpooledTemporaryFile(mode="w+", newline="", encoding="utf-8") as text:
            table = csv.DictWriter(text, columns, lineterminator="\n")
            table.writeheader()
            for row in rows:
                table.writerow({name: cell(value) for name, value in row.items()})
            text.seek(0)
            self.write(name, text.read())


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a kill leaves either the old one or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
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
    """A CSV cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".10g")
    return value
