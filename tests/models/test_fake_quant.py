"""State dicts in quantization-aware training: weights load as without observers, and their ranges are int8's."""

import numpy as np
import pytest
import torch

from thumbnet.models.preprocessing import torchvision_preprocessing
from thumbnet.models.stored import list_residuals, list_units
from thumbnet.models.weights import load_model

from .state_dicts import NAME, assert_refused, assert_same, prefixed, save

IMAGENET = (0.0187, 114)


def _observe(state, name, scale, zero_point, ends=(0.0, 6.0), *, kind="activation_post_process"):
    state[f"{name}.{kind}.fake_quant_enabled"] = torch.ones(1, dtype=torch.int64)
    state[f"{name}.{kind}.scale"] = torch.as_tensor(scale, dtype=torch.float32).reshape(-1)
    points = torch.as_tensor(zero_point, dtype=torch.int32).reshape(-1)
    state[f"{name}.{kind}.zero_point"] = points.expand(state[f"{name}.{kind}.scale"].numel()).clone()
    for end, value in zip(("min_val", "max_val"), ends, strict=True):
        state[f"{name}.{kind}.activation_post_process.{end}"] = torch.tensor(value)


def _train(network, image=IMAGENET, per_channel=False):
    """Return a state dict as torchvision's quantizable network in training has it."""
    state = network.state_dict()
    aware, norms = {}, {}
    for unit in list_units(network):
        aware[f"{unit.path}.weight"] = state[f"{unit.path}.weight"]
        if unit.batch_norm is None:
            aware[f"{unit.path}.bias"] = state[f"{unit.path}.bias"]
        else:
            norms[unit.path] = next(name for name, module in network.named_modules() if module is unit.batch_norm)
            for name, tensor in unit.batch_norm.state_dict().items():
                aware[f"{unit.path}.bn.{name}"] = tensor
        scales = [0.01 + 0.001 * i for i in range(unit.module.weight.shape[0])] if per_channel else 0.01
        _observe(aware, unit.path, scales, 0, (-1.0, 1.0), kind="weight_fake_quant")
        if unit.activated:
            _observe(aware, unit.path, 6 / 255, 0)
        else:
            _observe(aware, unit.path, 0.05, 100, (-5.0, 7.75))
    for path, module in network.named_modules():
        if type(module).__name__ == "InvertedResidual" and path not in list_residuals(network):
            # Nothing is added in these blocks, and nothing seen of it.
            _observe(aware, f"{path}.skip_add", 1.0, 0, (torch.inf, -torch.inf))
    for path in list_residuals(network):
        _observe(aware, f"{path}.skip_add", 0.06, 120, (-7.2, 8.1))
    low = -image[0] * image[1]
    _observe(aware, "quant", *image, (low, low + 255 * image[0]))
    return aware


@pytest.mark.parametrize("per_channel", [False, True])
def test_ranges_are_taken(tmp_path, network, per_channel):
    model = load_model(NAME, save(tmp_path, prefixed(_train(network, per_channel=per_channel), "module.")))
    assert_same(network, model)
    quants = model.activation_quant
    assert set(quants) == {"input", "pool", *(u.path for u in list_units(network)), *list_residuals(network)}
    assert quants["features.0.0"] == (pytest.approx(6 / 255), -128)
    assert quants["features.2.conv.2"] == (pytest.approx(0.05), -28)
    assert quants["features.3"] == (pytest.approx(0.06), -8)
    assert quants["pool"] == quants["features.18.0"]
    assert quants["input"] == (pytest.approx(0.0187), -14)
    assert set(model.weight_scales) == {unit.path for unit in list_units(network)}
    last = model.weight_scales["classifier.1"]
    assert last == pytest.approx([0.01, 0.011, 0.012, 0.013, 0.014] if per_channel else [0.01] * 5)
    assert (last.dtype, model.preprocessing) == (np.float32, torchvision_preprocessing(96))
    assert "as of torchvision" in model.assumptions[0]


@pytest.mark.parametrize(
    ("image", "mean", "std"), [((1 / 255, 0), 0, 255), ((1 / 127.5, 128), 127.5, 127.5), ((1.0, 0), 0, 1)]
)
def test_the_range_of_the_input_tells_its_scaling(tmp_path, network, image, mean, std):
    preprocessing = load_model(NAME, save(tmp_path, _train(network, image))).preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((mean,) * 3, (std,) * 3)
    assert preprocessing.resize_mode == "short-side"


def test_signed_activations(tmp_path, network):
    state = _train(network)
    _observe(state, "features.0.0", 6 / 255, -128)
    assert load_model(NAME, save(tmp_path, state)).activation_quant["features.0.0"][1] == -128


def _without(part):
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


def _with(name, value):
    return lambda state: {**state, name: torch.tensor(value)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without("quant.activation"), "quantization-aware training"),
        (
            _without("features.0.0.activation_post_process.zero_point"),
            "features.0.0.activation_post_process.zero_point",
        ),
        (_with("features.0.0.activation_post_process.scale", [0.0]), "features.0.0.activation_post_process.scale"),
        (_with("features.0.0.activation_post_process.scale", [torch.nan]), "no number above 0"),
        (_with("features.0.0.activation_post_process.scale", [1.0, 1.0]), "has 2 scales; an activation has one"),
        (_with("features.0.0.weight_fake_quant.zero_point", [3]), "not symmetric"),
        (_with("features.0.0.weight_fake_quant.scale", [1.0, 1.0]), "2 scales for 16 channels"),
        (_with("features.0.0.bn.running_var", [-1.0] * 16), "running_var holds a variance of -1"),
        (_without("features.18.0.weight"), "features.18.0.weight (1280x112x1x1) is missing"),
    ],
)
def test_other_states_are_named(tmp_path, network, change, says):
    assert says in assert_refused(save(tmp_path, change(_train(network))))


def test_trained_state_of_torchvision(shared_data):
    model = load_model(NAME, shared_data / "field" / "tv_qat_fakequant.pth")
    assert len(model.activation_quant) == 65
    assert model.activation_quant["input"] == (pytest.approx(1 / 255, rel=1e-3), -128)
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.0,) * 3, (255.0,) * 3)
    assert model.module(torch.rand(2, 3, 96, 96)).std(0).min() > 0
