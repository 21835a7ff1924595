"""A person's own module, from its Python name to what the compiler and the tests take."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import AGAIN, ArtifactError
from thumbnet.compile.frontend.float_module import FloatModule
from thumbnet.compile.frontend.read_torch_network import read_torch_network
from thumbnet.compile.network.float_network_file import FLOAT_FILE, load_float_network, save_float_network
from thumbnet.models.errors import ClassCountError, ModelError
from thumbnet.models.own_module import OwnNetwork, build_own, check_input_shape, fill_own
from thumbnet.models.preprocessing import Preprocessing, unit_preprocessing
from thumbnet.models.weights import TrainedModel
from thumbnet.tools.network_options import NetworkFiles

#: What a person's module says itself.
_SAYS_ITSELF = ("padding", "bn_epsilon", "activation")


def load_own(files: NetworkFiles) -> TrainedModel:
    """Build a person's own network, fill it and read it into the layers there are kernels for.

    Raises
    ------
    ModelError, UnsupportedOperatorError
        Of the specific type for what is wrong.
    """
    if files.input_shape is None:
        raise ModelError(f"{files.model}: what image does it take? --input CxHxW says it, such as --input 3x120x160")
    check_input_shape(files.input_shape)
    for name in _SAYS_ITSELF:
        if getattr(files, name) is not None:
            raise ModelError(f"{files.model}: its own code says its {name}; leave --{name.replace('_', '-')} out")
    module = build_own(files.model) if files.module is None else copy.deepcopy(files.module).cpu().float().eval()
    assumptions: tuple[str, ...] = ()
    if files.weights is not None:
        assumptions = fill_own(module, files.weights, files.weights_key)
    elif files.weights_key is not None:
        raise ModelError(f"{files.model}: --weights-key {files.weights_key} is of a file; give --weights FILE too")
    network, left_out = read_torch_network(module, files.input_shape)
    classes = network.output.output_shape[2]
    if files.classes not in (None, classes):
        raise ClassCountError(f"{files.model}: has {classes} classes, {files.classes} were asked for")
    channels, height, width = files.input_shape
    preprocessing = unit_preprocessing(height, channels).of_size((height, width))
    spec = OwnNetwork(files.model, files.input_shape, classes)
    return TrainedModel(spec, FloatModule(network), preprocessing, assumptions=(*assumptions, *left_out))


def write_own(trained: TrainedModel, host: Path) -> None:
    """Keep a person's own network in an artifact's ``host`` folder: as data, without their code."""
    assert isinstance(trained.module, FloatModule)
    save_float_network(trained.module.network, host / Path(FLOAT_FILE).name)


def load_own_from(artifact: Artifact) -> TrainedModel:
    """Return the float network that an artifact of a person's own module keeps.

    Raises
    ------
    ArtifactError
        What it keeps is damaged, or another than its manifest says.
    """
    manifest = artifact.manifest
    network = load_float_network(artifact.folder / FLOAT_FILE)
    (height, width, channels), classes = network.input_shape, network.output.output_shape[2]
    if list(manifest["input"]["shape"]) != [height, width, channels] or list(manifest["output"]["shape"]) != [classes]:
        raise ArtifactError(f"{artifact.folder}: {FLOAT_FILE} is not of the network in the manifest; {AGAIN}")
    try:
        preprocessing = _read_preprocessing(manifest["preprocessing"])
    except (KeyError, TypeError, ValueError, ModelError) as error:
        raise ArtifactError(f"{artifact.folder}: its preprocessing can't be read ({error}); {AGAIN}") from error
    if (*preprocessing.size, preprocessing.channels) != network.input_shape:
        raise ArtifactError(f"{artifact.folder}: its preprocessing gives another image than it takes; {AGAIN}")
    spec = OwnNetwork(manifest["model"], (channels, height, width), classes)
    return TrainedModel(spec, FloatModule(network), preprocessing)


def _read_preprocessing(said: dict[str, Any]) -> Preprocessing:
    # Options are taken to a millionth of a pixel value, which nine digits hold.
    pixels: dict[str, Any] = {name: tuple(round(255 * value, 6) for value in said[name]) for name in ("mean", "std")}
    names = ("resolution", "channels", "crop_fraction", "label_offset", "resize_mode", "interpolation", "width")
    return Preprocessing(**{name: said[name] for name in names}, **pixels)
