"""The quantization of one tensor, as every part of the compiler passes it on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Steps are taken as exact to so many decimals: float32 moves a pixel by at most 0.00003 of a step.
_DECIMALS = 4


class TensorQuant(NamedTuple):
    """int8 quantization of an activation: ``real = scale * (q - zero_point)``.

    Parameters
    ----------
    scale : float
        Positive, float32 value.
    zero_point : int
        In [-128, 127]; stored as it is, never negated.
    """

    scale: float
    zero_point: int

    def quantize(self, values: NDArray[Any]) -> NDArray[np.int8]:
        """Return the nearest int8 values: half up, also where float32 has moved a value off the tie it lies on."""
        steps = np.floor(np.round(values.astype(np.float64) / self.scale, _DECIMALS) + 0.5) + self.zero_point
        clamped: NDArray[np.float64] = np.clip(steps, -128, 127)
        return clamped.astype(np.int8)
