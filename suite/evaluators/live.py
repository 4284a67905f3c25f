"""Answers by training: the network of a trial, under its proxy, on images."""

from __future__ import annotations

import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from suite.data.images import ImageData
from suite.spaces import SearchSpace
from suite.training.recipe import Recipe, resolve
from suite.training.trainer import Trainer
from suite.training.weights.pool import WeightPool
from suite.types import BadInput, Cost, Evaluation, Proxy, Trial
from suite.workers import load as load_kind
from suite.workers.base import Place, TrainingWorkers
from suite.workers.processes import pick_places

MOST_THREADS = 1024
"""Most threads of a CPU for one training: torch dies of far more, without a word."""


class LiveEvaluator:
    """Trains the networks of trials.

    An answer depends on its trial alone, whatever was asked before. A later stage of a run goes on from its checkpoint
    and pays for its own epochs only; the same trial asked again costs nothing. `Trial.origin = "pool"` is a
    permission: with a pool, such a run starts from other networks' weights, and its answer depends on what the pool
    held when it was first asked; without one every run starts from its own.

    Args:
        space: Whose networks.
        data: Images; validation is on its held-out part.
        recipe: How to train: a name, a table of values, a Recipe.
        device: "auto", "cpu", "cuda", "cuda:1", or a list of GPUs; "auto" and "cuda" are all GPUs of one model, "auto"
            the CPU where there is none.
        view: "search" never looks at the test images; "judge" adds `test_error`.
        checkpoints: Folder of the runs under way; None: a temporary one, gone with this object.
        threads: Of a CPU, for one training; results depend on their number in the last bits.
        workers: Processes that train side by side on a CPU, or on each GPU; None: one a core, or as many as a GPU's
            memory holds.
        full: The training that counts; None: the space's.
        pool: Weights for trials of origin "pool"; None: there are none.
        deterministic: On a GPU, answers that are the same to the last bit whenever they are asked; slower. On a CPU
            they are.
        kind: Which workers train: a name of `suite.workers.KINDS`; None: "serial" where one network is trained at a
            time, else "processes". Or a function of the trainer and the places.
        beside: Another evaluator of the same space and images, whose processes train for this one too.

    Raises:
        BadInput: A value is out of its range.
        Unsupported: The device is not there, or the space has no networks.
    """

    name = "live"

    def __init__(
        self,
        space: SearchSpace,
        data: ImageData,
        *,
        recipe: str | Mapping[str, Any] | Recipe = "nas_bench_201",
        device: str | Sequence[str] = "auto",
        view: Literal["search", "judge"] = "search",
        checkpoints: Path | None = None,
        threads: int | None = None,
        workers: int | None = 1,
        full: Proxy | None = None,
        pool: WeightPool | None = None,
        deterministic: bool = False,
        kind: str | Callable[[Trainer, Sequence[Place]], TrainingWorkers] | None = None,
        beside: LiveEvaluator | None = None,
    ) -> None:
        if view not in ("search", "judge"):
            raise BadInput(f"live: view is search or judge, not {view!r}")
        for name, value in (("threads", threads), ("workers", workers)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise BadInput(f"live: {name} must be a whole number of at least 1, not {value!r}")
        if threads is not None and threads > MOST_THREADS:
            raise BadInput(f"live: threads must be at most {MOST_THREADS}, not {threads}")
        self.space, self.dataset, self.view = space, data.name, view
        self.full = space.full if full is None else full
        places = pick_places(device, workers)
        if checkpoints is None:
            temporary = tempfile.TemporaryDirectory(prefix="kendall-checkpoints-")
            weakref.finalize(self, temporary.cleanup)
            checkpoints = Path(temporary.name)
        self.trainer = Trainer(
            space,
            data,
            resolve(recipe),
            device=places[0].device,
            threads=threads or 1,
            judge=view == "judge",
            checkpoints=checkpoints,
            pool=pool,
            deterministic=deterministic,
        )
        self.recipe, self.device = self.trainer.recipe, self.trainer.device_name
        self.known: dict[Trial, Evaluation] = {}
        if beside is not None:
            made = beside.trains.beside(self.trainer)
        else:
            one = len(places) == 1 and places[0].slots == 1
            chosen = kind or ("serial" if one else "processes")
            made = (load_kind(chosen) if isinstance(chosen, str) else chosen)(self.trainer, places)
        self.trains: TrainingWorkers = made
        weakref.finalize(self, made.close)
        self.trainer.check_proxy(self.full)

    @property
    def judge(self) -> str:
        """On what a judge measures."""
        return "test"

    def stages(self, proxy: Proxy) -> tuple[int, ...] | None:
        """None: a run can be asked at any epoch."""
        return None

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in the order of the trials.

        Raises:
            Unsupported: A proxy cannot be trained here; nothing was trained.
            BadInput: An architecture is none of the space; or checkpoints cannot be written.
        """
        answers = dict(self.stream(trials))
        return [answers[place] for place in range(len(trials))]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
        """(place among the trials, answer), each as soon as it is done; what is known already comes first."""
        for trial in trials:
            self.trainer.check(trial)
        return self.answers(trials)

    def answers(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
        """As `stream`, of trials that were checked."""
        places: dict[Trial, deque[int]] = {}
        runs: dict[Trial, list[Trial]] = {}
        for place, trial in enumerate(trials):
            places.setdefault(trial, deque()).append(place)
            runs.setdefault(trial.whole, []).append(trial)
        workers, due = self.workers(), len(trials)
        try:
            for run in runs.values():
                for trial in sorted(run, key=lambda trial: trial.epochs):
                    workers.start(trial)
            while due:
                answer = workers.next()
                due -= 1
                yield places[answer.trial].popleft(), answer
        finally:
            if due:  # nobody waits for these any more; perhaps the user stopped the run, and will go on with it
                workers.cancel()

    def workers(self) -> LiveWorkers:
        """Workers for one search, or one part of it, which know what this object knows."""
        return LiveWorkers(self.trains.beside(self.trainer), self)

    def recall(self, evaluation: Evaluation) -> None:
        """Take an answer that was given earlier, by this object or another: it will not be trained for again."""
        self.known[evaluation.trial] = evaluation

    def wait(self) -> None:
        """Return when something has happened on the processes, or at once if nothing goes on there."""
        self.trains.wait()

    def close(self) -> None:
        """End the processes, if there are any."""
        self.trains.close()


class LiveWorkers:
    """Workers that train; a trial that was answered before, or is in flight already, is not trained for again.

    Args:
        trains: Workers of one kind, for this object alone.
        evaluator: Theirs; it holds the answers given so far, and gets the new ones.
    """

    name = "live"

    def __init__(self, trains: TrainingWorkers, evaluator: LiveEvaluator) -> None:
        self.trains, self.evaluator, self.known = trains, evaluator, evaluator.known
        self.repeated: deque[Trial] = deque()
        """Trials that are known, or will be once their twin is done."""
        self.in_flight: dict[Trial, int] = {}
        """Trial that is trained for -> its twins."""

    @property
    def free(self) -> int:
        """Number of trials that may be started now."""
        return self.trains.free

    @property
    def ready(self) -> bool:
        """Whether an answer is there already."""
        return bool(self.repeated) or self.trains.ready

    def start(self, trial: Trial) -> None:
        """Begin with a trial.

        Raises:
            Unsupported: Its proxy cannot be trained here.
            BadInput: Its architecture is none of the space.
        """
        if trial in self.in_flight:
            self.in_flight[trial] += 1
        elif trial in self.known:
            self.repeated.append(trial)
        else:
            self.trains.start(trial)
            self.in_flight[trial] = 0

    def next(self) -> Evaluation:
        """Wait for the first to complete; what is known already comes first, and costs nothing."""
        if self.repeated:
            return self.again(self.repeated.popleft())
        answer = self.trains.next()
        self.recall(answer)
        self.repeated.extend([answer.trial] * self.in_flight.pop(answer.trial))
        return answer

    def again(self, trial: Trial) -> Evaluation:
        """A known answer, which now costs nothing."""
        known = self.known[trial]
        free = Cost(0.0, self.evaluator.device, None if known.cost.energy_j is None else 0.0, 0.0)
        return replace(known, cost=free)

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """End a training and those of its twins, or all; what they took so far."""
        if trial is None:
            self.repeated.clear()
            self.in_flight.clear()
        else:
            self.repeated = deque(other for other in self.repeated if other != trial)
            self.in_flight.pop(trial, None)
        return self.trains.cancel(trial)

    def recall(self, evaluation: Evaluation) -> None:
        """Take an answer that was given earlier: it will not be trained for again."""
        self.known[evaluation.trial] = evaluation
