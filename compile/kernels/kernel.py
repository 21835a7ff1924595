"""What a kernel is: one or more layers as TIR, with its constants laid out as the TIR reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx


@dataclass(frozen=True)
class Scratch:
    """Working memory of a kernel: `elements` of `dtype`, in the arena while the kernel runs."""

    dtype: str
    elements: int

    @property
    def bytes(self) -> int:
        """Size, rounded up to words."""
        return -(-self.elements * np.dtype(self.dtype).itemsize // 4) * 4


@dataclass(frozen=True)
class Kernel:
    """The code of one layer, or of a chain of layers computed together.

    Parameters
    ----------
    variant : str
        Which of the kernels it is, for reports.
    function : tirx.PrimFunc
        Parameters are buffers in the order inputs, output, constants, scratch.
    constants : dict
        Arrays by parameter name, packed as the function reads them.
    scratch : dict
        Working memory by parameter name.
    definitions : tuple of str
        C lines that define what the function calls, each by its whole text: equal ones are printed once.
    """

    variant: str
    function: tirx.PrimFunc
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    scratch: dict[str, Scratch] = field(default_factory=dict)
    definitions: tuple[str, ...] = ()

    @property
    def scratch_bytes(self) -> int:
        """All working memory."""
        return sum(item.bytes for item in self.scratch.values())
