"""Where searchers meet: one space on one data set, with who answers the search and who judges its winner."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from suite.data.datasets import DATASETS
from suite.evaluators.recorded import Recorded, RecordedWorkers
from suite.evaluators.reseeded import Reseeded, ReseededWorkers
from suite.resources.beside import Resources, WithResources, WorkersWithResources
from suite.spaces import SPACES, SearchSpace
from suite.spec.parts import Common, LivePart, ProxyPart, SurrogatePart, TablePart
from suite.types import JSON, Architecture, Ends, Evaluation, Evaluator, GradientSearch, Proxy, Unsupported, Workers
from suite.workers.simulated import Simulated

if TYPE_CHECKING:
    from suite.evaluators.live import LiveEvaluator
    from suite.evaluators.surrogate import SurrogateEvaluator
    from suite.evaluators.table import TableEvaluator
    from suite.records.log import Log
    from suite.training.weights.pool import WeightPool


LISTED = 100_000
"""Architectures of a space, at most, that are all asked for the best."""
JUDGE = "/judge"
"""The name under which the judge's checkpoints are kept; no search has it."""


class Problem(Protocol):
    """A space and a data set, with answers for the search and for the judge kept apart."""

    space: SearchSpace
    dataset: str
    name: str
    side: int
    """Side of the images [pixels]: the resolution that a proxy has if it names none."""
    ends: Ends
    """The inputs and outputs of its networks."""
    full: Proxy
    judge: str
    """Who judges: "test", or "validation, other seeds" where a table has no test split."""
    fingerprint: str
    """Hash of the data that answers come from."""
    device: str
    simulated: bool
    """Whether seconds are a table's."""
    free_judge: bool
    """Whether the judge looks its answers up, so that every incumbent of a search can be judged."""

    @property
    def published(self) -> Published | None:
        """The published table that answers or judges; None: there is none."""
        ...

    @property
    def training(self) -> Trained | None:
        """The problem as one that trains networks; None: nothing is trained."""
        ...

    def check(self, proxy: Proxy) -> None:
        """Raises Unsupported if no network can be asked under `proxy` here."""
        ...

    def knows_seconds(self, proxy: Proxy) -> bool:
        """Whether answers under `proxy` have a cost in seconds."""
        ...

    @property
    def trains_blocks(self) -> bool:
        """Whether weights of blocks can go from one network to another."""
        ...

    def search_view(self, run: str = "", *, pool: WeightPool | None = None) -> Evaluator:
        """A fresh evaluator without any test metric, for the search of this name.

        Args:
            run: The search.
            pool: Weights that its networks may inherit.
        """
        ...

    def workers(
        self, run: str, log: Log, *, seed: int, in_flight: int, resources: Resources | None, pool: WeightPool | None
    ) -> Workers:
        """Fresh workers without any test metric, for the search of this name: from the log first, then new ones.

        Args:
            run: Name of the search.
            log: Holds its answers so far, and gets the new ones.
            seed: Number that its trials' training seeds are moved by.
            in_flight: Trials of this search that may be in flight.
            resources: Give metrics beside the evaluator's; None: there are none.
            pool: Weights that its networks may inherit.
        """
        ...

    def search_over(self, run: str) -> None:
        """Let go of what was kept for the search of this name."""
        ...

    def check_gradients(self, searcher: str, proxy: Proxy) -> None:
        """Raises Unsupported if no supernet can be trained here under `proxy`."""
        ...

    def learn(
        self, searcher: GradientSearch, proxy: Proxy, *, seed: int, run: str, recipe: str | JSON | None, done: int
    ) -> Iterator[Evaluation]:
        """The epochs of the gradient search of this name after the first `done`: the cell of each, and its cost."""
        ...

    def judge_view(self) -> Evaluator:
        """A fresh evaluator that gives `judge_error`."""
        ...

    def judging_workers(self) -> Workers:
        """Workers of the judge for one winner."""
        ...

    def judge_over(self) -> None:
        """Let go of what was kept for the judge: it will not be asked any more."""
        ...

    def wait(self) -> None:
        """Return when something has happened on the processes that train, or at once if there are none."""
        ...

    def judge_error(self, answer: Evaluation) -> float:
        """The error that the judge's answer holds [%]."""
        ...

    def optimum(self, seed: int) -> float:
        """The best judge error in the space [%]; nan if nobody knows."""
        ...

    def full_runs(self, arch: Architecture) -> int | None:
        """Full trainings that there are of `arch`; None: as many as one asks for."""
        ...

    def stages(self, proxy: Proxy) -> tuple[int, ...] | None:
        """The epochs at which a run of `proxy` can be asked; None: any."""
        ...


class AnswersAtOnce:
    """The part that problems share whose answers are looked up: no weights, no processes, nothing kept."""

    simulated = free_judge = True
    published: Published | None = None
    training: Trained | None = None
    dataset: str
    name: str

    def search_view(self, run: str = "", *, pool: WeightPool | None = None) -> Evaluator:
        """A fresh evaluator for the search."""
        raise NotImplementedError

    def judge_view(self) -> Evaluator:
        """A fresh evaluator for the judge."""
        raise NotImplementedError

    @property
    def trains_blocks(self) -> bool:
        """No, because nothing is trained here."""
        return False

    def workers(
        self, run: str, log: Log, *, seed: int, in_flight: int, resources: Resources | None, pool: WeightPool | None
    ) -> Workers:
        """Simulated ones; answers are in the log in the order in which they are asked."""
        view = self.search_view(run)
        view = view if resources is None else WithResources(view, resources)
        recorded = Recorded(view, log, dataset=self.dataset, run=run, phase="search")
        return Simulated(Reseeded(recorded, seed), in_flight)

    def search_over(self, run: str) -> None:
        """Return at once: nothing was kept for the search."""

    def learn(
        self, searcher: GradientSearch, proxy: Proxy, *, seed: int, run: str, recipe: str | JSON | None, done: int
    ) -> Iterator[Evaluation]:
        """Refuse: there are no images."""
        raise Unsupported(f"{self.name} has no images to train a supernet on")

    def judging_workers(self) -> Workers:
        """Simulated workers over the judge's answers."""
        return Simulated(self.judge_view())

    def judge_over(self) -> None:
        """Return at once: nothing was kept for the judge."""

    def wait(self) -> None:
        """Return at once: there are no processes to wait for."""


class Published(AnswersAtOnce):
    """A published table: the search sees validation, the judge the rest."""

    def __init__(self, part: TablePart, space: SearchSpace, dataset: str, full: ProxyPart, base: Path) -> None:
        from suite.evaluators.table import TableEvaluator
        from suite.tables import open_table

        self.table = open_table(part.table, part.file, base=base)
        if self.table.space.name != space.name:
            raise Unsupported(f"table {part.table} holds {self.table.space.name}, not {space.name}")
        self.space, self.dataset, self.view = space, dataset, TableEvaluator
        sides = [setting.proxy.resolution for setting, _ in self.table.blocks if setting.dataset == dataset]
        self.side = max(sides, default=space.full.resolution)
        known = DATASETS.get(dataset, DATASETS["cifar10"])
        self.ends = Ends(known.image_channels, known.classes)
        self.full = full.proxy(space, self.side)
        self.searching, self.judging = TableEvaluator(self.table, dataset, full=self.full), self.judge_view()
        self.judging.stages(self.full)
        self.name, self.judge = self.judging.name, self.judging.judge
        self.fingerprint, self.device = self.table.fingerprint, self.judging.device
        self.published = self

    def check(self, proxy: Proxy) -> None:
        """Refuse a proxy that the table does not hold."""
        self.searching.stages(proxy)

    def knows_seconds(self, proxy: Proxy) -> bool:
        """Some benchmarks were published without."""
        return any(math.isfinite(s) for s in self.searching.answers(proxy, proxy.epochs).device_s.flat)

    def search_view(self, run: str = "", *, pool: WeightPool | None = None) -> Evaluator:
        """Validation answers, with their simulated cost."""
        return self.view(self.table, self.dataset, view="search", full=self.full)

    def check_gradients(self, searcher: str, proxy: Proxy) -> None:
        """A table has no images."""
        raise Unsupported(
            f"{searcher} trains a supernet, and a table has no images: give evaluator.kind = 'live'; with a [judge] "
            f"its cells are looked up in {self.name}"
        )

    def judge_view(self) -> TableEvaluator:
        """A fresh evaluator that gives the judge's answers."""
        return self.view(self.table, self.dataset, view="judge", full=self.full)

    def judge_error(self, answer: Evaluation) -> float:
        """Test error, or the validation error of other seeds."""
        return answer.metrics["test_error" if self.judge == "test" else "val_error"]

    def optimum(self, seed: int) -> float:
        """The best in the table."""
        return float(self.judging.optimum(seed))

    def full_runs(self, arch: Architecture) -> int:
        """Full trainings that the table holds; 1 where it holds none, so that asking for it says so."""
        row = self.table.row(arch)
        return max(1, int(self.searching.answers(self.full, self.full.epochs).counts[row])) if row >= 0 else 1

    def stages(self, proxy: Proxy) -> tuple[int, ...] | None:
        """The epochs that the table holds of a run."""
        return self.searching.stages(proxy)


class Trained:
    """Networks trained on images: the search sees the held-out validation split, the judge the test set."""

    judge = "test"
    simulated = free_judge = False

    def __init__(
        self, part: LivePart, space: SearchSpace, dataset: str, full: ProxyPart, base: Path, checkpoints: Path | None
    ) -> None:
        from suite.data.images import load
        from suite.evaluators.live import LiveEvaluator
        from suite.training.recipe import resolve

        root = None if part.data is None else next((p for p in (base / part.data, Path(part.data)) if p.exists()), None)
        if part.data is not None and root is None:
            raise Unsupported(f"no folder {part.data} with images, neither beside the spec nor here")
        self.data = load(
            dataset,
            root=root,
            valid_fraction=part.valid_fraction,
            shards=part.shards,
            test_shards=part.test_shards,
            download=part.download,
        )
        self.space, self.dataset, self.side = space, self.data.name, self.data.side
        self.ends = self.data.ends
        self.full = full.proxy(space, self.side)
        space.check_proxy(self.full)
        self.part, self.recipe, self.checkpoints = part, resolve(part.recipe), checkpoints
        self.view = LiveEvaluator
        self.name, self.fingerprint = "live", self.data.fingerprint
        self.judging = self.evaluator("judge", self.stage_folder(JUDGE))
        self.device = self.judging.device

    @property
    def published(self) -> Published | None:
        """None: its own judge trains, too."""
        return None

    @property
    def training(self) -> Trained:
        """This problem itself."""
        return self

    def check(self, proxy: Proxy) -> None:
        """Its networks can be built, and the images suffice."""
        self.judging.trainer.check_proxy(proxy)

    def knows_seconds(self, proxy: Proxy) -> bool:
        """Yes: the seconds of trainings are measured."""
        return True

    @property
    def trains_blocks(self) -> bool:
        """Where the space's networks are taken apart."""
        from suite.networks.blocks import BLOCKS

        return self.space.name in BLOCKS

    def search_view(self, run: str = "", *, pool: WeightPool | None = None) -> LiveEvaluator:
        """Trainings, scored on the validation split; stages are kept until the search is over."""
        return self.evaluator("search", self.stage_folder(run), pool, self.judging)

    def workers(
        self, run: str, log: Log, *, seed: int, in_flight: int, resources: Resources | None, pool: WeightPool | None
    ) -> Workers:
        """Trainings on the processes that all searches of this problem share; the log has their order of completion."""
        workers: Workers = self.search_view(run, pool=pool).workers()
        workers = workers if resources is None else WorkersWithResources(workers, resources)
        recorded = RecordedWorkers(workers, log, dataset=self.dataset, run=run, phase="search")
        return ReseededWorkers(recorded, seed)

    def search_over(self, run: str) -> None:
        """Delete the checkpoints of the search's stages."""
        folder = self.stage_folder(run)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            for empty in folder.parents[:2]:
                with contextlib.suppress(OSError):  # another search's stages may lie in it
                    empty.rmdir()

    def check_gradients(self, searcher: str, proxy: Proxy) -> None:
        """The space has a supernet."""
        from suite.networks.supernet import SUPERNETS

        if self.space.name not in SUPERNETS:
            raise Unsupported(
                f"{searcher}: {self.space.name} has no supernet; there are some for {', '.join(SUPERNETS)}"
            )

    def learn(
        self, searcher: GradientSearch, proxy: Proxy, *, seed: int, run: str, recipe: str | JSON | None, done: int
    ) -> Iterator[Evaluation]:
        """A supernet's epochs, checkpointed until the search is over."""
        from suite.training.gradient_loop import epochs

        folder = self.stage_folder(run)
        with contextlib.ExitStack() as undo:
            if folder is None:
                folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="kendall-supernet-")))
            yield from epochs(
                searcher, self.data, proxy, recipe=recipe or "darts_search", seed=seed, checkpoints=folder,
                device=self.part.first_device, done=done,
            )  # fmt: skip

    def judge_view(self) -> Evaluator:
        """Trainings, scored on the test set too; one that is stopped is kept until the judge is done."""
        return self.judging

    def judging_workers(self) -> Workers:
        """Trainings on the processes that the searches use."""
        return self.judging.workers()

    def judge_over(self) -> None:
        """Drop what a stopped training left."""
        self.search_over(JUDGE)

    def wait(self) -> None:
        """Return when something has happened on the processes."""
        self.judging.wait()

    def stage_folder(self, run: str) -> Path | None:
        """Where a search keeps its stages: searches never share them, so that each pays for its own."""
        return self.checkpoints and self.checkpoints / self.dataset / re.sub(r"[^\w.-]+", "_", run)

    def evaluator(
        self, view: Literal["search", "judge"], checkpoints: Path | None, pool: WeightPool | None = None,
        beside: LiveEvaluator | None = None,
    ) -> LiveEvaluator:  # fmt: skip
        """Trainings under the recipe of the spec."""
        return self.view(
            self.space, self.data, recipe=self.recipe, device=self.part.device, view=view,
            checkpoints=checkpoints, workers=self.part.processes or None, full=self.full, pool=pool,
            deterministic=self.part.deterministic, kind=self.part.workers_kind, beside=beside,
        )  # fmt: skip

    def judge_error(self, answer: Evaluation) -> float:
        """The measured test error [%]."""
        return answer.metrics["test_error"]

    def optimum(self, seed: int) -> float:
        """Nobody has trained the whole space."""
        return float("nan")

    def full_runs(self, arch: Architecture) -> None:
        """None: each seed is a full training of its own."""

    def stages(self, proxy: Proxy) -> tuple[int, ...] | None:
        """None: a run can be asked at any epoch."""
        return None


class TrainedThenLookedUp(Trained):
    """Networks trained on images, the winner looked up in a published table at its full training."""

    free_judge = True

    def __init__(
        self, part: LivePart, judge: TablePart, space: SearchSpace, dataset: str, full: ProxyPart, base: Path,
        checkpoints: Path | None,
    ) -> None:  # fmt: skip
        self.table = Published(judge, space, dataset, full, base)
        super().__init__(part, space, dataset, full, base, checkpoints)
        self.full, self.judge = self.table.full, f"{self.table.judge} of {self.table.name}"
        self.fingerprint += f" judged by {self.table.fingerprint}"

    @property
    def published(self) -> Published:
        """The table that judges."""
        return self.table

    def judge_view(self) -> Evaluator:
        """A fresh evaluator that gives the table's answers."""
        return self.table.judge_view()

    def judging_workers(self) -> Workers:
        """The table's answers, at once."""
        return self.table.judging_workers()

    def judge_error(self, answer: Evaluation) -> float:
        """As the table has it."""
        return self.table.judge_error(answer)

    def full_runs(self, arch: Architecture) -> int:  # type: ignore[override]
        """Full trainings of the network that the table holds."""
        return self.table.full_runs(arch)

    def optimum(self, seed: int) -> float:
        """The best in the table."""
        return self.table.optimum(seed)


class Predicted(AnswersAtOnce):
    """A surrogate benchmark: the search sees draws, the judge the mean of the full training."""

    judge = "surrogate, mean"

    def __init__(self, part: SurrogatePart, space: SearchSpace, dataset: str, full: ProxyPart, base: Path) -> None:
        from suite.evaluators.surrogate import SurrogateEvaluator
        from suite.tables import find_data
        from surrogates.benchmark import Benchmark

        self.benchmark, self.view = Benchmark.load(find_data(part.file, base), SPACES), SurrogateEvaluator
        if self.benchmark.space.name != space.name or self.benchmark.dataset != dataset:
            raise Unsupported(
                f"surrogate {part.file} is of {self.benchmark.space.name} on {self.benchmark.dataset}, "
                f"not {space.name} on {dataset}"
            )
        self.space, self.dataset = space, dataset
        self.side = max(setting.proxy.resolution for setting in self.benchmark.settings)
        known = DATASETS.get(dataset, DATASETS["cifar10"])
        self.ends = Ends(known.image_channels, known.classes)
        self.full = full.proxy(space, self.side)
        self.setting = self.benchmark.check(self.full, self.full.epochs)
        view = self.judge_view()
        self.name, self.device, self.fingerprint = view.name, view.device, self.benchmark.error.data
        self._best: float | None = None

    def check(self, proxy: Proxy) -> None:
        """It was fitted on this proxy."""
        self.benchmark.check(proxy, proxy.epochs)

    def knows_seconds(self, proxy: Proxy) -> bool:
        """Where the table that it was fitted on did."""
        return self.benchmark.cost is not None

    def search_view(self, run: str = "", *, pool: WeightPool | None = None) -> Evaluator:
        """Draws, with their predicted cost."""
        return self.view(self.benchmark, view="search")

    def check_gradients(self, searcher: str, proxy: Proxy) -> None:
        """A surrogate has no images."""
        raise Unsupported(f"{searcher} trains a supernet, and a surrogate has no images: give evaluator.kind = 'live'")

    def judge_view(self) -> SurrogateEvaluator:
        """An evaluator that gives the mean of the full training."""
        return self.view(self.benchmark, view="judge")

    def judge_error(self, answer: Evaluation) -> float:
        """The predicted mean error of the full training [%]."""
        return answer.metrics["val_error"]

    def optimum(self, seed: int) -> float:
        """The least mean error in the space, where the space can be listed."""
        if self._best is None:
            listed = self.space.size <= LISTED
            self._best = float(self.benchmark.mean(list(self.space), self.setting).min()) if listed else math.nan
        return self._best

    def full_runs(self, arch: Architecture) -> int | None:
        """As many as one asks for."""
        return None

    def stages(self, proxy: Proxy) -> tuple[int, ...] | None:
        """Those that it was fitted on."""
        return tuple(sorted(setting.stage for setting in self.benchmark.settings if setting.proxy == proxy))


def open_problem(spec: Common, dataset: str, *, base: Path, checkpoints: Path | None) -> Problem:
    """Open the problem of one data set of a spec; relative paths are looked up from `base` first.

    Raises:
        BadInput: Data are missing or damaged.
        Unsupported: The table or space cannot serve the spec.
    """
    space, judge = spec.search_space(), getattr(spec, "judge", None)
    if isinstance(spec.evaluator, TablePart):
        return Published(spec.evaluator, space, dataset, spec.full, base)
    if isinstance(spec.evaluator, SurrogatePart):
        return Predicted(spec.evaluator, space, dataset, spec.full, base)
    if judge is not None:
        return TrainedThenLookedUp(spec.evaluator, judge, space, dataset, spec.full, base, checkpoints)
    return Trained(spec.evaluator, space, dataset, spec.full, base, checkpoints)
