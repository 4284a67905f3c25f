"""The knowledge pool: weights of trained blocks, from which the networks of later trials start.

Liu et al. "FNAS: Uncertainty-Aware Fast Neural Architecture Search". 2021. https://arxiv.org/abs/2105.11694: AKP.

A folder: `journal.jsonl`, append-only, says which block's weights stand in which file; each trained network leaves one
file under `weights/`. What was trained since the last commit can be read after the next one, by this search and by all
that begin later; so networks of one batch start from the same weights, whatever their order. docs/stores.md has the
format and the rules.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from suite.networks import build
from suite.networks.blocks import Block, Key, blocks
from suite.records.journal import Journal
from suite.spaces import SearchSpace
from suite.types import JSON, BadInput, Ends, KendallError, Proxy, Trial

VERSION = 1
MAGIC = b"kendall weights 1 "
SEEDS = "seeds"
"""The run of entries that nobody has trained."""
CACHED = 64
"""Number of weight files that are held in memory."""

Layers: TypeAlias = list[dict[str, Tensor]]
"""Tensors of each layer of a block, by the rest of their names."""


@dataclass(frozen=True)
class Entry:
    """Where the weights of a block are."""

    key: Key
    file: str
    sha256: str
    version: int
    trained: bool
    """Whether some network was trained with it; False: its initial weights."""


class WeightPool:
    """Block weights of a folder, as one search sees them.

    Args:
        folder: Made if there is none.
        space: Whose blocks; a pool holds one space's.
        proxy: Of the networks that fill it at its beginning.
        ends: Likewise.
        run: All that this search depends on: the same name goes on where it was.

    Raises:
        BadInput: The folder is of another space or version, is damaged, or cannot be written.
        Unsupported: The networks of the space are not taken apart in blocks.
    """

    def __init__(self, folder: Path, space: SearchSpace, proxy: Proxy, *, ends: Ends, run: str) -> None:
        blocks(space, space.at(0), proxy, ends=ends)  # refused before it is made
        self.open(folder, space, run)
        if self.first is None:
            self.fill(proxy, ends=ends)
            self.journal.append([{"run": run, "begins": self.latest}])
        assert self.first is not None
        self.trained_before = len({entry.file for entry in self.entries(self.first).values() if entry.trained})
        self.move(0)

    def open(self, folder: Path, space: SearchSpace, run: str) -> None:
        """Read the journal of the pool's folder."""
        self.folder, self.space, self.run = folder, space, run
        self.journal = Journal(folder / "journal.jsonl", "weight pool", VERSION, {"space": space.name})
        self.weights = folder / "weights"
        try:
            self.weights.mkdir(exist_ok=True)
            (folder / "positions").mkdir(exist_ok=True)
        except OSError as error:
            raise BadInput(f"{folder}: cannot hold weights ({error.strerror}); name another folder") from None
        self.name = digest(run)
        self.cache: dict[str, dict[Key, Layers]] = {}
        self.folded: tuple[int, dict[Key, Entry]] = (0, {})
        self.hits: Counter[bool] = Counter()
        """Blocks that had a donor, and that had none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return attached, (self.folder, self.space, self.run)

    # Versions

    @property
    def first(self) -> int | None:
        """The version that this search began with; None: it has not begun."""
        return next((row["begins"] for row in self.journal.rows if self.of_run(row) and "begins" in row), None)

    @property
    def latest(self) -> int:
        """The last version that anyone has committed; 0: none."""
        return sum("version" in row for row in self.journal.rows)

    def of_run(self, row: JSON) -> bool:
        """Whether a row is of this search."""
        return row.get("run") == self.run

    def commits(self) -> list[JSON]:
        """Commits of this search, as the journal has them."""
        return [row for row in self.journal.rows if self.of_run(row) and "version" in row]

    @property
    def number(self) -> int:
        """Commits of this search so far: where it stands, though the journal may know what comes next."""
        try:
            return int(self.position.read_text())
        except (OSError, ValueError):
            raise BadInput(f"{self.position}: missing or damaged; run the same command again") from None

    @property
    def position(self) -> Path:
        """A file, so that the processes of an engine stand where the search stands."""
        return self.folder / "positions" / self.name

    @property
    def version(self) -> int:
        """The version that is read now: the last version that this search has committed, or the one it began with."""
        number = self.number
        if number > len(self.commits()):
            self.journal.refresh()
        version = self.commits()[number - 1]["version"] if number else self.first
        assert isinstance(version, int)
        return version

    def move(self, number: int) -> None:
        """Stand after so many commits."""
        temporary = self.position.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(str(number))
            os.replace(temporary, self.position)
        except OSError as error:
            raise BadInput(f"{self.position}: {error.strerror}; make room and run the same command again") from None

    def commit(self) -> None:
        """Make what was trained since the last commit readable; of one block the most accurate network's.

        A commit that the journal has already, of a search that goes through its log again, only moves on.

        Raises:
            BadInput: The journal has a commit of this name with other networks, or cannot be written.
        """
        number = self.number
        self.journal.refresh()
        prefix = f"{self.name}-{number + 1}-"
        staged = sorted(path.name for path in self.weights.glob(f"{prefix}*.pt"))
        done = self.commits()
        if number < len(done):
            if not set(staged) <= set(done[number]["networks"]):
                raise BadInput(
                    f"{self.folder}: commit {number + 1} of {self.run} holds other networks: another search had this "
                    "name; choose another folder or name"
                )
        else:
            chosen: dict[Key, tuple[float, str]] = {}
            digests = {}
            for file in staged:
                content, digests[file] = self.read(file)
                for key in content["blocks"]:
                    rival = chosen.get(key)
                    if rival is None or (content["val_error"], file) < rival:
                        chosen[key] = content["val_error"], file
            entries = [[*key, file, digests[file]] for key, (_, file) in sorted(chosen.items())]
            row = {"version": self.latest + 1, "run": self.run, "networks": staged, "entries": entries}
            self.journal.append([row])
            for file in set(staged) - {file for _, file in chosen.values()}:
                with contextlib.suppress(OSError):
                    (self.weights / file).unlink()
        self.move(number + 1)

    def entries(self, version: int) -> dict[Key, Entry]:
        """The latest of each block up to a version."""
        upto, held = self.folded
        if version == upto:
            return held
        if version < upto:
            upto, held = 0, {}
        held = dict(held)
        for row in self.journal.rows:
            if upto < row.get("version", 0) <= version:
                try:
                    for *key, file, sha256 in row["entries"]:
                        entry = Entry(as_key(key), file, sha256, row["version"], row["run"] != SEEDS)
                        held[entry.key] = entry
                except (KeyError, TypeError, ValueError) as error:
                    where = f"{self.journal.path}: version {row['version']}"
                    raise BadInput(f"{where} is none: {type(error).__name__}: {error}; repair or move it") from None
        self.folded = version, held
        return held

    # Files

    def read(self, file: str, sha256: str | None = None) -> tuple[dict[str, Any], str]:
        """The content of a file, checked against its own hash and that of the journal; with its hash.

        Raises:
            BadInput: It is missing or damaged.
        """
        path = self.weights / file
        try:
            header, _, payload = path.read_bytes().partition(b"\n")
            found = hashlib.sha256(payload).hexdigest()
            if header != MAGIC + found.encode() or sha256 not in (None, found):
                raise ValueError("its contents do not match its checksum")
            content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            content["blocks"] = {as_key(key): layers for key, layers in content["blocks"]}
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}; the pool is not whole, choose another folder") from None
        except Exception as error:  # whatever a damaged file makes torch.load raise
            raise BadInput(f"{path}: damaged weights ({error}); choose another folder for the pool") from None
        return content, found

    def write(self, file: str, val_error: float, content: Sequence[tuple[Key, Layers]]) -> str:
        """One network's blocks, there in full or not at all; the hash."""
        buffer = io.BytesIO()
        torch.save({"val_error": val_error, "blocks": [(list(key), layers) for key, layers in content]}, buffer)
        payload = buffer.getvalue()
        found = hashlib.sha256(payload).hexdigest()
        path = self.weights / file
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            with temporary.open("wb") as opened:
                opened.write(MAGIC + found.encode() + b"\n" + payload)
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise BadInput(f"{path}: cannot be written ({error.strerror}); free or change the folder") from None
        return found

    def layers(self, entry: Entry) -> Layers:
        """The weights of an entry."""
        if entry.file not in self.cache:
            while len(self.cache) >= CACHED:
                del self.cache[next(iter(self.cache))]
            self.cache[entry.file] = self.read(entry.file, entry.sha256)[0]["blocks"]
        return self.cache[entry.file][entry.key]

    # What a trial gets and gives

    def fill(self, proxy: Proxy, *, ends: Ends) -> None:
        """Initial weights of every operation at every position that has none, so that there always is a donor."""
        held = {(key[0], key[1], key[8]) for key in self.entries(self.latest)}
        entries = []
        for option in range(max(self.space.decisions)):
            arch = tuple(min(option, options - 1) for options in self.space.decisions)
            try:
                missing = [
                    block
                    for block in blocks(self.space, arch, proxy, ends=ends)
                    if (block.position, block.op, block.stride) not in held
                ]
                if not missing:
                    continue
                network = build(self.space, arch, proxy, ends=ends, seed=0)
            except KendallError:  # no architecture of the space, or none of this proxy
                continue
            content = [(block.key, taken(block, network.state_dict())) for block in missing]
            file = f"{SEEDS}-{digest(repr((proxy, ends.outputs, ends.inputs, arch)))}.pt"
            sha256 = self.write(file, math.inf, content)
            entries += [[*key, file, sha256] for key, _ in content]
            held |= {(block.position, block.op, block.stride) for block in missing}
        if entries:
            row = {"version": self.latest + 1, "run": SEEDS, "networks": [], "entries": entries}
            self.journal.append([row])

    def donor(self, block: Block) -> Entry | None:
        """The most similar trained block of the same position and stride, the most recent of equals.

        Initial weights give way to every trained block. None: nothing is known of the position.
        """
        return best(block, self.entries(self.version).values())

    def inherit(self, network: nn.Module, trial: Trial, *, ends: Ends) -> None:
        """Give a network, as it was built for `trial`, the weights of its blocks' donors.

        Raises:
            BadInput: A file of weights is missing or damaged.
        """
        state, held = network.state_dict(), self.entries(self.version)
        for block in blocks(self.space, trial.arch, trial.proxy, ends=ends):
            entry = best(block, held.values())
            self.hits[entry is not None] += 1
            if entry is not None:
                transfer(self.layers(entry), block, state)

    def stage(self, network: nn.Module, trial: Trial, val_error: float, *, ends: Ends) -> None:
        """Keep what a network has learnt for the next commit; on disk on return.

        Blocks that took no part in the training, on edges that do not reach the output, are left out.

        Raises:
            BadInput: It cannot be written.
        """
        number, done = self.number, self.commits()
        file = f"{self.name}-{number + 1}-{digest(repr(trial.whole))}.pt"
        if number < len(done) and file in done[number]["networks"]:
            return  # it was committed, and is trained again since its answer was lost
        state, idle = network.state_dict(), unmoved(network)
        every = blocks(self.space, trial.arch, trial.proxy, ends=ends)
        moved = [block for block in every if not took_no_part(block, state, idle)]
        self.write(file, val_error, [(block.key, taken(block, state)) for block in moved])

    @property
    def note(self) -> str:
        """The pool in a few words, for a leaderboard."""
        return f"weight pool began with blocks of {self.trained_before} trained networks"


def attached(folder: Path, space: SearchSpace, run: str) -> WeightPool:
    """The pool of a search that has begun, in another process: it stands where the search stands."""
    pool = WeightPool.__new__(WeightPool)
    pool.open(folder, space, run)
    return pool


def as_key(fields: Sequence[Any]) -> Key:
    """A key that JSON has made a list of, as a tuple.

    Raises:
        ValueError: There are not nine.
    """
    position, op, kernel, expansion, se, skip, c_in, c_out, stride = fields
    return str(position), str(op), int(kernel), int(expansion), float(se), str(skip), int(c_in), int(c_out), int(stride)


def digest(text: str) -> str:
    """A short name for a file."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def best(block: Block, entries: Iterable[Entry]) -> Entry | None:
    """The best donor of a block, as `donor` defines it."""
    fitting = [entry for entry in entries if (entry.key[0], entry.key[8]) == (block.position, block.stride)]

    def rank(entry: Entry) -> tuple[bool, float, int]:
        return entry.trained, round(similarity(block.key, entry.key), 9), entry.version

    return max(fitting, key=rank, default=None)


def taken(block: Block, state: Mapping[str, Tensor]) -> Layers:
    """Copies of a block's tensors, layer by layer, on the CPU."""
    return [
        {
            name.removeprefix(prefix): tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        for prefix in block.layers
    ]


def unmoved(network: nn.Module) -> set[str]:
    """Convolutions and classifiers that the last training step gave no gradient; none where no step was seen."""
    weights = {name: weight for name, weight in network.named_parameters() if weight.dim() > 1}
    if all(weight.grad is None for weight in weights.values()):
        return set()
    return {name for name, weight in weights.items() if weight.grad is None or not bool(weight.grad.any())}


def took_no_part(block: Block, state: Mapping[str, Tensor], idle: set[str]) -> bool:
    """Whether a block has convolutions and none of them was trained."""
    weights = [name for name, tensor in state.items() if name.startswith(block.layers) and tensor.dim() > 1]
    return bool(weights) and idle.issuperset(weights)


def features(key: Key) -> dict[str, float]:
    """Features that two blocks are compared by; the operation counts twice."""
    _, op, kernel, expansion, se, skip, c_in, c_out, _ = key
    return {
        f"op {op}": 2.0,
        f"skip {skip}": 1.0,
        "kernel": kernel / 7,
        "expansion": expansion / 6,
        "se": se,
        "c_in": math.log2(max(1, c_in)) / 10,
        "c_out": math.log2(max(1, c_out)) / 10,
    }


def similarity(one: Key, other: Key) -> float:
    """Cosine of their features.

    >>> conv = ("stage0.edge1", "nor_conv_3x3", 3, 1, 0.0, "none", 8, 8, 1)
    >>> round(similarity(conv, conv), 9), similarity(conv, (*conv[:6], 16, 16, 1)) < 1
    (1.0, True)
    """
    a, b = features(one), features(other)
    dot = sum(value * b.get(word, 0.0) for word, value in a.items())
    return dot / math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))


@torch.no_grad()
def transfer(donor: Layers, block: Block, state: Mapping[str, Tensor]) -> None:
    """Write a donor's weights into a network's tensors: the channels that both have, the centre of the kernels.

    What only the block has stays as it was initialised. A deeper block repeats the donor's last layer.
    """
    for place, prefix in enumerate(block.layers):
        given = donor[min(place, len(donor) - 1)]
        for name, tensor in state.items():
            source = given.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
            if source is not None and source.dim() == tensor.dim():
                common = list(map(overlap, range(tensor.dim()), tensor.shape, source.shape))
                part = source[tuple(there for _, there in common)]
                tensor[tuple(here for here, _ in common)] = part.to(tensor.device, tensor.dtype)


def overlap(dimension: int, here: int, there: int) -> tuple[slice, slice]:
    """The overlap of two sizes: the first channels, in the first two dimensions; the middle of a kernel.

    >>> overlap(0, 8, 16), overlap(2, 3, 1)
    ((slice(0, 8, None), slice(0, 8, None)), (slice(1, 2, None), slice(0, 1, None)))
    """
    size = min(here, there)
    if dimension < 2:
        return slice(0, size), slice(0, size)
    a, b = (here - size) // 2, (there - size) // 2
    return slice(a, a + size), slice(b, b + size)
