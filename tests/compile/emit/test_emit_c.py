"""The C of small networks, built strictly and under sanitizers, gives the reference's bytes in every layer."""

import itertools
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from thumbnet.compile.network.integer_network import NETWORK_INPUT, IntegerNetwork
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.lowered_network import lower_network

from ..c_harness import STRICT, build, different_layers, emit, emit_lowered
from ..networks import (
    INPUT_QUANT,
    layers,
    make_add,
    make_convolution,
    make_image,
    make_pool,
    networks,
    one_layer_network,
    one_of_each_kind,
    same_padding,
)


def _check(network, folder, images=3):
    emit(network, folder)
    images = [make_image(network, seed) for seed in range(images)]
    # All bytes at their ends is where an overflow would be.
    images += [np.full(network.input_shape, value, np.int8) for value in (-128, 127)]
    assert different_layers(build(folder), network, images) == []


def _rng():
    return np.random.default_rng(11)


EACH_KIND = {
    "conv2d": lambda: make_convolution(_rng(), (5, 4, 3), outputs=4, kernel=(3, 3), padding=(1, 1, 1, 1)),
    "conv2d_same_stride2": lambda: make_convolution(
        _rng(), (6, 6, 1), outputs=3, kernel=(3, 3), stride=(2, 2), padding=same_padding((6, 6), (3, 3), (2, 2))
    ),
    "depthwise_conv2d": lambda: make_convolution(_rng(), (5, 5, 3), kernel=(3, 3), padding=(1, 1, 1, 1)),
    "depthwise_conv2d_one_pixel": lambda: make_convolution(_rng(), (1, 1, 7), kernel=(3, 3), padding=(1, 1, 1, 1)),
    "pointwise_conv2d": lambda: make_convolution(_rng(), (3, 2, 5), outputs=7),
    "pointwise_conv2d_large_scale": lambda: make_convolution(_rng(), (3, 2, 5), outputs=7, large_scale=True),
    "fully_connected": lambda: make_convolution(_rng(), (1, 1, 9), outputs=5),
    "average_pool": lambda: make_pool(_rng(), (4, 3, 5)),
    "average_pool_one_pixel": lambda: make_pool(_rng(), (1, 1, 5)),
    "add": lambda: make_add(_rng(), (3, 3, 3)),
}


@pytest.mark.parametrize("kind", EACH_KIND)
def test_a_layer_of_each_kind(kind, tmp_path):
    layer = EACH_KIND[kind]()
    outputs = run_reference_layers(one_layer_network(layer), make_image(one_layer_network(layer)))[layer.name]
    assert len(np.unique(outputs)) > 2, "a layer that gives one value proves nothing"
    _check(one_layer_network(layer), tmp_path)


def test_a_residual_block(tmp_path):
    _check(one_of_each_kind(), tmp_path)


@settings(max_examples=12)
@given(networks())
def test_random_networks(network):
    with tempfile.TemporaryDirectory() as folder:
        _check(network, Path(folder))


@settings(max_examples=12)
@given(layers())
def test_random_layers(layer):
    with tempfile.TemporaryDirectory() as folder:
        _check(one_layer_network(layer), Path(folder))


@pytest.mark.slow
@settings(max_examples=60)
@given(networks(longest=6))
def test_many_random_networks(network):
    with tempfile.TemporaryDirectory() as folder:
        _check(network, Path(folder))


def test_layers_named_like_the_interface(tmp_path):
    """PyTorch's modules may be called anything, ``self.output = nn.Linear(...)`` being usual."""
    rng = _rng()
    names = ["run", "arena", "layers", "input_", "run_layer", "output"]
    chain = [make_convolution(rng, (2, 2, 3), outputs=3, name=names[0])]
    for before, name in itertools.pairwise(names):
        chain.append(make_convolution(rng, (2, 2, 3), outputs=3, name=name, source=before))
    _check(IntegerNetwork((2, 2, 3), INPUT_QUANT, tuple(chain)), tmp_path)


def test_extreme_constants_are_legal_c(tmp_path):
    layer = make_convolution(_rng(), (2, 2, 2), outputs=3)
    layer = replace(layer, weight=np.zeros_like(layer.weight), bias=np.array([-(2**31), 2**31 - 1, 0], np.int32))
    _check(one_layer_network(layer), tmp_path)


def test_sources_are_self_contained(tmp_path):
    files = emit(one_of_each_kind(), tmp_path)
    text = "".join(path.read_text() for path in files)
    for forbidden in ("malloc", "tvm/", "dlpack", "float ", "double ", "printf"):
        assert forbidden not in text
    assert all(len(line) <= 120 for line in (tmp_path / "net_weights.c").read_text().splitlines())
    for layer in one_of_each_kind().layers:
        assert layer.name in (tmp_path / "net_layers.c").read_text()


def test_header_is_c_plus_plus_too(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("needs g++ (apt install g++)")
    emit(one_of_each_kind(), tmp_path)
    (tmp_path / "use.cc").write_text('#include "net.h"\nint main() { net_run(); return net_output()[0]; }\n')
    command = ["g++", "-Wall", "-Wextra", "-Werror", "-c", "use.cc"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


PLANTED = {
    "rounding half down": ("thumbnet_dsp.h", "M + 0x80000000ll", "M + 0x7fffffffll"),
    "rounding half down, portable": (
        "thumbnet_arithmetic.h",
        "(INT64_C(1) << 30)",
        "(INT64_C(1) << 30) - 1",
    ),
    "no rounding": ("thumbnet_dsp.h", "M + 0x80000000ll", "M"),
    "no rounding, portable": ("thumbnet_arithmetic.h", "+ (INT64_C(1) << 30)", ""),
    "layers in another order": ("net.c", "case 1:", "case 9:"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_seen(bug, tmp_path):
    network = one_of_each_kind()
    if "half down" in bug:
        network = _tie_network(8)
    if "half down, portable" in bug:
        emit_lowered(lower_network(network, kernels=None), tmp_path)
    else:
        emit(network, tmp_path)
    images = [make_image(network)]
    assert different_layers(build(tmp_path, flags=STRICT), network, images) == []
    file, right, wrong = PLANTED[bug]
    text = (tmp_path / file).read_text()
    assert right in text
    (tmp_path / file).write_text(text.replace(right, wrong))
    assert different_layers(build(tmp_path, flags=STRICT), network, images) != []


def test_a_planted_weight_is_seen(tmp_path):
    network = one_of_each_kind()
    emit(network, tmp_path)
    first = network.layers[0]
    weight = first.weight.copy()
    weight[0, 1, 1, 0] = weight[0, 1, 1, 0] // 2 + 40
    other = replace(network, layers=(replace(first, weight=weight), *network.layers[1:]))
    assert first.name in different_layers(build(tmp_path, flags=STRICT), other, [make_image(network)])


def _tie_network(channels):
    """A scale of a quarter makes half of all odd values ties."""
    layer = make_convolution(_rng(), (4, 4, channels), outputs=channels)
    multiplier = np.full(channels, 2**29, np.int32)
    requantization = replace(layer.requantization, multiplier=multiplier, zero_point=0)
    ones = np.eye(channels, dtype=np.int8).reshape(channels, 1, 1, channels)
    layer = replace(layer, weight=ones, bias=np.zeros(channels, np.int32), requantization=requantization)
    return one_layer_network(replace(layer, source=NETWORK_INPUT))
