"""What a layer of Keras does to pixels, where it multiplies them and adds to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thumbnet.models.keras_config import KerasLayer

#: Keras 3's operators by class, and Keras 2's by the end of the function they call, with a number on their right.
_OPERATORS = {
    **{"TrueDivide": "divide", "Divide": "divide", "truediv": "divide", "divide": "divide"},
    **{"Multiply": "multiply", "multiply": "multiply"},
    **{"Subtract": "subtract", "subtract": "subtract"},
    **{"Add": "add", "add": "add"},
}
_TF_OPERATOR = "TFOpLambda"
#: The least deviation that `keras.layers.Normalization` divides by.
_LEAST_DEVIATION = 1e-7


def read_scaling(layer: KerasLayer) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return what a layer multiplies each channel with and then adds, or None if it does something else.

    Raises
    ------
    LookupError, ValueError, TypeError
        It is written otherwise.
    """
    settings = layer.settings
    if layer.kind == "Rescaling":
        return _as_numbers(settings["scale"]), _as_numbers(settings["offset"])
    if layer.kind == "Normalization" and settings.get("mean") is not None and not settings.get("invert"):
        deviation = np.maximum(np.sqrt(_as_numbers(settings["variance"])), _LEAST_DEVIATION)
        return 1 / deviation, -_as_numbers(settings["mean"]) / deviation
    name = settings["function"].rpartition(".")[2] if layer.kind == _TF_OPERATOR else layer.kind
    if name not in _OPERATORS or len(layer.constants) != 2 or layer.constants[0] is not None:
        return None
    number = layer.constants[1]
    if number is None:
        return None
    if _OPERATORS[name] in ("divide", "multiply"):
        scale = 1 / number if _OPERATORS[name] == "divide" else number
        return np.array([scale]), np.zeros(1)
    return np.ones(1), np.array([-number if _OPERATORS[name] == "subtract" else number])


def _as_numbers(value: object) -> NDArray[np.float64]:
    """Return a number, or a list of one a channel that may be inside other lists, as an array ``[channels]``."""
    return np.asarray(value, dtype=np.float64).reshape(-1)
