"""A folder of results belongs to one spec, one set of data and one process; nothing in it is overwritten by others."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import resource
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.harness import command, live_study_content, refused, run_content, surroundings, toy_table, write_spec
from hypothesis import given
from hypothesis import strategies as st

from suite import commands as jobs
from suite.records.folder import ENVIRONMENT, RESULTS, SPEC, Folder, cell
from suite.spec.reading import check
from suite.spec.run import RunSpec
from suite.spec.study import StudySpec
from suite.types import BadInput

ONE = {"name": "one", "seeds": 3, "budget": {"device_s": 5.0}}
OTHER = {"name": "one", "seeds": 4, "budget": {"device_s": 5.0}}
DATA = {"data": {"toys": "abc"}}


def begun(path: Path, result: str = "trials.jsonl") -> Path:
    with Folder(path, ONE) as folder:
        folder.describe(DATA)
        (path / result).write_text("something\n")
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_new_folder_holds_the_spec_and_where_it_ran(tmp_path):
    with Folder(tmp_path / "a" / "b", ONE) as folder:
        folder.describe(DATA)
    assert tomllib.loads((tmp_path / "a" / "b" / SPEC).read_text()) == ONE
    assert json.loads((tmp_path / "a" / "b" / ENVIRONMENT).read_text()) == DATA


def test_the_same_spec_goes_on(tmp_path):
    path = begun(tmp_path / "f")
    before = contents(path)
    with Folder(path, ONE) as folder:
        folder.describe({**DATA, "commit": "another"})
    assert contents(path) == before  # where it was begun is not rewritten


@pytest.mark.parametrize("result", RESULTS)
def test_another_specs_results_are_refused_and_left_alone(tmp_path, result):
    path = begun(tmp_path / "f", result)
    before = contents(path)
    with pytest.raises(BadInput, match=r"f: holds results of another spec \(seeds was 3, is 4\); choose another --out"):
        Folder(path, OTHER)
    assert contents(path) == before


def test_a_key_that_only_one_spec_has_is_named(tmp_path):
    path = begun(tmp_path / "f")
    with pytest.raises(BadInput, match=r"\(budget.evaluations was None, is 7\)"):
        Folder(path, {**ONE, "budget": {"device_s": 5.0, "evaluations": 7}})


def test_a_folder_without_results_takes_a_corrected_spec(tmp_path):
    with Folder(tmp_path, OTHER):
        pass
    with Folder(tmp_path, ONE):
        pass
    assert tomllib.loads((tmp_path / SPEC).read_text()) == ONE


def test_results_without_a_spec_are_somebody_elses(tmp_path):
    (tmp_path / "leaderboard.csv").write_text("mine\n")
    with pytest.raises(BadInput, match=r"holds a leaderboard.csv without its spec.resolved.toml; choose another --out"):
        Folder(tmp_path, ONE)
    assert contents(tmp_path) == {"leaderboard.csv": b"mine\n"}


@pytest.mark.parametrize("damage", [b"seeds =", b"\xff\xfe"])
def test_a_damaged_spec_is_refused(tmp_path, damage):
    path = begun(tmp_path)
    (path / SPEC).write_bytes(damage)
    with pytest.raises(BadInput, match=r"spec.resolved.toml: damaged: .*; choose another --out"):
        Folder(path, ONE)


def test_results_of_other_data_are_refused(tmp_path):
    with (
        Folder(begun(tmp_path), ONE) as folder,
        pytest.raises(BadInput, match=r"holds results of other data \(toys was abc, is abd\); choose another --out"),
    ):
        folder.describe({"data": {"toys": "abd"}})


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"data": 3}'])
def test_a_damaged_environment_is_refused(tmp_path, damage):
    (begun(tmp_path) / ENVIRONMENT).write_text(damage)
    with Folder(tmp_path, ONE) as folder, pytest.raises(BadInput, match=r"environment.json: damaged: "):
        folder.describe(DATA)


def test_without_resume_a_folder_in_use_is_refused_and_a_new_one_is_not(tmp_path):
    path = begun(tmp_path / "used")
    with pytest.raises(BadInput, match="used: is not empty; choose another --out, or remove --no-resume"):
        Folder(path, ONE, resume=False)
    with Folder(tmp_path / "new", ONE, resume=False):
        pass


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    with Folder(tmp_path, ONE):
        before = contents(tmp_path)
        with pytest.raises(BadInput, match="another process is at work in it; wait for it or choose another --out"):
            Folder(tmp_path, OTHER)
        assert contents(tmp_path) == before
    with Folder(tmp_path, ONE):
        pass


def test_a_refused_folder_is_not_held(tmp_path):
    begun(tmp_path)
    for _ in range(2):
        with pytest.raises(BadInput, match="another spec"):
            Folder(tmp_path, OTHER)
    with Folder(tmp_path, ONE):
        pass


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="file: cannot be written: File exists; choose another --out or make room"):
        Folder(tmp_path / "file", ONE)
    with pytest.raises(BadInput, match="below: cannot be written: Not a directory"):
        Folder(tmp_path / "file" / "below", ONE)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_folder_that_cannot_be_written_is_one_line():
    with pytest.raises(BadInput, match=r"/proc/results: cannot be written: .*; choose another --out or make room"):
        Folder(Path("/proc/results"), ONE)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    with Folder(tmp_path, ONE) as folder:
        folder.write("leaderboard.csv", "old\n")
        (tmp_path / ".leaderboard.csv.part").mkdir()  # what is written next cannot be put together
        with pytest.raises(BadInput, match=r"leaderboard.csv: cannot be written: Is a directory"):
            folder.write("leaderboard.csv", "new\n")
    assert (tmp_path / "leaderboard.csv").read_text() == "old\n"


CELLS = {"nothing": (None, ""), "nan": (math.nan, ""), "inf": (math.inf, "inf"), "-inf": (-math.inf, "-inf"),
         "third": (1 / 3, "0.3333333333"), "whole": (2.0, "2"), "large": (1.5e15, "1.5e+15"), "int": (15625, "15625"),
         "text": ('a,"b"\nü', 'a,"b"\nü'), "numpy": (np.float64(np.nan), "")}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_a_table(tmp_path, name):
    value, expected = CELLS[name]
    with Folder(tmp_path, ONE) as folder:
        folder.write_csv("x.csv", ("first", "second"), [{"first": "a", "second": value}, {"first": "b"}])
    text = (tmp_path / "x.csv").read_text(encoding="utf-8")
    assert text.startswith("first,second\na,")
    assert "\r" not in text
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["first", "second"], ["a", expected], ["b", ""]]


@given(st.floats(-1e300, 1e300))
def test_ten_digits_of_any_number_come_back(value):
    assert float(str(cell(value))) == pytest.approx(value, rel=1e-9, abs=1e-300)


# What run and study do with it


def do(kind: type, content: dict, out: Path, **more: object) -> Path:
    job = jobs.run if kind is RunSpec else jobs.conduct
    return job(check(kind, content, "test"), out, base=out.parent, command="kendall test", **more)


def test_a_finished_folder_run_again_stays_byte_for_byte(tmp_path):
    content = run_content(toy_table())
    before = contents(do(RunSpec, content, tmp_path / "f"))
    assert contents(do(RunSpec, content, tmp_path / "f")) == before


def test_a_table_that_changed_meanwhile_is_refused(tmp_path):
    table = tmp_path / "my.table"
    table.write_bytes(toy_table(seed=0).read_bytes())
    content = run_content(table)
    before = contents(do(RunSpec, content, tmp_path / "f"))
    table.write_bytes(toy_table(seed=1).read_bytes())
    with pytest.raises(BadInput, match=r"f: holds results of other data \(table:toy toys was "):
        do(RunSpec, content, tmp_path / "f")
    assert contents(tmp_path / "f") == before


def test_nothing_is_made_before_the_spec_is_known_to_work(tmp_path):
    """Else a live study could not begin with --no-resume, and a refused spec would leave a folder behind."""
    spec = check(StudySpec, live_study_content(), "test")
    jobs.open_problems(spec, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def flipped(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: os.truncate(path, 100_000), r".*my.table: 100,000 bytes instead of .*; convert again"),
    "wrong hash": (lambda path: path.write_bytes(flipped(path.read_bytes())), r".*my.table: damaged: SHA-256 .*"),
    "no table": (lambda path: path.write_text("x" * 99), r".*my.table: not a table of ours; .*"),
    "missing": (lambda path: path.unlink(), r".*no file .*my.table; looked for .*"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_table_is_refused_before_a_folder_is_made(tmp_path, monkeypatch, capsys, how):
    spoil, complaint = SPOILT[how]
    table = tmp_path / "my.table"
    table.write_bytes(toy_table().read_bytes())
    spoil(table)
    spec = write_spec(tmp_path / "spec.toml", run_content(table))
    said = refused(monkeypatch, capsys, "run", spec, "--out", tmp_path / "out")
    assert_matches(said, complaint)
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_a_folder_of_another_spec(tmp_path, monkeypatch, capsys):
    out = do(RunSpec, run_content(toy_table()), tmp_path / "out")
    before = contents(out)
    spec = write_spec(tmp_path / "spec.toml", run_content(toy_table(), seeds=5))
    said = refused(monkeypatch, capsys, "run", spec, "--out", out)
    assert_matches(said, r".*out: holds results of another spec \(seeds was 3, is 5\); choose another --out")
    assert contents(out) == before


def test_a_disk_that_fills_up_is_one_line_and_with_room_the_same_command_ends_the_same(tmp_path):
    spec = write_spec(tmp_path / "spec.toml", run_content(toy_table()))
    full = subprocess.run(
        command("run", spec, "--out", tmp_path / "out"), capture_output=True, text=True, env=surroundings(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)), check=False,
    )  # fmt: skip
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1] == (
        f"kendall: {tmp_path / 'out' / 'trials.jsonl'}: File too large; make room and run the same command again"
    )
    assert "Traceback" not in full.stderr
    checked, words = check(RunSpec, run_content(toy_table()), "test"), f"kendall run {spec}"
    with pytest.warns(UserWarning, match="the last line was torn by a kill"):
        jobs.run(checked, tmp_path / "out", base=tmp_path, command=words)
    jobs.run(checked, tmp_path / "other", base=tmp_path, command=words)
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def assert_matches(text: str, pattern: str) -> None:
    assert re.fullmatch(pattern, text), text
