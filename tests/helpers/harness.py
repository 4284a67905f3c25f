"""A toy table, specs on it, and the command: what tests of the harness share."""

from __future__ import annotations

import csv
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w
from helpers.analytic import quality, seconds_an_epoch

from suite import cli
from suite.spaces import SPACES
from suite.tables.base import Table

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")

SPACE = SPACES["nas_bench_macro"]
EPOCHS = 50
SHORT = 10
"""A proxy of the toy table, beside the full 50 epochs; both have the stage SHORT / 2."""


def toy_frame(*, test: bool = True, runs: int = 2, seed: int = 0, failing: float = 0.0) -> pd.DataFrame:
    """Every network of NAS-Bench-Macro with made-up errors; deterministic.

    Args:
        test: With a test split (a mean over seeds), else validation only.
        runs: Training runs of each network.
        seed: Of the noise of the test errors; the validation errors do not depend on it.
        failing: Share of networks whose validation error is infinite.
    """
    archs = list(SPACE)
    texts = [SPACE.text(arch) for arch in archs]
    truth = np.array([quality(arch) for arch in archs])
    seconds = np.array([seconds_an_epoch(arch) for arch in archs])
    noise, fails = np.random.default_rng(99), np.random.default_rng(7).random(len(archs)) < failing
    parts = []

    def part(split: str, run: int, proxy: int, stage: int, error: np.ndarray) -> None:
        parts.append(
            pd.DataFrame(
                {
                    "architecture": texts, "epochs": proxy, "channels": 32, "resolution": 32, "stage": stage,
                    "dataset": "toys", "split": split, "seed": run, "error": error,
                    "params": [1000.0 + sum(a) for a in archs], "macs": [5000.0 + 3 * sum(a) for a in archs],
                    "device_s": seconds * stage, "spent_macs": 1e6 * seconds * stage, "device": "table:toy",
                }
            )
        )  # fmt: skip

    for proxy in (SHORT, EPOCHS):
        for stage in (SHORT // 2, proxy):
            for run in range(runs):
                error = np.clip(truth + 30 / stage + noise.normal(0, 1, len(truth)), 0.5, 99)
                part("valid", run, proxy, stage, np.where(fails, np.inf, error))
    if test:
        judged = np.random.default_rng(1000 + seed).normal(0, 1, len(truth))
        part("test", -1, EPOCHS, EPOCHS, np.clip(truth + 1 + judged, 0.5, 99))
    return pd.concat(parts, ignore_index=True)


@functools.cache
def toy_folder() -> tempfile.TemporaryDirectory[str]:
    """Of the toy tables, gone at the end."""
    return tempfile.TemporaryDirectory(prefix="kendall-tests-")


@functools.cache
def toy_table(*, test: bool = True, runs: int = 2, seed: int = 0, failing: float = 0.0) -> Path:
    """The toy table as a converted file, made once."""
    path = Path(toy_folder().name) / f"{test}-{runs}-{seed}-{failing}.table"
    frame = toy_frame(test=test, runs=runs, seed=seed, failing=failing)
    Table.from_frame(frame, SPACE, {"table": "toy"}).save(path)
    return path


def run_content(table: Path, **values: Any) -> dict[str, Any]:
    """A small comparison on the toy table."""
    return {
        "name": "toy", "space": "nas_bench_macro", "datasets": ["toys"], "seeds": 3,
        "searchers": ["random_search", "local_search"], "budget": {"device_s": 2000.0},
        "evaluator": {"kind": "table", "table": str(table)}, **values,
    }  # fmt: skip


def study_content(table: Path, **values: Any) -> dict[str, Any]:
    """A small study on the toy table."""
    return {
        "name": "toy", "space": "nas_bench_macro", "datasets": ["toys"], "architectures": {"count": 40},
        "proxies": [{"epochs": SHORT}], "draws": 200, "evaluator": {"kind": "table", "table": str(table)}, **values,
    }  # fmt: skip


def live_content(**values: Any) -> dict[str, Any]:
    """What specs of very small trainings on digits share."""
    return {
        "name": "tiny", "space": "nas_bench_201", "datasets": ["digits"],
        "evaluator": {"kind": "live", "recipe": {"batch_size": 128}, "device": "cpu", "processes": 1},
        "full": {"epochs": 2, "channels": 4, "cells": 1, "resolution": 4}, **values,
    }  # fmt: skip


def live_study_content(**values: Any) -> dict[str, Any]:
    """A study of four networks on digits."""
    small = {"epochs": 1, "channels": 4, "cells": 1, "resolution": 4}
    return live_content(
        **{"architectures": {"count": 4}, "proxies": [small], "draws": 100, "full_seeds": 2, "seed0": 0, **values}
    )


def write_spec(path: Path, content: dict[str, Any]) -> Path:
    """A spec as a file."""
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    """A CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(cell: str) -> float:
    """A cell; empty is nan."""
    return float(cell) if cell else np.nan


def command(*words: str | Path) -> list[str]:
    """The installed command, as a user calls it."""
    script = Path(sys.executable).with_name("kendall")
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "suite.cli"]), *map(str, words)]


def surroundings() -> dict[str, str]:
    """Of a child process: quiet, one thread, figures without a display."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "COLUMNS": "100"}


def kendall(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, env=surroundings(), timeout=600, check=False
    )


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that the command, called in this process, says before it leaves with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["kendall", *map(str, words)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    complaints = [line for line in said.err.splitlines() if line.startswith("kendall: ")]
    assert len(complaints) == 1, said.err
    assert said.err.endswith(complaints[0] + "\n")
    assert "Traceback" not in said.err
    return complaints[0].removeprefix("kendall: ")
