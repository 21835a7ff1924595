"""Golden vectors: a few inputs and the outputs the reference gives for them, shipped with every artifact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.reference import run_reference

GOLDEN_IMAGES = 3


def make_golden(
    network: IntegerNetwork, images: Sequence[NDArray[np.int8]] = ()
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return golden inputs ``[n, H, W, C]`` and outputs ``[n, classes]``, int8.

    Parameters
    ----------
    network : IntegerNetwork
        The network.
    images : sequence of ndarray
        int8 ``[H, W, C]``; smooth seeded noise stands in for what is missing to three.

    Raises
    ------
    QuantizationError
        The output is the same for all of them: such a network proves nothing, and is no use either.
    """
    inputs = [*images][:GOLDEN_IMAGES]
    generator = np.random.default_rng(0)
    while len(inputs) < GOLDEN_IMAGES:
        inputs.append(_smooth_noise(network.input_shape, generator))
    outputs = np.stack([run_reference(network, image) for image in inputs])
    if (outputs == outputs[0]).all():
        raise QuantizationError(
            f"the network gives the same output for {len(inputs)} different images: are these trained weights?"
        )
    return np.stack(inputs), outputs


def _smooth_noise(shape: tuple[int, int, int], generator: np.random.Generator) -> NDArray[np.int8]:
    """Return blobs of random colour over the whole range with noise on top: pictures vary slowly, and sharply."""
    height, width, channels = shape
    coarse = generator.integers(-128, 128, (-(-height // 8), -(-width // 8), channels))
    blobs = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    noise = generator.integers(-24, 25, shape)
    image: NDArray[np.int8] = np.clip(blobs + noise, -128, 127).astype(np.int8)
    return image
