"""A surrogate benchmark as evaluator: predicted errors and seconds, drawn with the noise of a training seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from suite.types import SIMULATED, BadInput, Cost, Evaluation, Trial
from surrogates.benchmark import Benchmark


class SurrogateEvaluator:
    """Answers of a surrogate benchmark: a search sees draws, the judge the mean.

    A later stage of a run pays what it adds to the stage asked before, as on a table.

    Args:
        benchmark: From `Benchmark.load`.
        view: "search" (with the noise of the trial's seed) or "judge" (the mean).
    """

    def __init__(self, benchmark: Benchmark, *, view: Literal["search", "judge"] = "search") -> None:
        if view not in ("search", "judge"):
            raise BadInput(f"a surrogate is viewed as search or judge, not {view!r}")
        self.benchmark, self.view = benchmark, view
        self.name = f"surrogate:{benchmark.about.get('table', 'table')}"
        self.device = f"{SIMULATED}surrogate of {benchmark.about.get('device', '') or 'unknown'}"
        self.trained: dict[Trial, int] = {}

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in the order of the trials.

        Raises:
            BadInput: An architecture is of another space.
            Unsupported: A trial's proxy or stage is none that it was fitted on.
        """
        for trial in trials:
            self.benchmark.space.check(trial.arch)
            self.benchmark.check(trial.proxy, trial.epochs)
        return [self.answer(trial) for trial in trials]

    def answer(self, trial: Trial) -> Evaluation:
        """The answer to one trial."""
        at = self.benchmark.check(trial.proxy, trial.epochs)
        if self.view == "judge":
            error = float(self.benchmark.mean([trial.arch], at)[0])
        else:
            error = self.benchmark.drawn(trial.arch, at, trial.seed)
        seconds = float(self.benchmark.seconds([trial.arch], at)[0])
        before = self.trained.get(trial.whole, 0)
        if 0 < before < trial.epochs:
            earlier = self.benchmark.check(trial.proxy, before)
            seconds = max(0.0, seconds - float(self.benchmark.seconds([trial.arch], earlier)[0]))
        self.trained[trial.whole] = trial.epochs
        return Evaluation(trial, {"val_error": error}, Cost(seconds, self.device))
