"""The integer network as a Relax module, and back.

``main`` takes and returns int8 (NHWC in, ``[1, classes]`` out) and calls one private function a layer, whose body is
made of standard integer Relax operators. Weights, biases and multipliers are constants of ``main``; what else a layer
is made of stands in its function's ``thumbnet.layer`` attribute. ``layers`` computes the same and returns every layer's
output.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.ir import Call

from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import (
    NETWORK_INPUT,
    Add,
    AveragePool,
    DepthwiseConvolution,
    IntegerNetwork,
    Layer,
    MaxPool,
)
from thumbnet.compile.network.layer_fields import ARRAYS, join_layer, split_layer
from thumbnet.compile.network.quantization import TensorQuant
from thumbnet.compile.network.relax_expr import bindings_of, constant
from thumbnet.compile.symbol_prefix import identifier

#: Function attribute: the layer's scalars, as in the dataclass of its kind.
LAYER = "thumbnet.layer"
#: The module's public functions: the output, and every layer's output.
ENTRIES = ("main", "layers")
#: Module attribute: shape and quantization of the input.
INPUT = "thumbnet.input"


def write_relax(network: IntegerNetwork) -> tvm.IRModule:
    """Return the Relax module of an integer network."""
    builder = relax.BlockBuilder()
    functions = {layer.name: _write_layer(builder, network, layer) for layer in network.layers}
    for entry in ENTRIES:
        image = relax.Var("image", relax.TensorType((1, *network.input_shape), "int8"))
        with builder.function(entry, [image]):
            with builder.dataflow():
                values: dict[str, relax.Expr] = {NETWORK_INPUT: image}
                for layer in network.layers:
                    inputs = [values[source] for source in layer.sources]
                    call = Call(functions[layer.name], [*inputs, *_constants(layer).values()])
                    values[layer.name] = builder.emit(call, name_hint=identifier(layer.name))
                if entry == "main":
                    result = relax.op.reshape(values[network.output.name], (1, network.output.output_shape[2]))
                else:
                    result = relax.Tuple([values[layer.name] for layer in network.layers])
                output = builder.emit_output(result)
            builder.emit_func_output(output)
    attribute = {"shape": list(network.input_shape), "quant": list(network.input_quant)}
    return builder.finalize().with_attr(INPUT, attribute)


def read_relax(module: tvm.IRModule) -> IntegerNetwork:
    """Return the integer network of a module written by `write_relax`."""
    layers = [
        _read_layer(module[call.op], call)
        for call in bindings_of(module["main"]).values()
        if isinstance(call, Call) and isinstance(call.op, tvm.ir.GlobalVar)
    ]
    attribute = module.attrs[INPUT]
    height, width, channels = (int(extent) for extent in attribute["shape"])
    return IntegerNetwork((height, width, channels), TensorQuant(*_plain(attribute["quant"])), tuple(layers))


def _constants(layer: Layer) -> dict[str, relax.Expr]:
    """Return a layer's arrays by name."""
    arrays = split_layer(layer)[1]
    if isinstance(layer, DepthwiseConvolution):
        # As HWOI, the only layout of depthwise kernels that TOPI takes beside NHWC data.
        arrays["weight"] = arrays["weight"][..., None]
    return {name: relax.const(arrays[name]) for name in ARRAYS if name in arrays}


def _write_layer(builder: relax.BlockBuilder, network: IntegerNetwork, layer: Layer) -> tvm.ir.GlobalVar:
    inputs = [
        relax.Var(f"input{index}", relax.TensorType((1, *network.shape_of(source)), "int8"))
        for index, source in enumerate(layer.sources)
    ]
    parameters = {name: relax.Var(name, value.ty) for name, value in _constants(layer).items()}
    symbol = identifier(layer.name)
    with builder.function(
        # A layer may bear the name of an entry, which must keep it.
        f"layer_{symbol}" if symbol in ENTRIES else symbol,
        [*inputs, *parameters.values()],
        attrs={"Primitive": True, LAYER: split_layer(layer)[0]},
        private=True,
    ):
        with builder.dataflow():
            output = builder.emit_output(builder.normalize(_body(builder, layer, inputs, parameters)))
        variable = builder.emit_func_output(output)
    return variable


def _body(
    builder: relax.BlockBuilder, layer: Layer, inputs: list[relax.Var], parameters: dict[str, relax.Var]
) -> relax.Expr:
    emit = builder.emit
    if isinstance(layer, Add):
        p = layer.parameters
        wide = [emit(relax.op.astype(tensor, "int32")) for tensor in inputs]
        total = emit(relax.op.add(_scaled(builder, wide[0], p.multiplier_a), _scaled(builder, wide[1], p.multiplier_b)))
        total = emit(relax.op.add(total, relax.const(p.constant, "int32")))
        total = emit(relax.op.right_shift(total, relax.const(p.shift, "int32")))
        return relax.op.astype(emit(relax.op.clip(total, p.minimum, p.maximum)), "int8")
    if isinstance(layer, AveragePool):
        acc = emit(relax.op.sum(emit(relax.op.astype(inputs[0], "int32")), axis=[1, 2], keepdims=True))
        acc = emit(relax.op.add(acc, relax.const(layer.bias, "int32")))
        return _requantized(builder, acc, parameters, layer.requantization)
    data = inputs[0]
    top, left, bottom, right = layer.padding
    if isinstance(layer, MaxPool):
        if any(layer.padding):
            # TVM's pooling pads with what is less than int8 has.
            data = emit(relax.op.nn.pad(data, pad_width=[0, 0, top, bottom, left, right, 0, 0], pad_value=-128))
        return relax.op.nn.max_pool2d(data, pool_size=layer.kernel, strides=layer.stride, layout="NHWC")
    if any(layer.padding):
        width = [0, 0, top, bottom, left, right, 0, 0]
        data = emit(relax.op.nn.pad(data, pad_width=width, pad_value=layer.input_zero_point))
    depthwise = isinstance(layer, DepthwiseConvolution)
    if isinstance(layer, DepthwiseConvolution) and layer.multiplier > 1:
        # The layout above has one kernel a channel.
        data = emit(relax.op.repeat(data, layer.multiplier, axis=3))
    acc = emit(
        relax.op.nn.conv2d(
            data,
            parameters["weight"],
            strides=list(layer.stride),
            groups=layer.output_shape[2] if depthwise else 1,
            data_layout="NHWC",
            kernel_layout="HWOI" if depthwise else "OHWI",
            out_dtype="int32",
        )
    )
    acc = emit(relax.op.add(acc, parameters["bias"]))
    return _requantized(builder, acc, parameters, layer.requantization)


def _scaled(builder: relax.BlockBuilder, tensor: relax.Var, factor: int) -> relax.Var:
    return builder.emit(relax.op.multiply(tensor, relax.const(factor, "int32")))


def _requantized(
    builder: relax.BlockBuilder, acc: relax.Var, parameters: dict[str, relax.Var], requantization: Requantization
) -> relax.Expr:
    """Emit `fixed_point.requantize_round_half_up`, with both sides of its shift halved: ``(a * m + 2**30) >> 31``."""
    emit = builder.emit
    wide = emit(relax.op.astype(acc, "int64"))
    if "left_shift" in parameters:
        wide = emit(relax.op.left_shift(wide, emit(relax.op.astype(parameters["left_shift"], "int64"))))
    product = emit(relax.op.multiply(wide, emit(relax.op.astype(parameters["multiplier"], "int64"))))
    rounded = emit(relax.op.add(product, relax.const(1 << 30, "int64")))
    high = emit(relax.op.astype(emit(relax.op.right_shift(rounded, relax.const(31, "int64"))), "int32"))
    moved = emit(relax.op.add(high, relax.const(requantization.zero_point, "int32")))
    return relax.op.astype(emit(relax.op.clip(moved, requantization.minimum, requantization.maximum)), "int8")


def _read_layer(function: relax.Function, call: Call) -> Layer:
    arrays = {
        parameter.name: constant(argument, {})
        for parameter, argument in zip(function.params, call.args, strict=True)
        if parameter.name in ARRAYS
    }
    scalars = _plain(function.attrs[LAYER])
    if scalars["kind"] == DepthwiseConvolution.__name__:
        arrays["weight"] = arrays["weight"][..., 0]
    return join_layer(scalars, arrays)


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Turn TVM's attribute containers into Python's."""
    if isinstance(value, tvm.ir.Map) or hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tvm.ir.Array) or isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, tvm.tirx.IntImm):
        return int(value)
    if isinstance(value, tvm.tirx.FloatImm):
        return float(value)
    return str(value) if isinstance(value, str) else value
