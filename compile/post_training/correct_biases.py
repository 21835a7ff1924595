"""Bias correction (Nagel et al. 2019, section 4.2): what int8 moves the mean of a channel by goes into its bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.frontend.float_module import ConvolutionModule, FloatModule
from thumbnet.compile.network.float_network import FloatConvolution, FloatDepthwiseConvolution, FloatNetwork
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.post_training.fake_quantization import quantized_activation, quantized_weight
from thumbnet.compile.post_training.layer_values import LiveValues, run_layers, spread
from thumbnet.compile.post_training.ranges import ChosenRange

#: Images at most: the means of channels need no more, and a batch has to fit into memory.
MOST_IMAGES = 16


def correct_biases(
    network: FloatNetwork,
    images: Sequence[torch.Tensor],
    ranges: Mapping[str, ChosenRange],
    weight_scales: Mapping[str, NDArray[np.float32]],
) -> FloatNetwork:
    """Return a network whose biases take back what quantization adds to the mean of each channel, layer after layer.

    The means are of what convolutions give before their clamp, over images and pixels, with all layers before already
    corrected.

    Parameters
    ----------
    network : FloatNetwork
        What is to be quantized.
    images : sequence of torch.Tensor
        Calibration ``[1, C, H, W]``.
    ranges : mapping
        Of the input and the layers, see `choose_ranges`.
    weight_scales : mapping
        Known scales ``[out]`` by layer.
    """
    batch = torch.cat(spread(images, MOST_IMAGES))
    module = FloatModule(network)
    rounded = LiveValues(network, quantized_activation(batch, ranges[NETWORK_INPUT].quant))
    layers = []
    with torch.no_grad():
        for layer, computes, _, exact in run_layers(network, module, batch):
            sources = rounded.take(layer)
            corrected = layer
            if isinstance(layer, FloatConvolution | FloatDepthwiseConvolution):
                assert isinstance(computes, ConvolutionModule)
                weight = quantized_weight(computes.weight, weight_scales.get(layer.name))
                found = computes.convolve(sources[0], weight)
                shift = (found - exact).double().mean(dim=(0, 2, 3))
                corrected = replace(layer, bias=(layer.bias - shift.numpy()).astype(np.float32))
                unclamped = found - shift.float()[:, None, None]
            else:
                unclamped = computes.unclamped(*sources)
            layers.append(corrected)
            values = computes.clamp(unclamped)
            known = ranges.get(layer.name)
            rounded.put(layer.name, values if known is None else quantized_activation(values, known.quant))
    return replace(network, layers=tuple(layers))
