"""The words of the suite: what is asked (Trial), what is answered (Evaluation), and who does which.

Everything else imports this file and this file imports nothing of the suite.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


def nearest(word: str, words: Iterable[str]) -> str:
    """The end of a refusal: the nearest right name and all of them.

    >>> nearest("cifar01", ["cifar10", "digits"])
    "did you mean 'cifar10'? There are cifar10, digits"
    """
    words = list(words)
    close = [right for right in words if right.startswith(word)] or difflib.get_close_matches(word, words, 1)
    return (f"did you mean {close[0]!r}? There are " if close else "there are ") + ", ".join(words)


Architecture: TypeAlias = tuple[int, ...]
"""One option index per decision; the space gives it meaning."""


class KendallError(Exception):
    """Something the user can put right: one line that names the value and what would work."""


class Unsupported(KendallError):
    """A question that this space, table or evaluator cannot answer."""


class BadInput(KendallError):
    """A spec, file, folder or data set that is missing, damaged or wrong."""


HEADS = ("pooled", "map", "none")


@dataclass(frozen=True)
class Ends:
    """What a task asks of a network: what goes in, and what comes out.

    Raises:
        BadInput: A number is below 1, or there is no such head.

    >>> Ends(inputs=3, outputs=10).head_size(64)
    650
    """

    inputs: int
    """Channels of an image or a series."""
    outputs: int
    """Classes, bins, actions and the value, or the horizon."""
    head: Literal["pooled", "map", "none"] = "pooled"
    """What stands on the last feature map: "pooled": its mean, then a linear layer; "map": a 1x1 convolution;
    "none": nothing, the network gives the map itself and `outputs` says nothing."""

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1:
            raise BadInput(f"ends: inputs and outputs must be at least 1, not {self.inputs} and {self.outputs}")
        if self.head not in HEADS:
            raise BadInput(f"ends: no head {self.head!r}: {nearest(str(self.head), HEADS)}")

    def head_size(self, features: int, pixels: int = 1) -> int:
        """Parameters of the head on so many features; its multiply-adds, if the pixels of the last map are given."""
        if self.head == "none":
            return 0
        return (features * self.outputs + self.outputs) * (pixels if self.head == "map" else 1)

    def need_pooled(self, space: str) -> None:
        """Raises Unsupported unless the head is "pooled", the only one that the networks of `space` have."""
        if self.head != "pooled":
            raise Unsupported(
                f"{space}: its networks have no head {self.head!r}, only a classifier on pooled features; "
                "use nas_bench_201 or a space of DARTS's cells"
            )


CIFAR10_ENDS = Ends(inputs=3, outputs=10)
"""Colours in, ten classes out: what most spaces were published with."""


@dataclass(frozen=True)
class Metric:
    """What a task's `val_error` is: the number that the task minimises, in the task's own unit.

    >>> Metric("error", "%", worst=100.0, chance=90.0).unit
    '%'
    """

    name: str
    unit: str
    worst: float
    """The largest value there is; inf where there is none."""
    chance: float
    """What an untrained network or blind guesses reach; nan where nobody knows."""


@dataclass(frozen=True)
class Proxy:
    """A training recipe's size: how long, how wide, at which resolution, on how much data.

    Raises:
        BadInput: A value is out of its range.

    >>> Proxy(epochs=20, channels=4, resolution=8)          # EcoNAS's c4r4s0 on NAS-Bench-201
    Proxy(epochs=20, channels=4, resolution=8, samples=1.0, cells=None)
    """

    epochs: int
    """Length of the run and of its learning-rate schedule."""
    channels: int
    """Width of the first stage."""
    resolution: int
    """Side of the images [pixels]."""
    samples: float = 1.0
    """Fraction of the training images, in (0, 1]."""
    cells: int | None = None
    """Depth, where the space allows it; None is the space's own."""
    task: str = ""
    """What networks are asked, one of `suite.tasks.TASKS`; "" is the board's own task."""

    def __post_init__(self) -> None:
        for name in ("epochs", "channels", "resolution", "cells"):
            value = getattr(self, name)
            if name == "cells" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BadInput(f"proxy: {name} must be a whole number of at least 1, not {value!r}")
        if not 0 < self.samples <= 1:
            raise BadInput(f"proxy: samples must be a fraction in (0, 1], not {self.samples!r}")

    def __str__(self) -> str:
        depth = "" if self.cells is None else f" n{self.cells}"
        task = f" {self.task}" if self.task else ""
        return f"e{self.epochs} c{self.channels} r{self.resolution} s{self.samples:.6g}{depth}{task}"

    def __repr__(self) -> str:  # the board's own task is not written: keys of what is kept are made of this
        values = (f"{name}={value!r}" for name, value in vars(self).items() if name != "task" or value)
        return f"Proxy({', '.join(values)})"


POOL = "pool"
"""Origin of trials whose first weights come from the block pool."""


@dataclass(frozen=True)
class Trial:
    """The question: everything that its answer depends on.

    >>> half = Trial((3, 3, 1, 0, 2, 4), Proxy(200, 16, 32), epochs=100)
    >>> half.whole.epochs
    200
    """

    arch: Architecture
    proxy: Proxy
    epochs: int = 0
    """Where to stop and evaluate, 1..proxy.epochs; 0 becomes proxy.epochs."""
    seed: int = 0
    """Initial weights, order and subset of the data."""
    origin: str = ""
    """Source of the first weights: "" they are drawn, "pool" the block pool, else the key of a trained run."""

    def __post_init__(self) -> None:
        if self.epochs == 0:
            object.__setattr__(self, "epochs", self.proxy.epochs)
        if not 1 <= self.epochs <= self.proxy.epochs:
            raise BadInput(f"trial: epochs must lie in 1..{self.proxy.epochs} (its proxy's), not {self.epochs}")

    @property
    def whole(self) -> Trial:
        """The run that this is a stage of: the key of its checkpoint."""
        return self if self.epochs == self.proxy.epochs else Trial(self.arch, self.proxy, 0, self.seed, self.origin)


def refuse_origin(trial: Trial, evaluator: str) -> None:
    """Refuse a trial that begins with the weights of a trained run, where only drawn weights or the pool's are known.

    Raises:
        Unsupported: Its origin is neither "" nor "pool".
    """
    if trial.origin not in ("", POOL):
        raise Unsupported(f"{evaluator} keeps no run {trial.origin!r} to start from; use origin '' or {POOL!r}")


SIMULATED = "table:"
"""What the device name of a simulated second starts with."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer took; definitions in docs/cost.md.

    Costs of different devices never share a sum: see `suite.records.ledger`.
    """

    device_s: float
    """Seconds of the accelerator (or CPU) allocated to it; epochs resumed are not paid again. nan: not known."""
    device: str
    """"NVIDIA H200", "table:GTX 1080 Ti" (simulated seconds) ..."""
    energy_j: float | None = None
    """From the hardware's counter, where there is one [J]."""
    macs: float = math.nan
    """Multiply-adds spent on training and validation, counted; nan: not known."""

    @property
    def simulated(self) -> bool:
        """Whether the seconds were read from a table rather than measured now."""
        return self.device.startswith(SIMULATED)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The answer. Lower is better in every metric; a failed training has infinite ones, and says why."""

    trial: Trial
    metrics: Mapping[str, float]
    """val_error [%], params, macs, latency_ms, energy_mj ..."""
    cost: Cost
    failure: str = ""
    """Why the metrics are infinite; empty if nothing went wrong."""
    curve: Sequence[Mapping[str, float]] = field(default=(), compare=False)
    """One entry an epoch, where the training was live."""


@dataclass(frozen=True)
class Goal:
    """Aim of a run; the loop, the board and the searchers that ask for it get the same object.

    The winner of a search is the answer with the least first metric among those within all limits, whatever reward
    steered the searcher.

    Raises:
        BadInput: A metric is there twice or none is, a limit or a coordinate is not finite, or the reference point has
            another length than `minimise`.

    >>> Goal(("val_error", "latency_ms"), limits={"energy_mj": 30.0}).minimise
    ('val_error', 'latency_ms')
    """

    minimise: tuple[str, ...] = ("val_error",)
    """Names of metrics, most important first."""
    limits: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Metric -> the largest value that is feasible."""
    reference: tuple[float, ...] | None = None
    """Reference point of hypervolumes, a coordinate a metric; None: the stored ones (`suite.pareto.REFERENCE`)."""

    def __post_init__(self) -> None:
        names: object = self.minimise
        if isinstance(names, str) or not self.minimise:
            given = names if isinstance(names, str) else list(self.minimise)
            raise BadInput(f"goal: minimise must name at least one metric in a list, not {given!r}")
        object.__setattr__(self, "minimise", tuple(self.minimise))
        if len(set(self.minimise)) < len(self.minimise):
            raise BadInput(f"goal: minimise names a metric twice: {', '.join(self.minimise)}; name each once")
        for name, limit in self.limits.items():
            if not is_finite(limit):
                raise BadInput(f"goal: the limit of {name} must be a finite number, not {limit!r}; or remove it")
        if self.reference is None:
            return
        object.__setattr__(self, "reference", tuple(self.reference))
        if len(self.reference) != len(self.minimise):
            names = ", ".join(self.minimise)
            raise BadInput(
                f"goal: reference must have one coordinate for each of {names}, not {len(self.reference)}: "
                f"{list(self.reference)}"
            )
        if not all(map(is_finite, self.reference)):
            raise BadInput(f"goal: reference must be finite numbers, not {list(self.reference)}")

    def __str__(self) -> str:
        limits = ", ".join(f"{name} <= {limit:g}" for name, limit in self.limits.items())
        return f"least {', '.join(self.minimise)}" + (f" with {limits}" if limits else "")


ERROR_ALONE = Goal()
"""Goal of a run that names none: the least validation error."""


def is_finite(value: object) -> bool:
    """Whether `value` is a number, and neither infinite nor unknown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Recommendation:
    """The result of a search if it stopped here: one a completed answer."""

    best: Evaluation | None
    """The incumbent: the goal's best among the feasible answers trained longest; None while there is none."""
    front: tuple[Evaluation, ...]
    """The non-dominated answers under all metrics of the goal, least first metric first."""
    evaluations: int
    """Number of answers charged so far."""
    device_s: float
    """Device seconds charged so far, summed over all workers."""
    clock_s: float
    """Seconds since the start, as a clock beside the workers would show."""
    over_budget: tuple[Evaluation, ...] = ()
    """Answers that crossed the budget: never told, never recommended; live, they were trained all the same."""

    @property
    def over_budget_s(self) -> float:
        """Device seconds of the answers that crossed the budget."""
        return sum(answer.cost.device_s for answer in self.over_budget)


@runtime_checkable
class Searcher(Protocol):
    """Asks questions, hears the answers; budget, log and recommendation belong to the loop."""

    def ask(self) -> list[Trial]:
        """Independent trials; [] while answers are due: wait for one; [] with none due: the search is over."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take some of the answers due, as they complete."""
        ...


@runtime_checkable
class Notes(Protocol):
    """A searcher that has something to say beside its result; optional."""

    @property
    def note(self) -> str:
        """Remark for the leaderboard's row; empty where there is nothing to remark."""
        ...


class Prediction(Protocol):
    """A reward that a searcher predicted instead of, or before, a training."""

    arch: Architecture
    reward: float
    uncertainty: float
    threshold: float
    """The uncertainty up to which it is used in place of a training."""
    trained: float
    """Reward of a training that took place all the same; nan: there was none."""

    @property
    def used(self) -> bool:
        """Whether it stood in for a training."""
        ...


@runtime_checkable
class Predicts(Protocol):
    """A searcher that predicts rewards of networks; optional."""

    @property
    def predictions(self) -> Sequence[Prediction]:
        """All predictions so far; none of them can win a search."""
        ...


@runtime_checkable
class GradientSearch(Protocol):
    """Trains a mixture of all operations by gradients; data, schedule, checkpoints and cost belong to the loop.

    The loop is `suite.training.gradient_loop`, the learner `suite.networks.learner.Learner`; both are described in
    docs/gradient-searches.md.
    """

    bilevel: bool
    """True: the network's weights on one half of the training images, the mixture on the other; False: both on all."""
    keep: str
    """Whose cell wins: "last": the last epoch's; "best": that of the epoch with the least `val_error`."""
    statistics: str
    """Of the supernet's norms outside training: "running" or "batch"."""
    space: Any
    """Whose supernet: a `suite.spaces.SearchSpace`."""

    def build(self, ends: Ends, seed: int) -> Any:
        """The network of mixtures (`suite.networks.mixture.Mixes`) to train, on the CPU, its weights drawn from `seed`.

        It depends on options and on the searcher's own state: on resumption `load` comes before.
        """
        ...

    def begin(self, learner: Any, epochs: int) -> None:
        """Make what is learnt for `learner.supernet`, the built network; the schedule is of so many epochs.

        If `load` came before, it is as it was when that state was made.
        """
        ...

    def epoch(self, number: int) -> None:
        """Hear that an epoch begins, counted from 0; `learner.replace` may be called here."""
        ...

    def step(self, train: Any, held: Callable[[], Any]) -> Any:
        """One search step on a batch of the weights' images and one of the mixture's; the pass of the weights' step."""
        ...

    def weights(self) -> Tensor:
        """The mixture as it stands, which the loop scores on the held-out images; those that are 0 are not computed."""
        ...

    def derive(self) -> Architecture:
        """The architecture that it would hand over now."""
        ...

    def log(self) -> dict[str, float]:
        """What else an epoch's entry in the log should hold."""
        ...

    def state(self) -> dict[str, Any]:
        """All that it has learnt: tensors, numbers, strings, lists, dicts."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Take what `state` gave; `build` and `begin` come after and make use of it."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """Answers trials: a table, a surrogate, live training, shared weights."""

    name: str

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in the order of the trials.

        Raises:
            Unsupported: A trial cannot be answered here; nothing was trained.
        """
        ...


@runtime_checkable
class Streams(Protocol):
    """An evaluator that hands over each answer as soon as it is done; optional."""

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
        """Pairs of (place among the trials, answer) in the order of completion."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """Evaluators and workers that make use of answers given earlier; optional."""

    def recall(self, evaluation: Evaluation) -> None:
        """Take in an answer that was given earlier, by this object or another."""
        ...


@runtime_checkable
class Workers(Protocol):
    """Where trials become answers, and when: some are started, the first to complete is handed over.

    Kinds of them are in `suite.workers`, their contract in docs/workers.md. They keep no clock: the loop does.
    """

    name: str

    @property
    def free(self) -> int:
        """Number of trials that may be started now."""
        ...

    @property
    def ready(self) -> bool:
        """Whether `next` has an answer without waiting for another process."""
        ...

    def start(self, trial: Trial) -> Cost | None:
        """Begin with a trial; its cost where that is known before it is done, as on a table.

        Raises:
            Unsupported: The trial cannot be answered here.
        """
        ...

    def next(self) -> Evaluation:
        """Wait for the first trial in flight that completes; one must be in flight."""
        ...

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Drop a trial in flight, or all of them; what those that were at work took so far."""
        ...


JSON: TypeAlias = dict[str, Any]
