"""Float32 kernels for any core, as `portable` has them for int8: what no chain takes, one output at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import s_tir, te, tirx

from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.kernels.portable_pool import build_max_pool
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatMaxPool,
)


def build_portable_float(layer: FloatLayer) -> Kernel:
    """Return the plain kernel of a layer; inputs are called ``input0``, ``input1``, the output ``output``."""
    match layer:
        case FloatConvolution() | FloatDepthwiseConvolution():
            return _convolution(layer)
        case FloatAveragePool():
            return _average_pool(layer)
        case FloatMaxPool():
            return build_max_pool(layer, "float32", lambda value: _clamped(layer, value))
        case FloatAdd():
            a, b = (te.placeholder(layer.output_shape, "float32", f"input{index}") for index in range(2))
            output = te.compute(layer.output_shape, lambda *at: _clamped(layer, a[at] + b[at]), name="output")
            return Kernel("portable", te.create_prim_func([a, b, output]))


def _convolution(layer: FloatConvolution | FloatDepthwiseConvolution) -> Kernel:
    depthwise = isinstance(layer, FloatDepthwiseConvolution)
    data = te.placeholder(layer.input_shape, "float32", "input0")
    weight = te.placeholder(layer.weight.shape, "float32", "weight")
    bias = te.placeholder(layer.bias.shape, "float32", "bias")
    row = te.reduce_axis((0, layer.kernel[0]), "row")
    column = te.reduce_axis((0, layer.kernel[1]), "column")
    channel = te.reduce_axis((0, layer.input_shape[2]), "channel")
    (height, width, _), (top, left, _, _) = layer.input_shape, layer.padding

    def product(y: tirx.Expr, x: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        at = y * layer.stride[0] + row - top, x * layer.stride[1] + column - left
        value = data[(*at, n // layer.multiplier if isinstance(layer, FloatDepthwiseConvolution) else channel)]
        if any(layer.padding):
            inside = tirx.all(at[0] >= 0, at[0] < height, at[1] >= 0, at[1] < width)
            value = tirx.if_then_else(inside, value, tirx.const(0, "float32"))
        factor = weight[row, column, n] if depthwise else weight[n, row, column, channel]
        return te.sum(value * factor, axis=[row, column] if depthwise else [row, column, channel])

    acc = te.compute(layer.output_shape, product, name="acc")
    constants = [(weight, layer.weight), (bias, layer.bias)]
    return _scheduled(layer, data, acc, lambda y, x, n: acc[y, x, n] + bias[n], constants)


def _average_pool(layer: FloatAveragePool) -> Kernel:
    height, width, _ = layer.input_shape
    data = te.placeholder(layer.input_shape, "float32", "input0")
    row, column = te.reduce_axis((0, height), "row"), te.reduce_axis((0, width), "column")
    acc = te.compute(layer.output_shape, lambda y, x, n: te.sum(data[row, column, n], axis=[row, column]), name="acc")
    part = tirx.const(1 / (height * width), "float32")
    return _scheduled(layer, data, acc, lambda y, x, n: acc[y, x, n] * part, [])


def _scheduled(
    layer: FloatConvolution | FloatDepthwiseConvolution | FloatAveragePool,
    data: te.Tensor,
    acc: te.Tensor,
    value: Callable[[tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr],
    constants: list[tuple[te.Tensor, np.ndarray]],
) -> Kernel:
    output = te.compute(layer.output_shape, lambda *at: _clamped(layer, value(*at)), name="output")
    schedule = s_tir.Schedule(te.create_prim_func([data, output, *(tensor for tensor, _ in constants)]))
    spatial = schedule.get_loops(schedule.get_sblock("output"))
    acc_block = schedule.get_sblock("acc")
    # A sum of one product (a pool over one pixel) has unit loops only, and needs one to stand its start before.
    schedule.compute_at(acc_block, spatial[-1], preserve_unit_loops=True)
    schedule.decompose_reduction(acc_block, schedule.get_loops(acc_block)[len(spatial)])
    return Kernel("portable", schedule.mod["main"], {tensor.op.name: array for tensor, array in constants})


def _clamped(layer: FloatLayer, value: tirx.Expr) -> tirx.Expr:
    if np.isfinite(layer.maximum):
        value = tirx.min(value, tirx.const(layer.maximum, "float32"))
    if np.isfinite(layer.minimum):
        value = tirx.max(value, tirx.const(layer.minimum, "float32"))
    return value
