"""The spec of `kendall study`: proxies against full training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from suite.spec.parts import ArchitecturesPart, Common, LevelsPart, StudyProxyPart, TablePart


class StudySpec(Common):
    """`kendall study`: how well each proxy ranks the networks that full training ranks."""

    architectures: ArchitecturesPart
    proxies: list[StudyProxyPart] = Field(min_length=1)
    full_seeds: int = Field(default=2, ge=1)
    """Full trainings of each network; two or more give the noise ceiling."""
    proxy_seeds: int = Field(default=1, ge=1)
    """Trainings of each network under each proxy."""
    draws: int | None = Field(default=None, ge=100)
    """Bootstrap draws; None: 10,000, or 1,000 for more than 2,000 networks."""
    scores: list[str] | None = None
    """Rankings without training: params, macs, random, and zero-cost scores; None: the first three."""
    score_file: str | None = None
    """Published scores of the same networks."""
    tse: bool = True
    """Rank by the area under the training loss too, where it is known."""
    levels: LevelsPart | None = None
    """None: as in `suite.proxies`."""
    judge: TablePart | None = None
    """A published table whose full trainings live proxies are compared with; None: they are trained."""
    truth: Literal["judge", "validation"] = "judge"
    """What proxies are compared with; "validation": what a search sees of full training on a table."""
    reference: str | None = None
    """The proxy that all others are compared with; None: all pairs."""
    reach: list[Annotated[float, Field(gt=-1, lt=1)]] | None = None
    """Taus for which the cheapest proxy is named; None: 0.4, 0.5 ... 0.9."""
    budgets: list[Annotated[float, Field(gt=0)]] | None = None
    """Budgets of the strategies, in full trainings; None: 1, 3, 10."""

    @field_validator("proxies", mode="before")
    @classmethod
    def written(cls, value: object) -> object:
        """Tables, and EcoNAS's notation as text."""
        return [{"econas": entry} if isinstance(entry, str) else entry for entry in value] if isinstance(
            value, list) else value  # fmt: skip

    @model_validator(mode="after")
    def one_judge(self) -> Self:
        """A table judges its own answers."""
        if self.judge is not None and isinstance(self.evaluator, TablePart):
            raise ValueError("judge: a table judges its own answers; leave judge out, or set evaluator.kind to live")
        return self
