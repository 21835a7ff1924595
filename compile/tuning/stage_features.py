"""What of a stage tells how far the analytical estimate is from what it really costs.

Most features are counts divided by the stage's estimate (of what is kept low: cycles, or instructions): were each kind
of work to cost a constant factor of what the estimate takes it for, the measured cost over the estimate would be a
weighted sum of them. None depends on a network's size as such, so that what was learned on one network serves others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.kernels.chains import Link
from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.layers import AddLayer, AveragePoolLayer, ConvolutionLayer, DepthwiseLayer
from thumbnet.compile.plan.stage_graph import StagePlan

#: Work by kind, each a count of one inference over the estimate.
_WORK = (
    "image_macs",  # multiply-accumulates of convolutions with a kernel larger than 1x1
    "depthwise_macs",  # of depthwise layers with stride 1
    "strided_depthwise_macs",  # of those with a larger stride
    "pointwise_macs",
    "fully_connected_macs",
    "image_outputs",  # values written by such layers
    "depthwise_outputs",
    "pointwise_outputs",
    "added_values",
    "pooled_values",
    "gathered_values",  # pixels brought into a window of planes
    "clamped_values",  # outputs with bounds tighter than int8's
    "narrow_plane_macs",  # depthwise multiply-accumulates that read elements of one byte
    "narrow_pointwise_macs",  # pointwise multiply-accumulates with at most 8 inputs
    "row_ends",  # rows of each channel of a depthwise layer, and pixel rows of each pair of pointwise outputs
    "spare_pair_macs",  # what widths and channels rounded up to pairs add to pointwise multiply-accumulates
    "spare_vector_macs",  # what inputs rounded up to vectors of 16 add to them
    "odd_pixel_macs",  # what widths rounded up to three pixels add to them
    "spare_column_macs",  # what widths rounded up to four pixels add to depthwise ones
    "spare_channel_macs",  # what channels rounded up to 16 add to depthwise ones
    "blocks",  # of rows that a group computes at a time
    "block_channels",  # channels of each layer in each of its blocks: calls and their set-up
    "block_weights",  # bytes of pointwise weights read again in each block
    "carried_bytes",  # of windows, moved to the next step
    "carried_channels",  # separate moves of them
    "border_values",  # of windows and of an output in planes
    "source_bytes",
    "target_bytes",
    "weight_bytes",
    "step_layers",  # layers times steps: conditions and calls
)
#: What the layers are like, whatever the rows of a step and the bytes between them.
_LAYERS = (
    "portable",  # 1 without a chain
    "layers",
    "depthwise_layers",
    "estimate_per_mac",  # 0 without multiply-accumulates
    "log_estimate",  # natural logarithm, as all that follows
    "log_weight_bytes",
    "log_macs_per_byte",  # multiply-accumulates over bytes of source, target and weights: arithmetic intensity
    "narrowest_width",  # pixels a row, the least of all layers
    "log_pointwise_inputs",  # the mean over pointwise multiply-accumulates
    "log_pointwise_outputs",
    "log_depthwise_channels",  # the mean over depthwise layers
)
#: Names of the features, in order.
FEATURES = (*_WORK, *_LAYERS)
#: Places of all counts of work, and of those that don't depend on how rows are tiled, with what the layers are like.
WORK_FEATURES = slice(0, len(_WORK))
LAYER_FEATURES = [*range(_WORK.index("blocks")), *range(len(_WORK), len(FEATURES))]
PORTABLE = FEATURES.index("portable")


def named_features(stage: StagePlan) -> dict[str, float]:
    """Return a stage's features by name, to five digits: what its records keep of it."""
    return {name: float(f"{value:.5g}") for name, value in zip(FEATURES, stage_features(stage), strict=True)}


def stage_features(stage: StagePlan) -> NDArray[np.float32]:
    """Return the features ``[len(FEATURES)]`` of a stage, float32 and finite."""
    work = dict.fromkeys(_WORK, 0.0)
    chain = stage.chain
    links: Sequence[Link] = chain.layers if chain else stage.layers
    for index, layer in enumerate(links):
        _count_layer(work, layer, _element_bytes_read(stage, index))
    if chain is not None:
        _count_surroundings(work, chain)
    work["source_bytes"], work["target_bytes"] = float(stage.source.size), float(stage.target.size)
    work["weight_bytes"] = float(sum(map(_weight_bytes, links)))
    described = _describe_layers(stage, work["source_bytes"] + work["target_bytes"] + work["weight_bytes"])
    estimate = max(stage.cost, 1.0)
    return np.array([*(count / estimate for count in work.values()), *described.values()], np.float32)


def _count_layer(work: dict[str, float], layer: Link, element_bytes: int) -> None:
    height, width, channels = layer.output_shape
    values = height * width * channels
    match layer:
        case DepthwiseLayer():
            work["depthwise_macs" if layer.stride == (1, 1) else "strided_depthwise_macs"] += layer.macs
            work["depthwise_outputs"] += values
            work["row_ends"] += height * channels
            work["spare_column_macs"] += _rounded_up(width, 4) * layer.macs
            work["spare_channel_macs"] += _rounded_up(channels, 16) * layer.macs
            if element_bytes == 1:
                work["narrow_plane_macs"] += layer.macs
        case ConvolutionLayer() if layer.kernel == (1, 1):
            inputs = layer.input_shape[2]
            work["fully_connected_macs" if height * width == 1 else "pointwise_macs"] += layer.macs
            work["pointwise_outputs"] += values
            work["row_ends"] += height * channels / 2
            work["spare_pair_macs"] += (_rounded_up(width, 2) + _rounded_up(channels, 2)) * layer.macs
            work["spare_vector_macs"] += _rounded_up(inputs, 16) * layer.macs
            work["odd_pixel_macs"] += _rounded_up(width, 3) * layer.macs
            if inputs <= 8:
                work["narrow_pointwise_macs"] += layer.macs
        case ConvolutionLayer():
            work["image_macs"] += layer.macs
            work["image_outputs"] += values
        case AddLayer():
            work["added_values"] += values
        case AveragePoolLayer():
            work["pooled_values"] += math.prod(layer.input_shape)
        case _:
            work["gathered_values"] += values
    if _is_clamped(layer):
        work["clamped_values"] += values


def _count_surroundings(work: dict[str, float], chain: RollingStage) -> None:
    """Count what steps, blocks and borders add."""
    for group in chain.groups:
        rows, block = chain.plan[group[-1]], chain.block_rows(group)
        at_once = block >= rows.rows or chain.steps == 1
        blocks = -(-rows.height // block) if at_once else -(-rows.height // rows.rows) * -(-rows.rows // block)
        work["blocks"] += blocks
        for index in group:
            work["block_channels"] += blocks * chain.layers[index].output_shape[2]
            work["block_weights"] += blocks * _weight_bytes(chain.layers[index])
    for index, window in chain.windows.items():
        rows = chain.plan[index]
        work["border_values"] += _border_values(window)
        if chain.steps > 1:
            # A row of planes in the order of rows is moved whole, with all its channels.
            moves = 1 if window.row_major else window.shape[2]
            work["carried_bytes"] += chain.steps * rows.new_row * window.row_bytes * moves
            work["carried_channels"] += chain.steps * moves
    if chain.target.planar:
        work["border_values"] += _border_values(chain.target)
    work["step_layers"] = float(chain.steps * len(chain.layers))


def _describe_layers(stage: StagePlan, moved_bytes: float) -> dict[str, float]:
    layers = stage.layers
    macs = sum(layer.macs for layer in layers)
    pointwise = [layer for layer in layers if isinstance(layer, ConvolutionLayer) and layer.kernel == (1, 1)]
    depthwise = [layer for layer in layers if isinstance(layer, DepthwiseLayer)]
    weights = [layer.macs for layer in pointwise]
    return {
        "portable": float(stage.chain is None),
        "layers": float(len(layers)),
        "depthwise_layers": float(len(depthwise)),
        "estimate_per_mac": stage.cost / macs if macs else 0.0,
        "log_estimate": _log(stage.cost),
        "log_weight_bytes": _log(sum(map(_weight_bytes, layers))),
        "log_macs_per_byte": _log(macs / moved_bytes),
        "narrowest_width": float(min(layer.output_shape[1] for layer in layers)),
        "log_pointwise_inputs": _log(_mean([layer.input_shape[2] for layer in pointwise], weights)),
        "log_pointwise_outputs": _log(_mean([layer.output_shape[2] for layer in pointwise], weights)),
        "log_depthwise_channels": _log(_mean([layer.output_shape[2] for layer in depthwise], [1] * len(depthwise))),
    }


def _element_bytes_read(stage: StagePlan, index: int) -> int:
    """Return the size of the elements that a layer of a stage reads."""
    if stage.chain is not None and index in stage.chain.windows:
        return stage.chain.windows[index].element_bytes
    return stage.source.element_bytes


def _border_values(layout: Layout) -> float:
    height, width, channels = layout.shape
    top, left, bottom, right = layout.border
    return channels * (height * (left + right) + (top + bottom) * width)


def _weight_bytes(layer: Link) -> int:
    return layer.weight.nbytes if isinstance(layer, ConvolutionLayer | DepthwiseLayer) else 0


def _is_clamped(layer: Link) -> bool:
    requantization = getattr(layer, "requantization", None)
    return requantization is not None and (requantization.minimum, requantization.maximum) != (-128, 127)


def _rounded_up(count: int, multiple: int) -> float:
    """Return the part by which a count grows where it is rounded up."""
    return -(-count // multiple) * multiple / count - 1


def _mean(values: Sequence[int], weights: Sequence[int]) -> float:
    total = sum(weights)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / total if total else 0.0


def _log(value: float) -> float:
    return math.log(value + 1)
