"""Networks of search spaces, as torch modules. NETWORKS names the spaces that have them."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from suite.networks.operations import initialise
from suite.spaces import SearchSpace
from suite.types import Architecture, Ends, Proxy, Unsupported

__all__ = ["NETWORKS", "build"]

NETWORKS: dict[str, str] = {
    "nas_bench_201": "suite.networks.nas_bench_201:network",
    "darts": "suite.networks.darts:darts",
    "darts_econas": "suite.networks.darts:econas",
    "darts_econas_all": "suite.networks.darts:econas_all",
    "darts_edges": "suite.networks.darts:edges",
    "mnas": "suite.networks.mnas:network",
    "alexnet": "suite.networks.alexnet:network",
    "condensenet": "suite.networks.condensenet:network",
}
"""Search space to "module:function" with the signature (arch, proxy, *, ends) -> nn.Module."""


def build(
    space: SearchSpace, arch: Architecture, proxy: Proxy,
    *, ends: Ends, seed: int | None, skip_dead_edges: bool = False,
) -> nn.Module:  # fmt: skip
    """The network of `arch` under `proxy` on the CPU, its initial weights drawn from `seed` alone.

    Args:
        space: Where `arch` is from.
        arch: An architecture of `space`.
        proxy: Its channels and cells are the network's width and depth.
        ends: What goes in and comes out.
        seed: Of the initial weights; None leaves the network without any (on the meta device), to look at its shapes.
        skip_dead_edges: Compute only what can reach the output (`suite.networks.dead_edges`); by default every
            operation is computed, as in the papers.

    Raises:
        BadInput: `arch` is none of `space`.
        Unsupported: The space has no networks, or not under `proxy`.

    >>> from suite.spaces import SPACES
    >>> space, arch, proxy = SPACES["nas_bench_201"], (3, 0, 1, 4, 2, 3), Proxy(epochs=1, channels=4, resolution=8)
    >>> network = build(space, arch, proxy, ends=Ends(1, 10), seed=0)
    >>> sum(weight.numel() for weight in network.parameters()) == space.params(arch, proxy, ends=Ends(1, 10))
    True
    """
    space.check(arch)
    space, arch = space.part(arch)
    if space.name not in NETWORKS:
        raise Unsupported(f"{space.name}: no networks to train; there are some for {', '.join(NETWORKS)}")
    space.check_proxy(proxy)
    module, function = NETWORKS[space.name].split(":")
    with torch.device("meta"):  # nothing is drawn here, so torch's global generator stays where it is
        network: nn.Module = getattr(import_module(module), function)(arch, proxy, ends=ends)
    if seed is not None:
        network.to_empty(device="cpu")
        initialise(network, seed)
    if skip_dead_edges:
        network.skip_dead_edges = True  # type: ignore[assignment]
    return network
