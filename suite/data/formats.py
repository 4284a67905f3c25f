"""The publishers' files as arrays: idx, CIFAR's python batches, and npz shards of lossless WebP.

Images come out as uint8, shape (n, channels, side, side), labels as int64, shape (n,). Every reader checks what the
file says of itself against what is in it; none runs code that a file names.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.types import BadInput

Images: TypeAlias = npt.NDArray[np.uint8]
Labels: TypeAlias = npt.NDArray[np.int64]

UNSIGNED_BYTE = 0x08
"""The element type in an idx header; the only one that image sets use."""
CIFAR_SIDE = 32


def idx_bytes(path: Path) -> bytes:
    """An idx file's bytes, decompressed if it is a gzip file.

    Raises:
        BadInput: The gzip stream is truncated or damaged.
    """
    data = path.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{path}: truncated or damaged gzip file ({error}); fetch it again") from error


def parse_idx(data: bytes, dimensions: int, path: Path) -> Images:
    """An idx file of unsigned bytes as an array.

    Args:
        data: The whole file, decompressed.
        dimensions: How many it must have: 3 for images, 1 for labels.
        path: For the error.

    Raises:
        BadInput: Wrong magic number, or more or fewer bytes than the header promises.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), 1, Path("labels"))
    array([7, 8, 9], dtype=uint8)
    """
    start = 4 + 4 * dimensions
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if data[:4] != magic:
        raise BadInput(f"{path}: starts with {data[:4].hex() or 'nothing'}, an idx file here starts with {magic.hex()}")
    if len(data) < start:
        raise BadInput(f"{path}: truncated idx header, {len(data)} of {start} bytes")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise BadInput(
            f"{path}: holds {len(data) - start:,} bytes after its header, which promises {math.prod(shape):,} {shape}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


class _Marker:
    """Stands for numpy.ndarray, which a pickle names but may not build here."""


class _Dtype:
    """A pickle's numpy.dtype, as inert data."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """A pickle's array, as inert data."""

    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Reads containers and descriptions of arrays; every other name in the file is refused, nothing is imported."""

    names: dict[tuple[str, str], type] = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Marker,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str, /) -> type:
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR batch does")
        return self.names[module, name]

    def persistent_load(self, pid: Any, /) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside the file")


def parse_batch(data: bytes, labels: str, path: Path) -> tuple[Images, Labels]:
    """One of CIFAR's python batches: a pickled dict of a (n, 3072) array and a list of labels.

    The pickle machine runs with nothing to call but three inert stand-ins, so that no file can do more than fail.

    Args:
        data: The whole file.
        labels: The key of the labels: "labels" for CIFAR-10, "fine_labels" for CIFAR-100.
        path: For the error.

    Raises:
        BadInput: It is no such pickle, or names anything but numpy's array.
    """
    try:
        batch = _InertUnpickler(io.BytesIO(data), encoding="bytes").load()
        fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        _, shape, dtype, fortran, pixels = fields["data"].state
        kind = dtype.arguments[0]
        if kind not in (b"u1", "u1") or fortran or len(shape) != 2 or shape[1] != 3 * CIFAR_SIDE**2:
            raise ValueError(f"its array is {kind!r} {shape}, not uint8 (n, 3072)")
        images = np.frombuffer(pixels, np.uint8).reshape(shape[0], 3, CIFAR_SIDE, CIFAR_SIDE)
        numbers = np.array(fields[labels], np.int64)
        if numbers.shape != (len(images),):
            raise ValueError(f"{len(images)} images with labels of shape {numbers.shape}")
    except Exception as error:  # a damaged pickle can fail in any way
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise BadInput(f"{path}: not a CIFAR python batch: {reason or type(error).__name__}") from error
    return images, numbers


def read_npz(path: Path, names: Iterable[str]) -> list[npt.NDArray[Any]]:
    """Arrays of an npz file, never a pickle.

    Raises:
        BadInput: No npz file, truncated, or without one of the arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            return [held[name] for name in names]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{path}: not a readable npz file with {', '.join(names)}: {error}") from error


def read_shard(path: Path) -> tuple[Images, Labels, Labels]:
    """A CIFAR shard: images, labels, and each image's place in the publishers' order of its split.

    A shard holds lossless WebP pictures end to end (`webp`, `offsets`), each of images stacked downwards.

    Raises:
        BadInput: Not such a file, or its parts do not fit together.
    """
    from PIL import Image

    offsets, webp, labels, index = read_npz(path, ("offsets", "webp", "labels", "index"))
    stream = webp.tobytes()
    images = np.empty((len(labels), CIFAR_SIDE, CIFAR_SIDE, 3), np.uint8)
    done = 0
    try:
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            with Image.open(io.BytesIO(stream[start:end]), formats=["WEBP"]) as picture:
                tile = np.asarray(picture.convert("RGB")).reshape(-1, CIFAR_SIDE, CIFAR_SIDE, 3)
            images[done : done + len(tile)] = tile
            done += len(tile)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: its pictures do not decode: {error}") from error
    if done != len(labels) or len(index) != len(labels):
        raise BadInput(f"{path}: {done} images, {len(labels)} labels, {len(index)} places; they must be as many")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.astype(np.int64), index.astype(np.int64)


def in_order(parts: Iterable[tuple[Images, Labels, Labels]], where: Path) -> tuple[Images, Labels]:
    """Shards of one split put together, in the publishers' order.

    Raises:
        BadInput: Two images claim the same place.
    """
    images, labels, index = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(index, kind="stable")
    if (np.diff(index[order]) == 0).any():
        raise BadInput(f"{where}: two of its shards hold the same image; fetch them again")
    return images[order], labels[order]
