"""Workers that train one network a process, on one or several devices, and may be shared by several searches.

A process gets a trial when it has answered the one before. Results are those of `Serial`: a process is told all that
an answer depends on. Nothing is polled: this side waits on the pipes of its processes.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeAlias

import torch

from suite.data.images import ImageData
from suite.tasks.base import Task
from suite.training.device import OUT_OF_MEMORY, DeviceLost, device_name, energy_counter, free, pick_device
from suite.training.trainer import Trainer
from suite.types import BadInput, Evaluation, KendallError, Trial, Unsupported
from suite.workers.base import QUEUE, Place
from suite.workers.device_clock import PLACES, SharedClock

LEAVE_S = 10.0
"""For a process to write its checkpoint and leave [s]."""
MEMORY_USED = 0.9
"""Share of the memory that is free once the first candidate is done that candidates may take."""
CUDA_CONTEXT = 600 * 2**20
"""Memory that CUDA takes for a process beside its tensors [bytes]: an allowance, not measured."""
DEATHS_ALONE = 2
"""Deaths of its process, while nothing else trained, after which a training itself is blamed."""
TRAINERS = 4
"""Trainers that a process keeps: of the searches whose trials it got last."""
SLOWEST_MACS_S, FASTEST_MACS_S = 1e7, 1e9
"""Multiply-adds a second: any device reaches the one, which is expected until a training was timed; no more than the
other is ever expected."""
PATIENCE = 20.0
"""Multiple of its expected seconds after which a training is taken to hang."""
LEAST_PATIENCE_S = 120.0
"""Seconds that every training may take: starting up and compiling are in them."""
LONGEST_WAIT_S = 3600.0
"""Seconds after which the time limits are looked at again; a system call takes no more than some weeks."""

Settings: TypeAlias = tuple[int, dict[str, Any]]
"""Number of a trainer and all that a process needs to make it."""


class Processes:
    """One training a process; what one search, or several with trainers of their own, started there.

    A process that dies is replaced, its trial is asked again while nothing else trains, and what was lost is said: the
    machine's fault is not the network's. A training whose process died `DEATHS_ALONE` times while it trained alone is
    answered with the reason. One that takes `PATIENCE` times the seconds that are expected of it hangs: its process is
    ended, and it counts as died. A device on which no process can be started any more is left, its trials go to the
    others; the last one ends the run. A network that runs out of memory beside others is asked again alone, and fewer
    are in flight on that device from then on.

    Args:
        trainer: As the processes shall have it, each with the device of its place.
        places: Devices.
        free_memory: Of a device [bytes].
        crew: The processes, where they are there already; places are then theirs.
        number: The trainer's among theirs, where they know it already.
    """

    name = "processes"

    def __init__(
        self, trainer: Trainer, places: Sequence[Place], *, free_memory: Callable[[str], int] | None = None,
        crew: Crew | None = None, number: int | None = None,
    ) -> None:  # fmt: skip
        self.trainer, self.own = trainer, crew is None
        self.crew = crew or Crew(trainer, places, free_memory or memory_left)
        self.number = self.crew.enter() if number is None else number
        self.jobs: list[Job] = []
        self.done: deque[Evaluation] = deque()

    @property
    def free(self) -> int:
        """Number of trials that may be started now; those beyond the processes' wait."""
        return QUEUE - len(self.jobs) - len(self.done)

    @property
    def ready(self) -> bool:
        """Whether an answer is there already."""
        return bool(self.done)

    def start(self, trial: Trial) -> None:
        """Hand a trial to a process that is idle, or have it wait for one."""
        self.trainer.check(trial)
        job = Job(trial, self)
        self.jobs.append(job)
        self.crew.put(job)

    def next(self) -> Evaluation:
        """Wait for the first training to complete; a network that fails is answered with its failure.

        Raises:
            BadInput: No process can be started, or a checkpoint cannot be written.
        """
        while not self.done:
            self.crew.turn()
        return self.done.popleft()

    def finish(self, job: Job, answer: Evaluation) -> None:
        """Take the answer of a job of these workers."""
        self.jobs.remove(job)
        self.done.append(answer)

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """End trainings, which leave a checkpoint where they can; failed answers with what is in no checkpoint."""
        dropped = [job for job in self.jobs if trial is None or job.trial == trial]
        self.jobs = [job for job in self.jobs if job not in dropped]
        self.done = deque(answer for answer in self.done if trial is not None and answer.trial != trial)
        return self.crew.drop(dropped)

    def beside(self, trainer: Trainer) -> Processes:
        """Workers for another trainer of the same data, on the same processes.

        Raises:
            Unsupported: It judges, and the processes are without the test images.
        """
        if trainer.judge and not self.crew.trainer.judge:
            raise Unsupported("processes: those of a search hold no test images; a judge needs workers of its own")
        return Processes(trainer, (), crew=self.crew, number=self.number if trainer is self.trainer else None)

    def wait(self) -> None:
        """Return when something has happened on the processes, for whichever search."""
        self.crew.turn()

    def settings(self, place: Place) -> Settings:
        """All that a process at a place needs to make the trainer."""
        trainer = self.trainer
        return self.number, {
            "made_by": type(trainer),
            "recipe": trainer.recipe,
            "device": str(device_of(place)),
            "threads": trainer.threads,
            "judge": trainer.judge,
            "checkpoints": trainer.checkpoints.folder,
            "pool": trainer.pool,
            "deterministic": trainer.deterministic,
        }

    def close(self) -> None:
        """End what was started here, and the processes if no others are to use them."""
        self.cancel()
        if self.own:
            self.crew.close()


@dataclass(eq=False)
class Job:
    """A trial that waits to be trained, or is."""

    trial: Trial
    owner: Processes
    beside_nobody_at: Site | None = None
    """Where it is to be asked while nothing else is there: it ran out of memory beside others."""
    alone: bool = False
    """Whether it is to be asked while nothing trains anywhere: its process died."""
    avoid: set[str] = field(default_factory=set)
    """Places on which a process died with it."""
    deaths: int = 0
    deaths_alone: int = 0
    lost: Lost | None = None

    @property
    def run(self) -> tuple[Path, Trial]:
        """The training that it is a stage of; two stages are never trained at once."""
        return self.owner.trainer.checkpoints.folder, self.trial.whole


@dataclass
class Lost:
    """The seconds and joules that were lost on a trial."""

    seconds: float = 0.0
    joules: float = 0.0
    macs: float = 0.0


class Crew:
    """The processes on all devices, and the trials of all searches that they train.

    Args:
        trainer: Whose space and data they have; the test images only if it judges.
        places: Devices.
        free_memory: Of a device [bytes].
    """

    def __init__(self, trainer: Trainer, places: Sequence[Place], free_memory: Callable[[str], int]) -> None:
        self.trainer, self.places, self.free_memory = trainer, tuple(places), free_memory
        self.sites: list[Site] = []
        self.waiting: deque[Job] = deque()
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.data: tempfile.TemporaryDirectory[str] | None = None
        self.begun, self.entered = False, 0
        self.pace, self.timed = 1 / SLOWEST_MACS_S, 0
        """Seconds a multiply-add of the slowest training so far, and how many were timed."""

    def enter(self) -> int:
        """A number for one more trainer."""
        self.entered += 1
        return self.entered

    @property
    def busy(self) -> list[Worker]:
        """The processes that have a job."""
        return [worker for site in self.sites for worker in site.busy]

    @property
    def workers(self) -> list[Worker]:
        """The processes that there are."""
        return [worker for site in self.sites for worker in site.workers]

    # Handing out

    def put(self, job: Job) -> None:
        """Put a job into the queue."""
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="kendall-processes-")
            most = max(1, len(os.sched_getaffinity(0)) // len(self.places))
            self.sites = [
                Site(place, Path(self.folder.name) / str(number), min(most, PLACES), self.trainer)
                for number, place in enumerate(self.places)
            ]
        self.waiting.append(job)
        self.hand_out()

    def hand_out(self) -> None:
        """Give jobs to processes, as far as there is room; a process that is not there yet is started."""
        runs = {worker.job.run for worker in self.busy if worker.job is not None}
        for job in tuple(self.waiting):
            if any(worker.job is not None and worker.job.alone for worker in self.busy):
                return
            if not any(site.room or site is job.beside_nobody_at for site in self.sites):
                return
            if job.run in runs:
                continue
            site = self.site_for(job)
            if site is None:
                if job.alone:  # those behind it wait until it was trained
                    return
                continue
            self.waiting.remove(job)
            runs.add(job.run)
            if site is job.beside_nobody_at:
                site.end_all()  # memory of those that idle is memory too
            worker = site.idle or site.start(self.packed())
            worker.job = job
            if worker.ready:
                self.ask(worker)

    def site_for(self, job: Job) -> Site | None:
        """Where it is trained; None: it has to wait."""
        if job.beside_nobody_at not in self.sites:
            job.beside_nobody_at = None
        if job.beside_nobody_at is not None:
            return None if job.beside_nobody_at.busy else job.beside_nobody_at
        if job.alone and self.busy:
            return None
        others = [site for site in self.sites if site.name not in job.avoid]
        rooms = [site for site in others or self.sites if site.room]
        return min(rooms, key=lambda site: len(site.busy) / site.limit, default=None)

    def packed(self) -> Path:
        """The data in a file, which is gone once all processes that are being started have it."""
        if self.data is None:
            self.data = tempfile.TemporaryDirectory(prefix="kendall-")
            try:
                pack(self.trainer.data, Path(self.data.name) / "data.pt", test=self.trainer.judge)
            except BaseException:
                self.unpack()
                raise
        return Path(self.data.name) / "data.pt"

    def unpack(self) -> None:
        """Remove the file of the data."""
        if self.data is not None:
            self.data.cleanup()
            self.data = None

    def ask(self, worker: Worker) -> None:
        """Send a process its job."""
        site, job = worker.site, worker.job
        assert job is not None
        if site.shares is not None:
            site.shares.fresh(worker.place)
        trainer = job.owner.trainer
        worker.saved = modified(trainer.checkpoints.path(trainer.key(job.trial)))
        worker.beside, worker.company = 0, False
        for other in site.busy:
            other.beside = max(other.beside, len(site.workers))
        asked = [other for other in self.busy if other.asked is not None]
        for other in asked:
            other.company = worker.company = True
        worker.limit_s = self.patience(job)
        worker.ask(job.owner.settings(site.place), job.trial)

    # Time limits

    def expected_macs(self, job: Job) -> float:
        """Multiply-adds of a trial trained from its first epoch; nan: the space has no formula for them."""
        trainer, trial = job.owner.trainer, job.trial
        data, copies = trainer.data, trainer.task(trial.proxy.task).copies
        images = 3 * trial.proxy.samples * len(data.train_labels) + len(data.valid_labels)
        test = len(data.test_labels) if trainer.judge else 0
        try:
            return float(trainer.macs(trial) * copies * (images * trial.epochs + test))
        except KendallError:
            return math.nan

    def patience(self, job: Job) -> float:
        """Seconds after which a training is taken to hang; inf: nothing is expected of it."""
        macs = self.expected_macs(job)
        expected_s = macs * max(self.pace, 1 / FASTEST_MACS_S) * len(self.workers)
        return math.inf if math.isnan(macs) else max(LEAST_PATIENCE_S, PATIENCE * expected_s)

    def learn(self, answer: Evaluation, seconds: float) -> None:
        """Take in how long a training took, for those to come."""
        if answer.cost.macs > 0:
            pace = max(seconds, answer.cost.device_s) / answer.cost.macs
            self.pace = pace if self.timed == 0 else max(self.pace, pace)
            self.timed += 1

    # Hearing

    def turn(self) -> None:
        """Wait until a process says something, dies or hangs, and do what follows from it."""
        self.hand_out()
        heard = {worker.pipe: worker for worker in self.workers if worker.job is not None or not worker.ready}
        if not heard:
            return
        left = [worker.limit_s - worker.seconds for worker in heard.values() if worker.asked is not None]
        shortest = min(left, default=math.inf)
        said = wait(list(heard), min(max(0.0, shortest), LONGEST_WAIT_S))
        for pipe in said:
            worker = heard[pipe]  # type: ignore[index]
            if worker in worker.site.workers:
                if worker.ready:
                    self.hear(worker)
                else:
                    self.begin(worker)
        for worker in heard.values() if not said else ():
            if worker.asked is not None and worker.seconds >= worker.limit_s and worker in worker.site.workers:
                self.bury(worker, f"no answer after {worker.seconds:.0f} s, {PATIENCE:g} times what was expected")
        self.hand_out()

    def begin(self, worker: Worker) -> None:
        """A process that was started is there, or died on its way.

        Raises:
            BadInput: It died, and it was the last place.
        """
        job, vouching = worker.job, worker.vouches_for
        death = worker.wait_until_ready()
        if all(other.ready or other is worker for other in self.workers):
            self.unpack()
        if not death:
            self.begun, worker.vouches_for = True, None
            if vouching is not None:  # the place is alive: the death was not for it
                self.count(*vouching)
            if worker.job is not None:
                self.ask(worker)
            return
        site = worker.site
        site.end(worker)
        for held in (job, vouching[0] if vouching is not None else None):
            if held is not None:
                self.waiting.appendleft(held)
        self.not_started(site, death)

    def not_started(self, site: Site, death: str) -> None:
        """Fewer processes at a place, or none; the last place ends the run."""
        if site.workers:
            site.limit = len(site.workers)
            warnings.warn(f"{site.name}: a process did not start ({death}); {site.limit} there go on", stacklevel=2)
            return
        self.sites.remove(site)
        site.close()
        names = ", ".join(other.name for other in self.sites)
        if names:
            warnings.warn(f"{site.name}: no process starts on it ({death}); going on with {names}", stacklevel=2)
            return
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

    def hear(self, worker: Worker) -> None:
        """Take an answer, or a death."""
        site, job = worker.site, worker.job
        try:
            answer, taken = worker.pipe.recv()
        except (EOFError, ConnectionError):
            self.bury(worker)
            return
        if job is None:
            return
        if isinstance(answer, DeviceLost):
            self.bury(worker, str(answer))
            return
        seconds = worker.seconds
        worker.job = worker.asked = None
        if isinstance(answer, BaseException):
            job.owner.jobs.remove(job)
            raise answer
        if answer.failure.startswith(OUT_OF_MEMORY) and worker.beside > 1 and job.beside_nobody_at is None:
            cost = answer.cost
            lost = job.lost = job.lost or Lost()
            lost.seconds += cost.device_s
            lost.joules += cost.energy_j or 0.0
            lost.macs += cost.macs
            job.beside_nobody_at = site
            site.back_off(worker.beside)
            self.waiting.appendleft(job)
            return
        if not answer.failure:
            site.measure(taken, self.free_memory)
            self.learn(answer, seconds)
        self.answered(job, answer if job.lost is None else with_lost(answer, job.lost))

    def answered(self, job: Job, answer: Evaluation) -> None:
        """Hand an answer over; others may join again."""
        self.join(job)
        job.owner.finish(job, answer)

    def join(self, job: Job) -> None:
        """Others may be where a job was to be alone."""
        if job.beside_nobody_at is not None:
            job.beside_nobody_at.reserved -= 1
            job.beside_nobody_at = None
        job.alone = False

    # Deaths

    def bury(self, worker: Worker, why: str = "") -> None:
        """A process died, does not answer any more, or its device is lost: start another, which says for what it died.

        Its trial is asked again once that one is there, or at another place if it does not start.
        """
        site, job, company = worker.site, worker.job, worker.company
        if job is None:
            site.end(worker, wait_for_its_end=not why)
            return
        seconds, joules = site.spent(worker)
        lost = job.lost = job.lost or Lost()
        unsaved = self.unsaved(job, seconds, worker)
        lost.seconds += unsaved
        lost.joules += joules
        death = site.end(worker, wait_for_its_end=not why)
        job.avoid.add(site.name)
        site.start(self.packed()).vouches_for = job, why or death, unsaved, company

    def count(self, job: Job, death: str, unsaved: float, company: bool) -> None:
        """Blame a training for its death, or have it asked again while nothing else trains."""
        if job not in job.owner.jobs:  # it was dropped meanwhile
            return
        job.deaths += 1
        job.deaths_alone += not company
        assert job.lost is not None
        if job.deaths_alone >= DEATHS_ALONE:
            trial = job.trial
            reason = f"its process died {job.deaths} times, {job.deaths_alone} of them while it trained alone: {death}"
            self.answered(job, job.owner.trainer.failed(trial, reason, job.lost.seconds))
            return
        warnings.warn(
            f"a process died while it trained ({death}): {unsaved:.3g} s of device time are lost, and "
            f"{self.trainer.space.text(job.trial.arch)} is asked again while nothing else trains",
            stacklevel=2,
        )
        job.alone = True
        self.waiting.appendleft(job)

    def unsaved(self, job: Job, seconds: float, worker: Worker) -> float:
        """Seconds that a death lost: what the process left in a checkpoint is charged when that is found."""
        trainer, trial = job.owner.trainer, job.trial
        key = trainer.key(trial)
        if modified(trainer.checkpoints.path(key)) == worker.saved:
            return seconds
        kept = trainer.checkpoints.load(key)
        counts = kept is not None and (kept.get("cut") or len(kept["curve"]) == trial.epochs)
        return max(0.0, seconds - kept["leg"]["device_s"]) if kept is not None and counts else seconds

    # The end

    def drop(self, jobs: Sequence[Job]) -> list[Evaluation]:
        """End jobs; failed answers of those that were at work, with what is charged nowhere else."""
        self.waiting = deque(job for job in self.waiting if job not in jobs)
        leaving = [(worker, worker.job) for worker in self.busy if worker.job in jobs]
        for worker, _ in leaving:
            worker.process.terminate()
        dropped = []
        for worker, job in leaving:
            worker.process.join(timeout=LEAVE_S)
            asked = worker.asked is not None
            seconds, joules = worker.site.spent(worker) if asked else (0.0, 0.0)
            worker.site.end(worker)
            if job is not None and asked:
                answer = job.owner.trainer.failed(job.trial, "cancelled", self.unsaved(job, seconds, worker))
                dropped.append(with_lost(answer, Lost(joules=joules)))
        for job in jobs:
            self.join(job)
        return dropped

    def close(self) -> None:
        """End all processes and empty the queue."""
        self.waiting.clear()
        for site in self.sites:
            site.close()
        self.sites = []
        self.unpack()
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
        counter = trainer.energy and energy_counter(device_of(place))
        self.shares = SharedClock(file, energy=counter) if place.shared else None

    @property
    def busy(self) -> list[Worker]:
        """The processes that have a job."""
        return [worker for worker in self.workers if worker.job is not None]

    @property
    def idle(self) -> Worker | None:
        """A process without a job, if there is one; one that is there before one that is being started."""
        idle = [worker for worker in self.workers if worker.job is None]
        return min(idle, key=lambda worker: not worker.ready, default=None)

    @property
    def room(self) -> bool:
        """Whether another may be in flight."""
        return not self.reserved and len(self.busy) < self.limit

    def start(self, data: Path) -> Worker:
        """A new process, which is not ready yet."""
        taken = {worker.place for worker in self.workers}
        place = next(number for number in range(PLACES) if number not in taken)
        worker = Worker(self, self.trainer.space, data, place)
        self.workers.append(worker)
        return worker

    def spent(self, worker: Worker) -> tuple[float, float]:
        """Seconds and joules since it was asked: its share, where the device's are shared."""
        return (worker.seconds, 0.0) if self.shares is None else self.shares.charged(worker.place)

    def measure(self, taken: int, free_memory: Callable[[str], int]) -> None:
        """Set how many may be in flight: by what the first candidate took, of what is free after it [bytes]."""
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
        """End its processes and close the shared clock."""
        self.end_all()
        if self.shares is not None:
            self.shares.close()


class Worker:
    """This process's side of one that trains."""

    def __init__(self, site: Site, space: Any, data: Path, place: int) -> None:
        self.site, self.place = site, place
        self.job: Job | None = None
        self.vouches_for: tuple[Job, str, float, bool] | None = None
        """A job whose process died here, why, with which loss [s], and whether others trained beside it."""
        self.asked: float | None = None
        self.ready = False
        self.beside = 0
        """Processes that there were on its device since it was asked, itself included."""
        self.company = False
        """Whether anything else trained since it was asked, on any device."""
        self.saved: int | None = None
        """When its trial's checkpoint was written, as it was asked."""
        self.limit_s = math.inf
        self.trainers: deque[int] = deque()
        """Numbers of the trainers that it has."""
        context = multiprocessing.get_context("forkserver")  # imports torch once, and forks before it has any threads
        context.set_forkserver_preload([__name__])
        self.pipe, theirs = context.Pipe()
        clock = None if site.shares is None else (site.shares.path, place)
        self.process = context.Process(
            target=work, args=(theirs, space, data, site.place.device, clock), daemon=True, name=site.name
        )
        self.process.start()
        theirs.close()  # so that this end hears of the other's death

    def wait_until_ready(self) -> str:
        """Return when it can be asked; why it died if it did on its way."""
        try:
            self.pipe.recv()
        except (EOFError, ConnectionError):
            return self.bury(wait_for_its_end=True)
        self.ready = True
        return ""

    def ask(self, settings: Settings, trial: Trial) -> None:
        """Send a trial, and the settings of its trainer if the process has them not."""
        number, _ = settings
        self.asked = time.perf_counter()
        with contextlib.suppress(ConnectionError):  # it died meanwhile: receiving says so
            self.pipe.send((number, None if number in self.trainers else settings, trial))
        keep(self.trainers, number)

    @property
    def seconds(self) -> float:
        """Seconds since it was asked."""
        return 0.0 if self.asked is None else time.perf_counter() - self.asked

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


def keep(trainers: deque[int], number: int) -> int | None:
    """Enter a trainer's number; that of the one that is let go of for it, the same on both sides of a pipe."""
    if number in trainers:
        return None
    trainers.append(number)
    return trainers.popleft() if len(trainers) > TRAINERS else None


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
    """The place's device, as torch has it."""
    return torch.device(place.device)


def memory_left(device: str) -> int:
    """The free memory of a device; of a CPU, of the machine's [bytes]."""
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
    """Leave on SIGTERM: a training under way writes its checkpoint."""
    raise SystemExit(128 + number)


def work(pipe: Connection, space: Any, data: Path, device: str, clock: tuple[Path, int] | None) -> None:
    """The main loop of a worker process: answer trials until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks decides
    signal.signal(signal.SIGTERM, leave)
    warnings.showwarning = lambda message, *_: print(f"kendall: warning: {message}", file=sys.stderr)  # noqa: T201
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    images = ImageData(**torch.load(data, mmap=True, weights_only=True))
    trainers: dict[int, Trainer] = {}
    kept: deque[int] = deque()
    tasks: dict[str, dict[str, Task]] = {}  # of trainers that prepare images alike
    torch.ones(8, device=device).sum().item()  # a device that cannot even do that is gone
    pipe.send("ready")
    while True:
        try:
            number, settings, trial = pipe.recv()
        except EOFError:
            return
        try:
            gone = keep(kept, number)
            if gone is not None:
                del trainers[gone]
            if settings is not None:
                trainers[number] = made(space, images, settings[1], clock, tasks)
            trainer = trainers[number]
            answer = trainer.answer(trial)
            taken = memory_taken(trainer.device)
            if clock is not None:
                free(trainer.device)  # others may need it
            pipe.send((answer, taken))
        except Exception as error:
            pipe.send((error, 0))


def made(
    space: Any, images: ImageData, settings: dict[str, Any], clock: tuple[Path, int] | None,
    tasks: dict[str, dict[str, Task]],
) -> Trainer:  # fmt: skip
    """A trainer of a process; only one that judges gets the test images."""
    if not settings["judge"]:
        nothing = torch.empty(0, dtype=torch.uint8)
        images = replace(images, test_images=nothing, test_labels=nothing)
    trainer: Trainer = settings.pop("made_by")(space, images, **settings)
    trainer.tasks = tasks.setdefault(f"{settings['recipe']} {settings['judge']}", trainer.tasks)  # images resized once
    trainer.own = trainer.task("")
    if clock is not None:
        share_time(trainer, *clock)
    return trainer


def share_time(trainer: Trainer, path: Path, place: int) -> None:
    """Have a trainer charge its share of a device's seconds and energy."""
    shares = SharedClock(path, energy=trainer.energy)
    trainer.clock, trainer.at_work = shares.seconds, lambda: shares.at_work(place)
    if trainer.energy is not None:
        trainer.energy = shares.joules
