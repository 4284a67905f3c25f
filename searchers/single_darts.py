"""Single-DARTS: one level; weights and mixture take one step together, on one batch and one loss.

Hou, Jin, Chen. "Single-DARTS: Towards Stable Architecture Search". ICCV Workshops 2021.
https://arxiv.org/abs/2108.08128

DARTS trains weights and logits on batches that have nothing to do with one another, which favours operations without
weights early on. Here one forward and one backward pass of a training batch give both gradients, and both optimizers
step from them: neither gradient is taken anew in between. The cell is read off the logits as in DARTS.

The paper's optimizer of the logits, its schedule and the amount of its data are not known to us: they are DARTS's, and
`data` is all training images, or the half that DARTS's weights see. More in docs/methods/single_darts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from searchers.parts.logits import Logits
from searchers.parts.options import one_of
from suite.spaces import SearchSpace
from suite.types import Proxy

if TYPE_CHECKING:
    from suite.networks.learner import Batch, Pass

DATA = ("full", "half")


class SingleDARTS(Logits):
    """Weights and logits step together, on the same batch.

    Args:
        space: What to search; one that has a supernet.
        proxy: Size and schedule of the supernet's training.
        rng: Not used: the loop's seed draws the logits.
        data: "full": all training images; "half": those that DARTS's weights would see, the other half is not used.
        alpha_lr: Learning rate of the logits.
        alpha_betas: Decays of the two moments of their Adam.
        alpha_decay: Weight decay of the logits.
        scale: Standard deviation of the initial logits.
        warmup_epochs: First epochs in which the logits rest.
        statistics: Statistics of the supernet's norms outside training: "running" or "batch".
    """

    paper = "Hou et al., ICCV Workshops 2021, arXiv:2108.08128"

    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, data: str = "full", alpha_lr: float = 3e-4, alpha_betas: Sequence[float] = (0.5, 0.999),
        alpha_decay: float = 1e-3, scale: float = 1e-3, warmup_epochs: int = 0, statistics: str = "running",
    ) -> None:  # fmt: skip
        super().__init__(
            "single_darts", space, proxy, alpha_lr=alpha_lr, alpha_betas=alpha_betas, alpha_decay=alpha_decay,
            scale=scale, warmup_epochs=warmup_epochs, statistics=statistics,
        )  # fmt: skip
        self.data = one_of("single_darts: data", data, DATA)
        self.bilevel = self.data == "half"  # the loop halves the images; `held` is never called, so it has no other use

    def step(self, train: Batch, held: Callable[[], Batch]) -> Pass:
        """One pass of a training batch; both optimizers step from its gradients."""
        if not self.learning:
            return self.learner.descend(train, self.weights())[0]
        passed, (gradient,) = self.learner.descend(train, self.mixture(), also=[self.logits])
        self.move(gradient)
        return passed
