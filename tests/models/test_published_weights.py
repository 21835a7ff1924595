"""Loaders on the published files, which are not part of the project."""

from pathlib import Path

import numpy as np
import pytest
import torch

from thumbnet.models.errors import ClassCountError, WeightsFileError, WrongVariantError
from thumbnet.models.image_folder import list_images
from thumbnet.models.preprocessing import hosted_preprocessing, unit_preprocessing
from thumbnet.models.stored import list_units
from thumbnet.models.weights import load_model

HOSTED = ["mobilenet_v1_0.25_128", "mobilenet_v1_0.5_160", "mobilenet_v2_1.0_224"]


def _hosted(shared_data: Path, name: str) -> Path:
    return shared_data / "models" / f"{name}_quant.tflite"


def _answer(model, images, batch=10):
    pixels = np.stack([model.preprocessing.pixels(image.path) for image in images])
    with torch.no_grad():
        parts = [
            model.module(model.preprocessing.to_float(pixels[i : i + batch])) for i in range(0, len(pixels), batch)
        ]
    return torch.cat(parts).numpy()


def _compare(shared_data, name, images):
    model = load_model(name, _hosted(shared_data, name))
    logits = _answer(model, images)
    with np.load(shared_data / "golden" / f"{name}_quant.npz") as golden:
        position = {str(file): i for i, file in enumerate(golden["files"])}
        expected = golden["probabilities_uint8"][[position[image.path.name] for image in images]]
    labels = np.array([image.class_index for image in images]) + model.preprocessing.label_offset
    return logits, expected, labels


def test_a_few_images_answer_as_litert(shared_data):
    images = list_images(shared_data / "images").images[::10]
    logits, expected, _ = _compare(shared_data, "mobilenet_v1_0.25_128", images)
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.9
    # A network that answers the same to everything would pass comparisons with itself.
    assert logits.std(axis=0).min() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTED)
def test_all_images_answer_as_litert(shared_data, name):
    logits, expected, labels = _compare(shared_data, name, list_images(shared_data / "images").images)
    ours, litert = (logits.argmax(1) == labels).mean(), (expected.argmax(1) == labels).mean()
    assert abs(ours - litert) <= 0.02
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.93
    assert logits.std(axis=0).min() > 0.1


@pytest.mark.parametrize("name", HOSTED)
def test_ranges_and_scales_of_hosted_files(shared_data, name):
    model = load_model(name, _hosted(shared_data, name))
    units = list_units(model.module)
    paths = {unit.path for unit in units}
    residuals = {path for path in model.activation_quant if path not in paths | {"input", "pool"}}
    assert set(model.activation_quant) == paths | residuals | {"input", "pool"}
    assert len(residuals) == (10 if "v2" in name else 0)
    assert model.activation_quant["input"] == (1 / 128, 0)
    # ReLU6: 0 to 6 in 255 steps, zero at the lowest int8.
    scale, zero_point = model.activation_quant["features.0.0"]
    assert (scale * 255, zero_point) == (pytest.approx(6, rel=1e-3), -128)
    assert all(-128 <= zero_point <= 127 for _, zero_point in model.activation_quant.values())
    assert model.preprocessing == hosted_preprocessing(model.spec.resolution, 1001)
    assert set(model.weight_scales) == paths
    for unit in units:
        scales = model.weight_scales[unit.path]
        weight = unit.module.weight.detach().numpy().reshape(len(scales), -1)
        assert scales.dtype == np.float32
        # Every channel fits into int8 ...
        steps = weight / scales[:, None]
        assert np.abs(steps).max() < 127.01
        # ... and those that keep the file's scale, which are the most, are whole numbers of steps.
        exact = np.isclose(scales, scales.min(), rtol=1e-6)
        np.testing.assert_allclose(steps[exact], np.round(steps[exact]), atol=1e-3)
    shares = [np.isclose(s, s.min(), rtol=1e-6).mean() for s in model.weight_scales.values()]
    assert np.mean(shares) > 0.95


def test_folded_batch_norm_is_an_identity_with_a_bias(shared_data):
    for name in (HOSTED[0], HOSTED[2]):
        model = load_model(name, _hosted(shared_data, name))
        for unit in list_units(model.module)[:-1]:
            norm = unit.batch_norm
            assert bool((norm.running_var + norm.eps == 1).all())
            image = torch.randn(1, norm.num_features, 2, 2)
            torch.testing.assert_close(norm(image), image + norm.bias[:, None, None], rtol=0, atol=1e-6)


def test_visual_wake_words_of_both_files_agree(shared_data):
    images = list_images(shared_data / "images").images[::20]
    models = [load_model("vww_96", shared_data / "models" / file) for file in ("vww_96.h5", "vww_96_int8.tflite")]
    keras, tflite = models
    assert keras.spec == tflite.spec
    assert keras.preprocessing == tflite.preprocessing == unit_preprocessing(96, 3)
    assert (keras.spec.classes, keras.spec.activation) == (2, "relu")
    assert tflite.activation_quant["input"] == (pytest.approx(1 / 255), -128)
    assert tflite.activation_quant["classifier"] == (pytest.approx(0.014636219), -5)
    assert keras.activation_quant is None
    a, b = (_answer(model, images) for model in models)
    # The int8 weights are rounded ones of the float file.
    np.testing.assert_allclose(a, b, atol=0.25)
    assert a.std(axis=0).min() > 0.5
    steps = tflite.module.features[3].pointwise[0].weight.detach().numpy().reshape(32, -1)
    steps = steps / tflite.weight_scales["features.3.pointwise.0"][:, None]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_wrong_variant_says_what_the_file_holds(shared_data):
    file = _hosted(shared_data, "mobilenet_v1_0.5_160")
    for asked in ("mobilenet_v1_0.25_160", "mobilenet_v1_0.5_128", "mobilenet_v2_1.0_160"):
        with pytest.raises(WrongVariantError) as caught:
            load_model(asked, file)
        assert f"holds mobilenet_v1_0.5_160, not {asked}" in str(caught.value)
    with pytest.raises(WrongVariantError, match=r"holds mobilenet_v1_0\.25_96, not mobilenet_v1_0\.25_128"):
        load_model("mobilenet_v1_0.25_128", shared_data / "models" / "vww_96.h5")


def test_wrong_class_count(shared_data):
    with pytest.raises(ClassCountError, match="has 1001 classes, 10 were asked for"):
        load_model("mobilenet_v1_0.25_128", _hosted(shared_data, "mobilenet_v1_0.25_128"), classes=10)


@pytest.mark.parametrize("file", ["mobilenet_v1_0.25_128_quant.tflite", "vww_96_int8.tflite", "vww_96.h5"])
def test_truncated_files_are_refused(shared_data, tmp_path, file):
    whole = (shared_data / "models" / file).read_bytes()
    name = "vww_96" if "vww" in file else "mobilenet_v1_0.25_128"
    damaged = tmp_path / file
    # The hosted files end in 22 kB of class names that are no part of the network.
    for part in (0.0001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95):
        damaged.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(WeightsFileError):
            load_model(name, damaged)


@pytest.mark.parametrize("file", ["mobilenet_v1_0.25_128_quant.tflite", "vww_96_int8.tflite", "vww_96.h5"])
def test_changed_bytes_never_end_in_a_traceback(shared_data, tmp_path, file):
    whole = (shared_data / "models" / file).read_bytes()
    name = "vww_96" if "vww" in file else "mobilenet_v1_0.25_128"
    damaged = tmp_path / file
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(25):
        content = bytearray(whole)
        # The structure is at the ends of these files; a changed weight is just another weight.
        for place in [*random.integers(8, 4000, 20), *(len(whole) - random.integers(1, 20000, 20))]:
            content[place] = random.integers(256)
        damaged.write_bytes(content)
        try:
            load_model(name, damaged)
        except (WeightsFileError, WrongVariantError):
            refused += 1
    assert refused > 0
