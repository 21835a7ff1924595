"""Reads the quantized TFLite MobileNets: TensorFlow's hosted uint8 files and int8 per-channel ones."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.layers import Activation
from thumbnet.models.preprocessing import Preprocessing, hosted_preprocessing, input_quant, unit_preprocessing
from thumbnet.models.stored import LayerKind, StoredLayer, StoredNetwork

_UINT8, _INT8, _INT32 = tflite.TensorType.UINT8, tflite.TensorType.INT8, tflite.TensorType.INT32
_DTYPES = {_UINT8: np.uint8, _INT8: np.int8, _INT32: np.int32}
_OPERATOR_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}
_ACTIVATIONS: dict[int, Activation] = {
    tflite.ActivationFunctionType.RELU: "relu",
    tflite.ActivationFunctionType.RELU6: "relu6",
}
#: Operators that change no value the network's weights or ranges depend on.
_IGNORED = frozenset({"RESHAPE", "SQUEEZE", "SOFTMAX"})
#: A symmetric int8 weight reaches to plus and minus 127.
_LARGEST_INT8 = 127

# What the flatbuffer accessors raise on a file that ends early or points outside itself.
_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, AssertionError)


def read_tflite(file: Path, data: bytes) -> StoredNetwork:
    """Read a quantized TFLite MobileNet.

    Weights are dequantized; ranges become int8 terms (a uint8 zero point minus 128, the scale unchanged).

    Raises
    ------
    WeightsFileError
        The file is damaged, not quantized, or has operators no MobileNet has.
    """
    try:
        return _Reader(file, data).read()
    except _DAMAGE as error:
        raise WeightsFileError(f"{file}: a damaged or truncated TFLite file; get it again") from error


class _Reader:
    """Walks the operators of one file in the order of execution."""

    def __init__(self, file: Path, data: bytes) -> None:
        self._file = file
        self._model: Any = tflite.Model.GetRootAsModel(data, 0)
        self._graph: Any = self._model.Subgraphs(0)

    def read(self) -> StoredNetwork:
        layers: list[StoredLayer] = []
        adds: list[tuple[float, int]] = []
        activations: set[Activation] = set()
        pool: tuple[float, int] | None = None
        for position in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(position)
            name = self._name_operator(operator)
            if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                layers.append(self._read_layer(operator, name, activations, pooled=pool is not None))
            elif name == "ADD":
                adds.append(self._read_quant(operator.Outputs(0)))
            elif name in ("AVERAGE_POOL_2D", "MEAN"):
                pool = self._read_quant(operator.Outputs(0))
            elif name not in _IGNORED:
                raise WeightsFileError(f"{self._file}: operator {position} is {name}, which no MobileNet V1 or V2 has")
        if pool is None or not layers or layers[-1].kind != "linear" or len(activations) != 1:
            raise WeightsFileError(f"{self._file}: not a MobileNet classifier: no pooling, classifier or activation")
        quant, shape = (
            self._read_quant(self._graph.Inputs(0)),
            self._graph.Tensors(self._graph.Inputs(0)).ShapeAsNumpy(),
        )
        resolution, channels = int(shape[1]), int(shape[3])
        return StoredNetwork(
            tuple(layers),
            resolution,
            activations.pop(),
            self._choose_preprocessing(quant, resolution, channels, layers[-1].weight.shape[0]),
            tuple(adds),
            quant,
            pool,
        )

    def _name_operator(self, operator: tflite.Operator) -> str:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        # Codes beyond 127 moved to a second field; the larger one is the true one.
        return _OPERATOR_NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "an unknown operator")

    def _read_layer(
        self, operator: tflite.Operator, name: str, activations: set[Activation], *, pooled: bool
    ) -> StoredLayer:
        index = operator.Inputs(1)
        label = self._graph.Tensors(index).Name().decode()
        integers, axis = self._read_integers(index), self._graph.Tensors(index).Quantization().QuantizedDimension()
        scales, zero_points = self._read_quants(index)
        if len(scales) > 1:
            scales = scales.reshape([-1 if i == axis else 1 for i in range(integers.ndim)])
            zero_points = zero_points.reshape(scales.shape)
        shifted = integers.astype(np.int32) - zero_points.astype(np.int32)
        weight = shifted.astype(np.float32) * scales
        kind, stride = self._read_options(operator, name, activations, pooled=pooled)
        # To PyTorch's order; TFLite has OHWI, and 1HWC for depthwise.
        order = {"conv": (0, 3, 1, 2), "depthwise": (3, 0, 1, 2), "linear": tuple(range(weight.ndim))}[kind]
        if kind == "linear":
            weight, shifted = weight.reshape(weight.shape[0], -1), shifted.reshape(weight.shape[0], -1)
        else:
            weight, shifted = weight.transpose(order), shifted.transpose(order)
        channels = weight.shape[0]
        file_scales = np.broadcast_to(scales.reshape(-1), (channels,)).astype(np.float32)
        bias = self._read_integers(operator.Inputs(2)).astype(np.float32) * self._read_quants(operator.Inputs(2))[0]
        return StoredLayer(
            label,
            kind,
            np.ascontiguousarray(weight, dtype=np.float32),
            bias.astype(np.float32).reshape(channels),
            stride,
            weight_scales=_choose_scales(shifted, file_scales),
            output_quant=self._read_quant(operator.Outputs(0)),
        )

    def _read_options(
        self, operator: tflite.Operator, name: str, activations: set[Activation], *, pooled: bool
    ) -> tuple[LayerKind, int]:
        if name == "FULLY_CONNECTED":
            return "linear", 1
        options: Any = tflite.Conv2DOptions() if name == "CONV_2D" else tflite.DepthwiseConv2DOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        if options.Padding() != tflite.Padding.SAME:
            raise WeightsFileError(f"{self._file}: a convolution with VALID padding, which no MobileNet has")
        if options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
            activations.add(_ACTIVATIONS[options.FusedActivationFunction()])
        # After the pooling, a 1x1 convolution is the classifier.
        kind: LayerKind = "depthwise" if name == "DEPTHWISE_CONV_2D" else "linear" if pooled else "conv"
        return kind, int(options.StrideH())

    def _read_integers(self, index: int) -> NDArray[Any]:
        tensor = self._graph.Tensors(index)
        if tensor.Type() not in _DTYPES:
            raise WeightsFileError(
                f"{self._file}: {tensor.Name().decode()} is not quantized; only uint8 and int8 TFLite files are read"
            )
        raw = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
        assert isinstance(raw, np.ndarray)
        return raw.view(_DTYPES[tensor.Type()]).reshape(tensor.ShapeAsNumpy())

    def _read_quants(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        tensor = self._graph.Tensors(index)
        quantization = tensor.Quantization()
        if quantization is None or quantization.ScaleLength() == 0:
            raise WeightsFileError(
                f"{self._file}: {tensor.Name().decode()} is not quantized; only uint8 and int8 TFLite files are read"
            )
        return quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy()

    def _read_quant(self, index: int) -> tuple[float, int]:
        scales, zero_points = self._read_quants(index)
        shift = 128 if self._graph.Tensors(index).Type() == _UINT8 else 0
        return float(scales[0]), int(zero_points[0]) - shift

    def _choose_preprocessing(
        self, quant: tuple[float, int], resolution: int, channels: int, classes: int
    ) -> Preprocessing:
        """Return the known preprocessing whose int8 input is the pixel minus 128 under the file's quantization."""
        known: tuple[Callable[[], Preprocessing], ...] = (
            lambda: hosted_preprocessing(resolution, classes, channels),
            lambda: unit_preprocessing(resolution, channels),
        )
        for make in known:
            preprocessing = make()
            expected = input_quant(preprocessing)
            if expected is not None and np.isclose(expected[0], quant[0], rtol=1e-5) and expected[1] == quant[1]:
                return preprocessing
        raise WeightsFileError(
            f"{self._file}: input scale {quant[0]:g} with zero point {quant[1]}: its preprocessing is not known here"
        )


def _choose_scales(shifted: NDArray[np.int32], file_scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each output channel's scale for symmetric int8 weights: the file's where they fit, else a larger one.

    The hosted files' uint8 weights have zero points of their own (49 to 204), so a channel's values reach beyond -127
    to 127 once the zero point is taken off. Such a channel needs a scale that holds its largest weight; all others
    keep the file's integers exactly.
    """
    largest = np.abs(shifted.reshape(shifted.shape[0], -1)).max(axis=1)
    factors: NDArray[np.float32] = np.maximum(largest / _LARGEST_INT8, 1.0).astype(np.float32)
    return file_scales * factors
