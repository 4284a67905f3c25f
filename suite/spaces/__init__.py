"""Search spaces: what an architecture is. SPACES names them all."""

from __future__ import annotations

from suite.spaces.accel_nasbench import AccelNASBench
from suite.spaces.alexnet import AlexNet
from suite.spaces.base import SearchSpace
from suite.spaces.condensenet import CondenseNet
from suite.spaces.darts import DARTS, DARTSEcoNAS, DARTSEdges
from suite.spaces.mnas import MNAS
from suite.spaces.nas_bench_201 import NASBench201
from suite.spaces.nas_bench_macro import NASBenchMacro
from suite.spaces.nats_bench_size import NATSBenchSize

__all__ = ["SPACES", "SearchSpace"]

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
