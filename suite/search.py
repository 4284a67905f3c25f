"""The loop: a searcher asks, workers answer, the budget ends it.

With k trials in flight, each answer is told when it completes, and the next trial is started. On a table the seconds
are simulated, and so is the order of completion; live, trainings complete when they do. The clock follows from the
answers' seconds and their order alone, so a replayed log shows the same one.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import deque
from collections.abc import Generator, Iterator
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
    Trial,
    Unsupported,
    Workers,
)
from suite.workers.simulated import Simulated

FREE_ANSWERS = 1000
"""So many answers in a row that cost nothing end a search whose budget is in seconds alone."""


@dataclass(frozen=True)
class Budget:
    """The limit of a search: device seconds summed over its workers, evaluations, or both.

    An answer that would cross the device seconds is dropped, and ends the search. Live, trainings that are in flight
    then are finished, and charged as over budget.

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

    Yields one recommendation a completed answer, in the order of completion, and a last one more if an answer crossed
    the budget. The incumbent has the least first metric of the goal among the answers trained longest
    (`Trial.epochs`), the earliest of equals; the front holds what no other of those dominates under all metrics of the
    goal. A searcher's own reward has no say in it. Answers above a limit of the goal are charged and told like any
    other, but never recommended; where all are, there is no incumbent.

    Args:
        searcher: Who asks.
        evaluator: Who answers: workers, or an evaluator, which gets `Simulated` ones.
        budget: When it ends.
        goal: What is minimised, and within which limits.
        workers: Trials in flight.

    Raises:
        BadInput: `workers` is below 1.
        Unsupported: The evaluator cannot answer a trial, gives no metric of the goal, or knows no cost where the budget
            is in seconds.
    """
    pool = Simulated(evaluator, workers) if isinstance(evaluator, Evaluator) else evaluator
    with contextlib.closing(turns(searcher, pool, budget=budget, goal=goal, workers=workers)) as taken:
        for step in taken:
            if step is not None:
                yield step


def turns(
    searcher: Searcher, pool: Workers, *, budget: Budget, goal: Goal, workers: int
) -> Generator[Recommendation | None]:
    """As `run`, and None each time before it waits for an answer: whoever runs several searches turns to another then.

    A search that is not gone on with drops what it has in flight.
    """
    if workers < 1:
        raise BadInput(f"workers must be at least 1, not {workers}")
    backlog: deque[Trial] = deque()
    flying = InFlight()
    incumbents = Incumbents(goal, pool.name)
    started = completed = free_in_a_row = 0
    charged_s = clock_s = 0.0
    over_budget: list[Evaluation] = []
    left = math.inf if budget.evaluations is None else budget.evaluations
    open_ = True

    def crosses(cost_s: float, trial: Trial) -> bool:
        if math.isnan(cost_s) and math.isfinite(budget.device_s):
            raise Unsupported(f"{pool.name} knows no cost of {trial}: give a budget in evaluations")
        return bool(over_budget) or charged_s + cost_s > budget.device_s

    try:
        while True:
            while open_ and flying.count < workers and started < left:
                if not backlog:
                    backlog.extend(searcher.ask())
                room = int(min(workers - flying.count, pool.free, len(backlog), left - started))
                if room < 1:
                    break
                for trial in [backlog.popleft() for _ in range(room)]:
                    cost = pool.start(trial)
                    if cost is not None:
                        if crosses(cost.device_s, trial):  # the rest of its batch goes with it
                            over_budget += pool.cancel(trial)
                            open_ = False
                            continue
                        charged_s += cost.device_s
                    flying.add(trial, clock_s, cost)
                    started += 1
            if not flying.count:
                break
            yield None
            answer = pool.next()
            finish_s, known = flying.remove(answer)
            if not known:
                if crosses(answer.cost.device_s, answer.trial):
                    over_budget.append(answer)
                    open_ = False
                    continue
                charged_s += answer.cost.device_s
            clock_s = max(clock_s, finish_s)
            completed += 1
            incumbents.add(answer)
            searcher.tell([answer])
            free_in_a_row = 0 if answer.cost.device_s else free_in_a_row + 1
            if free_in_a_row == FREE_ANSWERS and budget.evaluations is None:
                warnings.warn(f"search ended: {FREE_ANSWERS} answers in a row cost nothing", stacklevel=3)
                open_ = False
            yield incumbents.recommend(completed, charged_s, clock_s)
        if over_budget:
            yield replace(incumbents.recommend(completed, charged_s, clock_s), over_budget=tuple(over_budget))
    finally:
        if flying.count:
            pool.cancel()


class InFlight:
    """Trials in flight: when each was started, and its seconds where they are known."""

    def __init__(self) -> None:
        self.count = 0
        self.begun: dict[Trial, list[tuple[float, float, bool]]] = {}
        """Trial -> (known completion or else start [s], start [s], whether its cost is known)."""

    def add(self, trial: Trial, clock_s: float, cost: Cost | None) -> None:
        """Note a start at this time of the clock; the cost is None where it is not known yet."""
        seconds = 0.0 if cost is None or math.isnan(cost.device_s) else cost.device_s
        self.begun.setdefault(trial, []).append((clock_s + seconds, clock_s, cost is not None))
        self.count += 1

    def remove(self, answer: Evaluation) -> tuple[float, bool]:
        """When an answer completes [s], and whether its cost was known; of equal trials the one that is due first."""
        entries = self.begun[answer.trial]
        if len(entries) == 1:
            ((due_s, start_s, known),) = self.begun.pop(answer.trial)
        else:
            due_s, start_s, known = entries.pop(entries.index(min(entries)))
        self.count -= 1
        seconds = answer.cost.device_s
        return (due_s if known or math.isnan(seconds) else start_s + seconds), known
