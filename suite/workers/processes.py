"""Trainings side by side: one process a core, or several on each GPU; the answers are those of one after another."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import torch

from suite.data.images import ImageData
from suite.training.device import OUT_OF_MEMORY, DeviceLost, device_name, energy_counter, free, pick_device
from suite.training.trainer import Trainer
from suite.types import BadInput, Evaluation, Trial, Unsupported
from suite.workers.device_clock import PLACES, Shares

LEAVE_S = 10.0
"""For a process to write its checkpoint and leave [s]."""
MEMORY_USED = 0.9
"""Of the memory that is free once the first candidate is done, the share that candidates may take."""
CUDA_CONTEXT = 600 * 2**20
"""What CUDA takes for a process beside its tensors [bytes]: an allowance, not measured."""


class Engine(Protocol):
    """Trains the networks of checked trials; holds whatever it needs between calls."""

    def start(self, trial: Trial) -> None:
        """Put a trial into the queue; a later stage of a run in it waits for the earlier ones."""
        ...

    def next(self) -> Evaluation:
        """The first answer to complete; a network that fails is answered with its failure."""
        ...

    def cancel(self) -> None:
        """Stop what is in flight, which leaves checkpoints, and forget the queue."""
        ...

    def close(self) -> None:
        """Let go of processes and files; the engine can still be used and takes them again."""
        ...


@dataclass(frozen=True)
class Place:
    """A device, and how many candidates are in flight on it."""

    device: str
    """As torch names it."""
    slots: int | None = None
    """None: as many as its free memory holds by what the first candidate takes, and as there are cores for."""
    shared: bool = True
    """Whether candidates share the device's time, as on a GPU; False: each has a core of its own."""
    name: str = ""
    """What messages call it; empty: as torch does."""

    def __post_init__(self) -> None:
        if self.slots is not None and not 1 <= self.slots <= PLACES:
            raise BadInput(f"{self.device}: from 1 to {PLACES} candidates may be in flight, not {self.slots}")


@dataclass(eq=False)
class Job:
    """A run that waits to be trained, or is."""

    run: deque[Trial]
    alone: Site | None = None
    """Where its first trial is to be asked while nothing else is there: it ran out of memory beside others."""
    avoid: set[str] = field(default_factory=set)
    """Places on which a process died with it."""


@dataclass
class Lost:
    """What was spent on a trial for nothing."""

    seconds: float = 0.0
    joules: float = 0.0
    macs: float = 0.0


class Processes:
    """One training a process, on one or several devices; the answers are those of `Serial`.

    A process that dies is replaced and its trial asked once more; if that fails too, it is answered with the reason. A
    device on which no process can be started any more is left, its trials go to the others; the last one ends the run.
    A network that runs out of memory beside others is asked again alone, and fewer are in flight on that device from
    then on.

    Args:
        trainer: As the processes shall have it, each with the device of its place.
        places: Devices.
        free_memory: Of a device [bytes].
    """

    def __init__(
        self, trainer: Trainer, places: Sequence[Place], *, free_memory: Callable[[str], int] | None = None
    ) -> None:
        self.trainer, self.places, self.free_memory = trainer, tuple(places), free_memory or memory_left
        self.sites: list[Site] = []
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.data = contextlib.ExitStack()
        """What deletes the file of the data."""
        self.file: Path | None = None
        self.begun = False
        self.jobs: dict[Trial, Job] = {}
        """Of each whole run that waits or trains."""
        self.waiting: deque[Job] = deque()
        self.done: deque[Evaluation] = deque()
        self.deaths: Counter[Trial] = Counter()
        self.lost: dict[Trial, Lost] = defaultdict(Lost)

    def start(self, trial: Trial) -> None:
        """Train as soon as there is room: it is handed out now if there is."""
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="kendall-engine-")
            most = max(1, len(os.sched_getaffinity(0)) // len(self.places))
            self.sites = [
                Site(place, Path(self.folder.name) / str(number), min(most, PLACES), self.trainer)
                for number, place in enumerate(self.places)
            ]
        job = self.jobs.get(trial.whole)
        if job is None:
            job = self.jobs[trial.whole] = Job(deque())
            self.waiting.append(job)
        job.run.append(trial)
        self.hand_out()

    def next(self) -> Evaluation:
        """The first answer to complete."""
        while not self.done:
            self.hand_out()
            heard = {worker.pipe: worker for site in self.sites for worker in site.busy}
            for pipe in wait(list(heard)):
                worker = heard[pipe]  # type: ignore[index]
                if worker.ready:
                    self.done.extend(self.hear(worker))
                else:
                    self.begin(worker)
        return self.done.popleft()

    def cancel(self) -> None:
        """Stop all trainings; each leaves a checkpoint. The user stopped the run, and will go on with it perhaps."""
        self.waiting.clear()
        self.jobs.clear()
        self.done.clear()
        leaving = [(site, worker) for site in self.sites for worker in site.busy]
        for _, worker in leaving:
            worker.process.terminate()
        for site, worker in leaving:
            worker.process.join(timeout=LEAVE_S)
            site.end(worker)
        for site in self.sites:
            site.reserved = 0
        self.data.close()

    @property
    def workers(self) -> list[Worker]:
        """The processes that there are."""
        return [worker for site in self.sites for worker in site.workers]

    def hand_out(self) -> None:
        """Give jobs to processes, as far as there is room; new processes start side by side."""
        for job in tuple(self.waiting):
            if not any(site.room or site is job.alone for site in self.sites):
                break
            site = self.site_for(job)
            if site is None:
                continue
            self.waiting.remove(job)
            if site is job.alone:
                site.end_all()  # memory of those that idle is memory too
            worker = site.idle or site.start(self.packed())
            worker.job = job
            if worker.ready:
                site.ask(worker)

    def begin(self, worker: Worker) -> None:
        """A new process says that it is ready, or has died on its way: then its job waits again."""
        site, job = worker.site, worker.job
        if site in self.sites and self.is_ready(site, worker):
            site.ask(worker)
        elif job is not None:
            self.waiting.appendleft(job)
        if all(other.ready for other in self.workers):
            self.data.close()

    def packed(self) -> Path:
        """The data, in a file that is there until all new processes have mapped it."""
        if self.file is None or not self.file.exists():
            folder = Path(self.data.enter_context(tempfile.TemporaryDirectory(prefix="kendall-")))
            self.file = folder / "data.pt"
            pack(self.trainer.data, self.file, test=self.trainer.judge)
        return self.file

    def site_for(self, job: Job) -> Site | None:
        """Where it is trained; None: it has to wait."""
        if job.alone not in self.sites:
            job.alone = None
        if job.alone is not None:
            return None if job.alone.busy else job.alone
        others = [site for site in self.sites if site.name not in job.avoid]
        rooms = [site for site in others or self.sites if site.room]
        return min(rooms, key=lambda site: len(site.busy) / site.limit, default=None)

    def is_ready(self, site: Site, worker: Worker) -> bool:
        """Whether it can be asked; where not, and no other process is there, its place is left.

        Raises:
            BadInput: It was the last place.
        """
        death = worker.wait_until_ready()
        if not death:
            self.begun = True
            return True
        site.end(worker)
        if site.workers:
            site.limit = len(site.workers)
            warnings.warn(f"{site.name}: a process did not start ({death}); {site.limit} there go on", stacklevel=2)
            return False
        self.sites.remove(site)
        names = ", ".join(other.name for other in self.sites)
        if names:
            warnings.warn(f"{site.name}: no process starts on it ({death}); going on with {names}", stacklevel=2)
            return False
        begun = self.begun
        self.close()
        if begun:
            raise BadInput(
                f"{site.name}: no process starts on it any more ({death}), and no other device is left; "
                "the same command goes on once there is one"
            )
        raise BadInput(
            f"workers: a process did not start ({death}); use workers=1, "
            'or guard the script that starts them with if __name__ == "__main__"'
        )

    def hear(self, worker: Worker) -> Iterator[Evaluation]:
        """Take what a process says, or its death."""
        site, job, waiting, deaths, lost = worker.site, worker.job, self.waiting, self.deaths, self.lost
        if job is None:  # its place was left meanwhile
            return
        trial = job.run[0]
        try:
            answer, taken = worker.pipe.recv()
        except (EOFError, ConnectionError):
            answer, taken = None, 0
        if answer is None or isinstance(answer, DeviceLost):
            seconds, joules = site.spent(worker)
            lost[trial].seconds += self.unsaved(trial, seconds, worker)
            lost[trial].joules += joules
            death = site.end(worker, wait_for_its_end=answer is None)
            job.avoid.add(site.name)
            if self.is_ready(site, site.start(self.packed())):  # then it was not for the place
                deaths[trial] += 1
            if deaths[trial] > 1:
                job.run.popleft()
                self.not_alone(job)
                yield self.trainer.failed(
                    trial, f"its process died twice: {death if answer is None else answer}", lost.pop(trial).seconds
                )
            if job.run:
                waiting.appendleft(job)
            else:
                self.jobs.pop(trial.whole, None)
            return
        if isinstance(answer, BaseException):
            raise answer
        if answer.failure.startswith(OUT_OF_MEMORY) and worker.beside > 1 and job.alone is None:
            cost = answer.cost
            lost[trial].seconds += cost.device_s
            lost[trial].joules += cost.energy_j or 0.0
            lost[trial].macs += cost.macs
            worker.job, job.alone = None, site
            site.back_off(worker.beside)
            waiting.appendleft(job)
            return
        site.done(worker)
        if not job.run:
            self.jobs.pop(trial.whole, None)
        self.not_alone(job)
        if not answer.failure:
            site.measure(taken, self.free_memory)
        yield with_lost(answer, lost.pop(trial)) if trial in lost else answer

    def not_alone(self, job: Job) -> None:
        """Its trial is answered: others may join."""
        if job.alone is not None:
            job.alone.reserved -= 1
            job.alone = None

    def unsaved(self, trial: Trial, seconds: float, worker: Worker) -> float:
        """What a death lost: what the process left in a checkpoint is charged when that is found."""
        key = self.trainer.key(trial)
        if modified(self.trainer.checkpoints.path(key)) == worker.saved:
            return seconds
        kept = self.trainer.checkpoints.load(key)
        counts = kept is not None and (kept.get("cut") or len(kept["curve"]) == trial.epochs)
        return max(0.0, seconds - kept["leg"]["device_s"]) if kept is not None and counts else seconds

    def close(self) -> None:
        """End the processes."""
        self.cancel()
        for site in self.sites:
            site.close()
        self.sites = []
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None


class Site:
    """A place at work: its processes, how many may be in flight, the clock that they share."""

    def __init__(self, place: Place, file: Path, most: int, trainer: Trainer) -> None:
        self.place, self.name, self.trainer = place, place.name or place.device, trainer
        self.most = most if place.slots is None else place.slots
        self.limit = 1 if place.slots is None else place.slots
        self.measured = place.slots is not None
        self.workers: list[Worker] = []
        self.reserved = 0
        """Jobs that wait to be alone here."""
        self.shares = Shares(file, energy=trainer.energy and energy_counter(device_of(place))) if place.shared else None

    @property
    def busy(self) -> list[Worker]:
        """Those that train."""
        return [worker for worker in self.workers if worker.job is not None]

    @property
    def idle(self) -> Worker | None:
        """One that does not, if there is one."""
        return next((worker for worker in self.workers if worker.job is None), None)

    @property
    def room(self) -> bool:
        """Whether another may be in flight."""
        return not self.reserved and len(self.busy) < self.limit

    def start(self, data: Path) -> Worker:
        """A new process, which is not ready yet."""
        taken = {worker.place for worker in self.workers}
        place = next(number for number in range(PLACES) if number not in taken)
        worker = Worker(self, self.trainer, data, place)
        self.workers.append(worker)
        return worker

    def ask(self, worker: Worker) -> None:
        """Send the first trial of its job."""
        if worker.job is None or not worker.job.run:
            worker.job = None
            return
        if self.shares is not None:
            self.shares.fresh(worker.place)
        worker.saved = modified(self.trainer.checkpoints.path(self.trainer.key(worker.job.run[0])))
        worker.beside = 0
        for other in self.busy:
            other.beside = max(other.beside, len(self.workers))
        worker.ask()

    def done(self, worker: Worker) -> None:
        """On to the next trial of its job, if there is one."""
        if worker.job is not None:
            worker.job.run.popleft()
            self.ask(worker)

    def spent(self, worker: Worker) -> tuple[float, float]:
        """Seconds and joules since it was asked: its share, where the device's are shared."""
        return (worker.seconds, 0.0) if self.shares is None else self.shares.charged(worker.place)

    def measure(self, taken: int, free_memory: Callable[[str], int]) -> None:
        """How many may be in flight: by what the first candidate took, of what is free after it [bytes]."""
        if not self.measured:
            self.measured = True
            fit = int(MEMORY_USED * free_memory(self.place.device) / max(1, taken))
            self.limit = max(1, min(self.most, fit))

    def back_off(self, beside: int) -> None:
        """Fewer in flight from now on."""
        self.reserved += 1
        self.limit = max(1, min(self.limit, beside - 1))
        self.measured = True
        warnings.warn(
            f"{self.name}: out of memory with {beside} processes on it; one candidate is asked again alone, and "
            f"{self.limit} in flight from then on",
            stacklevel=2,
        )

    def end(self, worker: Worker, *, wait_for_its_end: bool = False) -> str:
        """Let go of a process; why it died if it did."""
        if worker in self.workers:
            self.workers.remove(worker)
        death = worker.bury(wait_for_its_end=wait_for_its_end)
        if self.shares is not None:
            self.shares.fresh(worker.place)
        return death

    def end_all(self) -> None:
        """Let go of all of them."""
        for worker in tuple(self.workers):
            self.end(worker)

    def close(self) -> None:
        """Let go of everything."""
        self.end_all()
        if self.shares is not None:
            self.shares.close()


class Worker:
    """This process's side of one that trains."""

    def __init__(self, site: Site, trainer: Trainer, data: Path, place: int) -> None:
        self.site, self.place = site, place
        self.job: Job | None = None
        self.asked = 0.0
        self.ready = False
        self.beside = 0
        """Processes that there were on its device since it was asked, itself included."""
        self.saved: int | None = None
        """When its trial's checkpoint was written, as it was asked."""
        settings = {
            "recipe": trainer.recipe,
            "device": str(device_of(site.place)),
            "threads": trainer.threads,
            "judge": trainer.judge,
            "checkpoints": trainer.checkpoints.folder,
            "pool": trainer.pool,
            "deterministic": trainer.deterministic,
        }
        context = multiprocessing.get_context("forkserver")  # imports torch once, and forks before it has any threads
        context.set_forkserver_preload([__name__])
        self.pipe, theirs = context.Pipe()
        clock = None if site.shares is None else (site.shares.path, place)
        self.process = context.Process(
            target=work, args=(theirs, trainer.space, data, settings, clock), daemon=True, name=site.name
        )
        self.process.start()
        theirs.close()  # so that this end hears of the other's death

    def wait_until_ready(self) -> str:
        """Return when it can be asked; why it died if it did on its way."""
        if not self.ready:
            try:
                self.pipe.recv()
            except (EOFError, ConnectionError):
                return self.bury(wait_for_its_end=True)
            self.ready = True
        return ""

    def ask(self) -> None:
        """Send the first trial of its job."""
        assert self.job is not None
        self.asked = time.perf_counter()
        with contextlib.suppress(ConnectionError):  # it died meanwhile: receiving says so
            self.pipe.send(self.job.run[0])

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return time.perf_counter() - self.asked

    def bury(self, *, wait_for_its_end: bool = False) -> str:
        """End it if it lives; why it died if it does not."""
        self.job = None
        self.pipe.close()
        if wait_for_its_end:
            self.process.join(timeout=5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code = self.process.exitcode or 0
        if code < 0:
            more = ", for lack of memory perhaps" if code == -signal.SIGKILL else ""
            return f"{signal.Signals(-code).name}{more}"
        return f"exit code {code}"


def with_lost(answer: Evaluation, lost: Lost) -> Evaluation:
    """An answer that is charged what was spent on it for nothing, too."""
    cost = answer.cost
    energy = None if cost.energy_j is None else cost.energy_j + lost.joules
    seconds, macs = cost.device_s + lost.seconds, cost.macs + lost.macs
    return replace(answer, cost=replace(cost, device_s=seconds, energy_j=energy, macs=macs))


def modified(path: Path) -> int | None:
    """When a file was last written [ns]; None: there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def pick_places(device: str | Sequence[str], workers: int | None) -> list[Place]:
    """The devices that a user names, each with so many candidates in flight; None: one a core, or as many as fit.

    "auto" and "cuda" are all GPUs of the first one's model, or else (of "auto") the CPU.

    Raises:
        BadInput: A device is named twice, or none.
        Unsupported: One is not there, or they are of several kinds: their seconds would not add up.
    """
    if isinstance(device, str):
        first = pick_device(device)
        names = [str(first)]
        if device in ("auto", "cuda") and first.type == "cuda":
            every = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
            names = [name for name in every if torch.cuda.get_device_name(name) == torch.cuda.get_device_name(first)]
    else:
        names = [str(pick_device(name)) for name in (device if isinstance(device, Sequence) else [device])]
        if not names or len(set(names)) < len(names):
            raise BadInput(f"device: name at least one, each once, not {list(device)}")
    models = list(dict.fromkeys(device_name(torch.device(name), 1) for name in names))
    if len(models) > 1:
        raise Unsupported(f"device: {' and '.join(models)} are different devices, whose seconds do not add up; name "
                          "those of one model")  # fmt: skip
    if names == ["cpu"]:
        return [Place("cpu", workers or len(os.sched_getaffinity(0)), shared=False)]
    return [Place(name, workers) for name in names]


def device_of(place: Place) -> torch.device:
    """As torch has it."""
    return torch.device(place.device)


def memory_left(device: str) -> int:
    """What is free of a device's memory; of a CPU, of the machine's [bytes]."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def memory_taken(device: torch.device) -> int:
    """The most that this process took of it [bytes]; on a GPU with its context."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device)) + CUDA_CONTEXT
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def pack(data: ImageData, path: Path, *, test: bool) -> None:
    """Write the data to where other processes map it into memory; without `test`, its test images are left out.

    Raises:
        BadInput: There is no room.
    """
    content: dict[str, Any] = {}
    for entry in fields(ImageData):
        if entry.name.startswith("test_") and not test:
            content[entry.name] = torch.empty(0, dtype=torch.uint8)
        else:
            value = getattr(data, entry.name)
            content[entry.name] = value.cpu() if isinstance(value, torch.Tensor) else value
    try:
        torch.save(content, path)
    except (OSError, RuntimeError) as error:  # torch's own for a full disk
        raise BadInput(
            f"{path}: the data cannot be written for the processes that train ({str(error).splitlines()[0]}); make "
            "room, or name another folder in TMPDIR"
        ) from None


def leave(number: int, _: object) -> None:
    """What SIGTERM does: a training under way writes its checkpoint."""
    raise SystemExit(128 + number)


def work(pipe: Connection, space: Any, data: Path, settings: dict[str, Any], clock: tuple[Path, int] | None) -> None:
    """What a worker process does: answer trials until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks decides
    signal.signal(signal.SIGTERM, leave)
    warnings.showwarning = lambda message, *_: print(f"kendall: warning: {message}", file=sys.stderr)  # noqa: T201
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    content = torch.load(data, mmap=True, weights_only=True)
    trainer = Trainer(space, ImageData(**content), **settings)
    if clock is not None:
        share_time(trainer, *clock)
    torch.ones(8, device=trainer.device).sum().item()  # a device that cannot even do that is gone
    pipe.send("ready")
    while True:
        try:
            trial = pipe.recv()
        except EOFError:
            return
        try:
            answer = trainer.answer(trial)
            taken = memory_taken(trainer.device)
            if clock is not None:
                free(trainer.device)  # others may need it
            pipe.send((answer, taken))
        except Exception as error:
            pipe.send((error, 0))


def share_time(trainer: Trainer, path: Path, place: int) -> None:
    """Have a trainer charge its share of a device's seconds and energy."""
    shares = Shares(path, energy=trainer.energy)
    trainer.clock, trainer.at_work = shares.seconds, lambda: shares.at_work(place)
    if trainer.energy is not None:
        trainer.energy = shares.joules
