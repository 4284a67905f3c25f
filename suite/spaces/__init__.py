"""Search spaces: what an architecture is. SPACES names them all, `named` finds joint ones too."""

from __future__ import annotations

from suite.spaces.accel_nasbench import AccelNASBench
from suite.spaces.alexnet import AlexNet
from suite.spaces.base import SearchSpace
from suite.spaces.condensenet import CondenseNet
from suite.spaces.darts import DARTS, DARTSEcoNAS, DARTSEdges
from suite.spaces.joint import JOIN, Choice, Joint
from suite.spaces.mnas import MNAS
from suite.spaces.nas_bench_201 import NASBench201
from suite.spaces.nas_bench_macro import NASBenchMacro
from suite.spaces.nats_bench_size import NATSBenchSize
from suite.types import BadInput, nearest

__all__ = ["SPACES", "SearchSpace", "named"]

SPACES: dict[str, SearchSpace] = {
    space.name: space
    for space in (
        NASBench201(),
        DARTS(),
        DARTSEcoNAS(),
        DARTSEdges(),
        MNAS(),
        AlexNet(),
        CondenseNet(),
        NATSBenchSize(),
        NASBenchMacro(),
        AccelNASBench(),
    )
}


def named(name: str) -> SearchSpace:
    """The space of this name: a registered one, or a joint one whose name says its choices.

    Raises:
        BadInput: There is none.

    >>> named("nas_bench_macro + batch_size=32,64").size
    13122
    """
    if name in SPACES:
        return SPACES[name]
    first, *choices = name.split(JOIN)
    if first not in SPACES:
        raise BadInput(f"no space {first!r}: {nearest(first, SPACES)}")
    return Joint(SPACES[first], list(map(Choice.read, choices)))
