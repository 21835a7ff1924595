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
from thumbnet.models.variants import RESOLUTIONS
from thumbnet.models.weights_file import shorten

_UINT8, _INT8, _INT32 = tflite.TensorType.UINT8, tflite.TensorType.INT8, tflite.TensorType.INT32
_DTYPES = {_UINT8: np.uint8, _INT8: np.int8, _INT32: np.int32}
_OPERATOR_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}
_ACTIVATIONS: dict[int, Activation] = {
    tflite.ActivationFunctionType.RELU: "relu",
    tflite.ActivationFunctionType.RELU6: "relu6",
}
_OPTIONS = {
    "CONV_2D": tflite.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
    "FULLY_CONNECTED": tflite.FullyConnectedOptions,
}
_ZERO_POINTS = {_UINT8: (0, 255), _INT8: (-128, 127)}
#: A MobileNet V2 has 66 operators.
_MOST_OPERATORS = 1000
_MOST_AXES = 4
_LARGEST_SCALE = 1e6
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
        self._graph: Any = self._model.Subgraphs(_check_index(0, self._model.SubgraphsLength()))
        self._left = len(data)

    def read(self) -> StoredNetwork:
        layers: list[StoredLayer] = []
        adds: list[tuple[float, int]] = []
        activations: set[Activation] = set()
        pool: tuple[float, int] | None = None
        image = self._operand(self._graph.Inputs, self._graph.InputsLength(), 0)
        # Each operator has to take what the one before it gives, an addition something older too.
        last, older = image, {image}
        for position in range(_limit(self._graph.OperatorsLength(), _MOST_OPERATORS)):
            operator = self._graph.Operators(position)
            name = self._name_operator(operator)
            inputs = [self._input(operator, number) for number in range(2 if name == "ADD" else 1)]
            if last not in inputs or not older.issuperset(inputs):
                raise ValueError(f"operator {position} takes what isn't there")
            last = self._operand(operator.Outputs, operator.OutputsLength(), 0)
            older.add(last)
            if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                layers.append(self._read_layer(position, name, activations, pooled=pool is not None))
            elif name == "ADD":
                adds.append(self._read_quant(last))
            elif name in ("AVERAGE_POOL_2D", "MEAN"):
                pool = self._read_quant(last)
            elif name not in _IGNORED:
                raise self._refuse(f"operator {position} is {name}")
        if pool is None or not layers or layers[-1].kind != "linear" or len(activations) != 1:
            raise WeightsFileError(f"{self._file}: not a MobileNet classifier: no pooling, classifier or activation")
        quant, shape = self._read_quant(image), self._read_shape(self._tensor(image))
        resolution, channels = shape[1], shape[3]
        if (shape[2], channels) != (resolution, layers[0].weight.shape[1]) or resolution not in RESOLUTIONS:
            raise self._refuse(f"its input is {'x'.join(map(str, shape))}")
        return StoredNetwork(
            tuple(layers),
            resolution,
            activations.pop(),
            self._choose_preprocessing(quant, resolution, channels, layers[-1].weight.shape[0]),
            tuple(adds),
            quant,
            pool,
        )

    def _refuse(self, what: str) -> WeightsFileError:
        return WeightsFileError(
            f"{self._file}: {what}, which is not read; of TFLite, TensorFlow's hosted quantized MobileNets and MLPerf"
            " Tiny's visual wake words are"
        )

    # The accessors of a flatbuffer take any index and read on where a vector ends.

    def _operand(self, read: Callable[[int], int], length: int, number: int) -> int:
        return int(read(_check_index(number, length)))

    def _input(self, operator: tflite.Operator, number: int) -> int:
        return self._operand(operator.Inputs, operator.InputsLength(), number)

    def _tensor(self, index: int) -> Any:  # noqa: ANN401 - of a library without types
        return self._graph.Tensors(_check_index(index, self._graph.TensorsLength()))

    def _name_operator(self, operator: tflite.Operator) -> str:
        code = self._model.OperatorCodes(_check_index(operator.OpcodeIndex(), self._model.OperatorCodesLength()))
        # Codes beyond 127 moved to a second field; the larger one is the true one.
        return _OPERATOR_NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "an unknown operator")

    def _read_layer(self, position: int, name: str, activations: set[Activation], *, pooled: bool) -> StoredLayer:
        operator = self._graph.Operators(position)
        kind, stride = self._read_options(position, name, activations, pooled=pooled)
        index, bias_index = self._input(operator, 1), self._input(operator, 2)
        tensor = self._tensor(index)
        integers = self._read_integers(index, (_UINT8, _INT8))
        # TFLite has OHWI, and 1HWC for depthwise; a classifier may have its features in one axis.
        axis = 3 if name == "DEPTHWISE_CONV_2D" else 0
        if integers.ndim != 4 and name != "FULLY_CONNECTED":
            raise ValueError(f"{_name(tensor)} has {integers.ndim} axes")
        channels = integers.shape[axis]
        scales, zero_points = self._read_quants(index)
        if len(scales) not in (1, channels) or (len(scales) > 1 and tensor.Quantization().QuantizedDimension() != axis):
            raise ValueError(f"{_name(tensor)} has {len(scales)} scales")
        along = [-1 if i == axis else 1 for i in range(integers.ndim)]
        shifted = integers.astype(np.int32) - zero_points.reshape(along).astype(np.int32)
        weight = shifted.astype(np.float32) * scales.reshape(along)
        if kind == "linear":
            weight, shifted = weight.reshape(channels, -1), shifted.reshape(channels, -1)
        else:
            order = (3, 0, 1, 2) if kind == "depthwise" else (0, 3, 1, 2)
            weight, shifted = weight.transpose(order), shifted.transpose(order)
        bias = self._read_integers(bias_index, (_INT32,)).astype(np.float32) * self._read_quants(bias_index)[0]
        return StoredLayer(
            _name(tensor),
            kind,
            np.ascontiguousarray(weight, dtype=np.float32),
            bias.astype(np.float32).reshape(channels),
            stride,
            weight_scales=_choose_scales(shifted, np.broadcast_to(scales, (channels,)).astype(np.float32)),
            output_quant=self._read_quant(self._operand(operator.Outputs, operator.OutputsLength(), 0)),
        )

    def _read_options(
        self, position: int, name: str, activations: set[Activation], *, pooled: bool
    ) -> tuple[LayerKind, int]:
        operator = self._graph.Operators(position)
        options: Any = _OPTIONS[name]()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        function = options.FusedActivationFunction()
        if function != tflite.ActivationFunctionType.NONE:
            if function not in _ACTIVATIONS or name == "FULLY_CONNECTED":
                raise self._refuse(f"operator {position} ({name}) has activation {function}")
            activations.add(_ACTIVATIONS[function])
        if name == "FULLY_CONNECTED":
            return "linear", 1
        if options.Padding() != tflite.Padding.SAME:
            raise self._refuse(
                f"operator {position} ({name}) has VALID padding, with the image padded before it or not"
            )
        steps = (options.StrideH(), options.StrideW(), options.DilationHFactor(), options.DilationWFactor())
        if steps not in ((1, 1, 1, 1), (2, 2, 1, 1)):
            raise self._refuse(f"operator {position} ({name}) has strides {steps[:2]} and dilations {steps[2:]}")
        # After the pooling, a 1x1 convolution is the classifier.
        kind: LayerKind = "depthwise" if name == "DEPTHWISE_CONV_2D" else "linear" if pooled else "conv"
        return kind, int(steps[0])

    def _read_shape(self, tensor: Any) -> tuple[int, ...]:  # noqa: ANN401 - of a library without types
        shape = tuple(int(tensor.Shape(axis)) for axis in range(_limit(tensor.ShapeLength(), _MOST_AXES)))
        if min(shape, default=0) < 1:
            raise ValueError(f"{_name(tensor)} is {shape}")
        return shape

    def _read_integers(self, index: int, types: tuple[int, ...]) -> NDArray[Any]:
        tensor = self._tensor(index)
        if tensor.Type() not in types:
            raise WeightsFileError(
                f"{self._file}: {_name(tensor)} is not quantized; only uint8 and int8 TFLite files are read"
            )
        raw = self._model.Buffers(_check_index(tensor.Buffer(), self._model.BuffersLength())).DataAsNumpy()
        if not isinstance(raw, np.ndarray):
            raise ValueError(f"{_name(tensor)} has no data")
        # Layers share no weights, so together they are no larger than the file.
        self._left -= raw.size
        if self._left < 0:
            raise ValueError("more weights than bytes")
        return raw.view(_DTYPES[tensor.Type()]).reshape(self._read_shape(tensor))

    def _read_quants(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        tensor = self._tensor(index)
        quantization = tensor.Quantization()
        if quantization is None or quantization.ScaleLength() == 0:
            raise WeightsFileError(
                f"{self._file}: {_name(tensor)} is not quantized; only uint8 and int8 TFLite files are read"
            )
        scales, zero_points = quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy()
        if not (np.isfinite(scales) & (scales > 0) & (scales < _LARGEST_SCALE)).all():
            raise ValueError(f"{_name(tensor)} has a scale of 0 or none")
        low, high = _ZERO_POINTS.get(tensor.Type(), (0, 0))
        if np.shape(zero_points) != scales.shape or ((zero_points < low) | (zero_points > high)).any():
            raise ValueError(f"{_name(tensor)} has a zero point outside its type")
        return scales, zero_points

    def _read_quant(self, index: int) -> tuple[float, int]:
        scales, zero_points = self._read_quants(index)
        kind = self._tensor(index).Type()
        if len(scales) != 1 or kind not in (_UINT8, _INT8):
            raise ValueError("an activation of several scales, or of no int8")
        return float(scales[0]), int(zero_points[0]) - (128 if kind == _UINT8 else 0)

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


def _check_index(index: int, length: int) -> int:
    if not 0 <= index < length:
        raise IndexError(f"{index} of {length}")
    return index


def _limit(length: int, most: int) -> int:
    if length > most:
        raise ValueError(f"{length} of something, at most {most} belong")
    return length


def _name(tensor: Any) -> str:  # noqa: ANN401 - of a library without types
    return shorten((tensor.Name() or b"").decode(errors="replace"))
