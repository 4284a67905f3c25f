"""Facts that all publications of NAS-Bench-201 share: data sets, numbers of images, sizes of the networks.

Dong, Yang. "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search". ICLR 2020, section 2.2
and appendix. https://arxiv.org/abs/2001.00326
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from suite.spaces import SPACES
from suite.tables.base import Array
from suite.types import Ends, Proxy

SPACE = SPACES["nas_bench_201"]
DEVICE = "table:GTX 1080 Ti"
"""The device that the benchmark's seconds were measured on."""
BACKWARD = 2
"""A backward pass counts as so many forward passes, as in live training."""


@dataclass(frozen=True)
class Dataset:
    """One of the benchmark's data sets, in its own splits."""

    name: str
    classes: int
    resolution: int
    train_images: dict[str, int]
    """Images that the network was trained on which this split scores."""
    images: dict[str, int]
    """Number of images in the split."""

    @property
    def ends(self) -> Ends:
        """The inputs and outputs of a network that tells its classes apart."""
        return Ends(3, self.classes)

    def proxy(self, epochs: int) -> Proxy:
        """The benchmark's recipe under its schedule of so many epochs."""
        return Proxy(epochs, SPACE.full.channels, self.resolution)


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("cifar10", 10, 32, {"valid": 25_000, "test": 50_000}, {"valid": 25_000, "test": 10_000}),
        Dataset("cifar100", 100, 32, {"valid": 50_000, "test": 50_000}, {"valid": 5_000, "test": 5_000}),
        Dataset("imagenet16-120", 120, 16, {"valid": 151_700, "test": 151_700}, {"valid": 3_000, "test": 3_000}),
    )
}


def spent_macs(macs: Array | float, dataset: str, split: str, stage: int) -> Array:
    """Multiply-adds of training to `stage` and scoring the split once."""
    facts = DATASETS[dataset]
    return np.asarray(macs) * ((1.0 + BACKWARD) * stage * facts.train_images[split] + facts.images[split])


@cache
def texts() -> Array:
    """Cell strings of all 15,625, in the order of `index`."""
    return np.array([SPACE.text(arch) for arch in SPACE], dtype=object)


@cache
def sizes(dataset: str) -> tuple[Array, Array]:
    """(parameters, multiply-adds) of all 15,625 by the closed form, in the order of `index`."""
    facts = DATASETS[dataset]
    proxy = facts.proxy(SPACE.full.epochs)
    params = [SPACE.params(arch, proxy, ends=facts.ends) for arch in SPACE]
    macs = [SPACE.macs(arch, proxy, ends=facts.ends) for arch in SPACE]
    return np.array(params, dtype=np.float64), np.array(macs, dtype=np.float64)
