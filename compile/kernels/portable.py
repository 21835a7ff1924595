"""Kernels for any core: the definition of each layer as a tensor expression, scheduled one output at a time.

Accumulators stay in registers, padding is a test at the border that loop partitioning takes out of the interior.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tvm import s_tir, te, tirx

from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.portable_float import build_portable_float
from thumbnet.compile.kernels.portable_pool import build_max_pool
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatMaxPool,
)
from thumbnet.compile.network.integer_network import (
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    Layer,
    MaxPool,
)
from thumbnet.compile.network.layers import AnyLayer

#: What the code of every kernel includes.
ARITHMETIC_HEADER = Path(__file__).with_name("thumbnet_arithmetic.h")
#: In `ARITHMETIC_HEADER`: ``(2 * a * b + 2**31) >> 32``.
MULTIPLY_HIGH = "thumbnet_multiply_high_round_half_up"
#: In `ARITHMETIC_HEADER`: the nearest value between two others.
CLAMP = "thumbnet_clamp"


def build_portable(layer: AnyLayer) -> Kernel:
    """Return the plain kernel of a layer; inputs are called ``input0``, ``input1``, the output ``output``."""
    match layer:
        case FloatConvolution() | FloatDepthwiseConvolution() | FloatAveragePool() | FloatMaxPool() | FloatAdd():
            return build_portable_float(layer)
        case Convolution() | DepthwiseConvolution() | AveragePool():
            defined = define_layer(layer)
            return Kernel("portable", _scheduled(defined.function), defined.constants)
        case Add() | MaxPool():
            return Kernel("portable", define_layer(layer).function)
    raise TypeError(layer)


def define_layer(layer: Layer) -> Kernel:
    """Return what a layer of int8 is, without a schedule: a kernel that would run, slowly, and take much memory.

    A maximum is scheduled already, there is nothing to find. Of the others the blocks are ``padded`` where the layer
    pads, ``acc`` where it sums, and ``output``.
    """
    match layer:
        case Convolution() | DepthwiseConvolution():
            return _convolution(layer)
        case AveragePool():
            return _average_pool(layer)
        case MaxPool():
            return build_max_pool(layer, "int8", lambda value: value)
        case Add():
            return _add(layer)


def _convolution(layer: Convolution | DepthwiseConvolution) -> Kernel:
    data = te.placeholder(layer.input_shape, "int8", "input0")
    weight = te.placeholder(layer.weight.shape, "int8", "weight")
    bias = te.placeholder(layer.bias.shape, "int32", "bias")
    padded = _padded(layer, data)
    row = te.reduce_axis((0, layer.kernel[0]), "row")
    column = te.reduce_axis((0, layer.kernel[1]), "column")
    channel = te.reduce_axis((0, layer.input_shape[2]), "channel")
    stride_y, stride_x = layer.stride

    def product(y: tirx.Expr, x: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        from_row, from_column = y * stride_y + row, x * stride_x + column
        if isinstance(layer, DepthwiseConvolution):
            value, factor = padded[from_row, from_column, n // layer.multiplier], weight[row, column, n]
        else:
            value, factor = padded[from_row, from_column, channel], weight[n, row, column, channel]
        axes = [row, column] if isinstance(layer, DepthwiseConvolution) else [row, column, channel]
        return te.sum(value.astype("int32") * factor.astype("int32"), axis=axes)

    acc = te.compute(layer.output_shape, product, name="acc")
    return _requantized(layer, data, acc, lambda y, x, n: acc[y, x, n] + bias[n], [weight, bias])


def _average_pool(layer: AveragePool) -> Kernel:
    height, width, _ = layer.input_shape
    data = te.placeholder(layer.input_shape, "int8", "input0")
    row, column = te.reduce_axis((0, height), "row"), te.reduce_axis((0, width), "column")
    acc = te.compute(
        layer.output_shape, lambda y, x, n: te.sum(data[row, column, n].astype("int32"), axis=[row, column]), name="acc"
    )
    return _requantized(layer, data, acc, lambda y, x, n: acc[y, x, n] + layer.bias, [])


def _add(layer: Add) -> Kernel:
    a, b = (te.placeholder(layer.output_shape, "int8", f"input{index}") for index in range(2))
    p = layer.parameters

    def total(*at: tirx.Expr) -> tirx.Expr:
        value = a[at].astype("int32") * p.multiplier_a + b[at].astype("int32") * p.multiplier_b + p.constant
        return _clamped(value >> p.shift, p.minimum, p.maximum)

    output = te.compute(layer.output_shape, total, name="output")
    return Kernel("unscheduled", te.create_prim_func([a, b, output]))


def _padded(layer: Convolution | DepthwiseConvolution, data: te.Tensor) -> te.Tensor:
    top, left, bottom, right = layer.padding
    if not any(layer.padding):
        return data
    height, width, channels = layer.input_shape
    zero_point = tirx.const(layer.input_zero_point, "int8")

    def value(y: tirx.Expr, x: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
        inside = tirx.all(y >= top, y < top + height, x >= left, x < left + width)
        return tirx.if_then_else(inside, data[y - top, x - left, c], zero_point)

    return te.compute((height + top + bottom, width + left + right, channels), value, name="padded")


def _requantized(
    layer: Convolution | DepthwiseConvolution | AveragePool,
    data: te.Tensor,
    acc: te.Tensor,
    value: Callable[[tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr],
    constants: list[te.Tensor],
) -> Kernel:
    requantization = layer.requantization
    multiplier = te.placeholder((layer.output_shape[2],), "int32", "multiplier")
    left_shift = te.placeholder((layer.output_shape[2],), "int32", "left_shift")
    shifted = bool(requantization.left_shift.any())
    # All channels of a pool have the same factor: arrays of it would only take flash.
    pool = isinstance(layer, AveragePool)

    def factor(n: tirx.Expr) -> tirx.Expr:
        return tirx.const(int(requantization.multiplier[0]), "int32") if pool else multiplier[n]

    def power(n: tirx.Expr) -> tirx.Expr:
        return tirx.const(1, "int32") << (int(requantization.left_shift[0]) if pool else left_shift[n])

    def rounded(y: tirx.Expr, x: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        total = value(y, x, n)
        if shifted:
            # C leaves the left shift of a negative value undefined; compilers make this product a shift.
            total = total * power(n)
        high = tirx.call_extern("int32", MULTIPLY_HIGH, total, factor(n))
        return _clamped(high + requantization.zero_point, requantization.minimum, requantization.maximum)

    output = te.compute(layer.output_shape, rounded, name="output")
    if not pool:
        constants = [*constants, multiplier, left_shift] if shifted else [*constants, multiplier]
    function = te.create_prim_func([data, output, *constants])
    return Kernel("unscheduled", function, {tensor.op.name: _array(layer, tensor.op.name) for tensor in constants})


def _scheduled(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a layer with a sum computed one output at a time."""
    schedule = s_tir.Schedule(function)
    blocks = {str(schedule.get(block).name_hint) for block in schedule.get_child_blocks(schedule.get_sblock("root"))}
    if "padded" in blocks:
        schedule.compute_inline(schedule.get_sblock("padded"))
    spatial = schedule.get_loops(schedule.get_sblock("output"))
    acc_block = schedule.get_sblock("acc")
    # A sum of one product (a pool over one pixel) has unit loops only, and needs one to stand its start before.
    schedule.compute_at(acc_block, spatial[-1], preserve_unit_loops=True)
    schedule.decompose_reduction(acc_block, schedule.get_loops(acc_block)[len(spatial)])
    return schedule.mod["main"]


def _array(layer: Convolution | DepthwiseConvolution | AveragePool, name: str) -> np.ndarray:
    source: Layer | Requantization = layer.requantization if name in ("multiplier", "left_shift") else layer
    value: np.ndarray = getattr(source, name)
    return value


def _clamped(value: tirx.Expr, minimum: int, maximum: int) -> tirx.Expr:
    # Not TVM's maximum and minimum: its C generator takes two of the same text for equal, whatever was stored between.
    return tirx.call_extern("int32", CLAMP, value, minimum, maximum).astype("int8")
