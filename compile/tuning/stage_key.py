"""What a stage is, apart from the network it is in: by which a measurement of it is found again."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.network.layers import AnyLayer, AveragePoolLayer, ConvolutionLayer, DepthwiseLayer, MaxPoolLayer
from thumbnet.compile.plan.stage_graph import StagePlan

#: How the names of kernels on schedules of TVM's begin.
SCHEDULED = "TVM's schedule"
_KERNELS = Path(__file__).parent.parent / "kernels"


def describe_stage(stage: StagePlan) -> dict[str, Any]:
    """Return all of a stage that its cost depends on, but for the kernels' own code, as JSON has it.

    Weights are part of it where the kernels' code is chosen by them.
    """
    chain = stage.chain
    described: dict[str, Any] = {
        "kernels": chain.instruction_set if chain else stage.kernel.variant if stage.kernel else "portable",
        "layers": [describe_layer(layer) for layer in stage.layers],
        "source": _describe_layout(stage.source),
        "target": _describe_layout(stage.target),
    }
    if chain is not None:
        described |= {
            "rows": chain.plan[-1].rows,
            "block_rows": [chain.block_rows(group) for group in chain.groups],
            "window_bytes": chain.window_bytes,
            "border": chain.border,
        }
        if chain.streamed:
            described["streamed"] = True
        if chain.weights_choose_code:
            described["weights"] = _digest_weights(stage)
    return described


def is_scheduled(described: Mapping[str, Any]) -> bool:
    """Tell whether a stage that `describe_stage` described is a layer on a schedule of TVM's."""
    return str(described.get("kernels")).startswith(SCHEDULED)


def key_of(stage: StagePlan) -> str:
    """Return 24 hexadecimal digits: equal for stages that `describe_stage` says the same of, of the same kernels."""
    text = json.dumps(describe_stage(stage), sort_keys=True)
    return hashlib.sha256(f"{kernels_digest()}\n{text}".encode()).hexdigest()[:24]


class KeyedStages:
    """Keys of a graph's stages, each found once."""

    def __init__(self) -> None:
        self._keys: dict[object, str] = {}

    def key(self, stage: StagePlan) -> str:
        """Return `key_of` a stage."""
        # The graph makes each chain once, and stages of it again and again.
        identity: object = stage.chain or (stage.name, stage.kernel and stage.kernel.variant)
        key = self._keys.get(identity)
        if key is None:
            key = self._keys[identity] = key_of(stage)
        return key


@functools.cache
def kernels_digest() -> str:
    """Return 16 hexadecimal digits of the kernels' sources: a change of them makes measurements worthless."""
    digest = hashlib.sha256()
    for path in sorted(path for path in _KERNELS.rglob("*") if path.suffix in {".py", ".h"}):
        digest.update(f"{path.relative_to(_KERNELS)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def describe_layer(layer: AnyLayer) -> dict[str, Any]:
    """Return all of a layer that its cost depends on, see `describe_stage`."""
    described: dict[str, Any] = {"kind": layer.kind, "input": layer.input_shape, "output": layer.output_shape}
    if isinstance(layer, ConvolutionLayer | DepthwiseLayer | MaxPoolLayer):
        described |= {"kernel": layer.kernel, "stride": layer.stride, "padding": layer.padding}
    if isinstance(layer, AveragePoolLayer):
        return described
    bounds = getattr(layer, "requantization", None) or getattr(layer, "parameters", None)
    if bounds is not None:
        described["clamp"] = (bounds.minimum, bounds.maximum)  # a clamp to all of int8 is left out
    return described


def _describe_layout(layout: Layout) -> list[int]:
    strides = [layout.row_bytes, layout.pixel_bytes, layout.channel_bytes]
    return [layout.element_bytes, layout.first, *strides, layout.size]


def _digest_weights(stage: StagePlan) -> str:
    digest = hashlib.sha256()
    for layer in stage.layers:
        if isinstance(layer, ConvolutionLayer | DepthwiseLayer):
            digest.update(layer.weight.tobytes())
    return digest.hexdigest()[:16]
