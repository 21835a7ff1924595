"""What a firmware for MLPerf Tiny's runner says of its network, and how it takes the runner's pixels."""

from __future__ import annotations

import math

import numpy as np

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.network.quantization import TensorQuant

#: The benchmark's names, by the shape of the input and the number of classes.
_BENCHMARKS = {((96, 96, 3), 2): "vww01", ((32, 32, 3), 10): "ic01"}


def benchmark_name(artifact: Artifact) -> str:
    """Return what the benchmark calls a network's task, by which its runner finds the data; else the network's name."""
    shape, classes = artifact.manifest["input"]["shape"], math.prod(artifact.manifest["output"]["shape"])
    return _BENCHMARKS.get((tuple(shape), classes), artifact.name)


def mlperf_source(artifact: Artifact) -> str:
    """Return C source of ``input_of_pixel``: the int8 that the network takes for each pixel of each channel.

    Raises
    ------
    ArtifactError
        The artifact says nothing of its pixels.
    """
    preprocessing, quant = artifact.manifest.get("preprocessing"), artifact.manifest["input"]
    if preprocessing is None:
        raise ArtifactError(f"{artifact.folder}: says nothing of its pixels; compile the network again")
    mean, std = (np.asarray(preprocessing[key], np.float64) for key in ("mean", "std"))
    pixels = np.arange(256)[:, np.newaxis] / 255
    taken = TensorQuant(quant["scale"], quant["zero_point"]).quantize((pixels - mean) / std)
    rows = ",\n".join("{" + ",".join(map(str, channel)) + "}" for channel in taken.T.tolist())
    return (
        "#include <stdint.h>\n"
        "extern const int8_t input_of_pixel[][256];\n"
        f"const int8_t input_of_pixel[{len(mean)}][256] = {{\n{rows}\n}};\n"
    )
