"""Reading nodes of an exported PyTorch graph: names, places, arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.fx import Node

#: What stands for a node: a tensor that depends on the image, or a constant of Python's or PyTorch's.
Value: TypeAlias = Any


def operator_of(node: Node) -> str:
    """Return an operator's name in PyTorch, in place or not: ``relu`` of ``aten.relu_.default``."""
    name = getattr(node.target, "_opname", None) or getattr(node.target, "__name__", str(node.target))
    return str(name).removesuffix("_")


def path_of(node: Node) -> str:
    """Return the path of the module that a node is in; empty for the network itself."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def same(_: Node, values: list[Value]) -> Value:
    """Return the first argument: of operators that change nothing."""
    return values[0]


def attribute_of(module: nn.Module, path: str) -> Value:
    """Return a weight or a constant by its path."""
    for part in path.split("."):
        module = getattr(module, part)
    return module


def filled(values: Sequence[Value], defaults: Sequence[Value]) -> list[Value]:
    """Return arguments with the defaults of those that are left out."""
    return [*values, *defaults[len(values) :]]


def flattened(values: Sequence[Value]) -> list[Value]:
    """Return arguments with the items of lists among them."""
    return [item for value in values for item in (flattened(value) if isinstance(value, list | tuple) else [value])]


def pair_of(value: Any) -> Any:  # noqa: ANN401 - a number or two
    """Return rows and columns of an argument that is one number for both, or two."""
    first, *rest = [value] if isinstance(value, int) or value is None else list(value)
    return first, rest[0] if rest else first


def as_tensor(value: Value) -> torch.Tensor:
    """Return a constant as a tensor."""
    return value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
