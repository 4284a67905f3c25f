"""The searches of a spec, each from its first question to the judge's word on its winner.

Each searcher is run once a seed, under the same budget and with the same seeds as the others; its winner goes to the
judge, which alone sees what the search did not.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from searchers import make, options
from suite.evaluators.recorded import RecordedWorkers
from suite.problem import Problem
from suite.records.environment import cpu
from suite.records.ledger import Ledger, phase_of
from suite.records.log import Log
from suite.resources.sources import FORMULAS, Formulas, Resources, Source, open_source
from suite.search import turns
from suite.spec.parts import SearcherPart
from suite.spec.run import RunSpec
from suite.types import (
    Cost,
    Evaluation,
    GradientSearch,
    Notes,
    Prediction,
    Predicts,
    Proxy,
    Recommendation,
    Searcher,
    Trial,
    Unsupported,
    Workers,
)

MEASUREMENTS, CALIBRATIONS, STORES = "measurements.jsonl", "calibrations.json", "stores"
"""Files of measured resources and of what searchers took as their range before they began; folder of their stores."""
JUDGE_SEED_STEP = 1_000_003
"""Distance of the seeds of one winner's several full trainings: far from any search's own."""


Result = TypeVar("Result")
Turns: TypeAlias = Generator["Workers | None", None, Result]
"""A job that takes turns with others: it yields the workers that it waits for, or None."""


@dataclass(frozen=True)
class Outcome:
    """The result of one search, with its judge's word."""

    part: SearcherPart
    seed: int
    last: Recommendation | None
    """None: the searcher asked nothing."""
    judge_error: float
    """[%]; inf without a winner."""
    regret: float
    """Above the best in the space [percentage points]; nan where nobody knows the best."""
    incumbents: tuple[tuple[float, float], ...]
    """(device seconds, judge error [%]) at each change of the incumbent; empty where judging is not free."""
    ledger: Ledger
    note: str
    predictions: tuple[Prediction, ...] = ()
    """Rewards that a model of the searcher's gave; none of them can win."""

    @property
    def searcher(self) -> str:
        """The name of its rows."""
        return self.part.row

    @property
    def best(self) -> Evaluation | None:
        """The search's winner; None if it has none."""
        return self.last.best if self.last else None


class Audited:
    """A searcher whose every answer is entered in a ledger."""

    def __init__(self, searcher: Searcher, ledger: Ledger, full: Proxy) -> None:
        self.searcher, self.ledger, self.full = searcher, ledger, full
        self.fits = "predictor" in getattr(searcher, "needs", ())

    def ask(self) -> list[Trial]:
        """Ask on; the seconds of a searcher that fits predictors are entered beside those that are charged."""
        began = time.perf_counter()
        trials = self.searcher.ask()
        if self.fits:
            self.ledger.add("predictor", Cost(time.perf_counter() - began, cpu(), None, math.nan))
        return trials

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Enter the answers in the ledger, then tell the searcher."""
        for evaluation in evaluations:
            self.ledger.add(phase_of(evaluation.trial, self.full), evaluation.cost)
        self.searcher.tell(evaluations)


class Comparison:
    """All searches of a spec on one data set.

    Args:
        spec: What is asked for.
        problem: Space, data, who answers and who judges.
        base: What relative paths of the spec are relative to.
        out: Folder of the results: measurements go there.

    Raises:
        BadInput: A resource is wrong.
        Unsupported: A resource is not there.
    """

    def __init__(self, spec: RunSpec, problem: Problem, *, base: Path, out: Path) -> None:
        self.spec, self.problem, self.base, self.out = spec, problem, base, out
        self.judge = problem.judge_view()
        sources: list[Source] = [
            open_source(
                part.model_dump(),
                problem.space,
                problem.dataset,
                base=base,
                store=out / MEASUREMENTS,
                ends=problem.ends,
            )
            for part in spec.resources or ()
        ]
        given = {name for source in sources for name in source.names}
        with contextlib.suppress(Unsupported):  # a space without formulas
            sources.append(Formulas(problem.space, [name for name in FORMULAS if name not in given], ends=problem.ends))
        self.resources = Resources(problem.space, sources, out / CALIBRATIONS)

    def check(self) -> None:
        """Refuse now what would fail later.

        Raises:
            BadInput: A searcher refuses an option.
            Unsupported: The problem cannot answer a searcher's trials, or knows no seconds for a budget in seconds.
        """
        spec, problem = self.spec, self.problem
        for part in spec.searchers:
            proxy = self.proxy(part)
            problem.check(proxy)
            if spec.budget.device_s is not None and not problem.knows_seconds(proxy):
                raise Unsupported(
                    f"{problem.name} knows no seconds of {proxy} on {problem.dataset}: give budget.evaluations alone"
                )
            if isinstance(self.searcher(part, spec.seed0, self.resources), GradientSearch):
                problem.check_gradients(part.name, proxy)

    def outcomes(self, log: Log) -> Iterator[Outcome]:
        """Searcher by searcher, seed by seed; `parallel` of the searches are under way at once."""
        seeds = range(self.spec.seed0, self.spec.seed0 + self.spec.seeds)
        searches = (self.outcome(part, seed, log) for part in self.spec.searchers for seed in seeds)
        yield from side_by_side(searches, self.spec.parallel, self.problem.wait)
        self.problem.judge_over()

    def proxy(self, part: SearcherPart) -> Proxy:
        """The proxy of a searcher's candidates, or of its supernet."""
        return (part.proxy or self.spec.proxy or self.spec.full).proxy(self.problem.space, self.problem.side)

    def searcher(
        self, part: SearcherPart, seed: int, resources: Resources, **more: object
    ) -> Searcher | GradientSearch:
        """A searcher at its beginning; equal seeds draw equally, whatever the searcher."""
        proxy = self.proxy(part)
        capabilities: dict[str, object] = {"resources": resources, "goal": self.spec.aim, **more}
        if "stages" in options(part.name):
            capabilities = {"stages": self.problem.stages(proxy), **capabilities}
        rng = np.random.default_rng(seed)
        return make(part.name, self.problem.space, proxy, rng, capabilities=capabilities, **part.options)

    def stores(self, part: SearcherPart, seed: int) -> dict[str, Any]:
        """Stores that outlive a search, for searchers that know of it: weights of blocks, trained samples.

        Each search begins with empty ones of its own, unless the spec names a folder that they share.
        """
        known, problem = options(part.name), self.problem
        if not {"pool", "stores"} & set(known):
            return {}
        from suite.records.samples import SampleDatabase

        name, proxy = f"{part.row}/{seed}", self.proxy(part)
        own = self.out / STORES / problem.dataset / re.sub(r"[^\w.-]+", "_", name)
        folder = own if self.spec.stores is None else self.base / self.spec.stores
        run = f"{self.spec.name} {self.spec.short_hash} {problem.dataset} {name}"
        offered: dict[str, Any] = {}
        if "stores" in known:
            offered["stores"] = SampleDatabase(folder, problem.space, problem.dataset, run=run)
        if "pool" in known and part.options.get("akp", True) and problem.trains_blocks:
            from suite.training.weights.pool import WeightPool

            offered["pool"] = WeightPool(folder / "pool", problem.space, proxy, run=run, ends=problem.ends)
        return offered

    def outcome(self, part: SearcherPart, seed: int, log: Log) -> Turns[Outcome]:
        """One search, judged; it yields the workers that it waits for, or None where others may have a turn."""
        problem, search = self.problem, OneSearch(self, part, seed, log)
        last: Recommendation | None = None
        changes: list[tuple[float, Evaluation]] = []
        with contextlib.closing(search.steps()) as steps:
            for step in steps:
                if step is None:
                    yield search.workers
                    continue
                last = step
                if last.best is not None and (not changes or changes[-1][1] is not last.best):
                    changes.append((last.device_s, last.best))
                yield None
        ledger = search.close(last)

        error = regret = math.inf
        incumbents: list[tuple[float, float]] = []
        best = last.best if last else None
        if best is not None:
            repeats = 1 if problem.free_judge else self.spec.judge_seeds
            trials = [Trial(best.trial.arch, problem.full, seed=seed + k * JUDGE_SEED_STEP) for k in range(repeats)]
            judges = problem.judging_workers()
            judged = RecordedWorkers(judges, log, dataset=problem.dataset, run=search.name, phase="judging")
            answers = yield from answers_of(judged, trials)
            for answer in answers:
                ledger.add("judging", answer.cost)
            error = float(np.mean([problem.judge_error(answer) for answer in answers]))
            regret = error - problem.optimum(seed)
        if problem.free_judge:
            asked = [Trial(answer.trial.arch, problem.full, seed=seed) for _, answer in changes]
            errors = map(problem.judge_error, self.judge.evaluate(asked))
            incumbents = [(device_s, error) for (device_s, _), error in zip(changes, errors, strict=True)]
        predictions = tuple(search.predictions)
        return Outcome(part, seed, last, error, regret, tuple(incumbents), ledger, search.note, predictions)


def answers_of(workers: Workers, trials: Sequence[Trial]) -> Turns[list[Evaluation]]:
    """Answers in the order of some different trials; it yields the workers while it waits for them."""
    for trial in trials:
        workers.start(trial)
    answers: dict[Trial, Evaluation] = {}
    try:
        while len(answers) < len(trials):
            yield workers
            answer = workers.next()
            answers[answer.trial] = answer
    finally:
        if len(answers) < len(trials):
            workers.cancel()
    return [answers[trial] for trial in trials]


def side_by_side(jobs: Iterable[Turns[Result]], at_once: int, wait: Callable[[], None]) -> Iterator[Result]:
    """Run jobs that take turns, so many at once; their results in the order of the jobs.

    Args:
        jobs: They yield the workers that they wait for, or None where others may have a turn.
        at_once: How many may have begun and not be done.
        wait: Returns when any of those workers may have an answer.
    """
    waiting = enumerate(jobs)
    begun: dict[int, tuple[Turns[Result], Workers | None]] = {}
    results: dict[int, Result] = {}
    handed = 0
    try:
        while True:
            begun |= {number: (job, None) for number, job in itertools.islice(waiting, at_once - len(begun))}
            if not begun:
                return
            moved = False
            for number, (job, awaited) in tuple(begun.items()):
                if awaited is not None and not awaited.ready:
                    continue
                moved = True
                try:
                    begun[number] = job, next(job)
                except StopIteration as end:
                    del begun[number]
                    results[number] = end.value
            while handed in results:
                yield results.pop(handed)
                handed += 1
            if not moved:
                wait()
    finally:
        for job, _ in begun.values():
            job.close()


class OneSearch:
    """One search of a comparison."""

    def __init__(self, comparison: Comparison, part: SearcherPart, seed: int, log: Log) -> None:
        self.spec, self.problem, self.part, self.seed, self.log = comparison.spec, comparison.problem, part, seed, log
        self.name, self.ledger, self.proxy = f"{part.row}/{seed}", Ledger(), comparison.proxy(part)
        self.resources = comparison.resources.view()
        self.stores = comparison.stores(part, seed)
        self.searcher = comparison.searcher(part, seed, self.resources, **self.stores)
        self.workers: Workers | None = None
        """Workers of a search that asks and is told, once it has begun."""

    def steps(self) -> Generator[Recommendation | None]:
        """Recommendations of the search as it goes on; None before it waits for its workers."""
        return self.learned(self.searcher) if isinstance(self.searcher, GradientSearch) else self.asked(self.searcher)

    def asked(self, searcher: Searcher) -> Generator[Recommendation | None]:
        """The turns of a search that asks and is told."""
        self.workers = self.problem.workers(
            self.name, self.log, seed=self.seed, in_flight=self.spec.workers,
            resources=self.resources if self.spec.resources else None, pool=self.stores.get("pool"),
        )  # fmt: skip
        return turns(
            Audited(searcher, self.ledger, self.problem.full),
            self.workers,
            budget=self.spec.budget.budget(),
            goal=self.spec.aim,
            workers=self.spec.workers,
        )

    def learned(self, searcher: GradientSearch) -> Generator[Recommendation | None]:
        """By gradients: a recommendation an epoch, those of the log first.

        Its length is its proxy's; of the budget only device seconds count, and an epoch that crosses them ends it.
        """
        from suite.training.gradient_loop import recommendations

        budget, over = self.spec.budget.budget(), list[Evaluation]()

        def answers() -> Iterator[Evaluation]:
            charged_s = 0.0
            for answer in self.epochs(searcher):
                charged_s += answer.cost.device_s
                if charged_s > budget.device_s:
                    over.append(answer)
                    return
                self.ledger.add("search", answer.cost)
                yield answer

        last = Recommendation(None, (), 0, 0.0, 0.0)
        for last in recommendations(answers(), searcher.keep, self.spec.aim):
            yield last
        if over:
            yield replace(last, over_budget=tuple(over))

    def epochs(self, searcher: GradientSearch) -> Iterator[Evaluation]:
        """The epochs of a gradient search, those of the log first."""
        known = self.log.answers(self.problem.dataset, self.name, "search")
        yield from known
        for answer in self.problem.learn(
            searcher, self.proxy, seed=self.seed, run=self.name, recipe=self.part.recipe, done=len(known)
        ):
            if self.spec.resources:
                more = self.resources.of(answer.trial.arch, self.proxy)
                answer = replace(answer, metrics={**answer.metrics, **more})
            self.log.append(self.problem.dataset, self.name, "search", answer)
            yield answer

    def close(self, last: Recommendation | None) -> Ledger:
        """Let go of what was kept for it; its ledger, which lacks the judging only."""
        self.problem.search_over(self.name)
        for answer in last.over_budget if last and not self.problem.simulated else ():
            self.ledger.add(phase_of(answer.trial, self.problem.full), answer.cost)
        for cost in self.resources.costs:
            self.ledger.add("measuring", cost)
        for prediction in self.predictions:
            if prediction.used:
                self.ledger.add("predicted", Cost(0.0, self.problem.device, None, 0.0))
        return self.ledger

    @property
    def predictions(self) -> Sequence[Prediction]:
        """Rewards that the searcher did not pay a training for, and what became of those that it checked."""
        return self.searcher.predictions if isinstance(self.searcher, Predicts) else ()

    @property
    def note(self) -> str:
        """Notes of the searcher for its readers, and measurements that should not be relied on."""
        noisy = [f"{name} of {count} networks is noisy" for name, count in self.resources.noisy.items()]
        own = self.searcher.note if isinstance(self.searcher, Notes) else ""
        return "; ".join(filter(None, [own, *noisy]))
