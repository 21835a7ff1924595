"""Random integer networks for the tests: layers of every kind whose outputs vary with their inputs."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from thumbnet.compile.network.fixed_point import Requantization, add_parameters, quantize_scale
from thumbnet.compile.network.integer_network import (
    NETWORK_INPUT,
    Add,
    AveragePool,
    Convolution,
    DepthwiseConvolution,
    IntegerNetwork,
    MaxPool,
)
from thumbnet.compile.network.quantization import TensorQuant

INPUT_QUANT = TensorQuant(0.0078125, 3)


def make_image(network, seed=0):
    return np.random.default_rng(seed).integers(-128, 128, network.input_shape).astype(np.int8)


def make_requantization(rng, channels, spread, *, large_scale=False, clamp=(-128, 127)):
    """Scale sums of about `spread` to most of int8's range; `large_scale` mixes in scales of 0.5 and more."""
    scale = 60.0 / spread * rng.uniform(0.7, 1.4, channels)
    if large_scale:
        scale[::2] = rng.uniform(0.5, 5.0, scale[::2].shape)
    return Requantization(*quantize_scale(scale), int(rng.integers(-20, 20)), *clamp)


def make_convolution(
    rng,
    shape,
    *,
    outputs=None,
    multiplier=1,
    kernel=(1, 1),
    stride=(1, 1),
    padding=(0, 0, 0, 0),
    name="conv",
    source=NETWORK_INPUT,
    large_scale=False,
    clamp=(-128, 127),
):
    """Make a convolution over all channels, or where `outputs` is None a depthwise one of `multiplier` kernels each."""
    height, width, channels = shape
    top, left, bottom, right = padding
    rows = (height + top + bottom - kernel[0]) // stride[0] + 1
    columns = (width + left + right - kernel[1]) // stride[1] + 1
    depthwise = outputs is None
    out_channels = channels * multiplier if depthwise else outputs
    weight_shape = (*kernel, out_channels) if depthwise else (outputs, *kernel, channels)
    # Few and small weights where the scale is large, or everything would end at the clamp.
    limit = 3 if large_scale else 127
    weight = rng.integers(-limit, limit + 1, weight_shape).astype(np.int8)
    taps = kernel[0] * kernel[1] * (1 if depthwise else channels)
    spread = 74 * limit / 1.7 * np.sqrt(taps)
    layer_type = DepthwiseConvolution if depthwise else Convolution
    return layer_type(
        name=name,
        source=source,
        input_shape=tuple(shape),
        output_shape=(rows, columns, out_channels),
        weight=weight,
        bias=rng.integers(-int(spread), int(spread) + 1, out_channels).astype(np.int32),
        input_zero_point=int(rng.integers(-128, 128)),
        stride=tuple(stride),
        padding=tuple(padding),
        requantization=make_requantization(rng, out_channels, spread, large_scale=large_scale, clamp=clamp),
        output_quant=TensorQuant(0.05, 0),
    )


def make_pool(rng, shape, *, name="pool", source=NETWORK_INPUT):
    height, width, channels = shape
    pixels = height * width
    zero_point = int(rng.integers(-20, 20))
    scale = np.full(channels, rng.uniform(0.6, 1.6) / pixels)
    return AveragePool(
        name=name,
        source=source,
        input_shape=tuple(shape),
        output_shape=(1, 1, channels),
        bias=-pixels * zero_point,
        requantization=Requantization(*quantize_scale(scale), 5, -128, 127),
        output_quant=TensorQuant(0.05, 5),
    )


def make_max_pool(shape, *, kernel, stride, padding=(0, 0, 0, 0), name="pool", source=NETWORK_INPUT):
    height, width, channels = shape
    top, left, bottom, right = padding
    rows = (height + top + bottom - kernel[0]) // stride[0] + 1
    columns = (width + left + right - kernel[1]) // stride[1] + 1
    return MaxPool(name, source, tuple(shape), (rows, columns, channels), kernel, stride, padding, TensorQuant(0.05, 5))


def make_add(rng, shape, *, name="add", sources=(NETWORK_INPUT, NETWORK_INPUT)):
    scales = tuple(rng.uniform(0.02, 0.06, 3).tolist())
    zero_points = tuple(int(value) for value in rng.integers(-30, 30, 3))
    parameters = add_parameters(scales, zero_points, -128, 127)
    return Add(name, *sources, tuple(shape), parameters, TensorQuant(scales[2], zero_points[2]))


def same_padding(shape, kernel, stride):
    """TensorFlow's SAME: the larger half goes after the data."""
    pads = []
    for size, extent, step in zip(shape[:2], kernel, stride, strict=True):
        total = max((-(-size // step) - 1) * step + extent - size, 0)
        pads.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = pads
    return top, left, bottom, right


def one_layer_network(layer):
    return IntegerNetwork(layer.input_shape, INPUT_QUANT, (layer,))


def one_of_each_kind(seed=3, size=6, channels=4):
    """Make a residual block with everything a MobileNet is made of, on very few pixels."""
    rng = np.random.default_rng(seed)
    first = make_convolution(
        rng,
        (2 * size, 2 * size, 3),
        outputs=channels,
        kernel=(3, 3),
        stride=(2, 2),
        padding=same_padding((2 * size, 2 * size), (3, 3), (2, 2)),
        name="features.0",
    )
    shape = first.output_shape
    depthwise = make_convolution(
        rng, shape, kernel=(3, 3), padding=(1, 1, 1, 1), name="features.1.conv.0", source="features.0"
    )
    pointwise = make_convolution(
        rng, shape, outputs=channels, name="features.1.conv.1", source="features.1.conv.0", clamp=(-20, 90)
    )
    add = make_add(rng, shape, name="features.1", sources=("features.0", "features.1.conv.1"))
    pool = make_pool(rng, shape, source="features.1")
    head = make_convolution(rng, pool.output_shape, outputs=5, name="classifier", source="pool")
    return IntegerNetwork(first.input_shape, INPUT_QUANT, (first, depthwise, pointwise, add, pool, head))


def chain_network(size, channels, padding, seed=5, kernels=(3, 3)):
    """Make layers that one stage can compute, with depthwise kernels of so many rows and columns.

    ``padding`` "same" or "symmetric": convolution, depthwise, pointwise, depthwise with stride 2, pointwise with
    `channels` outputs. "residual": expand, depthwise, project and add on `channels` (narrow, wide, narrow).
    """
    rng = np.random.default_rng(seed)

    def pad(shape, kernel, stride):
        return (kernel // 2,) * 4 if padding == "symmetric" else same_padding(shape, (kernel,) * 2, (stride,) * 2)

    made = []

    def then(shape, name, **options):
        source = made[-1].name if made else NETWORK_INPUT
        made.append(make_convolution(rng, shape, name=name, source=source, **options))
        return made[-1].output_shape

    def depthwise(shape, name, kernel, stride):
        return then(shape, name, kernel=(kernel,) * 2, stride=(stride,) * 2, padding=pad(shape, kernel, stride))

    if padding == "residual":
        narrow, wide, _ = channels
        shape = (*size, narrow)
        wide_shape = depthwise(then(shape, "expand", outputs=wide), "depthwise", kernels[0], 1)
        then(wide_shape, "project", outputs=narrow)
        made.append(make_add(rng, shape, sources=(NETWORK_INPUT, "project")))
        return IntegerNetwork(shape, INPUT_QUANT, tuple(made))
    image = (*size, 3)
    shape = then(image, "conv", outputs=channels[0], kernel=(3, 3), stride=(2, 2), padding=pad(image, 3, 2))
    shape = then(depthwise(shape, "depthwise1", kernels[0], 1), "pointwise1", outputs=channels[1], clamp=(-90, 100))
    then(depthwise(shape, "depthwise2", kernels[1], 2), "pointwise2", outputs=channels[2])
    return IntegerNetwork(image, INPUT_QUANT, tuple(made))


@st.composite
def layers(draw, kinds=("conv", "depthwise", "multiplied", "pointwise", "pool", "max_pool", "add")):
    """One layer of the given kinds on a tiny image; odd sizes, one pixel, both paddings and strides among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 5, 7])))
    return _draw_layer(draw, rng, shape, draw(st.sampled_from(kinds)))


def _draw_layer(draw, rng, shape, kind, *, name="layer", source=NETWORK_INPUT):
    if kind == "pool":
        return make_pool(rng, shape, name=name, source=source)
    if kind == "add":
        return make_add(rng, shape, name=name, sources=(source, source))
    if kind == "max_pool":
        kernel = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (3, 1)]))
        padding = (kernel[0] // 2, kernel[1] // 2) * 2
        stride = draw(st.sampled_from([(1, 1), (2, 2), (2, 1)]))
        return make_max_pool(shape, kernel=kernel, stride=stride, padding=padding, name=name, source=source)
    clamp = draw(st.sampled_from([(-128, 127), (-128, 100), (-7, 9), (3, 4)]))
    options = {"name": name, "source": source, "clamp": clamp, "large_scale": draw(st.booleans())}
    options["stride"] = draw(st.sampled_from([(1, 1), (2, 2), (2, 1)]))
    if kind == "multiplied":
        options["multiplier"] = draw(st.integers(2, 4))
    elif kind != "depthwise":
        options["outputs"] = draw(st.integers(1, 6))
    if kind != "pointwise":
        kernel = draw(st.sampled_from([(3, 3), (1, 3), (5, 5)]))
        symmetric = (kernel[0] // 2, kernel[1] // 2) * 2
        same = same_padding(shape, kernel, options["stride"])
        options["kernel"], options["padding"] = kernel, draw(st.sampled_from([symmetric, same]))
    return make_convolution(rng, shape, **options)


@st.composite
def networks(draw, longest=4):
    """A few random layers in a row, with an add across one of them where shapes allow."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 2, 3, 5])))
    made = []
    source, now = NETWORK_INPUT, shape
    for index in range(draw(st.integers(2, longest))):
        kind = draw(st.sampled_from(["conv", "depthwise", "multiplied", "pointwise", "max_pool", "add"]))
        layer = _draw_layer(draw, rng, now, kind, name=f"layer.{index}", source=source)
        if kind == "add" and made and made[-1].input_shape == now:
            layer = replace(layer, source_a=made[-1].sources[0])
        made.append(layer)
        source, now = layer.name, layer.output_shape
    made.append(make_pool(rng, now, source=source))
    return IntegerNetwork(shape, INPUT_QUANT, tuple(made))


def separable_network(
    size, channels, stride, *, kernel=3, padding="same", seed=7, clamp=(-128, 127), large_scale=False
):
    """Make a depthwise convolution and the pointwise one behind it, from `channels[0]` to `channels[1]` channels."""
    rng = np.random.default_rng(seed)
    shape = (*size, channels[0])
    square = (kernel, kernel)
    pads = (kernel // 2,) * 4 if padding == "symmetric" else same_padding(shape, square, (stride, stride))
    options = {"clamp": clamp, "large_scale": large_scale}
    depthwise = make_convolution(
        rng, shape, kernel=square, stride=(stride, stride), padding=pads, name="depthwise", **options
    )
    pointwise = make_convolution(
        rng, depthwise.output_shape, outputs=channels[1], name="pointwise", source="depthwise", **options
    )
    return IntegerNetwork(shape, INPUT_QUANT, (depthwise, pointwise))


def _one(shape, **options):
    return one_layer_network(make_convolution(np.random.default_rng(9), shape, **options))


#: Shapes and constants at which kernels take another path: few columns, few and odd channels, many channels, shifted
#: accumulators, tight clamps, edges of the image.
EDGE_NETWORKS = {
    "one pixel": lambda: separable_network((1, 1), (5, 6), 1),
    "two columns": lambda: separable_network((5, 2), (3, 9), 1),
    "three by three": lambda: separable_network((3, 3), (6, 5), 1, padding="symmetric"),
    "seven columns, shifted": lambda: separable_network((6, 7), (4, 4), 1, large_scale=True),
    "tight clamp": lambda: separable_network((4, 10), (6, 7), 1, clamp=(-7, 9)),
    "stride 2, shifted": lambda: separable_network((9, 13), (5, 2), 2, large_scale=True),
    "stride 2, tight clamp": lambda: separable_network((5, 5), (2, 3), 2, padding="symmetric", clamp=(-40, 50)),
    "far rows": lambda: separable_network((3, 130), (2, 4), 1),
    "far rows, stride 2": lambda: separable_network((5, 140), (2, 4), 2),
    "unaligned pixels": lambda: _one((3, 5, 23), outputs=6),
    "unaligned and many": lambda: _one((3, 3, 77), outputs=5, clamp=(-50, 50)),
    "pixels far apart": lambda: _one((2, 5, 300), outputs=7, large_scale=True),
    "many channels": lambda: _one((3, 3, 450), outputs=5),
    "fully connected": lambda: _one((1, 1, 1300), outputs=11),
    "fully connected, whole vectors": lambda: _one((1, 1, 1280), outputs=6),
    "fully connected, half vectors": lambda: _one((1, 1, 1032), outputs=6),
    "stride 1 on an image": lambda: _one((6, 7, 1), outputs=5, kernel=(3, 3), padding=(1, 1, 1, 1)),
    "five by five": lambda: _one((9, 8, 2), outputs=4, kernel=(5, 5), stride=(2, 2), padding=(2, 2, 2, 2)),
    "pool": lambda: one_layer_network(make_pool(np.random.default_rng(2), (5, 4, 7))),
    "small pool": lambda: one_layer_network(make_pool(np.random.default_rng(2), (3, 3, 18))),
}

#: The same of larger depthwise kernels.
LARGE_KERNEL_NETWORKS = {
    "5x5 on one pixel": lambda: separable_network((1, 1), (5, 6), 1, kernel=5),
    "5x5": lambda: separable_network((9, 10), (6, 7), 1, kernel=5),
    "5x5, odd": lambda: separable_network((6, 9), (17, 5), 1, kernel=5, clamp=(-40, 50)),
    "5x5, stride 2": lambda: separable_network((12, 14), (7, 4), 2, kernel=5),
    "5x5, stride 2, odd": lambda: separable_network((5, 5), (24, 9), 2, kernel=5, padding="symmetric"),
    "5x5, far rows": lambda: separable_network((5, 140), (2, 4), 1, kernel=5),
    "7x7 on three by three": lambda: separable_network((3, 3), (18, 5), 1, kernel=7),
    "7x7, five columns": lambda: separable_network((5, 5), (21, 4), 1, kernel=7, padding="symmetric"),
    "7x7, shifted": lambda: separable_network((6, 7), (4, 4), 1, kernel=7, large_scale=True),
    "7x7, many rows": lambda: separable_network((19, 8), (16, 8), 1, kernel=7),
    "7x7, stride 2": lambda: separable_network((14, 20), (9, 6), 2, kernel=7, padding="symmetric"),
    "7x7, stride 2, odd": lambda: separable_network((9, 13), (33, 5), 2, kernel=7, clamp=(-60, 70)),
    "7x7, stride 2, two columns": lambda: separable_network((10, 3), (16, 4), 2, kernel=7, large_scale=True),
    "5x5 and 7x7": lambda: chain_network((26, 22), (8, 16, 24), "same", kernels=(5, 7)),
    "7x7 and 5x5, odd": lambda: chain_network((13, 11), (5, 7, 3), "symmetric", kernels=(7, 5)),
    "5x5 in a residual": lambda: chain_network((7, 9), (8, 24, 8), "residual", kernels=(5,)),
    "7x7 in a residual": lambda: chain_network((6, 6), (8, 36, 8), "residual", kernels=(7,)),
}
