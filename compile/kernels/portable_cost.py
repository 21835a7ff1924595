"""What the portable kernels take, as the C compiler makes them: by gcc 12 -O3, counted on emulated boards."""

from __future__ import annotations

from math import prod

from thumbnet.compile.network.layers import AddLayer, AnyLayer, AveragePoolLayer, MaxPoolLayer

#: Instructions of a multiply-accumulate, and of an output: rough, for layers that our kernels take never come to this.
_MAC, _OUTPUT = 8, 30
#: Of a value read under a window of a maximum.
_MAXIMUM = 3
#: Of a sum of two tensors, an output: 7.4 to 10.4 on microcontrollers and Armv7-A; where gcc makes vectors of it 2.0.
_ADD, _ADD_VECTORS = 9.0, 2.0
#: Of an average pool, a value read and an output, fitted to pools of 1 to 16 pixels; and where gcc makes vectors of it.
_POOL, _POOL_OUTPUT = 1.9, 7.5
_POOL_VECTORS, _POOL_OUTPUT_VECTORS = 0.21, 2.5


def portable_instructions(layer: AnyLayer, *, vectors: bool) -> float:
    """Return the instructions of a layer on its portable kernel.

    Parameters
    ----------
    layer : Layer
        Of int8 or float32.
    vectors : bool
        Whether the compiler makes vectors of sums and pools, see `RollingStage.portable_vectors`.
    """
    outputs = prod(layer.output_shape)
    match layer:
        case AddLayer():
            return outputs * (_ADD_VECTORS if vectors else _ADD)
        case AveragePoolLayer():
            read = prod(layer.input_shape)
            if vectors:
                return read * _POOL_VECTORS + outputs * _POOL_OUTPUT_VECTORS
            return read * _POOL + outputs * _POOL_OUTPUT
        case MaxPoolLayer():
            return outputs * (_OUTPUT + _MAXIMUM * prod(layer.kernel))
        case _:
            return layer.macs * _MAC + outputs * _OUTPUT
