"""What every registered search by gradients must do."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.harness import live_content, rows

import searchers
from suite import commands as jobs
from suite.data.images import load
from suite.networks.supernet import SUPERNETS
from suite.spaces import SPACES
from suite.spec.reading import check
from suite.spec.run import RunSpec
from suite.training.gradient_loop import epochs
from suite.types import Ends, Evaluation, GradientSearch, Proxy, Searcher, Unsupported

NAMES = [name for name in searchers.available() if "supernet" in searchers.about(searchers.load(name)).needs]
TINY = Proxy(3, channels=2, resolution=4, samples=0.05, cells=1)

every_search = pytest.mark.parametrize("name", NAMES)


def learned(
    name: str, folder: Path,
    *, space: str = "nas_bench_201", proxy: Proxy = TINY, seed: int = 0, done: int = 0, **options: object,
) -> Iterator[Evaluation]:  # fmt: skip
    searcher = searchers.make(name, SPACES[space], proxy, np.random.default_rng(seed), **options)
    assert isinstance(searcher, GradientSearch)
    assert not isinstance(searcher, Searcher)
    return epochs(
        searcher, load("digits", valid_fraction=0.03), proxy, checkpoints=folder, seed=seed, device="cpu", done=done
    )


def without_seconds(answers: list[Evaluation]) -> list[object]:
    curves = [[{k: v for k, v in entry.items() if k != "device_s"} for entry in answer.curve] for answer in answers]
    return [
        (answer.trial, dict(answer.metrics), answer.cost.macs, curve)
        for answer, curve in zip(answers, curves, strict=True)
    ]


@every_search
def test_same_seed_learns_the_same_whatever_the_global_state_and_leaves_it_alone(name, tmp_path):
    first = without_seconds(list(learned(name, tmp_path / "first")))
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    before = random.getstate(), torch.get_rng_state().tolist()
    assert without_seconds(list(learned(name, tmp_path / "second"))) == first
    assert (random.getstate(), torch.get_rng_state().tolist()) == before


@every_search
def test_an_epoch_is_an_answer_with_its_cell_its_price_and_no_test_metric(name, tmp_path):
    answers = list(learned(name, tmp_path))
    assert [answer.trial.epochs for answer in answers] == [1, 2, 3]
    for answer in answers:
        SPACES["nas_bench_201"].check(answer.trial.arch)
        assert answer.trial.proxy == TINY
        assert 0 <= answer.metrics["val_error"] <= 100
        assert answer.metrics["params"] == SPACES["nas_bench_201"].params(answer.trial.arch, TINY, ends=Ends(1, 10))
        assert answer.cost.device_s > 0
        assert answer.cost.macs > 0
        (entry,) = answer.curve
        assert {"epoch", "train_loss", "val_error", "skips"} <= set(entry)
        assert not [word for word in (*answer.metrics, *entry) if "test" in word]


@every_search
def test_cut_off_anywhere_and_begun_again_it_ends_the_same(name, tmp_path):
    whole = without_seconds(list(learned(name, tmp_path / "whole")))
    for cut in (1, 2):
        first = learned(name, tmp_path / str(cut))
        held = [next(first) for _ in range(cut)]
        first.close()
        assert without_seconds([*held, *learned(name, tmp_path / str(cut), done=cut)]) == whole
        assert without_seconds([*held[:-1], *learned(name, tmp_path / str(cut), done=cut - 1)]) == whole


SMALL = {"nas_bench_201": 1, "darts": 3, "darts_edges": 3}
"""Cells of the smallest network, where the depth is not searched."""
ELSEWHERE = {("snas", "darts"), ("snas_bilevel", "darts")}
"""SNAS keeps all edges, which cells of `darts` cannot."""


@every_search
@pytest.mark.parametrize("space", [space for space in SUPERNETS if space in SPACES])
def test_searches_each_space_that_has_a_supernet(name, space, tmp_path):
    proxy = Proxy(1, channels=4, resolution=8, samples=0.02, cells=SMALL.get(space))
    free = {"eta": 0.0} if name == "snas" and space not in SMALL else {}  # the paper has costs of cells only
    if (name, space) in ELSEWHERE:
        with pytest.raises(Unsupported, match="darts_edges"):
            learned(name, tmp_path, space=space, proxy=proxy)
        return
    (answer,) = learned(name, tmp_path, space=space, proxy=proxy, **free)
    SPACES[space].check(answer.trial.arch)
    assert math.isfinite(answer.metrics["val_error"])


def test_a_comparison_by_gradients_is_judged_charged_and_replayed(tmp_path):
    spec = check(
        RunSpec,
        live_content(
            searchers=NAMES, seeds=1, budget={"evaluations": 9},
            proxy={"epochs": 2, "channels": 2, "cells": 1, "resolution": 4, "samples": 0.05},
        ),
        "test",
    )  # fmt: skip

    def conduct() -> dict[str, bytes]:
        jobs.run(spec, tmp_path / "out", base=tmp_path, command="")
        return {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.csv")}

    before = conduct()
    board = {row["searcher"]: row for row in rows(tmp_path / "out" / "leaderboard.csv")}
    assert set(board) == set(NAMES)
    for row in board.values():
        assert row["evaluations"] == "2"
        assert float(row["search_device_s"]) > 0
        assert 0 <= float(row["judge_error_mean"]) <= 100
    phases = {(row["searcher"], row["phase"]) for row in rows(tmp_path / "out" / "ledger.csv")}
    assert phases == {(name, phase) for name in NAMES for phase in ("search", "judging")}
    log = (tmp_path / "out" / "trials.jsonl").read_bytes()
    assert conduct() == before
    assert (tmp_path / "out" / "trials.jsonl").read_bytes() == log
    assert not (tmp_path / "out" / "checkpoints").exists() or not any((tmp_path / "out" / "checkpoints").rglob("*.pt"))


def test_a_budget_in_seconds_ends_a_search_by_gradients_and_what_crossed_it_is_charged(tmp_path):
    spec = check(RunSpec, live_content(searchers=["darts"], seeds=1, budget={"device_s": 1e-6}), "test")
    jobs.run(spec, tmp_path, base=tmp_path, command="")
    (row,) = rows(tmp_path / "leaderboard.csv")
    assert "1 of 1 searches ended without a winner" in row["note"]
    (charged,) = rows(tmp_path / "ledger.csv")
    assert float(charged["device_s"]) > 1e-6
