"""How far the output of a chain may lie over its input: over rows that nothing reads any more when they are written."""

from __future__ import annotations

from thumbnet.compile.kernels.rolling_stage import RollingStage
from thumbnet.compile.network.layers import AddLayer, ConvolutionLayer, DepthwiseLayer


def overlap_distance(stage: RollingStage) -> int | None:
    """Return how many bytes behind the input's start the output may start.

    Negative: it has to start before the input. None where input or output is not in the order of rows.
    """
    source, target = stage.source, stage.target
    if stage.streamed or not (source.row_major and target.row_major):
        return None
    rows = source.border[0] + source.shape[0] + source.border[2]
    distance = max(source.size - target.size, 0)
    for written, needed in _progress(stage):
        if written:
            distance = min(distance, min(needed, rows) * source.row_bytes - _bytes_written(stage, written))
    return distance // 4 * 4


def _progress(stage: RollingStage) -> list[tuple[int, int]]:
    """Return pairs of output rows written and the first row of the input read after that, as they come to be."""
    height, last = stage.plan[-1].height, len(stage.layers) - 1
    pairs: list[tuple[int, int]] = []
    if len(stage.groups) == 1:
        block, rows = stage.block_rows(stage.groups[0]), stage.plan[-1].rows
        for begin in range(0, height, rows):
            # Blocks begin anew with each step: the last one of a step may be a smaller one.
            end = min(begin + rows, height)
            for row in range(begin, end, block):
                written = min(row + block, end)
                next_row = row if stage.reads_rows_in_parts() else written
                if next_row < height:
                    pairs.append((written, _first_row_read(stage, next_row)))
        return pairs
    for step in range(stage.steps - 1):
        written = stage.rows_done(last, step)
        needed = _first_row_read(stage, stage.rows_done(0, step))
        if isinstance(stage.layers[last], AddLayer):
            needed = min(needed, written)
        pairs.append((written, needed))
    return pairs


def _first_row_read(stage: RollingStage, row: int) -> int:
    """Return the first row of the input that row `row` of the first layer reads; in planes border rows count."""
    layer = stage.layers[0]
    if isinstance(layer, DepthwiseLayer) and stage.source.planar:
        return row * layer.stride[0]
    if isinstance(layer, ConvolutionLayer | DepthwiseLayer):
        return max(row * layer.stride[0] - layer.padding[0], 0)
    return row


def _bytes_written(stage: RollingStage, rows: int) -> int:
    """Return the bytes from the output's start to the end of its first rows, and what kernels write beyond."""
    target = stage.target
    height, width, channels = target.shape
    if target.planar:
        below = target.border[2] if rows == height else 0
        return (target.border[0] + rows + below) * target.row_bytes
    # Pixels and channels come in pairs.
    beyond = 0 if isinstance(stage.layers[-1], AddLayer) else channels * (width % 2) + channels % 2
    return rows * target.row_bytes + beyond
