"""A network as a program for `suite.training.compiled.kernels`: its training step and its evaluation on one CPU core.

The program computes the network without dead edges (`suite.networks.dead_edges`), with the same weights under the same
names; its sums have another order than torch's, so results differ in the last bits at first, and as two seeds do at the
end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from suite.networks.dead_edges import Zero, reaching
from suite.networks.nas_bench_201 import Cell, Network
from suite.networks.operations import MeanPool, Reduction, ReLUConvBN
from suite.spaces import SearchSpace
from suite.spaces import nas_bench_201 as space
from suite.training.compiled import kernels
from suite.training.compiled.kernels import LANES

Floats: TypeAlias = npt.NDArray[np.float32]
OPERANDS = 19


def refusal(search_space: SearchSpace, device: torch.device, threads: int) -> str:
    """Why there can be no program of the networks of a space; empty if there can.

    >>> from suite.spaces import SPACES
    >>> refusal(SPACES["darts"], torch.device("cpu"), 1)
    'has the networks of nas_bench_201 only, not those of darts'
    """
    if search_space.name != "nas_bench_201":
        return f"has the networks of nas_bench_201 only, not those of {search_space.name}"
    if device.type != "cpu":
        return f"works on a CPU, not on {device}"
    return f"works on one thread, not on {threads}" if threads > 1 else ""


@dataclass
class Value:
    """A tensor of the program, (block, channel, row, column, lane)."""

    at: int
    channels: int
    rows: int
    columns: int
    learns: bool = True
    """Whether anything before it has weights that its gradient can reach."""
    kernel: int = 0
    """Of the convolution that made it; 0: something else did."""
    gradient: int | None = None
    """Where, once something has arrived there."""

    @property
    def plane(self) -> int:
        """Floats of a channel of a block."""
        return self.rows * self.columns * LANES

    @property
    def size(self) -> int:
        """Floats of a block."""
        return self.channels * self.plane


@dataclass
class Layout:
    """Where the pixels of a tensor are: its first, and the floats from one block, channel, row, column to the next."""

    at: int
    block: int
    channel: int
    row: int
    column: int

    def __iter__(self) -> Any:
        return iter((self.at, self.block, self.channel, self.row, self.column))


def plain(at: int, like: Value) -> Layout:
    """Nothing between the rows."""
    return Layout(at, like.size, like.plane, like.columns * LANES, LANES)


def padded(at: int, like: Value) -> Layout:
    """Surrounded by a pixel of zeros; the first pixel is the first of the image."""
    line = (like.columns + 2) * LANES
    plane = (like.rows + 2) * line
    return Layout(at + line + LANES, like.channels * plane, plane, line, LANES)


class Program:
    """Trains and evaluates one network.

    Args:
        network: A stand-alone network of NAS-Bench-201 on the CPU, in float32; it is read, and written by `give`.
        side: Of the images [pixels].
        channels: Of the images.
        batch: Most images at once.
    """

    def __init__(self, network: nn.Module, *, side: int, channels: int, batch: int) -> None:
        assert isinstance(network, Network)
        kernels.ready()
        self.network, self.blocks, self.batch = network, -(-batch // LANES), batch
        self.floats, self.scratch = 0, (side + 2) * LANES
        self.free: dict[int, list[int]] = defaultdict(list)
        self.gradients: dict[tuple[int, int, int], int] = {}
        self.taps: dict[tuple[tuple[int, int], ...], int] = {}
        self.forget()
        self.images = Value(self.room(channels * (side + 2) ** 2 * LANES), channels, side, side, False)
        self.last = self.build()
        forward = self.packs + self.forward
        known = len(self.packs)
        self.back()
        everything = [*forward, *self.packs[known:], *self.backward]
        self.evaluation, self.training = table(forward), table(everything)
        offsets = [tap for group in self.taps for tap in group]
        self.offsets, self.tap_weights = (np.array([tap[k] for tap in offsets], np.int64) for k in (0, 1))
        self.scratch_at = self.room(-(-self.scratch // self.blocks), reuse=False)
        self.A = aligned(self.floats)
        self.P, self.G, self.M = (np.zeros(self.weights_size, np.float32) for _ in range(3))
        self.R = np.zeros(self.norms_size, np.float32)
        self.S = np.zeros(self.norms_size)

    # -- what a user of it calls

    def take(self, optimizer: torch.optim.Optimizer) -> None:
        """Weights, running statistics and momentum as the network and its optimizer have them."""
        for tensor, at in self.weights:
            self.P[at : at + tensor.numel()] = flat(tensor)
            momentum = optimizer.state[tensor].get("momentum_buffer") if tensor in optimizer.state else None
            self.M[at : at + tensor.numel()] = 0.0 if momentum is None else flat(momentum)
        for module, at in self.norms:
            size = module.num_features
            self.R[at : at + size], self.R[at + size : at + 2 * size] = (
                flat(tensor) for tensor in (module.running_mean, module.running_var)
            )

    @torch.no_grad()
    def give(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        """The network and its optimizer as they are after so many more steps."""
        for tensor, at in self.weights:
            tensor.copy_(torch.from_numpy(self.P[at : at + tensor.numel()]).view(tensor.shape))
            momentum = torch.from_numpy(self.M[at : at + tensor.numel()].copy()).view(tensor.shape)
            optimizer.state[tensor]["momentum_buffer"] = momentum
        for module, at in self.norms:
            size = module.num_features
            module.running_mean.copy_(torch.from_numpy(self.R[at : at + size]))  # type: ignore[union-attr]
            module.running_var.copy_(torch.from_numpy(self.R[at + size : at + 2 * size]))  # type: ignore[union-attr]
            module.num_batches_tracked.add_(steps)  # type: ignore[union-attr]

    def step(
        self, images: Floats, labels: npt.NDArray[np.int64], *, rate: float, momentum: float, nesterov: bool,
        decay: float, clip: float, smoothing: float,
    ) -> tuple[float, int]:  # fmt: skip
        """One step of SGD.

        Args:
            images: Normalised, shape (n, rows, columns, channels), n at most the batch.
            labels: Shape (n,).
            rate: Learning rate.
            momentum: Of SGD, `nesterov`'s or not.
            nesterov: Likewise.
            decay: Weight decay.
            clip: Largest norm of the gradient; 0: any.
            smoothing: Of the labels.

        Returns:
            Loss summed over the images, and how many were classified wrongly.
        """
        loss, wrong = self.gradient(images, labels, smoothing=smoothing)
        kernels.descend(self.P, self.G, self.M, rate, momentum, nesterov, decay, clip)
        return loss, wrong

    def gradient(self, images: Floats, labels: npt.NDArray[np.int64], *, smoothing: float = 0.0) -> tuple[float, int]:
        """As `step`, up to the gradient of the mean loss in `G`."""
        kernels.load(self.A, self.images.at, images)
        place = self.split
        self.execute(self.training[:place], len(labels), kernels.TRAINING)
        result = self.head(labels, smoothing, kernels.TRAINING)
        self.execute(self.training[place:], len(labels), kernels.TRAINING)
        return result

    def evaluate(self, images: Floats, labels: npt.NDArray[np.int64]) -> tuple[float, int]:
        """Loss summed over at most `batch` images, and how many are classified wrongly, by the running statistics."""
        kernels.load(self.A, self.images.at, images)
        self.execute(self.evaluation, len(labels), kernels.EVALUATION)
        return self.head(labels, 0.0, kernels.EVALUATION)

    def execute(self, program: npt.NDArray[np.int64], images: int, mode: int) -> None:
        """Instructions on the batch that was loaded."""
        values = (self.A, self.P, self.G, self.R, self.S)
        kernels.execute(program, self.offsets, self.tap_weights, *values, self.scratch_at, images, mode)

    def head(self, labels: npt.NDArray[np.int64], smoothing: float, mode: int) -> tuple[float, int]:
        """The classifier."""
        last = self.last
        to, classes = last.gradient or 0, self.network.classifier.out_features
        loss, wrong = kernels.head(
            self.A, self.P, self.G, last.at, to, last.channels, last.rows * last.columns, self.classifier, classes,
            labels, smoothing, mode,
        )  # fmt: skip
        return float(loss), int(wrong)

    # -- how it is made: forward, with what is to be done backward remembered in reverse

    def forget(self) -> None:
        """Nothing before this has a say in the output."""
        self.forward: list[tuple[int, ...]] = []
        self.backward: list[tuple[int, ...]] = []
        self.packs: list[tuple[int, ...]] = []
        self.tape: list[Callable[[], None]] = []
        self.weights: list[tuple[Tensor, int]] = []
        self.norms: list[tuple[nn.BatchNorm2d, int]] = []
        self.weights_size = self.norms_size = 0

    def build(self) -> Value:
        """The forward pass; what the head reads."""
        network = self.network
        made = self.convolution(padded(self.images.at, self.images), self.images, network.stem)
        x = self.new(made)
        self.norm(made, network.stem_norm, x, adds=False)
        for block in network.cells:
            before = x
            x = self.cell(block, x) if isinstance(block, Cell) else self.reduction(block, x)  # type: ignore[arg-type]
            if x is not before:
                self.release(before)
        z = self.new(x)
        self.norm(x, network.norm, z, adds=False)
        assert isinstance(network.classifier, nn.Linear), "its head is pooled"
        self.classifier = self.weight(network.classifier.weight)
        self.weight(network.classifier.bias)
        return z

    def back(self) -> None:
        """The backward pass, after the head has written the gradient of what it read."""
        self.split = len(self.packs) + len(self.forward)
        self.arrive(self.last)
        for step in reversed(self.tape):
            step()

    def cell(self, cell: Cell, x: Value) -> Value:
        """A cell of four nodes, without what cannot reach the last."""
        alive = [(start, end, operation_of(edge)) for start, end, edge in cell.steps]
        crossed = reaching(
            ((start, end) for start, end, operation in alive if not isinstance(operation, Zero)), [space.NODES - 1]
        )
        if 0 not in crossed:  # the output is the same for all images: what came before learns nothing
            self.forget()
        nodes: list[Value | None] = [x, *[None] * (space.NODES - 1)]
        begun: dict[int, tuple[Value, Layout]] = {}  # ReLU of a node
        for node in range(1, space.NODES):
            arriving = [
                (start, operation)
                for start, end, operation in alive
                if end == node and node in crossed and not isinstance(operation, Zero)
                and (nodes[start] is not None or isinstance(operation, ReLUConvBN))
            ]  # fmt: skip
            if not arriving:
                continue
            if len(arriving) == 1 and isinstance(arriving[0][1], nn.Identity):
                nodes[node] = nodes[arriving[0][0]]
                continue
            to = nodes[node] = self.new(x, learns=False)
            self.tape.append(lambda to=to: self.spent(to))  # type: ignore[misc]
            for number, (start, operation) in enumerate(arriving):
                self.edge(operation, nodes[start], to, begun, start, adds=number > 0)
        output = nodes[-1]
        if output is None:
            output = self.new(x, learns=False)
            self.forward.append((kernels.ZERO, output.at, output.size))
        for inner in {id(node): node for node in nodes if node is not None}.values():
            if inner is not x and inner is not output:
                self.release(inner)
        return output

    def edge(
        self, operation: nn.Module, source: Value | None, to: Value, begun: dict[int, tuple[Value, Layout]], start: int,
        *, adds: bool,
    ) -> None:  # fmt: skip
        """One operation of a cell, from a node (None: nothing arrived there) to the sum `to`."""
        if isinstance(operation, ReLUConvBN):
            if source is None:
                self.weight(operation.conv.weight)
                self.shift(operation.norm, to, adds=adds)
                return
            if start not in begun:
                begun[start] = self.relu(source)
            activated, layout = begun[start]
            made = self.convolution(layout, activated, operation.conv)
            self.norm(made, operation.norm, to, adds=adds)
            return
        assert source is not None
        to.learns = to.learns or source.learns
        if isinstance(operation, nn.Identity):
            self.forward.append((kernels.COPY, source.at, to.at, source.size, adds))
            if source.learns:
                self.tape.append(lambda: self.copy_back(source, to))
        elif isinstance(operation, MeanPool):
            shape = (source.channels, source.rows, source.columns)
            self.forward.append((kernels.POOL, source.at, to.at, *shape, 0, adds))
            if source.learns:
                self.tape.append(lambda: self.pool_back(source, to))
        else:
            raise TypeError(f"no instruction for {type(operation).__name__}")

    def reduction(self, block: Reduction, x: Value) -> Value:
        """Two 3x3 beside a mean with a 1x1."""
        activated, layout = self.relu(x)
        first = self.convolution(layout, activated, block.first.conv)
        middle = self.new(first)
        self.tape.append(lambda: self.spent(middle))
        self.norm(first, block.first.norm, middle, adds=False)
        activated, layout = self.relu(middle)
        self.release(middle)
        second = self.convolution(layout, activated, block.second.conv)
        output = self.new(second)
        self.tape.append(lambda: self.spent(output))
        self.norm(second, block.second.norm, output, adds=False)
        small = Value(self.room(x.size // 4), x.channels, x.rows // 2, x.columns // 2, x.learns)
        shape = (x.channels, small.rows, small.columns)
        self.forward.append((kernels.HALVE, x.at, small.at, *shape, 0))

        def halve_back() -> None:
            if small.gradient is not None:
                at, adds = self.arrive(x)
                self.backward.append((kernels.HALVE_BACK, at, small.gradient, *shape, adds))
                self.spent(small)

        self.tape.append(halve_back)
        self.convolution(plain(small.at, small), small, block.shortcut, into=output)
        return output

    # -- the pieces: what each emits now, and what it leaves to be done backward

    def relu(self, x: Value) -> tuple[Value, Layout]:
        """Surrounded by zeros, as convolutions read it."""
        inside = Value(0, x.channels, x.rows, x.columns, x.learns)
        inside.at = self.room(padded(0, x).block, reuse=False)
        shape = (x.channels, x.rows, x.columns)
        self.forward.append((kernels.RELU, x.at, inside.at, *shape))

        def back() -> None:
            if inside.gradient is not None:
                at, adds = self.arrive(x)
                self.backward.append((kernels.RELU_BACK, inside.gradient, inside.at, at, *shape, adds))
                self.spent(inside)

        self.tape.append(back)
        return inside, padded(inside.at, x)

    def convolution(self, layout: Layout, x: Value, conv: nn.Conv2d, *, into: Value | None = None) -> Value:
        """What `conv` makes of `x`, which lies in `layout`; added to `into`, if that is given."""
        kernel, stride, outputs = conv.kernel_size[0], conv.stride[0], conv.out_channels
        rows, columns = x.rows // stride, x.columns // stride
        made = Value(0, outputs, rows, columns, kernel=kernel) if into is None else into
        if into is None:
            made.at = self.room(made.size, reuse=False)
        corner = layout.at - (layout.row + LANES if kernel == 3 else 0)
        read = (corner, layout.block, layout.channel, stride * layout.row, stride * layout.column)
        weight, shape = self.weight(conv.weight), (x.channels, outputs, rows, columns)
        taps = [(k // 3 * layout.row + k % 3 * LANES, k) for k in range(9)] if kernel == 3 else [(0, 0)]
        packed, first, count = self.pack(weight, conv, taps, backward=False)
        self.forward.append(
            (kernels.CONV, *read, *plain(made.at, made), packed, *shape, first, count, into is not None)
        )  # fmt: skip
        self.scratch = max(self.scratch, conv.weight.numel() * kernels.HALF)

        def back() -> None:
            if into is None:
                gradient = self.aside(made)
            else:
                assert into.gradient is not None
                gradient = plain(into.gradient, into)
            self.backward.append((kernels.WEIGHTS, *read, *gradient, weight, *shape, kernel, layout.row))
            if not x.learns:
                return
            at, adds = self.arrive(x)
            for to, size, taps in self.upstream(gradient, plain(at, x), (x.rows, x.columns), kernel, stride):
                packed, first, count = self.pack(weight, conv, taps, backward=True)
                corner = gradient.at - (gradient.row + LANES if kernel == 3 else 0)
                from_ = (corner, gradient.block, gradient.channel, gradient.row, gradient.column)
                here = (outputs, x.channels, *size, first, count, adds)
                self.backward.append((kernels.CONV, *from_, *to, packed, *here))

        self.tape.append(back)
        return made

    @staticmethod
    def upstream(
        gradient: Layout, to: Layout, shape: tuple[int, int], kernel: int, stride: int
    ) -> list[tuple[Layout, tuple[int, int], list[tuple[int, int]]]]:
        """Convolutions that take a gradient back through one: where to, rows and columns, taps.

        At stride 2 there are four, for even and odd rows and columns of the input, as each is reached by other weights.
        """
        if kernel == 1:
            return [(to, shape, [(0, 0)])]
        line = gradient.row
        if stride == 1:
            return [(to, shape, [((2 - k // 3) * line + (2 - k % 3) * LANES, k) for k in range(9)])]
        reached = {0: [(1, 1)], 1: [(2, 0), (1, 2)]}  # (pixel of the surrounded gradient, weight) by parity
        return [
            (
                Layout(to.at + row * to.row + column * to.column, to.block, to.channel, 2 * to.row, 2 * to.column),
                (shape[0] // 2, shape[1] // 2),
                [(r * line + c * LANES, 3 * i + j) for r, i in reached[row] for c, j in reached[column]],
            )
            for row in (0, 1)
            for column in (0, 1)
        ]

    def norm(self, x: Value, module: nn.Module, to: Value, *, adds: bool) -> None:
        """Batch norm; its gradient goes aside for the convolution that made `x`, or is that of `x`."""
        assert isinstance(module, nn.BatchNorm2d)
        gain, running = self.slot(module)
        pixels = x.rows * x.columns
        self.forward.append((kernels.NORM, x.at, to.at, x.channels, pixels, gain, running, running, adds))
        to.learns = True

        def back() -> None:
            target = self.aside(x) if x.kernel else plain(self.arrive(x)[0], x)
            assert to.gradient is not None
            self.backward.append(
                (kernels.NORM_BACK, to.gradient, x.at, target.at, x.channels, x.rows, x.columns, gain, running,
                 target.block, target.channel, target.row)
            )  # fmt: skip

        self.tape.append(back)

    def shift(self, module: nn.Module, to: Value, *, adds: bool) -> None:
        """Batch norm of zeros."""
        assert isinstance(module, nn.BatchNorm2d)
        gain, running = self.slot(module)
        shape = (to.channels, to.rows * to.columns)
        self.forward.append((kernels.SHIFT, to.at, *shape, gain, running, adds))
        to.learns = True

        def back() -> None:
            assert to.gradient is not None
            self.backward.append((kernels.SHIFT_BACK, to.gradient, *shape, gain))

        self.tape.append(back)

    def copy_back(self, source: Value, to: Value) -> None:
        """The gradient itself."""
        at, adds = self.arrive(source)
        assert to.gradient is not None
        self.backward.append((kernels.COPY, to.gradient, at, source.size, adds))

    def pool_back(self, source: Value, to: Value) -> None:
        """Each pixel's share."""
        at, adds = self.arrive(source)
        assert to.gradient is not None
        shape = (source.channels, source.rows, source.columns)
        self.backward.append((kernels.POOL, to.gradient, at, *shape, 1, adds))

    # -- places

    def room(self, floats: int, *, reuse: bool = True) -> int:
        """A place for so many floats a block; zeros at first if it is not one that was used before."""
        if reuse and self.free[floats]:
            return self.free[floats].pop()
        at = self.floats
        self.floats += -(-floats // LANES) * LANES * self.blocks
        return at

    def new(self, like: Value, *, learns: bool = True) -> Value:
        """A value of a shape."""
        return Value(self.room(like.size), like.channels, like.rows, like.columns, learns)

    def release(self, value: Value) -> None:
        """The value is not read any more."""
        self.free[value.size].append(value.at)

    def arrive(self, value: Value) -> tuple[int, bool]:
        """Where the gradient of a value is, and whether something is there already."""
        adds = value.gradient is not None
        if value.gradient is None:
            value.gradient = self.room(value.size)
        return value.gradient, adds

    def spent(self, value: Value) -> None:
        """The gradient is not read any more."""
        if value.gradient is not None:
            self.free[value.size].append(value.gradient)
            value.gradient = None

    def aside(self, made: Value) -> Layout:
        """Where the gradient of what a convolution made is for a moment; one place a shape."""
        key, layout = (made.channels, made.rows, made.kernel), padded if made.kernel == 3 else plain
        if key not in self.gradients:
            self.gradients[key] = self.room(layout(0, made).block, reuse=False)
        return layout(self.gradients[key], made)

    def weight(self, tensor: Tensor) -> int:
        """Where a weight is in `P`."""
        at = self.weights_size
        self.weights.append((tensor, at))
        self.weights_size += tensor.numel()
        return at

    def slot(self, module: nn.BatchNorm2d) -> tuple[int, int]:
        """Where a norm's scale and shift are in `P`, and its statistics in `R`."""
        gain, running = self.weight(module.weight), self.norms_size
        self.weight(module.bias)
        self.norms.append((module, running))
        self.norms_size += 2 * module.num_features
        return gain, running

    def pack(
        self, weight: int, conv: nn.Conv2d, taps: Sequence[tuple[int, int]], *, backward: bool
    ) -> tuple[int, int, int]:
        """Have weights in the order in which `CONV` reads them: where, first tap, number of taps."""
        group = tuple(taps)
        if group not in self.taps:
            self.taps[group] = sum(map(len, self.taps))
        inputs, outputs = conv.in_channels, conv.out_channels
        if backward:
            inputs, outputs = outputs, inputs
        at = self.room(-(-inputs * outputs * len(group) // self.blocks), reuse=False)
        size = conv.kernel_size[0] ** 2
        self.packs.append((kernels.PACK, weight, at, outputs, inputs, size, backward, self.taps[group], len(group)))
        return at, self.taps[group], len(group)


def operation_of(edge: nn.Module) -> nn.Module:
    """The only operation of an edge of a stand-alone network."""
    (operation,) = edge.children()
    return operation


def flat(tensor: Tensor | None) -> Floats:
    """Its values in the order of its indices."""
    assert tensor is not None
    values: Floats = tensor.detach().contiguous().view(-1).numpy()
    return values


def table(instructions: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Instructions as `kernels.execute` reads them."""
    made = np.zeros((len(instructions), OPERANDS), np.int64)
    for row, instruction in zip(made, instructions, strict=True):
        row[: len(instruction)] = instruction
    return made


def aligned(floats: int) -> Floats:
    """Zeros at an address that vectors can be loaded from."""
    room = np.zeros(floats + 16, np.float32)
    first = -room.ctypes.data // 4 % 16
    return room[first : first + floats]
