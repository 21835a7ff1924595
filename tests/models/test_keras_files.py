"""Keras' MobileNets in all their files compute here what they compute there, and others are named."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import torch

from thumbnet.models.conventions import Conventions
from thumbnet.models.image_folder import list_images
from thumbnet.models.preprocessing import keras_preprocessing, unit_preprocessing
from thumbnet.models.variants import ModelSpec
from thumbnet.models.weights import load_model

from . import keras_files as keras
from .state_dicts import V1, assert_refused, assert_same, make_network

V2 = "mobilenet_v2_0.35_64"
SHAPE = (64, 64, 3)


def _make(name, channels=3, classes=4):
    version = name[10:12]
    width = 0.25 if version == "v1" else 0.35
    return make_network(ModelSpec(name, version, width, 64, classes, channels, bn_epsilon=1e-3))


@pytest.fixture(scope="module", params=[V1, V2])
def made(request):
    return request.param, _make(request.param)


def _whole(network, dense=None):
    layers = list(keras.list_layers(network))
    return layers + keras.list_head(network, dense=len(layers) > 100 if dense is None else dense)


@pytest.mark.parametrize("era", [2, 3])
@pytest.mark.parametrize("dense", [False, True])
def test_h5(tmp_path, made, era, dense):
    name, network = made
    layers = _whole(network, dense)
    file = keras.write_h5(tmp_path / "x.h5", keras.functional(layers, SHAPE, era), layers, era)
    model = load_model(name, file)
    assert_same(network, model)
    assert model.preprocessing == keras_preprocessing(64, 4)
    assert (model.spec.padding, model.spec.bn_epsilon, model.spec.activation) == ("same", 1e-3, "relu6")
    assert (model.activation_quant, model.weight_scales, model.assumptions) == (None, None, ())


def test_archive(tmp_path, made):
    name, network = made
    layers = _whole(network)
    file = keras.write_archive(tmp_path / "x.keras", keras.functional(layers, SHAPE), layers)
    assert_same(network, load_model(name, file))


def test_grey_images(tmp_path):
    network = _make(V1, channels=1)
    layers = _whole(network)
    model = load_model(V1, keras.write_h5(tmp_path / "x.h5", keras.functional(layers, (64, 64, 1), 2), layers, keras=2))
    assert model.preprocessing.channels == 1
    image = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(model.module(image), network(image))


def test_images_of_any_size_are_those_of_the_name(tmp_path, made):
    name, network = made
    layers = _whole(network)
    file = keras.write_h5(tmp_path / "x.h5", keras.functional(layers, (None, None, 3)), layers)
    assert_same(network, load_model(name, file))
    assert load_model(name.replace("64", "96"), file).spec.resolution == 96
    # 100 pixels become 50 and then 25: of these one zero after them is not TensorFlow's SAME.
    if name == V1:
        assert "has 0 zeros before and 1 after its 25 pixels" in assert_refused(file, "mobilenet_v1_0.25_100")


RESCALING = keras.layer("Rescaling", "rescaling", scale=1 / 127.5, offset=-1)


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("era", [2, 3])
def test_transfer_learning_of_layers_in_a_row(tmp_path, made, archive, era):
    name, network = made
    base = list(keras.list_layers(network))
    head = keras.list_head(network)
    augmentation = keras.sequential([keras.layer("RandomFlip", "flip"), keras.layer("RandomRotation", "turn")], SHAPE)
    inner = keras.functional(base, SHAPE, era, name="base")
    model = keras.sequential([augmentation, RESCALING, inner, *head], SHAPE, era)
    if archive:
        file = keras.write_archive(tmp_path / "x.keras", model, [*base, *head], nested="functional")
    else:
        file = keras.write_h5(tmp_path / "x.h5", model, [*base, *head], era, nested="base")
    loaded = load_model(name, file)
    assert_same(network, loaded)
    assert loaded.preprocessing.mean == loaded.preprocessing.std == (127.5,) * 3
    assert {"mean", "std"} <= loaded.stated
    assert "the file's own scaling of pixels becomes the input's: (pixel / 255 - 0.5) / 0.5" in loaded.assumptions


@pytest.mark.parametrize(
    ("scaling", "mean", "std"),
    [
        ([keras.layer("Rescaling", "r", scale=1 / 255, offset=0.0)], 0, 255),
        ([keras.layer("Rescaling", "r", scale=1 / 255, offset=0), RESCALING], 127.5 * 255, 127.5 * 255),
        (
            [
                {**keras.layer("TrueDivide", "divide"), "numbers": [127.5]},
                {**keras.layer("Subtract", "subtract"), "numbers": [1.0]},
            ],
            127.5,
            127.5,
        ),
        ([keras.layer("Normalization", "n", mean=[120.0], variance=[3600.0], axis=[-1], invert=False)], 120, 60),
    ],
)
def test_scaling_of_pixels_is_the_preprocessing(tmp_path, scaling, mean, std):
    network = _make(V1)
    layers = [*scaling, *_whole(network)]
    model = load_model(V1, keras.write_h5(tmp_path / "x.h5", keras.functional(layers, SHAPE), layers))
    assert model.preprocessing.mean == (mean,) * 3
    assert model.preprocessing.std == (std,) * 3
    assert_same(network, model)


def test_a_scale_a_channel(tmp_path):
    network = _make(V1)
    std = [0.229, 0.224, 0.225]
    scaling = keras.layer("Rescaling", "r", scale=[1 / (255 * s) for s in std], offset=[-0.5 / s for s in std])
    layers = [scaling, *_whole(network)]
    model = load_model(V1, keras.write_h5(tmp_path / "x.h5", keras.functional(layers, SHAPE), layers))
    assert model.preprocessing.mean == (127.5,) * 3
    assert model.preprocessing.std == pytest.approx([255 * s for s in std], abs=1e-6)


def test_tensorflow_operators_of_keras_2(tmp_path):
    network = _make(V1)
    layers = _whole(network)
    model = keras.functional(layers, SHAPE, 2)
    entries = model["config"]["layers"]
    for name, function, number in (("divide", "math.truediv", 127.5), ("subtract", "math.subtract", 1)):
        before = entries[1]["inbound_nodes"][0][0][0] if name == "subtract" else "image"
        operator = {"class_name": "TFOpLambda", "config": {"name": name, "function": function}, "name": name}
        operator["inbound_nodes"] = [[before, 0, 0, {"y": number, "name": None}]]
        entries.insert(-len(layers), operator)
        entries[-len(layers)]["inbound_nodes"] = [[[name, 0, 0, {}]]]
        if name == "divide":
            entries[1], entries[-len(layers)] = operator, entries[-len(layers)]
            entries[1]["inbound_nodes"] = [["image", 0, 0, {"y": number, "name": None}]]
        else:
            operator["inbound_nodes"] = [["divide", 0, 0, {"y": number, "name": None}]]
    loaded = load_model(V1, keras.write_h5(tmp_path / "x.h5", model, layers, keras=2))
    assert loaded.preprocessing.mean == loaded.preprocessing.std == (127.5,) * 3
    assert_same(network, loaded)


def _write_weights(path, layers, layout, nested):
    with h5py.File(path, "w") as archive:
        if layout == "numbered":
            keras.write_numbered(archive, layers, nested, named=False)
        else:
            keras.write_named(archive, layers, int(layout), nested)
    return path


@pytest.mark.parametrize("nested", [None, "functional"])
@pytest.mark.parametrize("layout", ["2", "3", "numbered"])
def test_weights_alone_are_those_of_keras_applications(tmp_path, made, layout, nested):
    name, network = made
    file = _write_weights(tmp_path / "x.weights.h5", _whole(network, dense=nested is not None), layout, nested)
    model = load_model(name, file)
    assert_same(network, model)
    assert "as of keras.applications" in model.assumptions[0]
    assert model.preprocessing == keras_preprocessing(64, 4)
    told = load_model(name, file, conventions=Conventions(activation="relu"))
    assert told.spec.activation == "relu"
    assert "holds mobilenet_v1_0.25 with" in assert_refused(file, "mobilenet_v1_0.5_64") or name == V2


@pytest.mark.parametrize("alone", [False, True])
def test_one_sigmoid_output_is_read_as_two_classes(tmp_path, alone):
    network = _make(V1, classes=1)
    layers = _whole(network, dense=True)
    layers[-1]["settings"]["activation"] = "sigmoid"
    if alone:
        file = _write_weights(tmp_path / "x.weights.h5", layers, "3", None)
    else:
        file = keras.write_h5(tmp_path / "x.h5", keras.functional(layers, SHAPE), layers)
    model = load_model(V1, file)
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.module(image).softmax(1)[:, 1], torch.sigmoid(network(image))[:, 0])
    assert model.spec.classes == 2
    assert any("the one output becomes the logit of class 1" in line for line in model.assumptions)


def _change(layers, name, **settings):
    return [{**each, "settings": {**each["settings"], **settings}} if each["name"] == name else each for each in layers]


def _without(layers, name):
    return [each for each in layers if each["name"] != name]


def _insert(layers, name, *more):
    place = [each["name"] for each in layers].index(name) + 1
    return [*layers[:place], *more, *layers[place:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v1: v1[:-3], "no classifier"),
        (lambda v1: _without(v1, "pool"), "dense layer without an average"),
        (lambda v1: [*v1, {**v1[-1], "name": "more"}], "more is a second dense layer"),
        (lambda v1: _change(v1, "predictions", activation="relu"), "where one dense layer belongs"),
        (lambda v1: _insert(v1, "conv1", keras.layer("Resizing", "resize")), "layer resize of class Resizing"),
        (lambda v1: [keras.layer("Lambda", "code", function="evil"), *v1], "layer code of class Lambda"),
        (lambda v1: _change(v1, "conv1", strides=[1, 2]), "layer conv1 with strides [1, 2]"),
        (lambda v1: _change(v1, "conv1", strides=[float("inf")] * 2), "strides"),
        (lambda v1: _change(v1, "conv1", dilation_rate=[2, 2]), "dilation_rate"),
        (lambda v1: _change(v1, "conv1", activation="tanh"), "activation tanh"),
        (lambda v1: _change(v1, "conv1", activation={"class_name": "x"}), "activation"),
        (lambda v1: _change(v1, "conv1", padding="valid"), "neither TensorFlow's SAME"),
        (lambda v1: _without(v1, "conv_dw_2_pad"), "neither TensorFlow's SAME"),
        (lambda v1: _change(v1, "conv1_bn", epsilon=-1.0), "epsilon -1.0"),
        (lambda v1: _change(v1, "conv1_bn", epsilon="x"), "epsilon 'x'"),
        (lambda v1: _change(v1, "conv1_bn", axis=[1]), "of other axes"),
        (lambda v1: _change(v1, "conv1_relu", max_value=4.0), "max_value 4.0"),
        (lambda v1: _change(v1, "conv1_relu", negative_slope=0.1), "negative_slope"),
        (lambda v1: _without(v1, "conv_pw_3_relu"), "holds no MobileNet known here"),
        (lambda v1: _insert(v1, "conv1_relu", keras.layer("ReLU", "again", max_value=6.0)), "second activation"),
        (lambda v1: _insert(v1, "conv1_relu", RESCALING), "layer rescaling scales between layers"),
        (lambda v1: _insert(v1, "conv1_relu", {**v1[1], "name": "n"}), "doesn't follow a convolution"),
        (lambda v1: _change(v1, "predictions", activation="sigmoid"), "activation sigmoid"),
        (lambda v1: [*v1, keras.layer("Softmax", "s", sources=["drop"])], "another layer's output"),
        (lambda v1: _insert(v1, "pool", keras.layer("BatchNormalization", "n")), "written otherwise"),
    ],
)
def test_other_networks_are_named(tmp_path, change, says):
    layers = change(_whole(_make(V1), dense=True))
    line = assert_refused(keras.write_h5(tmp_path / "x.h5", keras.functional(layers, SHAPE), layers), V1)
    assert says in line
    assert "damaged" not in line


def test_additions_of_other_layers_are_refused(tmp_path):
    layers = _whole(_make(V2))
    for sources in (["block_1_project_BN", "block_2_project"], ["block_1_depthwise_relu", "block_2_project_BN"]):
        changed = [{**each, "sources": sources} if each["name"] == "block_2_project_add" else each for each in layers]
        file = keras.write_h5(tmp_path / "x.h5", keras.functional(changed, SHAPE), changed)
        assert "block_2_project_add" in assert_refused(file, V2)
    # Without its addition it would be another network of the same shapes.
    changed = _without(layers, "block_2_project_add")
    changed = [each if "add" not in each["name"] else {**each, "sources": None} for each in changed]
    file = keras.write_h5(tmp_path / "y.h5", keras.functional(_without(changed, ""), SHAPE), changed)
    assert_refused(file, V2)


def _describe_wrongly(model, path, value):
    *steps, last = path
    for step in steps:
        model = model[step]
    model[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["class_name"], "Subclassed"),
        (["config"], None),
        (["config", "layers"], "nothing"),
        (["config", "layers"], []),
        (["config", "input_layers"], [["a", 0, 0], ["b", 0, 0]]),
        (["config", "output_layers"], [["nowhere", 0, 0]]),
        (["config", "layers", 1, "inbound_nodes"], []),
        (["config", "layers", 1, "inbound_nodes"], [[[["image", 0, 0, {}]]], [[["image", 0, 0, {}]]]]),
        (["config", "layers", 0, "config", "batch_shape"], [None, 64, 32, 3]),
        (["config", "layers", 0, "config", "batch_shape"], [None, 64, 64, 10**9]),
        (["config", "layers", 0, "config", "batch_shape"], [None, 64, 64, True]),
        (["config", "layers", 1, "config"], {}),
    ],
)
def test_other_descriptions_are_not_called_damaged(tmp_path, path, value):
    layers = _whole(_make(V1))
    model = keras.functional(layers, SHAPE)
    _describe_wrongly(model, path, value)
    assert "damaged" not in assert_refused(keras.write_h5(tmp_path / "x.h5", model, layers), V1)


def _replace(name, **options):
    def change(group):
        del group[name]
        group.create_dataset(name, **options)

    return change


def _link(link):
    def change(group):
        del group["conv1"]
        group["conv1"] = link

    return change


def _loop(group):
    group["conv1/again"] = group["conv1"]
    group["conv1/twice"] = group["conv1"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        # 4 TB of zeros that are nowhere in the file.
        (_replace("conv1/conv1/kernel", shape=(10**4, 10**4, 100, 100), dtype="f4", chunks=(1, 1, 1, 1)), "numbers at"),
        (_replace("conv1/conv1/kernel", shape=(3, 3), dtype="f4"), "a kernel of"),
        (_replace("conv1/conv1/kernel", data="words"), "no plain floats"),
        (_replace("conv1/conv1/kernel", data=np.ones((3, 3, 3, 8), np.int8)), "no plain floats"),
        (_replace("conv1/conv1/kernel", shape=(4,), dtype="f4", external=[("/dev/zero", 0, 16)]), "no plain floats"),
        (_replace("conv1_bn/conv1_bn/gamma", shape=(1,), dtype="f4"), "1 numbers for the gamma of conv1_bn, not 8"),
        (_replace("conv1_bn/conv1_bn/moving_variance", data=np.full(8, -2, np.float32)), "variance of -2"),
        (_replace("conv1/conv1/kernel", data=np.full((3, 3, 3, 8), np.nan, np.float32)), "no finite numbers"),
        (_link(h5py.ExternalLink("/other.h5", "/conv")), "a link at model_weights/conv1"),
        (_link(h5py.SoftLink("/model_weights/conv1_bn")), "a link at model_weights/conv1"),
        (_loop, "groups"),
    ],
)
def test_datasets_that_are_no_weights(tmp_path, change, says):
    layers = _whole(_make(V1))
    file = keras.write_h5(tmp_path / "x.h5", keras.functional(layers, SHAPE), layers)
    with h5py.File(file, "a") as archive:
        change(archive["model_weights"])
    assert says in assert_refused(file, V1)


def test_weights_alone_of_other_networks(tmp_path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as archive:
        archive.attrs["layer_names"] = ["a"]
    assert "Keras weights without their network" in assert_refused(path, V1)
    layers = _whole(_make(V1), dense=True)
    more = keras.layer("Dense", "more", np.ones((4, 2), np.float32))
    for part, says in (
        (layers[:-1], "with no dense layers"),
        ([*layers, more], "with 2 dense layers"),
        (layers[3:], "weights"),
    ):
        for layout in ("3", "numbered"):
            path.unlink()
            _write_weights(path, part, layout, None)
            assert says in assert_refused(path, V1)


def test_archives_of_other_contents(tmp_path):
    layers = _whole(_make(V1), dense=True)
    path = keras.write_archive(tmp_path / "x.keras", keras.functional(layers, SHAPE), layers)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content, says in (
        ("config.json", b" " * (8 * 2**20 + 1), "description has more than"),
        ("config.json", b"{", "written otherwise"),
        ("config.json", b"[" * 10**5, "written otherwise"),
        ("model.weights.h5", b"", "damaged"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in (members | {name: content}).items():
                archive.writestr(member, data)
        assert says in assert_refused(path, V1)
    other = keras.functional([*layers[:-1], {**layers[-1], "name": "other"}], SHAPE)
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in (members | {"config.json": json.dumps(other).encode()}).items():
            archive.writestr(member, data)
    assert "2 weights of predictions where 2 of other belong" in assert_refused(path, V1)


@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_trained_network_of_keras(shared_data, kind):
    field = shared_data / "field"
    model = load_model("mobilenet_v1_0.25_128", field / f"keras_v1_0.25_128_trained.{kind}")
    images = list_images(shared_data / "images").images[:20]
    pixels = np.stack([model.preprocessing.pixels(image.path) for image in images])
    with torch.no_grad():
        answers = model.module(model.preprocessing.to_float(pixels)).softmax(1)
    with np.load(field / "keras_v1_0.25_128_trained_outputs.npz") as outputs:
        np.testing.assert_allclose(answers, outputs["float_probabilities"], atol=1e-5)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mobilenet_v2_0.35_96_top.h5", "mobilenet_v2_0.35_96"),
        ("mobilenet_v1_0.25_96_transfer_seq.keras", "mobilenet_v1_0.25_96"),
    ],
)
def test_networks_of_keras(shared_data, file, name):
    model = load_model(name, shared_data / "field" / file)
    with np.load((shared_data / "field" / file).with_suffix(".npz")) as answers, torch.no_grad():
        image = torch.from_numpy(answers["x"]).permute(0, 3, 1, 2)
        np.testing.assert_allclose(model.module(image).softmax(1), answers["y"], atol=1e-6)


def test_visual_wake_words(shared_data):
    model = load_model("vww_96", shared_data / "models" / "vww_96.h5")
    assert model.preprocessing == unit_preprocessing(96, 3)
    assert (model.spec.activation, model.spec.classes) == ("relu", 2)
