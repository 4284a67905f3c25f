"""Networks as rows of blocks, whose weights can be taken out and put into another network.

Liu et al. "FNAS: Uncertainty-Aware Fast Neural Architecture Search". 2021. https://arxiv.org/abs/2105.11694: its pool
holds weights by block; position, operation, widths and stride are the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from suite.spaces import SearchSpace
from suite.spaces import nas_bench_201 as cells
from suite.types import Architecture, Ends, Proxy, Unsupported

Key = tuple[str, str, int, int, float, str, int, int, int]

BLOCKS: dict[str, str] = {
    "nas_bench_201": "suite.networks.blocks:nas_bench_201",
    "mnas": "suite.networks.mnas:blocks",
}
"""Search space to "module:function" with the signature (arch, proxy, *, ends) -> list[Block]."""


@dataclass(frozen=True)
class Block:
    """A part of a network: what it is, and where its weights are."""

    position: str
    """block0 ..., stage0.edge3 ..., stem, head, classifier: of one network, each is there once."""
    op: str
    kernel: int = 1
    """1 where there is none."""
    expansion: int = 1
    se: float = 0.0
    skip: str = "none"
    c_in: int = 0
    """Channels that arrive at the first layer."""
    c_out: int = 0
    stride: int = 1
    layers: tuple[str, ...] = ()
    """Of each layer, how the names of its tensors begin in the network's `state_dict`, in order.

    The rest of a name says what the tensor is: the same in every layer, and in every operation that has such a part.
    """

    @property
    def key(self) -> Key:
        """All but the layers."""
        return (
            self.position, self.op, self.kernel, self.expansion, self.se, self.skip, self.c_in, self.c_out, self.stride
        )  # fmt: skip


def blocks(
    space: SearchSpace, arch: Architecture, proxy: Proxy, *, ends: Ends
) -> list[Block]:  # fmt: skip
    """The blocks of a network that have weights, from the images on; each tensor belongs to one layer of one block.

    Args:
        space: Where `arch` is from.
        arch: An architecture of `space`.
        proxy: Its channels and cells are the network's width and depth.
        ends: What goes in and comes out.

    Raises:
        BadInput: `arch` is none of `space`.
        Unsupported: The networks of the space are not taken apart, or there are none under `proxy`.

    >>> from suite.spaces import SPACES
    >>> space, proxy = SPACES["nas_bench_201"], Proxy(12, channels=8, resolution=16, cells=2)
    >>> found = blocks(space, (0, 0, 0, 3, 0, 0), proxy, ends=Ends(3, 10))
    >>> ", ".join(block.position for block in found)
    'stem, stem_norm, stage0.edge3, reduction1, stage1.edge3, reduction2, stage2.edge3, norm, classifier'
    >>> found[2].layers
    ('cells.0.edge3.nor_conv_3x3.', 'cells.1.edge3.nor_conv_3x3.')
    """
    space.check(arch)
    space, arch = space.part(arch)
    if space.name not in BLOCKS:
        raise Unsupported(f"{space.name}: its networks are not taken apart in blocks; those of {', '.join(BLOCKS)} are")
    space.check_proxy(proxy)
    module, function = BLOCKS[space.name].split(":")
    found: list[Block] = getattr(import_module(module), function)(arch, proxy, ends=ends)
    return found


def nas_bench_201(arch: Architecture, proxy: Proxy, *, ends: Ends) -> list[Block]:
    """Of a network of NAS-Bench-201: an edge's operation in all cells of a stage is a block, its layers those cells."""
    depth = cells.NASBench201().depth(proxy)
    width = proxy.channels
    found = [
        Block("stem", "stem", 3, c_in=ends.inputs, c_out=width, layers=("stem.",)),
        Block("stem_norm", "norm", c_in=width, c_out=width, layers=("stem_norm.",)),
    ]
    for stage in range(cells.STAGES):
        first = stage * (depth + 1)  # of the stage's cells: a reduction stands before each stage but the first
        if stage:
            name = f"cells.{first - 1}."
            found.append(
                Block(f"reduction{stage}", "reduction", 3, c_in=width, c_out=2 * width, stride=2, layers=(name,))
            )
            width *= 2
        for decision, option in enumerate(arch):
            op = cells.OPERATIONS[option]
            if op in cells.KERNEL_AREA:
                layers = tuple(f"cells.{number}.edge{decision}.{op}." for number in range(first, first + depth))
                kernel = round(cells.KERNEL_AREA[op] ** 0.5)
                found.append(Block(f"stage{stage}.edge{decision}", op, kernel, c_in=width, c_out=width, layers=layers))
    return [
        *found,
        Block("norm", "norm", c_in=width, c_out=width, layers=("norm.",)),
        Block("classifier", "classifier", c_in=width, c_out=ends.outputs, layers=("classifier.",)),
    ]
