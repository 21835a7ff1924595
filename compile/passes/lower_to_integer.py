"""Turn quantize / dequantize pairs with float operators between them into integer operators."""

from __future__ import annotations

import tvm

from thumbnet.compile.network.integer_relax import write_relax
from thumbnet.compile.passes.match_layers import match_layers


@tvm.transform.module_pass(opt_level=0, name="LowerToInteger")
class LowerToInteger:
    """Replace the module by one whose ``main`` takes and returns int8, with one integer function a layer."""

    def transform_module(self, module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the whole module."""
        return write_relax(match_layers(module))
