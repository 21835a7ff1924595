"""PyTorch's operators one by one: what each becomes of the layers there are kernels for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from thumbnet.compile.errors import UnsupportedOperatorError
from thumbnet.compile.frontend.network_builder import Activation, NetworkBuilder, Padding, Pair, sum_padding
from thumbnet.compile.frontend.refused_operators import what_it_would_take
from thumbnet.compile.frontend.torch_node import Value, as_tensor, filled, operator_of, pair_of, path_of, same

#: Arguments by name that change nothing, or that are read.
_KEYWORDS = {"dtype", "memory_format", "inplace", "alpha"}
#: Operators that give the same values in another shape, or the part that has them all.
MOVES = frozenset({"flatten", "view", "reshape", "squeeze", "unsqueeze", "select", "slice"})
#: Operators that give what they take, or a copy.
_COPIES = frozenset({"clone", "lift_fresh_copy"})
SAME = frozenset({"contiguous", "detach", "alias"}) | _COPIES
_CONVERSIONS = frozenset({"to", "_to_copy"})
_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout"})
#: Operators whose output may lie in the memory of what they take.
VIEWS = (MOVES | SAME | _CONVERSIONS | _DROPOUTS) - _COPIES


class OperatorReader:
    """Puts the layers of operators into a network.

    Parameters
    ----------
    builder : NetworkBuilder
        The network.
    values : mapping
        What stands for each node that was read.
    """

    def __init__(self, builder: NetworkBuilder, values: Mapping[Node, Value]) -> None:
        self.builder = builder
        self.values = values
        self.readers: dict[str, Callable[[Node, list[Value]], Value]] = {
            "conv2d": self._convolution,
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "add": self._add,
            "sub": self._subtract,
            "rsub": lambda node, values: self._subtract(node, [values[1], values[0]]),
            "mul": self._multiply,
            "div": self._divide,
            "neg": lambda node, values: self._affine(node, values[0], -1.0, 0.0),
            "relu": lambda node, values: self._clamp(node, values[0], 0.0, None),
            "relu6": lambda node, values: self._clamp(node, values[0], 0.0, 6.0),
            "hardtanh": lambda node, values: self._clamp(node, *filled(values, (None, -1.0, 1.0))),
            **dict.fromkeys(
                ("clamp", "clip"), lambda node, values: self._clamp(node, *filled(values, (None, None, None)))
            ),
            **dict.fromkeys(("clamp_min", "maximum"), lambda node, values: self._bounded(node, values, below=True)),
            **dict.fromkeys(("clamp_max", "minimum"), lambda node, values: self._bounded(node, values, below=False)),
            "max_pool2d": self._max_pool,
            "avg_pool2d": self._average_window,
            "adaptive_avg_pool2d": self._adaptive_average,
            # Two values, of which the places of the largest have no form here.
            "adaptive_max_pool2d": lambda node, values: (self._adaptive_maximum(node, values), None),
            "getitem": lambda _, values: values[0][values[1]],
            "mean": self._mean,
            "amax": self._largest,
            "constant_pad_nd": self._pad,
            "pad": self._pad,
            **dict.fromkeys(MOVES, self._reshape),
            **dict.fromkeys(_DROPOUTS, self._dropout),
            **dict.fromkeys(_CONVERSIONS, self._convert),
            **dict.fromkeys(SAME, same),
        }

    def read(self, node: Node, arguments: list[Value], keywords: Mapping[str, Value]) -> Value:
        """Return what an operator gives.

        Raises
        ------
        UnsupportedOperatorError
            It has no form here.
        """
        name = operator_of(node)
        if name not in self.readers or keywords.keys() - _KEYWORDS:
            raise self.refused(node)
        if keywords.get("alpha", 1) != 1:
            arguments = [arguments[0], self._scaled(node, arguments[1], keywords["alpha"]), *arguments[2:]]
        value = self.readers[name](node, arguments)
        shape = getattr(node.meta.get("val"), "shape", None)
        if (
            isinstance(value, Activation)
            and shape is not None
            and math.prod(shape) != math.prod(self.builder.shape(value))
        ):
            raise self.refused(node, f"one of its operands is spread to {list(shape)}; give both one shape")
        return value

    # ---- operators -----------------------------------------------------------------------------------------------

    def _convolution(self, node: Node, values: list[Value]) -> Activation:
        source, weight, bias, stride, padding, dilation, groups = filled(values, (None,) * 3 + (1, 0, 1, 1))
        kernel = self._array(node, weight)
        steps = pair_of(dilation)
        if steps != (1, 1):
            # The same sums: the taps between are zeros.
            spread = [(extent - 1) * step + 1 for extent, step in zip(kernel.shape[2:], steps, strict=True)]
            wide = np.zeros((*kernel.shape[:2], *spread), np.float32)
            wide[:, :, :: steps[0], :: steps[1]] = kernel
            kernel = wide
        if isinstance(padding, str):
            borders = [extent - 1 if padding == "same" else 0 for extent in kernel.shape[2:]]
            top, left = (border // 2 for border in borders)
            around: Padding = (top, left, borders[0] - top, borders[1] - left)
        else:
            around = pair_of(padding) * 2
        if self.builder.shape(self._image(node, source))[2] == 1:
            groups = 1  # of one channel each
        options = {"stride": pair_of(stride), "padding": around, "groups": groups}
        return self.builder.convolution(self._name(node), source, kernel, self._bias(node, bias), **options)

    def _linear(self, node: Node, values: list[Value]) -> Activation:
        source, weight, bias = filled(values, (None,) * 3)
        matrix = self._array(node, weight)
        size = math.prod(self.builder.shape(self._activation(node, source)))
        if size != matrix.shape[1] or (not source.flat and self.builder.shape(source)[:2] != (1, 1)):
            raise self.refused(node, f"of {size} values a pixel's or an image's {matrix.shape[1]} are wanted")
        return self.builder.linear(self._name(node), source, matrix, self._bias(node, bias))

    def _batch_norm(self, node: Node, values: list[Value]) -> Activation:
        source, weight, bias, mean, variance, training, _, epsilon, _ = values
        channels = self.builder.shape(self._activation(node, source))[2]
        if training or mean is None or variance is None:
            raise self.refused(node, "it has no running mean and variance; track_running_stats=True keeps them")
        centre, spread = (self._array(node, value).astype(np.float64) for value in (mean, variance))
        if (spread + epsilon <= 0).any():
            raise self.refused(node, f"a running variance of {spread.min():g} is below 0; the weights are damaged")
        factor = 1 / np.sqrt(spread + epsilon)
        if weight is not None:
            factor = factor * self._array(node, weight)
        shift = -centre * factor + (np.zeros(channels) if bias is None else self._array(node, bias))
        return self._affine(node, source, factor, shift)

    def _add(self, node: Node, values: list[Value]) -> Activation:
        a, b = values[:2]
        if isinstance(a, Activation) and isinstance(b, Activation):
            return self.builder.add(self._name(node), a, b)
        source, constant = (a, b) if isinstance(a, Activation) else (b, a)
        return self._affine(node, source, 1.0, constant)

    def _subtract(self, node: Node, values: list[Value]) -> Activation:
        a, b = values[:2]
        if isinstance(a, Activation) and isinstance(b, Activation):
            opposite = self._scaled(node, b, -1.0)
            return self.builder.add(self._name(node), a, opposite)
        if isinstance(a, Activation):
            return self._affine(node, a, 1.0, -as_tensor(b))
        return self._affine(node, b, -1.0, a)

    def _multiply(self, node: Node, values: list[Value]) -> Activation:
        a, b = values[:2]
        if isinstance(a, Activation) and isinstance(b, Activation):
            raise self.refused(node)
        source, constant = (a, b) if isinstance(a, Activation) else (b, a)
        return self._affine(node, source, constant, 0.0)

    def _divide(self, node: Node, values: list[Value]) -> Activation:
        a, b = values[:2]
        if not isinstance(a, Activation) or isinstance(b, Activation):
            raise self.refused(node, "only constants divide")
        return self._affine(node, a, 1 / as_tensor(b).double(), 0.0)

    def _max_pool(self, node: Node, values: list[Value]) -> Activation:
        source, kernel, stride, padding, dilation, ceil = filled(values, (None, None, None, 0, 1, False))
        size, steps, around = pair_of(kernel), pair_of(stride or kernel), pair_of(padding) * 2
        beyond = ceil and self._reaches_beyond(node, source, size, steps, around)
        if pair_of(dilation) != (1, 1) or beyond:
            raise self.refused(
                node, "dilated windows, or beyond the image (ceil_mode), are not read; pad or cut before"
            )
        return self.builder.max_pool(self._name(node), self._image(node, source), size, steps, around)

    def _average_window(self, node: Node, values: list[Value]) -> Activation:
        source, kernel, stride, padding, ceil, counted, divisor = filled(
            values, (None, None, None, 0, False, True, None)
        )
        size, steps, around = pair_of(kernel), pair_of(stride or kernel), pair_of(padding) * 2
        beyond = ceil and self._reaches_beyond(node, source, size, steps, around)
        if beyond or divisor is not None or (any(around) and not counted):
            raise self.refused(
                node,
                "zeros around the image must count (count_include_pad), and windows end within it (ceil_mode) and"
                " divide by their size (divisor_override)",
            )
        if size == self.builder.shape(self._image(node, source))[:2] and not any(around):
            return self.builder.average_pool(self._name(node), source)
        return self.builder.window_average(self._name(node), source, size, steps, around)

    def _reaches_beyond(self, node: Node, source: Value, size: Pair, steps: Pair, around: Padding) -> bool:
        """Tell whether windows that may end beyond an image do so."""
        extents = self.builder.shape(self._image(node, source))[:2]
        lengths = (extents[0] + around[0] + around[2], extents[1] + around[1] + around[3])
        return any((length - taps) % step for length, taps, step in zip(lengths, size, steps, strict=True))

    def _adaptive_average(self, node: Node, values: list[Value]) -> Activation:
        source, size = values
        kernel = self._window_of(node, source, size)
        if kernel == self.builder.shape(source)[:2]:
            return self.builder.average_pool(self._name(node), source)
        return self.builder.window_average(self._name(node), source, kernel, kernel)

    def _adaptive_maximum(self, node: Node, values: list[Value]) -> Activation:
        source, size = values
        kernel = self._window_of(node, source, size)
        return self.builder.max_pool(self._name(node), source, kernel, kernel)

    def _window_of(self, node: Node, source: Activation, size: Any) -> Pair:  # noqa: ANN401 - a number or two
        """Return the window that gives so many rows and columns."""
        extents = self.builder.shape(self._image(node, source))[:2]
        wanted = [extent if want is None else want for want, extent in zip(pair_of(size), extents, strict=True)]
        if any(extent % want for want, extent in zip(wanted, extents, strict=True)):
            raise self.refused(node, f"{extents[0]} x {extents[1]} pixels are not parted evenly by {wanted}")
        return extents[0] // wanted[0], extents[1] // wanted[1]

    def _mean(self, node: Node, values: list[Value]) -> Activation:
        source, window = self._over_pixels(node, values)
        if window == self.builder.shape(source)[:2]:
            return self.builder.average_pool(self._name(node), source)
        return self.builder.window_average(self._name(node), source, window, window)

    def _largest(self, node: Node, values: list[Value]) -> Activation:
        source, window = self._over_pixels(node, values)
        return self.builder.max_pool(self._name(node), source, window, window)

    def _over_pixels(self, node: Node, values: list[Value]) -> tuple[Activation, Pair]:
        """Return what is read over rows, columns or both, and the window that is."""
        source, axes = filled(values, (None, ()))[:2]
        activation, axis_count = self._activation(node, source), _axis_count(node)
        wanted = {axis % axis_count for axis in ([axes] if isinstance(axes, int) else axes or ())}
        height, width = self.builder.shape(activation)[:2]
        windows = {(4, (2, 3)): (height, width), (4, (2,)): (height, 1), (4, (3,)): (1, width)}
        # Of three axes, [1, C, pixels], the last has all pixels.
        window = (windows | {(3, (2,)): (height, width)}).get((axis_count, tuple(sorted(wanted))))
        if activation.flat or window is None:
            raise self.refused(node, "only over rows, columns or both, the axes (2, 3)")
        return activation, window

    def _pad(self, node: Node, values: list[Value]) -> Activation:
        source, (left, right, *others) = self._image(node, values[0]), values[1]
        top, bottom, *more = [*others, 0, 0][: max(2, len(others))]
        with_zeros = all(value in (0, None, "constant") for value in values[2:])
        if not with_zeros or any(more) or min(left, right, top, bottom) < 0:
            raise self.refused(node, "only with zeros, around rows and columns")
        return replace(source, padding=sum_padding(source.padding, (top, left, bottom, right)))

    def _reshape(self, node: Node, values: list[Value]) -> Activation:
        source = self.builder.unpadded(self._activation(node, values[0]))
        height, width, channels = self.builder.shape(source)
        shape = tuple(node.meta["val"].shape)
        if shape in ((1, channels, height, width), (1, channels, height * width)):
            return replace(source, flat=False)
        whole = math.prod(shape) == height * width * channels
        # Of one pixel all shapes are a row, with as many axes of length 1.
        if whole and (shape[1:] == (math.prod(shape),) or (height, width) == (1, 1)):
            return replace(source, flat=True)
        raise self.refused(
            node,
            f"to {list(shape)}, where layers take an image {[1, channels, height, width]} or all of its values as one"
            " row",
        )

    def _dropout(self, node: Node, values: list[Value]) -> Value:
        if values[2]:
            raise self.refused(node, "it drops values of trained networks too; leave it out in eval mode")
        return values[0]

    def _convert(self, node: Node, values: list[Value]) -> Value:
        if not node.meta["val"].dtype.is_floating_point:
            raise self.refused(node, f"to {node.meta['val'].dtype}; the values of float networks stay floats")
        return values[0]

    def _clamp(self, node: Node, source: Value, minimum: Value, maximum: Value) -> Activation:
        activation, ends = self._activation(node, source), [-math.inf, math.inf]
        for number, bound in enumerate((minimum, maximum)):
            if isinstance(bound, Activation) or (bound is not None and as_tensor(bound).numel() != 1):
                raise self.refused(node, "only between two numbers that all values have in common")
            ends[number] = ends[number] if bound is None else float(as_tensor(bound))
        return self.builder.clamp(self._name(node), activation, *ends, read_once=self._is_read_once(activation))

    def _bounded(self, node: Node, values: list[Value], *, below: bool) -> Activation:
        source, bound = values if isinstance(values[0], Activation) else values[::-1]
        return self._clamp(node, source, *((bound, None) if below else (None, bound)))

    def _scaled(self, node: Node, source: Activation, factor: float) -> Activation:
        return self._affine(node, source, factor, 0.0, read_once=False)

    def _affine(
        self, node: Node, source: Activation, scale: Value, shift: Value, *, read_once: bool | None = None
    ) -> Activation:
        activation = self._activation(node, source)
        alone = self._is_read_once(activation) if read_once is None else read_once
        factors = [self._of_channels(node, activation, value) for value in (scale, shift)]
        return self.builder.affine(self._name(node), activation, *factors, read_once=alone)

    def _of_channels(self, node: Node, source: Activation, value: Value) -> NDArray[np.float64]:
        """Return a constant as one number a channel ``[C]``."""
        height, width, channels = self.builder.shape(source)
        array = as_tensor(value).detach().double().numpy()
        if not np.isfinite(array).all():
            raise self.refused(node, "its constants are no finite numbers")
        whole = array.size in (1, channels)
        flat = (source.flat or node.meta["val"].ndim == 2) and (height, width) == (1, 1)
        # In [1, C, H, W] a channel's number stands before two axes; in [1, C], and in a norm's vector, alone.
        norm = operator_of(node) == "batch_norm"
        if not whole or (array.size > 1 and not norm and (array.ndim < 3) != flat):
            raise self.refused(
                node, f"a constant of shape {list(array.shape)} is no number for each of {channels} channels"
            )
        return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float64)

    # ---- what operators are made of --------------------------------------------------------------------------------

    def _is_read_once(self, activation: Activation) -> bool:
        """Tell whether one operator reads an activation, and one each what it was before, back to its layer."""
        return all(
            len(node.users) == 1
            for node, value in self.values.items()
            if isinstance(value, Activation) and value.layer == activation.layer
        )

    def _activation(self, node: Node, value: Value) -> Activation:
        if not isinstance(value, Activation):
            raise self.refused(node, "its first argument doesn't depend on the image")
        return value

    def _image(self, node: Node, value: Value) -> Activation:
        activation = self._activation(node, value)
        if activation.flat or _axis_count(node) != 4:
            raise self.refused(node, "it takes an image [1, C, H, W], no other shape")
        return activation

    def _array(self, node: Node, value: Value) -> NDArray[np.float32]:
        if not isinstance(value, torch.Tensor):
            raise self.refused(node, "its weights are no constants")
        array: NDArray[np.float32] = value.detach().to(torch.float32).numpy()
        if not np.isfinite(array).all():
            raise self.refused(node, "its weights are no finite numbers; train it again")
        return array

    def _bias(self, node: Node, value: Value) -> NDArray[np.float32] | None:
        return None if value is None else self._array(node, value)

    def _name(self, node: Node) -> str:
        return self.builder.free_name(path_of(node), operator_of(node))

    def refused(self, node: Node, why: str | None = None) -> UnsupportedOperatorError:
        """Return the error that names an operator and its place, and why or what it would take."""
        place, name = path_of(node) or "the network", operator_of(node)
        return UnsupportedOperatorError(
            f"{place}: PyTorch's {name} has no form here; {why or what_it_would_take(name, path_of(node))}"
        )


def _axis_count(node: Node) -> int:
    """Return how many axes an operator's first argument has."""
    return int(node.all_input_nodes[0].meta["val"].ndim)
