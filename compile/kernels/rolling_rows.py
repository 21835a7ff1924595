"""When which rows of a fused chain of layers are computed.

A chain runs in steps. In each step every layer computes its next rows from rows of the layer before that are there;
what of them the next step needs again is carried over. Layer i computes ``rows`` rows a step and lags ``lag`` rows
behind: in step t its rows ``[t * rows - lag, (t + 1) * rows - lag)``, as far as they lie in the image. With one step
for the whole image there is no lag and nothing to carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thumbnet.compile.kernels.chains import Link
from thumbnet.compile.network.layers import DepthwiseLayer


@dataclass(frozen=True)
class RollingRows:
    """The rows of one layer of a chain.

    Parameters
    ----------
    height : int
        Rows of its output.
    rows, lag : int
        See the module's docstring.
    window_rows : int
        Depthwise layers: rows of the window on its input that are kept; 0 for others.
    new_row : int
        Depthwise layers: where in the window the rows new in a step begin.
    first_row : int
        Depthwise layers: the window's first row in step 0, in rows of the input (negative: border).
    """

    height: int
    rows: int
    lag: int
    window_rows: int = 0
    new_row: int = 0
    first_row: int = 0

    @property
    def carried_rows(self) -> int:
        """Rows of the window that the next step needs again."""
        return max(self.window_rows - self.step_rows, 0)

    @property
    def step_rows(self) -> int:
        """Rows by which the window moves on in a step."""
        return self.window_rows - self.new_row


def plan_rows(layers: Sequence[Link], rows: int) -> tuple[list[RollingRows], int]:
    """Return the rows of each layer, and the number of steps.

    Parameters
    ----------
    layers : sequence of Layer or Gather
        A chain: each but the first consumes the one before. The first may read any rows of its input at any time.
    rows : int
        Rows of the last layer's output a step; its height or more means one step.
    """
    last = layers[-1].output_shape[0]
    whole = rows >= last
    strides = [layer.stride[0] if isinstance(layer, DepthwiseLayer) else 1 for layer in layers]
    rows_of = [rows] * len(layers)
    for index in range(len(layers) - 2, -1, -1):
        rows_of[index] = rows_of[index + 1] * strides[index + 1]
    plan: list[RollingRows] = []
    lag = 0
    for index, layer in enumerate(layers):
        height = layer.output_shape[0]
        if index > 0 and isinstance(layer, DepthwiseLayer):
            plan.append(_after(layer, rows_of[index], lag, whole=whole))
            lag = plan[-1].lag
        else:
            plan.append(RollingRows(height, height if whole else rows_of[index], lag))
    steps = 1 if whole else -(-(last + lag) // rows)
    return plan, steps


def _after(layer: DepthwiseLayer, rows: int, source_lag: int, *, whole: bool) -> RollingRows:
    stride, kernel, top = layer.stride[0], layer.kernel[0], layer.padding[0]
    source_rows = rows * stride
    height = layer.output_shape[0]
    if whole:
        window = layer.input_shape[0] + top + layer.padding[2]
        return RollingRows(height, height, 0, window, top, -top)
    # Output row y needs input rows up to stride * y - top + kernel - 1.
    lag = -((top + stride - kernel - source_lag) // stride)
    first = -(stride * lag + top)
    new = -first - source_lag
    return RollingRows(height, rows, lag, new + source_rows, new, first)
