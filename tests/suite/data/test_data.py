"""Data sets: the readers against files made here, the published sums, the splits, the cache."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import lzma
import multiprocessing
import os
import pickle
import shutil
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suite.data import cache, sources
from suite.data.formats import parse_batch, parse_idx
from suite.data.images import DATASETS, ImageData, channel_statistics, held_out, load, number_in_class
from suite.types import BadInput, Unsupported

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
IMAGES = SHARED / "data" / "images"
needs_shared = pytest.mark.skipif(not IMAGES.exists(), reason="needs ../shared/data")
DEBIAN = sources.SYSTEM["fashion_mnist"][0]
PARTS = ("train", "valid", "test")


@pytest.fixture(autouse=True, scope="module")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KENDALL_CACHE", str(folder / "cache"))
        patch.setenv("XDG_DATA_HOME", str(folder / "home"))
        patch.delenv("KENDALL_DATA", raising=False)
        yield
    shutil.rmtree(folder, ignore_errors=True)  # hundreds of megabytes


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """CIFAR-10's python version, rebuilt from what `load` makes of the shards."""
    root = tmp_path_factory.mktemp("batches")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    data = load("cifar10", root=IMAGES)
    labels = np.empty(50_000, np.int64)
    for k in range(1, 6):
        with np.load(IMAGES / "cifar10" / f"train-{k}.npz") as shard:
            labels[shard["index"]] = shard["labels"]
    held = held_out(labels, 0.5)
    images = np.empty((60_000, 3, 32, 32), np.uint8)
    images[:50_000][~held], images[:50_000][held] = data.train_images.numpy(), data.valid_images.numpy()
    images[50_000:], labels = data.test_images.numpy(), np.concatenate([labels, data.test_labels.numpy()])
    names = lzma.decompress((IMAGES / "cifar10" / "filenames.txt.xz").read_bytes()).decode().split()
    for k in range(6):
        part = slice(10_000 * k, 10_000 * (k + 1))
        file, label = f"data_batch_{k + 1}", f"training batch {k + 1} of 5"
        if k == 5:
            file, label = "test_batch", "testing batch 1 of 1"
        (folder / file).write_bytes(python_2_batch(images[part], labels[part], names[part], label))
    yield root
    shutil.rmtree(root)


def python_2_batch(images: np.ndarray, labels: np.ndarray, names: list[str], label: str) -> bytes:
    """What Python 2's cPickle wrote of a batch: protocol 2, lists in runs of 1,000."""
    memo = iter(range(1, 1_000_000))

    def put() -> bytes:
        number = next(memo)
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode() + put()

    def run(items: list[Callable[[], bytes]]) -> bytes:
        out = b"]" + put()
        for start in range(0, len(items), 1000):
            out += b"(" + b"".join(item() for item in items[start : start + 1000]) + b"e"
        return out

    pixels = images.tobytes()
    return b"".join(
        [
            b"\x80\x02}" + put() + b"(" + text("batch_label") + text(label),
            text("labels") + run([lambda value=int(value): b"K" + bytes([value]) for value in labels]),
            text("data") + b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put(),
            b"K\x00\x85U\x01b\x87R" + put() + b"(K\x01M" + struct.pack("<H", len(images)) + b"M\x00\x0c\x86",
            b"cnumpy\ndtype\n" + put() + b"U\x02u1K\x00K\x01\x87R" + put(),
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", len(pixels)) + pixels,
            b"tb" + text("filenames") + run([lambda value=name: text(value) for name in names]) + b"u.",
        ]
    )


def small_batches(folder: Path, *, classes: int = 10, each: int = 4, key: str = "labels") -> Path:
    """A folder of the python version's schema with a few random images, written by today's pickle."""
    rng = np.random.default_rng(0)
    known = sources.BATCHES["cifar10" if key == "labels" else "cifar100"]
    (folder / known.folder).mkdir(parents=True)
    for file in (*known.train, *known.test):
        labels = np.tile(np.arange(classes), each)
        data = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        content = {"data": data, key: labels.tolist()}
        (folder / known.folder / file).write_bytes(pickle.dumps(content, protocol=4))
    return folder


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(folder: Path, *, compress: bool = False) -> Path:
    """Four idx files of the official names with 20 random images each."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for file, (dimensions, _) in sources.IDX.items():
        array = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8) if dimensions == 3 else np.arange(20) % 10
        content = idx(array.astype(np.uint8))
        (folder / (file + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)
    return folder


def keys(data: ImageData, part: str) -> list[bytes]:
    return [image.numpy().tobytes() for image in getattr(data, f"{part}_images")]


# Every data set at hand: what the parts must be


@pytest.fixture(scope="module", params=["digits", "fashion_mnist", "cifar10"])
def data(request: pytest.FixtureRequest) -> ImageData:
    if request.param != "digits" and not IMAGES.exists():
        pytest.skip("needs ../shared/data")
    return load(request.param, root=None if request.param == "digits" else SHARED / "data")


def test_parts_have_the_registered_shape_and_types(data):
    entry = DATASETS[data.name]
    for part in PARTS:
        images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert tuple(images.shape) == (len(labels), *entry.shape)
        assert set(labels.tolist()) == set(range(entry.classes))


def test_validation_is_the_registered_share_of_each_class_of_the_training_part(data):
    train, valid = data.train_labels.bincount(), data.valid_labels.bincount()
    expected = [round(DATASETS[data.name].valid_fraction * n) for n in (train + valid).tolist()]
    assert valid.tolist() == expected


def test_mean_and_deviation_are_those_of_the_training_part(data):
    pixels = data.train_images[:5000].double() / 255
    mean, std = channel_statistics(data.train_images[:5000].numpy())
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-9)
    whole = channel_statistics(data.train_images.numpy())
    assert (data.mean, data.std) == tuple(map(tuple, whole))


@pytest.mark.parametrize(
    ("name", "options"),
    [("digits", {"valid_fraction": 0.1}), pytest.param("cifar10", {"shards": (1,)}, marks=needs_shared)],
)
def test_test_part_depends_on_nothing_but_its_own_files(name, options):
    root = IMAGES if name == "cifar10" else None
    one, other = load(name, root=root), load(name, root=root, **options)
    assert torch.equal(one.test_images, other.test_images)
    assert torch.equal(one.test_labels, other.test_labels)
    assert one.fingerprint != other.fingerprint


def test_to_keeps_everything(data):
    moved = data.to("cpu")
    assert (moved.fingerprint, moved.mean, moved.device.type) == (data.fingerprint, data.mean, "cpu")
    assert torch.equal(moved.valid_images, data.valid_images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_to_cuda_moves_all_six_tensors():
    moved = load("digits").to("cuda")
    assert {getattr(moved, f"{part}_{what}").device.type for part in PARTS for what in ("images", "labels")} == {"cuda"}
    assert torch.equal(moved.train_images.cpu(), load("digits").train_images)


# The splits


def test_digits_are_scikit_learns_and_their_grey_levels_can_be_had_back():
    from sklearn.datasets import load_digits

    data = load("digits")
    ours = torch.cat([data.train_images, data.valid_images, data.test_images])[:, 0].numpy().astype(int)
    theirs = load_digits().images.astype(np.uint8)
    assert set(np.unique(ours)) <= {round(level * 255 / 16) for level in range(17)}
    back = ((ours * 16 + 127) // 255).astype(np.uint8)
    assert sorted(image.tobytes() for image in back) == sorted(image.tobytes() for image in theirs)


def test_digits_test_part_is_every_fifth_of_each_class_forever():
    from sklearn.datasets import load_digits

    labels = load_digits().target
    expected = [label for label, number in zip(labels, number_in_class(labels), strict=True) if number % 5 == 4]
    data = load("digits")
    assert data.test_labels.tolist() == expected
    assert hashlib.sha256(data.test_images.numpy().tobytes()).hexdigest().startswith("747b8e40cc4d21a2")


@pytest.mark.parametrize("fraction", [0.01, 0.2, 1 / 3, 0.5, 0.9])
def test_a_smaller_validation_part_is_inside_a_larger_one(fraction):
    labels = np.random.default_rng(0).integers(0, 7, 5000)
    assert not (held_out(labels, fraction) & ~held_out(labels, 0.95)).any()
    assert held_out(labels, fraction).sum() == sum(round(fraction * n) for n in np.bincount(labels))


def test_validation_is_spread_over_the_publishers_order():
    held = held_out(np.zeros(4096, np.int64), 1 / 4)
    assert (held.reshape(-1, 64).sum(1) == 16).all()


def test_splits_share_no_image():
    data = load("digits")
    train, valid, test = (keys(data, part) for part in PARTS)
    assert len({*train, *valid, *test}) == 1797 == len(train) + len(valid) + len(test)


@needs_shared
def test_half_the_cifar_shards_validation_images_are_the_same_as_the_wholes():
    part = load("cifar10", root=IMAGES, shards=(2,), test_shards=(1,))
    assert part.name == "cifar10[train-2 test-1]"
    assert (len(part.train_labels), len(part.valid_labels), len(part.test_labels)) == (5000, 5000, 2000)
    whole = load("cifar10", root=IMAGES)
    assert set(keys(part, "train")) <= set(keys(whole, "train"))
    assert set(keys(part, "valid")) <= set(keys(whole, "valid"))
    assert set(keys(part, "test")) <= set(keys(whole, "test"))


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan"), 0.0001])
def test_a_validation_fraction_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(BadInput, match=r"valid_fraction"):
        load("digits", valid_fraction=fraction)


# CIFAR


@needs_shared
def test_shards_give_the_published_python_batches_and_these_the_same_data(batches):
    known = sources.BATCHES["cifar10"]
    for file, md5 in {**known.train, **known.test}.items():
        assert hashlib.md5((batches / known.folder / file).read_bytes()).hexdigest() == md5
    ours, theirs = load("cifar10", root=IMAGES), load("cifar10", root=batches)
    assert ours.fingerprint == theirs.fingerprint
    some = {"shards": (1,), "test_shards": (1,)}
    assert load("cifar10", root=IMAGES, **some).fingerprint == load("cifar10", root=batches, **some).fingerprint


@needs_shared
def test_cifar10_has_the_published_channel_statistics():
    data = load("cifar10", root=IMAGES)
    both = torch.cat([data.train_images, data.valid_images]).numpy()
    mean, std = channel_statistics(both)
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert std == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)


@needs_shared
def test_shards_present_are_the_default_and_the_name_says_which(tmp_path):
    (tmp_path / "cifar10").mkdir()
    for file in ("train-1.npz", "test-1.npz"):
        (tmp_path / "cifar10" / file).symlink_to(IMAGES / "cifar10" / file)
    data = load("cifar10", root=tmp_path)
    assert data.name == "cifar10[train-1 test-1]"
    assert data.fingerprint == load("cifar10", root=IMAGES, shards=[1], test_shards=[1]).fingerprint
    with pytest.raises(BadInput, match=r"without train-2\.npz"):
        load("cifar10", root=tmp_path, shards=(1, 2))
    (tmp_path / "cifar10" / "test-1.npz").unlink()
    with pytest.raises(BadInput, match=r"without any test-\*\.npz"):
        load("cifar10", root=tmp_path)


@needs_shared
def test_a_damaged_shard_is_refused_with_both_sums_even_when_the_cache_is_warm(tmp_path):
    for file in ("train-1.npz", "test-1.npz"):
        shutil.copy(IMAGES / "cifar10" / file, tmp_path)
        (tmp_path / file).chmod(0o644)
    load("cifar10", root=tmp_path)
    with (tmp_path / "test-1.npz").open("r+b") as file:
        file.seek(100_000)
        file.write(b"?")
    with pytest.raises(
        BadInput, match=rf"test-1\.npz: sha256 [0-9a-f]{{64}}, published is {sources.SHARDS['test-1.npz']}"
    ):
        load("cifar10", root=tmp_path)


@pytest.mark.parametrize(("name", "key", "classes"), [("cifar10", "labels", 10), ("cifar100", "fine_labels", 100)])
def test_python_batches_of_ones_own_are_read_when_asked_and_refused_otherwise(tmp_path, name, key, classes):
    root = small_batches(tmp_path, classes=classes, key=key)
    with pytest.raises(BadInput, match=r"md5 [0-9a-f]{32}, published is [0-9a-f]{32}"):
        load(name, root=root)
    data = load(name, root=root, verify=False)
    known = sources.BATCHES[name]
    first = pickle.loads((root / known.folder / next(iter(known.train))).read_bytes())["data"]
    assert len(data.train_labels) == len(data.valid_labels) == len(known.train) * classes * 2
    assert {image.reshape(-1).tobytes() for image in first} <= {*keys(data, "train"), *keys(data, "valid")}
    assert load(name, root=root / known.folder, verify=False).fingerprint == data.fingerprint


def test_the_archive_is_read_without_unpacking_and_its_sum_checked(tmp_path):
    root = small_batches(tmp_path / "folder")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    with pytest.raises(BadInput, match=r"tar\.gz: md5 [0-9a-f]{32}, published is c58f30108f718f92721af3b95e74349a"):
        load("cifar10", root=tmp_path)
    data = load("cifar10", root=tmp_path, verify=False)
    assert data.fingerprint == load("cifar10", root=root, verify=False).fingerprint
    archive.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(BadInput, match="truncated or damaged archive"):
        load("cifar10", root=tmp_path, verify=False)


class _Malice:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("call", [os.mkdir, eval, np.load, exec])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, call, protocol):
    victim = tmp_path / "victim"
    arguments = (f"__import__('os').mkdir({str(victim)!r})",) if call in (eval, exec) else (str(victim),)
    data = pickle.dumps({"labels": [0], "data": _Malice(call, *arguments)}, protocol=protocol)
    with pytest.raises(BadInput, match="not a CIFAR python batch: it names"):
        parse_batch(data, "labels", tmp_path / "data_batch_1")
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"data": np.zeros((2, 3072), np.uint8)},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((2, 3071), np.uint8), "labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]},
        {"data": np.asfortranarray(np.zeros((2, 3072), np.uint8)), "labels": [1, 2]},
        {"data": [0], "labels": [1]},
        [1, 2],
    ],
)
def test_a_pickle_of_another_schema_is_refused(content):
    with pytest.raises(BadInput, match="not a CIFAR python batch"):
        parse_batch(pickle.dumps(content, protocol=4), "labels", Path("data_batch_1"))


def test_a_truncated_pickle_is_refused_wherever_it_is_cut():
    whole = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [3]}, protocol=4)
    assert parse_batch(whole, "labels", Path("b"))[1].tolist() == [3]
    for size in range(0, len(whole), 97):
        with pytest.raises(BadInput):
            parse_batch(whole[:size], "labels", Path("b"))


@pytest.mark.parametrize("shards", [(), (0,), (6,), (1, 7)])
def test_shards_that_do_not_exist_are_refused(shards):
    with pytest.raises(BadInput, match=r"train shards must be some of \[1, 2, 3, 4, 5\]"):
        load("cifar10", root=IMAGES, shards=shards)
    with pytest.raises(Unsupported, match="shards are for cifar10"):
        load("digits", shards=(1,))


# Fashion-MNIST


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.zeros((0, 28, 28), np.uint8)])
def test_idx_reader_returns_what_was_written(array):
    assert np.array_equal(parse_idx(idx(array), 3, Path("images")), array)


@pytest.mark.parametrize("size", [0, 3, 4, 15, 16, 39, 41])
def test_idx_of_the_wrong_size_is_refused(size):
    whole = idx(np.zeros((2, 3, 4), np.uint8)) + b"too much"
    with pytest.raises(BadInput, match=r"images: (starts with|truncated idx header|holds)"):
        parse_idx(whole[:size], 3, Path("images"))


@pytest.mark.parametrize("magic", [b"\0\0\x08\x01", b"\0\0\x0d\x03", b"\x1f\x8b\x08\x03", b"PK\x03\x04"])
def test_idx_with_another_magic_number_is_refused(magic):
    with pytest.raises(BadInput, match="starts with"):
        parse_idx(magic + bytes(60), 3, Path("images"))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw", "images/fashion-mnist"])
def test_fashion_mnist_layouts_are_recognised_and_strange_files_refused(tmp_path, below, compress):
    write_fashion(tmp_path / "root" / below, compress=compress)
    data = load("fashion_mnist", root=tmp_path / "root", valid_fraction=0.5, verify=False)
    assert (len(data.train_labels), len(data.test_labels)) == (10, 20)
    with pytest.raises(BadInput, match=r"train-images-idx3-ubyte(\.gz)?: sha256 [0-9a-f]{64}, published is c59f468a"):
        load("fashion_mnist", root=tmp_path / "root")


def test_truncated_gzip_and_missing_idx_files_are_refused(tmp_path):
    folder = write_fashion(tmp_path / "fashion-mnist", compress=True)
    cut = folder / "t10k-images-idx3-ubyte.gz"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"t10k-images-idx3-ubyte\.gz: truncated or damaged gzip"):
        load("fashion_mnist", root=tmp_path, verify=False)
    cut.unlink()
    with pytest.raises(BadInput, match="incomplete, without t10k-images-idx3-ubyte"):
        load("fashion_mnist", root=tmp_path, verify=False)


@needs_shared
@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_debians_idx_files_and_the_npz_files_are_the_same_data():
    assert load("fashion_mnist").fingerprint == load("fashion_mnist", root=IMAGES).fingerprint


@needs_shared
def test_a_truncated_npz_is_refused(tmp_path):
    for file in sources.FASHION_NPZ:
        (tmp_path / file).write_bytes((IMAGES / "fashion-mnist" / file).read_bytes()[:-1000])
    with pytest.raises(BadInput, match=r"train\.npz: sha256"):
        load("fashion_mnist", root=tmp_path)
    with pytest.raises(BadInput, match=r"train\.npz: not a readable npz"):
        load("fashion_mnist", root=tmp_path, verify=False)


def test_an_npz_with_a_pickle_inside_is_refused(tmp_path):
    for file in sources.FASHION_NPZ:
        np.savez(tmp_path / file, images=np.array([{}], object), labels=np.zeros(1, np.uint8))
    with pytest.raises(BadInput, match="not a readable npz"):
        load("fashion_mnist", root=tmp_path, verify=False)


# Finding


def test_missing_data_says_where_it_looked_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_DATA", str(tmp_path / "mine"))
    with pytest.raises(BadInput) as caught:
        load("cifar100")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "cifar100: not found in",
        str(tmp_path / "mine"),
        os.environ["XDG_DATA_HOME"],
        "cifar-100-python.tar.gz",
    ):
        assert part in message


def test_kendall_data_is_looked_in_and_an_explicit_root_is_the_only_place(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_DATA", str(small_batches(tmp_path / "here")))
    assert len(load("cifar10", verify=False).test_labels) == 40
    with pytest.raises(BadInput, match="elsewhere"):
        load("cifar10", root=tmp_path / "elsewhere", verify=False)


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(BadInput, match="did you mean 'cifar10'"):
        load("cifar-10")


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "publisher"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_appears_only_if_it_is_the_published_one(tmp_path, monkeypatch, publisher):
    from suite.data._torchvision import torchvision_module

    folder, address = publisher
    content = (folder / "cifar-100-python.tar.gz", b"not the archive")
    content[0].write_bytes(content[1])
    monkeypatch.setattr(torchvision_module("datasets").CIFAR100, "url", f"{address}/cifar-100-python.tar.gz")
    with pytest.raises(BadInput, match=r"cifar100: the download into .* failed: File not found or corrupted"):
        load("cifar100", root=tmp_path / "root", download=True)
    assert not list((tmp_path / "root").iterdir())

    known = dataclasses.replace(sources.BATCHES["cifar100"], archive_md5=hashlib.md5(content[1]).hexdigest())
    monkeypatch.setitem(sources.BATCHES, "cifar100", known)
    with pytest.raises(BadInput, match="truncated or damaged archive"):  # it arrived, and is then read by our reader
        load("cifar100", root=tmp_path / "root", download=True)
    assert [file.name for file in (tmp_path / "root").iterdir()] == ["cifar-100-python.tar.gz"]


# The cache


def test_a_cut_off_or_damaged_cache_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_CACHE", str(tmp_path))
    first = load("digits")
    (file,) = (tmp_path / "images").glob("digits-*.images")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-5000] ^= 1
    for damaged in (b"", whole[:10], whole[:4096], whole[:-1], whole + b"?", bytes(flipped), b"?" * len(whole)):
        file.unlink()
        file.write_bytes(damaged)
        again = load("digits")
        assert torch.equal(first.train_images, again.train_images)
        assert file.read_bytes() == whole


def test_a_change_to_loaded_images_does_not_reach_the_cache():
    first = load("digits")
    value = int(first.test_images[0, 0, 0, 0])
    first.test_images[0, 0, 0, 0] = 255 - value
    assert int(load("digits").test_images[0, 0, 0, 0]) == value


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KENDALL_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="decoded images are not kept"):
        assert len(load("digits").test_labels) == 355


def _write_for_ever(path: Path, value: int) -> None:
    while True:
        cache.save(path, {"a": np.full(300_000, value, np.uint8)}, {"value": value})


def test_two_writers_killed_at_any_moment_leave_a_whole_file(tmp_path):
    path = tmp_path / "shared.images"
    start = multiprocessing.get_context("fork")
    for _ in range(5):
        writers = [start.Process(target=_write_for_ever, args=(path, value), daemon=True) for value in (1, 2)]
        for writer in writers:
            writer.start()
        stop = time.monotonic() + 0.1
        while time.monotonic() < stop or not path.exists():
            held = cache.open_saved(path)
            if held is not None:
                assert (held[0]["a"] == held[1]["value"]).all()
            else:
                assert not path.exists() or cache.open_saved(path) is not None
        for writer in writers:
            writer.kill()
            writer.join()
        assert cache.open_saved(path) is not None


def test_half_written_files_of_killed_processes_are_swept_up(tmp_path):
    (tmp_path / "x.images.dead.tmp").write_bytes(b"half")
    os.utime(tmp_path / "x.images.dead.tmp", (0, 0))
    (tmp_path / "x.images.live.tmp").write_bytes(b"half")
    cache.save(tmp_path / "y.images", {"a": np.zeros(3)}, {})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.images.live.tmp", "y.images"]


def test_a_remembered_digest_is_forgotten_when_the_file_changes(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one")
    os.utime(file, (0, 0))
    assert cache.digest(file, "sha256") == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, (0, 0))
    assert cache.digest(file, "sha256") == hashlib.sha256(b"two").hexdigest()


@needs_shared
def test_the_second_load_of_cifar10_is_quick():
    load("cifar10", root=IMAGES)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        load("cifar10", root=IMAGES)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3
