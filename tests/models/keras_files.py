"""Writes networks of ours as Keras files: what Keras 2 and 3 write, without Keras."""

import io
import json
import zipfile

import h5py
import numpy as np
from torch import nn

from thumbnet.models.layers import compute_same_padding
from thumbnet.models.stored import list_residuals, list_units

#: keras.applications' names of the layers with a kernel, in the order of execution.
NAMES = {
    28: ["conv1", *(f"conv_{part}_{i}" for i in range(1, 14) for part in ("dw", "pw")), "conv_preds"],
    53: [
        *("Conv1", "expanded_conv_depthwise", "expanded_conv_project"),
        *(f"block_{i}_{part}" for i in range(1, 17) for part in ("expand", "depthwise", "project")),
        *("Conv_1", "predictions"),
    ],
}
PARAMETERS = {
    "Conv2D": ("kernel", "bias"),
    "DepthwiseConv2D": ("depthwise_kernel",),
    "Dense": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
SLOTS = {"Conv2D": "conv2d", "DepthwiseConv2D": "depthwise_conv2d", "BatchNormalization": "batch_normalization"}


def layer(kind, name, *weights, sources=None, **settings):
    """Return a layer; `sources` are the names of what it takes, None for the layer before it."""
    return {"kind": kind, "name": name, "settings": settings, "weights": weights, "sources": sources}


def list_layers(network, pads=True, size=(64, 64)):
    """Yield the layers of a MobileNet of ours before its pooling, for images of so many rows and columns."""
    units = list_units(network)
    blocks = [[u.path for u in units if u.path.startswith(f"{path}.")] for path in list_residuals(network)]
    starts, ends = {block[0] for block in blocks}, {block[-1] for block in blocks}
    last = source = None
    for unit, name in zip(units, NAMES[len(units)], strict=True):
        if isinstance(unit.module, nn.Linear):
            return
        source = last if unit.path in starts else source
        weight = unit.module.weight.detach().numpy()
        kind = "DepthwiseConv2D" if unit.kind == "depthwise" else "Conv2D"
        kernel = weight.transpose((2, 3, 0, 1) if kind == "DepthwiseConv2D" else (2, 3, 1, 0))
        padding = "same"
        if pads and unit.stride == 2 and kind == "DepthwiseConv2D":
            margins = [list(compute_same_padding(extent, kernel.shape[0], 2)) for extent in size]
            yield layer("ZeroPadding2D", f"{name}_pad", padding=margins)
            padding = "valid"
        size = [-(-extent // unit.stride) for extent in size]
        yield layer(kind, name, kernel, strides=[unit.stride] * 2, padding=padding, use_bias=False, activation="linear")
        norm = unit.batch_norm
        values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        last = "bn_Conv1" if name == "Conv1" else f"{name}_{'BN' if len(units) == 53 and name != 'Conv_1' else 'bn'}"
        yield layer("BatchNormalization", last, *(v.detach().numpy() for v in values), axis=[3], epsilon=norm.eps)
        if unit.activated:
            last = f"{name}_relu"
            yield layer("ReLU", last, max_value=6.0, negative_slope=0.0, threshold=0.0)
        if unit.path in ends:
            yield layer("Add", f"{name}_add", sources=[source, last])
            last = f"{name}_add"


def list_head(network, dense=True):
    """Return pooling, dropout and classifier: a dense layer, or the 1x1 convolution of keras.applications' V1."""
    linear = list_units(network)[-1].module
    weight, bias = linear.weight.detach().numpy().T, linear.bias.detach().numpy()
    if dense:
        head = [layer("Dense", "predictions", weight, bias, use_bias=True, activation="softmax")]
    else:
        settings = {"strides": [1, 1], "padding": "same", "use_bias": True, "activation": "linear"}
        head = [
            layer("Conv2D", "conv_preds", weight[None, None], bias, **settings),
            layer("Reshape", "reshape_2", target_shape=[len(bias)]),
            layer("Activation", "predictions", activation="softmax"),
        ]
    return [layer("GlobalAveragePooling2D", "pool", keepdims=not dense), layer("Dropout", "drop", rate=0.2), *head]


def functional(layers, shape, keras=3, name="model"):
    """Return the description of a functional model of layers, without their weights."""
    key = "batch_shape" if keras == 3 else "batch_input_shape"
    entries = [{"class_name": "InputLayer", "name": "image", "config": {"name": "image", key: [None, *shape]}}]
    before = "image"
    for each in layers:
        sources = each["sources"] or [before]
        before = each["name"]
        entries.append({**_describe(each), "name": before, "inbound_nodes": _call(sources, keras, each.get("numbers"))})
    entries[0]["inbound_nodes"] = []
    ends = [["image", 0, 0]], [[before, 0, 0]]
    if keras == 3:
        ends = ["image", 0, 0], [before, 0, 0]
    config = {"name": name, "layers": entries, "input_layers": ends[0], "output_layers": ends[1]}
    return {"class_name": "Functional", "config": config}


def sequential(entries, shape, keras=3):
    """Return the description of a sequential model of layers and of models' descriptions."""
    key = "batch_shape" if keras == 3 else "batch_input_shape"
    first = {"class_name": "InputLayer", "config": {"name": "image", key: [None, *shape]}}
    described = [entry if "class_name" in entry else _describe(entry) for entry in entries]
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": [first, *described]}}


def _describe(each):
    return {"class_name": each["kind"], "config": {"name": each["name"], **each["settings"]}}


def _call(sources, keras, numbers):
    if keras == 2:
        return [[[source, 0, 0, {}] for source in sources]]
    tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}} for source in sources]
    return [{"args": [tensors, *(numbers or [])] if len(tensors) > 1 else [*tensors, *(numbers or [])], "kwargs": {}}]


def write_h5(path, model, layers, keras=3, nested=None):
    """Write a whole model as .h5; `nested` is the name of the inner model that has all layers but the dense ones."""
    with h5py.File(path, "w") as archive:
        archive.attrs["model_config"] = json.dumps(model)
        write_named(archive.create_group("model_weights"), layers, keras, nested)
    return path


def write_named(group, layers, keras=3, nested=None):
    """Write weights as .h5 has them."""
    group.attrs["layer_names"] = [each["name"] for each in layers]
    for each in layers:
        top = nested if nested and each["kind"] != "Dense" else each["name"]
        for parameter, values in zip(PARAMETERS.get(each["kind"], ()), each["weights"], strict=False):
            name = f"{parameter}:0" if keras == 2 else parameter.removeprefix("depthwise_")
            group[f"{top}/{each['name']}/{name}"] = values


def write_archive(path, model, layers, nested=None):
    """Write a whole model as .keras."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as archive:
        write_numbered(archive, layers, nested)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0"}))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


def write_numbered(archive, layers, nested=None, named=True):
    """Write weights as .keras and .weights.h5 have them; `nested` is the class of an inner model in snake case."""
    counts = {}
    for each in layers:
        if not each["weights"]:
            continue
        inside = f"layers/{nested}/layers" if nested and each["kind"] != "Dense" else "layers"
        slot = SLOTS.get(each["kind"], each["kind"].lower())
        count = counts[slot] = counts.get(slot, -1) + 1
        group = archive.create_group(f"{inside}/{slot}_{count}/vars" if count else f"{inside}/{slot}/vars")
        if named:
            group.attrs["name"] = each["name"]
        for number, values in enumerate(each["weights"]):
            group[str(number)] = np.asarray(values)
