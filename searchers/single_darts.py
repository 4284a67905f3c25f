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

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from searchers.parts.logits import Alpha, Logits, Statistics
from searchers.parts.options import checked
from suite.spaces import SearchSpace
from suite.types import Proxy

if TYPE_CHECKING:
    from suite.networks.learner import Batch, Pass


class SingleDARTS(Logits):
    """Weights and logits step together, on the same batch."""

    paper = "Hou et al., ICCV Workshops 2021, arXiv:2108.08128"

    @checked
    def __init__(
        self, space: SearchSpace, proxy: Proxy, rng: np.random.Generator,
        *, data: Literal["full", "half"] = "full", alpha: Alpha = Alpha(), statistics: Statistics = "running",
    ) -> None:  # fmt: skip
        """Nothing is built until the loop asks for it.

        Args:
            data: "full": all training images; "half": those that DARTS's weights would see, the others are not used.
        """
        super().__init__(space, proxy, rng, alpha=alpha, statistics=statistics)
        self.data = data
        self.bilevel = data == "half"  # the loop halves the images; as `held` is never called, one half is not used

    def step(self, train: Batch, held: Callable[[], Batch]) -> Pass:
        """One pass of a training batch; both optimizers step from its gradients."""
        if not self.learning:
            return self.learner.descend(train, self.weights())[0]
        passed, (gradient,) = self.learner.descend(train, self.mixture(), also=[self.logits])
        self.move(gradient)
        return passed
