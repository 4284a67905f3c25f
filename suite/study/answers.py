"""The answers of a study: every network under every run, in full, and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from suite.evaluators.recorded import Recorded
from suite.evaluators.table import OTHER_SEEDS
from suite.problem import Problem, Published, Trained, TrainedThenLookedUp
from suite.records.log import Log
from suite.spec.study import StudySpec
from suite.study.networks import Quick
from suite.study.plan import PROBES, Plan, Price, Schedule, name_of, plan
from suite.types import Architecture, BadInput, Evaluation, Proxy, Trial

Floats: TypeAlias = npt.NDArray[np.float64]

BLOCK = 24
"""Networks that go through all runs together, so that seconds of different proxies are measured side by side."""
SCHEDULE, STAGE, TSE, ZERO_COST, PUBLISHED, BASELINE = (
    "schedule", "stage", "training loss", "zero-cost", "published score", "baseline",
)  # fmt: skip
"""Kinds of rankings: a training to its end, one that is stopped early, the area under its training loss, scores."""


@dataclass(frozen=True)
class Ranking:
    """One way to put the networks in order, and what it takes."""

    name: str
    kind: str
    errors: Floats  # (seeds, n): lower is better; inf: failed; nan: not known
    proxy: Proxy | None = None
    """The run; None: no training."""
    stage: int = 0
    """Epochs trained of it."""
    device_s: Floats = field(default_factory=lambda: np.zeros(0))  # (seeds, n); empty: nothing
    macs: Floats = field(default_factory=lambda: np.zeros(0))  # likewise
    energy_j: Floats = field(default_factory=lambda: np.zeros(0))  # likewise; empty: not known
    seeds: tuple[int, ...] = (0,)
    failures: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """(seed's place, network's place) -> why."""

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Networks that it ranks, shape (n,)."""
        return np.asarray(~np.isnan(self.errors).any(axis=0))

    @property
    def as_proxy(self) -> Proxy | None:
        """The proxy with as many epochs as were trained: what theory counts."""
        return None if self.proxy is None else replace(self.proxy, epochs=self.stage)


@dataclass(frozen=True)
class Study:
    """The answers of one study on one data set."""

    problem: Problem
    archs: tuple[Architecture, ...]
    plan: Plan
    rankings: tuple[Ranking, ...]
    full: Ranking
    """What a search sees of full training, errors (full_seeds, n)."""
    judged: Floats
    """(full_seeds, n): what the judge says of it [%]."""
    sizes: Mapping[str, Floats]
    """params and macs of the networks under the full setting, as far as known, (n,)."""
    judge: str = "test"
    """What `judged` was measured on."""

    @property
    def truth(self) -> Floats:
        """(seeds, n): whose mean proxies are compared with [%]; a table's judge says the same under each seed."""
        return self.judged[:1] if self.problem.free_judge else self.judged


def mean_cost(values: Floats) -> float:
    """Of the networks that cost anything; 0 if none did."""
    paid = values[values != 0]
    return float(paid.mean()) if len(paid) else 0.0


def conduct(
    spec: StudySpec, problem: Problem, archs: Sequence[Architecture], log: Log | None, tick: Callable[[], None],
    base: Path = Path(),
) -> Study:  # fmt: skip
    """Train (or look up) every network under every run and in full; `tick` is called once an answer.

    Answers of a table need no log: they follow from the table.

    Raises:
        Unsupported: The space or table cannot serve a proxy; nothing was trained.
    """
    todo = plan(spec, problem, archs)

    def of_table(problem: Published) -> Study:
        study = looked_up(problem, todo, tuple(archs), tick)
        return replace(study, judged=study.full.errors, judge="validation") if spec.truth == "validation" else study

    def of_training(problem: Trained) -> Study:
        assert log is not None
        return trained(spec, problem, todo, tuple(archs), log, tick)

    study = problem.either(of_table, of_training)
    more = [*baselines(spec, study), *published(spec, study, base)]
    return replace(study, rankings=(*study.rankings, *more))


# --- tables


def looked_up(problem: Published, todo: Plan, archs: tuple[Architecture, ...], tick: Callable[[], None]) -> Study:
    """Columns of a table, without a question for each network."""
    index = np.array([problem.space.index(arch) for arch in archs])
    rankings = []
    for run in todo.runs:
        for stage in (*run.stages, run.proxy.epochs):
            kind = SCHEDULE if stage == run.proxy.epochs else STAGE
            rankings.append(column(problem, archs, index, run.proxy, stage, todo.proxy_seeds, kind))
        tick()
    full, judged, sizes = in_full(problem, archs, index, todo.full_seeds, tick)
    return Study(problem, archs, todo, tuple(rankings), full, judged, sizes, problem.judge)


def in_full(
    problem: Published, archs: Sequence[Architecture], index: npt.NDArray[np.int64], seeds: Sequence[int],
    tick: Callable[[], None],
) -> tuple[Ranking, Floats, dict[str, Floats]]:  # fmt: skip
    """What a search sees of full training, what the judge says of it, shape (seeds, n), and sizes as far as known."""
    full = column(problem, archs, index, problem.full, problem.full.epochs, seeds, SCHEDULE)
    judged = []
    for seed in seeds:
        judged.append(problem.judging.errors(index, problem.full, seed=seed))
        tick()
    rows, answers = problem.table.rows(index), problem.searching.answers(problem.full, problem.full.epochs)
    sizes = {
        name: np.asarray(values[rows, 0], float) for name, values in answers.objectives if name in ("params", "macs")
    }
    missing = np.flatnonzero(np.isnan(judged[0]))
    if len(missing):
        problem.judging.evaluate([Trial(archs[missing[0]], problem.full)])  # which says what is missing
    return full, np.stack(judged), sizes


def column(
    problem: Published, archs: Sequence[Architecture], index: npt.NDArray[np.int64], proxy: Proxy, stage: int,
    seeds: Sequence[int], kind: str,
) -> Ranking:  # fmt: skip
    """What a search sees of a run at a stage.

    Raises:
        Unsupported: The table lacks an answer.
    """
    evaluator = problem.searching
    errors = np.stack([evaluator.errors(index, proxy, stage, seed) for seed in seeds])
    missing = np.flatnonzero(np.isnan(errors).any(axis=0))
    if len(missing):
        evaluator.evaluate([Trial(archs[missing[0]], proxy, epochs=stage)])  # which says what is missing
    answers, rows = evaluator.answers(proxy, stage), problem.table.rows(index)
    counts = np.maximum(answers.counts[rows], 1)

    def by_seed(values: npt.NDArray[Any] | None) -> Floats:
        if values is None:
            return np.full((len(seeds), len(rows)), math.nan)
        return np.array([values[rows, seed % counts] for seed in seeds], float)

    codes, reasons = answers.failure
    failures = {}
    for place, network in np.argwhere(np.isinf(errors)):
        run = seeds[place] % counts[network]
        failures[int(place), int(network)] = reasons[codes[rows[network], run]] or "failed when the table was made"
    energy = by_seed(answers.energy_j)
    return Ranking(
        name_of(proxy, stage), kind, errors, proxy, stage, by_seed(answers.device_s), by_seed(answers.spent_macs),
        np.zeros(0) if np.isnan(energy).all() else energy, tuple(seeds), failures,
    )  # fmt: skip


# --- live


def trained(
    spec: StudySpec, problem: Trained, todo: Plan, archs: tuple[Architecture, ...], log: Log, tick: Callable[[], None]
) -> Study:
    """Train what the log does not hold, block by block of networks, the cheapest runs first."""

    def recorded(view: str, phase: str) -> Recorded:
        source = problem.search_view(view) if view == "search" else problem.judge_view()
        return Recorded(source, log, dataset=problem.dataset, run=view, phase=phase)

    search, judge = recorded("search", "proxy"), recorded("judge", "full training")
    scorers = [(name, zero_cost(problem, name, log)) for name in todo.scores]
    columns: list[tuple[Any, Proxy, int]] = [(scorer, problem.full, spec.seed0) for _, scorer in scorers]
    columns += [(search, run.proxy, seed) for run in todo.runs for seed in todo.seeds(run, problem.full)]
    if not problem.free_judge:
        columns += [(judge, problem.full, seed) for seed in todo.full_seeds]
    answers: list[list[Evaluation]] = [[] for _ in columns]
    for start in range(0, len(archs), BLOCK):
        block = archs[start : start + BLOCK]
        for (evaluator, proxy, seed), column in zip(columns, answers, strict=True):
            placed = {}
            for place, answer in evaluator.stream([Trial(arch, proxy, seed=seed) for arch in block]):
                placed[place] = answer
                tick()
            column += [placed[place] for place in range(len(block))]
    problem.search_over("search")
    problem.judge_over()
    scored, rest = answers[: len(scorers)], answers[len(scorers) :]
    rankings = [
        ranking(name, ZERO_COST, [of_one], metric="zero_cost")
        for (name, _), of_one in zip(scorers, scored, strict=True)
    ]
    for run in todo.runs:
        seeds = todo.seeds(run, problem.full)
        mine, rest = rest[: len(seeds)], rest[len(seeds) :]
        rankings += read(run, mine, seeds, tse=spec.tse)
    if isinstance(problem, TrainedThenLookedUp):
        index = np.array([problem.space.index(arch) for arch in archs])
        full, judged, sizes = in_full(problem.table, archs, index, todo.full_seeds, tick)
        unknown = np.full_like(full.device_s, math.nan)  # seconds of another clock
        full = replace(full, device_s=unknown, energy_j=np.zeros(0))
        return Study(problem, archs, todo, tuple(rankings), full, judged, sizes, problem.judge)
    full = ranking(str(problem.full), SCHEDULE, rest, proxy=problem.full, seeds=todo.full_seeds)
    judged = np.array([[problem.judge_error(answer) for answer in of_seed] for of_seed in rest])
    sizes = {
        name: np.array([float(size(arch, problem.full, ends=problem.ends)) for arch in archs])
        for name, size in (("params", problem.space.params), ("macs", problem.space.macs))
    }
    return Study(problem, archs, todo, tuple(rankings), full, judged, sizes, problem.judge)


def zero_cost(problem: Trained, score: str, log: Log) -> Recorded:
    """Scores, from the log as far as it holds them."""
    from suite.evaluators.zero_cost import ZeroCostEvaluator

    scorer = ZeroCostEvaluator(problem.space, problem.data, score=score, device=problem.part.first_device)
    return Recorded(scorer, log, dataset=problem.dataset, run=f"score {score}", phase="zero-cost")


def ranking(
    name: str, kind: str, answers: Sequence[Sequence[Evaluation]], *, metric: str = "val_error",
    proxy: Proxy | None = None, seeds: Sequence[int] = (0,),
) -> Ranking:  # fmt: skip
    """From whole trainings (or scores), answers of each seed."""
    errors = np.array([[answer.metrics[metric] for answer in of_seed] for of_seed in answers])
    energy = [[answer.cost.energy_j for answer in of_seed] for of_seed in answers]
    known = all(value is not None for of_seed in energy for value in of_seed)
    return Ranking(
        name, kind, errors, proxy, proxy.epochs if proxy else 0,
        np.array([[answer.cost.device_s for answer in of_seed] for of_seed in answers]),
        np.array([[answer.cost.macs for answer in of_seed] for of_seed in answers]),
        np.array(energy, float) if known else np.zeros(0), tuple(seeds),
        {(k, i): a.failure for k, of_seed in enumerate(answers) for i, a in enumerate(of_seed) if a.failure},
    )  # fmt: skip


def read(
    run: Schedule, answers: Sequence[Sequence[Evaluation]], seeds: Sequence[int], *, tse: bool
) -> Iterator[Ranking]:
    """A run's stages and end, and the areas under its training loss, off its curves.

    A run that failed has failed at every stage: its curve is not known. Seconds of a stage are those of its epochs;
    multiply-adds and energy are shared equally among the epochs.
    """
    whole = ranking(str(run.proxy), SCHEDULE, answers, proxy=run.proxy, seeds=seeds)
    for stage in (*run.stages, run.proxy.epochs):
        end, share = stage == run.proxy.epochs, stage / run.proxy.epochs
        one = whole
        if not end:
            one = replace(
                whole, name=name_of(run.proxy, stage), kind=STAGE, stage=stage,
                errors=np.array([[at(answer, stage, "val_error") for answer in of_seed] for of_seed in answers]),
                device_s=np.array([[seconds(answer, stage, share) for answer in of_seed] for of_seed in answers]),
                macs=whole.macs * share, energy_j=whole.energy_j * share,
            )  # fmt: skip
        yield one
        if tse and any(answer.curve for of_seed in answers for answer in of_seed):
            areas = np.array([[area(answer, stage) for answer in of_seed] for of_seed in answers])
            yield replace(one, name=f"TSE {one.name}", kind=TSE, errors=areas)


def at(answer: Evaluation, stage: int, name: str) -> float:
    """A value of the curve after an epoch."""
    return float(answer.curve[stage - 1][name]) if len(answer.curve) >= stage else math.inf


def area(answer: Evaluation, stage: int) -> float:
    """Sum of the mean training losses of the first epochs: TSE.

    Source: Ru et al., "Speedy Performance Estimation for Neural Architecture Search", NeurIPS 2021. arXiv:2006.04492.
    """
    if len(answer.curve) < stage:
        return math.inf
    return math.fsum(entry["train_loss"] for entry in answer.curve[:stage])


def seconds(answer: Evaluation, stage: int, share: float) -> float:
    """Of the first epochs; of a failed run a share of what it took."""
    if len(answer.curve) < stage:
        return answer.cost.device_s * share
    return math.fsum(entry["device_s"] for entry in answer.curve[:stage])


# --- rankings without training


def baselines(spec: StudySpec, study: Study) -> Iterator[Ranking]:
    """Larger is taken for better; and chance."""
    n = len(study.archs)
    for name in study.plan.baselines:
        if name == "random":
            values = np.random.default_rng([spec.seed0, 7]).random(n)
        elif name in study.sizes:
            values = study.sizes[name]
        else:
            continue  # a table that does not know sizes
        yield Ranking(name, BASELINE, -values[None])


def published(spec: StudySpec, study: Study, base: Path) -> Iterator[Ranking]:
    """Scores from a file; networks that it lacks are not known."""
    if spec.score_file is None:
        return
    from suite.tables.scores import read as read_scores

    found = read_scores(spec.score_file, study.problem.space, study.problem.dataset, base=base)
    if not found and len(spec.datasets) == 1:  # of several some may be missing
        raise BadInput(f"score_file: {spec.score_file} has no scores of {study.problem.dataset}")
    for name, by_arch in found.items():
        errors = np.array([-by_arch.get(arch, math.nan) for arch in study.archs])
        if not np.isnan(errors).all():
            yield Ranking(f"{name} (published)", PUBLISHED, errors[None])


# --- before it starts


def quick_score(spec: StudySpec, problem: Problem) -> Quick | None:
    """The score that strata are made by."""
    name = spec.architectures.quick
    if name is None:
        return None
    by_training = size_formula if name in ("params", "macs") else image_score
    return problem.either(
        lambda table: table_column(table, name), lambda training: by_training(training, name, spec.seed0)
    )


def table_column(problem: Published, name: str) -> Quick:
    """A score that a table holds of its networks.

    Raises:
        BadInput: It holds none of that name.
    """
    held = dict(problem.searching.answers(problem.full, problem.full.epochs).objectives)
    if name not in held:
        raise BadInput(f"architectures: {problem.name} knows no {name}; draw without quick")
    column = held[name]

    def score(archs: Sequence[Architecture]) -> list[float]:
        rows = problem.table.rows(np.array([problem.space.index(arch) for arch in archs]))
        return [float(value) for value in column[rows, 0]]

    return score


def size_formula(problem: Trained, name: str, seed: int) -> Quick:
    """Parameters or multiply-adds of networks, by formula."""
    size = {"params": problem.space.params, "macs": problem.space.macs}[name]
    return lambda archs: [float(size(arch, problem.full, ends=problem.ends)) for arch in archs]


def image_score(problem: Trained, name: str, seed: int) -> Quick:
    """A zero-cost score of networks, on a batch drawn by the seed."""
    from suite.evaluators.zero_cost import ZeroCostEvaluator

    scorer = ZeroCostEvaluator(problem.space, problem.data, score=name, device=problem.part.first_device)

    def score(archs: Sequence[Architecture]) -> list[float]:
        trials = [Trial(arch, problem.full, seed=seed) for arch in archs]
        return [-answer.metrics["zero_cost"] for answer in scorer.evaluate(trials)]

    return score


def price(spec: StudySpec, problem: Problem, archs: Sequence[Architecture]) -> Price:
    """What a study takes: a table's own seconds, or those of one epoch of each kind of network, timed here and now."""
    todo = plan(spec, problem, archs)
    return problem.either(
        lambda table: table_price(table, todo, archs), lambda training: timed_price(spec, training, todo, archs)
    )


def table_price(problem: Published, todo: Plan, archs: Sequence[Architecture]) -> Price:
    """The sum of a table's own seconds."""
    study = looked_up(problem, todo, tuple(archs), lambda: None)
    ends = [one for one in study.rankings if one.kind == SCHEDULE]
    full = len(todo.full_seeds) * float(study.full.device_s.sum())
    simulated_s = full + sum(float(one.device_s.sum()) for one in ends)
    return Price(todo.trainings, simulated_s, math.nan, f"simulated, of {problem.device}")


def timed_price(spec: StudySpec, problem: Trained, todo: Plan, archs: Sequence[Architecture]) -> Price:
    """Seconds by the multiply-adds of all trainings and those of one epoch of each kind of network, timed now."""
    images, valid = len(problem.data.train_labels), len(problem.data.valid_labels)
    test = len(problem.data.test_labels)
    probe = [archs[i * len(archs) // PROBES] for i in range(min(PROBES, len(archs)))]
    total_s, total_macs = 0.0, 0.0
    rates: dict[Proxy, float] = {}
    evaluator = problem.search_view("price")

    def work(arch: Architecture, proxy: Proxy) -> float:
        """Multiply-adds that one image takes forward, as many inputs as a task makes of it."""
        trainer = evaluator.trainer
        return float(trainer.trained_macs(Trial(arch, proxy)) * trainer.task(proxy.task).copies)

    each = [(run.proxy, len(todo.proxy_seeds), 0) for run in todo.runs]
    each += [] if problem.free_judge else [(problem.full, len(todo.full_seeds), test)]
    for proxy, seeds, more in each:
        macs = float(np.mean([work(arch, proxy) for arch in probe]))
        spent = macs * (proxy.epochs * (3 * proxy.samples * images + valid) + more)
        size = replace(proxy, epochs=2 + problem.recipe.warmup_epochs, samples=min(1.0, max(0.05, 2_000 / images)))
        if size not in rates:
            middle = sorted(probe, key=lambda arch: work(arch, proxy))[len(probe) // 2]
            (answer,) = evaluator.evaluate([Trial(middle, size, seed=spec.seed0)])
            took = answer.curve[-1]["device_s"] if answer.curve else math.nan  # the first epoch warms up
            images_seen = 3 * size.samples * images + valid
            rates[size] = took / (work(middle, size) * images_seen)
        total_macs += spent * seeds * len(archs)
        total_s += spent * rates[size] * seeds * len(archs)
    problem.search_over("price")
    return Price(todo.trainings, total_s, total_macs, f"timed on {problem.device}, one training at a time")


def judged_kind(study: Study, one: bool) -> str:
    """In which sense full training is compared with itself."""
    if study.judge == OTHER_SEEDS:
        return "full validation, other seeds"
    if study.judge == "validation":
        return ""
    if study.problem.free_judge:
        return "full validation, the table's test mean"
    return "full validation, one training" if one else "full validation, other seeds' test"
