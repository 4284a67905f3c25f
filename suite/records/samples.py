"""Trained samples that searches hand on to later ones: what FNAS's critic and buffer begin with.

docs/stores.md has the format. A search sees what stood in the file before its own first line, whatever is appended
later, by itself or by others; so the same command goes through its log again and on, from the same beginning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from suite.records.journal import Journal
from suite.records.log import origin_of
from suite.spaces import SearchSpace
from suite.types import JSON, Architecture, BadInput, Evaluation, Trial

VERSION = 1
FILE = "samples.jsonl"

Sample: TypeAlias = tuple[Architecture, Mapping[str, float], float]
"""Architecture, metrics, and the log probability with which its policy drew it."""


class SampleDatabase:
    """The sample database of a folder, as one search sees it.

    Args:
        folder: Made if there is none.
        space: Of this search; samples of other spaces stay in the file and are not given.
        dataset: Of this search, likewise.
        run: All that this search depends on: the same name goes on where it was.

    Raises:
        BadInput: The file is damaged, of another version, or cannot be written.
    """

    def __init__(self, folder: Path, space: SearchSpace, dataset: str, *, run: str) -> None:
        self.space, self.dataset, self.run = space, dataset, run
        self.journal = Journal(folder / FILE, "sample database", VERSION, {})
        self.kept = 0
        """Samples of this search that it has told us of, since this object was made."""
        if not any(row.get("run") == run for row in self.journal.rows):
            self.journal.append([{"run": run, "begins": {"space": space.name, "dataset": dataset}}])
        self.begin = next(place for place, row in enumerate(self.journal.rows) if row.get("run") == run)

    def earlier(self, trial: Trial) -> list[Sample]:
        """Samples trained as `trial` would be, before this search began, the oldest first.

        Raises:
            BadInput: A line is none.
        """
        wanted = (self.space.name, self.dataset, vars(trial.proxy), trial.epochs, trial.origin)
        found: list[Sample] = []
        for place, row in enumerate(self.journal.rows[: self.begin]):
            if "begins" in row:
                continue
            try:
                if (*(row[word] for word in ("space", "dataset", "proxy", "epochs")), origin_of(row)) == wanted:
                    metrics = {name: float(value) for name, value in row["metrics"].items()}
                    found.append((self.space.parse(row["arch"]), metrics, float(row["log_probability"])))
            except (KeyError, TypeError, ValueError, AttributeError, BadInput) as error:
                what = f"{type(error).__name__}: {error}"
                raise BadInput(f"{self.journal.path}:{place + 2}: not a sample: {what}; repair or move it") from None
        return found

    def keep(self, answers: Sequence[Evaluation], rewards: Sequence[float], log_probabilities: Sequence[float]) -> None:
        """Write down trained samples, in the order of the search; those that the file has already are only counted.

        Raises:
            BadInput: The file has other samples of a search of this name, or cannot be written.
        """
        rows: list[JSON] = []
        known = [row for row in self.journal.rows if row.get("run") == self.run and "begins" not in row]
        for answer, reward, log_probability in zip(answers, rewards, log_probabilities, strict=True):
            trial = answer.trial
            text = self.space.text(trial.arch)
            if self.kept < len(known):
                if known[self.kept].get("arch") != text:
                    raise BadInput(
                        f"{self.journal.path}: sample {self.kept} of {self.run} is {known[self.kept].get('arch')}, not "
                        f"{text}: another search had this name; choose another folder or name"
                    )
            else:
                rows.append(
                    {
                        "run": self.run, "number": self.kept, "space": self.space.name, "dataset": self.dataset,
                        "arch": text, "proxy": vars(trial.proxy), "epochs": trial.epochs, "origin": trial.origin,
                        "metrics": {name: finite(value) for name, value in answer.metrics.items()},
                        "reward": reward, "log_probability": log_probability,
                    }
                )  # fmt: skip
            self.kept += 1
        if rows:
            self.journal.append(rows)


def finite(value: float) -> float | str:
    """A number as strict JSON has it; float() reads it back."""
    return value if math.isfinite(value) else str(value)
