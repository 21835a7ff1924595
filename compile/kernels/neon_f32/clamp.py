"""What stands at the end of every float32 kernel: nothing, ReLU's lower bound, or both bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from thumbnet.compile.network.float_network import FloatLayer

#: Floats that a record of constants has for it: a vector of the lowest value, and one of the highest.
CLAMP_FLOATS = 8


@dataclass(frozen=True)
class Clamp:
    """Which bounds a kernel keeps; their values it reads, so that one kernel serves all.

    Parameters
    ----------
    low, high : bool
        Whether there is a lowest, and a highest value.
    """

    low: bool
    high: bool

    @classmethod
    def of(cls, layer: FloatLayer) -> Clamp:
        """Return the clamp of a layer."""
        return cls(bool(np.isfinite(layer.minimum)), bool(np.isfinite(layer.maximum)))

    @property
    def suffix(self) -> str:
        """What distinguishes the kernels' names."""
        return ("_low" if self.low else "") + ("_high" if self.high else "")

    def instructions(self, registers: Iterable[int], low: int, high: int) -> list[str]:
        """Return the clamping of vectors, the bounds standing in two others."""
        made = []
        for r in registers:
            made += [f"fmax v{r}.4s, v{r}.4s, v{low}.4s"] if self.low else []
            made += [f"fmin v{r}.4s, v{r}.4s, v{high}.4s"] if self.high else []
        return made


def clamp_vectors(layer: FloatLayer) -> bytes:
    """Return the bounds of a layer as vectors, the ends of float32 where there are none."""
    ends = np.finfo(np.float32)
    bounds = np.clip([layer.minimum, layer.maximum], ends.min, ends.max)
    return np.repeat(bounds.astype("<f4"), CLAMP_FLOATS // 2).tobytes()
