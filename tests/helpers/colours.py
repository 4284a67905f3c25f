"""Coloured images without meaning, and networks for tasks on them."""

from __future__ import annotations

import numpy as np
import torch

from suite.data.images import ImageData
from suite.networks import build
from suite.spaces import SPACES
from suite.training.recipe import Recipe
from suite.types import Proxy

SPACE = SPACES["nas_bench_201"]
CELL = (3, 0, 1, 4, 2, 3)
PROXY = Proxy(2, 4, 32, cells=1)
RECIPE = Recipe(batch_size=8, precision="float32")
CPU = torch.device("cpu")


def coloured(n: int = 48, side: int = 32) -> ImageData:
    """Smooth random colours, without any labels that mean something."""
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.integers(0, 256, (3 * n, 3, 4, 4))).float()
    images = torch.nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(0, 255).to(torch.uint8)
    labels = torch.arange(n) % 4
    parts = zip(("train", "valid", "test"), images.split(n), strict=True)
    named = {f"{part}_images": of_part for part, of_part in parts}
    return ImageData(
        name="colours", classes=4, **named, train_labels=labels, valid_labels=labels, test_labels=labels,
        mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=4, flip=True, fingerprint="colours",
    )  # fmt: skip


def network(task, seed: int = 0):
    return build(SPACE, CELL, task.seen(PROXY), ends=task.ends, seed=seed)
