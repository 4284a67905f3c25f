"""Machine code for the training step of narrow convolutional networks on one CPU core.

A network is a program: a table of instructions over one array of floats, made by `suite.training.compiled.program` and
carried out by `execute`. It is compiled once for all networks, so that a step of a network of 4 channels costs its
arithmetic and no calls. Sums have a fixed order: the same program gives the same bits, whatever runs beside.

Images stand in blocks of LANES; a tensor is (block, channel, row, column, lane), so that one vector instruction does
the same for all images of a block, at any width of the network. What convolutions read is surrounded by zeros. Lanes of
the last block that hold no image are left out of the norms' statistics, and no gradient comes from them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from suite.machine_code import compiled

VERSION = f"2, numba {numba.__version__}"
"""Version of the arithmetic: a run is gone on with under the same only."""
LANES = 16
"""Images of a block: two vectors of AVX2, one of AVX-512."""
WIDE = 8 if binding.get_host_cpu_features().get("avx512f") else 4
"""Output channels that a convolution makes at once, by how many registers there are. Each is a sum of its own, so the
bits are the same."""
EPSILON, MOMENTUM = 1e-5, 0.1
"""Epsilon of batch norms, as torch has it."""

COPY, RELU, CONV, WEIGHTS, PACK, NORM, SHIFT, POOL, HALVE, ZERO = range(10)
NORM_BACK, SHIFT_BACK, HALVE_BACK, RELU_BACK = range(10, 14)
"""Instructions; their operands are listed at `execute`."""
TRAINING, EVALUATION = 0, 1

HALF = LANES // 2
_VECTOR, _HALVES = (ir.VectorType(ir.FloatType(), lanes) for lanes in (LANES, HALF))


def _pointer(builder: Any, address: Any, floats: Any) -> Any:
    """`address` advanced by so many floats."""
    return builder.add(address, builder.shl(floats, ir.Constant(floats.type, 2)))


def _multiply_add(builder: Any, vector: Any) -> Any:
    """The instruction a * b + c on vectors, in one rounding where the processor has it."""
    name = f"llvm.fmuladd.v{vector.count}f32"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _tile(outputs: int, pixels: int) -> Any:
    """A convolution at so many neighbouring pixels of a row of a block, for so many output channels.

    Arguments: address of the input at the first pixel; floats from one input channel to the next; input channels;
    address of the taps (int64, floats from a pixel); taps; address of the weights, (tap, input channel, output
    channel); address of the output; floats from one output channel to the next; whether to add to what stands there;
    floats from one pixel to the next, of the input and of the output.
    """

    @intrinsic
    def tile(typing, x, plane, inputs, taps, count, w, y, step, adds, right, along):
        signature = types.void(*[types.intp] * 11)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            x, plane, inputs, taps, count, w, y, step, adds, right, along = arguments
            word = x.type
            fma = _multiply_add(builder, _VECTOR)
            unknown = ir.Constant(_VECTOR, ir.Undefined)
            firsts = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(outputs)] for _ in range(pixels)]
            weight, here = cgutils.alloca_once(builder, word), cgutils.alloca_once(builder, word)
            places = [
                _pointer(builder, _pointer(builder, y, builder.mul(along, ir.Constant(word, pixel))),
                         builder.mul(step, ir.Constant(word, k)))
                for pixel in range(pixels) for k in range(outputs)
            ]  # fmt: skip
            every = [total for of_pixel in sums for total in of_pixel]
            with builder.if_else(builder.icmp_signed("!=", adds, ir.Constant(word, 0))) as (some, none):
                with some:
                    for total, place in zip(every, places, strict=True):
                        builder.store(_load(builder, place, _VECTOR, 64), total)
                with none:
                    for total in every:
                        builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
            builder.store(w, weight)
            with cgutils.for_range(builder, count) as tap:
                offset = _load(builder, builder.add(taps, builder.shl(tap.index, ir.Constant(word, 3))), word, 8)
                builder.store(_pointer(builder, x, offset), here)
                with cgutils.for_range(builder, inputs):
                    at, from_ = builder.load(here), builder.load(weight)
                    values = [
                        _load(builder, _pointer(builder, at, builder.mul(right, ir.Constant(word, pixel))), _VECTOR, 64)
                        for pixel in range(pixels)
                    ]
                    for k in range(outputs):
                        number = _load(builder, builder.add(from_, ir.Constant(word, 4 * k)), ir.FloatType(), 4)
                        single = builder.insert_element(unknown, number, ir.Constant(ir.IntType(32), 0))
                        spread = builder.shuffle_vector(single, unknown, firsts)
                        for value, totals in zip(values, sums, strict=True):
                            builder.store(builder.call(fma, [value, spread, builder.load(totals[k])]), totals[k])
                    builder.store(_pointer(builder, at, plane), here)
                    builder.store(builder.add(from_, ir.Constant(word, 4 * outputs)), weight)
            for total, place in zip(every, places, strict=True):
                builder.store(builder.load(total), builder.inttoptr(place, _VECTOR.as_pointer()), align=64)
            return context.get_dummy_value()

        return signature, generate

    return tile


def _gradient_tile(shifts: int, outputs: int) -> Any:
    """Products of inputs and gradients over the pixels of a block, summed by pairs of lanes.

    Arguments: address of the input; floats from one of `shifts` inputs to the next; its steps a row and a column; the
    same four of the gradient, for `outputs` of them; rows; columns; address of the sums, (output, shift, HALF), to
    which is added. Half of the lanes at a time, so that all sums stay in the registers of AVX2.
    """

    @intrinsic
    def tile(typing, x, xs, xr, xc, d, ds, dr, dc, rows, columns, sums):
        signature = types.void(*[types.intp] * 11)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            x, xs, xr, xc, d, ds, dr, dc, rows, columns, sums = arguments
            word = x.type
            fma = _multiply_add(builder, _HALVES)
            place = [_pointer(builder, sums, ir.Constant(word, HALF * number)) for number in range(shifts * outputs)]
            totals = [cgutils.alloca_once(builder, _HALVES) for _ in place]
            for total, at in zip(totals, place, strict=True):
                builder.store(_load(builder, at, _HALVES, 32), total)
            xa, da = cgutils.alloca_once(builder, word), cgutils.alloca_once(builder, word)
            with cgutils.for_range(builder, rows) as row:
                builder.store(_pointer(builder, x, builder.mul(row.index, xr)), xa)
                builder.store(_pointer(builder, d, builder.mul(row.index, dr)), da)
                with cgutils.for_range(builder, columns):
                    here, there = builder.load(xa), builder.load(da)
                    for half in (0, HALF):
                        values = []
                        for t in range(shifts):
                            at = _pointer(builder, here, builder.mul(xs, ir.Constant(word, t)))
                            values.append(_load(builder, builder.add(at, ir.Constant(word, 4 * half)), _HALVES, 32))
                        for k in range(outputs):
                            at = _pointer(builder, there, builder.mul(ds, ir.Constant(word, k)))
                            gradient = _load(builder, builder.add(at, ir.Constant(word, 4 * half)), _HALVES, 32)
                            for total, value in zip(totals[k * shifts : (k + 1) * shifts], values, strict=True):
                                builder.store(builder.call(fma, [value, gradient, builder.load(total)]), total)
                    builder.store(_pointer(builder, here, xc), xa)
                    builder.store(_pointer(builder, there, dc), da)
            for total, at in zip(totals, place, strict=True):
                builder.store(builder.load(total), builder.inttoptr(at, _HALVES.as_pointer()), align=32)
            return context.get_dummy_value()

        return signature, generate

    return tile


_tile1, _tile2, _tile4 = _tile(1, 1), _tile(2, 1), _tile(4, 1)
_tile8, _tile82 = _tile(8, 1), _tile(8, 2)
_grad11, _grad14, _grad21, _grad24 = (_gradient_tile(shifts, outputs) for shifts in (1, 2) for outputs in (1, 4))
_grad31, _grad34 = _gradient_tile(3, 1), _gradient_tile(3, 4)


OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}
"""Liberties that numba may take: NaN stays NaN."""


def whole(function: Callable[..., Any]) -> Any:
    """A function that Python calls."""
    return compiled(function, **OPTIONS)


def inlined(function: Callable[..., Any]) -> Any:
    """Part of a compiled function.

    A call would be to a copy compiled by itself when the caller is new, and to the caller's own copy when it comes from
    the cache: two orders of the same sum.
    """
    return numba.njit(forceinline=True, nogil=True, **OPTIONS)(function)


@inlined
def widest(outputs):
    """Output channels of the next tile."""
    if outputs >= WIDE:
        return WIDE
    return 4 if outputs >= 4 else (2 if outputs >= 2 else 1)


@inlined
def convolve(base, i, taps, blocks):
    """Carry out CONV, the instruction of a convolution."""
    src, src_block, src_plane, src_row, src_column = i[1], i[2], i[3], i[4], i[5]
    dst, dst_block, dst_plane, dst_row, dst_column = i[6], i[7], i[8], i[9], i[10]
    w, inputs, outputs, rows, columns, count, adds = i[11], i[12], i[13], i[14], i[15], i[17], i[18]
    tap = taps + 8 * i[16]
    for block in range(blocks):
        for row in range(rows):
            x = base + 4 * (src + block * src_block + row * src_row)
            y0 = base + 4 * (dst + block * dst_block + row * dst_row)
            o = 0
            while o < outputs:
                width = widest(outputs - o)
                weights, y = base + 4 * (w + o * count * inputs), y0 + 4 * o * dst_plane
                c = 0
                while c < columns:
                    at, to = x + 4 * c * src_column, y + 4 * c * dst_column
                    if width == 8 and c + 1 < columns:
                        _tile82(at, src_plane, inputs, tap, count, weights, to, dst_plane, adds, src_column, dst_column)
                        c += 2
                        continue
                    if width == 8:
                        _tile8(at, src_plane, inputs, tap, count, weights, to, dst_plane, adds, src_column, dst_column)
                    elif width == 4:
                        _tile4(at, src_plane, inputs, tap, count, weights, to, dst_plane, adds, src_column, dst_column)
                    elif width == 2:
                        _tile2(at, src_plane, inputs, tap, count, weights, to, dst_plane, adds, src_column, dst_column)
                    else:
                        _tile1(at, src_plane, inputs, tap, count, weights, to, dst_plane, adds, src_column, dst_column)
                    c += 1
                o += width


@inlined
def pack(A, P, i, tap_weights):
    """Carry out PACK, the instruction that arranges weights."""
    source, target, outputs, inputs, size, backward, first, count = i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8]
    o = 0
    while o < outputs:
        width = widest(outputs - o)
        at = target + o * count * inputs
        for t in range(count):
            k = tap_weights[first + t]
            for c in range(inputs):
                for n in range(width):
                    place = (c * outputs + o + n) if backward else ((o + n) * inputs + c)
                    A[at] = P[source + place * size + k]
                    at += 1
        o += width


@inlined
def weigh(base, A, G, i, scratch, blocks):
    """Carry out WEIGHTS, the instruction of weight gradients."""
    src, src_block, src_plane, src_row, src_column = i[1], i[2], i[3], i[4], i[5]
    dst, dst_block, dst_plane, dst_row, dst_column = i[6], i[7], i[8], i[9], i[10]
    target, inputs, outputs, rows, columns, kernel, line = i[11], i[12], i[13], i[14], i[15], i[16], i[17]
    A[scratch : scratch + outputs * inputs * kernel * kernel * HALF] = 0.0
    fours = outputs // 4 * 4
    for block in range(blocks):
        x0, d0 = base + 4 * (src + block * src_block), base + 4 * (dst + block * dst_block)
        at, o = base + 4 * scratch, 0
        while o < outputs:  # sums of (outputs, input, row of the kernel): (output, column of the kernel or input, HALF)
            width, d = 4 if o < fours else 1, d0 + 4 * o * dst_plane
            if kernel == 3:
                for c in range(inputs):
                    for k in range(3):
                        x = x0 + 4 * (c * src_plane + k * line)
                        if width == 4:
                            _grad34(x, LANES, src_row, src_column, d, dst_plane, dst_row, dst_column, rows, columns, at)
                        else:
                            _grad31(x, LANES, src_row, src_column, d, dst_plane, dst_row, dst_column, rows, columns, at)
                        at += 4 * 3 * width * HALF
            else:
                for c in range(0, inputs, 2):
                    x, two = x0 + 4 * c * src_plane, min(2, inputs - c)
                    if two == 2 and width == 4:
                        _grad24(x, src_plane, src_row, src_column, d, dst_plane, dst_row, dst_column, rows, columns, at)
                    elif two == 2:
                        _grad21(x, src_plane, src_row, src_column, d, dst_plane, dst_row, dst_column, rows, columns, at)
                    elif width == 4:
                        _grad14(x, src_plane, src_row, src_column, d, dst_plane, dst_row, dst_column, rows, columns, at)
                    else:
                        _grad11(x, src_plane, src_row, src_column, d, dst_plane, dst_row, dst_column, rows, columns, at)
                    at += 4 * two * width * HALF
            o += width
    place, o = scratch, 0
    while o < outputs:
        width = 4 if o < fours else 1
        for c in range(0, inputs, 1 if kernel == 3 else 2):
            for k in range(kernel):
                columns_or_inputs = 3 if kernel == 3 else min(2, inputs - c)
                for n in range(width):
                    for s in range(columns_or_inputs):
                        sum_ = np.float32(0.0)
                        for lane in range(HALF):
                            sum_ += A[place + lane]
                        place += HALF
                        if kernel == 3:
                            G[target + ((o + n) * inputs + c) * 9 + 3 * k + s] = sum_
                        else:
                            G[target + (o + n) * inputs + c + s] = sum_
        o += width


@inlined
def total(x, lanes):
    """Sum of one channel of a block, shape (pixels, LANES), over the first `lanes`."""
    result = np.float32(0.0)
    if lanes == LANES:
        for k in range(len(x)):
            result += x[k]
    else:
        for k in range(len(x)):
            result += x[k] if k % LANES < lanes else np.float32(0.0)
    return float(result)


@inlined
def moments(x, lanes):
    """Mean and sum of squared deviations of one channel of a block, as `total`."""
    count = len(x) // LANES * lanes
    exact = total(x, lanes) / count
    mean, squares = np.float32(exact), np.float32(0.0)
    if lanes == LANES:
        for k in range(len(x)):
            squares += (x[k] - mean) * (x[k] - mean)
    else:
        for k in range(len(x)):
            squares += (x[k] - mean) * (x[k] - mean) if k % LANES < lanes else np.float32(0.0)
    return exact, float(squares) - count * (exact - mean) * (exact - mean)


@inlined
def norm(A, P, R, S, i, images, blocks, mode):
    """Carry out NORM, the instruction of a batch norm."""
    src, dst, channels, pixels, gain, running, saved, adds = i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8]
    plane = pixels * LANES
    for c in range(channels):
        if mode == TRAINING:
            count, mean, squares = 0.0, 0.0, 0.0
            for block in range(blocks):
                lanes = min(LANES, images - block * LANES)
                begin = src + (block * channels + c) * plane
                here, more = moments(A[begin : begin + plane], lanes)
                n = float(pixels * lanes)
                gap = here - mean
                squares += more + gap * gap * count * n / (count + n)
                mean += gap * n / (count + n)
                count += n
            variance = squares / count
            R[running + c] = (1 - MOMENTUM) * R[running + c] + MOMENTUM * mean
            unbiased = squares / (count - 1)
            R[running + channels + c] = (1 - MOMENTUM) * R[running + channels + c] + MOMENTUM * unbiased
        else:
            mean, variance = float(R[running + c]), float(R[running + channels + c])
        inverse = 1.0 / math.sqrt(variance + EPSILON)
        S[saved + c], S[saved + channels + c] = mean, inverse
        scale = np.float32(P[gain + c] * inverse)
        middle, shift = np.float32(mean), P[gain + channels + c]
        for block in range(blocks):
            at = (block * channels + c) * plane
            x, y = A[src + at : src + at + plane], A[dst + at : dst + at + plane]
            if adds:
                for k in range(plane):
                    y[k] += (x[k] - middle) * scale + shift
            else:
                for k in range(plane):
                    y[k] = (x[k] - middle) * scale + shift


@inlined
def norm_back(A, P, G, S, i, images, blocks):
    """Carry out NORM_BACK, the gradient of a batch norm."""
    grad, src, dst, channels, rows, columns, gain, saved = i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8]
    dst_block, dst_plane, dst_row = i[9], i[10], i[11]
    plane, line = rows * columns * LANES, columns * LANES
    for c in range(channels):
        mean, inverse = np.float32(S[saved + c]), np.float32(S[saved + channels + c])
        sum_, product = 0.0, 0.0
        for block in range(blocks):  # lanes without an image have no gradient
            at = (block * channels + c) * plane
            d, x = A[grad + at : grad + at + plane], A[src + at : src + at + plane]
            part, products = np.float32(0.0), np.float32(0.0)
            for k in range(plane):
                part += d[k]
                products += d[k] * (x[k] - mean)
            sum_ += float(part)
            product += float(products)
        G[gain + c] = product * inverse
        G[gain + channels + c] = sum_
        count = float(rows * columns * images)
        scale = np.float32(P[gain + c] * inverse)
        middle = np.float32(sum_ / count)
        slope = np.float32(product * inverse * inverse / count)
        for block in range(blocks):
            at = (block * channels + c) * plane
            lanes = min(LANES, images - block * LANES)
            for row in range(rows):
                begin = at + row * line
                d, x = A[grad + begin : grad + begin + line], A[src + begin : src + begin + line]
                out = dst + block * dst_block + c * dst_plane + row * dst_row
                y = A[out : out + line]
                for k in range(line):
                    y[k] = scale * (d[k] - middle - (x[k] - mean) * slope)
                if lanes < LANES:
                    for column in range(columns):
                        for lane in range(lanes, LANES):
                            y[column * LANES + lane] = 0.0


@inlined
def shift(A, P, R, i, blocks, mode):
    """Carry out SHIFT, the batch norm of zeros."""
    dst, channels, pixels, gain, running, adds = i[1], i[2], i[3], i[4], i[5], i[6]
    plane = pixels * LANES
    for c in range(channels):
        value = P[gain + channels + c]
        if mode == TRAINING:
            R[running + c] *= 1 - MOMENTUM
            R[running + channels + c] *= 1 - MOMENTUM
        else:
            value -= P[gain + c] * R[running + c] / math.sqrt(R[running + channels + c] + EPSILON)
        for block in range(blocks):
            at = dst + (block * channels + c) * plane
            y = A[at : at + plane]
            if adds:
                for k in range(plane):
                    y[k] += value
            else:
                for k in range(plane):
                    y[k] = value


@inlined
def shift_back(A, G, i, blocks):
    """Carry out SHIFT_BACK, the gradient of SHIFT."""
    grad, channels, pixels, gain = i[1], i[2], i[3], i[4]
    plane = pixels * LANES
    for c in range(channels):
        sum_ = 0.0
        for block in range(blocks):
            sum_ += total(A[grad + (block * channels + c) * plane : grad + (block * channels + c + 1) * plane], LANES)
        G[gain + c] = 0.0
        G[gain + channels + c] = sum_


@inlined
def copy(A, i, blocks):
    """Carry out COPY, the instruction of an identity."""
    size = i[3] * blocks
    x, y = A[i[1] : i[1] + size], A[i[2] : i[2] + size]
    if i[4]:
        for k in range(size):
            y[k] += x[k]
    else:
        for k in range(size):
            y[k] = x[k]


@inlined
def relu(A, i, blocks):
    """Carry out RELU, the instruction of an activation."""
    src, dst, channels, rows, columns = i[1], i[2], i[3], i[4], i[5]
    line = columns * LANES
    for plane in range(blocks * channels):
        for row in range(rows):
            begin = src + (plane * rows + row) * line
            out = dst + ((plane * (rows + 2) + row + 1) * (columns + 2) + 1) * LANES
            x, y = A[begin : begin + line], A[out : out + line]
            for k in range(line):
                y[k] = np.float32(0.0) if x[k] <= 0 else x[k]


@inlined
def relu_back(A, i, blocks):
    """Carry out RELU_BACK, the gradient of an activation."""
    grad, made, dst, channels, rows, columns, adds = i[1], i[2], i[3], i[4], i[5], i[6], i[7]
    line = columns * LANES
    for plane in range(blocks * channels):
        for row in range(rows):
            begin = (plane * rows + row) * line
            at = made + ((plane * (rows + 2) + row + 1) * (columns + 2) + 1) * LANES
            d, y, g = A[grad + begin : grad + begin + line], A[at : at + line], A[dst + begin : dst + begin + line]
            if adds:
                for k in range(line):
                    g[k] += d[k] if y[k] > 0 else np.float32(0.0)
            else:
                for k in range(line):
                    g[k] = d[k] if y[k] > 0 else np.float32(0.0)


@inlined
def add_scaled(y, x, at, end, factor):
    """`y` + `x` * `factor` between two places."""
    for k in range(at, end):
        y[k] += x[k] * factor


@inlined
def of_three(y, x, at, end, factor, adds):
    """Sums of a pixel and its neighbours in a row, times `factor`; `x` begins one pixel before `y`."""
    if adds:
        for k in range(at, end):
            y[k] += factor * (x[k] + x[k + LANES] + x[k + 2 * LANES])
    else:
        for k in range(at, end):
            y[k] = factor * (x[k] + x[k + LANES] + x[k + 2 * LANES])


@inlined
def pool(A, i, scratch, blocks):
    """Carry out POOL, the instruction of an average pooling."""
    src, dst, channels, rows, columns, backward, adds = i[1], i[2], i[3], i[4], i[5], i[6], i[7]
    line, last = columns * LANES, (columns - 1) * LANES
    sums = A[scratch : scratch + line + 2 * LANES]  # of up to three rows; zeros on both sides
    sums[:] = 0.0
    inside = sums[LANES : LANES + line]
    one = np.float32(1.0)
    for plane in range(blocks * channels):
        for row in range(rows):
            inside[:] = 0.0
            for other in range(max(0, row - 1), min(rows, row + 2)):
                begin = src + (plane * rows + other) * line
                x = A[begin : begin + line]
                if backward:
                    high = min(rows, other + 2) - max(0, other - 1)
                    edge, middle = one / np.float32(high * min(2, columns)), one / np.float32(high * 3)
                    add_scaled(inside, x, 0, LANES, edge)
                    add_scaled(inside, x, LANES, last, middle)
                    add_scaled(inside, x, max(last, LANES), line, edge)
                else:
                    add_scaled(inside, x, 0, line, one)
            high = min(rows, row + 2) - max(0, row - 1)
            begin = dst + (plane * rows + row) * line
            y = A[begin : begin + line]
            if backward:
                of_three(y, sums, 0, line, one, adds)
            else:
                edge, middle = one / np.float32(high * min(2, columns)), one / np.float32(high * 3)
                of_three(y, sums, 0, LANES, edge, adds)
                of_three(y, sums, LANES, last, middle, adds)
                of_three(y, sums, max(last, LANES), line, edge, adds)


@inlined
def halve(A, i, blocks):
    """HALVE and HALVE_BACK of `execute`."""
    large, small, channels, rows, columns, adds = i[1], i[2], i[3], i[4], i[5], i[6]
    quarter = np.float32(0.25)
    for plane in range(blocks * channels):
        for row in range(rows):
            for column in range(columns):
                upper = large + ((plane * 2 * rows + 2 * row) * 2 * columns + 2 * column) * LANES
                lower, at = upper + 2 * columns * LANES, small + ((plane * rows + row) * columns + column) * LANES
                up, low, y = A[upper : upper + 2 * LANES], A[lower : lower + 2 * LANES], A[at : at + LANES]
                if i[0] == HALVE:
                    for lane in range(LANES):
                        y[lane] = quarter * (up[lane] + up[lane + LANES] + low[lane] + low[lane + LANES])
                elif adds:
                    for lane in range(LANES):
                        part = quarter * y[lane]
                        up[lane] += part
                        up[lane + LANES] += part
                        low[lane] += part
                        low[lane + LANES] += part
                else:
                    for lane in range(LANES):
                        part = quarter * y[lane]
                        up[lane] = part
                        up[lane + LANES] = part
                        low[lane] = part
                        low[lane + LANES] = part


@whole
def execute(program, taps, tap_weights, A, P, G, R, S, scratch, images, mode):
    """Carry out a program.

    Args:
        program: Shape (instructions, operands), int64: the instruction, then its operands. Places and strides are in
            floats of `A`, those of weights in floats of `P`. `adds`: to what stands there, instead of in its place.
            COPY: from, to, floats a block, adds.
            RELU: from, to (surrounded by zeros), channels, rows, columns.
            CONV: from, its strides by block, channel, row, column; to, the same; packed weights; input channels,
            output channels, rows, columns; first tap, taps; adds.
            WEIGHTS: input and its strides; gradient of the output and its strides; weights; input channels, output
            channels, rows, columns; side of the kernel (1 or 3); floats from one row of the input to the next.
            PACK: weights, to, output channels, input channels, weights of a kernel, whether to exchange inputs and
            outputs, first tap, taps.
            NORM: from, to, channels, pixels, scale and shift, running statistics, saved statistics, adds.
            NORM_BACK: gradient, input of the norm, to, channels, rows, columns, scale and shift, saved statistics,
            strides of `to` by block, channel, row.
            SHIFT: to, channels, pixels, scale and shift, running statistics, adds: a norm of zeros.
            SHIFT_BACK: gradient, channels, pixels, scale and shift.
            POOL: from, to, channels, rows, columns, whether backward, adds: mean of 3x3, of pixels inside the image.
            HALVE: large, small, channels, rows and columns of the small: mean of 2x2. HALVE_BACK: the same, adds.
            RELU_BACK: gradient, what the ReLU made, to, channels, rows, columns, adds.
            ZERO: from, floats a block.
        taps: Floats from a pixel to its neighbours, int64.
        tap_weights: Which weight of a kernel belongs to each, int64.
        A: Everything that is computed, aligned to 64 bytes.
        P: Weights. G: Their gradients. R: Running statistics. S: Statistics of the batch, float64.
        scratch: A place in `A` that every instruction may use.
        images: Of the batch.
        mode: TRAINING or EVALUATION.
    """
    blocks = (images + LANES - 1) // LANES
    base, tap = np.intp(A.ctypes.data), np.intp(taps.ctypes.data)
    for number in range(len(program)):
        i = program[number]
        what = i[0]
        if what == CONV:
            convolve(base, i, tap, blocks)
        elif what == WEIGHTS:
            weigh(base, A, G, i, scratch, blocks)
        elif what == NORM:
            norm(A, P, R, S, i, images, blocks, mode)
        elif what == NORM_BACK:
            norm_back(A, P, G, S, i, images, blocks)
        elif what == RELU:
            relu(A, i, blocks)
        elif what == RELU_BACK:
            relu_back(A, i, blocks)
        elif what == COPY:
            copy(A, i, blocks)
        elif what == POOL:
            pool(A, i, scratch, blocks)
        elif what in (HALVE, HALVE_BACK):
            halve(A, i, blocks)
        elif what == PACK:
            pack(A, P, i, tap_weights)
        elif what == SHIFT:
            shift(A, P, R, i, blocks, mode)
        elif what == SHIFT_BACK:
            shift_back(A, G, i, blocks)
        elif what == ZERO:
            A[i[1] : i[1] + i[2] * blocks] = 0.0


@whole
def load(A, to, images):
    """Images, shape (n, rows, columns, channels), to where the program reads them, surrounded by zeros."""
    n, rows, columns, channels = images.shape
    for block in range((n + LANES - 1) // LANES):
        lanes = min(LANES, n - block * LANES)
        for c in range(channels):
            for row in range(rows):
                begin = to + (((block * channels + c) * (rows + 2) + row + 1) * (columns + 2) + 1) * LANES
                for column in range(columns):
                    at = begin + column * LANES
                    for lane in range(lanes):
                        A[at + lane] = images[block * LANES + lane, row, column, c]
                    for lane in range(lanes, LANES):
                        A[at + lane] = 0.0


@whole
def head(A, P, G, z, to, channels, pixels, weights, classes, labels, smoothing, mode):
    """ReLU, mean over the image, linear layer, cross-entropy; in training their gradients, into `to` and `G`.

    Returns:
        Loss summed over the images, and how many are classified wrongly.
    """
    images, plane = len(labels), pixels * LANES
    features, logits = np.zeros((channels, LANES), np.float32), np.zeros((classes, LANES), np.float32)
    back = np.zeros((channels, LANES), np.float32)
    biases = weights + classes * channels
    if mode == TRAINING:
        G[weights : biases + classes] = 0.0
    loss, wrong, share = 0.0, 0, np.float32(1.0 / pixels)
    for block in range((images + LANES - 1) // LANES):
        lanes = min(LANES, images - block * LANES)
        features[:] = 0.0
        for c in range(channels):
            x = A[z + (block * channels + c) * plane : z + (block * channels + c + 1) * plane]
            for p in range(pixels):
                for lane in range(LANES):
                    value = x[p * LANES + lane]
                    features[c, lane] += np.float32(0.0) if value <= 0 else value
            for lane in range(LANES):
                features[c, lane] *= share
        for k in range(classes):
            for lane in range(LANES):
                logits[k, lane] = P[biases + k]
            for c in range(channels):
                weight = P[weights + k * channels + c]
                for lane in range(LANES):
                    logits[k, lane] += weight * features[c, lane]
        for lane in range(LANES):
            if lane >= lanes:
                logits[:, lane] = 0.0  # from here on the gradient
                continue
            label, best = labels[block * LANES + lane], 0
            for k in range(1, classes):
                if logits[k, lane] > logits[best, lane]:
                    best = k
            wrong += best != label
            high, powers, mean = float(logits[best, lane]), 0.0, 0.0
            for k in range(classes):
                powers += math.exp(logits[k, lane] - high)
                mean += logits[k, lane]
            ground = high + math.log(powers)
            own = smoothing if mode == TRAINING else 0.0
            loss += ground - (1 - own) * logits[label, lane] - own * mean / classes
            for k in range(classes):
                target = own / classes + (1 - own) * (k == label)
                logits[k, lane] = (math.exp(logits[k, lane] - ground) - target) / images
        if mode != TRAINING:
            continue
        back[:] = 0.0
        for k in range(classes):
            for lane in range(LANES):
                G[biases + k] += logits[k, lane]
            for c in range(channels):
                weight, total32 = P[weights + k * channels + c], np.float32(0.0)
                for lane in range(LANES):
                    back[c, lane] += weight * logits[k, lane]
                    total32 += features[c, lane] * logits[k, lane]
                G[weights + k * channels + c] += total32
        for c in range(channels):
            at = (block * channels + c) * plane
            x, d = A[z + at : z + at + plane], A[to + at : to + at + plane]
            for p in range(pixels):
                for lane in range(LANES):
                    d[p * LANES + lane] = share * back[c, lane] if x[p * LANES + lane] > 0 else np.float32(0.0)
    return loss, wrong


@whole
def descend(P, G, M, rate, momentum, nesterov, decay, clip):
    """One step of SGD with momentum `M`, as torch's."""
    if clip > 0:
        square = 0.0
        for k in range(len(G)):
            square += float(G[k]) * float(G[k])
        factor = clip / (math.sqrt(square) + 1e-6)
        if factor < 1:
            for k in range(len(G)):
                G[k] *= np.float32(factor)
    step, keep, shrink = np.float32(rate), np.float32(momentum), np.float32(decay)
    for k in range(len(P)):
        gradient = G[k] + shrink * P[k]
        M[k] = keep * M[k] + gradient
        P[k] -= step * (gradient + keep * M[k] if nesterov else M[k])


@functools.cache
def ready() -> None:
    """Compile now, or load what was compiled before, instead of at the first step."""
    floats, places = np.zeros(64, np.float32), np.zeros(1, np.int64)
    execute(np.full((1, 19), ZERO), places, places, *[floats] * 4, np.zeros(1), 0, 1, TRAINING)
    load(floats, 0, np.zeros((0, 1, 1, 1), np.float32))
    head(floats, floats, floats, 0, 0, 1, 1, 0, 1, places[:0], 0.0, TRAINING)
    descend(floats, floats, floats, 0.0, 0.0, True, 0.0, 0.0)
