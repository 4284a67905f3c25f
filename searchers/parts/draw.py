"""Drawing architectures that were not drawn before."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from suite.spaces import SearchSpace
from suite.types import Architecture

TRIES = 1000
"""So many draws in vain, and the rest of the space is listed instead."""


def unseen(space: SearchSpace, rng: np.random.Generator, seen: Container[Architecture]) -> Architecture | None:
    """An architecture that is not in `seen`, all others equally likely; None if there is no other."""
    for _ in range(TRIES):
        arch = space.sample(rng)
        if arch not in seen:
            return arch
    left = [arch for arch in space if arch not in seen]
    return left[int(rng.integers(len(left)))] if left else None
