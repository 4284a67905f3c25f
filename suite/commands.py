"""From a spec to a folder of results: what `kendall run`, `study` and `demo` do, for those who call it from Python."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeAlias

from suite import study
from suite.comparison import board as leaderboard
from suite.comparison.searches import Comparison, Outcome
from suite.problem import Problem, open_problem
from suite.records.environment import cpu, environment
from suite.records.folder import TRIALS, Folder, Row
from suite.records.log import Log
from suite.spec.parts import Common
from suite.spec.predictors import PredictorsSpec
from suite.spec.run import RunSpec
from suite.spec.study import StudySpec
from suite.types import JSON, Architecture, BadInput

Progress: TypeAlias = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""(what, how many) -> a context whose value is called once a step done."""


def silent(what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """No progress bar."""
    return nullcontext(lambda: None)


def run(
    spec: RunSpec, out: Path, *, base: Path, command: str, resume: bool = True, progress: Progress = silent
) -> Path:
    """Every searcher of the spec on every data set, judged: leaderboard.csv and what it is made of.

    Killed at any moment and called again, it goes on in the same folder and ends the same.

    Raises:
        BadInput: The spec, the data or the folder is wrong.
        Unsupported: The table or space cannot serve the spec.
    """
    problems = open_problems(spec, base, out)
    with tempfile.TemporaryDirectory(prefix="kendall-") as scratch:  # nothing is written to `out` before all is checked
        for each in problems:
            Comparison(spec, each, base=base, out=Path(scratch)).check()
    board: list[Row] = []
    winners: list[Row] = []
    curve: list[Row] = []
    accounts: list[Row] = []
    fronts: list[Row] = []
    volumes: list[Row] = []
    predictions: list[Row] = []
    goal = spec.aim
    with Folder(out, spec.resolved(), resume=resume) as folder:
        folder.describe(where(problems, command))
        with Log(out / TRIALS, spec.search_space()) as log:
            for each in problems:
                outcomes: dict[str, list[Outcome]] = {}
                with progress(f"searches on {each.dataset}", len(spec.searchers) * spec.seeds) as tick:
                    for outcome in Comparison(spec, each, base=base, out=out).outcomes(log):
                        outcomes.setdefault(outcome.searcher, []).append(outcome)
                        tick()
                for of_one in outcomes.values():
                    board.append(leaderboard.leaderboard_row(of_one, each, command))
                    winners += leaderboard.winner_rows(of_one, each)
                    accounts += leaderboard.ledger_rows(of_one, each)
                    predictions += leaderboard.prediction_rows(of_one, each)
                    if len(goal.minimise) > 1:
                        fronts += leaderboard.front_rows(of_one, each, goal.minimise)
                curve += leaderboard.anytime_rows(outcomes, each)
                if len(goal.minimise) > 1:
                    volumes += leaderboard.hypervolume_rows(outcomes, each, goal)
        folder.write_csv("winners.csv", leaderboard.WINNERS, winners)
        folder.write_csv("ledger.csv", leaderboard.LEDGER, accounts)
        for name, columns, found in (
            ("anytime.csv", leaderboard.ANYTIME, curve),
            ("fronts.csv", (*leaderboard.FRONTS, *goal.minimise), fronts),
            ("hypervolume.csv", leaderboard.HYPERVOLUMES, volumes),
            ("predictions.csv", leaderboard.PREDICTIONS, predictions),
        ):
            if found:
                folder.write_csv(name, columns, found)
        folder.write_csv("leaderboard.csv", leaderboard.LEADERBOARD, board)
    return out


def conduct(
    spec: StudySpec, out: Path, *, base: Path, command: str, resume: bool = True, progress: Progress = silent,
    announce: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """Every proxy of the spec against full training on every data set: consistency.csv and what follows from it.

    Killed at any moment and called again, it goes on in the same folder and ends the same.

    Args:
        spec: What to study.
        out: Folder of the results.
        base: A folder that paths may be relative to.
        command: What makes these results again.
        resume: Go on in a folder that holds some.
        progress: Shows how far it is.
        announce: Hears what is planned and what it will cost, before it starts; that takes a few short trainings.

    Raises:
        BadInput: The spec, the data or the folder is wrong.
        Unsupported: The table or space cannot serve the spec.
    """
    problems, archs = prepared(spec, base, out)
    space, findings = spec.search_space(), study.Findings(spec, command)
    with Folder(out, spec.resolved(), resume=resume) as folder:
        folder.describe(where(problems, command))
        if announce is not None:
            for line in priced(spec, problems, archs):
                announce(line)
        with contextlib.ExitStack() as held:
            log = None if all(each.simulated for each in problems) else held.enter_context(Log(out / TRIALS, space))
            for each in problems:
                with progress(f"trainings on {each.dataset}", study.answers_due(spec, each, archs)) as tick:
                    done = study.conduct(spec, each, archs, log, tick, base)
                with progress(f"statistics on {each.dataset}", 1) as tick:
                    findings.add(done)
                    tick()
        folder.write("scores.csv", findings.written_scores())
        for name, columns, rows in findings.tables():
            folder.write_csv(name, columns, rows)
    return out


def planned(spec: StudySpec, *, base: Path) -> list[str]:
    """What a study would train and what that would cost, a line a data set; nothing is kept.

    Raises:
        BadInput, Unsupported: As `conduct`.
    """
    with tempfile.TemporaryDirectory(prefix="kendall-") as scratch:
        problems, archs = prepared(spec, base, Path(scratch))
        return list(priced(spec, problems, archs))


def prepared(spec: StudySpec, base: Path, out: Path) -> tuple[list[Problem], tuple[Architecture, ...]]:
    """A study's data sets and networks, checked."""
    space, part = spec.search_space(), spec.architectures
    early = study.architectures(spec, space, base) if part.quick is None and not part.all else ()
    problems = open_problems(spec, base, out)
    for each in problems:
        study.check(spec, each)
    held = study.held(problems) if part.all else None
    return problems, early or study.architectures(spec, space, base, study.quick_score(spec, problems[0]), held)


def priced(spec: StudySpec, problems: list[Problem], archs: tuple[Architecture, ...]) -> Iterator[str]:
    """A line a data set."""
    for each in problems:
        yield f"{each.dataset}: {len(archs):,} networks, {study.price(spec, each, archs)}"


def predict(
    spec: PredictorsSpec, out: Path, *, base: Path, command: str, resume: bool = True, progress: Progress = silent
) -> Path:
    """Every predictor of the spec on every data set and number of networks: predictors.csv.

    Killed at any moment and called again, it goes on behind the last predictor and size that were whole.

    Raises:
        BadInput: The spec, the data or the folder is wrong.
        Unsupported: A space cannot be encoded so, or a table has no such errors.
    """
    from suite.study import latency, predictors

    studies = [predictors.Study(spec, data) for part in spec.data or () for data in predictors.known(part, base)]
    for each in studies:
        each.check()
    devices = [device for devices in spec.devices or () for device in latency.known(devices, base)]
    meters = latency.Study(spec, devices) if devices else None
    with Folder(out, spec.resolved(), resume=resume) as folder:
        data = {each.data.name: each.data.fingerprint for each in studies}
        data |= {f"{device.table} {device.name}": device.fingerprint for device in devices}
        folder.describe(environment(command=command, device=cpu(), data=data))
        path = out / "predictors.csv"
        done = predictors.read(path) if path.exists() else []
        with progress("predictors", sum(len(each.due()) for each in studies)) as tick:

            def keep(rows: Sequence[Row]) -> None:
                folder.write_csv("predictors.csv", predictors.PREDICTORS, rows)
                tick()

            rows = predictors.conduct(studies, done, keep)
        if studies:
            folder.write_csv("predictors_summary.csv", predictors.SUMMARY, predictors.summary(rows))
            folder.write_csv("predictors.csv", predictors.PREDICTORS, rows)
        if meters is not None:
            with progress("devices", meters.steps) as tick:
                measured: list[Row] = []
                for block in meters.blocks():
                    measured += block
                    tick()
            folder.write_csv("latency.csv", latency.LATENCY, measured)
            folder.write_csv("latency_summary.csv", latency.SUMMARY, latency.summary(measured))
    return out


def survive(
    spec: RunSpec,
    out: Path,
    *,
    base: Path,
    command: str,
    networks: Sequence[int],
    draws: int,
    predictor: str,
    progress: Progress = silent,
) -> Path:
    """The searches of a spec on its table and on surrogates fitted to some of its networks: conclusions.csv.

    Each comparison is a folder of `kendall run` below `out`, and goes on where it stopped.

    Raises:
        BadInput: The spec has no table, or several data sets.
        Unsupported: The table or space cannot serve the spec.
    """
    from suite.records.folder import csv_text, write_whole
    from suite.spec.parts import SurrogatePart, TablePart
    from suite.study import conclusions, surrogate
    from suite.tables import find_data

    table = spec.evaluator
    if not isinstance(table, TablePart) or len(spec.datasets) > 1:
        raise BadInput("surrogate conclusions: give a spec of one data set whose evaluator is a table")
    run(spec, out / "table", base=base, command=command, progress=progress)
    boards: list[tuple[int, int, conclusions.Board]] = []
    real = conclusions.Board.read(out / "table")
    for many in networks:
        for draw in range(draws):
            folder = out / f"surrogate-{many}-{draw}"
            file = folder / "surrogate.npz"
            if not file.exists():
                source = None if table.file is None else find_data(table.file, base)
                seed = spec.seed0 + draw
                surrogate.fit(
                    table.table, source, spec.datasets[0], networks=many, seed=seed, predictor=predictor
                ).save(file)
            other = spec.model_copy(update={"evaluator": SurrogatePart(kind="surrogate", file=str(file.absolute()))})
            run(other, folder / "run", base=base, command=command, progress=progress)
            boards.append((many, draw, conclusions.Board.read(folder / "run")))
            found = conclusions.rows(real, boards, spec.datasets[0], predictor, spec.seed0)
            write_whole(out / "conclusions.csv", csv_text(conclusions.CONCLUSIONS, found))
    return out


def open_problems(spec: Common, base: Path, out: Path) -> list[Problem]:
    """All data sets at hand before anything starts."""
    return [open_problem(spec, dataset, base=base, checkpoints=out / "checkpoints") for dataset in spec.datasets]


def where(problems: list[Problem], command: str) -> JSON:
    """Where and on what this runs."""
    devices = " + ".join(dict.fromkeys(each.device for each in problems))
    data = {f"{each.name} {each.dataset}": each.fingerprint for each in problems}
    return environment(command=command, device=devices, data=data)
