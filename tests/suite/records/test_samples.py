"""Samples that searches hand on: order, identity, replay, damage. test_journal is here too: it is the file's form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from suite.records.journal import Journal
from suite.records.samples import SampleDatabase
from suite.spaces import SPACES, SearchSpace
from suite.types import BadInput, Cost, Evaluation, Proxy, Trial

SPACE = SPACES["nas_bench_201"]
PROXY = Proxy(epochs=12, channels=16, resolution=32)
ARCHS = [(3, 2, 1, 1, 4, 2), (1, 1, 2, 0, 3, 1), (0, 0, 0, 0, 0, 0)]


def stores(folder: Path, run: str = "a", dataset: str = "toys", space: SearchSpace = SPACE) -> SampleDatabase:
    return SampleDatabase(folder, space, dataset, run=run)


def answers(*errors: float, proxy: Proxy = PROXY, origin: str = "") -> list[Evaluation]:
    trials = [Trial(arch, proxy, origin=origin) for arch in ARCHS]
    return [
        Evaluation(trial, {"val_error": error, "macs": 5.0}, Cost(1.0, "table:toy"))
        for trial, error in zip(trials, errors, strict=False)
    ]


def keep(into: SampleDatabase, given: list[Evaluation]) -> None:
    into.keep(given, [0.5] * len(given), [-9.5] * len(given))


def test_a_later_search_is_given_what_an_earlier_one_kept(tmp_path):
    keep(stores(tmp_path), answers(10.0, 20.0, math.inf))
    found = stores(tmp_path, "b").earlier(Trial(ARCHS[0], PROXY))
    assert found == [
        (ARCHS[0], {"val_error": 10.0, "macs": 5.0}, -9.5),
        (ARCHS[1], {"val_error": 20.0, "macs": 5.0}, -9.5),
        (ARCHS[2], {"val_error": math.inf, "macs": 5.0}, -9.5),
    ]


def test_only_samples_of_the_same_question_are_given(tmp_path):
    keep(stores(tmp_path), answers(10.0))
    keep(stores(tmp_path, "b", dataset="other"), answers(11.0))
    keep(stores(tmp_path, "c"), answers(12.0, proxy=Proxy(6, 16, 32)))
    keep(stores(tmp_path, "d"), answers(13.0, origin="pool"))
    asked = Trial(ARCHS[0], PROXY)
    assert [metrics["val_error"] for _, metrics, _ in stores(tmp_path, "e").earlier(asked)] == [10.0]
    assert stores(tmp_path, "f", space=SPACES["darts"]).earlier(asked) == []


def test_a_search_sees_what_stood_there_when_it_first_began(tmp_path):
    keep(stores(tmp_path), answers(10.0))
    first = stores(tmp_path, "b")
    keep(first, answers(20.0, 21.0))
    keep(stores(tmp_path, "c"), answers(30.0))
    again = stores(tmp_path, "b")
    assert again.earlier(Trial(ARCHS[0], PROXY)) == first.earlier(Trial(ARCHS[0], PROXY))
    assert len(again.earlier(Trial(ARCHS[0], PROXY))) == 1


def test_going_through_the_log_again_writes_nothing_twice(tmp_path):
    keep(stores(tmp_path), answers(10.0, 20.0))
    before = (tmp_path / "samples.jsonl").read_bytes()
    again = stores(tmp_path)
    keep(again, answers(10.0))
    keep(again, answers(10.0, 20.0)[1:])
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    keep(again, answers(30.0))
    assert len(stores(tmp_path, "b").earlier(Trial(ARCHS[0], PROXY))) == 3


def test_another_search_of_the_same_name_is_refused(tmp_path):
    keep(stores(tmp_path), answers(10.0, 20.0))
    with pytest.raises(
        BadInput, match=r"sample 0 of a is .*another search had this name; choose another folder or name"
    ):
        keep(stores(tmp_path), answers(10.0, 20.0)[1:])


def test_a_line_that_is_no_sample_is_named(tmp_path):
    keep(stores(tmp_path), answers(10.0, 20.0))
    file = tmp_path / "samples.jsonl"
    lines = file.read_text().splitlines()
    row = json.loads(lines[3])
    del row["log_probability"]
    file.write_text("\n".join([*lines[:3], json.dumps(row)]) + "\n")
    with pytest.raises(BadInput, match=r"samples\.jsonl:4: not a sample: KeyError"):
        stores(tmp_path, "b").earlier(Trial(ARCHS[0], PROXY))


# The journal


def journal(folder: Path, version: int = 1, **about: str) -> Journal:
    return Journal(folder / "journal.jsonl", "test file", version, {"space": "toy", **about})


def test_rows_come_back_in_order_and_the_first_line_says_what_it_is(tmp_path):
    journal(tmp_path).append([{"a": 1}, {"b": [2, "x"]}])
    assert journal(tmp_path).rows == [{"a": 1}, {"b": [2, "x"]}]
    first = (tmp_path / "journal.jsonl").read_text().splitlines()[0]
    assert json.loads(first) == {"kendall": "test file", "version": 1, "space": "toy"}


def test_several_writers_see_each_others_rows(tmp_path):
    one, other = journal(tmp_path), journal(tmp_path)
    one.append([{"n": 1}])
    other.append([{"n": 2}])
    one.append([{"n": 3}])
    other.refresh()
    assert one.rows == other.rows == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize("left", [0, 1, 7])
def test_a_torn_last_line_is_dropped_with_a_warning(tmp_path, left):
    journal(tmp_path).append([{"n": 1}, {"number": 2}])
    file = tmp_path / "journal.jsonl"
    content = file.read_bytes()
    last = content.rindex(b"{")
    file.write_bytes(content[: last + left])
    if left:
        with pytest.warns(UserWarning, match="the last line was torn by a kill; dropped"):
            found = journal(tmp_path)
    else:
        found = journal(tmp_path)
    assert found.rows == [{"n": 1}]
    found.append([{"n": 3}])
    assert journal(tmp_path).rows == [{"n": 1}, {"n": 3}]


def test_a_torn_first_line_is_a_new_file(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b'{"kendall": "test')
    with pytest.warns(UserWarning, match="torn"):
        assert journal(tmp_path).rows == []
    assert journal(tmp_path).rows == []


@pytest.mark.parametrize("line", [b"{]\n", b"[1]\n", b"\xff\xfe\n"])
def test_damage_elsewhere_is_one_error(tmp_path, line):
    journal(tmp_path).append([{"n": 1}])
    file = tmp_path / "journal.jsonl"
    head, rest = file.read_bytes().split(b"\n", 1)
    file.write_bytes(head + b"\n" + line + rest)
    with pytest.raises(BadInput, match=r"journal\.jsonl:2: not a line of a test file"):
        journal(tmp_path)


def test_another_kind_version_or_subject_is_refused(tmp_path):
    journal(tmp_path)
    with pytest.raises(BadInput, match="it is of version 1, not 2; choose another test file"):
        journal(tmp_path, version=2)
    with pytest.raises(BadInput, match="it is of space 'toy', not 'other'"):
        Journal(tmp_path / "journal.jsonl", "test file", 1, {"space": "other"})
    with pytest.raises(BadInput, match="it is of 'test file', not 'list'"):
        Journal(tmp_path / "journal.jsonl", "list", 1, {})
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(BadInput, match="it is of None, not 'test file'"):
        Journal(tmp_path / "other.jsonl", "test file", 1, {})


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written: "):
        Journal(tmp_path / "file" / "journal.jsonl", "test file", 1, {})
