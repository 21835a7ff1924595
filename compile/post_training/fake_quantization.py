"""Float32 values as int8 leaves them: rounded to the steps of a scale, and clamped."""

from __future__ import annotations

import numpy as np
import torch

from thumbnet.compile.frontend.quantizer import WEIGHT_MAX, PerChannelWeightObserver
from thumbnet.compile.network.quantization import TensorQuant


def quantized_activation(values: torch.Tensor, quant: TensorQuant) -> torch.Tensor:
    """Return an activation as its int8 form has it."""
    return torch.fake_quantize_per_tensor_affine(values, quant.scale, quant.zero_point, -128, 127)


def quantized_weight(weight: torch.Tensor, known_scales: np.ndarray | None = None) -> torch.Tensor:
    """Return weights ``[out, in, kernel_h, kernel_w]`` as their int8 form has them, a scale an output channel.

    Parameters
    ----------
    weight : torch.Tensor
        float32.
    known_scales : ndarray, optional
        See `PerChannelWeightObserver`.
    """
    observer = PerChannelWeightObserver(
        known_scales=None if known_scales is None else torch.from_numpy(np.asarray(known_scales, np.float32)),
        ch_axis=0,
        dtype=torch.int8,
        qscheme=torch.per_channel_symmetric,
    )
    observer(weight)
    scales, zero_points = observer.calculate_qparams()
    return torch.fake_quantize_per_channel_affine(weight, scales.float(), zero_points.int(), 0, -WEIGHT_MAX, WEIGHT_MAX)
