"""The tools of a gradient search: a supernet, the optimizer of its weights, and gradients, all of them counted.

A search asks for passes, gradients, steps and scores and brings the mixture; which images, which learning rate and when
to stop belong to the loop (`suite.training.gradient_loop`). Nothing here waits for the device, but for `score`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from suite.data.seeding import generator
from suite.networks.batch import Batch, Loss, cross_entropy
from suite.networks.mixture import BATCH, EACH, Mixes
from suite.networks.supernet import inherit
from suite.types import Architecture, BadInput, Proxy, Unsupported

__all__ = ["Batch", "Learner", "Pass", "Validated"]

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
    losses: Tensor | None = None
    """The loss of each example, shape (n,), with its graph, where it was asked for."""


class Validated(NamedTuple):
    """The result of one evaluation on held-out images."""

    loss: float
    error: float
    """Share of wrong answers [%]."""
    images: int
    """Number of images that went through the network."""


class Learner:
    """Passes through a supernet and steps of its weights.

    Args:
        supernet: Supernet, or another network of mixtures, on its device.
        optimizer: Of all its weights.
        seed: Of all chance.
        grad_clip: Largest norm of the weights' gradient in a step; 0: any.
        loss: The task's: `Session.loss`.
        half: Whether forward passes are in bfloat16.
        proxy: Size and schedule under which the loop shows images to the network; None outside a loop.
        validate: Evaluates the network on the search's held-out images; None outside a loop.
    """

    def __init__(
        self, supernet: Mixes, optimizer: torch.optim.SGD,
        *, seed: int, grad_clip: float = 0.0, loss: Loss = cross_entropy, half: bool = False,
        proxy: Proxy | None = None, validate: Callable[[Mixes], Validated] | None = None,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.grad_clip, self.loss, self.half = grad_clip, loss, half
        self.proxy, self.validate = proxy, validate
        self.take(supernet, optimizer)
        self.macs = 0.0
        """Multiply-adds since the loop set it to 0."""
        self.epoch = self.number = 0
        """Where the search stands: the epoch, and the step in it."""
        self.stepping = False
        """Whether an epoch's steps are under way; the loop says so."""

    def take(self, supernet: Mixes, optimizer: torch.optim.SGD) -> None:
        """Work with this network and the optimizer of its weights from now on."""
        self.supernet, self.optimizer = supernet, optimizer
        self.parameters: list[nn.Parameter] = list(supernet.parameters())
        """The network's weights."""
        self.device = self.parameters[0].device
        self.norms = [
            module for module in supernet.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
        ]

    def chance(self, name: str) -> torch.Generator:
        """A CPU generator for this step alone, so that a search that goes on draws as if it had never stopped."""
        return generator(self.seed, self.epoch, self.number, name)

    # Another network, and what a network is worth

    def replace(self, network: Mixes, *, keep: bool = True, proxy: Proxy | None = None) -> None:
        """Train another network from the coming epoch on; only between epochs, in a searcher's `begin` or `epoch`.

        The logits, or whatever else steers the mixture, are the searcher's to adapt. So that a search goes on after a
        cut, its `state` must say which network `build` has to make.

        Args:
            network: Its successor; it is moved to the device of the present one.
            keep: Take over weights, running statistics and the optimizer's moments by name, where shapes agree; else
                all begin anew.
            proxy: Size under which the loop shows images from now on; None: as before.

        Raises:
            BadInput: An epoch is under way, or `proxy` changes the schedule or the share of the images.
        """
        if self.stepping:
            raise BadInput(
                f"replace: step {self.number + 1} of epoch {self.epoch + 1} is under way; a network is replaced "
                "between epochs, in the searcher's epoch()"
            )
        if proxy is not None and self.proxy is not None:
            for name in ("epochs", "samples", "task"):
                before, after = getattr(self.proxy, name), getattr(proxy, name)
                if before != after:
                    raise BadInput(
                        f"replace: the proxy changes {name} from {before} to {after}; a search keeps its epochs and "
                        "its images, only width, depth and resolution may change"
                    )
        module, old = network, self.supernet
        assert isinstance(module, nn.Module)
        assert isinstance(old, nn.Module)
        if keep:
            inherit(module, old.state_dict())
        layout: Any = {"memory_format": torch.channels_last}
        module.to(self.device, **layout).train(old.training)
        group = {name: value for name, value in self.optimizer.param_groups[0].items() if name != "params"}
        optimizer = type(self.optimizer)(module.parameters(), **group)
        if keep:
            kept = dict(old.named_parameters())
            for name, weight in module.named_parameters():
                if name in kept and kept[name].shape == weight.shape and kept[name] in self.optimizer.state:
                    optimizer.state[weight] = copy.deepcopy(self.optimizer.state[kept[name]])
        self.take(network, optimizer)
        self.proxy = proxy or self.proxy

    def score(self, of: Tensor | Architecture) -> float:
        """Error on the search's held-out images [%], by the running statistics; counted like every pass.

        Neither the weights nor the mixture step on these images. The network computes `of` from now on.

        Args:
            of: A mixture as in `Supernet.mix`, whose options of weight 0 are not computed; or an architecture.

        Raises:
            Unsupported: There are no held-out images, as no loop made this learner; or a mixture is of each example.
        """
        return self.scored(of).error

    def scored(self, of: Tensor | Architecture) -> Validated:
        """Loss and error of a mixture or architecture, as `score` has it."""
        if self.validate is None:
            raise Unsupported("score: no held-out images; the loop of suite.training.gradient_loop brings them")
        if isinstance(of, torch.Tensor):
            if of.dim() == EACH:
                raise Unsupported("score: one mixture for all held-out images, not one an example: (rows, options)")
            self.supernet.mix(of.detach(), of.detach() != 0 if of.dim() == BATCH else None)
        else:
            self.supernet.path(of)
        training = self.supernet.training
        try:
            found = self.validate(self.supernet)
        finally:
            self.supernet.train(training)
        self.macs += float(found.images * self.supernet.computed_macs())
        return found

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
        self, batch: Batch, mixture: Tensor | None = None, mask: Tensor | npt.NDArray[np.bool_] | None = None,
        *, each: bool = False,
    ) -> Pass:  # fmt: skip
        """The loss of a mixture, normalised by the batch; running statistics stay as they are.

        Args:
            batch: Inputs and targets.
            mixture: As in `Supernet.mix`; None: what the supernet was last told to compute.
            mask: As there.
            each: Give the loss of each example too, `Pass.losses`.
        """
        with self.still():
            return self.passed(batch, mixture, mask, each)

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
        *, penalty: Tensor | None = None, also: Sequence[Tensor] = (), each: bool = False,
    ) -> tuple[Pass, tuple[Tensor, ...]]:  # fmt: skip
        """One step of the network's weights, from a pass that moves the running statistics.

        Weights that had no part in the pass are neither changed nor decayed.

        Args:
            batch: Inputs and targets.
            mixture: As in `forward`; detached, unless `also` asks for its gradient.
            mask: As in `forward`.
            penalty: A scalar that is added to the loss.
            also: Tensors whose gradients are wanted too.
            each: As in `forward`.

        Returns:
            The pass, and the gradients of `also`.
        """
        passed = self.passed(batch, mixture, mask, each)
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
        self, batch: Batch, mixture: Tensor | None, mask: Tensor | npt.NDArray[np.bool_] | None, each: bool = False
    ) -> Pass:  # fmt: skip
        """A forward pass, counted."""
        if mixture is not None:
            self.supernet.mix(mixture, mask)
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            outputs = self.supernet(batch.inputs)
        outputs = outputs.float() if self.half else outputs
        macs = float(batch.size * self.supernet.computed_macs())
        self.macs += macs
        losses = None
        if each:
            losses = self.loss(outputs, batch, each=True)
            loss = losses.mean()
        else:
            loss = self.loss(outputs, batch)
        return Pass(loss, outputs, batch, macs, losses)

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
