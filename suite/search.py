"""The loop: a searcher asks, an evaluator answers, the budget ends it.

On a table the seconds are simulated, and so is the clock: with k workers up to k trials are in flight, and each answer
is told when its seconds are over. Live answers carry measured seconds and go through the same clock.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from suite.types import BadInput, Evaluation, Evaluator, Recommendation, Searcher, Trial, Unsupported

Objective: TypeAlias = Callable[[Mapping[str, float]], float]
"""What a searcher minimises, from an answer's metrics; inf: not feasible."""

FREE_ANSWERS = 1000
"""So many answers in a row that cost nothing end a search whose budget is in seconds alone."""


@dataclass(frozen=True)
class Budget:
    """What a search may spend: device seconds summed over its workers, evaluations, or both.

    An answer that would cross the device seconds is dropped, and ends the search.

    >>> Budget(device_s=12_000)
    Budget(device_s=12000, evaluations=None)
    """

    device_s: float = math.inf
    evaluations: int | None = None

    def __post_init__(self) -> None:
        if not self.device_s > 0:
            raise BadInput(f"budget: device_s must be above 0, not {self.device_s}")
        if self.evaluations is not None and self.evaluations < 1:
            raise BadInput(f"budget: evaluations must be at least 1, not {self.evaluations}")
        if self.evaluations is None and math.isinf(self.device_s):
            raise BadInput("budget: give device_s, evaluations or both")


def run(
    searcher: Searcher,
    evaluator: Evaluator,
    *,
    budget: Budget,
    objectives: Sequence[str] = ("val_error",),
    constraints: Mapping[str, float] | None = None,
    workers: int = 1,
) -> Iterator[Recommendation]:
    """Search until the budget is spent or the searcher has no more questions.

    Yields one recommendation a completed answer, in the order of completion, and a last one more if an answer crossed
    the budget. The incumbent is the best first objective among the answers trained longest (`Trial.epochs`), the
    earliest of equals; the front holds what no other of those dominates under all objectives. A searcher that has a
    method `objective(metrics)` gets its incumbent by that instead. Answers above a limit of `constraints` are charged
    and told like any other, but never recommended; where all are, there is no incumbent.

    Args:
        searcher: Who asks.
        evaluator: Who answers.
        budget: When it ends.
        objectives: Names of metrics, the most important first.
        constraints: Metric -> the largest value that is feasible.
        workers: Trials in flight.

    Raises:
        BadInput: `workers` is below 1.
        Unsupported: The evaluator cannot answer a trial, gives no such objective, or knows no cost where the budget
            is in seconds.
    """
    if workers < 1:
        raise BadInput(f"workers must be at least 1, not {workers}")
    backlog: deque[Trial] = deque()
    in_flight: list[tuple[float, int, Evaluation]] = []  # (finish [s], order of start, answer)
    incumbents = Incumbents(
        tuple(objectives), evaluator.name, constraints=constraints or {}, objective=getattr(searcher, "objective", None)
    )
    started = completed = free_in_a_row = 0
    charged_s = clock_s = 0.0
    over_budget: list[Evaluation] = []
    left = math.inf if budget.evaluations is None else budget.evaluations
    open_ = True
    while True:
        while open_ and len(in_flight) < workers and started < left:
            if not backlog:
                backlog.extend(searcher.ask())
            if not backlog:
                break
            batch = [backlog.popleft() for _ in range(int(min(workers - len(in_flight), len(backlog), left - started)))]
            for answer in evaluator.evaluate(batch):
                cost_s = answer.cost.device_s
                if math.isnan(cost_s) and math.isfinite(budget.device_s):
                    raise Unsupported(f"{evaluator.name} knows no cost of {answer.trial}: give a budget in evaluations")
                if not open_ or charged_s + cost_s > budget.device_s:  # the rest of its batch goes with it
                    over_budget.append(answer)
                    open_ = False
                    continue
                charged_s += cost_s
                heapq.heappush(in_flight, (clock_s + (0.0 if math.isnan(cost_s) else cost_s), started, answer))
                started += 1
        if not in_flight:
            break
        clock_s, _, answer = heapq.heappop(in_flight)
        completed += 1
        incumbents.add(answer)
        searcher.tell([answer])
        free_in_a_row = 0 if answer.cost.device_s else free_in_a_row + 1
        if free_in_a_row == FREE_ANSWERS and budget.evaluations is None:
            warnings.warn(f"search ended: {FREE_ANSWERS} answers in a row cost nothing", stacklevel=2)
            open_ = False
        yield incumbents.recommend(completed, charged_s, clock_s)
    if over_budget:
        yield replace(incumbents.recommend(completed, charged_s, clock_s), over_budget=tuple(over_budget))


class Incumbents:
    """The best feasible answers so far, among those trained longest."""

    def __init__(
        self, objectives: tuple[str, ...], evaluator: str,
        *, constraints: Mapping[str, float], objective: Objective | None = None,
    ) -> None:  # fmt: skip
        self.objectives, self.evaluator = objectives, evaluator
        self.constraints, self.objective = constraints, objective
        self.epochs = 0
        self.best: tuple[tuple[float, ...], Evaluation] | None = None
        self.front: list[tuple[tuple[float, ...], Evaluation]] = []

    def add(self, answer: Evaluation) -> None:
        """Take an answer in; failed and infeasible ones are never recommended."""
        values = tuple(self.metric(answer, "objective", name) for name in self.objectives)
        feasible = all(self.metric(answer, "metric", name) <= limit for name, limit in self.constraints.items())
        if not feasible or not all(map(math.isfinite, values)) or answer.trial.epochs < self.epochs:
            return
        rank = values if self.objective is None else (self.objective(answer.metrics), *values)
        if not math.isfinite(rank[0]):
            return
        if answer.trial.epochs > self.epochs:
            self.epochs, self.best, self.front = answer.trial.epochs, None, []
        if self.best is None or rank < self.best[0]:
            self.best = rank, answer
        if any(all(a <= b for a, b in zip(held, values, strict=True)) for held, _ in self.front):
            return
        kept = [
            (held, evaluation)
            for held, evaluation in self.front
            if not all(a <= b for a, b in zip(values, held, strict=True))
        ]
        self.front = sorted([*kept, (values, answer)], key=lambda entry: entry[0])

    def metric(self, answer: Evaluation, what: str, name: str) -> float:
        """One metric of an answer.

        Raises:
            Unsupported: It has none of this name.
        """
        if name not in answer.metrics:
            raise Unsupported(
                f"{self.evaluator} gives no {what} {name!r}; it gives {', '.join(sorted(answer.metrics))}"
            )
        return answer.metrics[name]

    def recommend(self, evaluations: int, device_s: float, clock_s: float) -> Recommendation:
        """What stands now."""
        front = tuple(evaluation for _, evaluation in self.front)
        return Recommendation(self.best[1] if self.best else None, front, evaluations, device_s, clock_s)
