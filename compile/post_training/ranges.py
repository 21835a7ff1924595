"""The ranges of activations, by several methods, and for each tensor the one that costs the answers least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thumbnet.compile.frontend import quiet_torchao  # noqa: F401 - before torchao, see there
from thumbnet.compile.frontend.float_module import FloatModule, layer_of
from thumbnet.compile.network.float_network import FloatMaxPool, FloatNetwork
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.network.quantization import TensorQuant
from thumbnet.compile.post_training.fake_quantization import quantized_activation
from thumbnet.compile.post_training.layer_values import run_layers, spread
from thumbnet.compile.request import RangeMethod

from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver  # isort: skip

#: Percent of a tensor's values that the range of this method leaves out at each end.
PERCENT_OUTSIDE = 0.01
#: Images of the calibration on which methods are compared.
COMPARED_ON = 32


class PercentileObserver(HistogramObserver):  # type: ignore[misc]
    """The range that leaves `PERCENT_OUTSIDE` percent of the values out at each end."""

    def _non_linear_param_search(self) -> tuple[torch.Tensor, torch.Tensor]:
        below = torch.cumsum(self.histogram, 0) / self.histogram.sum()
        first = int((below <= PERCENT_OUTSIDE / 100).sum())
        last = int((below < 1 - PERCENT_OUTSIDE / 100).sum())
        width = (self.max_val - self.min_val) / self.bins
        return self.min_val + width * first, self.min_val + width * (last + 1)


#: torchao's histogram observer looks for the range of least squared error.
OBSERVERS: dict[RangeMethod, Any] = {
    "minmax": MinMaxObserver,
    "percentile": PercentileObserver,
    "mse": HistogramObserver,
}


@dataclass(frozen=True)
class ChosenRange:
    """A tensor's int8 quantization, and where it is from.

    Parameters
    ----------
    quant : TensorQuant
        Its scale and zero point.
    method : str
        A method of `OBSERVERS`, or "known" where the range was given.
    """

    quant: TensorQuant
    method: str

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and largest value it holds."""
        scale, zero_point = self.quant
        return scale * (-128 - zero_point), scale * (127 - zero_point)


def choose_ranges(
    network: FloatNetwork,
    images: Sequence[torch.Tensor],
    method: RangeMethod,
    known: Mapping[str, tuple[float, int]],
) -> dict[str, ChosenRange]:
    """Return the range of the input and of each layer but those that only move values, by name.

    Parameters
    ----------
    network : FloatNetwork
        What is to be quantized.
    images : sequence of torch.Tensor
        Calibration ``[1, C, H, W]``.
    method : {"minmax", "percentile", "mse", "auto"}
        "auto" takes for each tensor the one whose rounding and clamping alone changes the network's output least.
    known : mapping
        Ranges that are not to be chosen.
    """
    methods = list(OBSERVERS) if method == "auto" else [method]
    candidates = _observe(network, images, methods)
    chosen = {name: ChosenRange(TensorQuant(*quant), "known") for name, quant in known.items()}
    errors = _measure_errors(network, images, candidates) if method == "auto" else {}
    for name, found in candidates.items():
        if name not in chosen:
            best = min(found, key=lambda each, name=name: errors.get((name, each), 0.0))  # type: ignore[misc]
            chosen[name] = ChosenRange(found[best], best)
    return chosen


def _observe(
    network: FloatNetwork, images: Sequence[torch.Tensor], methods: Sequence[RangeMethod]
) -> dict[str, dict[RangeMethod, TensorQuant]]:
    observed = [NETWORK_INPUT, *(layer.name for layer in network.layers if not isinstance(layer, FloatMaxPool))]
    observers = {
        name: {
            method: OBSERVERS[method](
                dtype=torch.int8,
                qscheme=torch.per_tensor_affine,
                quant_min=-128,
                quant_max=127,
                eps=2**-20,
            )
            for method in methods
        }
        for name in observed
    }
    module = FloatModule(network)
    with torch.no_grad():
        for image in images:
            for observer in observers[NETWORK_INPUT].values():
                observer(image)
            for layer, computes, _, unclamped in run_layers(network, module, image):
                for observer in observers.get(layer.name, {}).values():
                    observer(computes.clamp(unclamped))
    return {
        name: {method: _quant_of(observer) for method, observer in of_tensor.items()}
        for name, of_tensor in observers.items()
    }


def _quant_of(observer: Any) -> TensorQuant:  # noqa: ANN401 - torchao has no types
    scale, zero_point = observer.calculate_qparams()
    return TensorQuant(float(scale), int(zero_point))


def _measure_errors(
    network: FloatNetwork,
    images: Sequence[torch.Tensor],
    candidates: Mapping[str, Mapping[RangeMethod, TensorQuant]],
) -> dict[tuple[str, RangeMethod], float]:
    """Return what each candidate alone does to the network's output: the sum of squared errors."""
    module = FloatModule(network)
    errors: Counter[tuple[str, RangeMethod]] = Counter()
    with torch.no_grad():
        for image in spread(images, COMPARED_ON):
            exact = {NETWORK_INPUT: image}
            for layer in network.layers:
                exact[layer.name] = layer_of(module, layer.name)(*(exact[source] for source in layer.sources))
            for name, of_tensor in candidates.items():
                for method, quant in of_tensor.items():
                    output = _output_changed(network, module, exact, name, quantized_activation(exact[name], quant))
                    errors[name, method] += float((output - exact[network.output.name]).double().square().sum())
    return errors


def _output_changed(
    network: FloatNetwork, module: FloatModule, exact: Mapping[str, torch.Tensor], name: str, values: torch.Tensor
) -> torch.Tensor:
    """Return the network's output where one tensor has other values."""
    changed = {name: values}
    for layer in network.layers:
        if changed.keys() & {*layer.sources}:
            changed[layer.name] = layer_of(module, layer.name)(
                *(changed.get(source, exact[source]) for source in layer.sources)
            )
    return changed[network.output.name]
