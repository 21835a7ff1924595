"""Ranges by their methods, and bias correction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.frontend.float_module import ConvolutionModule, FloatModule, layer_of
from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.post_training.correct_biases import correct_biases
from thumbnet.compile.post_training.fake_quantization import quantized_activation, quantized_weight
from thumbnet.compile.post_training.layer_values import LiveValues, run_layers
from thumbnet.compile.post_training.prepare import prepare_network
from thumbnet.compile.post_training.ranges import PercentileObserver, choose_ranges
from thumbnet.compile.request import CompileOptions

from ..torch_modules import Head, calibrated, conv_unit

SHAPE = (3, 12, 12)


@pytest.fixture
def made():
    units = (conv_unit(3, 8), conv_unit(8, 8, groups=8), conv_unit(8, 16, 1), Head(16))
    module, images = calibrated(nn.Sequential(*units), SHAPE)
    return read_torch_network(module, SHAPE)[0], images


def with_outlier(images):
    """Return the images with one pixel a hundred times too large."""
    changed = [image.clone() for image in images]
    changed[0][0, 0, 0, 0] = 100
    return changed


def test_minimum_and_maximum_hold_all_values_and_percentiles_all_but_some(made):
    network, images = made
    images = with_outlier(images)
    ends = {
        method: choose_ranges(network, images, method, {})["input"].limits for method in ("minmax", "percentile", "mse")
    }
    assert ends["minmax"][1] == pytest.approx(100, rel=0.01)
    # One value of 3456 is more than 0.01 %.
    assert ends["percentile"][1] > 90
    assert ends["mse"][1] < ends["minmax"][1] or ends["mse"] == ends["minmax"]


def test_a_percentile_leaves_outliers_out():
    observer = PercentileObserver(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine, eps=2**-20
    )
    values = torch.linspace(0, 1, 100_000)
    values[50] = 3.0
    observer(values)
    scale, _ = observer.calculate_qparams()
    assert 255 * float(scale) == pytest.approx(1, rel=0.01)


def test_auto_takes_for_each_tensor_what_changes_the_answers_least(made):
    network, images = made
    images = with_outlier(images)
    chosen = choose_ranges(network, images, "auto", {})
    fixed = {method: choose_ranges(network, images, method, {}) for method in ("minmax", "percentile", "mse")}
    module = FloatModule(network)

    def error(quant):
        with torch.no_grad():
            return sum(
                float((module(quantized_activation(image, quant)) - module(image)).square().sum()) for image in images
            )

    errors = {method: error(fixed[method]["input"].quant) for method in fixed}
    assert len(set(errors.values())) > 1
    assert errors[chosen["input"].method] == min(errors.values())
    assert all(chosen[name].quant == fixed[chosen[name].method][name].quant for name in chosen)


def test_known_ranges_stay(made):
    network, images = made
    chosen = choose_ranges(network, images, "auto", {"input": (0.5, 3)})
    assert chosen["input"].quant == (0.5, 3)
    assert chosen["input"].method == "known"


def mean_shifts(network, exact, images, ranges):
    """Return by how much int8 moves each channel's mean before the clamp, by layer."""
    module, batch = FloatModule(network), torch.cat(images)
    rounded = LiveValues(network, quantized_activation(batch, ranges["input"].quant))
    found = {}
    with torch.no_grad():
        for layer, _, _, wanted in run_layers(exact, FloatModule(exact), batch):
            computes, sources = layer_of(module, layer.name), rounded.take(layer)
            if isinstance(computes, ConvolutionModule):
                values = computes.convolve(sources[0], quantized_weight(computes.weight))
                found[layer.name] = (values - wanted).mean((0, 2, 3)).abs().max().item()
            else:
                values = computes.unclamped(*sources)
            rounded.put(layer.name, quantized_activation(computes.clamp(values), ranges[layer.name].quant))
    return found


def test_corrected_biases_take_the_shift_of_the_means_back(made):
    network, images = made
    # Coarse ranges, so that there is something to correct.
    ranges = choose_ranges(network, images, "minmax", {})
    ranges = {
        name: replace(each, quant=each.quant._replace(scale=each.quant.scale * 8)) for name, each in ranges.items()
    }
    corrected = correct_biases(network, images, ranges, {})
    before, after = (mean_shifts(each, network, images, ranges) for each in (network, corrected))
    assert max(before.values()) > 0.01
    assert max(after.values()) < 1e-4
    for layer, changed in zip(network.layers, corrected.layers, strict=True):
        assert not hasattr(layer, "weight") or np.array_equal(layer.weight, changed.weight)


@pytest.mark.parametrize("option", [{"ranges": "auto"}, {"equalize": True}, {"correct_biases": True}])
def test_without_calibration_images_nothing_can_be_done(made, option):
    network, _ = made
    with pytest.raises(QuantizationError, match="calibration images: give some"):
        prepare_network(
            FloatModule(network),
            SHAPE,
            CompileOptions(**option),
            calibration=[],
            activation_quant={},
            weight_scales={},
        )
