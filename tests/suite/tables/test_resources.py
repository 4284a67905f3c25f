"""Tables of resources: the format, HW-NAS-Bench and HELP against what was published, and the command."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.harness import SHARED, needs_shared, refused, toy_table

from suite import cli, tables
from suite.spaces import SPACES
from suite.tables import open_resources, open_table
from suite.tables.base import KINDS
from suite.tables.resources import DeviceSetting, ResourceTable
from suite.types import BadInput, Unsupported

MACRO, CELLS = SPACES["nas_bench_macro"], SPACES["nas_bench_201"]
PHONE, CHIP = DeviceSetting("toys", "phone", 1, 32, 32), DeviceSetting("toys", "chip", 0, 32, 32)


def toy() -> ResourceTable:
    latency = np.arange(MACRO.size) + 1.0
    energy = np.where(np.arange(MACRO.size) % 2, np.nan, 0.5)
    about = {"table": "toy", "source": "made up", "licence": "none"}
    return ResourceTable(MACRO, {PHONE: {"latency_ms": latency}, CHIP: {"energy_mj": energy}}, about)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The published tables by name, converted once."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KENDALL_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("KENDALL_DATA", str(SHARED / "data"))
    yield open_resources
    patch.undo()


# The format


def test_a_file_gives_back_every_number(tmp_path):
    held = toy()
    again = held.save(tmp_path / "toy.table")
    assert list(again.columns) == [PHONE, CHIP]
    for setting, columns in held.columns.items():
        for name, column in columns.items():
            np.testing.assert_array_equal(again.columns[setting][name], column)
    assert again.about == held.about
    assert len(again.fingerprint) == 64
    assert again.value(MACRO.at(7), PHONE, "latency_ms") == 8.0
    assert np.isnan(again.value(MACRO.at(7), CHIP, "energy_mj"))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda raw: raw[:40], "are no table"),
        (lambda raw: b"PK" + raw[2:], "not a table of ours"),
        (lambda raw: raw[:14] + b"9\n" + raw[16:], "another version"),
        (lambda raw: raw[:70] + b"?" + raw[71:], "header is damaged"),
        (lambda raw: raw[:-64], "bytes instead of"),
        (lambda raw: raw[:-1] + b"x", "damaged: SHA-256"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, complaint):
    path = tmp_path / "toy.table"
    toy().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=complaint):
        ResourceTable.open(path)


def test_each_kind_is_refused_where_the_other_is_needed(tmp_path):
    path = tmp_path / "toy.table"
    toy().save(path)
    with pytest.raises(BadInput, match="a table of resources, where a table of answers is needed"):
        open_table(path)
    with pytest.raises(BadInput, match="a table of answers, where a table of resources is needed"):
        open_resources(toy_table())
    with pytest.raises(BadInput, match=r"hw_nas_bench holds latency and energy, not answers: name it under \[\["):
        open_table("hw_nas_bench")
    with pytest.raises(BadInput, match="no table of resources 'nas_bench_macro'"):
        open_resources("nas_bench_macro")
    with pytest.raises(BadInput, match="no table of resources 'hw_nas': did you mean 'hw_nas_bench'"):
        open_resources("hw_nas")
    assert all(len(magic) == 16 for magic in KINDS)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (
            {"latency_ms": np.zeros(MACRO.size)},
            "latency_ms of .* on phone, toys must be above 0, or nan where .* not 0.0",
        ),
        ({"latency_ms": np.full(MACRO.size, np.inf)}, "must be above 0"),
        ({"latency_ms": np.ones(3)}, "has 3 of 6,561 numbers"),
        ({"latency": np.ones(MACRO.size)}, "no metric 'latency': did you mean 'latency_ms'"),
    ],
)
def test_a_wrong_column_is_refused(columns, complaint):
    with pytest.raises(BadInput, match=complaint):
        ResourceTable(MACRO, {PHONE: columns})


def test_what_is_not_there_is_named():
    with pytest.raises(Unsupported, match="no device 'phoen': did you mean 'phone'"):
        toy().setting("phoen", "toys")
    with pytest.raises(Unsupported, match="no data set 'cifar10' of phone: there are toys"):
        toy().setting("phone", "cifar10")


# HW-NAS-Bench


@needs_shared
def test_hw_nas_bench_has_the_numbers_that_its_readme_prints(opened):
    table = opened("hw_nas_bench")
    cell = CELLS.parse(
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    printed = {
        "edgegpu": {"latency_ms": 5.807418537139893, "energy_mj": 24.226614330768584},
        "raspi4": {"latency_ms": 10.481976820010459},
        "edgetpu": {"latency_ms": 0.9571811309997429},
        "pixel3": {"latency_ms": 3.6058499999999998},
        "eyeriss": {"latency_ms": 3.645620000000001, "energy_mj": 0.6872827644999999},
        "fpga": {"latency_ms": 2.57296, "energy_mj": 18.01072},
    }
    for device, numbers in printed.items():
        setting = table.setting(device, "cifar10")
        assert set(table.columns[setting]) == set(numbers)
        for metric, number in numbers.items():
            assert table.value(cell, setting, metric) == pytest.approx(number, rel=1e-6)


@needs_shared
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16-120"])
def test_the_edge_tpu_cannot_run_4699_cells_and_all_others_run_everything(opened, dataset):
    table = opened("hw_nas_bench")
    for setting, columns in table.columns.items():
        if setting.dataset == dataset:
            for column in columns.values():
                assert np.isnan(column).sum() == (4699 if setting.device == "edgetpu" else 0)
                assert np.nanmin(column) > 0


@needs_shared
def test_hw_nas_bench_has_three_data_sets_six_devices_and_three_energies(opened):
    table = opened("hw_nas_bench")
    assert len(table.columns) == 18
    assert sum("energy_mj" in columns for columns in table.columns.values()) == 9
    assert {(s.dataset, s.resolution) for s in table.columns} == {
        ("cifar10", 32), ("cifar100", 32), ("imagenet16-120", 16)
    }  # fmt: skip


# HELP


@needs_shared
@pytest.mark.parametrize(
    ("device", "edges", "latency_ms", "digits"),
    [
        ("gold_6226", "3 03 133", 14.3, 1),
        ("gold_6226", "1 30 121", 8.0, 1),
        ("pixel2", "3 33 132", 25.0, 0),
        ("titan_rtx_256", "3 02 120", 17.8, 1),
    ],
)
def test_help_has_the_latencies_of_its_published_search_results(opened, device, edges, latency_ms, digits):
    """Cells and latencies of its repository's data/nasbench201/architecture_config, operations as option numbers."""
    table = opened("help_latency")
    arch = tuple(map(int, edges.replace(" ", "")))
    assert round(table.value(arch, table.setting(device, "cifar10"), "latency_ms"), digits) == latency_ms


@needs_shared
def test_help_has_23_settings_none_missing_and_whole_milliseconds_on_phones(opened):
    table = opened("help_latency")
    assert len(table.columns) == 23
    assert {setting.dataset for setting in table.columns} == {"cifar10"}
    assert table.setting("titanxp_256", "cifar10").batch_size == 256
    for setting, columns in table.columns.items():
        latency = columns["latency_ms"]
        assert not np.isnan(latency).any()
        whole = setting.device in ("pixel2", "samsung_a50", "samsung_s7", "essential_ph_1")
        assert bool((latency == np.round(latency)).all()) is whole


@needs_shared
def test_a_larger_batch_takes_longer_on_every_gpu(opened):
    table = opened("help_latency")
    for gpu in ("1080ti", "2080ti", "titan_rtx", "titanx", "titanxp"):
        mean = {
            batch: table.columns[table.setting(f"{gpu}_{batch}", "cifar10")]["latency_ms"].mean() for batch in (32, 256)
        }
        assert mean[256] > 1.5 * mean[32]


# The command


@needs_shared
def test_a_converted_file_opens_in_milliseconds(opened, tmp_path):
    path = tmp_path / "hw.table"
    opened("hw_nas_bench").save(path)
    ResourceTable.open(path)
    began = time.perf_counter()
    for _ in range(5):
        ResourceTable.open(path)
    assert (time.perf_counter() - began) / 5 < 0.1


@needs_shared
def test_convert_checks_the_sha256_and_info_tells_what_is_there(opened, tmp_path, monkeypatch, capsys):
    source, out = SHARED / "data" / "nb201_help_latency.parquet", tmp_path / "help.table"
    digest = "e47f524c381519e60136b41d9d2225c7e705bca017389448f1d1823ca2ac463d"
    assert tables.convert("help_latency", source, out, sha256=digest) == out
    tables.convert("help_latency", source, out)  # over a table of its own kind
    assert "SHA-256" in refused(monkeypatch, capsys, "table", "convert", "help_latency", source, "--sha256", "0" * 64)
    cli.info(str(out), None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["table"] == "help_latency"
    assert told["architectures"] == 15_625
    assert len(told["settings"]) == 23
    assert told["settings"][0] == {
        "device": "1080ti_1", "dataset": "cifar10", "batch_size": 1, "network": "c16 r32", "metrics": ["latency_ms"],
        "cannot_run": 0,
    }  # fmt: skip
    cli.info(str(out), None)
    assert "device 1080ti_1, dataset cifar10, batch_size 1" in capsys.readouterr().out


def test_cells_are_named_by_a_file_that_must_lie_beside(tmp_path):
    lonely = tmp_path / "nb201_hw_nas_bench.parquet"
    lonely.write_bytes(b"")
    with pytest.raises(BadInput, match=r"its cells are named in nb201.parquet, which is not beside it"):
        tables.convert("hw_nas_bench", lonely, tmp_path / "out.table")
    with pytest.raises(BadInput, match=r"no file missing\.parquet; looked for"):
        tables.convert("hw_nas_bench", Path("missing.parquet"), tmp_path / "out.table")
