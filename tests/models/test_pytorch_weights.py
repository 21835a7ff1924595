"""PyTorch weights as people have them: names, wrappers, classifiers, conventions."""

import argparse
import collections
import pathlib
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from thumbnet.models.conventions import Conventions
from thumbnet.models.errors import ModelError, WeightsFileError, WrongVariantError
from thumbnet.models.preprocessing import hosted_preprocessing, timm_preprocessing
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.variants import ModelSpec, build_model, get_spec
from thumbnet.models.weights import load_model

from .state_dicts import NAME, V1, assert_refused, assert_same, make_network, make_torchvision, prefixed, save


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.backbone.", "_orig_mod.module.model."]
)
def test_prefixes(tmp_path, network, state, prefix):
    assert_same(network, load_model(NAME, save(tmp_path, prefixed(state, prefix))))


def test_wrappers_inside_a_name(tmp_path, network, state):
    # `model.features = DataParallel(model.features)`, as in PyTorch's ImageNet example.
    inside = {name.replace("features.", "features.module."): tensor for name, tensor in state.items()}
    assert_same(network, load_model(NAME, save(tmp_path, inside)))


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "model_ema", "state_dict_ema", "net", "w"])
@pytest.mark.parametrize("old", [False, True])
def test_wrappers(tmp_path, network, state, key, old):
    content = {"epoch": 3, key: prefixed(state, "module."), "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}
    model = load_model(NAME, save(tmp_path, content, _use_new_zipfile_serialization=not old))
    assert_same(network, model)
    assert not any(line.startswith("weights:") for line in model.assumptions)


def test_wrappers_in_wrappers(tmp_path, network, state):
    assert_same(network, load_model(NAME, save(tmp_path, {"checkpoint": {"weights": {"net": state}}})))


class Settings:
    """A class no reader of weights knows."""

    def __init__(self):
        self.rate = np.float64(0.1)


class Tree(dict):
    """A dictionary with attributes, as settings often are."""


def test_lightning_checkpoint_with_objects_of_other_classes(tmp_path, network, state):
    content = {
        "epoch": 4,
        "pytorch-lightning_version": "2.2",
        "state_dict": {**prefixed(state, "model."), "criterion.weight": torch.ones(5)},
        "hyper_parameters": argparse.Namespace(lr=0.1, root=pathlib.Path("/data"), settings=Settings()),
        "callbacks": {
            "ModelCheckpoint": {"best": np.float64(0.9), "scores": collections.defaultdict(list, {"a": [1]})}
        },
        "loops": {"array": np.arange(3), "tree": Tree(a=Tree(b=1))},
    }
    assert_same(network, load_model(NAME, save(tmp_path, content, "last.ckpt")))


def test_of_several_sets_one_is_taken_and_named(tmp_path, network, state):
    average = make_torchvision(seed=2)
    content = {
        "model_ema": {"n_averaged": torch.tensor(7), **prefixed(average.state_dict(), "module.")},
        "model": state,
    }
    path = save(tmp_path, content)
    model = load_model(NAME, path)
    assert_same(network, model)
    assert model.assumptions[0] == "weights: model, of model_ema, model; --weights-key takes another"
    for key, wanted in (("model_ema", average), ("model", network)):
        chosen = load_model(NAME, path, weights_key=key)
        assert_same(wanted, chosen)
        assert not any(line.startswith("weights:") for line in chosen.assumptions)
    assert "no weights under the key 'emma'; it has model_ema, model" in assert_refused(path, weights_key="emma")


def test_two_networks_in_one_mapping(tmp_path, network, state):
    other = make_torchvision(seed=2)
    path = save(tmp_path, {"state_dict": {**prefixed(other.state_dict(), "teacher."), **prefixed(state, "student.")}})
    model = load_model(NAME, path)
    assert_same(network, model)
    assert "state_dict.student, of state_dict.teacher, state_dict.student" in model.assumptions[0]
    assert_same(other, load_model(NAME, path, weights_key="teacher"))
    assert_same(other, load_model(NAME, path, weights_key="state_dict.teacher"))
    assert "has 2 weights under the key 'state_dict'" in assert_refused(path, weights_key="state_dict")


def test_a_key_where_there_is_none(tmp_path, state):
    assert "no weights under the key 'model'; it has (no key)" in assert_refused(
        save(tmp_path, state), weights_key="model"
    )
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\0\0\0\0TFL3")
    assert "leave --weights-key out" in assert_refused(path, weights_key="model")


@pytest.mark.parametrize("head", ["classifier", "fc", "head", "classifier.3", "head.fc", "output", "last_layer.linear"])
def test_classifier_of_one_linear_layer_under_any_name(tmp_path, network, state, head):
    renamed = {name.replace("classifier.1", head): tensor for name, tensor in state.items()}
    assert_same(network, load_model(NAME, save(tmp_path, renamed)))
    # ... also beside the prefix of the rest,
    beside = {name if name.startswith(head) else f"backbone.{name}": tensor for name, tensor in renamed.items()}
    assert_same(network, load_model(NAME, save(tmp_path, beside)))
    # ... as a 1x1 convolution,
    renamed[f"{head}.weight"] = renamed[f"{head}.weight"][..., None, None]
    assert_same(network, load_model(NAME, save(tmp_path, renamed)))
    # ... and without a bias.
    del renamed[f"{head}.bias"]
    without = make_torchvision()
    nn.init.zeros_(without.classifier[1].bias)
    assert_same(without, load_model(NAME, save(tmp_path, renamed)))


def test_no_classifier_and_several_layers(tmp_path, state):
    features = {name: tensor for name, tensor in state.items() if name.startswith("features")}
    assert "a classifier of one linear layer belongs" in assert_refused(save(tmp_path, features))
    several = {**features, "classifier.0.weight": torch.ones(256, 1280), "classifier.3.weight": torch.ones(5, 256)}
    assert "found classifier.0.weight, classifier.3.weight" in assert_refused(save(tmp_path, several))


def test_safetensors(tmp_path, network, state):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(prefixed(state, "model."), path)
    assert_same(network, load_model(NAME, path))
    whole = path.read_bytes()
    for part in (9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        assert_refused(path)


def test_half_precision_is_read_as_float(tmp_path, state):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        typed = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        model = load_model(NAME, save(tmp_path, typed))
        assert all(parameter.dtype == torch.float32 for parameter in model.module.parameters())


#: timm's names of a block's modules, in the order of execution.
TIMM_BLOCKS = {
    "v1": [("conv_dw", "bn1"), ("conv_pw", "bn2")],
    "first": [("conv_dw", "bn1"), ("conv_pw", "bn2")],
    "v2": [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")],
}
#: Blocks of each of its stages.
TIMM_STAGES = {
    "v1": [1, 2, 2, 6, 2],
    "v2": [1, 2, 3, 4, 3, 3, 1],
    "efficientnet_lite0": [1, 2, 2, 3, 3, 4, 1],
}


def _to_timm(network, version):
    """Give a network's weights the names that timm's `_gen_mobilenet_v1`, `_v2`, `_efficientnet_lite` give them."""
    names = [("conv_stem", "bn1")]
    for stage, repeats in enumerate(TIMM_STAGES[version]):
        for repeat in range(repeats):
            block = TIMM_BLOCKS["v1" if version == "v1" else "first" if stage == 0 else "v2"]
            names += [(f"blocks.{stage}.{repeat}.{conv}", f"blocks.{stage}.{repeat}.{norm}") for conv, norm in block]
    if version != "v1":
        names.append(("conv_head", "bn2"))
    flat = [name for pair in names for name in pair] + ["classifier"]
    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    assert len(flat) == len(modules)
    return {
        f"{name}.{parameter}": tensor
        for name, module in zip(flat, modules, strict=True)
        for parameter, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "version", "width"),
    [(V1, "v1", 0.25), (NAME, "v2", 0.35), ("efficientnet_lite0", "efficientnet_lite0", 1.0)],
)
@pytest.mark.parametrize("sort", [False, True])
def test_timm(tmp_path, name, version, width, sort):
    resolution = get_spec(name).resolution
    network = make_network(ModelSpec(name, version, width, resolution, 7, padding="symmetric", bn_epsilon=1e-5))
    named = _to_timm(network, version)
    model = load_model(name, save(tmp_path, {"state_dict": dict(sorted(named.items())) if sort else named}))
    assert_same(network, model)
    assert (model.spec.padding, model.spec.bn_epsilon, model.spec.activation) == ("symmetric", 1e-5, "relu6")
    assert model.preprocessing == timm_preprocessing(resolution)
    assert "as of timm" in model.assumptions[0]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "proxyless_vww_80"])
def test_cousins_of_v2(tmp_path, name):
    spec = replace(get_spec(name), classes=7)
    network = make_network(spec)
    file = tmp_path / "own.pt"
    write_checkpoint(file, network, spec, hosted_preprocessing(spec.resolution, 7), {}, half=False)
    model = load_model(name, file)
    assert_same(network, model)
    assert model.spec == spec
    # A bare state dict has torchvision's names; the largest kernel tells of which network.
    path = save(tmp_path, network.state_dict())
    told = load_model(name, path, conventions=Conventions(spec.padding, spec.bn_epsilon, spec.activation))
    assert_same(network, told)
    with pytest.raises(WrongVariantError, match=f"holds {spec.version} with 7 classes at any.*; try {name}"):
        load_model(NAME, path)


def test_conventions_are_taken_as_told_and_else_said(tmp_path):
    wanted = Conventions("symmetric", 1e-5, "relu")
    network = make_network(ModelSpec(V1, "v1", 0.25, 64, 5, padding="symmetric", bn_epsilon=1e-5, activation="relu"))
    path = save(tmp_path, network.state_dict())
    told = load_model(V1, path, conventions=wanted)
    assert_same(network, told)
    assert told.assumptions[0] == "padding symmetric, batch norm epsilon 1e-05, activation relu: as told"
    silent = load_model(V1, path)
    assert silent.assumptions[0].startswith(
        "padding same, batch norm epsilon 0.001, activation relu6: as of TensorFlow's"
    )
    assert "--padding, --bn-epsilon, --activation would" in silent.assumptions[0]
    assert silent.preprocessing == hosted_preprocessing(64, 5)
    half = load_model(V1, path, conventions=Conventions(padding="symmetric"))
    assert half.assumptions[0].startswith("batch norm epsilon 0.001, activation relu6: as of TensorFlow's")
    assert half.assumptions[1] == "padding symmetric: as told"
    # Each of the three is used.
    image = 50 * torch.randn(1, 3, 64, 64)
    for one in (
        Conventions(None, 1e-5, "relu"),
        Conventions("symmetric", None, "relu"),
        Conventions("symmetric", 1e-5, None),
    ):
        assert not torch.equal(load_model(V1, path, conventions=one).module(image), told.module(image))


def test_what_the_file_says_is_not_contradicted(tmp_path):
    spec = ModelSpec(V1, "v1", 0.25, 64, 5, activation="relu")
    path = tmp_path / "own.pt"
    write_checkpoint(path, build_model(spec), spec, hosted_preprocessing(64, 5), {})
    model = load_model(V1, path, conventions=Conventions("same", 1e-3, "relu"))
    assert (model.spec, model.assumptions) == (spec, ())
    assert "has activation relu, not relu6; leave --activation out" in assert_refused(
        path, V1, conventions=Conventions(activation="relu6")
    )


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "zzz"},
        {"activation": "tanh"},
        {"padding": 1},
        *({"bn_epsilon": e} for e in (0, -1, 1e9, np.nan, "1")),
    ],
)
def test_conventions_that_are_none(options):
    with pytest.raises(ModelError):
        Conventions(**options)


def test_a_mismatch_names_keys_shapes_and_the_nearest_variant(tmp_path, state):
    path = save(tmp_path, prefixed(state, "module."))
    line = assert_refused(path, "mobilenet_v2_1.0_96")
    assert "holds mobilenet_v2_0.35 with 5 classes at any resolution, not mobilenet_v2_1.0_96" in line
    assert "features.0.0.weight is 16x3x3x3 where 32x3x3x3 belongs" in line
    assert line.endswith("try mobilenet_v2_0.35_96")
    # An unusual width is found too.
    unusual = make_network(ModelSpec("mobilenet_v1_0.6_64", "v1", 0.6, 64, 5)).state_dict()
    assert assert_refused(save(tmp_path, unusual), V1).endswith("try mobilenet_v1_0.6_64")
    # One layer that isn't MobileNet's.
    changed = {
        **state,
        "features.4.conv.0.0.weight": torch.ones(50, 8, 1, 1),
        "features.4.attention.weight": torch.ones(3),
    }
    line = assert_refused(save(tmp_path, changed))
    assert "features.4.conv.0.0.weight is 50x8x1x1 where 48x8x1x1 belongs" in line
    assert "features.4.attention.weight has no place" in line
    line = assert_refused(save(tmp_path, changed), "mobilenet_v2_1.0_96")
    assert "the nearest is mobilenet_v2_0.35, but features.4.conv.0.0.weight is 50x8x1x1" in line
    del changed["features.7.conv.3.running_mean"]
    assert "features.7.conv.3.running_mean (24) is missing" in assert_refused(
        save(tmp_path, changed), "mobilenet_v2_1.0_96"
    )


FIELD = {
    "tv_module.pth": NAME,
    "tv_ema_refs.pth": NAME,
    "tv_lightning.ckpt": NAME,
    "tv.safetensors": NAME,
    "tv_cls_linear.pth": NAME,
}


@pytest.mark.parametrize("file", FIELD)
def test_files_of_others_answer_as_there(shared_data, file):
    model = load_model(FIELD[file], shared_data / "field" / file)
    with np.load(shared_data / "field" / "torch_logits.npz") as arrays:
        image, expected = torch.from_numpy(arrays["input"]), arrays[file.partition(".")[0]]
    with torch.no_grad():
        logits = model.module(image).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert expected.std(axis=1).min() > 0.01


def test_files_of_timm_load(shared_data):
    assert load_model(NAME, shared_data / "field" / "timm_mobilenetv2_035.pth").spec.classes == 7


def test_old_files_are_read_and_errors_are_of_their_type(tmp_path, state):
    path = save(tmp_path, {"a": {"b": torch.zeros(3)}})
    with pytest.raises(WrongVariantError, match="another network"):
        load_model(NAME, path)
    with pytest.raises(WeightsFileError, match="without weights"):
        load_model(NAME, save(tmp_path, {"a": [1]}))
