"""PyTorch files that are no weights: each gets one line that says what it is, or which tensor."""

import collections
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from thumbnet.models.preprocessing import hosted_preprocessing
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.variants import ModelSpec, build_model

from .state_dicts import V1, assert_refused, prefixed, save


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_other_channels(tmp_path, channels):
    state = build_model(ModelSpec(V1, "v1", 0.25, 64, 5, channels)).state_dict()
    line = assert_refused(save(tmp_path, prefixed(state, "model.")), V1)
    assert f"features.0.0.weight takes images of {channels} channels" in line


def _changed(state, name, change):
    changed = {key: tensor.clone() for key, tensor in state.items()}
    changed[name] = change(changed[name])
    return changed


def _put(value):
    def change(tensor):
        tensor.view(-1)[1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("features.3.conv.1.1.running_var", _put(-1.0), "variance of -1"),
        ("features.3.conv.1.1.running_var", _put(torch.nan), "no finite numbers"),
        ("features.5.conv.2.weight", _put(torch.inf), "no finite numbers"),
        ("features.5.conv.2.weight", lambda t: t.double() * 1e300, "no finite numbers"),
        ("features.18.1.weight", lambda t: torch.full_like(t, 3.4e38), "batch norm folded in"),
        ("features.5.conv.2.weight", lambda t: t.to_sparse(), "sparse"),
        ("features.5.conv.2.weight", lambda t: t.to("meta"), "no values (device meta)"),
        ("features.5.conv.2.weight", lambda t: (t * 9).to(torch.int8), "holds int8, not floats"),
        ("features.5.conv.2.weight", lambda t: t.to(torch.complex64), "holds complex64, not floats"),
        ("features.5.conv.2.weight", lambda t: t[:0], "is empty"),
        ("features.5.conv.2.weight", lambda t: t[:1, :1].expand(10**6, 10**5, 1, 1), "an expanded view"),
        ("classifier.1.weight", lambda t: t[:1].expand(10**9, -1), "an expanded view"),
        ("classifier.1.weight", lambda t: t[0, 0], "a classifier of one linear layer belongs"),
        ("features.0.0.weight", lambda t: t[0, 0, 0, 0], "takes images of 0 channels"),
    ],
)
def test_tensors_that_are_no_weights_are_named(tmp_path, state, name, change, says):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(tmp_path, prefixed(_changed(state, name, change), "module."))
    line = assert_refused(path)
    assert says in line
    assert name.removesuffix(".1.weight").removesuffix(".weight") in line or "features.18.0" in line


class _TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("old", [False, True])
def test_whole_models_are_named_and_not_run(tmp_path, old):
    whole = save(tmp_path, _TwoLayers(), _use_new_zipfile_serialization=not old)
    line = assert_refused(whole)
    assert "_TwoLayers" in line or old
    assert "state_dict()" in line
    inside = save(tmp_path, {"epoch": 1, "model": _TwoLayers()})
    assert "an object at model (" in assert_refused(inside)


def test_pickles_of_another_protocol(tmp_path, state):
    assert "a pickle of protocol 4" in assert_refused(save(tmp_path, state, pickle_protocol=4))
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(state))
    assert "a pickle of protocol" in assert_refused(path)


def test_programs_are_named(tmp_path):
    path = tmp_path / "program.pt"
    image = torch.zeros(1, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(_TwoLayers(), image), path)
    assert "TorchScript" in assert_refused(path)
    torch.export.save(torch.export.export(_TwoLayers(), (image,)), path.with_suffix(".pt2"))
    assert "torch.export" in assert_refused(path.with_suffix(".pt2"))
    np.savez(path.with_suffix(".npz"), weight=np.zeros(3))
    assert "NumPy" in assert_refused(path.with_suffix(".npz"))


def test_quantized_and_quantization_aware_states(tmp_path):
    from torch.ao import quantization  # noqa: PLC0415 - deprecated, and slow to import

    for finish, says in ((lambda m: m, "quantization-aware"), (quantization.convert, "quantized and converted")):
        model = nn.Sequential(collections.OrderedDict(features=nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3)))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
            prepared = quantization.prepare_qat(model.train())
            prepared(torch.randn(1, 3, 8, 8))
            path = save(tmp_path, finish(prepared.eval()).state_dict())
        assert says in assert_refused(path)


def test_values_of_any_kind_in_a_checkpoint_of_ours(tmp_path):
    spec = ModelSpec(V1, "v1", 0.25, 64, 5)
    path = tmp_path / "own.pt"
    write_checkpoint(path, build_model(spec), spec, hosted_preprocessing(64, 5), {})
    whole = torch.load(path, weights_only=True)
    tensors = torch.zeros(3)
    changes = [("spec", field, value) for field in whole["spec"] for value in ("x" * 10**6, None, [1], tensors)]
    changes += [("preprocessing", field, value) for field in whole["preprocessing"] for value in (None, [1], tensors)]
    changes += [
        *(("spec", "resolution", value) for value in (10**5, 0, 64.0, -64)),
        *(("spec", "bn_epsilon", value) for value in (-1.0, torch.nan, 7.0)),
        ("spec", "activation", "tanh"),
        ("spec", "padding", "zzz"),
        ("spec", "width_multiplier", torch.inf),
        *(("preprocessing", "resolution", value) for value in (10**5, 32)),
        ("preprocessing", "channels", 1),
        ("preprocessing", "mean", (1.0,)),
        ("preprocessing", "std", (0.0, 1.0, 1.0)),
        ("preprocessing", "crop_fraction", 2.0),
    ]
    # Taken from elsewhere: from the weights, and from the name that was asked for.
    unread = {("spec", "classes"), ("spec", "input_channels"), ("spec", "published_top1")}
    # No width is that of a square image.
    changes.remove(("preprocessing", "width", None))
    changes.remove(("spec", "columns", None))
    for part, field, value in changes:
        if (part, field) not in unread:
            torch.save({**whole, part: {**whole[part], field: value}}, path)
            assert_refused(path, V1)
    for part in ("version", "spec", "preprocessing", "state_dict"):
        torch.save({**whole, part: [1]}, path)
        assert_refused(path, V1)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("tv_whole.pth", "torchvision.models.mobilenetv2.MobileNetV2"),
        ("tv_quantized.pth", "quantized and converted"),
        ("tv_negvar.pth", "running_var holds a variance of -1"),
    ],
)
def test_files_of_others_that_are_no_weights(shared_data, file, says):
    assert says in assert_refused(shared_data / "field" / file)
