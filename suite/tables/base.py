"""Tables: measured answers in columns, one memory-mapped file each; the long schema is in docs/tables.md.

A table holds a block for each setting (data set, proxy, stage, split), and apart from it a block for the mean over
seeds where a benchmark publishes that. A block's columns are (architectures, runs), an architecture's runs pushed
to the left in the order of their seeds; a column that varies less is stored once, a row, or a run. Opening needs
numpy and no parsing.

File: 16 bytes of magic, length and SHA-256 of the header, the header (JSON), the columns at multiples of 64 bytes.
The header holds the size, the SHA-256 and the sums (see `sums_of`) of all that follows it. Every opening compares size
and sums, so a truncated or damaged file is refused; the SHA-256 says which content it is.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.spaces.base import SearchSpace
from suite.types import JSON, Architecture, BadInput, Proxy, Unsupported, nearest

if TYPE_CHECKING:
    import pandas as pd

Array: TypeAlias = npt.NDArray[Any]

MAGIC = b"KENDALL TABLE 2\n"
METER = b"KENDALL METER 2\n"
KINDS = {MAGIC: "a table of answers", METER: "a table of resources"}
"""The first bytes of a converted table's file."""
PREAMBLE = struct.Struct("<16sQ32s")  # magic, bytes of the header, its SHA-256
ALIGNMENT = 64
PAGE = 512
"""Words of 8 bytes that are summed together."""
DTYPES = ("<f8", "<i8", "<i4", "<i2", "|u1")

PROXY = ("epochs", "channels", "resolution", "samples", "cells", "task")
SPLITS = ("valid", "test")
MEAN = -1
"""The seed of a row that is the mean over a benchmark's own seeds."""
MOST_ARCHITECTURES = 2**63 - 1
"""Rows are numbered by the space's index, in 64 bits."""
NUMBERS = ("error", "loss", "params", "macs", "latency_ms", "energy_mj", "device_s", "energy_j", "spent_macs")
TEXTS = ("device", "source", "failure")
COLUMNS = ("architecture", *PROXY, "stage", "dataset", "split", "seed", *NUMBERS, *TEXTS)
"""The long schema, in order."""
OPTIONAL = {"samples": 1.0, "cells": None, "task": ""} | dict.fromkeys(NUMBERS[1:], np.nan) | dict.fromkeys(TEXTS, "")
"""The value of every row for a column that is left out."""


@dataclass(frozen=True)
class TableSetting:
    """The fields that all answers of a block share."""

    dataset: str
    proxy: Proxy
    stage: int
    """Epochs trained when it was measured, 1..proxy.epochs."""
    split: str
    """The split that was scored: "valid" or "test"."""

    def __str__(self) -> str:
        return f"{self.dataset} {self.split} after {self.stage} of {self.proxy}"


@dataclass(frozen=True)
class TableBlock:
    """The answers under one setting: single runs, or their mean.

    Column shapes broadcast to (architectures, runs); cells at and beyond an architecture's count mean nothing.
    """

    setting: TableSetting
    mean: bool
    """Whether a row is a mean over seeds (seed -1), not a run."""
    counts: Array  # (architectures,)
    seeds: Array  # (architectures, runs)
    numbers: Mapping[str, Array]  # each (architectures, runs)
    texts: Mapping[str, tuple[Array, tuple[str, ...]]]  # codes (architectures, runs), what they stand for

    @property
    def present(self) -> Array:
        """Which cells hold an answer, shape (architectures, runs)."""
        present: Array = np.arange(self.seeds.shape[1]) < self.counts[:, None]
        return present


class Table:
    """Answers for architectures of one space.

    Raises (all that reads or checks): BadInput, one line that names the file or the row.
    """

    def __init__(
        self,
        space: SearchSpace,
        places: Array | None,
        blocks: Sequence[TableBlock],
        about: Mapping[str, str] | None = None,
    ) -> None:
        self.space = space
        self.places = places
        """`index` of each row's architecture, ascending; None: all of the space."""
        self.blocks = {(block.setting, block.mean): block for block in blocks}
        self.about: dict[str, str] = dict(about or {})
        """Where it comes from: table, source, licence ..."""
        self.fingerprint = ""
        """SHA-256 of the header, which holds that of the content; set by `save` and `open`."""
        self.memo: dict[Any, Any] = {}
        """What evaluators of this table worked out once."""
        self.row_of: dict[Architecture, int] = {}
        """What `row` said so far."""

    # Questions

    def __len__(self) -> int:
        return self.space.size if self.places is None else len(self.places)

    @property
    def name(self) -> str:
        """The source that it was converted from: name, files, hashes."""
        return self.about.get("table", "table")

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets."""
        return list(dict.fromkeys(setting.dataset for setting, _ in self.blocks))

    @property
    def devices(self) -> list[str]:
        """The name of the device that the seconds were spent on."""
        return self._words("device")

    @property
    def sources(self) -> list[str]:
        """Files and versions that the rows are from."""
        return self._words("source")

    @property
    def metrics(self) -> list[str]:
        """The numbers that at least one row knows."""
        known = {
            name
            for block in self.blocks.values()
            for name, column in block.numbers.items()
            if not np.isnan(column).all()
        }
        return [name for name in NUMBERS if name in known]

    def _words(self, column: str) -> list[str]:
        words = dict.fromkeys(word for block in self.blocks.values() for word in block.texts[column][1])
        return [word for word in words if word]

    def rows(self, index: Array) -> Array:
        """Row of each architecture `index`, -1 where the table has none; vectorised."""
        index = np.asarray(index)
        if self.places is None:
            return np.where((index >= 0) & (index < self.space.size), index, -1)
        if not len(self.places):
            return np.full(index.shape, -1)
        found = np.minimum(np.searchsorted(self.places, index), len(self.places) - 1)
        return np.where(self.places[found] == index, found, -1)

    def row(self, arch: Architecture) -> int:
        """Row of one architecture, -1 if the table has none; BadInput if it is none of the space."""
        row = self.row_of.get(arch)
        if row is None:
            index = self.space.index(arch)
            row = self.row_of[arch] = index if self.places is None else int(self.rows(np.asarray(index)))
        return row

    # The long form

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, space: SearchSpace, about: Mapping[str, str] | None = None) -> Table:
        """A table of rows in the long schema; every rule of the schema is checked."""
        import pandas as pd

        for column in frame.columns:
            if column not in COLUMNS:
                raise BadInput(f"table: unknown column {column!r}: {nearest(str(column), COLUMNS)}")
        for column in COLUMNS:
            if column not in frame.columns and column not in OPTIONAL:
                raise BadInput(f"table: column {column!r} is missing; there are {', '.join(map(str, frame.columns))}")
        if frame.empty:
            raise BadInput("table: no rows")
        frame = frame.reset_index(drop=True)

        def refuse(bad: Array, why: str, column: str) -> None:
            if bad.any():
                i = int(np.argmax(bad))
                raise BadInput(f"table: row {i}: {why}, not {frame[column][i]!r} ({frame['architecture'][i]})")

        numbers = {}
        for column in NUMBERS:
            if column not in frame.columns:
                numbers[column] = np.full(len(frame), np.nan)
                continue
            try:
                numbers[column] = frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
            except (TypeError, ValueError):
                raise BadInput(f"table: column {column!r} holds something that is no number") from None
            if column not in ("error", "loss"):
                refuse(numbers[column] < 0, f"{column} must not be negative", column)
        error = numbers["error"]
        refuse(np.isnan(error), "error must be a number (inf for a failed training)", "error")
        refuse(
            ((error < 0) | (error > 100)) & ~np.isposinf(error), "accuracy, 100 - error, must lie in 0..100 %", "error"
        )
        whole = {name: whole_numbers(frame, name) for name in ("epochs", "channels", "resolution", "stage", "seed")}
        refuse(whole["seed"] < MEAN, "seed must be at least 0, or -1 for a mean", "seed")
        refuse((whole["stage"] < 1) | (whole["stage"] > whole["epochs"]), "stage must lie in 1..epochs", "stage")
        refuse(~frame["split"].isin(SPLITS).to_numpy(dtype=bool), "split must be valid or test", "split")

        if space.size > MOST_ARCHITECTURES:
            raise Unsupported(
                f"table: {space.name} has {space.size:.3g} architectures, and a table numbers at most "
                f"{MOST_ARCHITECTURES:.3g}; study or search it live"
            )
        codes, texts = pd.factorize(frame["architecture"])
        if (codes < 0).any():
            raise BadInput(f"table: row {int(np.argmax(codes < 0))}: architecture is missing")
        index = np.array([space.index(space.parse(str(text))) for text in texts], dtype=np.int64)[codes]
        places = np.unique(index)
        row = np.searchsorted(places, index)

        words = {name: pd.factorize(frame[name].fillna("")) if name in frame.columns else None for name in TEXTS}
        samples = frame["samples"].fillna(1.0) if "samples" in frame.columns else 1.0
        cells = frame["cells"].astype("Float64").fillna(0).astype(int) if "cells" in frame.columns else 0
        keys = pd.DataFrame(
            {
                "dataset": frame["dataset"].astype(str),
                "epochs": whole["epochs"],
                "channels": whole["channels"],
                "resolution": whole["resolution"],
                "samples": samples,
                "cells": np.where(np.asarray(cells) == (space.cells or 0), 0, cells),  # 0: the space's own depth
                "task": frame["task"].fillna("").astype(str) if "task" in frame.columns else "",
                "stage": whole["stage"],
                "split": frame["split"].astype(str),
                "mean": whole["seed"] == MEAN,
            }
        )
        blocks = []
        groups: Any = keys.groupby(list(keys.columns), sort=False).indices
        for key in sorted(groups):
            dataset, epochs, channels, resolution, share, depth, task, stage, split, mean = key
            members: Array = groups[key]
            proxy = Proxy(int(epochs), int(channels), int(resolution), float(share), int(depth) or None, task=str(task))
            members = members[np.lexsort((whole["seed"][members], row[members]))]
            rows, seeds = row[members], whole["seed"][members]
            again = (np.diff(rows) == 0) & (np.diff(seeds) == 0)
            if again.any():
                twice = members[int(np.argmax(again)) + 1]
                raise BadInput(
                    f"table: row {twice}: a second answer for {frame['architecture'][twice]}, "
                    f"{TableSetting(dataset, proxy, int(stage), split)}, seed {whole['seed'][twice]}"
                )
            counts = np.bincount(rows, minlength=len(places))
            first = np.cumsum(counts) - counts
            run = np.arange(len(members)) - first[rows]  # place among the runs of its architecture
            spread = Spread(len(places), int(counts.max()), rows, run)
            blocks.append(
                TableBlock(
                    TableSetting(str(dataset), proxy, int(stage), str(split)),
                    bool(mean),
                    counts,
                    spread(seeds, 0),
                    {name: spread(column[members], np.nan) for name, column in numbers.items()},
                    {name: spread.words(words[name], members) for name in TEXTS},
                )
            )
        return cls(space, None if len(places) == space.size else places, blocks, about)

    def to_frame(self) -> pd.DataFrame:
        """All answers in the long schema, settings first, then architectures, then seeds."""
        import pandas as pd

        places = range(len(self)) if self.places is None else self.places
        architectures = np.array([self.space.text(self.space.at(int(place))) for place in places], dtype=object)
        parts = []
        for block in self.blocks.values():
            row, run = np.nonzero(block.present)
            proxy = block.setting.proxy
            columns: dict[str, Any] = {"architecture": architectures[row]}
            columns |= {name: getattr(proxy, name) for name in PROXY if name != "cells"}
            columns["cells"] = pd.array([proxy.cells] * len(row), dtype="Int64")
            columns |= {"stage": block.setting.stage, "dataset": block.setting.dataset, "split": block.setting.split}
            columns["seed"] = block.seeds[row, run].astype(np.int64)
            columns |= {name: column[row, run].astype(np.float64) for name, column in block.numbers.items()}
            columns |= {
                name: np.array(vocabulary, dtype=object)[codes[row, run]]
                for name, (codes, vocabulary) in block.texts.items()
            }
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)[list(COLUMNS)]

    # The file

    def save(self, path: Path) -> Table:
        """Write the file and open it; whoever looks sees the old file or all of the new one."""
        payload = Payload()
        blocks = []
        for block in self.blocks.values():
            setting, present = block.setting, block.present
            blocks.append(
                {
                    "dataset": setting.dataset,
                    "proxy": {name: getattr(setting.proxy, name) for name in PROXY},
                    "stage": setting.stage,
                    "split": setting.split,
                    "mean": block.mean,
                    "runs": block.seeds.shape[1],
                    "counts": payload.add(block.counts[:, None], np.ones((len(self), 1), dtype=bool)),
                    "seeds": payload.add(block.seeds, present),
                    "numbers": {name: payload.add(column, present) for name, column in block.numbers.items()},
                    "texts": {
                        name: {"words": list(vocabulary), "codes": payload.add(codes, present)}
                        for name, (codes, vocabulary) in block.texts.items()
                    },
                }
            )
        header = {
            "space": self.space.name,
            "about": self.about,
            "architectures": len(self),
            "places": None if self.places is None else payload.add(self.places[:, None], None),
            "metrics": self.metrics,
            "devices": self.devices,
            "sources": self.sources,
            "blocks": blocks,
        }
        seal(path, MAGIC, header, payload)
        return Table.open(path, self.space)

    @classmethod
    def open(cls, path: Path, space: SearchSpace | None = None, *, verify: bool = True) -> Table:
        """Map a file into memory.

        Args:
            path: What `save` wrote.
            space: Its space, where that is none of `SPACES`.
            verify: Compare the content's sums too (0.15 ms for 3 MB), not only the sizes and the header's SHA-256.
        """
        header, payload, fingerprint = unseal(path, MAGIC, verify=verify)
        table = cls._from_header(header, payload, space, path)
        table.fingerprint = fingerprint
        return table

    @classmethod
    def _from_header(cls, header: JSON, payload: memoryview, space: SearchSpace | None, path: Path) -> Table:
        space = space_of(header, space, path)
        n = header["architectures"]
        blocks = []
        for entry in header["blocks"]:
            shape = (n, entry["runs"])
            blocks.append(
                TableBlock(
                    TableSetting(entry["dataset"], Proxy(**entry["proxy"]), entry["stage"], entry["split"]),
                    entry["mean"],
                    read_column(payload, entry["counts"], (n, 1))[:, 0],
                    read_column(payload, entry["seeds"], shape),
                    {name: read_column(payload, column, shape) for name, column in entry["numbers"].items()},
                    {
                        name: (read_column(payload, column["codes"], shape), tuple(column["words"]))
                        for name, column in entry["texts"].items()
                    },
                )
            )
        places = header["places"]
        return cls(space, places and read_column(payload, places, (n, 1))[:, 0], blocks, header["about"])


def whole_numbers(frame: pd.DataFrame, column: str) -> Array:
    """A column of integers; BadInput naming the row that is none."""
    try:
        values = frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise BadInput(f"table: column {column!r} holds something that is no number") from None
    bad = ~np.isfinite(values) | (values != np.round(values))
    if bad.any():
        i = int(np.argmax(bad))
        raise BadInput(f"table: row {i}: {column} must be a whole number, not {frame[column][i]!r}")
    return values.astype(np.int64)


@dataclass(frozen=True)
class Spread:
    """From a list of answers to (architectures, runs)."""

    architectures: int
    runs: int
    row: Array
    run: Array

    def __call__(self, values: Array, empty: float) -> Array:
        """The values in their cells, `empty` elsewhere."""
        cells = np.full((self.architectures, self.runs), empty, dtype=values.dtype)
        cells[self.row, self.run] = values
        return cells

    def words(self, factorized: Any, members: Array) -> tuple[Array, tuple[str, ...]]:
        """Codes in their cells, and the words that these members use."""
        if factorized is None:
            return self(np.zeros(len(members), dtype=np.int64), 0), ("",)
        codes, vocabulary = factorized
        used, mine = np.unique(codes[members], return_inverse=True)
        return self(mine.astype(np.int64), 0), tuple(str(vocabulary[code]) for code in used)


class Payload:
    """Columns on their way to a file, each in the narrowest shape and type that loses nothing."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.hash = hashlib.sha256()

    def add(self, column: Array, present: Array | None) -> JSON:
        """Store a column; how to read it again."""
        if present is not None:
            column = narrow(column, present)
        kind = "<f8" if column.dtype.kind == "f" else smallest_integer(column)
        raw = np.ascontiguousarray(column, dtype=kind).tobytes()
        raw += b"\0" * (-len(raw) % ALIGNMENT)
        entry = {"dtype": kind, "shape": list(column.shape), "at": self.size}
        self.parts.append(raw)
        self.size += len(raw)
        self.hash.update(raw)
        return entry


def narrow(column: Array, present: Array) -> Array:
    """The same cells where `present`, as (1, 1), (architectures, 1), (1, runs) or in full."""
    column = np.where(present, column, column.dtype.type(0))
    first_run = np.argmax(present, axis=1)  # runs are pushed left, so 0 unless there is none
    for axes in ((0, 1), 1, 0):
        if axes == (0, 1):
            place = np.unravel_index(np.argmax(present), present.shape)
            candidate = column[place].reshape(1, 1)
        elif axes == 1:
            candidate = column[np.arange(len(column)), first_run][:, None]
        else:
            candidate = column[np.argmax(present, axis=0), np.arange(column.shape[1])][None, :]
        same = column == candidate
        if column.dtype.kind == "f":
            same |= np.isnan(column) & np.isnan(candidate)
        if (same | ~present).all():
            return np.asarray(candidate)
    return column


def smallest_integer(column: Array) -> str:
    """The narrowest of `DTYPES` that holds all values."""
    low, high = int(column.min(initial=0)), int(column.max(initial=0))
    fits = (
        kind
        for kind in reversed(DTYPES[1:])
        if np.iinfo(np.dtype(kind)).min <= low and high <= np.iinfo(np.dtype(kind)).max
    )
    return str(next(fits))


def read_column(payload: memoryview, entry: JSON, shape: tuple[int, int]) -> Array:
    """A view of the file in this shape; what was stored once stands everywhere."""
    if entry["dtype"] not in DTYPES:
        raise BadInput(f"table: no column of type {entry['dtype']!r}")
    kind, (rows, runs) = np.dtype(entry["dtype"]), entry["shape"]
    if rows not in (1, shape[0]) or runs not in (1, shape[1]):
        raise BadInput(f"table: a column of shape {rows} x {runs} in a block of {shape[0]} x {shape[1]}")
    strides = (kind.itemsize * runs * (rows > 1), kind.itemsize * (runs > 1))
    return np.ndarray(shape, kind, payload, entry["at"], strides)


def space_of(header: JSON, space: SearchSpace | None, path: Path) -> SearchSpace:
    """The space that a file is about: the registered one of that name, or `space` if that is its name."""
    if space is None:
        from suite.spaces import named

        try:
            space = named(header["space"])
        except BadInput as refusal:
            raise BadInput(f"{path}: {refusal}") from None
    elif space.name != header["space"]:
        raise BadInput(f"{path}: a table of {header['space']}, not of {space.name}")
    return space


def seal(path: Path, magic: bytes, header: JSON, payload: Payload) -> None:
    """Write preamble, header (with the payload's size and SHA-256) and payload, all or nothing."""
    sealed = {"payload_bytes": payload.size, "payload_sha256": payload.hash.hexdigest()}
    whole = {**header, **sealed, "payload_sums": sums_of(b"".join(payload.parts))}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-(PREAMBLE.size + len(text)) % ALIGNMENT)
    preamble = PREAMBLE.pack(magic, len(text), hashlib.sha256(text).digest())
    write_whole(path, [preamble, text, *payload.parts])


def unseal(path: Path, magic: bytes, *, verify: bool = True) -> tuple[JSON, memoryview, str]:
    """Header, payload (mapped, not read) and fingerprint of what `seal` wrote under this magic.

    Raises:
        BadInput: It is another file, damaged or cut off.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < PREAMBLE.size:
                raise BadInput(f"{path}: {size} bytes are no table; make one with `kendall table convert`")
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    found_magic, length, digest = PREAMBLE.unpack_from(mapped)
    if found_magic != magic:
        for known, what in KINDS.items():
            if found_magic.startswith(known[: -len(b"2\n")]):
                if known == magic:
                    raise BadInput(f"{path}: a table in another version of the format; convert again")
                raise BadInput(f"{path}: {what}, where {KINDS[magic]} is needed")
        raise BadInput(f"{path}: not a table of ours; make one with `kendall table convert`")
    start = PREAMBLE.size + length
    text = bytes(mapped[PREAMBLE.size : start])
    if len(text) != length or hashlib.sha256(text).digest() != digest:
        raise BadInput(f"{path}: the header is damaged or cut off; convert again")
    header: JSON = json.loads(text)
    if size != start + header["payload_bytes"]:
        raise BadInput(f"{path}: {size:,} bytes instead of {start + header['payload_bytes']:,}; convert again")
    payload = mapped[start:]
    if verify and sums_of(payload) != header["payload_sums"]:
        found = hashlib.sha256(payload).hexdigest()
        raise BadInput(f"{path}: damaged: SHA-256 {found} instead of {header['payload_sha256']}; convert again")
    return header, payload, digest.hex()


def sums_of(payload: bytes | memoryview) -> str:
    """SHA-256 of the content's sums: fifteen times as quick as that of the content, and as good against accidents.

    The words of 8 bytes stand in pages of `PAGE`. Each page is summed, and each place over all pages, modulo 2^64; what
    fills no page is taken as it is. Damage goes unseen only if it keeps every sum: at least four words in two pages
    and two places must change and cancel exactly.
    """
    words = np.frombuffer(payload, dtype="<u8")
    whole = len(words) // PAGE * PAGE
    pages = words[:whole].reshape(-1, PAGE)
    digest = hashlib.sha256(pages.sum(axis=1).tobytes())
    digest.update(pages.sum(axis=0).tobytes())
    digest.update(words[whole:].tobytes())
    return digest.hexdigest()


def write_whole(path: Path, parts: Sequence[bytes]) -> None:
    """Write a file beside its place and move it there, on disk; a kill leaves at most a stray `.tmp`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}; give another place with --out") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def read_parquet(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Columns of a Parquet file; BadInput if it is none or lacks one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        held = pq.read_schema(path).names
        lacking = [name for name in columns if name not in held]
        if lacking:
            raise BadInput(f"{path}: column {lacking[0]!r} is missing; there are {', '.join(held)}")
        frame: pd.DataFrame = pq.read_table(path, columns=list(columns)).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    return frame
