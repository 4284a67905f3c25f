"""The spec of `kendall run`: searchers against each other."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from searchers import about, available
from searchers import load as load_method
from suite.spec.parts import BudgetPart, Common, GoalPart, ProxyPart, ResourcePart, SearcherPart, TablePart
from suite.types import ERROR_ALONE, JSON, Goal

RENAMED = {"objectives": "minimise", "constraints": "limits", "reference": "reference"}
"""Old keys of a run's spec, and their names in its table [goal]."""


class RunSpec(Common):
    """`kendall run`: searchers against each other, each data set its own leaderboard."""

    searchers: list[SearcherPart] = Field(min_length=1)
    seeds: int = Field(ge=1)
    """Searches of each searcher."""
    budget: BudgetPart
    proxy: ProxyPart | None = None
    """What candidates are trained under; None: the full setting."""
    workers: int = Field(default=1, ge=1)
    """Trials of a search in flight."""
    parallel: int = Field(default=1, ge=1, exclude=True)
    """Searches side by side; no part of what the results depend on, so a run may go on with another number."""
    judge_seeds: int = Field(default=1, ge=1)
    """Full trainings of each winner, where the judge trains live."""
    judge: TablePart | None = None
    """A published table that judges winners of live searches; None: they are trained in full."""
    goal: GoalPart | None = None
    """Metrics to minimise, limits and reference point; None: val_error alone."""
    resources: list[ResourcePart] | None = None
    """Where metrics beside the error come from; None: what the evaluator gives."""
    stores: str | None = None
    """Folder of what searches hand on to later ones: weights, trained samples; None: each begins with nothing."""

    @property
    def aim(self) -> Goal:
        """The goal as the suite's type."""
        return ERROR_ALONE if self.goal is None else self.goal.goal()

    @model_validator(mode="after")
    def fitting(self) -> Self:
        """Keys that only make sense beside others."""
        if self.judge is not None and isinstance(self.evaluator, TablePart):
            raise ValueError(
                "judge: a table judges its own searches; remove `judge` from the spec, or set evaluator.kind to live"
            )
        if self.stores is not None and self.parallel > 1:
            raise ValueError("parallel: searches that share `stores` build on one another; remove one of the two keys")
        return self

    @model_validator(mode="before")
    @classmethod
    def named(cls, content: object) -> object:
        """Refuse old keys; make tables of names.

        "all" is every searcher that the list does not name itself and that can run here.
        """
        if not isinstance(content, dict):
            return content
        for old, new in RENAMED.items():
            if old in content:
                raise ValueError(f"the key {old!r} is now goal.{new}")
        if "searchers" not in content:
            return content
        value = content["searchers"]
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list):
            return content
        parts = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
        rest: list[JSON] = []
        if {"name": "all"} in parts:
            evaluator = content.get("evaluator")
            trains = isinstance(evaluator, dict) and evaluator.get("kind") == "live"
            given = {part.get("name") for part in parts if isinstance(part, dict)}
            names = [name for name in available() if name not in given]
            rest = [{"name": name} for name in names if trains or "supernet" not in about(load_method(name)).needs]
        return {**content, "searchers": [p for part in parts for p in (rest if part == {"name": "all"} else [part])]}

    @field_validator("searchers")
    @classmethod
    def distinct(cls, value: list[SearcherPart]) -> list[SearcherPart]:
        """Rows must be told apart."""
        rows = [part.row for part in value]
        if len(set(rows)) < len(rows):
            raise ValueError(f"two searchers with one name: {', '.join(rows)}; give each a label")
        return value
