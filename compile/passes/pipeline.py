"""The passes from an imported Relax module to an integer one, in order: after them no float is left.

`../README.md` says what comes before and after them.
"""

from __future__ import annotations

import tvm
from tvm import relax

from thumbnet.compile.errors import QuantizationError, UnsupportedOperatorError
from thumbnet.compile.passes.fold_quantized_moves import FoldQuantizedMoves
from thumbnet.compile.passes.lower_to_integer import LowerToInteger
from thumbnet.compile.passes.remove_dead_channels import RemoveDeadChannels

#: FoldQuantizedMoves goes first: LowerToInteger takes padding and reshapes only where they move int8.
INTEGER_PASSES = (FoldQuantizedMoves(), LowerToInteger())


def lower_to_integer(
    module: tvm.IRModule, *, remove_dead_channels: bool = True, channel_multiple: int = 1
) -> tvm.IRModule:
    """Turn a Relax module in quantize / dequantize pairs into the integer module both backends start from.

    Parameters
    ----------
    module : tvm.IRModule
        As imported.
    remove_dead_channels : bool
        Leave out channels that can't change the output, whatever the input; the layers that lose some then have fewer.
    channel_multiple : int
        The channels that stay are whole multiples of it, where there are as many.

    Raises
    ------
    UnsupportedOperatorError, QuantizationError
        See `thumbnet.compile.passes.match_layers.match_layers`.
    """
    # TVM carries an error out of a pass as a bare RuntimeError, unless it knows its class.
    for error in (UnsupportedOperatorError, QuantizationError):
        tvm.error.register_error(error)
    passes = [*INTEGER_PASSES, *([RemoveDeadChannels(channel_multiple)] if remove_dead_channels else [])]
    lowered = tvm.transform.Sequential(passes, name="integer")(module)
    relax.analysis.well_formed(lowered)
    return lowered
