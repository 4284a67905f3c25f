"""The spec of `kendall predictors`: which predictors learn what from how many networks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from suite.spec.parts import Ints, Name, Part, Seed, WholeSpec
from suite.types import nearest
from surrogates import SURROGATES


class DataPart(Part):
    """Networks with known errors: a table, or one of our own logs."""

    table: str
    """A name of `kendall list`, or a converted table's or a log's file."""
    file: str | None = None
    """Where the benchmark's own file lies, if its package does not ship it."""
    datasets: list[str] | None = None
    """Of the table's; None: all."""
    split: Literal["valid", "test"] = "valid"
    epochs: int | None = Field(default=None, ge=1)
    """The training that is predicted; None: the table's longest."""
    sizes: Ints | None = None
    """Networks to learn from, where they are other than those of the spec."""
    cheap_epochs: Ints | None = None
    """Shorter trainings of the same networks, ranked beside the predictors."""
    score_file: str | None = None
    """Published scores of the same networks."""
    scores: list[str] | None = None
    """Which of them are ranked beside the predictors; None: all."""


class PredictorPart(Part):
    """A predictor and its options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str
    encoding: str | None = None
    """Parts joined by +, or "auto"; None: what suits the predictor."""
    as_written: bool = False
    """Whether dead operations are left in."""
    features: list[str] | None = None
    """Cheap trainings ("12 epochs") and scores that are columns, too."""
    datasets: list[str] | None = None
    """Where it takes part; None: everywhere."""
    label: str = ""
    """What its rows are called, where one predictor stands in a spec twice; empty: the name."""

    @field_validator("name")
    @classmethod
    def known(cls, name: str) -> str:
        """A registered predictor."""
        if name not in SURROGATES:
            raise ValueError(f"no predictor {name!r}: {nearest(name, SURROGATES)}")
        return name

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of its constructor."""
        return dict(self.model_extra or {})


class DevicesPart(Part):
    """Networks with measured latency or energy: a table of resources, each of its devices predicted by itself."""

    table: str
    """A name of `kendall list` that holds resources, or a converted table's file."""
    file: str | None = None
    """Where the publisher's own file lies."""
    dataset: str = "cifar10"
    """The data set whose networks were measured."""
    metric: Literal["latency_ms", "energy_mj"] = "latency_ms"
    devices: list[str] | None = None
    """Of the table's; None: all that know the metric."""


class TransferPart(Part):
    """A few networks measured on a device that is new; others were measured before."""

    sources: list[str] = Field(min_length=2)
    """Devices that were measured before."""
    targets: list[str] = Field(min_length=1)
    """Devices that are new."""
    measured: int = Field(default=900, ge=20)
    """Networks measured on each of the sources."""
    samples: Ints
    """Networks measured on a new device."""


class PredictorsSpec(WholeSpec):
    """`kendall predictors`: the rank agreement of predictors by number of networks that they learn from."""

    name: Name
    data: list[DataPart] | None = None
    predictors: list[PredictorPart] = Field(min_length=1)
    devices: list[DevicesPart] | None = None
    transfer: TransferPart | None = None
    sizes: Ints
    """Networks to learn from, unless the data say otherwise."""
    splits: int = Field(default=5, ge=1)
    """Draws of these networks; split k is drawn with seed `seed0` + k."""
    seed0: Seed = 0
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Of the intervals."""

    @model_validator(mode="after")
    def something(self) -> Self:
        """There is something to predict."""
        if not (self.data or self.devices):
            raise ValueError("give data, devices or both: what is to be predicted")
        if self.transfer is not None and not self.devices:
            raise ValueError("transfer: its devices are in tables of resources; give devices, too")
        return self

    @field_validator("predictors", mode="before")
    @classmethod
    def named(cls, value: object) -> object:
        """Names and tables mixed."""
        if not isinstance(value, list):
            return value
        return [{"name": entry} if isinstance(entry, str) else entry for entry in value]
