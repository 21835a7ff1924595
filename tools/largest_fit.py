"""What of the same family would fit where a network does not."""

from __future__ import annotations

from dataclasses import replace

from thumbnet.compile.errors import DoesNotFitError
from thumbnet.models.cost import Cost, compute_cost
from thumbnet.models.variants import COUSINS, PUBLISHED_TOP1, ModelSpec, format_name

#: int8 constants beside the weights: an int32 bias and an int32 multiplier per output channel.
BYTES_PER_CHANNEL = 8
#: Weights are packed into whole words or vectors: 5 % more on the Cortex-M55 at width 0.35.
PACKING = 1.1
RESOLUTIONS = (224, 192, 160, 128, 96, 64, 32)


def suggest_variant(spec: ModelSpec, error: DoesNotFitError) -> str:
    """Return the way out, as the end of a sentence: the largest usual variant that fits.

    Parameters
    ----------
    spec : ModelSpec
        The network that does not fit, with the classes and input channels it has.
    error : DoesNotFitError
        What the board has.
    """
    if error.flash_bytes is None or error.ram_bytes is None:
        return "choose a smaller width or resolution"
    if spec.version in COUSINS:
        return "choose a smaller network, `thumbnet models` lists them, or fewer classes"
    candidates = [
        replace(
            spec,
            name=format_name(spec.version, width, (resolution, resolution)),
            width_multiplier=width,
            resolution=resolution,
            columns=None,
        )
        for width in PUBLISHED_TOP1[spec.version]
        for resolution in RESOLUTIONS
    ]
    version, classes = f"MobileNet {spec.version.upper()}", f"{spec.classes} classes"
    macs = compute_cost(spec).macs
    costs = [(compute_cost(candidate), candidate) for candidate in candidates]
    fitting = [
        (cost.macs, candidate)
        for cost, candidate in costs
        if cost.macs < macs and _fits(cost, error.flash_bytes, error.ram_bytes)
    ]
    if not fitting:
        return f"no {version} of a usual width fits with {classes}; one of fewer classes or a smaller width may"
    _, largest = max(fitting, key=lambda pair: pair[0])
    return f"the largest {version} that fits is {largest.width_multiplier:g} at {largest.resolution} ({classes})"


def _fits(cost: Cost, flash_bytes: int, ram_bytes: int) -> bool:
    constants = cost.parameters + sum(BYTES_PER_CHANNEL * layer.output_shape[-1] for layer in cost.layers)
    return constants * PACKING <= flash_bytes and cost.largest_alive[1] <= ram_bytes
