"""Loaders on files made here: what is read comes back, and bad files get one line."""

import math

import h5py
import numpy as np
import pytest
import torch

from thumbnet.models.conventions import Conventions
from thumbnet.models.errors import ClassCountError, ModelError, WeightsFileError, WrongVariantError
from thumbnet.models.image_folder import list_images
from thumbnet.models.preprocessing import torchvision_preprocessing, unit_preprocessing
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.stored import list_residuals, list_units
from thumbnet.models.variants import ModelSpec, build_model, get_spec
from thumbnet.models.weights import BUNDLED_IMAGES, find_bundled, load_model


def _randomise(network):
    """Give batch norms statistics that matter, so that a mix-up shows."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


@pytest.fixture
def v2(tmp_path):
    spec = get_spec("mobilenet_v2_0.35_96")
    network = _randomise(build_model(ModelSpec(spec.name, "v2", 0.35, 96, padding="symmetric", bn_epsilon=1e-5)))
    path = tmp_path / "v2.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_torchvision_state_dict(v2):
    network, path = v2
    model = load_model("mobilenet_v2_0.35_96", path)
    image = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(model.module(image), network(image))
    assert model.spec.padding == "symmetric"
    assert model.preprocessing == torchvision_preprocessing(96)
    assert (model.activation_quant, model.weight_scales) == (None, None)
    assert not model.module.training
    # The other padding is another network.
    assert not torch.allclose(
        load_model("mobilenet_v2_0.35_96", path, conventions=Conventions(padding="same")).module(image), network(image)
    )


def test_state_dict_in_the_old_format(v2, tmp_path):
    network, _ = v2
    old = tmp_path / "old.pth"
    torch.save(network.state_dict(), old, _use_new_zipfile_serialization=False)
    image = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(load_model("mobilenet_v2_0.35_96", old).module(image), network(image))


def test_classes_and_channels_come_from_the_file(tmp_path):
    spec = ModelSpec("mobilenet_v1_0.25_64", "v1", 0.25, 64, classes=7, input_channels=1)
    path = tmp_path / "seven.pth"
    torch.save(build_model(spec).state_dict(), path)
    model = load_model("mobilenet_v1_0.25_64", path)
    assert (model.spec.classes, model.spec.input_channels, model.preprocessing.channels) == (7, 1, 1)
    assert load_model("mobilenet_v1_0.25_64", path, classes=7).spec.classes == 7
    with pytest.raises(ClassCountError, match="has 7 classes, 10 were asked for"):
        load_model("mobilenet_v1_0.25_64", path, classes=10)


def test_checkpoint_carries_what_a_name_can_not(tmp_path):
    spec = ModelSpec("mobilenet_v1_0.25_64", "v1", 0.25, 64, 5, 1, activation="relu", padding="symmetric")
    network = _randomise(build_model(spec))
    path = tmp_path / "own.pt"
    write_checkpoint(path, network, spec, unit_preprocessing(64, 1), {"epochs": 3})
    model = load_model("mobilenet_v1_0.25_64", path)
    assert model.spec == spec
    assert model.preprocessing == unit_preprocessing(64, 1)
    image = torch.rand(1, 1, 64, 64)
    # Stored as float16: a part in 2048.
    torch.testing.assert_close(model.module(image), network(image), rtol=0.02, atol=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in model.module.parameters())
    # The same network gives the same bytes.
    again = tmp_path / "again.pt"
    write_checkpoint(again, network, spec, unit_preprocessing(64, 1), {"epochs": 3})
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(WrongVariantError, match=r"holds mobilenet_v1_0\.25_64, not mobilenet_v1_0\.25_96"):
        load_model("mobilenet_v1_0.25_96", path)


def test_other_variants_are_named(v2):
    _, path = v2
    with pytest.raises(
        WrongVariantError,
        match=r"holds mobilenet_v2_0\.35 with 1000 classes at any resolution, not mobilenet_v2_1\.0_96",
    ):
        load_model("mobilenet_v2_1.0_96", path)
    with pytest.raises(
        WrongVariantError,
        match=r"holds mobilenet_v2_0\.35 with 1000 classes at any resolution, not mobilenet_v1_0\.25_96",
    ):
        load_model("mobilenet_v1_0.25_96", path)


def test_pickles_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    path = tmp_path / "trap.pt"
    torch.save({"features.0.0.weight": Trap()}, path)
    with pytest.raises(WeightsFileError, match="more than weights"):
        load_model("mobilenet_v1_0.25_96", path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {"a": 1}, torch.zeros(3), {"state_dict": {}}, {"format": "thumbnet-checkpoint", "version": 9}],
)
def test_pytorch_files_of_something_else(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ModelError) as caught:
        load_model("mobilenet_v1_0.25_96", path)
    assert "\n" not in str(caught.value)


def test_state_dict_of_another_network(tmp_path):
    path = tmp_path / "mlp.pt"
    torch.save(torch.nn.Linear(3, 3).state_dict(), path)
    with pytest.raises(WrongVariantError, match="another network"):
        load_model("mobilenet_v1_0.25_96", path)


def test_not_a_number_is_refused(v2):
    network, path = v2
    with torch.no_grad():
        network.features[5].conv[0][0].weight[0] = math.nan
    torch.save(network.state_dict(), path)
    with pytest.raises(WeightsFileError, match=r"features\.5\.conv\.0\.0\.weight holds values"):
        load_model("mobilenet_v2_0.35_96", path)


def test_truncated_and_changed_pytorch_files(v2):
    _, path = v2
    whole = path.read_bytes()
    for part in (0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(WeightsFileError):
            load_model("mobilenet_v2_0.35_96", path)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04garbage", b"\x80\x02garbage", b"\x89HDF\r\n\x1a\ngarbage", b"\0\0\0\0TFL3"]
)
def test_garbage_has_one_line(tmp_path, content):
    path = tmp_path / "garbage.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsFileError) as caught:
        load_model("mobilenet_v1_0.25_96", path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_folder_and_no_bundled_weights(tmp_path):
    with pytest.raises(WeightsFileError, match="no such weights file"):
        load_model("mobilenet_v1_0.25_96", tmp_path / "none.tflite")
    with pytest.raises(WeightsFileError, match="can't be read"):
        load_model("mobilenet_v1_0.25_96", tmp_path)
    with pytest.raises(WeightsFileError, match="no weights are bundled; give --weights FILE, or take mobilenet_v1"):
        load_model("mobilenet_v1_0.25_96")


def test_h5_of_something_else(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as archive:
        archive["x"] = np.zeros(3)
    with pytest.raises(WeightsFileError, match="no Keras MobileNet"):
        load_model("vww_96", path)


def test_units_and_residuals_are_in_the_order_of_execution():
    v1, v2 = build_model(get_spec("mobilenet_v1_0.25_96")), build_model(get_spec("mobilenet_v2_0.35_96"))
    assert len(list_units(v1)) == 28
    assert len(list_units(v2)) == 53
    assert [unit.kind for unit in list_units(v2)].count("depthwise") == 17
    assert all((unit.batch_norm is None) == (unit.kind == "linear") for unit in list_units(v2))
    assert len(list_residuals(v2)) == 10
    assert list_residuals(v2)[0] == "features.3"
    order = []
    for unit in list_units(v2):
        unit.module.register_forward_hook(lambda *_, path=unit.path: order.append(path))
    v2(torch.zeros(2, 3, 96, 96))
    assert order == [unit.path for unit in list_units(v2)]


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_digits", "mobilenet_v2_0.35_digits"])
def test_bundled_networks_know_the_bundled_digits(name):
    assert find_bundled(get_spec(name)).stat().st_size < 1_000_000
    model = load_model(name)
    images = list_images(BUNDLED_IMAGES).images
    assert len(images) == 100
    pixels = np.stack([model.preprocessing.pixels(image.path) for image in images])
    with torch.no_grad():
        logits = model.module(model.preprocessing.to_float(pixels))
    answers = logits.argmax(1).numpy()
    assert (answers == [image.class_index for image in images]).mean() >= 0.97
    assert float(logits.std(0).min()) > 0.1
