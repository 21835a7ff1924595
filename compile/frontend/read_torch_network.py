"""From anybody's feed-forward PyTorch module to a float32 network of the layers there are kernels for.

What torch.export gives is read operator by operator. Constants are computed, batch norms and activations become part of
the layer before them, and what has no form is refused by PyTorch's name and place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import GraphModule, Node

from thumbnet.compile.errors import UnsupportedOperatorError
from thumbnet.compile.frontend.network_builder import Activation, NetworkBuilder, Padding, Pair, sum_padding
from thumbnet.compile.frontend.refused_operators import what_it_would_take
from thumbnet.compile.frontend.torch_node import (
    Value,
    as_tensor,
    attribute_of,
    filled,
    flattened,
    is_only_read_by_output,
    operator_of,
    pair_of,
    path_of,
    same,
)
from thumbnet.compile.network.float_network import FloatNetwork
from thumbnet.compile.network.layers import NETWORK_INPUT

#: Row and column of a tensor ``[1, C, H, W]``.
_PIXEL_AXES = {2, 3}


def read_torch_network(module: nn.Module, input_shape: tuple[int, int, int]) -> FloatNetwork:
    """Return the network that a module computes.

    Parameters
    ----------
    module : nn.Module
        float32; it is put in eval mode. Takes ``[1, C, H, W]`` and returns logits ``[1, classes]``; a softmax at its
        end is left out.
    input_shape : (C, H, W)
        Of one image.

    Raises
    ------
    UnsupportedOperatorError
        There is something in it that no layer here computes; named by PyTorch's name and place.
    """
    channels, height, width = input_shape
    try:
        with torch.no_grad():
            exported = torch.export.export(module.eval(), (torch.zeros(1, channels, height, width),)).module()
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UnsupportedOperatorError(
            f"{type(module).__name__}: PyTorch can't export it for an image of {channels} x {height} x {width}"
            f" ({type(error).__name__}: {lines[0] if lines else 'no message'})"
        ) from error
    assert isinstance(exported, GraphModule)
    return _Reader(exported, (height, width, channels)).network()


class _Reader:
    def __init__(self, graph: GraphModule, input_shape: tuple[int, int, int]) -> None:
        self.graph = graph
        self.builder = NetworkBuilder(input_shape)
        self.values: dict[Node, Value] = {}
        self.readers: dict[str, Callable[[Node, list[Value]], Value]] = {
            "conv2d": self._convolution,
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "add": self._add,
            "sub": self._subtract,
            "rsub": lambda node, values: self._subtract(node, [values[1], values[0]]),
            "mul": self._multiply,
            "div": self._divide,
            "relu": lambda node, values: self._clamp(node, values[0], 0.0, math.inf),
            "relu6": lambda node, values: self._clamp(node, values[0], 0.0, 6.0),
            "hardtanh": lambda node, values: self._clamp(node, *filled(values, (None, -1.0, 1.0))),
            "clamp": lambda node, values: self._clamp(node, *filled(values, (None, None, None))),
            "clamp_min": lambda node, values: self._clamp(node, values[0], values[1], None),
            "clamp_max": lambda node, values: self._clamp(node, values[0], None, values[1]),
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
            **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze"), self._reshape),
            **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), same),
            **dict.fromkeys(("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "to", "_to_copy"), same),
        }

    def network(self) -> FloatNetwork:
        images = 0
        for node in self.graph.graph.nodes:
            match node.op:
                case "placeholder":
                    images += 1
                    self.values[node] = Activation(NETWORK_INPUT)
                case "get_attr":
                    self.values[node] = attribute_of(self.graph, str(node.target))
                case "call_function":
                    self.values[node] = self._call(node)
                case "output":
                    output = self._output(node)
                # A call_module checks the input's shape.
        if images != 1:
            raise UnsupportedOperatorError(f"the network takes {images} inputs; one image is read here")
        return self.builder.network(output)

    def _output(self, node: Node) -> Activation:
        outputs = node.args[0]
        [found, *others] = outputs if isinstance(outputs, tuple | list) else [outputs]
        if others or not isinstance(found, Node):
            raise UnsupportedOperatorError(
                f"the network returns {1 + len(others)} values; one row of classes is wanted"
            )
        # The classes keep their order.
        while operator_of(found) in ("softmax", "log_softmax", "_softmax", "_log_softmax"):
            source = found.args[0]
            assert isinstance(source, Node)
            found = source
        value = self.values[found]
        if not isinstance(value, Activation):
            raise UnsupportedOperatorError("the network's output doesn't depend on the image")
        return self.builder.unpadded(value)

    def _call(self, node: Node) -> Value:
        arguments = [self._value(argument) for argument in node.args]
        keywords = {name: self._value(argument) for name, argument in node.kwargs.items()}
        if not any(isinstance(value, Activation) for value in flattened([*arguments, *keywords.values()])):
            with torch.no_grad():
                return node.target(*arguments, **keywords)  # type: ignore[operator]
        name = operator_of(node)
        if name in ("softmax", "log_softmax", "_softmax", "_log_softmax") and is_only_read_by_output(node):
            return None
        if name == "sym_size" or str(node.target).startswith("aten._assert"):
            return None
        if name not in self.readers or keywords.keys() - {"dtype", "memory_format", "inplace", "alpha"}:
            raise self._refused(node)
        if keywords.get("alpha", 1) != 1:
            arguments[1] = self._scaled(node, arguments[1], keywords["alpha"])
        return self.readers[name](node, arguments)

    def _value(self, argument: Any) -> Value:  # noqa: ANN401 - whatever an argument may be
        if isinstance(argument, Node):
            return self.values[argument]
        return [self._value(item) for item in argument] if isinstance(argument, list | tuple) else argument

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
        if self.builder.shape(self._activation(node, source))[2] == 1:
            groups = 1  # of one channel each
        options = {"stride": pair_of(stride), "padding": around, "groups": groups}
        return self.builder.convolution(self._name(node), source, kernel, self._bias(node, bias), **options)

    def _linear(self, node: Node, values: list[Value]) -> Activation:
        source, weight, bias = filled(values, (None,) * 3)
        matrix = self._array(node, weight)
        size = math.prod(self.builder.shape(self._activation(node, source)))
        if size != matrix.shape[1] or (not source.flat and self.builder.shape(source)[:2] != (1, 1)):
            raise self._refused(node, f"of {size} values a pixel's or an image's {matrix.shape[1]} are wanted")
        return self.builder.linear(self._name(node), source, matrix, self._bias(node, bias))

    def _batch_norm(self, node: Node, values: list[Value]) -> Activation:
        source, weight, bias, mean, variance, training, _, epsilon, _ = values
        channels = self.builder.shape(self._activation(node, source))[2]
        if training or mean is None or variance is None:
            raise self._refused(node, "it has no running mean and variance; track_running_stats=True keeps them")
        centre, spread = (self._array(node, value).astype(np.float64) for value in (mean, variance))
        if (spread + epsilon <= 0).any():
            raise self._refused(node, f"a running variance of {spread.min():g} is below 0; the weights are damaged")
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
            raise self._refused(node)
        source, constant = (a, b) if isinstance(a, Activation) else (b, a)
        return self._affine(node, source, constant, 0.0)

    def _divide(self, node: Node, values: list[Value]) -> Activation:
        a, b = values[:2]
        if not isinstance(a, Activation) or isinstance(b, Activation):
            raise self._refused(node, "only constants divide")
        return self._affine(node, a, 1 / as_tensor(b).double(), 0.0)

    def _max_pool(self, node: Node, values: list[Value]) -> Activation:
        source, kernel, stride, padding, dilation, ceil = filled(values, (None, None, None, 0, 1, False))
        if pair_of(dilation) != (1, 1) or ceil:
            raise self._refused(node, "dilated windows, or beyond the image (ceil_mode), are not read")
        size = pair_of(kernel)
        return self.builder.max_pool(self._name(node), source, size, pair_of(stride or size), pair_of(padding) * 2)

    def _average_window(self, node: Node, values: list[Value]) -> Activation:
        source, kernel, stride, padding, ceil, counted, divisor = filled(
            values, (None, None, None, 0, False, True, None)
        )
        size, around = pair_of(kernel), pair_of(padding) * 2
        if ceil or divisor is not None or (any(around) and not counted):
            raise self._refused(
                node, "zeros around the image must count (count_include_pad), and no ceil_mode or divisor"
            )
        if size == self.builder.shape(self._activation(node, source))[:2] and not any(around):
            return self.builder.average_pool(self._name(node), source)
        return self.builder.window_average(self._name(node), source, size, pair_of(stride or size), around)

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
        extents = self.builder.shape(self._activation(node, source))[:2]
        wanted = [extent if want is None else want for want, extent in zip(pair_of(size), extents, strict=True)]
        if any(extent % want for want, extent in zip(wanted, extents, strict=True)):
            raise self._refused(node, f"{extents[0]} x {extents[1]} pixels are not parted evenly by {wanted}")
        return extents[0] // wanted[0], extents[1] // wanted[1]

    def _mean(self, node: Node, values: list[Value]) -> Activation:
        return self.builder.average_pool(self._name(node), self._over_pixels(node, values))

    def _largest(self, node: Node, values: list[Value]) -> Activation:
        source = self._over_pixels(node, values)
        size = self.builder.shape(source)[:2]
        return self.builder.max_pool(self._name(node), source, size, size)

    def _over_pixels(self, node: Node, values: list[Value]) -> Activation:
        source, axes = filled(values, (None, ()))[:2]
        activation = self._activation(node, source)
        wanted = {axis % 4 for axis in ([axes] if isinstance(axes, int) else axes or ())}
        if activation.flat or wanted != _PIXEL_AXES:
            raise self._refused(node, "only over all rows and columns")
        return activation

    def _pad(self, node: Node, values: list[Value]) -> Activation:
        source, (left, right, *others) = self._activation(node, values[0]), values[1]
        top, bottom, *more = [*others, 0, 0][: max(2, len(others))]
        with_zeros = all(value in (0, None, "constant") for value in values[2:])
        if not with_zeros or source.flat or any(more) or min(left, right, top, bottom) < 0:
            raise self._refused(node, "only with zeros, around rows and columns")
        return replace(source, padding=sum_padding(source.padding, (top, left, bottom, right)))

    def _reshape(self, node: Node, values: list[Value]) -> Activation:
        source = self.builder.unpadded(self._activation(node, values[0]))
        height, width, channels = self.builder.shape(source)
        shape = tuple(node.meta["val"].shape)
        rows = shape[0] == 1 and math.prod(shape[1:]) == height * width * channels
        if rows and len(shape) == 2:
            return replace(source, flat=True)
        if rows and len(shape) == 4 and shape[1:] == (channels, height, width):
            return replace(source, flat=False)
        raise self._refused(node, f"to {list(shape)}, which is no row of values and no image")

    def _clamp(self, node: Node, source: Value, minimum: Value, maximum: Value) -> Activation:
        low, high = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
        if not all(isinstance(end, int | float) for end in (low, high)):
            raise self._refused(node, "only between two numbers")
        activation = self._activation(node, source)
        return self.builder.clamp(
            self._name(node), activation, float(low), float(high), read_once=self._is_read_once(activation)
        )

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
            raise self._refused(node, "its constants are no finite numbers")
        whole = array.size in (1, channels)
        flat = (source.flat or node.meta["val"].ndim == 2) and (height, width) == (1, 1)
        # In [1, C, H, W] a channel's number stands before two axes; in [1, C], and in a norm's vector, alone.
        norm = operator_of(node) == "batch_norm"
        if not whole or (array.size > 1 and not norm and (array.ndim < 3) != flat):
            raise self._refused(
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
            raise self._refused(node, "its first argument doesn't depend on the image")
        return value

    def _array(self, node: Node, value: Value) -> NDArray[np.float32]:
        if not isinstance(value, torch.Tensor):
            raise self._refused(node, "its weights are no constants")
        array: NDArray[np.float32] = value.detach().to(torch.float32).numpy()
        if not np.isfinite(array).all():
            raise self._refused(node, "its weights are no finite numbers; train it again")
        return array

    def _bias(self, node: Node, value: Value) -> NDArray[np.float32] | None:
        return None if value is None else self._array(node, value)

    def _name(self, node: Node) -> str:
        return self.builder.free_name(path_of(node), operator_of(node))

    def _refused(self, node: Node, why: str | None = None) -> UnsupportedOperatorError:
        place, name = path_of(node) or "the network", operator_of(node)
        return UnsupportedOperatorError(
            f"{place}: PyTorch's {name} has no form here; {why or what_it_would_take(name, path_of(node))}"
        )
