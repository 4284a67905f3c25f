"""Who computes the steps of a training and its scores: torch, or the machine code of `suite.training.compiled`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from suite.tasks.base import Batch, Part, Session
from suite.training.compiled.program import Program
from suite.training.recipe import Recipe


class Stepper(Protocol):
    """Takes the steps of one run."""

    def step(self, batch: Batch, rate: float) -> tuple[Tensor | float, Tensor | int]:
        """One step at a learning rate; the loss summed over the batch's answers, and how many were wrong."""
        ...

    def epoch_over(self, steps: int) -> None:
        """Leave weights and momentum in the network and its optimiser after so many steps."""
        ...

    def score(self, part: Part) -> dict[str, float]:
        """As `Session.score`."""
        ...


class TorchStepper:
    """Steps by torch, in bfloat16 if `half`."""

    def __init__(
        self, session: Session, network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe,
        *, device: torch.device, half: bool,
    ) -> None:  # fmt: skip
        self.session, self.network, self.optimizer, self.recipe = session, network, optimizer, recipe
        self.device, self.half = device, half
        self.weights = [*network.parameters(), *session.modules.parameters()]

    def step(self, batch: Batch, rate: float) -> tuple[Tensor | float, Tensor | int]:
        """One step of SGD."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            outputs = self.network(batch.inputs)
        loss = self.session.loss(outputs.float(), batch)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.grad_clip:
            nn.utils.clip_grad_norm_(self.weights, self.recipe.grad_clip)
        self.optimizer.step()
        return loss.detach() * batch.answers, self.session.wrong(outputs, batch)

    def epoch_over(self, steps: int) -> None:
        """They are there already."""

    def score(self, part: Part) -> dict[str, float]:
        """The session's."""
        return self.session.score(part)


class CompiledStepper:
    """Steps by machine code, of a task whose loss is the cross-entropy of one class an input.

    Args:
        session: What is asked.
        network: A stand-alone network of NAS-Bench-201.
        optimizer: Of its weights; it is read now and written after each epoch.
        recipe: How steps are taken.
        side: Of the inputs [pixels].
        channels: Of the inputs.
        largest: Most images of a batch.
        copies: Inputs that are made of an image.
    """

    def __init__(
        self, session: Session, network: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe,
        *, side: int, channels: int, largest: int, copies: int,
    ) -> None:  # fmt: skip
        self.session, self.optimizer, self.recipe, self.largest = session, optimizer, recipe, largest
        self.program = Program(network, side=side, channels=channels, batch=largest * copies)
        self.program.take(optimizer)

    def step(self, batch: Batch, rate: float) -> tuple[Tensor | float, Tensor | int]:
        """One step of SGD."""
        recipe = self.recipe
        return self.program.step(
            *arrays(batch), rate=rate, momentum=recipe.momentum, nesterov=recipe.nesterov, decay=recipe.weight_decay,
            clip=recipe.grad_clip, smoothing=recipe.label_smoothing,
        )  # fmt: skip

    def epoch_over(self, steps: int) -> None:
        """Write weights, running statistics and momentum back."""
        self.program.give(self.optimizer, steps)

    def score(self, part: Part) -> dict[str, float]:
        """As the session's, by machine code."""
        loss, wrong, answers = torch.zeros((), dtype=torch.float64), 0, 0
        for start in range(0, self.session.count(part), self.largest):
            batch = self.session.look(part, slice(start, start + self.largest))
            added, missed = self.program.evaluate(*arrays(batch))
            loss += added
            wrong += missed
            answers += batch.answers
        return {"loss": float(loss) / answers, "error": 100 * float(wrong) / answers}


def arrays(batch: Batch) -> tuple[Any, Any]:
    """Inputs, channels last, and classes, as numpy sees them."""
    assert isinstance(batch.inputs, Tensor)
    assert isinstance(batch.targets, Tensor)
    return batch.inputs.permute(0, 2, 3, 1).numpy(), batch.targets.numpy()
