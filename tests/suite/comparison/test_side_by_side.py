"""Searches side by side: the same results whatever their number, and all of the workers of a live search at work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.harness import live_content, rows, write_spec
from helpers.standins import Sleeping

from suite import commands
from suite.comparison.searches import side_by_side
from suite.spec.reading import load as load_spec
from suite.spec.run import RunSpec
from suite.types import BadInput
from suite.workers import processes as engine

PLAIN = ("searcher", "seed", "architecture", "val_error", "judge_error", "evaluations")


def results(spec: Path, out: Path, *settings: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Winners, and the trials of the log in a fixed order, without what depends on a clock."""
    commands.run(load_spec(RunSpec, spec, settings), out, base=spec.parent, command="")
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    asked = sorted(json.dumps([line[key] for key in ("run", "phase", "arch", "epochs", "seed", "metrics")])
                   for line in lines)  # fmt: skip
    return [tuple(row[key] for key in PLAIN) for row in rows(out / "winners.csv")], asked


def test_live_results_do_not_depend_on_how_many_searches_are_side_by_side(tmp_path):
    content = live_content(
        searchers=["random_search", {"name": "regularized_evolution", "population_size": 3, "sample_size": 2}], seeds=2,
        budget={"evaluations": 5},
    )  # fmt: skip
    content["evaluator"]["processes"] = 2
    spec = write_spec(tmp_path / "spec.toml", content)
    assert results(spec, tmp_path / "one") == results(spec, tmp_path / "three", "parallel=3")
    assert results(spec, tmp_path / "one", "parallel=2")[0]  # the same folder: no part of what the spec is


def test_searches_that_share_stores_are_not_run_side_by_side(tmp_path):
    content = live_content(searchers=["random_search"], seeds=2, budget={"evaluations": 5}, stores="x", parallel=2)
    with pytest.raises(BadInput, match="parallel: searches that share `stores` build on one another"):
        load_spec(RunSpec, write_spec(tmp_path / "spec.toml", content))


def test_one_search_that_asks_a_trial_at_a_time_keeps_all_of_its_workers_busy(tmp_path, monkeypatch):
    """Counted, not timed: trainings at work each time that one begins."""
    monkeypatch.setattr("suite.evaluators.live.Trainer", Sleeping)
    content = live_content(searchers=["random_search"], seeds=1, workers=3, budget={"evaluations": 12})
    content["evaluator"] |= {"processes": 3, "recipe": {"weight_decay": 0.01}}
    ask, busy = engine.Crew.ask, []

    def counted(crew: engine.Crew, worker: engine.Worker) -> None:
        busy.append(len(crew.busy))
        ask(crew, worker)

    monkeypatch.setattr(engine.Crew, "ask", counted)
    spec = load_spec(RunSpec, write_spec(tmp_path / "spec.toml", content))
    commands.run(spec, tmp_path / "out", base=tmp_path, command="")
    assert sorted(busy[:12])[6] == 3  # the median: two that end at once are replaced one after the other


class Waits:
    """Workers that are ready from the n-th look on."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def ready(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_jobs_take_turns_and_their_results_keep_their_order():
    begun, waited = [], []

    def job(number: int, looks: int):
        begun.append(number)
        yield Waits(looks)
        return number

    found = side_by_side((job(number, looks) for number, looks in enumerate([3, 0, 1, 0])), 2, lambda: waited.append(1))
    assert list(found) == [0, 1, 2, 3]
    assert begun == [0, 1, 2, 3]
    assert waited


def test_a_job_that_fails_ends_those_beside_it():
    ended = []

    def fails():
        yield None
        raise BadInput("no")

    def other():
        try:
            while True:
                yield None
        finally:
            ended.append(1)

    with pytest.raises(BadInput, match="no"):
        list(side_by_side(iter([other(), fails()]), 2, lambda: None))
    assert ended == [1]
