"""What a task is to those who train networks: a `Task` opens a `Session` with each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from suite.networks.batch import Batch, Loss, Tensors
from suite.types import Ends, Metric, Proxy

__all__ = ["Batch", "Half", "Loss", "Part", "Preparation", "Session", "State", "Task", "Tensors"]

Part: TypeAlias = Literal["train", "valid", "test"]
Half: TypeAlias = Literal["all", "weights"]
"""Which training images: all of a proxy's, or the half on which the weights of a bilevel search learn."""
State: TypeAlias = dict[str, Any]
"""Tensors, numbers, strings, lists and dicts."""


class Preparation(Protocol):
    """How images become batches; a `suite.training.recipe.Recipe` says so."""

    @property
    def batch_size(self) -> int:
        """Images drawn for a step, before a task makes several inputs of each."""

    @property
    def label_smoothing(self) -> float:
        """Share of the targets that is spread over all classes."""

    @property
    def crop(self) -> bool:
        """Whether training images are shifted at random."""

    @property
    def flip(self) -> bool:
        """Whether half of the training images are mirrored."""

    @property
    def cutout(self) -> float:
        """Side of a square set to the mean, as a share of the image's side."""


class Task(Protocol):
    """A question that networks are trained to answer, on one data set.

    Nothing here depends on a network, so one task serves all of them; what moves while a network learns is the
    session's.
    """

    name: str
    metric: Metric
    """What `val_error` and `test_error` are under this task."""
    ends: Ends
    """What its networks take in and give out."""
    fingerprint: str
    """Of the data, for the keys of checkpoints."""
    copies: int
    """Inputs of the network that are made of an example: what it costs more than one pass."""
    compiled: str
    """Why the compiled step cannot train on it; empty if it can: if its loss is the cross-entropy of pooled outputs and
    one class an input, on images of the proxy's resolution."""

    def prepared_by(self, preparation: Preparation) -> Task:
        """The same task on the same data, with batches of another recipe."""
        ...

    def check(self, proxy: Proxy) -> None:
        """Raises Unsupported if nothing can be asked under `proxy`: too few images, too small a side."""
        ...

    def seen(self, proxy: Proxy) -> Proxy:
        """The proxy as the network meets it: where inputs are parts of images, their resolution is smaller."""
        ...

    def session(
        self, network: nn.Module, proxy: Proxy, *, seed: int, device: torch.device, half: bool = False
    ) -> Session:
        """The task with one network.

        Args:
            network: Built for `ends` under `seen(proxy)`, on `device`.
            proxy: Share of the images, and their resolution.
            seed: Of all chance.
            device: Where batches are wanted.
            half: Whether scores are computed in bfloat16.
        """
        ...


class Session(Protocol):
    """A task with one network. All chance is from (seed, epoch, step), and nothing waits for the device."""

    modules: nn.ModuleDict
    """Trained beside the network on the same loss; never an opponent; often empty."""

    def ready(self, part: Part, *, epochs: float = 0) -> None:
        """Have a part of the data at hand, which takes time that nobody is charged for.

        Args:
            part: Which.
            epochs: So many of training will follow, so that what pays off can be prepared; inf: do prepare it.
        """
        ...

    def steps(self, half: Half = "all") -> int:
        """Batches of an epoch."""
        ...

    def batches(self, epoch: int, half: Half = "all") -> Iterator[Batch]:
        """The training batches of an epoch, made one by one as they are asked for."""
        ...

    def held(self, epoch: int, step: int) -> Batch:
        """Of a bilevel search: the batch of the mixture's half for a step of the weights' epoch."""
        ...

    def loss(self, outputs: Tensor, batch: Batch, *, each: bool = False) -> Tensor:
        """The mean over the targets, a scalar; of each example, shape (n,), if `each`."""
        ...

    def wrong(self, outputs: Tensor, batch: Batch) -> Tensor:
        """How many of the batch's answers are wrong: what the metric counts, on the device."""
        ...

    def count(self, part: Part) -> int:
        """Examples of a part, of the proxy's share of the training part."""
        ...

    def look(self, part: Part, places: slice | Tensor) -> Batch:
        """Examples of a part by their places, as `score` sees them; places of "train" are of the whole part."""
        ...

    def draw(self, number: int, *key: int | str) -> Tensor:
        """Places of so many training examples of the proxy's share, drawn without repetition by `key`."""
        ...

    def score(self, part: Part) -> dict[str, float]:
        """`error`, in the metric's unit, and `loss`, with the running statistics of the norms."""
        ...

    def size(self, part: Part) -> int:
        """Passes of one image through the network that `score` takes."""
        ...

    def state(self) -> State:
        """All that has moved and is not the network's: tensors and plain values only."""
        ...

    def load(self, state: State) -> None:
        """Be as it was when `state` was made."""
        ...
