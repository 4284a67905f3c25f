"""Images as uint8 tensors that live on the device: digits, Fashion-MNIST, CIFAR-10 and CIFAR-100.

The publishers' test part is the test part, always whole and never looked at here; the validation part is held out from
the publishers' training part. Both splits are made by counting within each class, so no seed moves them (docs/data.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from suite.data import cache, sources
from suite.data.datasets import DATASETS, Entry
from suite.data.formats import Images, Labels
from suite.data.sources import number_in_class
from suite.types import JSON, BadInput, Ends, nearest

FORMAT = 1
"""Version of the cached file; another version is another file."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set in three parts on one device; images (n, channels, side, side) uint8, labels (n,) int64."""

    name: str
    """The data set's, with its shards in brackets if it is not whole: "cifar10[train-1 test-1]"."""
    classes: int
    train_images: torch.Tensor
    train_labels: torch.Tensor
    valid_images: torch.Tensor
    valid_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    mean: tuple[float, ...]
    """Mean of each channel of the training part (without validation), pixels in [0, 1]."""
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    fingerprint: str
    """sha256 of the pixels and labels of the three parts: of what was loaded, however it was stored."""

    @property
    def image_channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return int(self.train_images.shape[1])

    @property
    def ends(self) -> Ends:
        """The inputs and outputs of a network that tells its classes apart."""
        return Ends(self.image_channels, self.classes)

    @property
    def side(self) -> int:
        """Side of the square images [pixels]."""
        return int(self.train_images.shape[-1])

    @property
    def device(self) -> torch.device:
        """The device that holds the images."""
        return self.train_images.device

    def to(self, device: torch.device | str) -> ImageData:
        """The same data on another device."""
        return replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            valid_images=self.valid_images.to(device),
            valid_labels=self.valid_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )


def load(
    name: str,
    *,
    root: Path | None = None,
    valid_fraction: float | None = None,
    shards: Sequence[int] | None = None,
    test_shards: Sequence[int] | None = None,
    download: bool = False,
    verify: bool = True,
) -> ImageData:
    """A data set on the CPU, its files checked against their published sums, decoded once and then memory-mapped.

    Args:
        name: One of DATASETS.
        root: Where the files lie, or a folder above; otherwise $KENDALL_DATA, then the user's data folder.
        valid_fraction: Of each class of the publishers' training part, in (0, 1); None is the data set's own.
        shards: CIFAR-10 only: which fifths of the training part, of 1 to 5; None is all that are there.
        test_shards: CIFAR-10 only: of 1 (a fifth of the test part) and 2 (the rest); None is all that are there.
        download: Fetch the publishers' files into the first place looked in, if they are in none.
        verify: Refuse files whose sums differ from the published ones. Without it, batches of one's own can be read.

    Raises:
        BadInput: No such data set, or its files are missing, damaged or incomplete.
        Unsupported: Shards of a data set that comes in one piece.

    >>> data = load("digits")
    >>> tuple(data.train_images.shape), len(data.valid_labels), len(data.test_labels)
    ((1082, 1, 8, 8), 360, 355)
    """
    if name not in DATASETS:
        raise BadInput(f"no data set {name!r}: {nearest(name, DATASETS)}")
    entry = DATASETS[name]
    fraction = entry.valid_fraction if valid_fraction is None else valid_fraction
    if not 0 < fraction < 1:
        raise BadInput(f"{name}: valid_fraction must lie in (0, 1), not {fraction!r}")

    source = sources.find(name, root, shards, test_shards, verify)
    if source is None and download:
        source = sources.find(name, sources.download(name, root), shards, test_shards, verify)
    if source is None:
        looked = ", ".join(map(str, [*sources.bases(root), *(sources.SYSTEM.get(name, ()) if root is None else ())]))
        raise BadInput(
            f"{name}: not found in {looked}, nor in their usual subfolders; "
            f"point {'KENDALL_DATA' if root is None else 'root'} at its folder: {entry.get}"
        )

    key = hashlib.sha256(f"{FORMAT} {source.identity} {fraction!r}".encode()).hexdigest()
    path = cache.cache_folder() / f"{name}-{key[:24]}.images"
    held = cache.open_saved(path)
    if held is None:
        held = _split(name, entry, source.read(), fraction)
        cache.save(path, *held)
    arrays, facts = held
    tensors = {part: torch.from_numpy(array) for part, array in arrays.items()}
    return ImageData(
        name=f"{name}[{source.subset}]" if source.subset else name,
        classes=entry.classes,
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        crop_padding=entry.crop_padding,
        flip=entry.flip,
        fingerprint=facts["fingerprint"],
        **tensors,
    )


def held_out(labels: Labels, fraction: float) -> npt.NDArray[np.bool_]:
    """Which images are for validation: the same share of each class, spread evenly over the publishers' order.

    The images of a class are ranked by their number written backwards in binary (van der Corput's order: every other
    one, then every other one of the rest, ...) and the first are taken. So a smaller fraction is part of a larger one.

    Raises:
        BadInput: A class would have no image left on one side.

    >>> held_out(np.zeros(8, np.int64), 0.5).astype(int).tolist()
    [1, 0, 1, 0, 1, 0, 1, 0]
    >>> held_out(np.zeros(8, np.int64), 0.25).astype(int).tolist()
    [1, 0, 0, 0, 1, 0, 0, 0]
    """
    number = number_in_class(labels)
    backwards = np.zeros_like(number)
    for bit in range(32):
        backwards |= ((number >> bit) & 1) << (31 - bit)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = round(fraction * len(members))
        if not 0 < count < len(members):
            raise BadInput(
                f"valid_fraction {fraction}: takes {count} of the {len(members)} images of class {label}; "
                "at least one must be on each side"
            )
        held[members[np.argsort(backwards[members])[:count]]] = True
    return held


def _split(
    name: str, entry: Entry, parts: sources.Parts, fraction: float
) -> tuple[dict[str, npt.NDArray[np.generic]], JSON]:
    for images, labels in ((parts.train_images, parts.train_labels), (parts.test_images, parts.test_labels)):
        if images.dtype != np.uint8 or images.shape != (len(labels), *entry.shape):
            raise BadInput(f"{name}: images are {images.dtype} {images.shape}, not uint8 {(len(labels), *entry.shape)}")
        if not len(labels) or labels.min() < 0 or labels.max() >= entry.classes:
            raise BadInput(f"{name}: labels must be some of 0 to {entry.classes - 1}")
    held = held_out(parts.train_labels, fraction)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "train_images": parts.train_images[~held],
        "train_labels": parts.train_labels[~held],
        "valid_images": parts.train_images[held],
        "valid_labels": parts.train_labels[held],
        "test_images": parts.test_images.copy(),
        "test_labels": parts.test_labels.copy(),
    }
    mean, std = channel_statistics(parts.train_images[~held])
    fingerprint = hashlib.sha256()
    for part, array in arrays.items():
        fingerprint.update(f"{part} {array.shape}".encode())
        fingerprint.update(memoryview(array.astype(array.dtype.newbyteorder("<"), copy=False)))  # type: ignore[arg-type]
    return arrays, {"mean": mean, "std": std, "fingerprint": fingerprint.hexdigest()}


def channel_statistics(images: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel's pixels in [0, 1], from exact integer sums."""
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), 4096):
            counts += np.bincount(images[start : start + 4096, channel].ravel(), minlength=256)
        levels, total = np.arange(256), int(counts.sum())
        first, second = int(counts @ levels), int(counts @ levels**2)
        mean.append(first / total / 255)
        std.append((total * second - first * first) ** 0.5 / total / 255)
    return mean, std
