"""A network that is read can be computed: what contradicts itself or leaves its ranges is refused with its layer."""

import json
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.network import layer_checks
from thumbnet.compile.network.integer_network import Add, AveragePool, Convolution, DepthwiseConvolution
from thumbnet.compile.network.network_file import load_network, save_network
from thumbnet.compile.network.network_schema import check_network

from ..networks import EDGE_NETWORKS, one_of_each_kind


@pytest.mark.parametrize("name", EDGE_NETWORKS)
def test_networks_are_none_of_it(name):
    check_network(EDGE_NETWORKS[name]())


def _changed(kind, **changes):
    """The network with its first layer of a kind changed; fields of its rounding by `requantization`."""
    network = one_of_each_kind()
    at = next(index for index, layer in enumerate(network.layers) if isinstance(layer, kind))
    layer = network.layers[at]
    for key in ("requantization", "parameters"):
        if key in changes:
            changes[key] = replace(getattr(layer, key), **changes[key])
    layers = (*network.layers[:at], replace(layer, **changes), *network.layers[at + 1 :])
    return replace(network, layers=layers), layer


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        (Convolution, lambda layer: {"source": "none"}, "reads none, which is not before it"),
        (Convolution, lambda layer: {"source": layer.name}, "which is not before it"),
        (Convolution, lambda layer: {"name": "input"}, "input stands there twice"),
        (Convolution, lambda layer: {"input_shape": (9, 9, 9)}, r"takes \(9, 9, 9\)"),
        (Convolution, lambda layer: {"stride": (7, 7)}, "output_shape is"),
        (Convolution, lambda layer: {"padding": (60, 60, 60, 60)}, "output_shape is"),
        (Convolution, lambda layer: {"weight": layer.weight[..., 0]}, "weight has 3 dimensions"),
        (Convolution, lambda layer: {"weight": layer.weight[:-1]}, "weight is int8"),
        (Convolution, lambda layer: {"weight": layer.weight.astype(np.int16)}, "weight is int16"),
        (Convolution, lambda layer: {"bias": layer.bias[:-1]}, "bias is int32"),
        (Convolution, lambda layer: {"bias": np.full_like(layer.bias, 2**31 - 1)}, "which is no int32"),
        (Convolution, lambda layer: {"requantization": {"multiplier": np.zeros(1, np.int32)}}, "multiplier is int32"),
        (Convolution, lambda layer: {"requantization": {"multiplier": layer.bias * 0 - 1}}, "is out of range"),
        (Convolution, lambda layer: {"requantization": {"left_shift": layer.bias * 0 + 32}}, "is out of range"),
        (Convolution, lambda layer: {"requantization": {"left_shift": layer.bias * 0 + 31}}, "which is no int32"),
        (DepthwiseConvolution, lambda layer: {"weight": layer.weight[None]}, "weight has 4 dimensions"),
        (DepthwiseConvolution, lambda layer: {"weight": layer.weight[..., :-1]}, "weight is int8"),
        (AveragePool, lambda layer: {"output_shape": (2, 2, layer.output_shape[2])}, "output_shape is"),
        (AveragePool, lambda layer: {"bias": 2**31 - 1}, "which is no int32"),
        (Add, lambda layer: {"parameters": {"constant": 2**31 - 1}}, "which is no int32"),
        (Add, lambda layer: {"source_b": "input"}, "takes"),
    ],
)
def test_what_can_not_be_computed_is_refused(kind, change, says):
    _, layer = _changed(kind)
    network, _ = _changed(kind, **change(layer))
    with pytest.raises(ValueError, match=says):
        check_network(network)


def test_what_takes_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr(layer_checks, "MOST_MACS", 100)
    with pytest.raises(ValueError, match=r"multiply-accumulates; .* and 100 at most are computed"):
        check_network(one_of_each_kind())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("kind", "Other"), ("name", ""), ("input_shape", [1, 1]), ("output_shape", [0, 1, 1]), ("stride", [0, 1])),
        *(("padding", [-1, 0, 0, 0]), ("input_zero_point", 128), ("output_quant", [float("nan"), 0])),
        *(
            ("output_quant", [0.0, 0]),
            ("output_quant", [1.0, "0"]),
            ("requantization", None),
            ("input_shape", [10**9] * 3),
        ),
    ],
)
def test_a_scalar_out_of_its_range_is_refused_with_its_place(tmp_path, key, value):
    path = tmp_path / "network.npz"
    save_network(one_of_each_kind(), path)
    with np.load(path) as file:
        arrays = dict(file)
    description = json.loads(arrays["description"].tobytes())
    description["layers"][0][key] = value
    arrays["description"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(ArtifactError, match="not a network's reference") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert "layers.0" in str(caught.value)
