import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thumbnet.models.errors import ModelError, UnknownModelError
from thumbnet.models.layers import SameConv2d, compute_same_padding
from thumbnet.models.mobilenet_v1 import MobileNetV1
from thumbnet.models.mobilenet_v2 import MobileNetV2, scale_channels
from thumbnet.models.variants import PUBLISHED, ModelSpec, build_model, get_spec, list_specs


def test_v2_has_the_keys_and_shapes_of_torchvision():
    # torchvision.models.mobilenet_v2: 314 entries with the batch counters, 3,504,872 parameters.
    state = MobileNetV2().state_dict()
    assert len(state) == 314
    assert sum(p.numel() for p in MobileNetV2().parameters()) == 3_504_872
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes["features.0.0.weight"] == (32, 3, 3, 3)
    assert shapes["features.0.1.running_mean"] == (32,)
    assert shapes["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert shapes["features.1.conv.2.weight"] == (16,)
    assert shapes["features.2.conv.0.0.weight"] == (96, 16, 1, 1)
    assert shapes["features.2.conv.1.0.weight"] == (96, 1, 3, 3)
    assert shapes["features.2.conv.2.weight"] == (24, 96, 1, 1)
    assert shapes["features.2.conv.3.num_batches_tracked"] == ()
    assert shapes["features.18.0.weight"] == (1280, 320, 1, 1)
    assert shapes["classifier.1.weight"] == (1000, 1280)
    assert shapes["classifier.1.bias"] == (1000,)
    assert not [name for name in shapes if name.startswith("pool")]


def test_padding_mode_changes_no_key():
    for network in (MobileNetV1, MobileNetV2):
        assert set(network(0.25, padding="same").state_dict()) == set(network(0.25, padding="symmetric").state_dict())


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    # From TensorFlow-slim's and torchvision's networks: 11.2 goes up to 16, for 8 would lose more than a tenth.
    [(32, 0.35, 16), (16, 0.35, 8), (24, 0.5, 16), (96, 0.75, 72), (320, 1.4, 448), (24, 1.4, 32), (32, 1.0, 32)],
)
def test_v2_rounds_channels_to_eights(channels, width, expected):
    assert scale_channels(channels, width) == expected


def test_v2_keeps_its_last_convolution_below_width_one_and_widens_it_above():
    assert MobileNetV2(0.35).classifier[1].in_features == 1280
    assert MobileNetV2(1.4).classifier[1].in_features == 1792


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (8, 3, 1, (1, 1)),
        (1, 3, 2, (1, 1)),
        (4, 1, 2, (0, 0)),
        (2, 3, 2, (0, 1)),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, expected):
    assert compute_same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (7, 10)])
def test_same_convolution_pads_after_the_data_first(size):
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, 3, 2)
    image = torch.randn(1, 2, *size)
    # Written out: zeros around everything, and the window starts where SAME starts it.
    wide = F.pad(image, (2, 2, 2, 2))
    tops = [2 - compute_same_padding(extent, 3, 2)[0] for extent in size]
    rows, columns = (-(-extent // 2) for extent in size)
    expected = torch.stack(
        [
            torch.stack(
                [
                    (
                        wide[0, :, tops[0] + 2 * r : tops[0] + 2 * r + 3, tops[1] + 2 * c : tops[1] + 2 * c + 3]
                        * conv.weight
                    ).sum((1, 2, 3))
                    + conv.bias
                    for c in range(columns)
                ]
            )
            for r in range(rows)
        ]
    ).permute(2, 0, 1)[None]
    torch.testing.assert_close(conv(image), expected)


def test_same_and_symmetric_differ_at_stride_two():
    torch.manual_seed(0)
    image = torch.randn(1, 3, 32, 32)
    same = MobileNetV1(0.25, padding="same")
    symmetric = MobileNetV1(0.25, padding="symmetric")
    symmetric.load_state_dict(same.state_dict())
    a, b = same.features[0][0](image), symmetric.features[0][0](image)
    assert a.shape == b.shape
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_any_width_resolution_channels_and_classes(version, padding):
    network = (MobileNetV1 if version == "v1" else MobileNetV2)(
        0.3, 7, 5, activation="relu", padding=padding, softmax=True
    ).eval()
    probabilities = network(torch.randn(2, 5, 50, 50))
    assert probabilities.shape == (2, 7)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.25_96", "mobilenet_v2_0.35_96", "efficientnet_lite0", "proxyless_vww_80"]
)
def test_export_is_static_and_plain(name):
    spec = get_spec(name)
    image = torch.randn(1, 3, spec.resolution, spec.resolution)
    network = build_model(spec).eval()
    program = torch.export.export(network, (image,))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    allowed = {"conv2d", "pad", "batch_norm", "hardtanh", "adaptive_avg_pool2d", "flatten", "linear", "dropout", "add"}
    assert {name.split(".")[1] for name in operators} <= allowed
    assert not program.range_constraints
    torch.testing.assert_close(program.module()(image), network(image))


def test_published_variants():
    assert sum(spec.version == "v1" for spec in PUBLISHED) == 16
    assert sum(spec.version == "v2" for spec in PUBLISHED) == 22
    assert len({spec.name for spec in list_specs()}) == len(list_specs())
    assert all(40 < spec.published_top1 < 76 for spec in PUBLISHED)
    assert get_spec("mobilenet_v1_0.25_128").published_top1 == 41.5
    assert get_spec("mobilenet_v2_1.0_224").published_top1 == 71.8
    assert get_spec("mobilenet_v2_0.35_96").published_top1 == 45.5


@pytest.mark.parametrize(
    ("name", "kernels", "features"),
    [
        ("efficientnet_lite0", [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3], 1280),
        ("proxyless_vww_80", [3, 3, 3, 3, 7, 3, 5, 7, 7, 3, 3, 5, 3, 3, 7], 160),
    ],
)
def test_cousins_of_v2_have_larger_depthwise_kernels(name, kernels, features):
    network = build_model(get_spec(name))
    depthwise = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert [module.kernel_size[0] for module in depthwise] == kernels
    assert network.classifier[1].in_features == features


def test_cousins_of_v2_have_one_width():
    with pytest.raises(ModelError, match=r"a: efficientnet_lite0 has width multiplier 1, not 0\.5"):
        ModelSpec("a", "efficientnet_lite0", 0.5, 224)


def test_names_of_other_variants():
    spec = get_spec("mobilenet_v2_0.6_112")
    assert (spec.version, spec.width_multiplier, spec.resolution, spec.published_top1) == ("v2", 0.6, 112, None)
    # One network has one name, however its width was written.
    assert get_spec("mobilenet_v1_0.50_160") == get_spec("mobilenet_v1_0.5_160")
    assert get_spec("mobilenet_v1_1_224") == get_spec("mobilenet_v1_1.0_224")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mobilnet_v1_0.25_128", "near: mobilenet_v1_0.25_128"),
        ("resnet", "thumbnet models"),
        ("mobilenet_v1_0_128", "width multiplier 0"),
        ("mobilenet_v1_99_128", "width multiplier 99"),
        ("mobilenet_v1_0.25_8", "resolution 8"),
        ("mobilenet_v3_1.0_224", "near"),
        ("", "no model"),
    ],
)
def test_bad_names_have_one_line(name, says):
    with pytest.raises(ModelError) as caught:
        get_spec(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_name_is_its_own_error():
    with pytest.raises(UnknownModelError):
        get_spec("nothing")
