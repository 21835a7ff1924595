"""Reads and writes PyTorch weights: plain state dicts (torchvision's too), and thumbnet's own checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thumbnet.models.errors import ModelError, WeightsFileError, WrongVariantError
from thumbnet.models.preprocessing import Preprocessing
from thumbnet.models.stored import USUAL_WIDTHS
from thumbnet.models.variants import ModelSpec, Version, build_model

FORMAT = "thumbnet-checkpoint"
FORMAT_VERSION = 1
#: Counts training batches; no part of the network.
_COUNTER = "num_batches_tracked"
_FIRST_WEIGHT = "features.0.0.weight"


@dataclass(frozen=True)
class Checkpoint:
    """PyTorch weights, and what the file says about them.

    Parameters
    ----------
    state : dict
        Parameters and batch norm statistics by name, float32.
    spec : ModelSpec or None
        The network, None in a plain state dict.
    preprocessing : Preprocessing or None
        What its input expects, None in a plain state dict.
    """

    state: dict[str, torch.Tensor]
    spec: ModelSpec | None = None
    preprocessing: Preprocessing | None = None

    @property
    def classes(self) -> int:
        """Outputs of the classifier."""
        return int(self._classifier().shape[0])

    @property
    def input_channels(self) -> int:
        """Channels of the image."""
        return int(self.state[_FIRST_WEIGHT].shape[1])

    def _classifier(self) -> torch.Tensor:
        return self.state.get("classifier.1.weight", self.state.get("classifier.weight", torch.empty(0)))

    def is_mobilenet(self) -> bool:
        """Say whether the first convolution and the classifier are there, in the shapes they have to have."""
        first = self.state.get(_FIRST_WEIGHT)
        return first is not None and first.ndim == 4 and self._classifier().ndim == 2


def read_checkpoint(file: Path, data: bytes) -> Checkpoint:
    """Read a PyTorch file as data only: nothing in it is run.

    Raises
    ------
    WeightsFileError
        The file is damaged, holds more than weights, is no state dict, or has values that are not finite.
    """
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile, OSError, KeyError, ValueError) as error:
        raise WeightsFileError(f"{file}: damaged, or a PyTorch file with more than weights in it") from error
    # A pickle of bytes that were never one can fail in any way inside the unpickler.
    except (AttributeError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise WeightsFileError(f"{file}: damaged, or no PyTorch file") from error
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        return _read_own(file, content)
    return _checked(file, Checkpoint(_read_state(file, content)))


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


def fill_from_checkpoint(network: nn.Module, checkpoint: Checkpoint, spec: ModelSpec, file: Path) -> None:
    """Put a checkpoint's weights into the network of a spec.

    Raises
    ------
    WrongVariantError
        Names or shapes differ from the spec's.
    """
    own = checkpoint.spec
    if own is not None and (own.version, own.width_multiplier, own.resolution) != (
        spec.version,
        spec.width_multiplier,
        spec.resolution,
    ):
        raise WrongVariantError(
            f"{file}: holds {own.name}, not {spec.name}; name that model or give the weights of this"
        )
    if _shapes(network.state_dict()) != _shapes(checkpoint.state):
        found = name_checkpoint(checkpoint)
        raise WrongVariantError(
            f"{file}: holds {found or 'no MobileNet known here'}, not {spec.name};"
            " name that model or give the weights of this"
        )
    network.load_state_dict(checkpoint.state, strict=False)


def name_checkpoint(checkpoint: Checkpoint) -> str | None:
    """Return the version and width a state dict belongs to, or None (a resolution is not in it)."""
    shapes = _shapes(checkpoint.state)
    versions: tuple[Version, ...] = ("v1", "v2")
    for version in versions:
        for width in USUAL_WIDTHS:
            spec = ModelSpec("", version, width, 224, checkpoint.classes, checkpoint.input_channels)
            with torch.device("meta"):
                if _shapes(build_model(spec).state_dict()) == shapes:
                    return f"a MobileNet {version.upper()} of width {width:g}"
    return None


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith(_COUNTER)}


def _read_own(file: Path, content: Mapping[str, Any]) -> Checkpoint:
    if content.get("version") != FORMAT_VERSION:
        raise WeightsFileError(
            f"{file}: checkpoint version {content.get('version')}, this thumbnet reads {FORMAT_VERSION}; train it again"
        )
    try:
        spec = ModelSpec(**content["spec"])
        preprocessing = Preprocessing(**content["preprocessing"])
        state = content["state_dict"]
    except (KeyError, TypeError, ModelError) as error:
        raise WeightsFileError(f"{file}: a damaged thumbnet checkpoint; train it again") from error
    return _checked(file, Checkpoint(_read_state(file, state), spec, preprocessing))


def _read_state(file: Path, content: object) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise WeightsFileError(f"{file}: holds a {type(content).__name__}, not a state dict")
    state: dict[str, torch.Tensor] = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise WeightsFileError(
                f"{file}: {name!r} is a {type(tensor).__name__}, not a weight; save model.state_dict()"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsFileError(f"{file}: {name} holds values that are no finite numbers; get the file again")
        state[name] = tensor if name.endswith(_COUNTER) else tensor.to(torch.float32)
    return state


def _checked(file: Path, checkpoint: Checkpoint) -> Checkpoint:
    if not checkpoint.is_mobilenet():
        raise WrongVariantError(f"{file}: a state dict of another network: no {_FIRST_WEIGHT} or classifier as here")
    return checkpoint
