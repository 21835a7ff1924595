"""From a name and a weights file to a network that answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from thumbnet.models import pytorch_file
from thumbnet.models.conventions import UNSAID, Conventions
from thumbnet.models.errors import ClassCountError, WeightsFileError
from thumbnet.models.keras_file import HDF5_MAGIC, is_keras_archive, read_keras
from thumbnet.models.key_names import IMPLIED
from thumbnet.models.own_module import OwnNetwork
from thumbnet.models.preprocessing import (
    Preprocessing,
    hosted_preprocessing,
    keras_preprocessing,
    nearest_preprocessing,
    timm_preprocessing,
    torchvision_preprocessing,
)
from thumbnet.models.state_dict import (
    Checkpoint,
    fill_from_checkpoint,
    is_safetensors,
    read_checkpoint,
    read_safetensors,
)
from thumbnet.models.stored import Quant, StoredNetwork, fill_network, list_residuals, list_units
from thumbnet.models.tflite_file import read_tflite
from thumbnet.models.variants import BUNDLED, ModelSpec, build_model, get_spec
from thumbnet.models.weights_file import read_weights_file, shorten

BUNDLED_FOLDER = Path(__file__).parent / "bundled"
#: Held-out digits with labels, for trying the bundled networks.
BUNDLED_IMAGES = BUNDLED_FOLDER / "digits"
#: Digits of the training part, to calibrate them with.
BUNDLED_CALIBRATION = BUNDLED_FOLDER / "calibration"

_TFLITE_MAGIC = b"TFL3"
#: Of pixels scaled to 0..1 and to -1..1.
_USUAL_MEANS = (0.0, 127.5)
#: Gray and RGB: what an image file becomes.
IMAGE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, and what its file says about quantization.

    Parameters
    ----------
    spec : ModelSpec or OwnNetwork
        What it is; classes, input channels and activation as in the file.
    module : torch.nn.Module
        In eval mode, float32, ``[N, C, H, W]`` to logits ``[N, classes]``.
    preprocessing : Preprocessing
        From an image file to its input.
    activation_quant : dict or None
        int8 scale and zero point by name, where the file has them: ``"input"``; the path of each convolution or linear
        module, for its output after batch norm and activation; the path of each residual block, for the output of its
        add; ``"pool"``.
    weight_scales : dict or None
        float32 ``[out_channels]`` by the path of each convolution or linear module: the scales of symmetric int8
        weights. Those of a per-channel file are the file's. A hosted uint8 file has asymmetric weights: a channel
        whose values do not reach beyond 127 steps keeps the file's scale, so is exact, the others get a larger one.
    assumptions : tuple of str
        One line for each thing that the file does not say and that was taken as given or as usual, preprocessing apart.
    stated : frozenset of str
        The fields of conventions and preprocessing that the file says; the others are as usual for such files.
    """

    spec: ModelSpec | OwnNetwork
    module: nn.Module
    preprocessing: Preprocessing
    activation_quant: dict[str, tuple[float, int]] | None = None
    weight_scales: dict[str, NDArray[np.float32]] | None = None
    assumptions: tuple[str, ...] = ()
    stated: frozenset[str] = frozenset()


def load_model(
    spec_or_name: ModelSpec | str,
    weights: Path | None = None,
    classes: int | None = None,
    *,
    conventions: Conventions = UNSAID,
    weights_key: str | None = None,
) -> TrainedModel:
    """Build a network and fill it from a file, whose format is told by its content.

    Read are thumbnet checkpoints, state dicts (torchvision's ``mobilenet_v2`` among them), and the TFLite and Keras
    files of these networks. Version, width and resolution have to be the named ones; classes, input
    channels and activation are taken from the file.

    Parameters
    ----------
    spec_or_name : ModelSpec or str
        The network.
    weights : Path or None
        The file; None takes the bundled weights of the named network.
    classes : int or None
        Number of classes the file must have; None takes any.
    conventions : Conventions
        What the person says of padding, batch norm epsilon and activation; what is left open follows from the file.
    weights_key : str or None
        Which of several sets of weights in the file; None takes the one that `TrainedModel.assumptions` then names.

    Raises
    ------
    UnknownModelError
        No network has that name.
    WeightsFileError
        No weights are bundled, or the file is missing, damaged or of another format.
    WrongVariantError
        The file holds another variant.
    ClassCountError
        The file has another number of classes than `classes`.
    """
    spec = get_spec(spec_or_name) if isinstance(spec_or_name, str) else spec_or_name
    file = find_bundled(spec) if weights is None else weights
    content = _read_file(file, weights_key, spec.size)
    if classes is not None and classes != content.classes:
        raise ClassCountError(
            f"{file}: has {content.classes} classes, {classes} were asked for; ask for {content.classes} or"
            " give other weights"
        )
    if content.input_channels not in IMAGE_CHANNELS:
        raise WeightsFileError(
            f"{file}: {shorten(content.first_weight)} takes images of {content.input_channels} channels; networks of"
            " 1 (gray) and 3 (RGB) are read"
        )
    spec = replace(spec, classes=content.classes, input_channels=content.input_channels)
    if isinstance(content, Checkpoint):
        return _load_checkpoint(spec, file, content, conventions)
    return _load_stored(spec, file, content, conventions)


def find_bundled(spec: ModelSpec) -> Path:
    """Return the file of a bundled network's weights.

    Raises
    ------
    WeightsFileError
        It has none.
    """
    if spec.name not in {bundled.name for bundled in BUNDLED}:
        names = ", ".join(bundled.name for bundled in BUNDLED)
        raise WeightsFileError(f"{spec.name}: no weights are bundled; give --weights FILE, or take {names}")
    return BUNDLED_FOLDER / f"{spec.name}.pt"


def _read_file(file: Path, weights_key: str | None, size: tuple[int, int]) -> StoredNetwork | Checkpoint:
    data = read_weights_file(file)
    if is_safetensors(data):
        return read_safetensors(file, data, weights_key)
    keras = data.startswith(HDF5_MAGIC) or is_keras_archive(data)
    if data.startswith(pytorch_file.MAGICS) and not keras:
        return read_checkpoint(file, data, weights_key)
    if weights_key is not None:
        raise WeightsFileError(f"{file}: no PyTorch file, so it has no sets of weights by key; leave --weights-key out")
    if data[4:8] == _TFLITE_MAGIC:
        return read_tflite(file, data)
    if keras:
        return read_keras(file, data, size)
    length = f"{len(data)} bytes" if data else "empty"
    raise WeightsFileError(
        f"{file}: no weights file known here ({length}); read are PyTorch, safetensors, TFLite, Keras .h5 and .keras"
    )


def _load_checkpoint(spec: ModelSpec, file: Path, checkpoint: Checkpoint, said: Conventions) -> TrainedModel:
    assumptions = checkpoint.assumptions
    own, preprocessing = checkpoint.spec, checkpoint.preprocessing
    if own is not None and preprocessing is not None:
        spec = _follow_file(spec, file, Conventions(own.padding, own.bn_epsilon, own.activation), said)
        network = fill_from_checkpoint(checkpoint, spec, file).eval()
        return TrainedModel(spec, network, preprocessing, stated=frozenset((*vars(preprocessing), *vars(said))))
    origin, implied = IMPLIED[checkpoint.weights.origin]
    # The names are those of the file's version, which may be another than the spec's: that is found out by its shapes.
    spec = replace(spec, **{**vars(implied), **_list_said(said)})
    network = fill_from_checkpoint(checkpoint, spec, file)
    assumptions += _describe_conventions(spec, origin, said)
    if checkpoint.weights.origin == "thumbnet":
        preprocessing = hosted_preprocessing(spec.resolution, spec.classes, spec.input_channels)
    elif checkpoint.weights.origin == "keras":
        preprocessing = keras_preprocessing(spec.resolution, spec.classes, spec.input_channels)
    else:
        make = timm_preprocessing if checkpoint.weights.origin == "timm" else torchvision_preprocessing
        preprocessing = make(spec.resolution, spec.input_channels)
    preprocessing = preprocessing.of_size(spec.size)
    quants = checkpoint.quants
    if quants is not None:
        # The range of the input tells which of the usual scalings it was trained with.
        scalings = ((mean,) * spec.input_channels for mean in _USUAL_MEANS)
        others = (replace(preprocessing, mean=mean, std=(255 - mean[0],) * len(mean)) for mean in scalings)
        preprocessing = nearest_preprocessing((preprocessing, *others), quants.activation_quant["input"])
    return TrainedModel(
        spec,
        network.eval(),
        preprocessing,
        None if quants is None else quants.activation_quant,
        None if quants is None else quants.weight_scales,
        assumptions,
    )


def _load_stored(spec: ModelSpec, file: Path, stored: StoredNetwork, said: Conventions) -> TrainedModel:
    spec = _follow_file(spec, file, Conventions(stored.padding, stored.bn_epsilon, stored.activation), said)
    network = build_model(spec)
    fill_network(network, stored, spec, file)
    return TrainedModel(
        spec,
        network.eval(),
        stored.preprocessing,
        _name_quants(network, stored),
        _name_scales(network, stored),
        stored.assumptions,
        frozenset((*vars(said), *stored.stated)),
    )


def _list_said(said: Conventions) -> dict[str, Any]:
    return {name: value for name, value in vars(said).items() if value is not None}


def _name_option(convention: str) -> str:
    return f"--{convention.replace('_', '-')}"


def _follow_file(spec: ModelSpec, file: Path, known: Conventions, said: Conventions) -> ModelSpec:
    """Return a spec with what a file says, which nobody may contradict."""
    for name, value in _list_said(said).items():
        if value != getattr(known, name):
            raise WeightsFileError(
                f"{file}: has {name.replace('_', ' ')} {getattr(known, name)}, not {value}; leave"
                f" {_name_option(name)} out"
            )
    return replace(spec, **_list_said(known))


def _describe_conventions(spec: ModelSpec, origin: str, said: Conventions) -> tuple[str, ...]:
    """Return a line for what was taken as usual where the weights come from, and one for what the person said."""
    words = {
        "padding": f"padding {spec.padding}",
        "bn_epsilon": f"batch norm epsilon {spec.bn_epsilon:g}",
        "activation": f"activation {spec.activation}",
    }
    told = _list_said(said)
    taken = [name for name in words if name not in told]
    lines = []
    if taken:
        options = ", ".join(map(_name_option, taken))
        lines.append(
            f"{', '.join(words[name] for name in taken)}: as of {origin}; the file doesn't say, {options} would"
        )
    if told:
        lines.append(f"{', '.join(words[name] for name in told)}: as told")
    return tuple(lines)


def _name_quants(network: nn.Module, stored: StoredNetwork) -> dict[str, Quant] | None:
    if stored.input_quant is None or stored.pool_quant is None:
        return None
    quants = {"input": stored.input_quant, "pool": stored.pool_quant}
    named = [*zip(list_residuals(network), (add.quant for add in stored.adds), strict=True)]
    named += [(unit.path, layer.output_quant) for unit, layer in zip(list_units(network), stored.layers, strict=True)]
    return quants | {path: quant for path, quant in named if quant is not None}


def _name_scales(network: nn.Module, stored: StoredNetwork) -> dict[str, NDArray[np.float32]] | None:
    scales = {
        unit.path: layer.weight_scales
        for unit, layer in zip(list_units(network), stored.layers, strict=True)
        if layer.weight_scales is not None
    }
    return scales or None
