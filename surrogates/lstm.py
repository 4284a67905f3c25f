"""An LSTM that reads an architecture decision by decision: the predictor of PNAS.

Liu, Zoph, Neumann, Shlens, Hua, Li, Fei-Fei, Yuille, Huang, Murphy. "Progressive Neural Architecture Search". ECCV
2018. https://arxiv.org/abs/1712.00559, section 4.3: an embedding of each token, an LSTM, a linear layer on its last
state; an ensemble of five.

Departures: the output is the scaled target instead of a sigmoid of the accuracy; members see all rows in other orders,
where the paper gives each four fifths of them. A sequence may end early: an option that is nan is left out, so that
networks of fewer blocks can be predicted by a model of more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from suite.types import BadInput
from surrogates.base import Arrays, Floats, Model

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALLEST = 0.1
"""Of the uniform distribution of initial weights, as in the paper."""


@dataclass(kw_only=True)
class LSTM(Model):
    """The mean over members that differ in initial weights and order of the rows."""

    name = "lstm"
    encoding: ClassVar[str] = "options"
    members: int = 5
    hidden: int = 100
    embedding: int = 100
    epochs: int = 60
    batch: int = 32
    lr: float = 0.01

    options_of: int = field(default=0, init=False, repr=False)
    """Options of a decision, at most."""
    networks: list[nn.ModuleDict] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("members", "hidden", "embedding", "epochs", "batch"):
            if getattr(self, key) < 1:
                raise BadInput(f"{self.name}: {key} must be at least 1, not {getattr(self, key)}")

    def learn(self, x: Floats, z: Floats) -> None:
        """Adam on the squared error, each member for itself."""
        import torch

        self.options_of = int(np.nanmax(x)) + 1
        targets = torch.as_tensor(z, dtype=torch.float32)
        tokens, lengths = self.tokens(x)
        self.networks = []
        for member in range(self.members):
            chance = torch.Generator().manual_seed(1_000 * self.seed + member)
            network = self.built(x.shape[1])
            with torch.no_grad():
                for weights in network.parameters():
                    weights.copy_((2 * torch.rand(weights.shape, generator=chance) - 1) * SMALLEST)
            optimizer = torch.optim.Adam(network.parameters(), lr=self.lr)
            steps = self.epochs * -(-len(z) // self.batch)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            for _ in range(self.epochs):
                order = torch.randperm(len(z), generator=chance)
                for some in order.split(self.batch):  # type: ignore[no-untyped-call]
                    optimizer.zero_grad()
                    loss = ((said(network, tokens[some], lengths[some]) - targets[some]) ** 2).mean()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
            self.networks.append(network)

    def built(self, decisions: int) -> nn.ModuleDict:
        """A member with any weights; the global state of chance is left as it was."""
        import torch
        from torch import nn

        with torch.random.fork_rng(devices=[]):
            return nn.ModuleDict(
                {
                    "embedding": nn.Embedding(decisions * self.options_of, self.embedding),
                    "lstm": nn.LSTM(self.embedding, self.hidden, batch_first=True),
                    "head": nn.Linear(self.hidden, 1),
                }
            )

    def tokens(self, x: Floats) -> tuple[Tensor, Tensor]:
        """A number for each decision and option, shape (n, decisions), and the length of each sequence."""
        import torch

        there = np.isfinite(x)
        numbers = np.where(there, np.clip(np.nan_to_num(x), 0, self.options_of - 1), 0).astype(np.int64)
        places = np.arange(x.shape[1]) * self.options_of
        return torch.as_tensor(numbers + places), torch.as_tensor(np.maximum(there.sum(axis=1), 1))

    def centre_and_spread(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and spread of the members."""
        import torch

        tokens, lengths = self.tokens(x)
        with torch.no_grad():
            found = np.stack([said(network, tokens, lengths).double().numpy() for network in self.networks])
        return found.mean(axis=0), found.std(axis=0) + 1e-3

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All weights."""
        held: dict[str, npt.NDArray[Any]] = {"options": np.array(self.options_of)}
        for number, network in enumerate(self.networks):
            held |= {f"{number}/{name}": weights.numpy() for name, weights in network.state_dict().items()}
        return held

    def restore(self, arrays: Arrays) -> None:
        """All weights."""
        import torch

        self.options_of, self.networks = int(arrays["options"]), []
        for number in range(self.members):
            state = {
                key.removeprefix(f"{number}/"): torch.as_tensor(value)
                for key, value in arrays.items()
                if key.startswith(f"{number}/")
            }
            network = self.built(len(state["embedding.weight"]) // self.options_of)
            network.load_state_dict(state)
            self.networks.append(network)


def said(network: nn.ModuleDict, tokens: Tensor, lengths: Tensor) -> Tensor:
    """What a member says of each sequence, shape (n,)."""
    import torch

    states, _ = network["lstm"](network["embedding"](tokens))  # (n, decisions, hidden)
    last: Tensor = states[torch.arange(len(tokens)), lengths - 1]
    answer: Tensor = network["head"](last)[:, 0]
    return answer
