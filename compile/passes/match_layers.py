"""Recognise the integer layers of a Relax function that is quantized in quantize / dequantize pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from thumbnet.compile.errors import QuantizationError, UnsupportedOperatorError
from thumbnet.compile.frontend.torch_to_relax import UNIT_PATHS
from thumbnet.compile.network.fixed_point import INT32_MAX, Requantization, add_parameters, quantize_scale
from thumbnet.compile.network.integer_network import (
    NETWORK_INPUT,
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    IntegerNetwork,
    Layer,
    MaxPool,
    Shape,
    accumulator_bound,
)
from thumbnet.compile.network.quantization import TensorQuant
from thumbnet.compile.network.relax_expr import bindings_of, constant, is_call, operator_name, resolve, scalar, shape_of

#: Below this a channel's multiplier keeps fewer than 12 bits. Its weights are then stored at a coarser scale: what that
#: loses is below a tenth of an output step, as such a channel hardly moves.
SMALLEST_SCALE = 2.0**-19

#: Integers, and their scales ``[out]``.
Constant = tuple[NDArray[Any], NDArray[np.float64]]
#: Least and largest output.
Clamp = tuple[int, int]


def match_layers(module: tvm.IRModule) -> IntegerNetwork:
    """Return the integer network that ``main`` describes.

    Parameters
    ----------
    module : tvm.IRModule
        ``main`` takes one float32 NCHW tensor, quantizes it, and computes in quantize / dequantize pairs.

    Raises
    ------
    UnsupportedOperatorError
        An operator between a dequantize and a quantize has no integer form.
    QuantizationError
        Scales or sums that int32 arithmetic can't hold.
    """
    return _Matcher(module).network()


class _Matcher:
    def __init__(self, module: tvm.IRModule) -> None:
        self.main = module["main"]
        self.bindings = bindings_of(self.main)
        self.paths = dict(module.attrs[UNIT_PATHS]) if module.attrs and UNIT_PATHS in module.attrs else {}
        self.names: dict[relax.Var, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.layers: list[Layer] = []

    def network(self) -> IntegerNetwork:
        input_quant = None
        for var, value in self.bindings.items():
            if not is_call(value, "quantize"):
                continue
            quant = self._quant(value)
            body = resolve(value.args[0], self.bindings)
            if isinstance(body, relax.Var):
                self.names[var] = NETWORK_INPUT
                self.shapes[NETWORK_INPUT] = _nhwc(shape_of(body))
                input_quant = quant
                continue
            name = str(self.paths.get(var.name, var.name))
            layer = self._match(name, body, quant)
            self.names[var] = name
            self.shapes[name] = layer.output_shape
            self.layers.append(layer)
        if input_quant is None or not self.layers:
            raise QuantizationError("the network is not quantized: no quantize operator in it")
        self._check_output()
        return IntegerNetwork(self.shapes[NETWORK_INPUT], input_quant, tuple(self.layers))

    def _check_output(self) -> None:
        last = self.layers[-1]
        result = resolve(self.main.body.body, self.bindings)
        if isinstance(result, relax.Tuple) or self._source(result)[0] != last.name:
            raise UnsupportedOperatorError(f"{last.name}: the last layer's must be the network's one output")
        if last.output_shape[:2] != (1, 1):
            raise UnsupportedOperatorError(
                f"{last.name}: the output is {last.output_shape}, one row of classes is wanted"
            )

    def _match(self, name: str, body: relax.Expr, quant: TensorQuant) -> Layer:
        body, clamp = self._clamp(body, quant)
        if is_call(body, "add") and all(self._is_dequantized(argument) for argument in body.args):
            return self._add(name, body, quant, clamp)
        if is_call(body, "nn.adaptive_avg_pool2d", "mean"):
            return self._average_pool(name, body, quant, clamp)
        if is_call(body, "nn.max_pool2d"):
            return self._max_pool(name, body, quant)
        bias = None
        if is_call(body, "add"):
            bias = self._weights(body.args[1])
            body = resolve(body.args[0], self.bindings)
        if is_call(body, "nn.conv2d"):
            return self._convolution(name, body, bias, quant, clamp)
        if is_call(body, "matmul"):
            return self._fully_connected(name, body, bias, quant, clamp)
        raise UnsupportedOperatorError(f"{name}: {operator_name(body)} has no int8 form here; use --quantize none")

    def _clamp(self, body: relax.Expr, quant: TensorQuant) -> tuple[relax.Expr, Clamp]:
        low, high = -np.inf, np.inf
        if is_call(body, "clip"):
            low, high = float(body.args[1].value), float(body.args[2].value)
        elif is_call(body, "nn.relu"):
            low = 0.0
        elif is_call(body, "nn.relu6"):
            low, high = 0.0, 6.0
        else:
            return body, (-128, 127)
        steps = np.clip(np.array([low, high]) / quant.scale + quant.zero_point, -128, 127)
        minimum, maximum = (int(step) for step in np.rint(steps))
        return resolve(body.args[0], self.bindings), (minimum, maximum)

    def _is_dequantized(self, expr: relax.Expr) -> bool:
        value = resolve(expr, self.bindings)
        return is_call(value, "dequantize") and not isinstance(resolve(value.args[0], self.bindings), tvm.ir.Constant)

    def _quant(self, call: relax.Call) -> TensorQuant:
        return TensorQuant(scalar(call.args[1], self.bindings), int(scalar(call.args[2], self.bindings)))

    def _source(self, expr: relax.Expr) -> tuple[str, TensorQuant, tuple[int, int, int, int]]:
        """Follow an activation to the layer that made it, with the padding on the way (top, left, bottom, right)."""
        value = resolve(expr, self.bindings)
        if not is_call(value, "dequantize"):
            raise UnsupportedOperatorError(f"{operator_name(value)}: an input that is not quantized")
        quant, padding = self._quant(value), (0, 0, 0, 0)
        expr = value.args[0]
        while expr not in self.names:
            moved = self.bindings[expr]
            if is_call(moved, "nn.pad"):
                # Pairs (before, after) of the dimensions N, C, H, W.
                *channels, top, bottom, left, right = (int(width) for width in moved.attrs.pad_width)
                if any(channels):
                    raise UnsupportedOperatorError("padding of batch or channels has no integer form here")
                padding = (top, left, bottom, right)
                expr = moved.args[0]
            elif is_call(moved, "reshape"):
                expr = moved.args[0]
            else:
                assert isinstance(moved, relax.Var), moved
                expr = moved
        return self.names[expr], quant, padding

    def _unpadded_source(self, name: str, expr: relax.Expr) -> tuple[str, TensorQuant]:
        source, quant, padding = self._source(expr)
        if any(padding):
            raise UnsupportedOperatorError(
                f"{name}: padding before anything but a convolution has no integer form here"
            )
        return source, quant

    def _weights(self, expr: relax.Expr) -> Constant:
        """Return the integers and the scales ``[out]`` of a constant, through reshapes and transpositions."""
        value = resolve(expr, self.bindings)
        while is_call(value, "reshape", "permute_dims"):
            value = resolve(value.args[0], self.bindings)
        if not is_call(value, "dequantize"):
            raise UnsupportedOperatorError(f"{operator_name(value)}: weights that are not quantized")
        return constant(value.args[0], self.bindings), constant(value.args[1], self.bindings).astype(np.float64)

    def _convolution(
        self, name: str, call: relax.Call, bias: Constant | None, quant: TensorQuant, clamp: Clamp
    ) -> Layer:
        source, input_quant, padding = self._source(call.args[0])
        weight, scales = self._weights(call.args[1])
        if any(int(step) != 1 for step in call.attrs.dilation):
            raise UnsupportedOperatorError(f"{name}: a dilated convolution has no integer form here")
        own = [int(width) for width in call.attrs.padding]
        padding = tuple(a + b for a, b in zip(padding, own, strict=True))  # type: ignore[assignment]
        groups, out_channels, in_channels = int(call.attrs.groups), weight.shape[0], weight.shape[1]
        input_shape = self.shapes[source]
        depthwise = groups > 1
        if depthwise and not (in_channels == 1 and groups == input_shape[2]):
            raise UnsupportedOperatorError(f"{name}: {groups} groups of several channels have no integer form here")
        layer_type: type[Convolution | DepthwiseConvolution] = DepthwiseConvolution if depthwise else Convolution
        rows, columns = (int(step) for step in call.attrs.strides)
        layer = layer_type(
            name=name,
            source=source,
            input_shape=input_shape,
            output_shape=_nhwc(shape_of(call)),
            # PyTorch's OIHW to [H, W, C] and [O, H, W, I].
            weight=np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0) if depthwise else weight.transpose(0, 2, 3, 1)),
            bias=np.zeros(out_channels, np.int32),
            input_zero_point=input_quant.zero_point,
            stride=(rows, columns),
            padding=padding,
            requantization=_requantization(np.ones(out_channels), quant, clamp),
            output_quant=quant,
        )
        return _finish(layer, scales, bias, input_quant)

    def _fully_connected(
        self, name: str, call: relax.Call, bias: Constant | None, quant: TensorQuant, clamp: Clamp
    ) -> Layer:
        source, input_quant = self._unpadded_source(name, call.args[0])
        weight, scales = self._weights(call.args[1])
        height, width, channels = self.shapes[source]
        if (height, width) != (1, 1) or channels != weight.shape[1]:
            raise UnsupportedOperatorError(f"{name}: a linear layer needs pooled input, got {self.shapes[source]}")
        layer = Convolution(
            name=name,
            source=source,
            input_shape=(1, 1, channels),
            output_shape=(1, 1, weight.shape[0]),
            weight=weight.reshape(weight.shape[0], 1, 1, channels),
            bias=np.zeros(weight.shape[0], np.int32),
            input_zero_point=input_quant.zero_point,
            stride=(1, 1),
            padding=(0, 0, 0, 0),
            requantization=_requantization(np.ones(weight.shape[0]), quant, clamp),
            output_quant=quant,
        )
        return _finish(layer, scales, bias, input_quant)

    def _average_pool(self, name: str, call: relax.Call, quant: TensorQuant, clamp: Clamp) -> Layer:
        source, input_quant = self._unpadded_source(name, call.args[0])
        height, width, channels = self.shapes[source]
        if int(np.prod(shape_of(call))) != channels:
            raise UnsupportedOperatorError(f"{name}: only pooling over the whole image has an integer form here")
        pixels = height * width
        scale = np.full(channels, input_quant.scale / (quant.scale * pixels))
        return AveragePool(
            name=name,
            source=source,
            input_shape=(height, width, channels),
            output_shape=(1, 1, channels),
            bias=-pixels * input_quant.zero_point,
            requantization=_requantization(scale, quant, clamp),
            output_quant=quant,
        )

    def _max_pool(self, name: str, call: relax.Call, quant: TensorQuant) -> MaxPool:
        source, input_quant, before = self._source(call.args[0])
        if any(before) or input_quant != quant:
            raise UnsupportedOperatorError(f"{name}: padded or quantized anew before its maximum")
        rows, columns = (int(size) for size in call.attrs.pool_size)
        down, along = (int(step) for step in call.attrs.strides)
        top, left, bottom, right = (int(width) for width in call.attrs.padding)
        if call.attrs.ceil_mode or any(int(step) != 1 for step in call.attrs.dilation):
            raise UnsupportedOperatorError(f"{name}: maxima of dilated windows or beyond the image have no form here")
        return MaxPool(
            name=name,
            source=source,
            input_shape=self.shapes[source],
            output_shape=_nhwc(shape_of(call)),
            kernel=(rows, columns),
            stride=(down, along),
            padding=(top, left, bottom, right),
            output_quant=quant,
        )

    def _add(self, name: str, call: relax.Call, quant: TensorQuant, clamp: Clamp) -> Layer:
        (source_a, quant_a), (source_b, quant_b) = (self._unpadded_source(name, argument) for argument in call.args)
        shapes = self.shapes[source_a], self.shapes[source_b]
        if shapes[0] != shapes[1]:
            raise UnsupportedOperatorError(f"{name}: a sum of {shapes[0]} and {shapes[1]} has no integer form here")
        parameters = add_parameters(
            (quant_a.scale, quant_b.scale, quant.scale),
            (quant_a.zero_point, quant_b.zero_point, quant.zero_point),
            *clamp,
        )
        return Add(name, source_a, source_b, self.shapes[source_a], parameters, quant)


def _nhwc(nchw: tuple[int, ...]) -> Shape:
    _, channels, height, width = nchw
    return height, width, channels


def _requantization(scale: NDArray[np.float64], quant: TensorQuant, clamp: Clamp) -> Requantization:
    return Requantization(*quantize_scale(scale), quant.zero_point, *clamp)


def _finish(
    layer: Convolution | DepthwiseConvolution,
    weight_scales: NDArray[np.float64],
    bias: Constant | None,
    input_quant: TensorQuant,
) -> Layer:
    """Give a convolution its bias and multipliers, and fold the input's zero point into the bias."""
    weight = layer.weight.astype(np.int64)
    channel_axis = 0 if isinstance(layer, Convolution) else 2
    taps = tuple(axis for axis in range(weight.ndim) if axis != channel_axis)
    broadcast = [1] * weight.ndim
    broadcast[channel_axis] = -1

    weight_scales = np.broadcast_to(weight_scales, layer.bias.shape)
    scale = input_quant.scale * weight_scales / layer.output_quant.scale
    # A layer's left shift takes its bits from the multipliers of all channels.
    shift = int(quantize_scale(scale)[1][0])
    coarser = np.maximum(scale, SMALLEST_SCALE * 2**shift) / scale
    weight = np.rint(weight / coarser.reshape(broadcast)).astype(np.int64)
    folded = np.rint(
        _bias_steps(bias, input_quant.scale * weight_scales) / coarser
    ) - input_quant.zero_point * weight.sum(axis=taps)
    if np.any(np.abs(folded) > INT32_MAX):
        raise QuantizationError(f"{layer.name}: a bias of {np.abs(folded).max():.0f} steps doesn't fit int32")
    requantization = layer.requantization
    multiplier, left_shift = quantize_scale(scale * coarser)
    finished = replace(
        layer,
        weight=weight.astype(np.int8),
        bias=folded.astype(np.int32),
        requantization=replace(requantization, multiplier=multiplier, left_shift=left_shift),
    )
    if np.any(accumulator_bound(finished) << left_shift > INT32_MAX):
        largest = (accumulator_bound(finished) << left_shift).max()
        raise QuantizationError(f"{layer.name}: sums can reach {largest}, int32 holds {INT32_MAX}")
    return finished


def _bias_steps(bias: Constant | None, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a bias in steps of the accumulator ``[out]``."""
    if bias is None:
        return np.zeros(scale.shape)
    steps, own_scale = bias[0].reshape(-1).astype(np.float64), bias[1]
    # The same but for float32 rounding, unless the layer's weights serve another layer too.
    return steps if np.allclose(own_scale, scale, rtol=1e-5, atol=0) else steps * (own_scale / scale)
