"""The networks of the benchmark, with trained weights or random ones."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from thumbnet.compile.request import CompileOptions, CompileRequest, PixelRule, QuantizeMode
from thumbnet.models.preprocessing import Preprocessing, hosted_preprocessing, input_quant, unit_preprocessing
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.variants import ModelSpec, build_model, get_spec
from thumbnet.targets.board import Board, Family
from thumbnet.tools.network import CHECKPOINT_FILE, make_request
from thumbnet.tools.network_options import NetworkFiles

SEED = 2
CALIBRATION_IMAGES = 8

DeadChannels = Literal["kept", "removed"]
#: Trained ones, random ones like trained ones, or those that cost most: all of the largest magnitude int8 has.
Weights = Literal["trained", "random", "worst case"]


@dataclass(frozen=True)
class Workload:
    """A network of the benchmark.

    Parameters
    ----------
    network : str
        Its name in the results.
    model : str
        Its name in `thumbnet.models.variants`.
    classes : int
        Outputs.
    weights_file : str or None
        The file of trained weights that a folder may have; None where none are known.
    family : {"cortex-m", "cortex-a", "host"}
        Of the boards it is run on.
    made_weights : tuple of Weights
        Those that are run whatever files there are; on microcontrollers trained weights take the place of random ones.
    quantize : {"int8", "none"}
        int8 or float32.
    """

    network: str
    model: str
    classes: int
    weights_file: str | None = None
    family: Family = "cortex-m"
    made_weights: tuple[Weights, ...] = ("random",)
    quantize: QuantizeMode = "int8"

    @property
    def spec(self) -> ModelSpec:
        """The network with the benchmark's number of classes."""
        return replace(get_spec(self.model), classes=self.classes)

    def runs_on(self, board: Board) -> bool:
        """Tell whether a board takes it."""
        return board.family == self.family and (self.quantize == "int8" or board.artifact == "library")

    def trained_weights(self, folder: Path | None) -> Path | None:
        """Return the trained weights in a folder, None where it has none."""
        if folder is None or self.weights_file is None or not (folder / self.weights_file).is_file():
            return None
        return folder / self.weights_file

    def runs(self, folder: Path | None) -> list[tuple[Weights, DeadChannels]]:
        """Return what is run: with which weights, and with which channels, given a folder of trained weights or None.

        Microcontrollers have every network with its dead channels and without. Other networks are measured as they
        are, beside runtimes that know nothing of dead channels.
        """
        trained: list[Weights] = ["trained"] if self.trained_weights(folder) else []
        if self.family == "cortex-m":
            return [(weights, dead) for weights in trained or self.made_weights for dead in ("kept", "removed")]
        return [(weights, "kept") for weights in (*self.made_weights, *trained)]


WORKLOADS = (
    Workload("vww", "vww_96", 2, "vww_96_int8.tflite"),
    Workload("mobilenet_v2_0.35_96", "mobilenet_v2_0.35_96", 2),
    Workload("proxyless_vww_80", "proxyless_vww_80", 2),
    Workload(
        "mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224", 1000, family="cortex-a", made_weights=("random", "worst case")
    ),
    Workload(
        "mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224", 1000, family="cortex-a", made_weights=("random", "worst case")
    ),
    Workload(
        "mobilenet_v2_1.0_224_quant",
        "mobilenet_v2_1.0_224",
        1001,
        "mobilenet_v2_1.0_224_quant.tflite",
        family="cortex-a",
        made_weights=(),
    ),
    Workload("mobilenet_v1_0.25_128", "mobilenet_v1_0.25_128", 1000, family="cortex-a"),
    Workload("mobilenet_v2_0.35_96", "mobilenet_v2_0.35_96", 2, family="cortex-a"),
    Workload("efficientnet_lite0", "efficientnet_lite0", 1000, family="cortex-a"),
    Workload("proxyless_vww_80", "proxyless_vww_80", 2, family="cortex-a"),
    Workload("mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224", 1000, family="cortex-a", quantize="none"),
    Workload("mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224", 1000, family="cortex-a", quantize="none"),
    Workload("efficientnet_lite0", "efficientnet_lite0", 1000, family="cortex-a", quantize="none"),
    Workload("mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224", 1000, family="host"),
    Workload("mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224", 1000, family="host"),
    Workload("mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224", 1000, family="host", quantize="none"),
    Workload("mobilenet_v2_1.0_224", "mobilenet_v2_1.0_224", 1000, family="host", quantize="none"),
)


def make_benchmark_request(
    workload: Workload, board: Board, weights: Weights, trained: Path | None, *, keep: bool
) -> CompileRequest:
    """Return what the compiler takes.

    Parameters
    ----------
    workload : Workload
        The network.
    board : Board
        Where it is to run.
    weights : {"trained", "random", "worst case"}
        Which weights.
    trained : Path or None
        The file of trained ones.
    keep : bool
        Leave dead channels in.

    Raises
    ------
    ModelError
        The file holds no such network.
    """
    options = CompileOptions(quantize=workload.quantize, keep_dead_channels=keep)
    if weights == "trained":
        return make_request(NetworkFiles(workload.model, trained, classes=workload.classes), board, options)
    spec = workload.spec
    preprocessing = _preprocessing(spec)
    module, images = _made_network(spec, weights)
    known_input = input_quant(preprocessing)
    int8 = workload.quantize == "int8"
    ranges = f"calibrated on {len(images)} random images" if int8 else "none (float32)"

    def write_extra(host: Path) -> None:
        write_checkpoint(host / Path(CHECKPOINT_FILE).name, module, spec, preprocessing, {}, half=False)

    return CompileRequest(
        name=workload.model,
        module=module,
        input_shape=spec.input_shape,
        board=board,
        options=options,
        calibration=[image[None] for image in images],
        activation_quant=None if known_input is None else {"input": known_input},
        pixel_rule=PixelRule(preprocessing.mean, preprocessing.std, preprocessing.describe_geometry()),
        manifest={
            "weights": {"file": None, "seed": SEED, "kind": weights},
            "quantization": {"mode": workload.quantize, "ranges": ranges},
        },
        write_extra=write_extra,
    )


def _preprocessing(spec: ModelSpec) -> Preprocessing:
    unit = spec.name == "vww_96"  # as the trained network takes its images
    return (unit_preprocessing if unit else _hosted)(spec.resolution, spec.input_channels).of_size(spec.size)


def _hosted(resolution: int, channels: int) -> Preprocessing:
    return hosted_preprocessing(resolution, classes=2, channels=channels)


@functools.cache
def _made_network(spec: ModelSpec, weights: Weights) -> tuple[nn.Module, torch.Tensor]:
    """Return a network like a trained one, float32, in eval mode, and the images ``[n, C, H, W]`` it was calibrated on.

    Kaiming weights keep the scale of activations through the layers; batch norms have the statistics of the images, so
    every channel varies with the input, and none is dead. In the worst case all weights of a layer have one magnitude,
    which becomes 127: no weights of int8 let fewer of their products fit a sum in int16.
    """
    generator = torch.Generator().manual_seed(SEED)
    module = build_model(spec)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if weights == "worst case":
                layer.weight.data = layer.weight.data.sign() * layer.weight.data.std()
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0.3, 0.3, generator=generator)
            layer.momentum = None  # the mean of what is seen, not a running one
    images = _preprocessing(spec).to_float(_random_pixels(spec))
    with torch.no_grad():
        module.train()(images)
    return module.eval(), images


def _random_pixels(spec: ModelSpec) -> NDArray[np.uint8]:
    """Return blobs of colour with noise on top, uint8 ``[n, H, W, C]``: like pictures, smooth with sharp edges."""
    rng = np.random.default_rng(SEED)
    blob = 8
    (height, width), shape = spec.size, [-(-extent // blob) for extent in spec.size]
    colours = rng.integers(0, 256, (CALIBRATION_IMAGES, *shape, spec.input_channels))
    blobs = colours.repeat(blob, axis=1).repeat(blob, axis=2)[:, :height, :width]
    pixels: NDArray[np.uint8] = np.clip(blobs + rng.integers(-24, 25, blobs.shape), 0, 255).astype(np.uint8)
    return pixels
