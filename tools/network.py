"""The commands' way from a model's name and files to what the compiler and the tests take."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import AGAIN, ArtifactError, DoesNotFitError
from thumbnet.compile.network.float_network_file import FLOAT_FILE
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.request import DEFAULT_OPTIONS, CompileOptions, CompileRequest, PixelRule
from thumbnet.models.conventions import Conventions
from thumbnet.models.errors import ModelError
from thumbnet.models.image_folder import ImageSet, LabelledImage, hash_image, load_images
from thumbnet.models.own_module import OwnNetwork, hash_weights
from thumbnet.models.preprocessing import input_quant
from thumbnet.models.state_dict import write_checkpoint
from thumbnet.models.stored import list_units
from thumbnet.models.variants import get_spec
from thumbnet.models.weights import BUNDLED_CALIBRATION, TrainedModel, find_bundled, load_model
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device
from thumbnet.tools.largest_fit import suggest_variant
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.own_network import load_own, load_own_from, write_own

#: The float network and its preprocessing, kept in the artifact for `thumbnet test`.
CHECKPOINT_FILE = "host/pytorch.pt"


def compile_network(
    files: NetworkFiles,
    board: Board,
    output: Path,
    options: CompileOptions = DEFAULT_OPTIONS,
    progress: Progress = say_nothing,
) -> Artifact:
    """Load, quantize and compile a network; `progress` is told before each step what is done next.

    Raises
    ------
    ModelError, CompileError
        Of the specific type for what is wrong.
    """
    progress("reading the weights")
    return compile_request(files, replace(make_request(files, board, options), progress=progress), output)


def compile_request(files: NetworkFiles, request: CompileRequest, output: Path) -> Artifact:
    """Compile what `make_request` made of a network's files, and say what would fit where it doesn't.

    Raises
    ------
    CompileError
        Of the specific type for what is wrong.
    """
    try:
        return compile_model(request, output)
    except DoesNotFitError as error:
        if files.is_own:
            raise
        request.progress("looking for what would fit")
        classes = list_units(request.module)[-1].module.weight.shape[0]
        spec = replace(get_spec(files.model), classes=classes, input_channels=request.input_shape[0])
        raise DoesNotFitError(f"{error}: {suggest_variant(spec, error)}") from error


def make_request(
    files: NetworkFiles,
    board: Board,
    options: CompileOptions = DEFAULT_OPTIONS,
    calibration: ImageSet | None = None,
) -> CompileRequest:
    """Return what the compiler takes; `calibration` goes in place of the files' own images.

    Raises
    ------
    ModelError
        Of the specific type for what is wrong.
    """
    trained = load_network(files)
    spec, preprocessing = trained.spec, trained.preprocessing
    if calibration is None:
        calibration = _load_calibration(files, options)
    ranges = {} if calibration.images else dict(trained.activation_quant or {})
    if files.preprocessing.mean is not None and "mean" in trained.stated:
        # The file's range of the input is that of another scaling.
        ranges.pop("input", None)
    known_input = input_quant(preprocessing)
    if known_input is not None:
        # Every pixel value is an int8 value then: nothing to observe.
        ranges.setdefault("input", known_input)

    def write_extra(host: Path) -> None:
        if isinstance(spec, OwnNetwork):
            write_own(trained, host)
        else:
            write_checkpoint(host / Path(CHECKPOINT_FILE).name, trained.module, spec, preprocessing, {}, half=False)

    conventions = () if isinstance(spec, OwnNetwork) else ("padding", "bn_epsilon", "activation")
    return CompileRequest(
        name=files.model,
        module=trained.module,
        input_shape=spec.input_shape,
        board=board,
        options=options,
        calibration=[to_tensor(trained, image) for image in calibration.images],
        activation_quant=ranges,
        weight_scales=trained.weight_scales,
        pixel_rule=PixelRule(
            preprocessing.mean, preprocessing.std, preprocessing.describe_geometry(), trained.assumptions
        ),
        manifest={
            "weights": _describe_weights(files, trained),
            "preprocessing": preprocessing.as_json(),
            "conventions": {name: getattr(spec, name) for name in conventions},
            "assumptions": list(trained.assumptions),
            "quantization": _describe_quantization(files, options, calibration),
        },
        write_extra=write_extra,
    )


def _describe_weights(files: NetworkFiles, trained: TrainedModel) -> dict[str, str | None]:
    spec = trained.spec
    if files.weights is None and isinstance(spec, OwnNetwork):
        return {"file": None, "sha256": hashlib.sha256(hash_weights(trained.module)).hexdigest()}
    file = find_bundled(spec) if files.weights is None else files.weights  # type: ignore[arg-type]
    return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def load_network(files: NetworkFiles) -> TrainedModel:
    """Return a float network with what a person says of it in place of what its file leaves open.

    Raises
    ------
    ModelError
        Of the specific type for what is wrong.
    """
    trained = load_own(files) if files.is_own else _load_named(files)
    preprocessing = trained.preprocessing.changed(files.preprocessing)
    assumptions = (*trained.assumptions, *_assume_preprocessing(files, replace(trained, preprocessing=preprocessing)))
    return replace(trained, preprocessing=preprocessing, assumptions=assumptions)


def _load_named(files: NetworkFiles) -> TrainedModel:
    if files.input_shape is not None:
        raise ModelError(f"{files.model}: its name says what image it takes; leave --input out")
    conventions = Conventions(files.padding, files.bn_epsilon, files.activation)
    return load_model(files.model, files.weights, files.classes, conventions=conventions, weights_key=files.weights_key)


def _assume_preprocessing(files: NetworkFiles, trained: TrainedModel) -> list[str]:
    """Return a line for each part of the preprocessing that neither the file nor the person says."""
    given, preprocessing = files.preprocessing, trained.preprocessing
    parts = (
        (("mean", "std"), f"the input is {preprocessing.describe_scaling()}"),
        (("resize_mode", "crop_fraction", "interpolation"), preprocessing.describe_geometry()),
        (
            ("label_offset",),
            "class 0 is the background" if preprocessing.label_offset else "class 0 is the labels' class 0",
        ),
    )
    lines = []
    for names, words in parts:
        open_names = [name for name in names if getattr(given, name) is None and name not in trained.stated]
        if open_names:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in open_names)
            lines.append(f"{words} ({options})")
    return lines


def calibration_folder(files: NetworkFiles) -> Path | None:
    """Return where a network's calibration images are: given, or bundled."""
    if files.calibration is None and files.weights is None and not files.is_own:
        return BUNDLED_CALIBRATION
    return files.calibration


def _load_calibration(files: NetworkFiles, options: CompileOptions) -> ImageSet:
    folder = calibration_folder(files) if options.quantize == "int8" else files.calibration
    if folder is None:
        return ImageSet(())
    return load_images(folder, limit=files.calibration_limit, strict=files.strict)


def _describe_quantization(files: NetworkFiles, options: CompileOptions, calibration: ImageSet) -> dict[str, Any]:
    source = "none (float32)"
    if options.quantize == "int8":
        source = "the weights file's own"
        if calibration.images:
            bundled = " bundled" if calibration_folder(files) == BUNDLED_CALIBRATION else ""
            source = f"calibrated on {len(calibration.images)}{bundled} images"
            if calibration.skipped:
                source += f", {len(calibration.skipped)} skipped"
    return {
        "mode": options.quantize,
        "ranges": source,
        "range_method": options.ranges,
        "equalized": options.equalize,
        "biases_corrected": options.correct_biases,
        # Whoever tests on these tests on what the ranges were made from.
        "calibration_sha256": [hash_image(image) for image in calibration.images],
        "calibration_skipped": list(calibration.skipped),
    }


def load_trained(artifact: Artifact) -> TrainedModel:
    """Return the float network an artifact was made from.

    Raises
    ------
    ArtifactError
        The artifact was made without it.
    """
    if FLOAT_FILE in artifact.manifest["files"]:
        return load_own_from(artifact)
    checkpoint = artifact.folder / CHECKPOINT_FILE
    if CHECKPOINT_FILE not in artifact.manifest["files"]:
        raise ArtifactError(
            f"{artifact.folder}: {CHECKPOINT_FILE}, or of a module of your own {FLOAT_FILE}, is missing; {AGAIN}"
        )
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


def to_tensor(trained: TrainedModel, image: LabelledImage) -> torch.Tensor:
    """Return an image as a network's input ``[1, C, H, W]``."""
    return trained.preprocessing.to_float(trained.preprocessing.pixels(image.path))
