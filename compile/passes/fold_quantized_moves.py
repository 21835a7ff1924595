"""Let operators that only move values move int8.

``quantize(pad(dequantize(x)))`` with one quantization on both sides becomes ``pad(x)`` with the zero point as the
padding value; reshapes likewise; ``quantize(dequantize(x))`` becomes ``x``. Where the quantizations differ, values
change, and the pair stays.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from thumbnet.compile.network.relax_expr import is_call, scalar


@mutator
class _Folder(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_call(call, "quantize"):
            return call
        moved = self._lookup(call.args[0])
        source = moved if is_call(moved, "dequantize") else self._lookup(moved.args[0]) if _is_move(moved) else None
        if source is None or not is_call(source, "dequantize") or not _same_quantization(call, source):
            return call
        data = source.args[0]
        if moved is source:
            return data
        if is_call(moved, "nn.pad"):
            zero_point = scalar(call.args[2], {})
            return relax.op.nn.pad(data, pad_width=moved.attrs.pad_width, pad_value=zero_point)
        return relax.op.reshape(data, moved.args[1])

    def _lookup(self, expr: relax.Expr) -> relax.Expr:
        while isinstance(expr, relax.Var) and (value := self.lookup_binding(expr)) is not None:
            expr = value
        return expr


def _is_move(expr: relax.Expr) -> bool:
    if is_call(expr, "nn.pad"):
        return str(expr.attrs.pad_mode) == "constant" and float(expr.attrs.pad_value) == 0.0
    return is_call(expr, "reshape")


def _same_quantization(quantize: relax.Call, dequantize: relax.Call) -> bool:
    return all(scalar(quantize.args[index], {}) == scalar(dequantize.args[index], {}) for index in (1, 2))


@tvm.transform.module_pass(opt_level=0, name="FoldQuantizedMoves")
class FoldQuantizedMoves:
    """See the module's docstring."""

    def transform_module(self, module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite ``main``."""
        folder = _Folder(module)
        folder.builder_.update_func(module.get_global_var("main"), folder.visit_expr(module["main"]))
        return relax.transform.DeadCodeElimination()(folder.builder_.get())
