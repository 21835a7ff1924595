"""A layer taken apart into scalars and arrays, and put together again: for Relax attributes and for files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.fixed_point import AddParameters, Requantization
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution, Layer, MaxPool
from thumbnet.compile.network.quantization import TensorQuant

#: The arrays a layer can have, in the order in which functions take them.
ARRAYS = ("weight", "bias", "multiplier", "left_shift")

_KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Convolution, DepthwiseConvolution, AveragePool, MaxPool, Add)
}


def split_layer(layer: Layer) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what of a layer goes into JSON, and its arrays: those of `ARRAYS` that it has.

    A left shift of nothing but zeros, as nearly every layer's is, is left out.
    """
    scalars: dict[str, Any] = {"kind": type(layer).__name__}
    arrays: dict[str, NDArray[Any]] = {}
    for key, value in asdict(layer).items():
        if isinstance(value, np.ndarray):
            arrays[key] = value
        elif key == "requantization":
            arrays["multiplier"], left_shift = value.pop("multiplier"), value.pop("left_shift")
            if left_shift.any():
                arrays["left_shift"] = left_shift
            scalars[key] = value
        else:
            scalars[key] = list(value) if isinstance(value, tuple) else value
    return scalars, arrays


def join_layer(scalars: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Layer:
    """Return the layer that `split_layer` took apart."""
    fields = dict(scalars)
    kind = _KINDS[fields.pop("kind")]
    for key in ("input_shape", "output_shape", "kernel", "stride", "padding"):
        if key in fields:
            fields[key] = tuple(fields[key])
    fields["output_quant"] = TensorQuant(*fields["output_quant"])
    if kind is Add:
        return Add(**{**fields, "parameters": AddParameters(**fields["parameters"])})
    if kind is MaxPool:
        return MaxPool(**fields)
    arrays = dict(arrays)
    multiplier = arrays.pop("multiplier")
    left_shift = arrays.pop("left_shift", np.zeros_like(multiplier))
    fields["requantization"] = Requantization(multiplier, left_shift, **fields["requantization"])
    fields.update(arrays)
    return kind(**fields)
