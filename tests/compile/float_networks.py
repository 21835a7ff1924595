"""Random float32 networks for the tests: those of `networks` with real numbers in them."""

import numpy as np

from thumbnet.compile.network.float_network import (
    FloatAdd,
    FloatAveragePool,
    FloatConvolution,
    FloatDepthwiseConvolution,
    FloatMaxPool,
    FloatNetwork,
)
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, MaxPool

#: No clamp, ReLU, ReLU6, and one from below alone.
CLAMPS = ((-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-np.inf, 0.75))


def float_network(network, seed=11):
    """Make a float32 network of an integer one's shapes, whose values mostly stay inside their clamps."""
    rng = np.random.default_rng(seed)
    layers = []
    for index, layer in enumerate(network.layers):
        minimum, maximum = CLAMPS[(index + seed) % len(CLAMPS)]
        clamp = {"minimum": minimum, "maximum": maximum}
        if isinstance(layer, Add):
            layers.append(FloatAdd(layer.name, layer.source_a, layer.source_b, layer.output_shape, **clamp))
        elif isinstance(layer, AveragePool):
            layers.append(FloatAveragePool(layer.name, layer.source, layer.input_shape, layer.output_shape, **clamp))
        elif isinstance(layer, MaxPool):
            shapes = (layer.input_shape, layer.output_shape, layer.kernel, layer.stride, layer.padding)
            layers.append(FloatMaxPool(layer.name, layer.source, *shapes, **clamp))
        else:
            taps = layer.weight[0].size if isinstance(layer, Convolution) else layer.kernel[0] * layer.kernel[1]
            made = FloatConvolution if isinstance(layer, Convolution) else FloatDepthwiseConvolution
            layers.append(
                made(
                    name=layer.name,
                    source=layer.source,
                    input_shape=layer.input_shape,
                    output_shape=layer.output_shape,
                    weight=(rng.normal(size=layer.weight.shape) / np.sqrt(2 * taps)).astype(np.float32),
                    bias=rng.uniform(0.2, 1, layer.bias.shape).astype(np.float32),
                    input_zero_point=0,
                    stride=layer.stride,
                    padding=layer.padding,
                    **clamp,
                )
            )
    return FloatNetwork(network.input_shape, tuple(layers))


def make_float_image(network, seed=0):
    return np.random.default_rng(seed).normal(size=network.input_shape).astype(np.float32)
