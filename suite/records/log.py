"""The log of a run: a file of JSON lines, one answer each, that a killed run goes on from.

Each line is appended and (where the answer cost real seconds) synced to disk before the search hears of it. Several
searches share one log; each has its name in the field `run`. docs/tables.md has the format: our logs are tables too.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import warnings
from collections import defaultdict, deque
from pathlib import Path

from suite.spaces import SearchSpace
from suite.types import JSON, POOL, Architecture, BadInput, Cost, Evaluation, Proxy, Trial


class Log:
    """An append-only file of answers, held by one process at a time.

    A torn last line, left by a kill, is cut off with a warning.

    Raises:
        BadInput: The file is damaged elsewhere (file and line are named), another process holds it, or it cannot be
            written.
    """

    def __init__(self, path: Path, space: SearchSpace) -> None:
        self.path, self.space = path, space
        self.known: dict[str, dict[Trial, deque[tuple[int, Evaluation]]]] = defaultdict(lambda: defaultdict(deque))
        """Search -> trial -> its answers, each with its line, in the log's order."""
        self.texts: dict[Architecture, str] = {}
        self.proxies: dict[Proxy, JSON] = {}
        try:
            self.file = path.open("a+b")
        except OSError as error:
            raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # some file systems have no locks: then there are none
                raise BadInput(f"{path}: another process is writing it; wait for it or choose another --out") from None
        self.read()

    def read(self) -> None:
        """Take in what an earlier process left."""
        self.file.seek(0)
        proxies: dict[str, Proxy] = {}
        archs: dict[str, Architecture] = {}
        end = 0
        for number, line in enumerate(self.file, start=1):
            if not line.endswith(b"\n"):
                warnings.warn(f"{self.path}:{number}: the last line was torn by a kill; dropped", stacklevel=3)
                self.file.truncate(end)
                break
            end += len(line)
            try:
                row = json.loads(line)
                if row["space"] != self.space.name:
                    raise BadInput(f"it is of space {row['space']}, not {self.space.name}")
                key = str(row["proxy"])
                proxy = proxies.setdefault(key, proxies.get(key) or Proxy(**row["proxy"]))
                arch = archs.get(row["arch"]) or archs.setdefault(row["arch"], self.space.parse(row["arch"]))
                trial = Trial(arch, proxy, row["epochs"], row["seed"], origin_of(row))
                cost = row["cost"]
                evaluation = Evaluation(
                    trial,
                    {name: number_in(value) for name, value in row["metrics"].items()},
                    Cost(number_in(cost["device_s"]), cost["device"], cost["energy_j"], number_in(cost["macs"])),
                    row["failure"],
                    [{name: number_in(value) for name, value in entry.items()} for entry in row["curve"]],
                )
                self.known[f"{row['phase']} {row['dataset']} {row['run']}"][trial].append((number, evaluation))
            except BadInput as error:
                raise BadInput(f"{self.path}:{number}: not a line of this log: {error}; repair or move it") from None
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                what = f"{type(error).__name__}: {error}"
                raise BadInput(f"{self.path}:{number}: not a line of this log: {what}; repair or move it") from None

    def answers(self, dataset: str, run: str, phase: str) -> list[Evaluation]:
        """Answers of a search that it holds, shortest training first."""
        held = self.known.get(f"{phase} {dataset} {run}", {})
        return sorted(
            (answer for of_one in held.values() for _, answer in of_one), key=lambda answer: answer.trial.epochs
        )

    def append(self, dataset: str, run: str, phase: str, evaluation: Evaluation) -> None:
        """Write one answer; on disk when this returns, if the answer cost real seconds."""
        trial, cost = evaluation.trial, evaluation.cost
        text = self.texts.get(trial.arch) or self.texts.setdefault(trial.arch, self.space.text(trial.arch))
        row = {
            "run": run,
            "phase": phase,
            "space": self.space.name,
            "dataset": dataset,
            "arch": text,
            "proxy": self.proxies.get(trial.proxy) or self.proxies.setdefault(trial.proxy, vars(trial.proxy)),
            "epochs": trial.epochs,
            "seed": trial.seed,
            "origin": trial.origin,
            "metrics": {name: number_out(value) for name, value in evaluation.metrics.items()},
            "cost": {
                "device_s": number_out(cost.device_s),
                "device": cost.device,
                "energy_j": cost.energy_j,
                "macs": number_out(cost.macs),
            },
            "failure": evaluation.failure,
            "curve": [{name: number_out(value) for name, value in entry.items()} for entry in evaluation.curve],
        }
        line = json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            self.file.write(line)
            if not cost.simulated:
                self.sync()
        except OSError as error:
            raise self.unwritten(error) from None

    def sync(self) -> None:
        """Everything appended so far is on disk when this returns."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Let go of the file, everything on disk."""
        try:
            with self.file:
                self.sync()
        except OSError as error:
            raise self.unwritten(error) from None

    def unwritten(self, error: OSError) -> BadInput:
        """One line for a disk that is full or gone."""
        return BadInput(f"{self.path}: {error.strerror}; make room and run the same command again")

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def origin_of(row: JSON) -> str:
    """Origin of a line's trial; before there were origins, lines had `inherit`, and true meant the block pool.

    >>> origin_of({"inherit": True}), origin_of({"inherit": False}), origin_of({"origin": ""})
    ('pool', '', '')
    """
    return str(row["origin"]) if "origin" in row else POOL if row["inherit"] else ""


def number_out(value: float) -> float | str | None:
    """A number as strict JSON has it: inf is "inf", NaN is null."""
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else "inf" if value > 0 else "-inf"


def number_in(value: float | str | None) -> float:
    """Read a number that `number_out` has written."""
    return math.nan if value is None else float(value)
