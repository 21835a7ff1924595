"""Writes networks of ours as TFLite files, as converters write them, without TensorFlow."""

import flatbuffers
import numpy as np
import tflite
from torch import nn

from thumbnet.models.layers import compute_same_padding
from thumbnet.models.stored import list_residuals, list_units

OPERATORS = tflite.BuiltinOperator
KINDS = {
    np.dtype(np.float32): tflite.TensorType.FLOAT32,
    np.dtype(np.float16): tflite.TensorType.FLOAT16,
    np.dtype(np.int8): tflite.TensorType.INT8,
    np.dtype(np.uint8): tflite.TensorType.UINT8,
    np.dtype(np.int16): tflite.TensorType.INT16,
    np.dtype(np.int32): tflite.TensorType.INT32,
}
OPTIONS = {
    "CONV_2D": tflite.BuiltinOptions.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.BuiltinOptions.DepthwiseConv2DOptions,
    "FULLY_CONNECTED": tflite.BuiltinOptions.FullyConnectedOptions,
    "AVERAGE_POOL_2D": tflite.BuiltinOptions.Pool2DOptions,
    "ADD": tflite.BuiltinOptions.AddOptions,
    "MUL": tflite.BuiltinOptions.MulOptions,
    "SUB": tflite.BuiltinOptions.SubOptions,
    "DIV": tflite.BuiltinOptions.DivOptions,
}


class Graph:
    """Collects tensors and operators, and writes them."""

    def __init__(self):
        self.tensors, self.operators = [], []

    def tensor(self, shape, dtype=np.float32, quant=None, values=None, axis=0):
        """Add a tensor; `quant` is scales and zero points. Return its index."""
        self.tensors.append((tuple(shape), np.dtype(dtype), quant, values, axis))
        return len(self.tensors) - 1

    def constant(self, values, quant=None, axis=0):
        """Add a constant. Return its index."""
        return self.tensor(values.shape, values.dtype, quant, values, axis)

    def apply(self, name, inputs, output, **options):
        """Add an operator. Return its output."""
        self.operators.append((name, inputs, output, options))
        return output

    def write(self, path, image, outputs):
        """Write the file."""
        builder = flatbuffers.Builder(0)
        buffers = [b"", *(b"" if values is None else values.tobytes() for *_, values, _ in self.tensors)]
        written = [_write_buffer(builder, content) for content in buffers]
        tensors = [_write_tensor(builder, number, tensor) for number, tensor in enumerate(self.tensors)]
        names = sorted({name for name, *_ in self.operators})
        operators = [_write_operator(builder, names, operator) for operator in self.operators]
        parts = [
            ("Tensors", _vector(builder, tensors)),
            ("Operators", _vector(builder, operators)),
            ("Inputs", builder.CreateNumpyVector(np.array([image], np.int32))),
            ("Outputs", builder.CreateNumpyVector(np.array(outputs, np.int32))),
        ]
        graph = _table(builder, "SubGraph", parts)
        codes = []
        for name in names:
            code = getattr(OPERATORS, name)
            codes.append(
                _table(builder, "OperatorCode", [("DeprecatedBuiltinCode", min(code, 127)), ("BuiltinCode", code)])
            )
        parts = [
            ("Version", 3),
            ("OperatorCodes", _vector(builder, codes)),
            ("Subgraphs", _vector(builder, [graph])),
            ("Buffers", _vector(builder, written)),
        ]
        builder.Finish(_table(builder, "Model", parts), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def _table(builder, name, parts):
    getattr(tflite, f"{name}Start")(builder)
    for part, value in parts:
        getattr(tflite, f"{name}Add{part}")(builder, value)
    return getattr(tflite, f"{name}End")(builder)


def _vector(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _write_buffer(builder, content):
    data = builder.CreateByteVector(content) if content else None
    return _table(builder, "Buffer", [("Data", data)] if content else [])


def _write_tensor(builder, number, tensor):
    shape, dtype, quant, values, axis = tensor
    parts = [("Shape", builder.CreateNumpyVector(np.array(shape, np.int32))), ("Type", KINDS[dtype])]
    parts += [("Buffer", 0 if values is None else number + 1), ("Name", builder.CreateString(f"tensor{number}"))]
    if quant is not None:
        scales, zero_points = (np.atleast_1d(part) for part in quant)
        zero_points = np.broadcast_to(zero_points, scales.shape)
        inside = [
            ("Scale", builder.CreateNumpyVector(scales.astype(np.float32))),
            ("ZeroPoint", builder.CreateNumpyVector(zero_points.astype(np.int64))),
            ("QuantizedDimension", axis),
        ]
        parts.append(("Quantization", _table(builder, "QuantizationParameters", inside)))
    return _table(builder, "Tensor", parts)


def _write_operator(builder, names, operator):
    name, inputs, output, options = operator
    parts = [
        ("OpcodeIndex", names.index(name)),
        ("Inputs", builder.CreateNumpyVector(np.array(inputs, np.int32))),
        ("Outputs", builder.CreateNumpyVector(np.array([output], np.int32))),
    ]
    if name in OPTIONS:
        table = next(key for key, value in vars(tflite.BuiltinOptions).items() if value == OPTIONS[name])
        parts += [
            ("BuiltinOptionsType", OPTIONS[name]),
            ("BuiltinOptions", _table(builder, table, list(options.items()))),
        ]
    return _table(builder, "Operator", parts)


class NetworkFile:
    """Writes a MobileNet of ours.

    Parameters
    ----------
    network : torch.nn.Module
        In TensorFlow's padding.
    kind : {"float", "float16", "dynamic", "int8"}
        Numbers: all float32; weights float16; weights int8; all int8.
    pads : bool
        Put zeros by operators of their own.
    """

    def __init__(self, network, kind="float", pads=False):
        self.graph, self.network, self.kind, self.pads = Graph(), network, kind, pads
        self.quant = (0.05, -10) if kind == "int8" else None
        self.dtype = np.int8 if kind == "int8" else np.float32

    def write(self, path, image, size, channels, answers=("RESHAPE", "SOFTMAX")):
        """Write all layers after `image`, the index of a tensor of their number type, of so many rows and columns."""
        graph, last = self.graph, image
        size = [size, size] if isinstance(size, int) else size
        units = list_units(self.network)
        blocks = [[u.path for u in units if u.path.startswith(f"{path}.")] for path in list_residuals(self.network)]
        starts, ends = {block[0] for block in blocks}, {block[-1] for block in blocks}
        source = None
        for unit in units:
            source = last if unit.path in starts else source
            if isinstance(unit.module, nn.Linear):
                axes = graph.constant(np.array([1, 2], np.int32))
                last = graph.apply("MEAN", [last, axes], self._activation((1, channels)))
            last, size, channels = self._layer(unit, last, size, channels)
            if unit.path in ends:
                sizes = (1, *size, channels)
                last = graph.apply("ADD", [source, last], self._activation(sizes))
        for answer in answers:
            last = graph.apply(answer, [last], self._activation((1, channels)))
        return graph.write(path, 0, [last])

    def _activation(self, shape):
        return self.graph.tensor(shape, self.dtype, self.quant)

    def _layer(self, unit, last, size, channels):
        graph = self.graph
        weight, bias = _fold(unit)
        name, axis = "FULLY_CONNECTED", 0
        stride, outputs, options = unit.stride, weight.shape[0], {}
        if weight.ndim == 4:
            # An image of one channel may be given to a depthwise convolution.
            depthwise = unit.kind == "depthwise" or channels == 1
            name, axis = ("DEPTHWISE_CONV_2D", 3) if depthwise else ("CONV_2D", 0)
            weight = weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
            kernel, padding = weight.shape[1], tflite.Padding.SAME if not self.pads else tflite.Padding.VALID
            zeros = [compute_same_padding(extent, kernel, stride) for extent in size]
            if self.pads and np.any(zeros):
                pairs = graph.constant(np.array([[0, 0], *zeros, [0, 0]], np.int32))
                padded = [extent + sum(pair) for extent, pair in zip(size, zeros, strict=True)]
                last = graph.apply("PAD", [last, pairs], self._activation((1, *padded, channels)))
            options = {"Padding": padding, "StrideH": stride, "StrideW": stride}
            options |= {"DilationHFactor": 1, "DilationWFactor": 1}
            size = [-(-extent // stride) for extent in size]
        if unit.activated:
            options["FusedActivationFunction"] = tflite.ActivationFunctionType.RELU6
        shape = (1, *size, outputs) if weight.ndim == 4 else (1, outputs)
        operands = self._constants(np.ascontiguousarray(weight), bias, axis)
        return graph.apply(name, [last, *operands], self._activation(shape), **options), size, outputs

    def _constants(self, weight, bias, axis):
        graph = self.graph
        if self.kind == "float":
            return graph.constant(weight), graph.constant(bias)
        if self.kind == "float16":
            halves = graph.constant(weight.astype(np.float16))
            return graph.apply("DEQUANTIZE", [halves], graph.tensor(weight.shape)), graph.constant(bias)
        others = tuple(i for i in range(weight.ndim) if i != axis)
        scales = np.abs(weight).max(axis=others) / 127
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        integers = np.rint(weight / scales.reshape(shape)).astype(np.int8)
        stored = graph.constant(integers, (scales, 0), axis)
        if self.kind == "dynamic":
            return stored, graph.constant(bias)
        steps = np.rint(bias / (self.quant[0] * scales)).astype(np.int32)
        return stored, graph.constant(steps, (self.quant[0] * scales, 0))


def _fold(unit):
    weight = unit.module.weight.detach().numpy()
    if unit.batch_norm is None:
        return weight, unit.module.bias.detach().numpy()
    norm = unit.batch_norm
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    bias = norm.bias.detach().numpy() - norm.running_mean.numpy() * scale
    return weight * scale[:, None, None, None], bias
