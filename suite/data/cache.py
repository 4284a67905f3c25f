"""Decoded arrays on disk, memory-mapped: one file a data set and split, and remembered digests of the sources.

A file appears complete or not at all (written aside, synced, renamed), so two processes or a kill do no harm; a file
that is short or fails its checksum counts as absent and is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suite.types import JSON, BadInput

MAGIC = b"KENDALL1"
PAGE = 4096
STALE_S = 3600.0
"""A half-written file of this age belongs to a process that was killed."""
SETTLED_S = 2.0
"""A file changed less than this ago may change again without a new time stamp: its digest is not remembered."""


def cache_folder() -> Path:
    """$KENDALL_CACHE or the user's cache folder, and in it `images`."""
    from platformdirs import user_cache_path

    given = os.environ.get("KENDALL_CACHE")
    return (Path(given).expanduser() if given else user_cache_path("kendall")) / "images"


def write_whole(path: Path, chunks: list[bytes | memoryview]) -> None:
    """Replace a file at once: readers see the old one or the new one.

    Raises:
        OSError: The folder cannot be written, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob("*.tmp"):
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - old.stat().st_mtime > STALE_S:
                old.unlink()
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]], facts: JSON) -> None:
    """Write arrays and facts; a folder that cannot be written costs a warning and the time, nothing else."""
    described, offset, checksum = [], 0, 0
    body: list[bytes | memoryview] = []
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        padding = bytes(-array.nbytes % PAGE)
        described.append({"name": name, "dtype": array.dtype.str, "shape": array.shape, "offset": offset})
        for chunk in (array.reshape(-1).view(np.uint8).data, padding):
            body.append(chunk)
            checksum = zlib.crc32(chunk, checksum)
            offset += len(chunk)
    header = json.dumps({"arrays": described, "facts": facts, "bytes": offset, "crc32": checksum}).encode()
    header += b" " * (-(len(header) + len(MAGIC) + 8) % PAGE)
    try:
        write_whole(path, [MAGIC, len(header).to_bytes(8, "little"), header, *body])
    except OSError as error:
        warnings.warn(
            f"decoded images are not kept, the next load decodes again: {path.parent}: {error.strerror or error}; "
            "set KENDALL_CACHE to a folder that can be written",
            stacklevel=2,
        )


def open_saved(path: Path) -> tuple[dict[str, npt.NDArray[Any]], JSON] | None:
    """The arrays, memory-mapped copy-on-write, and the facts; None if the file is absent, cut off or damaged."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            length = int.from_bytes(file.read(8), "little")
            start = len(MAGIC) + 8 + length
            if not start <= path.stat().st_size:
                return None
            header = json.loads(file.read(length))
            content = np.memmap(file, np.uint8, mode="c", offset=start)
        if len(content) != header["bytes"] or zlib.crc32(content.data) != header["crc32"]:
            return None
        arrays = {}
        for part in header["arrays"]:
            dtype, shape = np.dtype(part["dtype"]), tuple(part["shape"])
            size = int(np.prod(shape)) * dtype.itemsize
            arrays[part["name"]] = content[part["offset"] : part["offset"] + size].view(dtype).reshape(shape)
        return arrays, header["facts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(path: Path, algorithm: str) -> str:
    """A file's hash, remembered for as long as its size, times and inode stay the same.

    Raises:
        BadInput: The file cannot be read.
    """
    memory = cache_folder() / "digests.json"
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
            key = f"{algorithm}:{path.resolve()}"
            known = _remembered(memory)
            if key in known and known[key][:-1] == stamp:
                return str(known[key][-1])
            value = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from error
    settled = time.time() - max(after.st_mtime, after.st_ctime) > SETTLED_S
    if settled and [after.st_size, after.st_mtime_ns, after.st_ctime_ns] == stamp[:3]:
        with contextlib.suppress(OSError):  # save() warns of the same folder
            write_whole(memory, [json.dumps({**_remembered(memory), key: [*stamp, value]}, indent=0).encode()])
    return value


def _remembered(memory: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, list)} if isinstance(known, dict) else {}
