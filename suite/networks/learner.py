"""What a gradient search works with: a supernet, the optimiser of its weights, and gradients, all of them counted.

A search asks for passes, gradients and steps and brings the mixture; which images, which learning rate and when to stop
belong to the loop (`suite.training.gradient_loop`). Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from suite.data.seeding import generator
from suite.networks.batch import Batch, Loss, cross_entropy
from suite.networks.supernet import Supernet

__all__ = ["Batch", "Learner", "Pass"]

INPUTS, WEIGHTS = 1, 1
"""Forward passes that a gradient counts as: what the inputs take, and what the weights take on top."""


@dataclass(frozen=True)
class Pass:
    """A batch that went through the network."""

    loss: Tensor
    """The task's mean loss, a scalar, with its graph."""
    outputs: Tensor
    """What the network gave, float32; logits of shape (n, classes) where the task is to tell classes apart."""
    batch: Batch
    """What it was given."""
    macs: float
    """Multiply-adds of the forward pass."""


class Learner:
    """Passes through a supernet and steps of its weights.

    Args:
        supernet: On its device.
        optimizer: Of all its weights.
        seed: Of all chance.
        grad_clip: Largest norm of the weights' gradient in a step; 0: any.
        loss: The task's: `Session.loss`.
        half: Whether forward passes are in bfloat16.
    """

    def __init__(
        self, supernet: Supernet, optimizer: torch.optim.SGD,
        *, seed: int, grad_clip: float = 0.0, loss: Loss = cross_entropy, half: bool = False,
    ) -> None:  # fmt: skip
        self.supernet, self.optimizer, self.seed = supernet, optimizer, seed
        self.grad_clip, self.loss, self.half = grad_clip, loss, half
        self.parameters: list[nn.Parameter] = list(supernet.parameters())
        """The network's weights."""
        self.device = self.parameters[0].device
        self.norms = [
            module for module in supernet.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
        ]
        self.macs = 0.0
        """Multiply-adds since the loop set it to 0."""
        self.epoch = self.number = 0
        """Where the search stands: the epoch, and the step in it."""

    def chance(self, name: str) -> torch.Generator:
        """A CPU generator for this step alone, so that a search that goes on draws as if it had never stopped."""
        return generator(self.seed, self.epoch, self.number, name)

    # The network's weights

    @property
    def lr(self) -> float:
        """Learning rate of the weights now."""
        return float(self.optimizer.param_groups[0]["lr"])

    @lr.setter
    def lr(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @property
    def momentum(self) -> float:
        """Of the weights' optimiser."""
        return float(self.optimizer.param_groups[0]["momentum"])

    @property
    def weight_decay(self) -> float:
        """Of the weights' optimiser."""
        return float(self.optimizer.param_groups[0]["weight_decay"])

    def momentum_buffers(self) -> list[Tensor]:
        """Of the weights, in their order; zeros where no step was taken."""
        held = (self.optimizer.state[weight].get("momentum_buffer") for weight in self.parameters)
        return [
            torch.zeros_like(weight) if buffer is None else buffer
            for weight, buffer in zip(self.parameters, held, strict=True)
        ]

    @contextmanager
    def at(self, values: Sequence[Tensor]) -> Iterator[None]:
        """Inside, the network has these weights; afterwards its own, which are not touched."""
        own = [weight.data for weight in self.parameters]
        try:
            for weight, value in zip(self.parameters, values, strict=True):
                weight.data = value
            yield
        finally:
            for weight, value in zip(self.parameters, own, strict=True):
                weight.data = value

    # Passes and gradients

    def forward(
        self, batch: Batch, mixture: Tensor | None = None, mask: Tensor | npt.NDArray[np.bool_] | None = None
    ) -> Pass:  # fmt: skip
        """The loss of a mixture, normalised by the batch; running statistics stay as they are.

        Args:
            batch: Inputs and targets.
            mixture: As in `Supernet.mix`; None: what the supernet was last told to compute.
            mask: As there.
        """
        with self.still():
            return self.passed(batch, mixture, mask)

    def gradients(self, passed: Pass, of: Sequence[Tensor], *, penalty: Tensor | None = None) -> tuple[Tensor, ...]:
        """The gradients of a pass's loss, or of its sum with a `penalty`; zeros of what had no part in it.

        Args:
            passed: Its graph is used up.
            of: Logits, the network's weights (`parameters`), or both.
            penalty: A scalar.
        """
        total = passed.loss if penalty is None else passed.loss + penalty
        own = set(map(id, self.parameters))
        self.macs += passed.macs * (INPUTS + WEIGHTS * any(id(tensor) in own for tensor in of))
        return torch.autograd.grad(total, list(of), materialize_grads=True)

    def descend(
        self, batch: Batch, mixture: Tensor | None = None, mask: Tensor | npt.NDArray[np.bool_] | None = None,
        *, penalty: Tensor | None = None, also: Sequence[Tensor] = (),
    ) -> tuple[Pass, tuple[Tensor, ...]]:  # fmt: skip
        """One step of the network's weights, from a pass that moves the running statistics.

        Weights that had no part in the pass are neither changed nor decayed.

        Args:
            batch: Inputs and targets.
            mixture: As in `forward`; detached, unless `also` asks for its gradient.
            mask: As in `forward`.
            penalty: A scalar that is added to the loss.
            also: Tensors whose gradients are wanted too.

        Returns:
            The pass, and the gradients of `also`.
        """
        passed = self.passed(batch, mixture, mask)
        total = passed.loss if penalty is None else passed.loss + penalty
        self.macs += passed.macs * (INPUTS + WEIGHTS)
        found = torch.autograd.grad(total, [*self.parameters, *also], allow_unused=True)
        for weight, gradient in zip(self.parameters, found, strict=False):
            weight.grad = gradient
        if self.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.grad_clip)
        self.optimizer.step()
        others = zip(also, found[len(self.parameters) :], strict=True)
        return passed, tuple(torch.zeros_like(of) if gradient is None else gradient for of, gradient in others)

    def passed(
        self, batch: Batch, mixture: Tensor | None, mask: Tensor | npt.NDArray[np.bool_] | None
    ) -> Pass:  # fmt: skip
        """A forward pass, counted."""
        if mixture is not None:
            self.supernet.mix(mixture, mask)
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            outputs = self.supernet(batch.inputs)
        outputs = outputs.float() if self.half else outputs
        macs = float(batch.size * self.supernet.computed_macs())
        self.macs += macs
        return Pass(self.loss(outputs, batch), outputs, batch, macs)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, passes leave the running statistics of the norms alone."""
        for norm in self.norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self.norms:
                norm.track_running_stats = True

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, passes have no graph, and norms go by their running statistics, where they have some."""
        self.supernet.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.supernet.train()
