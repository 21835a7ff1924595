"""TFLite's MobileNets as converters write them compute here what they compute there, and others are named."""

import numpy as np
import pytest
import tflite
import torch

from thumbnet.models.image_folder import list_images
from thumbnet.models.preprocessing import (
    hosted_preprocessing,
    keras_preprocessing,
    raw_preprocessing,
    unit_preprocessing,
)
from thumbnet.models.stored import list_residuals, list_units
from thumbnet.models.variants import ModelSpec
from thumbnet.models.weights import load_model

from .state_dicts import V1, assert_refused, assert_same, make_network
from .tflite_files import NetworkFile

V2 = "mobilenet_v2_0.35_64"
NONE = tflite.ActivationFunctionType.NONE


def _make(name, channels=3, classes=4):
    version, width = name[10:12], 0.25 if "v1" in name else 0.35
    return make_network(ModelSpec(name, version, width, 64, classes, channels, bn_epsilon=1e-3))


@pytest.fixture(scope="module", params=[V1, V2])
def made(request):
    return request.param, _make(request.param)


def _write(path, network, channels=3, **options):
    file = NetworkFile(network, **options)
    quant = (1 / 127.5, -1) if file.kind == "int8" else None
    image = file.graph.tensor((1, 64, 64, channels), file.dtype, quant)
    return file.write(path / "x.tflite", image, 64, channels)


@pytest.mark.parametrize("pads", [False, True])
def test_float(tmp_path, made, pads):
    name, network = made
    model = load_model(name, _write(tmp_path, network, pads=pads))
    assert_same(network, model)
    assert (model.activation_quant, model.weight_scales) == (None, None)
    assert model.preprocessing == keras_preprocessing(64, 4)
    assert not model.stated & {"mean", "std"}


def test_float16(tmp_path, made):
    name, network = made
    model, image = load_model(name, _write(tmp_path, network, kind="float16")), torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.module(image), network(image), rtol=0.05, atol=0.05)
    assert model.weight_scales is None


def _check_weights(network, model):
    for ours, theirs in zip(list_units(model.module), list_units(network), strict=True):
        expected = theirs.module.weight.detach()
        if theirs.batch_norm is not None:
            norm = theirs.batch_norm
            expected = expected * (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None, None].detach()
        off = (ours.module.weight - expected).detach().abs().flatten(1).amax(1).numpy()
        assert (off / model.weight_scales[ours.path]).max() < 0.51


def test_int8_weights_alone(tmp_path, made):
    name, network = made
    model = load_model(name, _write(tmp_path, network, kind="dynamic"))
    _check_weights(network, model)
    assert model.activation_quant is None


def test_int8(tmp_path, made):
    name, network = made
    model = load_model(name, _write(tmp_path, network, kind="int8"))
    _check_weights(network, model)
    paths = {unit.path for unit in list_units(network)} | {*list_residuals(network)}
    assert model.activation_quant.keys() == paths | {"input", "pool"}
    assert all(model.activation_quant[path] == (pytest.approx(0.05), -10) for path in (*paths, "pool"))
    assert model.activation_quant["input"] == (pytest.approx(1 / 127.5), -1)
    assert model.preprocessing == keras_preprocessing(64, 4)
    assert {"mean", "std"} <= model.stated


def test_grey_images_in_a_depthwise_convolution(tmp_path):
    network = _make(V1, channels=1, classes=2)
    model = load_model(V1, _write(tmp_path, network, channels=1))
    image = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(model.module(image), network(image))
    assert (model.spec.input_channels, model.preprocessing.channels) == (1, 1)


def test_one_output_is_read_as_two_classes(tmp_path):
    network = _make(V1, classes=1)
    file = NetworkFile(network)
    image = file.graph.tensor((1, 64, 64, 3))
    model = load_model(V1, file.write(tmp_path / "x.tflite", image, 64, 3, ("LOGISTIC",)))
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.module(image).softmax(1)[:, 1], torch.sigmoid(network(image))[:, 0])


@pytest.mark.parametrize(
    ("kind", "quant", "expected", "stated"),
    [
        (np.int8, (1 / 127.5, -1), keras_preprocessing(64, 4), True),
        (np.uint8, (1 / 127.5, 127), keras_preprocessing(64, 4), True),
        (np.uint8, (1 / 128, 128), hosted_preprocessing(64, 4), True),
        (np.uint8, (1 / 255, 0), unit_preprocessing(64, 3), True),
        (np.uint8, (1.0, 0), raw_preprocessing(64, 3), True),
        # Ranges of images that didn't have all values.
        (np.uint8, (1.9 / 255, 130), keras_preprocessing(64, 4), False),
        (np.float32, (1.9 / 255, 130), keras_preprocessing(64, 4), False),
        (np.int8, (0.97, -128), raw_preprocessing(64, 3), False),
    ],
)
def test_the_input_tells_its_scaling(tmp_path, kind, quant, expected, stated):
    file = NetworkFile(_make(V1), "int8")
    image = file.graph.tensor((1, 64, 64, 3), kind, None if kind == np.float32 else quant)
    if kind != np.int8:
        own = file.graph.tensor((1, 64, 64, 3), np.int8, (quant[0], quant[1] - 128))
        image = file.graph.apply("QUANTIZE", [image], own)
    model = load_model(V1, file.write(tmp_path / "x.tflite", image, 64, 3))
    assert model.preprocessing == expected
    assert ({"mean", "std"} <= model.stated) == stated
    # The network keeps the range of the file.
    zero_point = quant[1] - (0 if kind == np.int8 else 128)
    assert model.activation_quant["input"] == (pytest.approx(quant[0]), zero_point)


def test_an_unusual_range_is_that_of_pixels_less_128(tmp_path):
    file = NetworkFile(_make(V1), "int8")
    image = file.graph.tensor((1, 64, 64, 3), np.int8, (0.0187, -14))
    preprocessing = load_model(V1, file.write(tmp_path / "x.tflite", image, 64, 3)).preprocessing
    assert preprocessing.mean == (114.0,) * 3
    assert preprocessing.std == (pytest.approx(1 / 0.0187, rel=1e-4),) * 3


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_scaling_of_pixels_is_the_preprocessing(tmp_path, quantized, left):
    network = _make(V1)
    file = NetworkFile(network, "int8" if quantized else "float")
    graph, shape = file.graph, (1, 64, 64, 3)
    image = graph.tensor(shape, file.dtype, (1.0, -128) if quantized else None)
    if quantized:
        # As today's converter quantizes 1 / 127.5 and -1: as the end of a range each.
        factor = graph.constant(np.array(127, np.int8), (np.float32(1 / 127.5 / 255), -128))
        offset = graph.constant(np.array(-128, np.int8), (np.float32(1 / 255), 127))
        quants = (3 / 255, -43), (1 / 127.5, -1)
    else:
        factor, offset = (graph.constant(np.array(number, np.float32)) for number in (1 / 127.5, -1))
        quants = None, None
    scaled, moved = (graph.tensor(shape, file.dtype, quant) for quant in quants)
    graph.apply("MUL", [factor, image] if left else [image, factor], scaled, FusedActivationFunction=NONE)
    graph.apply("ADD", [scaled, offset], moved, FusedActivationFunction=NONE)
    model = load_model(V1, file.write(tmp_path / "x.tflite", moved, 64, 3))
    assert model.preprocessing.mean == model.preprocessing.std == (127.5,) * 3
    assert {"mean", "std"} <= model.stated
    assert "the file's own scaling of pixels becomes the input's: (pixel / 255 - 0.5) / 0.5" in model.assumptions
    if quantized:
        assert model.activation_quant["input"] == (pytest.approx(1 / 127.5), -1)
    else:
        assert_same(network, model)


def test_subtraction_and_division(tmp_path):
    network = _make(V1)
    file = NetworkFile(network)
    graph, shape = file.graph, (1, 64, 64, 3)
    image, moved, scaled = (graph.tensor(shape) for _ in range(3))
    mean, std = (graph.constant(np.array(values, np.float32)) for values in ([123, 116, 103], [58, 57, 56]))
    graph.apply("SUB", [image, mean], moved, FusedActivationFunction=NONE)
    graph.apply("DIV", [moved, std], scaled, FusedActivationFunction=NONE)
    preprocessing = load_model(V1, file.write(tmp_path / "x.tflite", scaled, 64, 3)).preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((123, 116, 103), (58, 57, 56))


def _write_changed(path, change, kind="int8", shape=(1, 64, 64, 3), name=V1):
    file = NetworkFile(_make(name), kind)
    image = file.graph.tensor(shape, file.dtype, file.quant)
    file.write(path / "x.tflite", image, 64, 3)
    change(file.graph)
    outputs = [file.graph.operators[-1][2]]
    return file.graph.write(path / "x.tflite", 0, outputs)


def _operator(number, **changes):
    def change(graph):
        name, inputs, output, options = graph.operators[number]
        parts = {"name": name, "inputs": inputs, "output": output, **options} | changes
        name, inputs, output = (parts.pop(part) for part in ("name", "inputs", "output"))
        graph.operators[number] = (name, inputs, output, parts)

    return change


def _operand(number, place, **changes):
    """Change the tensor that is an operator's operand."""

    def change(graph):
        index = graph.operators[number][1][place]
        shape, dtype, quant, values, axis = graph.tensors[index]
        parts = {"shape": shape, "dtype": dtype, "quant": quant, "values": values, "axis": axis} | changes
        graph.tensors[index] = tuple(parts.values())

    return change


def _cut(number):
    def change(graph):
        del graph.operators[number:]

    return change


def _relu_tail(graph):
    output = graph.tensor((1, 4), np.int8, (0.05, -10))
    graph.operators.append(("HARD_SWISH", [graph.operators[-1][2]], output, {}))


SAME_AXES = np.array([1, 1], np.int32)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_operator(3, name="HARD_SWISH"), "operator 3 (HARD_SWISH)"),
        (_relu_tail, "(HARD_SWISH)"),
        (_operator(3, StrideH=3), "strides (3, 2) and dilations (1, 1) in operator 3"),
        (_operator(3, DilationHFactor=2), "dilations"),
        (_operator(3, Padding=tflite.Padding.VALID), "neither TensorFlow's SAME"),
        (_operator(3, FusedActivationFunction=tflite.ActivationFunctionType.TANH), "activation 4 in operator 3"),
        (_operator(3, FusedActivationFunction=NONE), "holds no MobileNet known here"),
        (_operator(28, FusedActivationFunction=tflite.ActivationFunctionType.RELU), "operator 28 (FULLY_CONNECTED)"),
        (_cut(28), "no classifier"),
        (_operator(27, name="RELU6"), "second activation"),
        (_operand(27, 1, values=SAME_AXES), "a part of 2 x 2 pixels in operator 27 (MEAN)"),
        (_operand(3, 1, dtype=np.dtype(np.int16)), "is of int16"),
        (_operand(3, 1, quant=None), "is of int8 and not quantized"),
        (_operand(3, 0, dtype=np.dtype(np.int16), quant=(0.05, 0)), "an activation of int16"),
    ],
)
def test_other_networks_are_named(tmp_path, change, says):
    line = assert_refused(_write_changed(tmp_path, change), V1)
    assert says in line
    assert "damaged" not in line


@pytest.mark.parametrize("shape", [(1, 64, 8, 3), (1, 64, 64), (1, 5, 5, 3), (1, 5000, 5000, 3)])
def test_other_images_are_named(tmp_path, shape):
    assert "an input of" in assert_refused(_write_changed(tmp_path, lambda _: None, shape=shape), V1)


def test_sums_of_other_layers_are_refused(tmp_path):
    def change(graph):
        number = next(i for i, (name, *_) in enumerate(graph.operators) if name == "ADD")
        name, (_, last), output, options = graph.operators[number]
        graph.operators[number] = (name, [last, last], output, options)

    assert "ADD" in assert_refused(_write_changed(tmp_path, change, name=V2), V2)


def test_damaged_files_are_called_damaged(tmp_path):
    def change(graph):
        shape, dtype, quant, values, axis = graph.tensors[graph.operators[3][1][1]]
        graph.tensors[graph.operators[3][1][1]] = (shape, dtype, quant, values[:, :1], axis)

    assert "a damaged or truncated TFLite file" in assert_refused(_write_changed(tmp_path, change), V1)


def test_trained_network_of_todays_converter(shared_data):
    field = shared_data / "field"
    model = load_model("mobilenet_v1_0.25_128", field / "keras_v1_0.25_128_trained_int8.tflite")
    assert model.preprocessing == keras_preprocessing(128, 1000)
    assert len(model.activation_quant) == len(model.weight_scales) + 2 == 30
    images = list_images(shared_data / "images").images
    pixels = np.stack([model.preprocessing.pixels(image.path) for image in images[:40]])
    with torch.no_grad():
        answers = model.module(model.preprocessing.to_float(pixels)).argmax(1).numpy()
    with np.load(field / "keras_v1_0.25_128_trained_outputs.npz") as outputs:
        assert (answers == outputs["int8_outputs"][:40].argmax(1)).mean() >= 0.85


@pytest.mark.parametrize("kind", ["m11", "tlrescale"])
def test_v2_of_todays_converter(shared_data, kind):
    model = load_model("mobilenet_v2_0.35_96", shared_data / "field" / f"mobilenet_v2_0.35_96_{kind}_int8.tflite")
    assert (model.preprocessing.mean, model.preprocessing.std) == ((127.5,) * 3, (127.5,) * 3)
    assert model.activation_quant["input"] == (pytest.approx(1 / 127.5), -1)
    assert len(model.activation_quant) == 65
    with np.load(shared_data / "field" / "litert_outputs.npz") as litert, torch.no_grad():
        logits = model.module(model.preprocessing.to_float(litert["pixels"]))
        expected = litert[f"mobilenet_v2_0.35_96_{kind}_int8"]
    assert (logits.argmax(1).numpy() == expected.argmax(1)).all()
