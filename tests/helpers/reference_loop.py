"""The loop as it was before there were workers: an evaluator answers batches at once, a heap keeps the clock.

Kept as the reference that `suite.search.run` over simulated workers must agree with, answer by answer.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from suite.pareto import Incumbents
from suite.search import Budget
from suite.types import ERROR_ALONE, Evaluation, Evaluator, Goal, Recommendation, Searcher, Trial


def run(
    searcher: Searcher, evaluator: Evaluator, *, budget: Budget, goal: Goal = ERROR_ALONE, workers: int = 1
) -> Iterator[Recommendation]:
    """Recommendations in the order of completion."""
    backlog: deque[Trial] = deque()
    in_flight: list[tuple[float, int, Evaluation]] = []
    incumbents = Incumbents(goal, evaluator.name)
    started = completed = 0
    charged_s = clock_s = 0.0
    over_budget: list[Evaluation] = []
    left = math.inf if budget.evaluations is None else budget.evaluations
    while True:
        while not over_budget and len(in_flight) < workers and started < left:
            if not backlog:
                backlog.extend(searcher.ask())
            if not backlog:
                break
            batch = [backlog.popleft() for _ in range(int(min(workers - len(in_flight), len(backlog), left - started)))]
            for answer in evaluator.evaluate(batch):
                cost_s = answer.cost.device_s
                if over_budget or charged_s + cost_s > budget.device_s:
                    over_budget.append(answer)
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
        yield incumbents.recommend(completed, charged_s, clock_s)
    if over_budget:
        yield replace(incumbents.recommend(completed, charged_s, clock_s), over_budget=tuple(over_budget))
