"""Recognise the layers of a float32 Relax function: convolutions with bias and clamp, pools, adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from thumbnet.compile.errors import UnsupportedOperatorError
from thumbnet.compile.frontend.torch_to_relax import UNIT_PATHS
from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatLayer,
    FloatMaxPool,
    FloatNetwork,
)
from thumbnet.compile.network.layers import NETWORK_INPUT, Shape
from thumbnet.compile.network.relax_expr import bindings_of, is_call, operator_name, resolve, shape_of

Padding = tuple[int, int, int, int]
_NO_PADDING: Padding = (0, 0, 0, 0)


def match_float_layers(module: tvm.IRModule) -> FloatNetwork:
    """Return the float32 network that ``main`` describes.

    Parameters
    ----------
    module : tvm.IRModule
        As `thumbnet.compile.frontend.torch_to_relax.import_float` gives it: ``main`` takes one tensor ``[1, H, W, C]``.

    Raises
    ------
    UnsupportedOperatorError
        There is something in it that is no layer here.
    """
    return _Matcher(module).network()


class _Matcher:
    """Goes through a function in its order; what is added to a layer or clamps it becomes part of that layer.

    Parameters
    ----------
    sources : dict
        By variable the layer whose output it is, and what it is padded with: top, left, bottom, right.
    """

    def __init__(self, module: tvm.IRModule) -> None:
        self.main = module["main"]
        self.bindings = bindings_of(self.main)
        self.paths = [str(path) for path in module.attrs[UNIT_PATHS]]
        self.readers = Counter(
            argument for value in self.bindings.values() if isinstance(value, relax.Call) for argument in value.args
        )
        self.sources: dict[relax.Expr, tuple[str, Padding]] = {}
        self.layers: dict[str, FloatLayer] = {}
        self.biased: set[str] = set()
        self.input_shape: Shape = (0, 0, 0)
        self.makers: dict[tuple[str, ...], Callable[[relax.Call], FloatLayer]] = {
            ("nn.conv2d",): self._convolution,
            ("matmul",): self._fully_connected,
            ("nn.adaptive_avg_pool2d", "mean", "nn.avg_pool2d"): self._average_pool,
            ("nn.max_pool2d",): self._max_pool,
            ("add",): self._add,
        }

    def network(self) -> FloatNetwork:
        [image] = self.main.params
        _, *shape = shape_of(image)
        height, width, channels = shape
        self.input_shape = height, width, channels
        for var, value in self.bindings.items():
            if self._constant(var) is None:
                self.sources[var] = self._match(var, value, image)
        result = self._source(self.main.body.body)
        layers = tuple(self.layers.values())
        if not layers or result != (layers[-1].name, _NO_PADDING):
            raise UnsupportedOperatorError("the last layer's must be the network's one output")
        if layers[-1].output_shape[:2] != (1, 1):
            raise UnsupportedOperatorError(f"{layers[-1].name}: one row of classes is wanted")
        return FloatNetwork(self.input_shape, layers)

    def _match(self, var: relax.Var, value: relax.Expr, image: relax.Var) -> tuple[str, Padding]:
        moved = self._moved(value, image)
        if moved is not None:
            return moved
        if is_call(value, "clip", "nn.relu", "nn.relu6"):
            name = self._clamp(value)
        elif is_call(value, "add") and (bias := self._constant(value.args[1])) is not None:
            name = self._bias(value, bias)
        else:
            made = next((make for operators, make in self.makers.items() if is_call(value, *operators)), None)
            if made is None:
                raise UnsupportedOperatorError(f"{var.name}: {operator_name(value)} is no layer here")
            layer = made(value)
            if layer.name in self.layers:
                raise UnsupportedOperatorError(f"{layer.name}: called twice")
            self.layers[layer.name] = layer
            name = layer.name
        return name, _NO_PADDING

    def _moved(self, value: relax.Expr, image: relax.Var) -> tuple[str, Padding] | None:
        """Return where values are from that are moved, and not computed."""
        if isinstance(value, relax.Var):
            return self._source(value)
        if is_call(value, "permute_dims") and value.args[0] == image:
            return NETWORK_INPUT, _NO_PADDING
        if is_call(value, "nn.pad"):
            return self._padded(value)
        if is_call(value, "reshape", "flatten", "squeeze"):
            return self._unpadded(value.args[0], pixels=1), _NO_PADDING
        return None

    def _next_name(self) -> str:
        if len(self.layers) == len(self.paths):
            raise UnsupportedOperatorError("an operator that no module of PyTorch's made")
        return self.paths[len(self.layers)]

    def _source(self, expr: relax.Expr) -> tuple[str, Padding]:
        if expr not in self.sources:
            raise UnsupportedOperatorError(
                f"{operator_name(resolve(expr, self.bindings))}: an input that no layer made"
            )
        return self.sources[expr]

    def _shape(self, name: str) -> Shape:
        return self.input_shape if name == NETWORK_INPUT else self.layers[name].output_shape

    def _unpadded(self, expr: relax.Expr, pixels: int | None = None) -> str:
        name, padding = self._source(expr)
        height, width, _ = self._shape(name)
        if any(padding) or pixels not in (None, height * width):
            raise UnsupportedOperatorError(f"{name}: padded or moved before anything but a convolution")
        return name

    def _constant(self, expr: relax.Expr) -> NDArray[np.float32] | None:
        """Return a constant, reshaped or transposed where the module says so; None for anything else."""
        value = resolve(expr, self.bindings)
        if isinstance(value, tvm.ir.Constant):
            array: NDArray[np.float32] = value.value.numpy()
            return array
        if is_call(value, "reshape", "permute_dims") and (inner := self._constant(value.args[0])) is not None:
            return inner.reshape(shape_of(value)) if is_call(value, "reshape") else inner.transpose(_axes(value))
        return None

    def _weight(self, expr: relax.Expr, name: str) -> NDArray[np.float32]:
        weight = self._constant(expr)
        if weight is None or weight.dtype != np.float32 or not np.isfinite(weight).all():
            raise UnsupportedOperatorError(f"{name}: its weights are no finite float32 constants")
        return weight

    def _padded(self, call: relax.Call) -> tuple[str, Padding]:
        # Pairs (before, after) of the dimensions N, C, H, W.
        *channels, top, bottom, left, right = (int(width) for width in call.attrs.pad_width)
        zeros = str(call.attrs.pad_mode) == "constant" and float(call.attrs.pad_value) == 0.0
        source, before = self._source(call.args[0])
        if any(channels) or not zeros or min(top, left, bottom, right) < 0:
            raise UnsupportedOperatorError(f"{source}: padded with something but rows and columns of zeros")
        return source, _sum(before, (top, left, bottom, right))

    def _convolution(self, call: relax.Call) -> FloatLayer:
        name, (source, padding) = self._next_name(), self._source(call.args[0])
        weight = self._weight(call.args[1], name)
        input_shape, groups = self._shape(source), int(call.attrs.groups)
        depthwise = groups > 1
        if any(int(step) != 1 for step in call.attrs.dilation):
            raise UnsupportedOperatorError(f"{name}: a dilated convolution is no layer here")
        if depthwise and not (weight.shape[1] == 1 and groups == input_shape[2]):
            raise UnsupportedOperatorError(f"{name}: {groups} groups of several channels are no layer here")
        top, left, bottom, right = (int(width) for width in call.attrs.padding)
        _, outputs, height, width = shape_of(call)
        rows, columns = (int(step) for step in call.attrs.strides)
        layer_type: type[FloatConvolution | FloatDepthwiseConvolution]
        layer_type = FloatDepthwiseConvolution if depthwise else FloatConvolution
        return layer_type(
            name=name,
            source=source,
            input_shape=input_shape,
            output_shape=(height, width, outputs),
            # PyTorch's OIHW to [H, W, C] and [O, H, W, I].
            weight=np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0) if depthwise else weight.transpose(0, 2, 3, 1)),
            bias=np.zeros(outputs, np.float32),
            input_zero_point=0,
            stride=(rows, columns),
            padding=_sum(padding, (top, left, bottom, right)),
        )

    def _fully_connected(self, call: relax.Call) -> FloatConvolution:
        name, source = self._next_name(), self._unpadded(call.args[0], pixels=1)
        weight = self._weight(call.args[1], name)
        inputs, outputs = weight.shape
        return FloatConvolution(
            name=name,
            source=source,
            input_shape=(1, 1, inputs),
            output_shape=(1, 1, outputs),
            weight=np.ascontiguousarray(weight.T).reshape(outputs, 1, 1, inputs),
            bias=np.zeros(outputs, np.float32),
            input_zero_point=0,
            stride=(1, 1),
            padding=_NO_PADDING,
        )

    def _average_pool(self, call: relax.Call) -> FloatAveragePool:
        name, source = self._next_name(), self._unpadded(call.args[0])
        shape = self._shape(source)
        padded = is_call(call, "nn.avg_pool2d") and any(int(width) for width in call.attrs.padding)
        if padded or int(np.prod(shape_of(call))) != shape[2]:
            raise UnsupportedOperatorError(f"{name}: only pooling over the whole image is a layer here")
        return FloatAveragePool(name, source, shape, (1, 1, shape[2]))

    def _max_pool(self, call: relax.Call) -> FloatMaxPool:
        name, source = self._next_name(), self._unpadded(call.args[0])
        rows, columns = (int(size) for size in call.attrs.pool_size)
        down, along = (int(step) for step in call.attrs.strides)
        top, left, bottom, right = (int(width) for width in call.attrs.padding)
        if call.attrs.ceil_mode or any(int(step) != 1 for step in call.attrs.dilation):
            raise UnsupportedOperatorError(f"{name}: maxima of dilated windows or beyond the image are no layer here")
        _, channels, height, width = shape_of(call)
        shape, padding = (height, width, channels), (top, left, bottom, right)
        return FloatMaxPool(name, source, self._shape(source), shape, (rows, columns), (down, along), padding)

    def _add(self, call: relax.Call) -> FloatAdd:
        name, (a, b) = self._next_name(), (self._unpadded(argument) for argument in call.args)
        if self._shape(a) != self._shape(b):
            raise UnsupportedOperatorError(f"{name}: a sum of {self._shape(a)} and {self._shape(b)} is no layer here")
        return FloatAdd(name, a, b, self._shape(a))

    def _own(self, expr: relax.Expr) -> FloatLayer:
        """Return the layer whose output is read here and nowhere else, and not clamped yet."""
        name = self._unpadded(expr)
        layer = self.layers.get(name)
        if layer is None or self.readers[expr] != 1 or (layer.minimum, layer.maximum) != (-np.inf, np.inf):
            raise UnsupportedOperatorError(f"{name}: its bare output is read elsewhere too, or was clamped before")
        return layer

    def _bias(self, call: relax.Call, bias: NDArray[np.float32]) -> str:
        layer = self._own(call.args[0])
        outputs = layer.output_shape[2]
        # A channel's bias stands before two axes behind a convolution, and alone behind a matrix.
        axis = 1 if len(shape_of(call)) == 4 else bias.ndim - 1
        whole = bias.size == outputs and (bias.ndim == 1 or bias.shape[axis] == outputs)
        if (
            not isinstance(layer, FloatConvolution | FloatDepthwiseConvolution)
            or layer.name in self.biased
            or not whole
        ):
            raise UnsupportedOperatorError(f"{layer.name}: a constant that is no bias of its channels is added")
        self.biased.add(layer.name)
        self.layers[layer.name] = replace(layer, bias=self._weight(call.args[1], layer.name).reshape(-1))
        return layer.name

    def _clamp(self, call: relax.Call) -> str:
        layer = self._own(call.args[0])
        minimum, maximum = 0.0, 6.0 if is_call(call, "nn.relu6") else np.inf
        if is_call(call, "clip"):
            minimum, maximum = float(call.args[1].value), float(call.args[2].value)
        self.layers[layer.name] = replace(layer, minimum=minimum, maximum=maximum)
        return layer.name


def _sum(first: Padding, second: Padding) -> Padding:
    top, left, bottom, right = (a + b for a, b in zip(first, second, strict=True))
    return top, left, bottom, right


def _axes(call: relax.Call) -> Any:  # noqa: ANN401 - what NumPy takes
    return None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
