"""What a network computes around its weights, which a weights file may not say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from thumbnet.models.errors import ModelError
from thumbnet.models.layers import Activation, Padding


@dataclass(frozen=True)
class Conventions:
    """What a person says of a network where its file is silent; None leaves it to what the file's origin implies.

    Parameters
    ----------
    padding : {"same", "symmetric"} or None
        TensorFlow's SAME, or PyTorch's equal padding on both sides.
    bn_epsilon : float or None
        Added to the variance in every batch norm, above 0 and below 1.
    activation : {"relu6", "relu"} or None
        After the batch norms.

    Raises
    ------
    ModelError
        One of them is none of these.
    """

    padding: Padding | None = None
    bn_epsilon: float | None = None
    activation: Activation | None = None

    def __post_init__(self) -> None:
        """Refuse what no network computes."""
        _check_choice("padding", self.padding, get_args(Padding))
        _check_choice("activation", self.activation, get_args(Activation))
        epsilon = self.bn_epsilon
        if epsilon is None:
            return
        if not isinstance(epsilon, float | int) or not math.isfinite(epsilon) or not 0 < epsilon < 1:
            raise ModelError(f"batch norm epsilon {epsilon!r:.40} is not between 0 and 1; 1e-5 and 1e-3 are usual")


def _check_choice(what: str, value: object, known: tuple[str, ...]) -> None:
    if value is not None and not (isinstance(value, str) and value in known):
        raise ModelError(f"{what} {value!r:.40} is not known; known: {', '.join(known)}")


#: The person says nothing.
UNSAID = Conventions()
