"""What of the same family would fit where a network does not."""

from __future__ import annotations

from thumbnet.compile.errors import DoesNotFitError
from thumbnet.models.cost import compute_cost
from thumbnet.models.variants import ModelSpec, get_spec, list_specs

#: int8 constants beside the weights, per output channel: an int32 bias and an int32 multiplier. A channel has 9 weights
#: at the least (depthwise), so this bounds them from above.
BYTES_PER_PARAMETER = 1 + 8 / 9


def suggest_variant(model: str, error: DoesNotFitError) -> str:
    """Return the way out, as the end of a sentence: the largest published variant that fits."""
    if error.flash_bytes is None or error.ram_bytes is None:
        return "choose a smaller width or resolution"
    spec = get_spec(model)
    fitting = [
        candidate
        for candidate in list_specs()
        if candidate.version == spec.version and _fits(candidate, error.flash_bytes, error.ram_bytes)
    ]
    if not fitting:
        return f"no published MobileNet {spec.version.upper()} fits; one of fewer classes or a smaller width may"
    largest = max(fitting, key=lambda candidate: compute_cost(candidate).macs)
    return (
        f"the largest MobileNet {spec.version.upper()} that fits is"
        f" {largest.width_multiplier:g} at {largest.resolution} ({largest.classes} classes)"
    )


def _fits(spec: ModelSpec, flash_bytes: int, ram_bytes: int) -> bool:
    cost = compute_cost(spec)
    return cost.parameters * BYTES_PER_PARAMETER <= flash_bytes and cost.largest_alive[1] <= ram_bytes
