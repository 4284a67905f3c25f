"""Rewards in [0, 1] that policies learn from: the accuracy, and the accuracy within a goal's limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from suite.types import ERROR_ALONE, Goal, Unsupported


def accuracy(metrics: Mapping[str, float]) -> float:
    """Accuracy of an answer in [0, 1]; a failed training has none, 0.

    >>> accuracy({"val_error": 25.0}), accuracy({"val_error": float("inf")})
    (0.75, 0.0)
    """
    return max(0.0, 1.0 - metrics["val_error"] / 100.0)


@dataclass(frozen=True)
class GoalReward:
    """The reward that knows no more than the board's goal: accuracy within its limits, 0 beyond them.

    Raises:
        Unsupported: The goal minimises another metric than the validation error first.

    >>> GoalReward(Goal(limits={"macs": 2e8}))({"val_error": 10.0, "macs": 3e8})
    0.0
    """

    goal: Goal = ERROR_ALONE

    def __post_init__(self) -> None:
        if self.goal.minimise[0] != "val_error":
            raise Unsupported(
                f'reward "goal" follows a goal that minimises val_error first, not {self.goal.minimise[0]}; '
                "choose one of the method's own rewards"
            )

    def __call__(self, metrics: Mapping[str, float]) -> float:
        """Reward of an answer, in [0, 1].

        Raises:
            Unsupported: It lacks a metric of the goal's limits.
        """
        for name, limit in self.goal.limits.items():
            if name not in metrics:
                raise Unsupported(f"the goal limits {name!r}; the evaluator gives {', '.join(sorted(metrics))}")
            if not metrics[name] <= limit:
                return 0.0
        return accuracy(metrics)

    def known(self, metrics: Mapping[str, float]) -> bool:
        """Whether an answer holds what the reward needs."""
        return {"val_error", *self.goal.limits} <= set(metrics)

    def __str__(self) -> str:
        return f"rewarded for the goal: {self.goal}"
