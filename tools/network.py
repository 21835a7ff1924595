"""The commands' way from a model's name and files to what the compiler and the tests take."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import ArtifactError, DoesNotFitError
from thumbnet.compile.request import DEFAULT_OPTIONS, CompileOptions, CompileRequest
from thumbnet.models.preprocessing import LabelledImage, input_quant, load_labels
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.weights import TrainedModel, find_bundled, load_model
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device
from thumbnet.tools.largest_fit import suggest_variant
from thumbnet.tools.network_options import NetworkFiles

#: The float network and its preprocessing, kept in the artifact for `thumbnet test`.
CHECKPOINT_FILE = "host/pytorch.pt"


def compile_network(
    files: NetworkFiles, board: Board, output: Path, options: CompileOptions = DEFAULT_OPTIONS
) -> Artifact:
    """Load, quantize and compile a network.

    Raises
    ------
    ModelError, CompileError
        Of the specific type for what is wrong.
    """
    try:
        return compile_model(make_request(files, board, options), output)
    except DoesNotFitError as error:
        raise DoesNotFitError(f"{error}: {suggest_variant(files.model, error)}") from error


def make_request(files: NetworkFiles, board: Board, options: CompileOptions = DEFAULT_OPTIONS) -> CompileRequest:
    """Return what the compiler takes."""
    trained = load_model(files.model, files.weights, files.classes)
    images = [] if files.calibration is None else load_labels(files.calibration)[: files.calibration_limit]
    spec, preprocessing = trained.spec, trained.preprocessing
    ranges = trained.activation_quant if files.calibration is None else None
    known_input = input_quant(preprocessing)
    if ranges is None and known_input is not None:
        # Every pixel value is an int8 value then: nothing to observe.
        ranges = {"input": known_input}
    source = "none (float32)"
    if options.quantize == "int8":
        source = f"calibrated on {len(images)} images" if images else "the weights file's own"

    def write_extra(host: Path) -> None:
        write_checkpoint(host / Path(CHECKPOINT_FILE).name, trained.module, spec, preprocessing, {}, half=False)

    file = find_bundled(spec) if files.weights is None else files.weights
    return CompileRequest(
        name=files.model,
        module=trained.module,
        input_shape=(spec.input_channels, spec.resolution, spec.resolution),
        board=board,
        options=options,
        calibration=[_tensor(trained, image) for image in images],
        activation_quant=ranges,
        weight_scales=trained.weight_scales,
        pixel_mean=preprocessing.mean,
        pixel_std=preprocessing.std,
        manifest={
            "weights": {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
            "quantization": {"mode": options.quantize, "ranges": source},
        },
        write_extra=write_extra,
    )


def load_trained(artifact: Artifact) -> TrainedModel:
    """Return the float network an artifact was made from.

    Raises
    ------
    ArtifactError
        The artifact was made without it.
    """
    checkpoint = artifact.folder / CHECKPOINT_FILE
    if not checkpoint.is_file():
        raise ArtifactError(f"{artifact.folder}: {CHECKPOINT_FILE} is missing; compile the network again")
    return load_model(artifact.manifest["model"], checkpoint)


def check_core(artifact: Artifact, device: Device) -> None:
    """Check that a device can run an artifact.

    Raises
    ------
    ArtifactError
        It was compiled for another core.
    """
    made_for, core = artifact.manifest["core"], device.board.core
    if made_for != core:
        raise ArtifactError(
            f"{artifact.folder} was compiled for {artifact.manifest['board']} ({made_for}), {device.name} is a"
            f" {device.board.name} ({core}); compile with --board {device.board.name}"
        )


def _tensor(trained: TrainedModel, image: LabelledImage) -> torch.Tensor:
    return trained.preprocessing.to_float(trained.preprocessing.pixels(image.path))
