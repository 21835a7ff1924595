"""Which kernel a layer gets, and how its activations stand between kernels."""

from __future__ import annotations

from thumbnet.compile.kernels.neon.depthwise_assembly import BLOCK
from thumbnet.compile.kernels.neon.packing import NarrowPlan, plan_narrow, plan_pointwise
from thumbnet.compile.network.integer_network import Convolution
from thumbnet.compile.network.layers import ConvolutionLayer, DepthwiseLayer

#: Pixels at which kernels for a convolution are compared.
_MANY_PIXELS = 300


def act_stride(layer: ConvolutionLayer | DepthwiseLayer, block: int = BLOCK) -> int:
    """Return the bytes of a pixel that a convolution reads from, or a depthwise layer writes to, the scratch between.

    A depthwise kernel writes whole blocks: with fewer channels the rest of the block lies between the pixels.
    """
    if isinstance(layer, DepthwiseLayer) or layer.kernel == (1, 1):
        channels = layer.output_shape[2] if isinstance(layer, DepthwiseLayer) else layer.input_shape[2]
        return max(channels, block)
    return -(-int(layer.weight[0].size) // block) * block


def narrow_or_none(layer: Convolution) -> NarrowPlan | None:
    """Return the plan with a lane a channel where that takes fewer instructions than tiles."""
    narrow = plan_narrow(layer)
    if narrow is None:
        return None
    better = narrow.instructions(_MANY_PIXELS) < plan_pointwise(layer).instructions(_MANY_PIXELS)
    return narrow if better else None
