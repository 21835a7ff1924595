"""The largest value under a window on any core, one output at a time: of int8 and of float32."""

from __future__ import annotations

from collections.abc import Callable

from tvm import s_tir, te, tirx

from thumbnet.compile.kernels.kernel import Kernel
from thumbnet.compile.network.layers import MaxPoolLayer


def build_max_pool(layer: MaxPoolLayer, dtype: str, finish: Callable[[tirx.Expr], tirx.Expr]) -> Kernel:
    """Return the kernel of a layer.

    Parameters
    ----------
    layer : MaxPoolLayer
        What to compute.
    dtype : str
        Of its values.
    finish : callable
        From the largest value to the output.
    """
    data = te.placeholder(layer.input_shape, dtype, "input0")
    row = te.reduce_axis((0, layer.kernel[0]), "row")
    column = te.reduce_axis((0, layer.kernel[1]), "column")
    (height, width, _), (top, left, _, _) = layer.input_shape, layer.padding

    def of_window(y: tirx.Expr, x: tirx.Expr, n: tirx.Expr) -> tirx.Expr:
        at = y * layer.stride[0] + row - top, x * layer.stride[1] + column - left
        value = data[(*at, n)]
        if any(layer.padding):
            inside = tirx.all(at[0] >= 0, at[0] < height, at[1] >= 0, at[1] < width)
            value = tirx.if_then_else(inside, value, tirx.min_value(dtype))
        return te.max(value, axis=[row, column])

    acc = te.compute(layer.output_shape, of_window, name="acc")
    output = te.compute(layer.output_shape, lambda *at: finish(acc[at]), name="output")
    schedule = s_tir.Schedule(te.create_prim_func([data, output]))
    spatial = schedule.get_loops(schedule.get_sblock("output"))
    acc_block = schedule.get_sblock("acc")
    schedule.compute_at(acc_block, spatial[-1], preserve_unit_loops=True)
    schedule.decompose_reduction(acc_block, schedule.get_loops(acc_block)[len(spatial)])
    return Kernel("portable", schedule.mod["main"])
