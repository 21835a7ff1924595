"""What a kernel is: one layer as scheduled TIR, with its constants laid out as the TIR reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from tvm import tirx


@dataclass(frozen=True)
class Kernel:
    """One layer's code.

    Parameters
    ----------
    variant : str
        Which of the kernels it is, for reports.
    function : tirx.PrimFunc
        Scheduled; parameters are flat or shaped buffers in the order inputs, output, constants, scratch.
    constants : dict
        Arrays by parameter name, packed as the function reads them.
    scratch_bytes : int
        Working memory the function wants besides its inputs and output, 0 for none; it is a parameter if there is any.
    """

    variant: str
    function: tirx.PrimFunc
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    scratch_bytes: int = 0
