"""What a library gives as arrays, in the shapes its manifest says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.kernels.layouts import read_layout
from thumbnet.runtime_tests.errors import DeviceFaultError


def unpack_layer(artifact: Artifact, layer: dict[str, Any], array: NDArray[Any]) -> NDArray[Any]:
    """Return a layer's output in its shape; our own stages give the bytes of its layout.

    Raises
    ------
    DeviceFaultError
        As `shape_output`.
    """
    if "layout" not in layer:
        return shape_output(artifact, layer["name"], array, layer["shape"])
    layout = read_layout(layer["layout"])
    whole = shape_output(artifact, layer["name"], array, (layout.size,))
    return layout.unpack(whole.tobytes()).reshape(layer["shape"])


def shape_output(artifact: Artifact, what: str, array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return an output in its shape.

    Raises
    ------
    DeviceFaultError
        It has another number of values.
    """
    if array.size != math.prod(shape):
        raise DeviceFaultError(f"{artifact.name}: {what} has {array.size} values, its manifest says {list(shape)}")
    return np.asarray(array).reshape(shape)
