"""Which tensors of a MobileNet become int8, in the terms of torchao's PT2E flow.

Weights are symmetric, one scale an output channel, in [-127, 127]; activations are asymmetric, one scale a tensor;
biases are int32 with the product of the input's and the weight's scale. A ReLU or ReLU6 belongs to the convolution
before it: only its output is quantized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from thumbnet.compile.errors import QuantizationError, UnsupportedOperatorError
from thumbnet.compile.frontend import quiet_torchao  # noqa: F401 - before torchao, see there
from thumbnet.compile.network.quantization import TensorQuant

# isort: split
from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    DerivedQuantizationSpec,
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY, QuantizationSpecBase

aten = torch.ops.aten
CONVOLUTIONS = {aten.conv2d.default, aten.linear.default}
ACTIVATIONS = {aten.hardtanh.default, aten.relu.default, aten.relu6.default, aten.clamp.default}
POOLS = {aten.adaptive_avg_pool2d.default, aten.mean.dim, aten.avg_pool2d.default}
MAX_POOLS = {aten.max_pool2d.default}
ADDS = {aten.add.Tensor, aten.add_.Tensor}
#: Operators that move values without computing: input and output have one quantization.
MOVES = {
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.flatten.using_ints,
    aten.reshape.default,
    aten.view.default,
    aten.squeeze.dims,
    aten.dropout.default,
    *MAX_POOLS,
}
#: In-place forms, which torch.export keeps where the module asks for them, name the same operators.
ACTIVATIONS |= {aten.hardtanh_.default, aten.relu_.default, aten.relu6_.default}

WEIGHT_MAX = 127


class PerChannelWeightObserver(PerChannelMinMaxObserver):  # type: ignore[misc]
    """Symmetric scales ``max|w| / 127`` a channel, or the file's own scale where the channel fits it.

    A quantization-aware file's weights lie on the grid of its own scale: kept, they are exact.
    """

    def __init__(self, known_scales: torch.Tensor | None = None, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(**arguments)
        self.known_scales = known_scales

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scales and zero points ``[channels]``."""
        largest = torch.maximum(self.min_val.abs(), self.max_val.abs())
        # A channel of zeros may have any scale: another channel's keeps the requantization of the layer together.
        others = largest[largest > 0]
        instead = others.min() if others.numel() else torch.ones(())
        scales = torch.where(largest > 0, largest, instead) / WEIGHT_MAX
        if self.known_scales is not None:
            fits = largest <= self.known_scales * (WEIGHT_MAX + 0.5)
            scales = torch.where(fits & (largest > 0), self.known_scales, scales)
        return scales, torch.zeros_like(scales, dtype=torch.int64)


class MobileNetQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates an exported MobileNet for `prepare_pt2e`.

    Parameters
    ----------
    activation_quant : mapping or None
        Known int8 quantization of activations by unit: ``"input"``, the path of a convolution or linear module (the
        unit's output after its activation), the path of a residual block (the sum), ``"pool"``.
    observe : bool
        Observe the ranges that are not known during calibration; otherwise an unknown one is an error.
    weight_scales : mapping or None
        Known weight scales ``[out_channels]`` float32 by module path.
    """

    def __init__(
        self,
        activation_quant: Mapping[str, tuple[float, int]] | None = None,
        weight_scales: Mapping[str, NDArray[np.float32]] | None = None,
        *,
        observe: bool = True,
    ) -> None:
        super().__init__()
        self.activation_quant = activation_quant or {}
        self.observe = observe
        self.weight_scales = weight_scales or {}
        self._observed = QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=HistogramObserver.with_args(eps=2**-20),
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
        )

    def annotate(self, model: GraphModule) -> GraphModule:
        """Annotate every tensor of the body.

        Raises
        ------
        UnsupportedOperatorError
            An operator that has no integer form here.
        QuantizationError
            Known ranges that lack a tensor of this network.
        """
        specs: dict[Node, QuantizationSpecBase] = {}
        for node in model.graph.nodes:
            if node.op == "placeholder":
                specs[node] = self._activation_spec("input")
            elif node.op == "call_function":
                self._annotate_call(node, specs)
        return model

    def validate(self, model: GraphModule) -> None:
        """Accept every model that `annotate` accepted."""

    def _annotate_call(self, node: Node, specs: dict[Node, QuantizationSpecBase]) -> None:
        if node.target in CONVOLUTIONS:
            source, weight = node.args[0], node.args[1]
            bias = node.args[2] if len(node.args) > 2 else None
            assert isinstance(source, Node) and isinstance(weight, Node)
            inputs: dict[Node, QuantizationSpecBase | None] = {
                source: specs[source],
                weight: self._weight_spec(unit_path(node)),
            }
            if isinstance(bias, Node):
                inputs[bias] = _bias_spec(node, source, weight)
            specs[node] = self._activation_spec(unit_path(node))
            _annotate(node, inputs, None if _activation_of(node) else specs[node])
        elif node.target in ACTIVATIONS:
            source = node.args[0]
            assert isinstance(source, Node)
            specs[node] = specs[source]
            _annotate(node, {}, specs[node])
        elif node.target in ADDS or node.target in POOLS:
            sources = [argument for argument in node.args if isinstance(argument, Node)]
            specs[node] = self._activation_spec(unit_path(node))
            _annotate(
                node, {source: specs[source] for source in sources}, None if _activation_of(node) else specs[node]
            )
        elif node.target in MOVES:
            source = node.args[0]
            assert isinstance(source, Node)
            specs[node] = specs[source]
            _annotate(node, {source: specs[source]}, SharedQuantizationSpec((source, node)))
        else:
            raise UnsupportedOperatorError(
                f"{unit_path(node)}: {node.target} has no int8 form here; compile with --quantize none"
            )

    def _activation_spec(self, key: str) -> QuantizationSpecBase:
        if key not in self.activation_quant:
            if self.observe:
                return self._observed
            raise QuantizationError(f"no range is known for {key}: give calibration images (--calibration DIR)")
        quant = TensorQuant(*self.activation_quant[key])
        return FixedQParamsQuantizationSpec(
            dtype=torch.int8,
            scale=quant.scale,
            zero_point=quant.zero_point,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
        )

    def _weight_spec(self, path: str) -> QuantizationSpec:
        known = self.weight_scales.get(path)
        return QuantizationSpec(
            dtype=torch.int8,
            observer_or_fake_quant_ctr=PerChannelWeightObserver.with_args(
                known_scales=None if known is None else torch.from_numpy(np.asarray(known, np.float32)),
            ),
            quant_min=-WEIGHT_MAX,
            quant_max=WEIGHT_MAX,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )


def unit_path(node: Node) -> str:
    """Return the path of the module a node came from, for example ``features.3.conv.0.0``.

    An average that is no module of its own is the ``pool``.
    """
    stack = node.meta.get("nn_module_stack")
    path, kind = map(str, list(stack.values())[-1]) if stack else ("", "")
    if node.target in POOLS and not kind.endswith("Pool2d"):
        return "pool"
    return path or str(node.name)


def _annotate(node: Node, inputs: dict[Node, Any], output: QuantizationSpecBase | None) -> None:
    node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)


def _activation_of(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].target in ACTIVATIONS else None


def _bias_spec(node: Node, source: Node, weight: Node) -> DerivedQuantizationSpec:
    def derive(observers: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        (input_scale, _), (weight_scales, _) = (observer.calculate_qparams() for observer in observers)
        scales = input_scale.to(torch.float32) * weight_scales.to(torch.float32)
        return scales, torch.zeros_like(scales, dtype=torch.int64)

    return DerivedQuantizationSpec(
        derived_from=[(source, node), (weight, node)],
        derive_qparams_fn=derive,
        dtype=torch.int32,
        quant_min=-(2**31),
        quant_max=2**31 - 1,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
