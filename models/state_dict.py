"""Reads and writes PyTorch weights: state dicts of others, and thumbnet's own checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from thumbnet.models.errors import ModelError, WeightsFileError, WrongVariantError
from thumbnet.models.fake_quant import FakeQuants, has_fake_quants, is_observer, take_fake_quants
from thumbnet.models.key_names import CLASSIFIER, NamedWeights, name_weights
from thumbnet.models.nearest_variant import check_shapes
from thumbnet.models.preprocessing import Preprocessing
from thumbnet.models.pytorch_file import read_pytorch
from thumbnet.models.stored import check_folding
from thumbnet.models.variants import ModelSpec, build_model
from thumbnet.models.weight_sets import FIRST_WEIGHTS, WeightSet, choose_weights
from thumbnet.models.weights_file import shorten

FORMAT = "thumbnet-checkpoint"
FORMAT_VERSION = 1
#: Counts training batches; no part of the network.
_COUNTER = "num_batches_tracked"
_LONGEST_NAME = 100
_CONVOLUTION_DIMS = 4
#: Mean and deviation are in units of a pixel, 0 to 255.
_LARGEST_PIXEL_MEAN = 1e6


@dataclass(frozen=True)
class Checkpoint:
    """PyTorch weights, and what the file says about them.

    Parameters
    ----------
    weights : NamedWeights
        As stored: nothing of their values is known yet.
    spec : ModelSpec or None
        The network, None in a plain state dict.
    preprocessing : Preprocessing or None
        What its input expects, None in a plain state dict.
    assumptions : tuple of str
        What was assumed in reading it, a line each.
    quants : FakeQuants or None
        The ranges of quantization-aware training.
    """

    weights: NamedWeights
    spec: ModelSpec | None = None
    preprocessing: Preprocessing | None = None
    assumptions: tuple[str, ...] = ()
    quants: FakeQuants | None = None

    @property
    def classes(self) -> int:
        """Outputs of the classifier."""
        return int(self.weights.tensors[f"{CLASSIFIER[self.weights.version]}.weight"].shape[0])

    @property
    def input_channels(self) -> int:
        """Channels of the image."""
        shape = self.weights.tensors[FIRST_WEIGHTS[0]].shape
        return int(shape[1]) if len(shape) == _CONVOLUTION_DIMS else 0

    @property
    def first_weight(self) -> str:
        """What the file calls the weight that takes the image."""
        return self.weights.file_names[FIRST_WEIGHTS[0]]


def read_checkpoint(file: Path, data: bytes, weights_key: str | None = None) -> Checkpoint:
    """Read a PyTorch file as data only: nothing in it is run.

    Raises
    ------
    WeightsFileError
        The file is damaged, holds no float weights, or has none or several under `weights_key`.
    WrongVariantError
        It is of another network than a MobileNet.
    """
    content = read_pytorch(file, data)
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        if weights_key is not None:
            raise WeightsFileError(f"{file}: a thumbnet checkpoint has one set of weights; leave --weights-key out")
        return _read_own(file, content)
    return _read_set(file, *choose_weights(file, content, weights_key))


def is_safetensors(data: bytes) -> bool:
    """Say whether a file begins as safetensors do: the header's length in 8 bytes, then the header in JSON."""
    return data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8


def read_safetensors(file: Path, data: bytes, weights_key: str | None = None) -> Checkpoint:
    """Read a safetensors file.

    Raises
    ------
    WeightsFileError
        As of `read_checkpoint`.
    WrongVariantError
        It is of another network than a MobileNet.
    """
    return _read_set(file, *choose_weights(file, load_safetensors(file, data), weights_key))


def load_safetensors(file: Path, data: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file by name.

    Raises
    ------
    WeightsFileError
        It is damaged.
    """
    try:
        content: dict[str, torch.Tensor] = safetensors.torch.load(data)
    # KeyError: a number type that PyTorch doesn't have.
    except (safetensors.SafetensorError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsFileError(f"{file}: a damaged safetensors file; get it again") from error
    return content


def _read_set(file: Path, weights: WeightSet, assumptions: tuple[str, ...]) -> Checkpoint:
    check_tensors(file, weights.tensors)
    quants = None
    if has_fake_quants(weights.tensors):
        weights, quants = take_fake_quants(file, weights)
    return Checkpoint(name_weights(file, weights), assumptions=assumptions, quants=quants)


def write_checkpoint(
    file: Path,
    network: nn.Module,
    spec: ModelSpec,
    preprocessing: Preprocessing,
    training: Mapping[str, Any],
    *,
    half: bool = True,
) -> None:
    """Write a network as a thumbnet checkpoint: whole, or not at all.

    Weights load as float32.

    Parameters
    ----------
    file : Path
        Where to; its folder must exist.
    network : torch.nn.Module
        The trained network.
    spec, preprocessing : ModelSpec, Preprocessing
        What it is and what it takes.
    training : dict
        How it was made: numbers and text only.
    half : bool
        Store the weights of convolutions and linear layers as float16, half the size; the rest stays float32.
    """
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "spec": dataclasses.asdict(spec),
        "preprocessing": dataclasses.asdict(preprocessing),
        "training": dict(training),
        "state_dict": {
            name: tensor.half() if half and tensor.ndim > 1 else tensor.float()
            for name, tensor in network.state_dict().items()
            if not name.endswith(_COUNTER)
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    handle, aside = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(buffer.getvalue())
        # A temporary file is its owner's alone; give it the mode of any other new file.
        mask = os.umask(0)
        os.umask(mask)
        Path(aside).chmod(0o666 & ~mask)
        Path(aside).replace(file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(aside).unlink()


def fill_from_checkpoint(checkpoint: Checkpoint, spec: ModelSpec, file: Path) -> nn.Module:
    """Return the network of a spec with a checkpoint's weights.

    Raises
    ------
    WrongVariantError
        Names or shapes differ from the spec's.
    WeightsFileError
        A weight is not a finite number, or a variance is negative.
    """
    own = checkpoint.spec
    if own is not None and (own.version, own.width_multiplier, own.size) != (
        spec.version,
        spec.width_multiplier,
        spec.size,
    ):
        raise WrongVariantError(
            f"{file}: holds {shorten(own.name)}, not {spec.name}; name that model or give the weights of this"
        )
    check_shapes(checkpoint.weights, spec, file)
    names = checkpoint.weights.file_names
    state = {name: read_values(file, name, names[name], tensor) for name, tensor in checkpoint.weights.tensors.items()}
    bias = f"{CLASSIFIER[spec.version]}.bias"
    state.setdefault(bias, torch.zeros(spec.classes))
    network = build_model(spec)
    network.load_state_dict(state, strict=False)
    check_folding(network, file, {path.rpartition(".")[0]: name.rpartition(".")[0] for path, name in names.items()})
    return network


def check_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse what is no plain tensor of floats, before anything is computed with it.

    Raises
    ------
    WeightsFileError
        Naming the tensor.
    """
    if any(tensor.is_quantized for tensor in tensors.values()) or any("_packed_params" in name for name in tensors):
        raise WeightsFileError(
            f"{file}: a network that torch.ao quantized and converted, which is not read; save the state dict of the"
            " float model, and compile it with --calibration"
        )
    for name, tensor in tensors.items():
        if problem := _find_problem(tensor, integer=is_observer(name)):
            raise WeightsFileError(f"{file}: {shorten(name)} {problem}; save the model's float weights on the CPU")


def _find_problem(tensor: torch.Tensor, *, integer: bool) -> str | None:
    if tensor.is_nested or tensor.layout != torch.strided:
        return "is a sparse or nested tensor"
    if tensor.device.type != "cpu":
        return f"has no values (device {tensor.device.type})"
    if not tensor.is_floating_point() and tensor.ndim and not integer:
        return f"holds {str(tensor.dtype).removeprefix('torch.')}, not floats"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return (
            f"is {'x'.join(map(str, tensor.shape))} of {tensor.untyped_storage().nbytes():,} bytes (an expanded view)"
        )
    return "is empty" if not tensor.numel() and not integer else None


def read_values(file: Path, name: str, stored: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a weight as finite float32, and a variance that is not negative; `stored` is what the file calls it.

    Raises
    ------
    WeightsFileError
        It is not.
    """
    values = tensor.detach().to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise WeightsFileError(
            f"{file}: {shorten(stored)} holds values that are no finite numbers in float32; get the file again"
        )
    if name.endswith("running_var") and bool((values < 0).any()):
        raise WeightsFileError(
            f"{file}: {shorten(stored)} holds a variance of {float(values.min()):g}, below 0; get the file again"
        )
    return values


def _read_own(file: Path, content: Mapping[str, Any]) -> Checkpoint:
    if content.get("version") != FORMAT_VERSION:
        raise WeightsFileError(
            f"{file}: checkpoint version {shorten(content.get('version'))}, this thumbnet reads {FORMAT_VERSION};"
            " train it again"
        )
    try:
        name = content["spec"]["name"]
        if not isinstance(name, str) or len(name) > _LONGEST_NAME:
            raise TypeError("no name of a network")
        spec = ModelSpec(**content["spec"])
        preprocessing = Preprocessing(**content["preprocessing"])
        state = content["state_dict"]
        tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    except ModelError as error:
        raise WeightsFileError(f"{file}: a damaged thumbnet checkpoint ({error}); train it again") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WeightsFileError(f"{file}: a damaged thumbnet checkpoint; train it again") from error
    if FIRST_WEIGHTS[0] not in tensors:
        raise WeightsFileError(f"{file}: a damaged thumbnet checkpoint, without {FIRST_WEIGHTS[0]}; train it again")
    check_tensors(file, tensors)
    checkpoint = Checkpoint(name_weights(file, WeightSet("", tensors, {})), spec, preprocessing)
    _check_preprocessing(file, checkpoint)
    return checkpoint


def _check_preprocessing(file: Path, checkpoint: Checkpoint) -> None:
    """Refuse a preprocessing that gives another input than the network takes."""
    spec, preprocessing, channels = checkpoint.spec, checkpoint.preprocessing, checkpoint.input_channels
    assert spec is not None and preprocessing is not None
    if not all(_is_plain(value) for value in vars(preprocessing).values()):
        raise WeightsFileError(f"{file}: its preprocessing has values that are no numbers or words; train it again")
    if (preprocessing.size, preprocessing.channels) != (spec.size, channels):
        raise WeightsFileError(
            f"{file}: its preprocessing gives {shorten(preprocessing.size)} pixels of"
            f" {shorten(preprocessing.channels)} channels, the network takes {spec.size} of {channels}; train it again"
        )
    if not all(_are_numbers(values, channels) for values in (preprocessing.mean, preprocessing.std)):
        raise WeightsFileError(f"{file}: mean and std of its preprocessing are not {channels} numbers; train it again")
    if min(preprocessing.std) <= 0 or not _are_numbers((preprocessing.crop_fraction,), 1):
        raise WeightsFileError(f"{file}: its preprocessing has a std of 0 or below, or no crop; train it again")
    if not 0 < preprocessing.crop_fraction <= 1 or preprocessing.label_offset not in (0, 1):
        raise WeightsFileError(
            f"{file}: its preprocessing keeps {shorten(preprocessing.crop_fraction)} of an image (0 to 1) and counts"
            f" classes from {shorten(preprocessing.label_offset)} (0 or 1); train it again"
        )


def _is_plain(value: object) -> bool:
    return all(isinstance(part, str | int | float | None) for part in (value if isinstance(value, tuple) else (value,)))


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(value, int | float) and abs(value) < _LARGEST_PIXEL_MEAN for value in values)
    )
