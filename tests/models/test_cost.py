import pytest

from thumbnet.models.cost import compute_cost
from thumbnet.models.variants import PUBLISHED, get_spec


def test_v1_equals_the_paper():
    cost = compute_cost(get_spec("mobilenet_v1_1.0_224"))
    # Paper, table 4: 569 M and 4.2 M; with standard convolutions 4866 M and 29.3 M.
    assert cost.macs == 568_740_352
    assert cost.parameters == 4_210_088
    assert round(cost.standard_parameters / 1e6, 1) == 29.3
    classifier = cost.layers[-1].macs
    # The paper's 4866 M is the convolutions alone; its 569 M has the classifier's 1 M in it.
    assert (cost.standard_macs - classifier) // 10**6 == 4866
    assert cost.standard_macs == 4_867_293_184


def test_v2_equals_the_paper():
    cost = compute_cost(get_spec("mobilenet_v2_1.0_224"))
    # Paper, table 4: 300 M and 3.4 M; TensorFlow-slim's table has the parameters as 3.47 M.
    assert cost.macs == 300_774_272
    assert cost.parameters == 3_470_760


#: MACs and parameters in millions: V1 from the paper's tables 6 and 7 (TensorFlow-slim's table differs from the paper
#: at width 0.75), V2 from TensorFlow-slim's mobilenet/README.md.
PUBLISHED_COST = {
    "mobilenet_v1_0.75_224": (325, 2.6),
    "mobilenet_v1_0.5_224": (149, 1.3),
    "mobilenet_v1_0.25_224": (41, 0.5),
    "mobilenet_v1_1.0_192": (418, 4.2),
    "mobilenet_v1_1.0_160": (290, 4.2),
    "mobilenet_v1_1.0_128": (186, 4.2),
    "mobilenet_v2_1.4_224": (582, 6.06),
    "mobilenet_v2_0.75_160": (107, 2.61),
    "mobilenet_v2_0.5_96": (18, 1.95),
    "mobilenet_v2_0.35_224": (59, 1.66),
}


@pytest.mark.parametrize("name", PUBLISHED_COST)
def test_other_variants_equal_the_published_tables(name):
    cost = compute_cost(get_spec(name))
    macs, parameters = PUBLISHED_COST[name]
    assert abs(cost.macs / 1e6 - macs) < 1
    assert cost.parameters / 1e6 == pytest.approx(parameters, abs=0.05)


def test_every_published_variant_has_a_cost():
    assert all(0 < compute_cost(spec).macs < compute_cost(spec).standard_macs for spec in PUBLISHED[::9])


def test_the_cousins_of_v2():
    # timm's efficientnet_lite0 has 4,652,008 parameters, 42,016 of them in batch norms.
    assert compute_cost(get_spec("efficientnet_lite0")).parameters == 4_609_992
    # As counted of the TFLite file of MCUNet's network.
    assert compute_cost(get_spec("proxyless_vww_80")).macs == 11_578_816


def test_visual_wake_words():
    cost = compute_cost(get_spec("vww_96"))
    assert cost.macs == 7_489_664
    # 48x48x8 into 48x48x16.
    assert cost.largest_activation == ("features.1.pointwise.0", 48 * 48 * 16)
    assert cost.largest_alive == ("features.1.pointwise.0", 48 * 48 * 24)


def test_memory_of_a_residual_block_counts_the_input_that_the_add_needs():
    cost = compute_cost(get_spec("mobilenet_v2_1.0_224"))
    # 112x112x96 is stepped down to 56x56x96 in a block without residual ...
    assert cost.largest_alive == ("features.2.conv.1.0", 112 * 112 * 96 + 56 * 56 * 96)
    # ... and in the residual block after it, the block's input stays beside each layer's two tensors but the first's.
    alive = {layer.name: layer.alive for layer in cost.layers}
    area = 56 * 56
    assert alive["features.3.conv.0.0"] == area * (24 + 144)
    assert alive["features.3.conv.1.0"] == area * (144 + 144 + 24)
    assert alive["features.3.conv.2"] == area * (144 + 24 + 24)
    assert alive["features.4.conv.2"] == 28 * 28 * (144 + 32)
    # At width 0.25 the block without expansion is a residual one too: its first layer is the depthwise one.
    narrow = {layer.name: layer.alive for layer in compute_cost(get_spec("mobilenet_v2_0.25_32")).layers}
    assert narrow["features.1.conv.0.0"] == 16 * 16 * (8 + 8)
    assert narrow["features.1.conv.1"] == 16 * 16 * (8 + 8 + 8)


def test_layers_carry_shapes_in_channels_last():
    first, *_, last = compute_cost(get_spec("mobilenet_v1_0.25_digits")).layers
    assert (first.name, first.kind, first.kernel, first.stride) == ("features.0.0", "conv", 3, 2)
    assert (first.input_shape, first.output_shape) == ((32, 32, 1), (16, 16, 8))
    assert (last.kind, last.input_shape, last.output_shape) == ("linear", (256,), (10,))
