"""The loop: a searcher asks, an evaluator answers, the budget ends it.

On a table the seconds are simulated, and so is the clock: with k workers up to k trials are in flight, and each answer
is told when its seconds are over. Live answers carry measured seconds and go through the same clock.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from suite.pareto import Incumbents
from suite.types import ERROR_ALONE, BadInput, Evaluation, Evaluator, Goal, Recommendation, Searcher, Trial, Unsupported

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
        evaluator: Who answers.
        budget: When it ends.
        goal: What is minimised, and within which limits.
        workers: Trials in flight.

    Raises:
        BadInput: `workers` is below 1.
        Unsupported: The evaluator cannot answer a trial, gives no metric of the goal, or knows no cost where the budget
            is in seconds.
    """
    if workers < 1:
        raise BadInput(f"workers must be at least 1, not {workers}")
    backlog: deque[Trial] = deque()
    in_flight: list[tuple[float, int, Evaluation]] = []  # (finish [s], order of start, answer)
    incumbents = Incumbents(goal, evaluator.name)
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
