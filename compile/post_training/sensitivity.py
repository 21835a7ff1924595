"""How far each int8 layer is from its float32 form: alone, and with all layers before it in int8 too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.frontend.float_module import FloatModule
from thumbnet.compile.network.float_network import FloatNetwork
from thumbnet.compile.network.integer_network import NETWORK_INPUT, IntegerNetwork, Layer
from thumbnet.compile.network.quantization import TensorQuant
from thumbnet.compile.network.reference import run_layer
from thumbnet.compile.post_training.layer_values import run_layers


@dataclass(frozen=True)
class LayerSensitivity:
    """What int8 does to a layer's output.

    Parameters
    ----------
    name, kind : str
        Which layer.
    alone_db, accumulated_db : float
        Signal to quantization noise of the output in decibels, against float32: with this layer's input, weights and
        output in int8, and with all layers before it too. Infinite where nothing differs.
    quant : TensorQuant
        Of its output.
    """

    name: str
    kind: str
    alone_db: float
    accumulated_db: float
    quant: TensorQuant

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and largest value its output holds."""
        scale, zero_point = self.quant
        return scale * (-128 - zero_point), scale * (127 - zero_point)


def measure_sensitivity(
    exact: FloatNetwork, network: IntegerNetwork, images: Sequence[torch.Tensor]
) -> list[LayerSensitivity]:
    """Compare each layer of a network with all its channels with its float32 form, in the reference's arithmetic.

    Parameters
    ----------
    exact, network : FloatNetwork, IntegerNetwork
        The same layers by the same names.
    images : sequence of torch.Tensor
        ``[1, C, H, W]``.
    """
    quants = {NETWORK_INPUT: network.input_quant, **{layer.name: layer.output_quant for layer in network.layers}}
    signal: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    accumulated: Counter[str] = Counter()
    module = FloatModule(exact)
    for image in images:
        values = _float_values(exact, module, image)
        integers = {NETWORK_INPUT: network.input_quant.quantize(values[NETWORK_INPUT])}
        for layer in network.layers:
            wanted = values[layer.name]
            rounded = [quants[source].quantize(values[source]) for source in layer.sources]
            integers[layer.name] = run_layer(layer, *(integers[source] for source in layer.sources))
            signal[layer.name] += np.square(wanted, dtype=np.float64).sum()
            alone[layer.name] += _squared_error(layer, run_layer(layer, *rounded), wanted)
            accumulated[layer.name] += _squared_error(layer, integers[layer.name], wanted)
    return [
        LayerSensitivity(
            layer.name,
            layer.kind,
            _decibels(signal[layer.name], alone[layer.name]),
            _decibels(signal[layer.name], accumulated[layer.name]),
            layer.output_quant,
        )
        for layer in network.layers
    ]


def _float_values(exact: FloatNetwork, module: FloatModule, image: torch.Tensor) -> Mapping[str, NDArray[np.float32]]:
    """Return the input and each layer's output ``[H, W, C]`` for an image ``[1, C, H, W]``."""
    values = {NETWORK_INPUT: _channels_last(image)}
    with torch.no_grad():
        for layer, computes, _, unclamped in run_layers(exact, module, image):
            values[layer.name] = _channels_last(computes.clamp(unclamped))
    return values


def _channels_last(values: torch.Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(values[0].permute(1, 2, 0).numpy())


def _squared_error(layer: Layer, found: NDArray[np.int8], wanted: NDArray[np.float32]) -> float:
    scale, zero_point = layer.output_quant
    return float(np.square((found.astype(np.float64) - zero_point) * scale - wanted).sum())


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
