"""Reading Relax expressions: bindings, constants, operator names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import ir, relax

Bindings = dict[relax.Var, relax.Expr]


def bindings_of(function: relax.Function) -> Bindings:
    """Return the value of each variable a function binds, in order."""
    return {binding.var: binding.value for block in function.body.blocks for binding in block.bindings}


def resolve(expr: relax.Expr, bindings: Bindings) -> relax.Expr:
    """Follow variables to the expression they stand for; parameters stay variables."""
    while isinstance(expr, relax.Var) and expr in bindings:
        expr = bindings[expr]
    return expr


def operator_name(expr: relax.Expr) -> str:
    """Return ``relax.nn.conv2d`` and the like for a call of an operator, else an empty string."""
    return str(expr.op.name) if isinstance(expr, relax.Call) and hasattr(expr.op, "name") else ""


def is_call(expr: relax.Expr, *names: str) -> bool:
    """Tell whether an expression calls one of these operators (names without ``relax.``)."""
    return operator_name(expr).removeprefix("relax.") in names


def constant(expr: relax.Expr, bindings: Bindings) -> NDArray[Any]:
    """Return the value of a constant expression.

    Raises
    ------
    TypeError
        The expression is not constant.
    """
    expr = resolve(expr, bindings)
    if not isinstance(expr, ir.Constant):
        raise TypeError(f"not a constant: {expr}")
    value: NDArray[Any] = expr.value.numpy()
    return value


def scalar(expr: relax.Expr, bindings: Bindings) -> float:
    """Return the value of a constant with one element."""
    return float(np.asarray(constant(expr, bindings)).reshape(-1)[0])


def shape_of(expr: relax.Expr) -> tuple[int, ...]:
    """Return the static shape of a tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape)
