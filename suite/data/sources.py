"""Where a data set's files may lie, in which layouts, and the published sums that they must have."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suite.data.cache import digest
from suite.data.formats import (
    Images,
    Labels,
    idx_bytes,
    in_order,
    parse_batch,
    parse_idx,
    read_npz,
    read_shard,
)
from suite.types import BadInput, Unsupported


@dataclass(frozen=True)
class Parts:
    """The publishers' two parts, each in the publishers' order."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


@dataclass(frozen=True)
class Source:
    """A data set found: what identifies its bytes, and how to decode them."""

    identity: str
    """Changes with any byte of the files and with what is taken from them."""
    subset: str
    """Which shards, if not all of them; empty for the whole data set."""
    read: Callable[[], Parts]


@dataclass(frozen=True)
class Batches:
    """CIFAR's python version: names and md5 sums as published."""

    folder: str
    archive: str
    archive_md5: str
    train: dict[str, str]
    test: dict[str, str]
    labels: str


BATCHES = {
    "cifar10": Batches(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        archive_md5="c58f30108f718f92721af3b95e74349a",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        labels="labels",
    ),
    "cifar100": Batches(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        labels="fine_labels",
    ),
}

SHARDS = {
    "train-1.npz": "dd6fa1aa780cef84aa2c5b4275e485a4140364a6bdecbe9ff89647f4833adc72",
    "train-2.npz": "be8e1845ed3110e8e97969f4a0d6d1edd443168f3211d46b66567f6805f9665d",
    "train-3.npz": "f376560e45c8bc5021e9d1f810a5cd4a2806e329692e2bc5ef391fa5d5a9658e",
    "train-4.npz": "30119170df1f15191ff56310fb82d2640194909827c34e9319feb3c32804b562",
    "train-5.npz": "0dc3a98d3a588b7ad59a788738a7b7c7f586bc98fe19e34f0c650845f8db392c",
    "test-1.npz": "6ae03e5d9e24bc358cd8da33ec250cd7f266a3798d4aa4af719c5c1a38f200cf",
    "test-2.npz": "2b0f1cc5f7f7ff2f2414bd680fc40c5fa51e9ded77b75532fe4552069c235f51",
}
"""CIFAR-10 as lossless WebP: sha256 of each shard."""
SHARD_STARTS = {"train": (0, 1000, 2000, 3000, 4000), "test": (0, 200)}
"""Shard k of a part holds, of each class, the images numbered from here to the next start, in the publishers' order."""

IDX = {
    "train-images-idx3-ubyte": (3, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (1, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (3, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (1, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
"""Fashion-MNIST's official files: dimensions, and sha256 of the decompressed bytes."""
FASHION_NPZ = {
    "train.npz": "5bfa29fde3fa4a28d2a8dd154bacfcb9f16b1a135071ec58e2b02ecdb3f220fa",
    "test.npz": "6f59f0597509f0b1bc31d9c13dc11de37f821a422386fd861a3b0f88a6100d7a",
}
"""Fashion-MNIST as plain arrays: sha256 of each file."""
FASHION_GZ_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""The publishers' md5 of the compressed files, for a download."""
DIGITS = "65e5b4619795efb40c1082f4c350c049e4ad552200d369b6ae99e21eef5e72c5"
"""sha256 over the pixels (uint8, 0..16) and labels (int64) of scikit-learn's digits."""
DIGITS_TEST_STRIDE = 5
"""Split rule: of each class, every fifth image is a test image."""

INSIDE = {
    "cifar10": ("cifar10", "cifar-10-batches-py"),
    "cifar100": ("cifar100", "cifar-100-python"),
    "fashion_mnist": ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST"),
}
"""Folders below a root in which the files may lie."""
SYSTEM = {"fashion_mnist": (Path("/usr/share/datasets/fashion-mnist"),)}
"""Where a Linux distribution installs them."""


def digits() -> Source:
    """Scikit-learn's digits; the publishers' order is the package's.

    Raises:
        BadInput: The installed scikit-learn holds other pixels than the ones known here.
    """

    def read() -> Parts:
        from sklearn.datasets import load_digits

        held = load_digits()
        levels, labels = held.images.astype(np.uint8)[:, None], held.target.astype(np.int64)
        found = hashlib.sha256(levels.tobytes() + labels.astype("<i8").tobytes()).hexdigest()
        if found != DIGITS:
            raise BadInput(
                f"scikit-learn's digits: sha256 {found}, known is {DIGITS}; install an official scikit-learn"
            )
        images = ((levels.astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)  # 0..16 to 0..255, rounded
        test = number_in_class(labels) % DIGITS_TEST_STRIDE == DIGITS_TEST_STRIDE - 1
        return Parts(images[~test], labels[~test], images[test], labels[test])

    return Source(f"digits {DIGITS} {DIGITS_TEST_STRIDE}", "", read)


def number_in_class(labels: Labels) -> Labels:
    """Each image's number among those of its class, from 0.

    >>> number_in_class(np.array([3, 5, 3, 3, 5])).tolist()
    [0, 0, 1, 2, 1]
    """
    number = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        number[members] = np.arange(len(members))
    return number


def bases(root: Path | None) -> list[Path]:
    """The folders to look in: the root alone if one is given, else $KENDALL_DATA and the user's data folder."""
    from platformdirs import user_data_path

    if root is not None:
        return [Path(root).expanduser()]
    given = os.environ.get("KENDALL_DATA")
    return [*([Path(given).expanduser()] if given else []), user_data_path("kendall")]


def find(
    name: str, root: Path | None, shards: Sequence[int] | None, test_shards: Sequence[int] | None, verify: bool
) -> Source | None:
    """The first place that holds the data set's files; None if none does.

    Raises:
        BadInput: Files are there, but damaged, incomplete, or of another data set.
        Unsupported: Shards of a data set that has none.
    """
    if (shards is not None or test_shards is not None) and name != "cifar10":
        raise Unsupported(f"{name}: comes in one piece; shards are for cifar10")
    chosen = {"train": _chosen("train", shards), "test": _chosen("test", test_shards)}
    if name == "digits":
        return digits()
    for folder in places(name, root):
        try:
            if name == "fashion_mnist":
                source = _idx(folder, verify) or _fashion_npz(folder, verify)
            else:
                source = _batches(name, folder, chosen, verify) or _archive(name, folder, chosen, verify)
                if source is None and name == "cifar10":
                    source = _shards(folder, chosen, verify)
        except OSError as error:
            raise BadInput(f"{name}: cannot look into {folder}: {error.strerror or error}") from error
        if source is not None:
            return source
    return None


def places(name: str, root: Path | None) -> list[Path]:
    """Every folder in which `find` looks, in order."""
    found = []
    for base in bases(root):
        for folder in (base, base / "images"):
            found += [folder, *(folder / inside for inside in INSIDE[name])]
    return found + (list(SYSTEM.get(name, ())) if root is None else [])


def _chosen(part: str, numbers: Sequence[int] | None) -> tuple[int, ...] | None:
    count = len(SHARD_STARTS[part])
    if numbers is None:
        return None
    if not numbers or any(number not in range(1, count + 1) for number in numbers):
        raise BadInput(f"cifar10: {part} shards must be some of {list(range(1, count + 1))}, not {list(numbers)}")
    return tuple(sorted(set(numbers)))


def _subset(chosen: dict[str, tuple[int, ...] | None]) -> str:
    """Which shards make up each part, where it is not all of them: "train-1.2 test-1"."""
    return " ".join(
        f"{part}-{'.'.join(map(str, numbers))}"
        for part, numbers in chosen.items()
        if numbers is not None and len(numbers) < len(SHARD_STARTS[part])
    )


def _identity(verify: bool, *facts: object) -> str:
    return json.dumps(["verified" if verify else "unverified", *facts])


def _check(path: Path, algorithm: str, expected: str, found: str, verify: bool) -> str:
    if verify and found != expected:
        raise BadInput(f"{path}: {algorithm} {found}, published is {expected}: damaged or another file; fetch it again")
    return found


def _missing(folder: Path, names: Iterable[str]) -> None:
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise BadInput(f"{folder}: incomplete, without {', '.join(absent)}; fetch the whole data set again")


# CIFAR's python version: a folder of batches, or the archive of that folder


def _batches(name: str, folder: Path, chosen: dict[str, tuple[int, ...] | None], verify: bool) -> Source | None:
    known = BATCHES[name]
    sums = {**known.train, **known.test}
    present = [file for file in sums if (folder / file).is_file()]
    if not present or (name == "cifar100" and not (folder / "train").is_file()):
        return None
    _missing(folder, sums)
    found = [_check(folder / file, "md5", md5, digest(folder / file, "md5"), verify) for file, md5 in sums.items()]

    def read() -> Parts:
        return _whole(name, lambda file: (folder / file).read_bytes(), folder, chosen, verify)

    return Source(_identity(verify, name, "batches", found, chosen), _subset(chosen), read)


def _archive(name: str, folder: Path, chosen: dict[str, tuple[int, ...] | None], verify: bool) -> Source | None:
    known = BATCHES[name]
    path = folder / known.archive
    if not path.is_file():
        return None
    found = _check(path, "md5", known.archive_md5, digest(path, "md5"), verify)

    def read() -> Parts:
        wanted = {f"{known.folder}/{file}": file for file in (*known.train, *known.test)}
        members: dict[str, bytes] = {}
        try:
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.name in wanted and member.isfile() else None
                    if content is not None:
                        members[wanted[member.name]] = content.read()
        except (OSError, EOFError, tarfile.TarError) as error:
            raise BadInput(f"{path}: truncated or damaged archive ({error}); fetch it again") from error
        absent = [file for file in wanted.values() if file not in members]
        if absent:
            raise BadInput(f"{path}: holds no {', '.join(absent)}; fetch it again")
        return _whole(name, members.__getitem__, path, chosen, verify)

    return Source(_identity(verify, name, "archive", found, chosen), _subset(chosen), read)


def _whole(
    name: str, content: Callable[[str], bytes], at: Path, chosen: dict[str, tuple[int, ...] | None], verify: bool
) -> Parts:
    known = BATCHES[name]

    def part(sums: dict[str, str], numbers: tuple[int, ...] | None, starts: tuple[int, ...]) -> tuple[Images, Labels]:
        parsed = []
        for file, md5 in sums.items():
            data = content(file)  # hashed once more: these very bytes are parsed
            _check(at / file, "md5", md5, hashlib.md5(data, usedforsecurity=False).hexdigest(), verify)
            parsed.append(parse_batch(data, known.labels, at / file))
        images, labels = (np.concatenate(column) for column in zip(*parsed, strict=True))
        if numbers is None:
            return images, labels
        shard = np.searchsorted(starts, number_in_class(labels), side="right")  # from 1
        kept = np.isin(shard, numbers)
        return images[kept], labels[kept]

    return Parts(
        *part(known.train, chosen["train"], SHARD_STARTS["train"]),
        *part(known.test, chosen["test"], SHARD_STARTS["test"]),
    )


# CIFAR-10 as shards


def _shards(folder: Path, chosen: dict[str, tuple[int, ...] | None], verify: bool) -> Source | None:
    held = {
        part: tuple(k for k in range(1, len(starts) + 1) if (folder / f"{part}-{k}.npz").is_file())
        for part, starts in SHARD_STARTS.items()
    }
    if not any(held.values()):
        return None
    for part, numbers in held.items():
        if not numbers:
            raise BadInput(f"{folder}: incomplete, without any {part}-*.npz; at least one is needed")
    taken = {part: chosen[part] or held[part] for part in held}
    files = {part: [folder / f"{part}-{k}.npz" for k in numbers] for part, numbers in taken.items()}
    _missing(folder, (file.name for part in files.values() for file in part))
    found = [
        _check(file, "sha256", SHARDS[file.name], digest(file, "sha256"), verify)
        for part in files.values()
        for file in part
    ]

    def read() -> Parts:
        train, test = (in_order(map(read_shard, files[part]), folder) for part in ("train", "test"))
        return Parts(*train, *test)

    return Source(_identity(verify, "cifar10", "shards", found, taken), _subset(dict(taken)), read)


# Fashion-MNIST


def _idx(folder: Path, verify: bool) -> Source | None:
    files = {file: _plain_or_gz(folder, file) for file in IDX}
    if not any(files.values()):
        return None
    _missing(folder, (file for file, path in files.items() if path is None))
    paths = {file: path for file, path in files.items() if path is not None}

    def read() -> Parts:
        arrays = []
        for file, path in paths.items():
            dimensions, sha256 = IDX[file]
            data = idx_bytes(path)
            array = parse_idx(data, dimensions, path)
            _check(path, "sha256", sha256, hashlib.sha256(data).hexdigest(), verify)
            arrays.append(array)
        train_images, train_labels, test_images, test_labels = arrays
        return Parts(
            train_images[:, None], train_labels.astype(np.int64), test_images[:, None], test_labels.astype(np.int64)
        )

    found = [digest(path, "sha256") for path in paths.values()]
    return Source(_identity(verify, "fashion_mnist", "idx", found), "", read)


def _plain_or_gz(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def _fashion_npz(folder: Path, verify: bool) -> Source | None:
    if not any((folder / file).is_file() for file in FASHION_NPZ):
        return None
    _missing(folder, FASHION_NPZ)
    found = [
        _check(folder / file, "sha256", sha256, digest(folder / file, "sha256"), verify)
        for file, sha256 in FASHION_NPZ.items()
    ]

    def read() -> Parts:
        train, test = (read_npz(folder / file, ("images", "labels")) for file in FASHION_NPZ)
        return Parts(train[0][:, None], train[1].astype(np.int64), test[0][:, None], test[1].astype(np.int64))

    return Source(_identity(verify, "fashion_mnist", "npz", found), "", read)


# Download, only when asked for


def download(name: str, root: Path | None) -> Path:
    """Fetch the publishers' files through torchvision's downloader; one appears once its published md5 was checked.

    Returns:
        The folder that they lie in.

    Raises:
        BadInput: No connection, a damaged download, or a folder that cannot be written.
    """
    from suite.data._torchvision import torchvision_module

    datasets, fetch = torchvision_module("datasets"), torchvision_module("datasets.utils").download_url
    folder = bases(root)[0]
    if name == "fashion_mnist":
        folder = folder / "FashionMNIST" / "raw"
        wanted = {file: (datasets.FashionMNIST.mirrors[0] + file, md5) for file, md5 in FASHION_GZ_MD5.items()}
    else:
        publisher = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        wanted = {BATCHES[name].archive: (publisher.url, BATCHES[name].archive_md5)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as aside:
            for file, (url, md5) in wanted.items():
                fetch(url, aside, file, md5)
                os.replace(Path(aside) / file, folder / file)
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{name}: the download into {folder} failed: {error}") from error
    return folder
