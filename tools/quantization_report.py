"""The report of `thumbnet compile --quantization-report`: what was tried, and how far each layer is from float32."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from thumbnet.compile.errors import QuantizationError
from thumbnet.compile.post_training.sensitivity import LayerSensitivity, measure_sensitivity
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.quantize_request import prepare_request
from thumbnet.compile.request import CompileRequest
from thumbnet.tools.accuracy_budget import AccuracyTest, SplitImages, Trial, network_with_all_channels
from thumbnet.tools.output import print_table

#: Images on which layers are compared: signal to noise needs no more.
COMPARED_ON = 16
#: Of tensors whose ranges the quantizer found in calibration.
DEFAULT_METHOD = "mse"


@dataclass(frozen=True)
class QuantizationReport:
    """What `--quantization-report` writes.

    Parameters
    ----------
    model : str
        The network's name.
    split : SplitImages or None
        Where accuracy was tested: on what, and on what was calibrated.
    tried : sequence of Trial
        Ways to int8 in their order.
    chosen : Trial
        The one that is compiled.
    layers : sequence of LayerSensitivity
        Of the one chosen.
    compared_on : int
        Images on which layers were compared.
    """

    model: str
    split: SplitImages | None
    tried: Sequence[Trial]
    chosen: Trial
    layers: Sequence[LayerSensitivity]
    compared_on: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; decibels that are infinite are null."""
        return {
            "model": self.model,
            "method": self.chosen.method,
            "images": None
            if self.split is None
            else {
                "calibrated_on": len(self.split.calibration.images),
                "tested_on": len(self.split.test.images),
                "labelled": self.chosen.accuracy is not None and self.chosen.accuracy.float_top1 is not None,
            },
            "tried": [_trial_as_json(trial) for trial in self.tried],
            "layers_compared_on": self.compared_on,
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "sqnr_alone_db": _finite(layer.alone_db),
                    "sqnr_accumulated_db": _finite(layer.accumulated_db),
                    "range": layer.range,
                    "scale": layer.quant.scale,
                    "zero_point": layer.quant.zero_point,
                    "range_method": self._range_method(layer),
                }
                for layer in self.layers
            ],
        }

    def print(self) -> None:
        """Print the layers as a table."""
        print_table(
            f"{self.model}, {self.chosen.method}: signal to quantization noise of each layer's output on"
            f" {self.compared_on} images",
            ["layer", "kind", "alone (dB)", "accumulated (dB)", "range", "range from"],
            [
                (
                    layer.name,
                    layer.kind,
                    f"{layer.alone_db:.1f}",
                    f"{layer.accumulated_db:.1f}",
                    "{:.4g} to {:.4g}".format(*layer.range),
                    self._range_method(layer),
                )
                for layer in self.layers
            ],
        )

    def _range_method(self, layer: LayerSensitivity) -> str:
        assert self.chosen.prepared is not None
        if layer.kind == "max_pool":
            return "its input"
        return self.chosen.prepared.range_methods.get(layer.name, DEFAULT_METHOD)


def report_tested(test: AccuracyTest, chosen: Trial, tried: Sequence[Trial]) -> QuantizationReport:
    """Compare the layers of a way to int8 on images it was tested on."""
    return _report(test.files.model, test.split, tried, chosen, list(itertools.islice(test.inputs(), COMPARED_ON)))


def report_untested(request: CompileRequest, progress: Progress = say_nothing) -> QuantizationReport:
    """Compare the layers of a request's network on the images it is calibrated on.

    Raises
    ------
    QuantizationError
        There are none.
    """
    images = list(request.calibration)[:COMPARED_ON]
    if not images:
        raise QuantizationError(
            f"{request.name}: --quantization-report compares layers on images; give some (--images DIR or --calibration"
            " DIR)"
        )
    progress("quantizing for the report")
    prepared = prepare_request(request)
    chosen = Trial("as asked", prepared, network_with_all_channels(prepared), None)
    return _report(request.name, None, [], chosen, images)


def print_trials(split: SplitImages, tried: Sequence[Trial]) -> None:
    """Print what ways to int8 were tried, on what, and what they lose."""
    labelled = any(trial.accuracy is not None and trial.accuracy.float_top1 is not None for trial in tried)
    what = "top-1" if labelled else "agreement with float's top-1, for the images have no labels"
    print_table(
        f"{what} on {len(split.test.images)} images, {len(split.calibration.images)} others to calibrate on",
        ["method", "float", "int8", "drop (points)", "agree with float"],
        [_trial_row(trial) for trial in tried],
    )


def _report(
    model: str, split: SplitImages | None, tried: Sequence[Trial], chosen: Trial, images: Sequence[torch.Tensor]
) -> QuantizationReport:
    assert chosen.prepared is not None and chosen.network is not None
    layers = measure_sensitivity(chosen.prepared.exact, chosen.network, images)
    return QuantizationReport(model, split, tried, chosen, layers, len(images))


def _trial_row(trial: Trial) -> tuple[str, ...]:
    if trial.accuracy is None:
        return trial.method, "", f"none: {trial.failure}", "", ""
    accuracy = trial.accuracy
    top1 = ["-" if value is None else f"{value:.1f}%" for value in (accuracy.float_top1, accuracy.int8_top1)]
    return trial.method, *top1, f"{accuracy.drop:.1f}", f"{accuracy.agreement:.1f}%"


def _trial_as_json(trial: Trial) -> dict[str, Any]:
    accuracy = None if trial.accuracy is None else {**asdict(trial.accuracy), "drop": trial.accuracy.drop}
    return {"method": trial.method, "accuracy": accuracy, "failure": trial.failure}


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None
