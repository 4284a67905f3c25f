"""The loop: a searcher asks, workers answer, the budget ends it.

On a table the seconds are simulated: with k workers up to k trials are in flight, and each answer is told when its
seconds are over. Live answers are told as they come; their measured seconds move the same clock.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from suite.pareto import Incumbents
from suite.types import (
    ERROR_ALONE,
    BadInput,
    Cost,
    Evaluation,
    Evaluator,
    Goal,
    Recommendation,
    Searcher,
    Staffed,
    Trial,
    Unsupported,
    Workers,
)  # fmt: skip
from suite.workers.simulated import Simulated

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
    evaluator: Evaluator | Workers,
    *,
    budget: Budget,
    goal: Goal = ERROR_ALONE,
    workers: int = 1,
) -> Iterator[Recommendation]:
    """Search until the budget is spent or the searcher has no more questions.

    Every free worker gets a trial as soon as the searcher has one, whether it asks for one at a time or for many.
    Yields one recommendation a completed answer, in the order of completion, and a last one more if an answer crossed
    the budget. The incumbent has the least first metric of the goal among the answers trained longest
    (`Trial.epochs`), the earliest of equals; the front holds what no other of those dominates under all metrics of the
    goal. A searcher's own reward has no say in it. Answers above a limit of the goal are charged and told like any
    other, but never recommended; where all are, there is no incumbent.

    Where costs are known before (on a table), a trial that would cross the budget ends the search, and those in flight
    are still told. Where they are measured, the answer that crosses it ends the search, and those still in flight are
    waited for; neither is told, both are in `Recommendation.over_budget`.

    Args:
        searcher: Who asks.
        evaluator: Who answers: workers; or an evaluator, which gets `workers` of its own or simulated ones.
        budget: When it ends.
        goal: What is minimised, and within which limits.
        workers: Trials in flight, where `evaluator` does not say so itself.

    Raises:
        BadInput: `workers` is below 1.
        Unsupported: The evaluator cannot answer a trial, gives no metric of the goal, or knows no cost where the budget
            is in seconds.
    """
    pool = workers_of(evaluator, workers)
    backlog: deque[Trial] = deque()
    clock = Clock()
    incumbents = Incumbents(goal, pool.name)
    started = completed = free_in_a_row = 0
    charged_s = 0.0
    over_budget: list[Evaluation] = []
    left = math.inf if budget.evaluations is None else budget.evaluations
    open_ = True
    finished = False
    try:
        while True:
            while open_ and pool.free > 0 and started < left:
                if not backlog:
                    backlog.extend(searcher.ask())
                if not backlog:
                    break
                trial = backlog.popleft()
                cost = pool.start(trial)
                if cost is not None:
                    checked(cost, trial, pool.name, budget)
                    if charged_s + cost.device_s > budget.device_s:
                        over_budget += pool.cancel(trial)
                        open_ = False
                        break
                    charged_s += 0.0 if math.isnan(cost.device_s) else cost.device_s
                clock.start(trial, known=cost is not None)
                started += 1
            if not clock.in_flight:
                break
            answer = pool.next()
            if clock.complete(answer):
                cost_s = answer.cost.device_s
                checked(answer.cost, answer.trial, pool.name, budget)
                if not open_ or charged_s + cost_s > budget.device_s:
                    over_budget.append(answer)
                    open_ = False
                    continue
                charged_s += 0.0 if math.isnan(cost_s) else cost_s
            completed += 1
            incumbents.add(answer)
            searcher.tell([answer])
            free_in_a_row = 0 if answer.cost.device_s else free_in_a_row + 1
            if free_in_a_row == FREE_ANSWERS and budget.evaluations is None:
                warnings.warn(f"search ended: {FREE_ANSWERS} answers in a row cost nothing", stacklevel=2)
                open_ = False
            yield incumbents.recommend(completed, charged_s, clock.now_s)
        finished = True
    finally:
        if not finished:
            pool.cancel()
    if over_budget:
        yield replace(incumbents.recommend(completed, charged_s, clock.now_s), over_budget=tuple(over_budget))


def workers_of(evaluator: Evaluator | Workers, slots: int) -> Workers:
    """The workers behind an evaluator: its own, or simulated ones if it answers at once.

    Raises:
        BadInput: `slots` is below 1.
    """
    if slots < 1:
        raise BadInput(f"workers must be at least 1, not {slots}")
    if isinstance(evaluator, Workers):
        return evaluator
    own = evaluator.workers(slots) if isinstance(evaluator, Staffed) else None
    return Simulated(evaluator, slots) if own is None else own


def checked(cost: Cost, trial: Trial, name: str, budget: Budget) -> None:
    """Refuse an unknown cost where the budget is in seconds."""
    if math.isnan(cost.device_s) and math.isfinite(budget.device_s):
        raise Unsupported(f"{name} knows no cost of {trial}: give a budget in evaluations")


class Clock:
    """The clock beside the workers: each trial begins when it was started, and ends after the seconds of its cost."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.in_flight = 0
        self.began: dict[Trial, deque[tuple[float, bool]]] = defaultdict(deque)

    def start(self, trial: Trial, *, known: bool) -> None:
        """A trial begins now; `known`: its cost was charged when it began."""
        self.began[trial].append((self.now_s, known))
        self.in_flight += 1

    def complete(self, answer: Evaluation) -> bool:
        """Move on to the end of a trial; whether its cost is still to be charged."""
        began_s, known = self.began[answer.trial].popleft()
        if not self.began[answer.trial]:
            del self.began[answer.trial]
        self.in_flight -= 1
        seconds = answer.cost.device_s
        self.now_s = max(self.now_s, began_s + (0.0 if math.isnan(seconds) else seconds))
        return not known
