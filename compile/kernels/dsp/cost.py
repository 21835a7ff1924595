"""What a chain on the DSP kernels will execute: an estimate that ranks plans, from the kernels' loops.

The counts of the inner loops are those of the assembly in `thumbnet_dsp.h`; what surrounds them is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence

from thumbnet.compile.kernels import stage_cost
from thumbnet.compile.kernels.chains import Gather
from thumbnet.compile.kernels.cycle_prices import COMPILED, Executed
from thumbnet.compile.kernels.dsp.storage import DspChain, pixel_pairs, widened_pitch
from thumbnet.compile.kernels.stage_cost import COPY, SurroundingCost
from thumbnet.compile.network.fixed_point import Requantization
from thumbnet.compile.network.integer_network import Add, Convolution, DepthwiseConvolution

#: A call with its arguments, the kernel's entry and exit, and what of its code another has pushed out of the cache.
_CALL = Executed(simple=34, loads=5, multiple=4, words=27, jumps=2, flash_reads=5)
#: Two outputs of a depthwise kernel, by stride and size of the planes' elements; a row of them; and a channel.
_DEPTHWISE_PAIR = {
    (1, 2): Executed(simple=19, multiple=3, words=6),
    (2, 2): Executed(simple=19, loads=3, multiple=3, words=6),
    (1, 1): Executed(simple=24, loads=3, unaligned=1.5),
    (2, 1): Executed(simple=31, loads=3, unaligned=1.5),
}
_DEPTHWISE_ROW = Executed(simple=4, loads=1, jumps=1)
_DEPTHWISE_CHANNEL = Executed(simple=16, loads=6, multiple=2, words=6, jumps=1, flash_reads=2.5)
#: The larger ones: a channel without its taps, a row of them by columns and stride, four values widened.
_LARGE_CHANNEL = Executed(simple=11, loads=9, multiple=2, words=4, jumps=1, flash_reads=2)
_LARGE_TAPS = {
    (5, 1): Executed(simple=8, loads=2, multiple=1, words=4, jumps=1, unaligned=1, flash_reads=1),
    (7, 1): Executed(simple=10, loads=2, multiple=1, words=6, jumps=1, unaligned=2, flash_reads=1),
    (5, 2): Executed(simple=4, loads=2, multiple=1, words=3, jumps=1, unaligned=1, flash_reads=1),
    (7, 2): Executed(simple=5, loads=2, multiple=1, words=4, jumps=1, unaligned=2, flash_reads=1),
}
_WIDENED_FOUR = Executed(simple=4, loads=1, multiple=1, words=2, unaligned=0.5)
_WIDENED_ROW = Executed(simple=2, jumps=1)
#: Pointwise: two slots of a block of 2 x 4 and of 2 x 2 outputs, such blocks without their slots, a turn of the loop.
_STEP4, _BLOCK4 = Executed(simple=12, loads=2), Executed(simple=33, loads=2, multiple=2, words=11, jumps=1)
_STEP2, _BLOCK2 = Executed(simple=4, multiple=1, words=4), Executed(simple=14, multiple=3, words=11, jumps=1)
_TURN = Executed(simple=1, loads=1, jumps=1)
_TURN_SLOTS = 16
#: The widening of two slots of four channels: their constants come from the flash.
_WIDEN4 = Executed(simple=4.3, multiple=1, words=6, jumps=0.1, flash_reads=1)
#: Two outputs of the kernel of eight input channels, and a row of them.
_STATIONARY_PAIR = Executed(simple=14.2, loads=0.2, multiple=2, words=8, jumps=0.2)
_STATIONARY_ROW = Executed(simple=4, loads=2, multiple=1, words=2, jumps=1)
#: Pixels of the image, and eight values of a pixel pair, to pair16.
_IMAGE_PAIR = Executed(simple=44, loads=4, multiple=4, words=28, jumps=1, unaligned=5)
_WIDENED_PIXELS = Executed(simple=8, multiple=3, words=12, jumps=0.3)
#: A value of a residual add.
_ADD = Executed(simple=5.9, loads=0.6, jumps=0.3)
#: Instructions of a clamp that is no saturation, for each value.
_CLAMP = 7
#: Borders are stored value by value, rows carried by words.
_SURROUNDING = SurroundingCost(fill=4, carry_channel=15, carry_byte=0.65)


def predict_executed(stage: DspChain) -> Executed:
    """Return an estimate of what one inference executes."""
    total = COMPILED * stage_cost.surrounding_instructions(stage, _SURROUNDING)
    for index, blocks, rows in stage_cost.layer_blocks(stage):
        total += _layer(stage, index, blocks, rows)
    return total


def _layer(stage: DspChain, index: int, blocks: int, rows: int) -> Executed:
    layer = stage.layers[index]
    height, width, channels = layer.output_shape
    match layer:
        case Gather():
            return COMPILED * (COPY * height * width * channels)
        case Add():
            return _ADD * (height * width * channels)
        case DepthwiseConvolution() if layer.kernel != (3, 3):
            return _large_depthwise(stage, index, blocks, rows)
        case DepthwiseConvolution():
            planes = stage.source if index == 0 else stage.windows[index]
            row = _DEPTHWISE_ROW + _DEPTHWISE_PAIR[layer.stride[0], planes.element_bytes] * (width / 2)
            kernel = row * rows + (_DEPTHWISE_CHANNEL) * blocks
            return kernel * channels + _CALL * (2 * blocks) + _clamps(layer.requantization, layer.output_shape)
        case Convolution():
            return (
                _products(stage, index, blocks, rows)
                + _clamps(layer.requantization, layer.output_shape)
                + _pixels(stage, index, rows)
            )
    raise AssertionError(layer)


def _large_depthwise(stage: DspChain, index: int, blocks: int, rows: int) -> Executed:
    layer = stage.layers[index]
    assert isinstance(layer, DepthwiseConvolution)
    _, width, channels = layer.output_shape
    packed = stage.in_one_row(index + 1)
    fours, rest = divmod(width, 4)
    # A row of several fours is a loop over them.
    four = _large_pixels(layer, 4, packed=packed) + Executed(simple=1, loads=1, jumps=1) * (fours > 1)
    row = four * fours + Executed(simple=5, loads=1, jumps=1)
    if rest:
        row += _large_pixels(layer, rest, packed=packed)
    channel = (_LARGE_CHANNEL + _LARGE_TAPS[layer.kernel[1], layer.stride[0]] * layer.kernel[0]) * blocks + row * rows
    if stage.widens_planes(index):
        planes = stage.source if index == 0 else stage.windows[index]
        line = _WIDENED_FOUR * (widened_pitch(planes) // 4) + _WIDENED_ROW
        channel += line * (stage.widened_rows(index, -(-rows // blocks)) * blocks)
    return channel * channels + _CALL * (2 * blocks) + _clamps(layer.requantization, layer.output_shape)


def _large_pixels(layer: DepthwiseConvolution, pixels: int, *, packed: bool) -> Executed:
    """Return what up to four neighbouring pixels of a 5x5 or 7x7 kernel take."""
    taps, stride = layer.kernel[0], layer.stride[0]
    pairs = (taps + 1) // 2
    data = pairs + ((pixels - 1) // 2 if stride == 1 else pixels - 1)
    row = Executed(
        simple=pairs * pixels + 1,
        loads=stride == 1 and taps == 7 and pixels > 2,
        multiple=2 + ((data > 4) if stride == 2 else taps == 7),
        words=data + (taps - 1 if stride == 1 else pairs),
    )
    end = Executed(simple=(5 if packed else 3) * pixels + 4, loads=1 + packed, multiple=1, words=2)
    return row * taps + end


def _products(stage: DspChain, index: int, blocks: int, rows: int) -> Executed:
    """Return what pixel pairs times groups of output channels take, and the widening of weights."""
    layer = stage.layers[index]
    assert isinstance(layer, Convolution)
    _, width, channels = layer.output_shape
    if stage.stationary(index):
        return _CALL * (blocks * channels) + (_STATIONARY_ROW + _STATIONARY_PAIR * (width / 2)) * (rows * channels)
    steps = stage.slots_of(layer) / 2
    fours, pairs = stage.channel_groups(layer)
    turns = max(stage.slots_of(layer) / _TURN_SLOTS - 1, 0)
    if layer.output_shape[:2] == (1, 1):
        # One pixel: each group's products are as many as its weights.
        return (_CALL * 2 + (_STEP2 + _WIDEN4 * 0.5) * steps) * pairs
    pixels = stage.block_pairs(index, rows)
    assert isinstance(pixels, int)
    products = (_BLOCK4 + _STEP4 * steps + _TURN * turns) * fours + (_BLOCK2 + _STEP2 * steps) * pairs
    total = products * pixels
    if layer.kernel == (1, 1):
        return total + (_CALL * (2 * (fours + pairs)) + _WIDEN4 * (steps * (fours + 0.5 * pairs))) * blocks
    assert stage.im2col is not None
    chunks = pixel_pairs(layer) // stage.im2col.chunk_pairs
    return total + _CALL * (rows * chunks * (fours + pairs))


def _pixels(stage: DspChain, index: int, rows: int) -> Executed:
    """Return what the gathering or widening of pixels before the products takes."""
    layer = stage.layers[index]
    assert isinstance(layer, Convolution)
    pairs = pixel_pairs(layer)
    if layer.kernel != (1, 1):
        assert stage.im2col is not None
        if stage.im2col.fast:
            edges = pairs - len(stage.im2col.inner_pairs)
            return _IMAGE_PAIR * (rows * pairs) + COMPILED * (rows * edges * 250)
        return COMPILED * (rows * pairs * stage.im2col.slots * 2 * 8)
    if index > 0:
        return Executed()
    channels = layer.input_shape[2]
    if channels % 8:
        return COMPILED * (rows * pairs * 2 * channels * 8)
    return (_WIDENED_PIXELS * (channels / 8) + Executed(simple=2, jumps=1)) * (rows * pairs)


def _clamps(requantization: Requantization, shape: Sequence[int]) -> Executed:
    if (requantization.minimum, requantization.maximum) == (-128, 127):
        return Executed()
    height, width, channels = shape
    return COMPILED * (_CLAMP * height * width * channels)
