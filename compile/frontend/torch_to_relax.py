"""From a PyTorch module to Relax, quantized (still in quantize / dequantize pairs) or in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import tvm
from numpy.typing import NDArray
from torch import nn
from torch.fx import GraphModule, Node
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.frontend import quiet_torchao  # noqa: F401 - before torchao
from thumbnet.compile.frontend.quantizer import (
    ACTIVATIONS,
    ADDS,
    CONVOLUTIONS,
    MAX_POOLS,
    POOLS,
    MobileNetQuantizer,
    unit_path,
)
from thumbnet.compile.progress import Progress, say_nothing

from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # isort: skip

#: IRModule attribute: the PyTorch path of each unit by its Relax name; of a float module in their order.
UNIT_PATHS = "thumbnet.unit_paths"


def quantize_module(
    module: nn.Module,
    example: torch.Tensor,
    *,
    calibration: Iterable[torch.Tensor] | None = None,
    activation_quant: Mapping[str, tuple[float, int]] | None = None,
    weight_scales: Mapping[str, NDArray[np.float32]] | None = None,
    progress: Progress = say_nothing,
) -> GraphModule:
    """Quantize a module to int8 with torchao's PT2E flow.

    Parameters
    ----------
    module : nn.Module
        In eval mode; input NCHW float32.
    example : torch.Tensor
        An input ``[1, C, H, W]``; its values don't matter.
    calibration : iterable of torch.Tensor, optional
        Inputs ``[1, C, H, W]`` whose activations give the ranges that `activation_quant` lacks.
    activation_quant, weight_scales
        See `MobileNetQuantizer`.
    progress : callable
        Told before each step what is done next.

    Raises
    ------
    QuantizationError
        Neither known ranges nor a calibration input.
    """
    with torch.no_grad():
        images = list(calibration or ())
        if not images and not activation_quant:
            raise QuantizationError(
                "int8 needs ranges: give calibration images (--calibration DIR), or weights that carry them"
            )
        exported = torch.export.export(module, (example,)).module()
        quantizer = MobileNetQuantizer(activation_quant, weight_scales, observe=bool(images))
        prepared = prepare_pt2e(exported, quantizer)
        # The observers of the weights have to see them once, also where all ranges are known.
        for number, image in enumerate(images or [example], 1):
            if images:
                progress(f"calibrating on image {number} of {len(images)}")
            prepared(image)
        progress("quantizing the network")
        converted: GraphModule = convert_pt2e(prepared)
        return converted


def import_quantized(module: GraphModule, example: torch.Tensor) -> tvm.IRModule:
    """Bring a module quantized by `quantize_module` into Relax.

    Quantize and dequantize operators become `relax.op.quantize` and `dequantize`; the variable each quantize binds is
    called after the PyTorch module whose output it is. As Relax names have no dots, the module attribute
    ``thumbnet.unit_paths`` maps them to PyTorch's paths.
    """
    with torch.no_grad():
        exported = torch.export.export(module, (example,))
    paths = {_variable_of(node).replace(".", "_"): _name_of(node) for node in exported.graph.nodes if _is_unit(node)}
    imported = from_exported_program(
        exported,
        run_ep_decomposition=False,
        unwrap_unit_return_tuple=True,
        custom_convert_map={
            "quantize_per_tensor.default": _convert_quantize,
            "dequantize_per_tensor.default": _convert_dequantize,
            "dequantize_per_channel.default": _convert_dequantize_per_channel,
        },
    )
    return imported.with_attr(UNIT_PATHS, paths)


#: Where `_ChannelsLastInput` has the network, in PyTorch's paths.
_WRAPPED = "network."


class _ChannelsLastInput(nn.Module):
    """Takes NHWC, which the sessions of all devices speak, where the network takes PyTorch's NCHW."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(rows.permute(0, 3, 1, 2))
        return logits


def import_float(module: nn.Module, example: torch.Tensor) -> tvm.IRModule:
    """Bring a float32 module into Relax, with batch norms folded into the convolutions before them.

    Parameters
    ----------
    module : nn.Module
        In eval mode; input NCHW float32.
    example : torch.Tensor
        An input ``[1, C, H, W]``; its values don't matter.

    Returns
    -------
    tvm.IRModule
        ``main`` takes ``[1, H, W, C]``; the module attribute ``thumbnet.unit_paths`` lists the PyTorch paths of its
        convolutions, pools and adds in their order.
    """
    rows = example.permute(0, 2, 3, 1).contiguous()
    with torch.no_grad():
        # Preparing with a quantizer that annotates nothing leaves PT2E's folding of batch norms alone.
        exported = torch.export.export(_ChannelsLastInput(module).eval(), (rows,)).module()
        folded = convert_pt2e(prepare_pt2e(exported, _AnnotateNothing()))
        program = torch.export.export(folded, (rows,))
        imported = from_exported_program(program, run_ep_decomposition=False, unwrap_unit_return_tuple=True)
    paths = [_name_of(node).removeprefix(_WRAPPED) for node in program.graph.nodes if _is_unit(node)]
    return imported.with_attr(UNIT_PATHS, paths)


class _AnnotateNothing(MobileNetQuantizer):
    def annotate(self, model: GraphModule) -> GraphModule:
        return model


def _convert_quantize(node: Node, importer: Any) -> relax.Var:  # noqa: ANN401
    arguments: tuple[Any, ...] = node.args
    data, scale, zero_point, *_ = arguments
    expr = relax.op.quantize(
        importer.env[data],
        relax.const(np.float32(scale)),
        relax.const(np.int8(zero_point)),
        axis=-1,
        out_dtype="int8",
    )
    return importer.block_builder.emit(expr, name_hint=_variable_of(data))


def _convert_dequantize(node: Node, importer: Any) -> relax.Var:  # noqa: ANN401
    arguments: tuple[Any, ...] = node.args
    data, scale, zero_point, *_ = arguments
    expr = relax.op.dequantize(
        importer.env[data], relax.const(np.float32(scale)), relax.const(np.int8(zero_point)), axis=-1
    )
    return importer.block_builder.emit(expr)


def _convert_dequantize_per_channel(node: Node, importer: Any) -> relax.Var:  # noqa: ANN401
    arguments: tuple[Any, ...] = node.args
    data, scales, _, axis, *_ = arguments
    # Weights and biases are symmetric here: the zero points are zeros.
    zero_points = relax.const(np.zeros(scales.meta["val"].shape, "int8"))
    expr = relax.op.dequantize(importer.env[data], importer.env[scales], zero_points, axis=axis)
    return importer.block_builder.emit(expr)


def _is_unit(node: Node) -> bool:
    return node.target in CONVOLUTIONS | ADDS | POOLS | MAX_POOLS


def _variable_of(node: Node) -> str:
    """Return what the variable of a unit's output is to be called: ``main`` is the function's name."""
    name = _name_of(node)
    return "main_unit" if name == "main" else name


def _name_of(node: Node) -> str:
    """Return the name of the unit whose output a node is: PyTorch's path of its module."""
    while node.target in ACTIVATIONS:
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    if node.op == "placeholder":
        return "input"
    if not _is_unit(node):
        return "moved"
    return unit_path(node)
