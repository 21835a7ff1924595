"""Reads TFLite MobileNets: int8 and uint8 with their ranges, and float32, float16 or int8 weights without any."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tflite
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.layer_chain import Feature, LayerChain, Margins, spell
from thumbnet.models.layers import Activation
from thumbnet.models.preprocessing import (
    Preprocessing,
    has_quant,
    hosted_preprocessing,
    keras_preprocessing,
    nearest_preprocessing,
    raw_preprocessing,
    scaled_preprocessing,
    unit_preprocessing,
)
from thumbnet.models.stored import LayerKind, Quant, StoredLayer, StoredNetwork
from thumbnet.models.tflite_graph import Operator, TfliteGraph
from thumbnet.models.variants import RESOLUTIONS

_ACTIVATIONS: dict[int, Activation] = {
    tflite.ActivationFunctionType.RELU: "relu",
    tflite.ActivationFunctionType.RELU6: "relu6",
}
_ACTIVATION_OPERATORS: dict[str, Activation] = {"RELU": "relu", "RELU6": "relu6"}
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
#: Operators with a number, or one a channel, on the right.
_SCALINGS = ("MUL", "ADD", "SUB", "DIV")
#: Operators that move the pooled values, or the classes', into other axes.
_MOVES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
#: After the classifier, of which the answer's class doesn't depend; a single output's is read as two classes'.
_ANSWERS = ("SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE")
_SCALING = frozenset({"mean", "std"})
#: A symmetric int8 weight reaches to plus and minus 127.
_LARGEST_INT8 = 127
_READ = "of TFLite, MobileNet V1 and V2 classifiers of int8, uint8 and float are read"

# What the flatbuffer accessors raise on a file that ends early or points outside itself.
_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, AssertionError)


def read_tflite(file: Path, data: bytes) -> StoredNetwork:
    """Read a TFLite MobileNet.

    Weights are dequantized; ranges become int8 terms (a uint8 zero point minus 128, the scale unchanged).

    Raises
    ------
    WeightsFileError
        The file is damaged, or has operators no MobileNet has; the message names them.
    """

    def refuse(what: str) -> WeightsFileError:
        return WeightsFileError(f"{file}: a TFLite file with {what}, which is not read; {_READ}")

    try:
        return _Reader(TfliteGraph(data, refuse), refuse).read()
    except _DAMAGE as error:
        raise WeightsFileError(f"{file}: a damaged or truncated TFLite file; get it again") from error


class _Reader:
    """Walks the operators of one file in the order of execution."""

    def __init__(self, graph: TfliteGraph, refuse: Callable[[str], WeightsFileError]) -> None:
        self._graph = graph
        self._refuse = refuse
        self._features: dict[int, Feature] = {}
        #: Constants that an operator makes of others.
        self._constants: dict[int, NDArray[np.float32]] = {}
        #: The quantization of what the first convolution takes.
        self._input_quant: Quant | None = None
        self._readers: dict[str, Callable[[LayerChain, Operator, Feature], Feature]] = {
            **dict.fromkeys(_CONVOLUTIONS, self._convolve),
            **dict.fromkeys(_SCALINGS, self._rescale),
            **dict.fromkeys(_ACTIVATION_OPERATORS, self._activate),
            **dict.fromkeys(("PAD", "PADV2"), self._pad),
            **dict.fromkeys(("MEAN", "AVERAGE_POOL_2D"), self._pool),
            "FULLY_CONNECTED": self._classify,
        }

    def read(self) -> StoredNetwork:
        graph = self._graph
        if (len(graph.inputs), len(graph.outputs)) != (1, 1):
            raise self._refuse(f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
        image = graph.inputs[0]
        shape = graph.shape(image)
        if len(shape) != 4 or not all(extent in RESOLUTIONS for extent in shape[1:3]):
            raise self._refuse(f"an input of {'x'.join(map(str, shape))}")
        chain = LayerChain((shape[1], shape[2]), shape[3], self._refuse)
        self._features[image] = chain.image
        quant = graph.activation_quant(image)
        shapes: set[int] = set()
        for operator in graph.list_operators():
            inputs = operator.inputs
            if operator.name == "SHAPE" or (shapes.intersection(inputs) and not self._features.keys() & {*inputs}):
                # What computes the shape of another operator's output.
                shapes.add(operator.output)
            elif operator.name == "DEQUANTIZE" and graph.is_constant(inputs[0]):
                self._constants[operator.output] = self._read_constant(inputs[0])
            else:
                if operator.name == "QUANTIZE" and quant is None and inputs[0] == image:
                    quant = graph.activation_quant(operator.output)
                self._features[operator.output] = self._apply(chain, operator)
        if graph.outputs[0] not in self._features:
            raise self._refuse("an output that no operator gives")
        preprocessing, stated = self._choose_preprocessing(chain, quant)
        return chain.finish(self._features[graph.outputs[0]], preprocessing, stated, self._input_quant)

    def _apply(self, chain: LayerChain, operator: Operator) -> Feature:
        """Return what an operator gives."""
        name, label = operator.name, str(operator)
        sources = [self._features[index] for index in operator.inputs if index in self._features]
        if name == "ADD" and len(operator.inputs) == len(sources) == 2:
            self._refuse_activation(operator)
            return chain.add(label, (sources[0], sources[1]), self._output_quant(operator))
        if len(sources) != 1:
            raise self._refuse(f"{label} of {len(sources)} tensors that the image becomes")
        feature = sources[0]
        if name in self._readers:
            return self._readers[name](chain, operator, feature)
        scales_pixels = name == "QUANTIZE" and not feature.layers
        moves = name in _MOVES and chain.pooled
        answers = name in _ANSWERS and chain.classified and (name != "LOGISTIC" or feature.channels == 1)
        if scales_pixels or moves or answers:
            return feature
        raise self._refuse(label)

    def _classify(self, chain: LayerChain, operator: Operator, feature: Feature) -> Feature:
        self._refuse_activation(operator)
        return chain.classify(feature, self._read_layer(operator, "linear", 1))

    def _activate(self, chain: LayerChain, operator: Operator, feature: Feature) -> Feature:
        activation = _ACTIVATION_OPERATORS[operator.name]
        return chain.activate(str(operator), feature, activation, self._output_quant(operator))

    def _pad(self, chain: LayerChain, operator: Operator, feature: Feature) -> Feature:
        return chain.pad(str(operator), feature, self._read_margins(operator))

    def _pool(self, chain: LayerChain, operator: Operator, feature: Feature) -> Feature:
        self._check_pool(operator, feature)
        return chain.pool(str(operator), feature, self._output_quant(operator))

    def _output_quant(self, operator: Operator) -> Quant | None:
        return self._graph.activation_quant(operator.output)

    def _read_constant(self, index: int) -> NDArray[np.float32]:
        if index in self._constants:
            return self._constants[index]
        return self._graph.dequantize(index, axis=0)[0]

    def _refuse_activation(self, operator: Operator) -> None:
        function = operator.options.FusedActivationFunction()
        if function != tflite.ActivationFunctionType.NONE:
            raise self._refuse(f"activation {function} in {operator}")

    def _convolve(self, chain: LayerChain, operator: Operator, feature: Feature) -> Feature:
        if not feature.layers:
            self._input_quant = self._graph.activation_quant(operator.inputs[0])
        options = operator.options
        steps = (options.StrideH(), options.StrideW(), options.DilationHFactor(), options.DilationWFactor())
        if steps not in ((1, 1, 1, 1), (2, 2, 1, 1)):
            raise self._refuse(f"strides {steps[:2]} and dilations {steps[2:]} in {operator}")
        # A depthwise convolution of one channel is an ordinary one, of as many outputs as its multiplier.
        depthwise = operator.name == "DEPTHWISE_CONV_2D" and feature.channels > 1
        layer = self._read_layer(operator, "depthwise" if depthwise else "conv", int(steps[0]))
        feature = chain.convolve(feature, layer, same=options.Padding() == tflite.Padding.SAME)
        function = options.FusedActivationFunction()
        if function == tflite.ActivationFunctionType.NONE:
            return feature
        if function not in _ACTIVATIONS:
            raise self._refuse(f"activation {function} in {operator}")
        return chain.activate(str(operator), feature, _ACTIVATIONS[function])

    def _read_layer(self, operator: Operator, kind: LayerKind, stride: int) -> StoredLayer:
        graph, index = self._graph, operator.inputs[1]
        # TFLite has OHWI, 1HWO for depthwise, and OI for a linear layer, whose I may be in several axes.
        axis = 3 if operator.name == "DEPTHWISE_CONV_2D" else 0
        if index in self._constants:
            weight, shifted = self._constants[index], None
        else:
            weight, shifted = graph.dequantize(index, axis)
        if weight.ndim != 4 and kind != "linear":
            raise ValueError(f"{graph.name(index)} has {weight.ndim} axes")
        channels = weight.shape[axis]
        scales = None
        if shifted is not None:
            quants = graph.quants(index)
            assert quants is not None
            scales = _choose_scales(np.moveaxis(shifted, axis, 0), np.broadcast_to(quants[0], (channels,)))
        if kind == "linear":
            weight = weight.reshape(channels, -1)
        else:
            weight = weight.transpose((3, 0, 1, 2) if axis else (0, 3, 1, 2))
        bias = self._read_constant(operator.inputs[2]) if len(operator.inputs) > 2 else np.zeros(channels, np.float32)
        return StoredLayer(
            graph.name(index),
            kind,
            np.ascontiguousarray(weight),
            bias.reshape(channels),
            stride,
            weight_scales=scales,
            output_quant=self._output_quant(operator),
        )

    def _read_margins(self, operator: Operator) -> Margins:
        """Return the zeros before and after each axis."""
        zeros = self._graph.values(operator.inputs[1]).tolist()
        if len(zeros) != 4 or zeros[0] != [0, 0] or zeros[3] != [0, 0]:
            raise self._refuse(f"zeros {zeros} in {operator}")
        if operator.name == "PADV2" and np.any(self._read_constant(operator.inputs[2])):
            raise self._refuse(f"other numbers than zeros in {operator}")
        (top, bottom), (left, right) = zeros[1:3]
        return (int(top), int(bottom)), (int(left), int(right))

    def _check_pool(self, operator: Operator, feature: Feature) -> None:
        """Refuse a pooling of less than all pixels."""
        if operator.name == "MEAN":
            axes = [axis % 4 for axis in self._graph.values(operator.inputs[1]).reshape(-1).tolist()]
            whole = sorted(axes) == [1, 2]
        else:
            self._refuse_activation(operator)
            window = (operator.options.FilterHeight(), operator.options.FilterWidth())
            whole = window == feature.size and self._graph.shape(operator.output)[1:3] == (1, 1)
        if not whole:
            raise self._refuse(f"a part of {spell(feature.size)} pixels in {operator}")

    def _rescale(self, chain: LayerChain, operator: Operator, feature: Feature) -> Feature:
        self._refuse_activation(operator)
        left, right = operator.inputs
        if right in self._features:
            if operator.name in ("SUB", "DIV"):
                raise self._refuse(f"a number on the left in {operator}")
            right = left
        numbers = self._read_constant(right).astype(np.float64).reshape(-1)
        scale, offset = np.ones(1), np.zeros(1)
        if operator.name in ("MUL", "DIV"):
            scale = numbers if operator.name == "MUL" else 1 / numbers
        else:
            offset = numbers if operator.name == "ADD" else -numbers
        return chain.rescale(str(operator), feature, scale, offset)

    def _choose_preprocessing(self, chain: LayerChain, quant: Quant | None) -> tuple[Preprocessing, frozenset[str]]:
        """Return what an image has to become, and which of its fields the file says.

        `quant` is that of the image, None where it is float.
        """
        size, channels, classes = chain.image.size, chain.image.channels, chain.classes
        # Keras' range and the hosted files' differ by less than those of images do: the first is today's.
        squares = (
            keras_preprocessing(size[0], classes, channels),
            hosted_preprocessing(size[0], classes, channels),
            unit_preprocessing(size[0], channels),
            raw_preprocessing(size[0], channels),
        )
        known = [preprocessing.of_size(size) for preprocessing in squares]
        stated = quant is None or any(has_quant(preprocessing, quant) for preprocessing in known)
        if quant is not None:
            usual = nearest_preprocessing(known, quant)
        else:
            usual = known[-1] if chain.scaling is not None else known[0]
        if chain.scaling is None:
            return usual, _SCALING if stated and quant is not None else frozenset()
        scale, offset = chain.scaling
        mean, std = np.array(usual.mean), np.array(usual.std)
        # float32 numbers: 1 / 127.5 of them is 127.499996.
        own = scaled_preprocessing(known[0], scale / std, offset - mean * scale / std, decimals=3)
        return own, _SCALING if stated else frozenset()


def _choose_scales(shifted: NDArray[np.int32], file_scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each output channel's scale for symmetric int8 weights: the file's where they fit, else a larger one.

    The hosted files' uint8 weights have zero points of their own (49 to 204), so a channel's values reach beyond -127
    to 127 once the zero point is taken off. Such a channel needs a scale that holds its largest weight; all others
    keep the file's integers exactly.
    """
    largest = np.abs(shifted.reshape(shifted.shape[0], -1)).max(axis=1)
    factors: NDArray[np.float32] = np.maximum(largest / _LARGEST_INT8, 1.0).astype(np.float32)
    return (file_scales * factors).astype(np.float32)
