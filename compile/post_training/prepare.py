"""From a float32 module to the one that is quantized, with the ranges it gets: the methods in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.frontend.float_module import FloatModule
from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.network.float_network import FloatNetwork
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.post_training.correct_biases import correct_biases
from thumbnet.compile.post_training.equalize import equalize
from thumbnet.compile.post_training.layer_values import observe_channels
from thumbnet.compile.post_training.ranges import ChosenRange, choose_ranges
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.request import CompileOptions


@dataclass(frozen=True)
class PreparedNetwork:
    """What is left to quantize as it is.

    Parameters
    ----------
    module : nn.Module
        Equalized and corrected, as asked for; input NCHW float32.
    exact : FloatNetwork
        The same network without corrections: it computes what the one that was given does.
    ranges : mapping
        Of its input and its layers.
    weight_scales : mapping
        Known scales ``[out]`` of its layers.
    """

    module: nn.Module
    exact: FloatNetwork
    ranges: Mapping[str, ChosenRange]
    weight_scales: Mapping[str, NDArray[np.float32]]


def prepare_network(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    options: CompileOptions,
    *,
    calibration: Sequence[torch.Tensor],
    activation_quant: Mapping[str, tuple[float, int]],
    weight_scales: Mapping[str, NDArray[np.float32]],
    progress: Progress = say_nothing,
) -> PreparedNetwork:
    """Equalize, choose ranges and correct biases, as far as the options ask for it.

    Parameters
    ----------
    module : nn.Module
        In eval mode; input NCHW float32.
    input_shape : (C, H, W)
        Of one image.
    options : CompileOptions
        What to do.
    calibration : sequence of torch.Tensor
        Images ``[1, C, H, W]``.
    activation_quant, weight_scales : mapping
        What is known; of an equalized network only the input's range still holds, and where `ranges` asks for a
        method no other is taken either.
    progress : callable
        Told before each step what is done next.

    Raises
    ------
    QuantizationError
        No calibration images.
    UnsupportedOperatorError
        A layer that has no form here.
    """
    if not calibration:
        raise QuantizationError(
            "ranges, equalization and bias correction follow from calibration images: give some (--calibration DIR)"
        )
    network, _ = read_torch_network(module, input_shape)
    known, scales = activation_quant, weight_scales
    if options.equalize:
        progress("equalizing channels")
        network = equalize(network, observe_channels(network, calibration)).network
        scales = {}
    if options.equalize or options.ranges is not None:
        known = {name: quant for name, quant in known.items() if name == NETWORK_INPUT}
    progress("choosing ranges")
    ranges = choose_ranges(network, calibration, options.ranges or "mse", known)
    exact = network
    if options.correct_biases:
        progress("correcting biases")
        network = correct_biases(network, calibration, ranges, scales)
    return PreparedNetwork(FloatModule(network), exact, ranges, scales)
