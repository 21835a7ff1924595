"""The integer network as a Relax module: the same network when read back, no float in it, the same bytes when run."""

import dataclasses

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from torch import nn
from tvm import relax

from thumbnet.compile.emit.build_library import build_executable
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.network.integer_relax import read_relax, write_relax
from thumbnet.compile.network.network_file import load_network, save_network
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.passes.pipeline import lower_to_integer
from thumbnet.targets.registry import get_board

from ..networks import INPUT_QUANT, make_convolution, make_image, networks, one_of_each_kind
from ..torch_modules import Head, Residual, conv_unit, lowered, quantized


def assert_same(found, expected, where="network"):
    """Compare field by field, dtypes and types included."""
    assert type(found) is type(expected), where
    if dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name), f"{where}.{field.name}")
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.shape == expected.shape, where
        np.testing.assert_array_equal(found, expected, where)
    elif isinstance(expected, tuple):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    else:
        assert found == expected, where


def _large_scale_network():
    layer = make_convolution(np.random.default_rng(5), (3, 3, 4), outputs=6, large_scale=True)
    head = make_convolution(np.random.default_rng(6), (3, 3, 6), outputs=2, kernel=(3, 3), name="head", source="conv")
    return IntegerNetwork((3, 3, 4), INPUT_QUANT, (layer, head))


NETWORKS = {"one of each kind": one_of_each_kind, "scales of 0.5 and more": _large_scale_network}


@pytest.mark.parametrize("which", NETWORKS)
def test_read_gives_what_was_written(which):
    network = NETWORKS[which]()
    assert_same(read_relax(write_relax(network)), network)


@settings(max_examples=15)
@given(networks())
def test_read_gives_what_was_written_of_random_networks(network):
    assert_same(read_relax(write_relax(network)), network)


def test_read_gives_what_was_lowered_from_torch(tmp_path):
    module = lowered(_conv_and_residual(), (3, 8, 8))
    network = read_relax(module)
    assert_same(read_relax(write_relax(network)), network)
    save_network(network, tmp_path / "network.npz")
    assert_same(load_network(tmp_path / "network.npz"), network)


def _conv_and_residual():
    return nn.Sequential(conv_unit(3, 4), Residual(conv_unit(4, 4, groups=4, activation=None)), Head(4))


@pytest.mark.parametrize("which", NETWORKS)
def test_a_saved_network_is_loaded_field_by_field(which, tmp_path):
    network = NETWORKS[which]()
    save_network(network, tmp_path / "network.npz")
    assert_same(load_network(tmp_path / "network.npz"), network)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "network.npz"
    save_network(one_of_each_kind(), path)
    data = path.read_bytes()
    without_magic = b"not a zip" + data[9:]
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    other = (tmp_path / "other.npz").read_bytes()
    for damaged in (b"", data[:100], data[: len(data) // 2], data[:-10], without_magic, other):
        path.write_bytes(damaged)
        with pytest.raises(
            ArtifactError, match=r"not (a network's reference|NumPy arrays) .*compile the network again"
        ) as caught:
            load_network(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError):
        load_network(tmp_path / "missing.npz")


def _dtypes(module):
    """Every dtype in a module: of tensors, expressions and constants."""
    found = set()

    def visit(expr):
        type_ = getattr(expr, "ty", None)
        for part in getattr(type_, "fields", [type_]):
            if hasattr(part, "dtype"):
                found.add(str(part.dtype))
        if hasattr(value := getattr(expr, "value", None), "dtype"):
            found.add(str(value.dtype))

    for _, function in module.functions_items():
        relax.analysis.post_order_visit(function, visit)
    return found


def test_no_float_is_left():
    _, imported, _ = quantized(_conv_and_residual(), (3, 8, 8))
    assert "float32" in _dtypes(imported)
    dtypes = _dtypes(lower_to_integer(imported))
    assert dtypes >= {"int8", "int32", "int64"}
    assert not [dtype for dtype in dtypes if "float" in dtype]


@pytest.mark.parametrize("which", NETWORKS)
def test_the_relax_module_computes_the_references_bytes(which):
    network = NETWORKS[which]()
    _check_relax(network)


@settings(max_examples=5)
@given(networks(longest=3))
def test_relax_of_random_networks_computes_the_references_bytes(network):
    _check_relax(network)


def _check_relax(network):
    executable = build_executable(write_relax(network), get_board("host"))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    for seed in range(3):
        image = make_image(network, seed)
        argument = tvm.runtime.tensor(image[None])
        np.testing.assert_array_equal(machine["main"](argument).numpy()[0], run_reference(network, image))
        for found, (name, expected) in zip(
            machine["layers"](argument), run_reference_layers(network, image).items(), strict=True
        ):
            np.testing.assert_array_equal(found.numpy()[0], expected, name)
