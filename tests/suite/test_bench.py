"""`kendall bench` on a handful of images: its figures belong together, and say what they are."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from suite import bench, cli
from suite.training.trainer import BACKWARD


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A few images, and a roofline from one call each."""
    for name, workload in bench.WORKLOADS.items():
        small = replace(workload, images=32, batch=16, proxy=replace(workload.proxy, channels=4, cells=1, resolution=8))
        monkeypatch.setitem(bench.WORKLOADS, name, small)
    roofline = bench.roofline
    monkeypatch.setattr(bench, "roofline", lambda device, dtype: roofline(device, dtype, 0.0))


def called(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["kendall", "bench", "--device", "cpu", "--workers", "1", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def test_figures_follow_from_images_a_second(monkeypatch, capsys, tmp_path):
    assert called(monkeypatch, "--proxy", "tiny", "--json", "--out", tmp_path / "bench.json") == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "bench.json").read_text()
    found = json.loads(printed)
    rooflines = {machine["precision"]: machine["matmul_macs_s"] for machine in found["machine"]}
    assert {row["workload"] for row in found["workloads"]} == {"tiny"}
    assert any("compiled" in row["setting"] for row in found["workloads"])
    macs = bench.SPACE.macs(bench.CELL, bench.WORKLOADS["tiny"].proxy) * (1 + BACKWARD)
    for row in found["workloads"]:
        assert row["candidates_h"] == pytest.approx(3600 * row["images_s"] / (12 * 25_000))
        most = rooflines["bfloat16" if "bfloat16" in row["setting"] else "float32"]
        assert row["share"] == pytest.approx(macs * row["images_s"] / most)


def test_every_figure_has_its_label_and_is_in_the_file_too(monkeypatch, capsys, tmp_path):
    assert called(monkeypatch, "--out", tmp_path / "bench.json") == 0
    shown, written = capsys.readouterr().out, json.loads((tmp_path / "bench.json").read_text())
    lines = shown.splitlines()
    title = next(line for line in lines if line.startswith("proxy"))
    assert all(word in title for word in ("images/s", "candidates/h", "s a candidate", "of roofline"))
    rows = [line for line in lines if line.split()[0] in bench.WORKLOADS]
    assert [line.split()[0] for line in rows] == [row["workload"] for row in written["workloads"]]
    assert all(len(line) == len(title) for line in rows)
    least = min(row["candidate_s"] for row in written["workloads"] if row["workload"] == "reference")
    assert f"12-epoch training (reference: C=16, N=5, 32x32): {least:,.0f} s in" in lines[-1]


def test_a_proxy_that_is_not_there_and_a_file_that_cannot_be_are_refused(monkeypatch, capsys, tmp_path):
    assert called(monkeypatch, "--proxy", "huge") == 2
    assert "no proxy 'huge'; there are tiny, small, narrow, reference" in capsys.readouterr().err
    assert called(monkeypatch, "--proxy", "tiny", "--out", tmp_path / "missing" / "x.json") == 2
    out, said = capsys.readouterr()
    assert "x.json: cannot be written: No such file or directory" in said
    assert "tiny" in out  # what was measured is not lost
