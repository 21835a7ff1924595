"""The operators and tensors of a TFLite file, each index and length checked before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.stored import Quant
from thumbnet.models.weights_file import shorten

Kind = tflite.TensorType
_DTYPES: dict[int, type[np.generic]] = {
    Kind.UINT8: np.uint8,
    Kind.INT8: np.int8,
    Kind.INT32: np.int32,
    Kind.INT64: np.int64,
    Kind.FLOAT16: np.float16,
    Kind.FLOAT32: np.float32,
}
_OPERATOR_NAMES: dict[int, str] = {
    value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}
_OPTIONS: dict[str, Any] = {
    "CONV_2D": tflite.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
    "FULLY_CONNECTED": tflite.FullyConnectedOptions,
    "AVERAGE_POOL_2D": tflite.Pool2DOptions,
    "ADD": tflite.AddOptions,
    "SUB": tflite.SubOptions,
    "MUL": tflite.MulOptions,
    "DIV": tflite.DivOptions,
}
_KIND_NAMES: dict[int, str] = {value: name.lower() for name, value in vars(Kind).items() if isinstance(value, int)}
_ZERO_POINTS = {Kind.UINT8: (0, 255), Kind.INT8: (-128, 127)}
#: A MobileNet V2 has 66 operators.
_MOST_OPERATORS = 1000
_MOST_OPERANDS = 16
_MOST_AXES = 4
_LARGEST_SCALE = 1e6
#: The index of an operand that is left out.
_ABSENT = -1


@dataclass(frozen=True)
class Operator:
    """One operator.

    Parameters
    ----------
    position : int
        In the order of execution.
    name : str
        As the format's schema has it.
    inputs : tuple of int
        Indices of its tensors; an operand that is left out is not in it.
    output : int
        Index of its first output.
    options : object
        The table of its options, None where they are not needed here.
    """

    position: int
    name: str
    inputs: tuple[int, ...]
    output: int
    options: Any

    def __str__(self) -> str:
        """How a line for the person calls it."""
        return f"operator {self.position} ({self.name})"


class TfliteGraph:
    """The first subgraph of a file.

    Every method raises one of the errors of a damaged file, such as `ValueError` or `IndexError`, where the file points
    outside itself.

    Parameters
    ----------
    data : bytes
        The whole file.
    refuse : callable
        Makes the error for what isn't read.
    """

    def __init__(self, data: bytes, refuse: Callable[[str], WeightsFileError]) -> None:
        self._refuse = refuse
        self._model: Any = tflite.Model.GetRootAsModel(data, 0)
        self._graph: Any = self._model.Subgraphs(_check_index(0, self._model.SubgraphsLength()))
        self._left = len(data)

    # The accessors of a flatbuffer take any index and read on where a vector ends.

    @property
    def inputs(self) -> tuple[int, ...]:
        """Indices of the tensors it takes."""
        return tuple(self._graph.Inputs(number) for number in range(_limit(self._graph.InputsLength(), _MOST_OPERANDS)))

    @property
    def outputs(self) -> tuple[int, ...]:
        """Indices of the tensors it gives."""
        length = _limit(self._graph.OutputsLength(), _MOST_OPERANDS)
        return tuple(self._graph.Outputs(number) for number in range(length))

    def list_operators(self) -> Iterator[Operator]:
        """Yield the operators in the order of execution."""
        for position in range(_limit(self._graph.OperatorsLength(), _MOST_OPERATORS)):
            found = self._graph.Operators(position)
            code = self._model.OperatorCodes(_check_index(found.OpcodeIndex(), self._model.OperatorCodesLength()))
            # Codes beyond 127 moved to a second field; the larger one is the true one.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            name = _OPERATOR_NAMES.get(number, f"number {number}")
            inputs = tuple(found.Inputs(i) for i in range(_limit(found.InputsLength(), _MOST_OPERANDS)))
            _check_index(0, found.OutputsLength())
            options = None
            if name in _OPTIONS:
                options, table = _OPTIONS[name](), found.BuiltinOptions()
                options.Init(table.Bytes, table.Pos)
            yield Operator(
                position, name, tuple(index for index in inputs if index != _ABSENT), found.Outputs(0), options
            )

    def name(self, index: int) -> str:
        """Return what the file calls a tensor."""
        return shorten((self._tensor(index).Name() or b"").decode(errors="replace"))

    def kind(self, index: int) -> int:
        """Return the number type of a tensor, of `tflite.TensorType`."""
        return int(self._tensor(index).Type())

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of a tensor, all axes at least 1."""
        tensor = self._tensor(index)
        shape = tuple(int(tensor.Shape(axis)) for axis in range(_limit(tensor.ShapeLength(), _MOST_AXES)))
        if min(shape, default=1) < 1:
            raise ValueError(f"{self.name(index)} is {shape}")
        return shape

    def is_constant(self, index: int) -> bool:
        """Say whether a tensor's values stand in the file."""
        return isinstance(self._read_buffer(index), np.ndarray)

    def values(self, index: int) -> NDArray[Any]:
        """Return the values of a constant as they are stored."""
        raw = self._read_buffer(index)
        if not isinstance(raw, np.ndarray):
            raise ValueError(f"{self.name(index)} has no values")
        if self.kind(index) not in _DTYPES:
            raise self._refuse(f"{self.name(index)} is of {self._name_kind(index)}")
        # Layers share no weights, so together they are no larger than the file.
        self._left -= raw.size
        if self._left < 0:
            raise ValueError("more weights than bytes")
        return raw.view(_DTYPES[self.kind(index)]).reshape(self.shape(index))

    def quants(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """Return scales and zero points of a tensor, None where it isn't quantized."""
        tensor = self._tensor(index)
        quantization = tensor.Quantization()
        if quantization is None or quantization.ScaleLength() == 0:
            return None
        scales, zero_points = quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy()
        if not (np.isfinite(scales) & (scales > 0) & (scales < _LARGEST_SCALE)).all():
            raise ValueError(f"{self.name(index)} has a scale of 0 or none")
        low, high = _ZERO_POINTS.get(tensor.Type(), (0, 0))
        if np.shape(zero_points) != scales.shape or ((zero_points < low) | (zero_points > high)).any():
            raise ValueError(f"{self.name(index)} has a zero point outside its type")
        return scales, zero_points

    def quantized_axis(self, index: int) -> int:
        """Return the axis that several scales of a tensor belong to."""
        return int(self._tensor(index).Quantization().QuantizedDimension())

    def activation_quant(self, index: int) -> Quant | None:
        """Return scale and int8 zero point of an activation, None where it is float."""
        quants, kind = self.quants(index), self.kind(index)
        if quants is None or kind == Kind.FLOAT32:
            return None
        scales, zero_points = quants
        if kind not in _ZERO_POINTS:
            raise self._refuse(f"{self.name(index)} is an activation of {self._name_kind(index)}")
        if len(scales) != 1:
            raise ValueError("an activation of several scales")
        return float(scales[0]), int(zero_points[0]) - (128 if kind == Kind.UINT8 else 0)

    def dequantize(self, index: int, axis: int) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
        """Return the real numbers of a constant, and its integers less the zero point where it is quantized.

        Parameters
        ----------
        index : int
            Of a tensor.
        axis : int
            The axis that may have several scales.
        """
        values, quants = self.values(index), self.quants(index)
        if values.dtype.kind == "f":
            return values.astype(np.float32), None
        if quants is None:
            raise self._refuse(f"{self.name(index)} is of {self._name_kind(index)} and not quantized")
        scales, zero_points = quants
        channels = values.shape[axis] if values.ndim else 1
        if len(scales) not in (1, channels) or (len(scales) > 1 and self.quantized_axis(index) != axis):
            raise ValueError(f"{self.name(index)} has {len(scales)} scales")
        along = [-1 if position == axis else 1 for position in range(values.ndim)]
        shifted = values.astype(np.int32) - zero_points.reshape(along).astype(np.int32)
        return (shifted.astype(np.float32) * scales.reshape(along)).astype(np.float32), shifted

    def _name_kind(self, index: int) -> str:
        return _KIND_NAMES.get(self.kind(index), "a type of its own")

    def _tensor(self, index: int) -> Any:  # noqa: ANN401 - of a library without types
        return self._graph.Tensors(_check_index(index, self._graph.TensorsLength()))

    def _read_buffer(self, index: int) -> Any:  # noqa: ANN401 - 0 where there is none
        return self._model.Buffers(
            _check_index(self._tensor(index).Buffer(), self._model.BuffersLength())
        ).DataAsNumpy()


def _check_index(index: int, length: int) -> int:
    if not 0 <= index < length:
        raise IndexError(f"{index} of {length}")
    return index


def _limit(length: int, most: int) -> int:
    if length > most:
        raise ValueError(f"{length} of something, at most {most} belong")
    return length
