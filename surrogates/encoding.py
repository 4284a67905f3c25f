"""Architectures as rows of numbers, for predictors.

An encoder names its parts, joined by +; each part is a function of this file. All of them see the simplified form of
an architecture (`SearchSpace.simplified`), unless the encoder is told to take them as written.

    one_hot    a column for each option of each decision                       any space
    options    the number of each decision's option, for models of sequences   any space
    scale      the option's number, from 0 to 1; its square and differences    any space
    counts     how often each option is chosen, where decisions are alike      any space
    size       logarithms of parameters and multiply-adds                      spaces with a formula
    adjacency  a column for each edge and operation of a cell                  spaces of cells
    paths      which sequences of operations lead from input to output         spaces of cells
    neighbourhoods  Weisfeiler-Lehman: what leads to a node in two steps   spaces of cells
    graph      GRAF: path lengths, degrees and counts under subsets of operations   spaces of cells

White, Neiswanger, Savani. "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search".
AAAI 2021. https://arxiv.org/abs/1910.11858 (paths)
Kadlecova, Lukasik, Pilat, Vidnerova, Safari, Neruda, Hutter. "Surprisingly Strong Performance Prediction with Neural
Graph Features". ICML 2024. https://arxiv.org/abs/2404.16551 (graph)

Departures: paths longer than four operations have no column (BANANAS truncates, too). With more than four operations
the subsets of `graph` are single operations, pairs, all, and all but one or two.
Histograms of `neighbourhoods` are hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from suite.spaces.base import SearchSpace
from suite.types import Architecture, BadInput, Unsupported, nearest

Floats: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = tuple[list[str], Floats]
"""Names, and the columns, shape (n, names)."""
Options: TypeAlias = npt.NDArray[np.int64]

LONGEST_PATH = 4
"""Operations of the longest path that has a column."""
FEW_PATHS = 1_000
"""Columns of paths that a cell may have; longer paths are left out."""
FEW_OPERATIONS = 4
"""Up to here all subsets of operations are looked at."""
STEPS = 2
"""Steps back that a label of `neighbourhoods` sees."""
BUCKETS = 64
"""Columns of `neighbourhoods` for each step and cell."""
KEPT = 200_000
"""Encoded rows that an encoder remembers."""


class Encoder:
    """Turns architectures of one space into rows of numbers.

    Args:
        space: Whose architectures.
        encoding: Parts joined by +, or "auto": all that the space has but adjacency.
        simplified: Whether dead operations are taken away first.
        extra: Further columns by name: a number for each architecture, such as a zero-cost score or the error under a
            cheap proxy; nan where an architecture has none.

    Raises:
        BadInput: There is no such part.
        Unsupported: The space cannot be encoded so.

    >>> from suite.spaces import SPACES
    >>> encoder = Encoder(SPACES["nas_bench_201"], "paths")
    >>> row = encoder([(3, 0, 0, 1, 2, 0)])[0]
    >>> [name for name, there in zip(encoder.names, row) if there]
    ['path skip_connect', 'path nor_conv_3x3 nor_conv_1x1']
    """

    def __init__(
        self, space: SearchSpace, encoding: str = "auto", *, simplified: bool = True,
        extra: Mapping[str, Mapping[Architecture, float]] | None = None,
    ) -> None:  # fmt: skip
        self.space = space
        self.encoding = automatic(space) if encoding == "auto" else encoding
        self.simplified = simplified
        self.extra = dict(extra or {})
        for part in self.encoding.split("+"):
            if part not in ENCODINGS:
                raise BadInput(f"no encoding {part!r}: {nearest(part, ['auto', *ENCODINGS])}")
        self.names: tuple[str, ...] = ()
        """What the columns are."""
        self._place: dict[Architecture, int] = {}
        self._rows: Floats = np.empty((0, 0))
        self([space.at(0)])

    @property
    def label(self) -> str:
        """The encoding as results write it."""
        extra = "".join(f"+{name}" for name in self.extra)
        return f"{self.encoding}{extra}{'' if self.simplified else ' as written'}"

    def __call__(self, archs: Sequence[Architecture]) -> Floats:
        """One row an architecture, shape (n, columns)."""
        new = [arch for arch in dict.fromkeys(archs) if arch not in self._place]
        if len(self._place) + len(new) > KEPT:
            self._place.clear()
            new = list(dict.fromkeys(archs))
        if new:
            rows = self._encoded(new)
            self._rows = np.concatenate([self._rows, rows]) if self._place else rows
            self._place.update(zip(new, range(len(self._place), len(self._place) + len(new)), strict=True))
        return self._rows[[self._place[arch] for arch in archs]]

    def _encoded(self, archs: Sequence[Architecture]) -> Floats:
        """The rows of architectures that were not met before."""
        forms = [self.space.simplified(arch) for arch in archs] if self.simplified else list(archs)
        names: list[str] = []
        columns = []
        for part in self.encoding.split("+"):
            found, values = ENCODINGS[part](self.space, forms)
            names += found
            columns.append(values)
        for name, values_of in self.extra.items():
            names.append(name)
            columns.append(np.array([[values_of.get(arch, np.nan)] for arch in archs]))
        self.names = tuple(names)
        return np.concatenate(columns, axis=1)


def automatic(space: SearchSpace) -> str:
    """The parts that suit a space: graphs and paths of cells, numbers and counts of chains, the size if known."""
    parts = ["graph", "paths", "one_hot"] if space.operations else ["scale", "one_hot", "counts"]
    try:
        space.params(space.at(0), space.full)
    except Unsupported:
        return "+".join(parts)
    return "+".join([*parts, "size"])


def one_hot(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """A column for each option of each decision."""
    options = as_options(space, archs)
    names = [f"decision {place} is {option}" for place, many in enumerate(space.decisions) for option in range(many)]
    columns = [options[:, place, None] == np.arange(many) for place, many in enumerate(space.decisions)]
    return names, np.concatenate(columns, axis=1).astype(np.float64)


def options(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """The number of the option of each decision."""
    return [f"option of decision {place}" for place in range(len(space.decisions))], as_options(space, archs).astype(
        np.float64
    )


def scale(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """Each decision as a number from 0 to 1, the mean over all, and the step from each decision to the next."""
    options = as_options(space, archs)
    numbers = options / np.maximum(np.array(space.decisions) - 1, 1)  # (n, decisions)
    steps = np.diff(numbers, axis=1)
    names = [f"decision {place}" for place in range(numbers.shape[1])]
    names += ["mean of decisions", *(f"step after decision {place}" for place in range(steps.shape[1]))]
    return names, np.concatenate([numbers, numbers.mean(axis=1, keepdims=True), steps], axis=1)


def counts(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """How many decisions with the same number of options choose each option, over all and over each third of them."""
    options = as_options(space, archs)
    names: list[str] = []
    columns: list[Floats] = []
    for many in sorted(set(space.decisions)):
        places = np.flatnonzero(np.array(space.decisions) == many)
        parts = {"all": places} | {f"part {i}": part for i, part in enumerate(np.array_split(places, 3)) if len(part)}
        for where, part in parts.items():
            for option in range(many):
                names.append(f"{option} of {many} in {where}")
                columns.append((options[:, part] == option).sum(axis=1).astype(np.float64))
    return names, np.stack(columns, axis=1)


def size(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """Logarithms of parameters and multiply-adds at the full setting."""
    values = [[space.params(arch, space.full), space.macs(arch, space.full)] for arch in archs]
    return ["log params", "log macs"], np.log(np.array(values, dtype=np.float64).reshape(-1, 2))


def adjacency(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """The number of edges between two nodes with an operation, where any architecture of the space can have one."""
    edges = space.adjacency(archs)  # (n, cells, nodes, nodes, operations)
    names, columns = [], []
    for cell, start, end, operation in product(*map(range, edges.shape[1:])):
        if start < end and end >= space.inputs:
            names.append(f"cell {cell}: {space.operations[operation]} from {start} to {end}")
            columns.append(edges[:, cell, start, end, operation])
    return names, np.stack(columns, axis=1).astype(np.float64)


def paths(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """Whether a sequence of operations leads from an input to the output."""
    edges = space.adjacency(archs) > 0
    n, cells, nodes = edges.shape[:3]
    steps = [number for number, name in enumerate(space.operations) if name != "output"]
    operations, ends = len(steps), space.operations.index("output") if "output" in space.operations else None
    longest, room = 0, 0
    while longest < min(LONGEST_PATH, nodes - 1) and room + operations ** (longest + 1) <= FEW_PATHS:
        longest += 1
        room += operations**longest
    names, columns = [], []
    for cell in range(cells):
        here = f"cell {cell} " if cells > 1 else ""
        reached: dict[tuple[int, ...], npt.NDArray[np.bool_]] = {(): np.zeros((n, nodes), dtype=bool)}
        reached[()][:, : space.inputs] = True
        for _ in range(longest):
            reached = {
                (*path, step): np.any(at[:, :, None] & edges[:, cell, :, :, operation], axis=1)
                for path, at in reached.items()
                for step, operation in enumerate(steps)
            }
            for path, at in reached.items():
                names.append(f"{here}path {' '.join(space.operations[steps[step]] for step in path)}")
                arrives = at[:, -1] if ends is None else (at & edges[:, cell, :, -1, ends]).any(axis=1)
                columns.append(arrives)
    return names, np.stack(columns, axis=1).astype(np.float64)


def neighbourhoods(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """How often each Weisfeiler-Lehman label is in a cell: a node's is made of operations and labels that lead to it.

    Step 0 counts operations.

    Shervashidze et al. "Weisfeiler-Lehman Graph Kernels". JMLR 12, 2011; for architectures: Ru, Wan, Dong, Osborne.
    "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman Kernels". ICLR 2021.
    """
    edges = space.adjacency(archs)
    n, cells, nodes = edges.shape[:3]
    columns = np.zeros((n, cells, STEPS + 1, BUCKETS))
    for row, cell in product(range(n), range(cells)):
        into: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
        for start, end, operation in zip(*np.nonzero(edges[row, cell]), strict=True):
            into[int(end)].append((int(operation), int(start)))
            columns[row, cell, 0, operation] += 1
        labels = ["input" if node < space.inputs else "node" for node in range(nodes)]
        for step in range(1, STEPS + 1):
            labels = [
                ",".join(sorted(f"{operation}({labels[start]})" for operation, start in arriving)) or "input"
                for arriving in into
            ]
            for node in range(nodes):
                if into[node]:
                    columns[row, cell, step, crc32(labels[node].encode()) % BUCKETS] += 1
    names = [
        f"cell {cell} step{step} label {bucket}"
        for cell, step, bucket in product(range(cells), range(STEPS + 1), range(BUCKETS))
    ]
    return names, columns.reshape(n, -1)


def graph(space: SearchSpace, archs: Sequence[Architecture]) -> Columns:
    """Shortest and longest paths, degrees and counts of a cell with only a subset of the operations."""
    edges = space.adjacency(archs)
    cells, nodes = edges.shape[1:3]
    always = [number for number, name in enumerate(space.operations) if name == "output"]
    steps = [number for number in range(len(space.operations)) if number not in always]
    names: list[str] = []
    columns: list[Floats] = []
    for cell in range(cells):
        here = f"cell {cell} " if cells > 1 else ""
        for subset in subsets(steps):
            label = here + "|".join(space.operations[number] for number in subset)
            of_steps = edges[:, cell][..., list(subset)].sum(axis=-1)  # (n, nodes, nodes)
            allowed = (of_steps > 0) | (edges[:, cell][..., always].sum(axis=-1) > 0)
            whole = edges[:, cell].sum(axis=-1) > 0
            shortest, longest = path_lengths(allowed, space.inputs)
            fewest, most = path_lengths(whole, space.inputs, of_steps > 0)
            inner = slice(space.inputs, nodes - 1)
            names += [f"{what} of {label}" for what in GRAPH]
            columns += [
                shortest,
                longest,
                fewest,
                most,
                of_steps[:, : space.inputs].sum(axis=(1, 2)),
                of_steps[:, :, -1].sum(axis=1) if not always else (of_steps.sum(axis=2) > 0).sum(axis=1),
                of_steps[:, :, inner].sum(axis=(1, 2)),
                of_steps.sum(axis=(1, 2)),
            ]
    return names, np.stack(columns, axis=1).astype(np.float64)


GRAPH = (
    "shortest path",
    "longest path",
    "least on a path",
    "most on a path",
    "degree of input",
    "degree of output",
    "degree of inner nodes",
    "count",
)


def subsets(operations: Sequence[int]) -> list[tuple[int, ...]]:
    """The subsets of operations that `graph` looks at, small ones first."""
    every = len(operations)
    lengths = range(1, every + 1) if every <= FEW_OPERATIONS else (1, 2, every - 2, every - 1, every)
    return [subset for length in lengths for subset in combinations(operations, length)]


def path_lengths(
    allowed: npt.NDArray[np.bool_], inputs: int, lengths: npt.NDArray[np.bool_] | None = None
) -> tuple[Floats, Floats]:
    """Length of the shortest and of the longest path from an input to the last node, each shape (n,).

    Where there is no path the shortest is as long as there are nodes, and the longest is 0.

    Args:
        allowed: Which edges there are, shape (n, nodes, nodes).
        inputs: The first nodes, where paths begin.
        lengths: Which edges count, likewise; None: all.
    """
    n, nodes = allowed.shape[:2]
    steps = np.ones((n, nodes, nodes)) if lengths is None else lengths.astype(np.float64)
    shortest = np.full((n, nodes), np.inf)
    longest = np.full((n, nodes), -np.inf)
    shortest[:, :inputs] = longest[:, :inputs] = 0
    for end in range(inputs, nodes):
        come, step = allowed[:, :end, end], steps[:, :end, end]
        shortest[:, end] = np.where(come, shortest[:, :end] + step, np.inf).min(axis=1)
        longest[:, end] = np.where(come, longest[:, :end] + step, -np.inf).max(axis=1)
    return np.minimum(shortest[:, -1], nodes), np.maximum(longest[:, -1], 0)


def as_options(space: SearchSpace, archs: Sequence[Architecture]) -> Options:
    """The architectures as an array, shape (n, decisions)."""
    return np.asarray(archs, dtype=np.int64).reshape(-1, len(space.decisions))


ENCODINGS: dict[str, Callable[[SearchSpace, Sequence[Architecture]], Columns]] = {
    "one_hot": one_hot,
    "options": options,
    "scale": scale,
    "counts": counts,
    "size": size,
    "adjacency": adjacency,
    "paths": paths,
    "neighbourhoods": neighbourhoods,
    "graph": graph,
}
