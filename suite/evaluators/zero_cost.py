"""Answers without training: a zero-cost score of the network of a trial, on one minibatch of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from suite.data.images import ImageData
from suite.spaces import SearchSpace
from suite.training.device import pick_device
from suite.training.zero_cost import Scorer
from suite.types import Architecture, BadInput, Cost, Evaluation, Proxy, Trial

Network: TypeAlias = tuple[Architecture, Proxy, int]


class ZeroCostEvaluator:
    """Scores the networks of trials as they are before any training.

    `metrics["zero_cost"]` is minus the score, in the score's own unit, so that lower is better; there is no
    `val_error`. The trial's seed draws the initial weights and the minibatch. Epochs and samples make no difference,
    and what was scored before costs nothing.

    Args:
        space: Whose networks.
        data: Images; only the training part is looked at.
        score: synflow, nwot, jacov, grad_norm, snip; or a baseline: params, macs, random.
        batch_size: Images of the minibatch.
        device: "auto", "cpu", "cuda", "cuda:1"; "auto" is a CUDA device if there is one.
        threads: Of a CPU; scores depend on their number in the last bits.

    Raises:
        BadInput: No such score, or a number is out of its range.
        Unsupported: The device is not there.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: ImageData,
        *,
        score: str,
        batch_size: int = 64,
        device: str = "auto",
        threads: int = 1,
    ) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise BadInput(f"zero cost: threads must be a whole number of at least 1, not {threads!r}")
        self.scorer = Scorer(
            space, data, score, batch_size=batch_size, device=str(pick_device(device)), threads=threads
        )
        self.space, self.dataset, self.score = space, data.name, score
        self.name, self.device = f"zero_cost:{score}", self.scorer.device_name
        self.known: dict[Network, Evaluation] = {}

    def stages(self, proxy: Proxy) -> tuple[int, ...] | None:
        """None: any epoch can be asked, with the same answer."""
        return None

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Answers in the order of the trials.

        Raises:
            Unsupported: A network cannot be built under its proxy; nothing was scored.
            BadInput: An architecture is none of the space.
        """
        return [answer for _, answer in self.stream(trials)]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Evaluation]]:
        """(place among the trials, answer), each as soon as it is done, in order."""
        for trial in trials:
            self.scorer.check(trial)
        return ((place, self.answer(trial)) for place, trial in enumerate(trials))

    def answer(self, trial: Trial) -> Evaluation:
        """One answer; free if its network was scored before."""
        known = self.known.get(self.network(trial))
        if known is not None:
            return replace(known, trial=trial, cost=Cost(0.0, self.device, None, 0.0))
        answer = self.scorer.answer(trial)
        self.recall(answer)
        return answer

    def recall(self, evaluation: Evaluation) -> None:
        """Take an answer that was given earlier, by this object or another: its network will not be scored again."""
        self.known[self.network(evaluation.trial)] = evaluation

    def network(self, trial: Trial) -> Network:
        """All of a trial that its score depends on."""
        proxy = replace(self.space.canonical(trial.proxy), epochs=1, samples=1.0)
        return trial.arch, proxy, trial.seed
