"""The quantization of one tensor, as every part of the compiler passes it on."""

from __future__ import annotations

from typing import NamedTuple


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
