"""Answers by training: the network of a trial, under its proxy, on images."""

from __future__ import annotations

import tempfile
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from suite.data.images import ImageData
from suite.spaces import SearchSpace
from suite.training.recipe import Recipe, resolve
from suite.training.trainer import Trainer
from suite.training.weights.pool import KnowledgePool
from suite.types import BadInput, Cost, Evaluation, Proxy, Trial
from suite.workers.processes import Engine, Processes, pick_places
from suite.workers.serial import Serial

MOST_THREADS = 1024
"""Of a CPU, for one training: torch dies of far more, without a word."""


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
        engine: What answers runs instead of processes on `device`; it gets the trainer.

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
        pool: KnowledgePool | None = None,
        deterministic: bool = False,
        engine: Callable[[Trainer], Engine] | None = None,
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
        one = len(places) == 1 and places[0].slots == 1
        made = engine(self.trainer) if engine else Serial(self.trainer) if one else Processes(self.trainer, places)
        self.engine: Engine = made
        weakref.finalize(self, self.engine.close)
        self.known: dict[Trial, Evaluation] = {}
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
        """As `stream`, of trials that were checked; stages of one run are trained one after another."""
        places: dict[Trial, deque[int]] = defaultdict(deque)
        runs: dict[Trial, list[Trial]] = {}
        for place, trial in enumerate(trials):
            places[trial].append(place)
            if trial in self.known:
                yield places[trial].popleft(), self.again(trial)
            else:
                runs.setdefault(trial.whole, []).append(trial)
        pool = Trainings(self, max(1, sum(map(len, runs.values()))))
        try:
            for run in runs.values():
                for trial in sorted(run, key=lambda trial: trial.epochs):
                    pool.start(trial)
            while pool.in_flight:
                answer = pool.next()
                yield places[answer.trial].popleft(), answer
        finally:
            if pool.in_flight:
                pool.cancel()

    def workers(self, slots: int) -> Trainings:
        """Trainings, up to `slots` of them in flight; as many at once as there are processes."""
        return Trainings(self, slots)

    def recall(self, evaluation: Evaluation) -> None:
        """Take an answer that was given earlier, by this object or another: it will not be trained for again."""
        self.known[evaluation.trial] = evaluation

    def again(self, trial: Trial) -> Evaluation:
        """A known answer, which now costs nothing."""
        known = self.known[trial]
        free = Cost(0.0, self.device, None if known.cost.energy_j is None else 0.0, 0.0)
        return replace(known, cost=free)

    def close(self) -> None:
        """End the processes, if there are any."""
        self.engine.close()


class Trainings:
    """The trainings of a live evaluator as workers: those that wait do so in its engine's queue.

    Args:
        live: Whose engine trains, and which knows what was trained already.
        slots: Trials in flight.
    """

    def __init__(self, live: LiveEvaluator, slots: int) -> None:
        self.live, self.slots, self.name = live, slots, live.name
        self.in_flight = 0
        self.due: Counter[Trial] = Counter()
        """Trials that train, and how often each was asked."""
        self.done: deque[Evaluation] = deque()

    @property
    def free(self) -> int:
        """Slots that no trial takes."""
        return self.slots - self.in_flight

    def start(self, trial: Trial) -> None:
        """Train, unless its answer is known or on its way; what it costs is known when it is done."""
        self.live.trainer.check(trial)
        if trial in self.live.known:
            self.done.append(self.live.again(trial))
        else:
            if trial not in self.due:
                self.live.engine.start(trial)
            self.due[trial] += 1
        self.in_flight += 1

    def next(self) -> Evaluation:
        """The first answer to complete."""
        if not self.done:
            answer = self.live.engine.next()
            self.live.recall(answer)
            copies = self.due.pop(answer.trial) - 1
            self.done.extend([answer, *(self.live.again(answer.trial) for _ in range(copies))])
        self.in_flight -= 1
        return self.done.popleft()

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Stop everything that is in flight; trainings leave their checkpoints."""
        self.live.engine.cancel()
        self.due.clear()
        self.done.clear()
        self.in_flight = 0
        return []
