"""An ensemble of multi-layer perceptrons, all trained at once, with a squared or a ranking loss; differentiable.

White, Neiswanger, Savani. "BANANAS". AAAI 2021. https://arxiv.org/abs/1910.11858 (ensemble of feed-forward networks)
Xu et al. "Latency-Aware Differentiable Neural Architecture Search". 2020. https://arxiv.org/abs/2001.06392 (a
multi-layer regressor on one-hot rows, whose output is a term of a search's loss)

The ranking loss is a hinge on pairs of a batch: Ning, Zheng, Zhao, Wang, Yang. "A Generic Graph-Based Neural
Architecture Encoding Scheme for Predictor-Based NAS". ECCV 2020. https://arxiv.org/abs/2004.01899. What it learns has
no unit; a line fitted to the targets gives it one.

Departures: width, depth and steps are ours, chosen for samples of 50 to 2,000 networks; BANANAS has five networks of
ten layers of 20.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suite.types import BadInput, nearest
from surrogates.base import Arrays, Floats, Model

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = ("squared", "ranking")
MARGIN = 0.1
"""Of the hinge, in standard deviations of the targets."""


@dataclass(kw_only=True)
class MLP(Model):
    """The mean over members that differ in initial weights and order of the rows."""

    name = "mlp"
    members: int = 5
    widths: tuple[int, ...] = (128, 128)
    """Of the hidden layers."""
    epochs: int = 200
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 1e-3
    loss: str = "squared"
    """"squared" or "ranking"."""

    centres: Floats = field(init=False, repr=False)
    units: Floats = field(init=False, repr=False)
    layers: list[tuple[Tensor, Tensor]] = field(init=False, repr=False)
    """(weights, biases) of each layer, shapes (members, in, out) and (members, 1, out)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.widths = tuple(self.widths)
        if self.loss not in LOSSES:
            raise BadInput(f"{self.name}: no loss {self.loss!r}: {nearest(self.loss, LOSSES)}")
        for key, value in (("members", self.members), ("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                raise BadInput(f"{self.name}: {key} must be at least 1, not {value}")
        if not self.widths or min(self.widths) < 1:
            raise BadInput(f"{self.name}: widths must be whole numbers of at least 1, not {self.widths}")

    def learn(self, x: Floats, z: Floats) -> None:
        """Adam with a cosine schedule."""
        import torch

        x = np.nan_to_num(x)
        self.centres, spread = x.mean(axis=0), x.std(axis=0)
        self.units = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        rows = torch.as_tensor((x - self.centres) * self.units, dtype=torch.float32)
        targets = torch.as_tensor(z, dtype=torch.float32)
        chance = torch.Generator().manual_seed(self.seed)
        self.layers = []
        for before, after in zip((x.shape[1], *self.widths), (*self.widths, 1), strict=True):
            weights = torch.randn(self.members, before, after, generator=chance) * (2 / before) ** 0.5
            self.layers.append((weights.requires_grad_(), torch.zeros(self.members, 1, after, requires_grad=True)))
        parameters = [tensor for layer in self.layers for tensor in layer]
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        steps = -(-len(z) // self.batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * steps)
        for _ in range(self.epochs):
            order = torch.rand(self.members, len(z), generator=chance).argsort(dim=1)  # (members, n)
            for step in range(steps):
                some = order[:, step * self.batch : (step + 1) * self.batch]
                found, wanted = self._members(rows[some]), targets[some]  # (members, batch)
                optimizer.zero_grad()
                if self.loss == "squared":
                    loss = ((found - wanted) ** 2).mean(dim=1).sum()
                else:
                    gap = found[:, :, None] - found[:, None, :]
                    worse = (wanted[:, :, None] > wanted[:, None, :]).float()
                    loss = ((MARGIN - gap).clamp(min=0) * worse).sum() / worse.sum().clamp(min=1)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            if self.loss == "ranking":
                found = self._members(rows.expand(self.members, -1, -1))
                centre, wanted = found.mean(dim=1, keepdim=True), targets - targets.mean()
                slope = ((found - centre) * wanted).sum(dim=1) / ((found - centre) ** 2).sum(dim=1).clamp(min=1e-9)
                weights, biases = self.layers[-1]
                weights *= slope[:, None, None]
                biases.copy_((biases - centre[:, :, None]) * slope[:, None, None] + targets.mean())
        self.layers = [(weights.detach(), biases.detach()) for weights, biases in self.layers]

    def _members(self, rows: Tensor) -> Tensor:
        """What each member says, shape (members, n), of scaled rows, shape (members, n, columns)."""
        import torch

        for number, (weights, biases) in enumerate(self.layers):
            rows = torch.baddbmm(biases, rows, weights)
            if number < len(self.layers) - 1:
                rows = torch.nn.functional.silu(rows)
        return rows[:, :, 0]

    def __call__(self, code: Tensor) -> Tensor:
        """The mean prediction of rows, shape (n, columns), in the unit of the targets; with a gradient."""
        import torch

        centres, units = (torch.as_tensor(array, dtype=code.dtype) for array in (self.centres, self.units))
        rows = ((code - centres) * units).float()
        z = self._members(rows.expand(self.members, -1, -1)).mean(dim=0) * self.scale.spread + self.scale.centre
        return z + self.scale.shift if self.scale.kind == "plain" else z.exp() + self.scale.shift

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and spread of the members."""
        import torch

        rows = torch.as_tensor((np.nan_to_num(x) - self.centres) * self.units, dtype=torch.float32)
        with torch.no_grad():
            found = self._members(rows.expand(self.members, -1, -1)).double().numpy()
        return found.mean(axis=0), found.std(axis=0) + 1e-3

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All weights."""
        held = {"centres": self.centres, "units": self.units}
        for number, (weights, biases) in enumerate(self.layers):
            held |= {f"weights{number}": weights.numpy(), f"biases{number}": biases.numpy()}
        return held

    def restore(self, arrays: Arrays) -> None:
        """All weights."""
        import torch

        self.centres, self.units = arrays["centres"], arrays["units"]
        self.layers = [
            (torch.as_tensor(arrays[f"weights{number}"]), torch.as_tensor(arrays[f"biases{number}"]))
            for number in range(len(self.widths) + 1)
        ]
