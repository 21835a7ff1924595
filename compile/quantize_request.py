"""From what the compiler is asked for to the integer Relax module: prepared, quantized, imported, lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import tvm
from numpy.typing import NDArray

from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.frontend.torch_to_relax import import_float, import_quantized, quantize_module
from thumbnet.compile.network.float_network import FloatNetwork
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.passes.pipeline import lower_to_integer
from thumbnet.compile.post_training.prepare import prepare_network
from thumbnet.compile.request import CompileRequest

#: int16 of a 128-bit vector, which products of int8 are widened to.
VECTOR_CHANNELS = 8


@dataclass(frozen=True)
class PreparedRequest:
    """A request of which nothing is left to do but to quantize its module as it is.

    Parameters
    ----------
    request : CompileRequest
        What is left.
    exact : FloatNetwork
        What its layers are to come near to: equalized, not corrected.
    range_methods : mapping
        Where the ranges of its tensors are from, by layer; those that are not named are found in calibration, by
        squared error.
    """

    request: CompileRequest
    exact: FloatNetwork
    range_methods: Mapping[str, str]


def prepare_request(request: CompileRequest) -> PreparedRequest:
    """Do to the float network what a request's options ask for.

    Raises
    ------
    QuantizationError, UnsupportedOperatorError
        See `prepare_network`.
    """
    options = request.options
    if not options.prepares:
        known = request.activation_quant or {}
        exact, _ = read_torch_network(request.module, request.input_shape)
        return PreparedRequest(request, exact, dict.fromkeys(known, "known"))
    prepared = prepare_network(
        request.module,
        request.input_shape,
        options,
        calibration=request.calibration,
        activation_quant=request.activation_quant or {},
        weight_scales=request.weight_scales or {},
        progress=request.progress,
    )
    left = replace(
        request,
        module=prepared.module,
        activation_quant={name: chosen.quant for name, chosen in prepared.ranges.items()},
        weight_scales=prepared.weight_scales,
        calibration=(),
        golden_images=request.golden_images or request.calibration,
        options=replace(options, ranges=None, equalize=False, correct_biases=False),
    )
    return PreparedRequest(left, prepared.exact, {name: chosen.method for name, chosen in prepared.ranges.items()})


def quantize_network(request: CompileRequest) -> tvm.IRModule:
    """Return the integer Relax module of a request: prepared, quantized, imported, lowered."""
    example = torch.zeros(1, *request.input_shape)
    request.progress("reading the network")
    if request.options.prepares:
        request = prepare_request(request).request
    quantized = quantize_module(
        request.module,
        example,
        calibration=request.calibration,
        activation_quant=request.activation_quant,
        weight_scales=request.weight_scales,
        progress=request.progress,
    )
    request.progress("bringing it into TVM")
    imported = import_quantized(quantized, example)
    # Our own kernels are made for any number of channels; what TVM lays out fills vectors.
    multiple = 1 if plans_stages(request) else VECTOR_CHANNELS
    request.progress("making its arithmetic integer")
    return lower_to_integer(
        imported, remove_dead_channels=not request.options.keep_dead_channels, channel_multiple=multiple
    )


def import_network(request: CompileRequest) -> tvm.IRModule:
    """Return the Relax module of a request: integer, or float32 where it says so."""
    if request.options.quantize == "none":
        request.progress("bringing it into TVM")
        return import_float(request.module, torch.zeros(1, *request.input_shape))
    return quantize_network(request)


def quantize_input(network: IntegerNetwork, image: torch.Tensor) -> NDArray[np.int8]:
    """Bring a float32 input ``[1, C, H, W]`` to the network's int8 ``[H, W, C]``."""
    return network.input_quant.quantize(image[0].permute(1, 2, 0).numpy())


def plans_stages(request: CompileRequest) -> bool:
    """Tell whether layers become stages of a plan; all others are laid out by TVM."""
    return request.board.instruction_set is not None and request.options.quantize == "int8"
