"""A batch as a network meets it, whatever the task: inputs, targets, and how much work it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import Tensor
from torch.nn import functional as F

Tensors: TypeAlias = Tensor | tuple[Tensor, ...]
"""One tensor, or several where a network takes or gives several."""


@dataclass
class Batch:
    """What goes into a network, and what should come out."""

    inputs: Tensors
    """Images as the network sees them, shape (size, channels, side, side)."""
    targets: Tensors
    """Classes, shape (n,); or of each pixel, shape (n, h, w)."""
    size: int = 0
    """Passes of one image through the network that the batch takes; 0 becomes the number of inputs."""
    after: Any = None
    """What the loss leaves for the next batch, such as a hidden state; the first write wins."""

    def __post_init__(self) -> None:
        if not self.size:
            self.size = len(self.inputs[0] if isinstance(self.inputs, tuple) else self.inputs)

    @property
    def answers(self) -> int:
        """How many right or wrong answers the network gives to it: one for each target."""
        targets = self.targets[0] if isinstance(self.targets, tuple) else self.targets
        return targets.numel()


class Loss(Protocol):
    """How far a network's outputs are from a batch's targets."""

    def __call__(self, outputs: Tensor, batch: Batch, *, each: bool = False) -> Tensor:
        """The mean over the targets, a scalar; of each example, shape (n,), if `each`."""
        ...


def cross_entropy(outputs: Tensor, batch: Batch, *, each: bool = False) -> Tensor:
    """The cross-entropy of logits and classes: the loss of a learner that is told no other."""
    assert isinstance(batch.targets, Tensor)
    return F.cross_entropy(outputs, batch.targets, reduction="none" if each else "mean")
