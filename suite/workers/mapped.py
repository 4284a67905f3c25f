"""Workers behind a change of questions and answers: another seed, metrics beside the error."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

from suite.types import Cost, Evaluation, Trial, Workers


class Mapped:
    """Other workers whose trials are changed on the way in, and whose answers on the way out.

    Args:
        inner: Who answers.
        before: A trial as `inner` is asked.
        after: The answer of `inner` as the searcher hears it, beside the trial that the searcher asked.
    """

    def __init__(
        self, inner: Workers, before: Callable[[Trial], Trial], after: Callable[[Trial, Evaluation], Evaluation]
    ) -> None:
        self.inner, self.before, self.after, self.name = inner, before, after, inner.name
        self.asked: dict[Trial, deque[Trial]] = defaultdict(deque)

    @property
    def free(self) -> int:
        """How many trials may be started now."""
        return self.inner.free

    def start(self, trial: Trial) -> Cost | None:
        """Start the changed trial."""
        changed = self.before(trial)
        cost = self.inner.start(changed)
        self.asked[changed].append(trial)
        return cost

    def next(self) -> Evaluation:
        """The changed answer."""
        return self.heard(self.inner.next())

    def cancel(self, trial: Trial | None = None) -> list[Evaluation]:
        """Give up in the inner workers, too."""
        return [self.heard(answer) for answer in self.inner.cancel(trial and self.before(trial))]

    def heard(self, answer: Evaluation) -> Evaluation:
        """An answer as the searcher hears it."""
        return self.after(self.asked[answer.trial].popleft(), answer)
