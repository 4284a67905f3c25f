"""Append-only files of JSON lines that outlive a search and are shared by processes.

The first line says what the file is and in which version; everything after it is on disk before `append` returns. A
torn last line, left by a kill, is cut off with a warning; damage elsewhere is one error.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from suite.types import JSON, BadInput


class Journal:
    """A file of rows; several processes may append, each sees the others' rows when it reads or appends.

    Args:
        path: The file; made if there is none, with its folder.
        kind: What it is: the first line's "kendall".
        version: Of its rows.
        about: What else the first line must say.

    Raises:
        BadInput: It cannot be read or written, is damaged, of another kind or version, or about something else.
    """

    def __init__(self, path: Path, kind: str, version: int, about: JSON) -> None:
        self.path, self.header = path, {"kendall": kind, "version": version, **about}
        self.rows: list[JSON] = []
        self.read_to = self.lines = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a+b")
        except OSError as error:
            raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
        with self.alone():
            self.take_in()
            if not self.lines:
                self.write([self.header])

    def append(self, rows: Sequence[JSON]) -> None:
        """Write rows, after those that others wrote meanwhile; on disk when this returns."""
        with self.alone():
            self.take_in()
            self.write(rows)

    def refresh(self) -> None:
        """Take in what others wrote."""
        with self.alone():
            self.take_in()

    def write(self, rows: Sequence[JSON]) -> None:
        """Append; the caller is alone with the file and has read it to its end."""
        lines = b"".join(json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n" for row in rows)
        try:
            self.file.write(lines)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}; make room and run the same command again") from None
        self.take_in()

    def take_in(self) -> None:
        """Read from where the last reading ended."""
        self.file.seek(self.read_to)
        for line in self.file:
            if not line.endswith(b"\n"):
                warnings.warn(f"{self.path}: the last line was torn by a kill; dropped", stacklevel=4)
                self.file.truncate(self.read_to)
                break
            where = f"{self.path}:{self.lines + 1}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadInput(
                    f"{where}: not a line of a {self.header['kendall']}: {error}; repair or move it"
                ) from None
            if not isinstance(row, dict):
                raise BadInput(f"{where}: not a line of a {self.header['kendall']}; repair or move it")
            if self.lines:
                self.rows.append(row)
            else:
                self.check(row)
            self.lines += 1
            self.read_to += len(line)

    def check(self, found: JSON) -> None:
        """The first line says what was expected."""
        for word, wanted in self.header.items():
            if found.get(word) != wanted:
                what = {"kendall": "", "version": "version "}.get(word, f"{word} ")
                kind = self.header["kendall"]
                raise BadInput(
                    f"{self.path}: it is of {what}{found.get(word)!r}, not {wanted!r}; choose another {kind}"
                )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other process writes meanwhile."""
        fcntl.flock(self.file.fileno(), fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self.file.fileno(), fcntl.LOCK_UN)
