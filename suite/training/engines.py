"""Engines: how many trials become answers. A faster way to train plugs in here and nowhere else.

An engine gets runs, each a list of trials that are stages of one training, shortest first, already checked, and yields
their answers as each is done. `Serial` trains them one after another, `Processes` one a core.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import torch

from suite.training.data import ImageData
from suite.training.train import Trainer
from suite.types import BadInput, Evaluation, Trial

LEAVE_S = 10.0
"""For a process to write its checkpoint and leave [s]."""


class Engine(Protocol):
    """Answers runs; holds whatever it needs between calls."""

    def answers(self, runs: Sequence[Sequence[Trial]]) -> Iterator[Evaluation]:
        """Each answer as soon as it is done, in any order; a network that fails is answered with its failure."""
        ...

    def close(self) -> None:
        """Let go of processes and files; the engine can still be used and takes them again."""
        ...


class Serial:
    """One training after another, in this process."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def answers(self, runs: Sequence[Sequence[Trial]]) -> Iterator[Evaluation]:
        """In the order of the runs."""
        return (self.trainer.answer(trial) for run in runs for trial in run)

    def close(self) -> None:
        """Nothing is held."""


class Processes:
    """One training a process, `workers` at a time; the answers are those of `Serial`.

    A process that dies is replaced and its trial asked once more; if that fails too, it is answered with the reason.

    Args:
        trainer: As the processes shall have it.
        workers: Number of processes.
    """

    def __init__(self, trainer: Trainer, workers: int) -> None:
        self.trainer, self.size = trainer, workers
        self.workers: list[Worker] = []

    def answers(self, runs: Sequence[Sequence[Trial]]) -> Iterator[Evaluation]:
        """In the order of completion."""
        waiting = deque(deque(run) for run in runs)
        lost: dict[Trial, float] = {}
        self.start(min(self.size, len(runs)))
        try:
            while waiting or any(worker.run for worker in self.workers):
                for worker in self.workers:
                    if waiting and not worker.run:
                        worker.take(waiting.popleft())
                busy = {worker.pipe: worker for worker in self.workers if worker.run}
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    trial = worker.run[0]
                    try:
                        answer = worker.pipe.recv()
                    except (EOFError, ConnectionError):
                        seconds = worker.seconds + lost.get(trial, 0.0)
                        run, death = worker.run, worker.bury(wait_for_its_end=True)
                        self.workers.remove(worker)
                        self.start(len(self.workers) + 1)
                        if trial in lost:
                            run.popleft()
                            yield self.trainer.failed(trial, f"its process died twice: {death}", seconds)
                        lost[trial] = seconds
                        if run:
                            waiting.appendleft(run)
                        continue
                    if isinstance(answer, BaseException):
                        raise answer
                    worker.done()
                    if trial in lost:
                        cost = replace(answer.cost, device_s=answer.cost.device_s + lost.pop(trial))
                        answer = replace(answer, cost=cost)
                    yield answer
        finally:  # nobody waits for these answers any more; perhaps the user stopped the run, and will go on with it
            busy_ones = [worker for worker in self.workers if worker.run]
            for worker in busy_ones:
                worker.process.terminate()
            for worker in busy_ones:
                worker.process.join(timeout=LEAVE_S)
                worker.bury()
                self.workers.remove(worker)

    def start(self, number: int) -> None:
        """Have at least `number` processes that are ready."""
        new = number - len(self.workers)
        if new <= 0:
            return
        with tempfile.TemporaryDirectory(prefix="kendall-") as folder:
            path = Path(folder) / "data.pt"
            pack(self.trainer.data, path, test=self.trainer.judge)
            self.workers += [Worker(self.trainer, path) for _ in range(new)]
            try:
                for worker in self.workers[-new:]:
                    worker.wait_until_ready()
            except BadInput:
                self.close()
                raise

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.bury()
        self.workers.clear()


class Worker:
    """This process's side of one that trains."""

    def __init__(self, trainer: Trainer, data: Path) -> None:
        self.run: deque[Trial] = deque()
        self.asked = 0.0
        settings = {
            "recipe": trainer.recipe,
            "device": str(trainer.device),
            "threads": trainer.threads,
            "judge": trainer.judge,
            "checkpoints": trainer.checkpoints.folder,
            "pool": trainer.pool,
            "deterministic": trainer.deterministic,
        }
        context = multiprocessing.get_context("forkserver")  # imports torch once, and forks before it has any threads
        context.set_forkserver_preload([__name__])
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, trainer.space, data, settings), daemon=True)
        self.process.start()
        theirs.close()  # so that this end hears of the other's death

    def wait_until_ready(self) -> None:
        """Return when it can be asked.

        Raises:
            BadInput: It died on its way.
        """
        try:
            self.pipe.recv()
        except (EOFError, ConnectionError):
            raise BadInput(
                f"workers: a process did not start ({self.bury(wait_for_its_end=True)}); use workers=1, "
                'or guard the script that starts them with if __name__ == "__main__"'
            ) from None

    def take(self, run: deque[Trial]) -> None:
        """Begin with the first trial of `run`."""
        self.run = run
        self.ask()

    def done(self) -> None:
        """On to the next trial of the run, if there is one."""
        self.run.popleft()
        self.ask()

    def ask(self) -> None:
        """Send the first trial."""
        if self.run:
            self.asked = time.perf_counter()
            with contextlib.suppress(ConnectionError):  # it died meanwhile: receiving says so
                self.pipe.send(self.run[0])

    @property
    def seconds(self) -> float:
        """Since it was asked."""
        return time.perf_counter() - self.asked

    def bury(self, *, wait_for_its_end: bool = False) -> str:
        """End it if it lives; why it died if it does not."""
        self.run = deque()
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


def pack(data: ImageData, path: Path, *, test: bool) -> None:
    """Write the data to where other processes map it into memory; without `test`, its test images are left out."""
    content: dict[str, Any] = {}
    for entry in fields(ImageData):
        if entry.name.startswith("test_") and not test:
            content[entry.name] = torch.empty(0, dtype=torch.uint8)
        else:
            value = getattr(data, entry.name)
            content[entry.name] = value.cpu() if isinstance(value, torch.Tensor) else value
    torch.save(content, path)


def leave(number: int, _: object) -> None:
    """What SIGTERM does: a training under way writes its checkpoint."""
    raise SystemExit(128 + number)


def work(pipe: Connection, space: Any, data: Path, settings: dict[str, Any]) -> None:
    """What a worker process does: answer trials until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks decides
    signal.signal(signal.SIGTERM, leave)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    content = torch.load(data, mmap=True, weights_only=True)
    trainer = Trainer(space, ImageData(**content), **settings)
    pipe.send("ready")
    while True:
        try:
            trial = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(trainer.answer(trial))
        except Exception as error:
            pipe.send(error)
