"""A person's own module: Python code of theirs that builds a network, and the weights that go into it.

The module is imported and its function called, as a program of the person's would. Nothing of a weights file is.
"""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from thumbnet.models import pytorch_file
from thumbnet.models.errors import ModelError, UnknownModelError, WeightsFileError, WrongVariantError
from thumbnet.models.state_dict import check_tensors, is_safetensors, load_safetensors, read_values
from thumbnet.models.variants import SEPARATOR
from thumbnet.models.weight_sets import choose_weights
from thumbnet.models.weights_file import read_weights_file, shorten

#: Counts training batches; no part of the network.
_COUNTER = "num_batches_tracked"
_LARGEST_EXTENT = 4096


@dataclass(frozen=True)
class OwnNetwork:
    """What a person's own network is, without its weights.

    Parameters
    ----------
    name : str
        ``package.module:factory``.
    input_shape : (C, H, W)
        Of one image.
    classes : int
        Outputs.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    published_top1 = None

    @property
    def input_channels(self) -> int:
        """Channels of the image."""
        return self.input_shape[0]


def check_input_shape(shape: tuple[int, int, int]) -> None:
    """Refuse an image that is none.

    Raises
    ------
    ModelError
        Gray and colour images are read, of up to 4,096 pixels a side.
    """
    channels, height, width = shape
    if channels not in (1, 3) or not all(1 <= extent <= _LARGEST_EXTENT for extent in (height, width)):
        raise ModelError(
            f"an input of {channels} x {height} x {width} is no image: 1 (gray) or 3 (RGB) channels of 1 to"
            f" {_LARGEST_EXTENT:,} rows and columns are"
        )


def build_own(name: str) -> nn.Module:
    """Import a module and call its function without arguments; the folder one is in is searched first.

    Raises
    ------
    UnknownModelError
        There is no such module or function.
    ModelError
        It fails, or returns no `nn.Module`.
    """
    module_name, _, factory_name = name.partition(SEPARATOR)
    if not all(part.isidentifier() for part in (*module_name.split("."), factory_name)):
        raise UnknownModelError(f"{name}: names of your own modules are like package.module:factory")
    here = os.getcwd()  # noqa: PTH109 - as it stands in sys.path
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{module_name}.".startswith(f"{error.name}."):
            raise ModelError(f"{name}: {module_name} wants a module {error.name!r} that is not installed") from error
        raise UnknownModelError(
            f"{name}: no module {error.name!r} in {here} or among the installed ones; names are like"
            " package.module:factory"
        ) from error
    except SystemExit as error:
        raise ModelError(
            f"{name}: importing {module_name} ends the program; put what only a script does under"
            ' if __name__ == "__main__"'
        ) from error
    except Exception as error:
        raise ModelError(f"{name}: importing {module_name} failed ({_describe(error)})") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownModelError(
            f"{name}: {module_name} has no {factory_name!r} to call; it has {', '.join(known[:8]) or 'nothing'}"
        )
    try:
        network = factory()
    except (Exception, SystemExit) as error:
        raise ModelError(f"{name}: calling {factory_name}() failed ({_describe(error)})") from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{name}: {factory_name}() returned a {type(network).__name__}, not a torch.nn.Module")
    return network.float().eval()


def fill_own(network: nn.Module, file: Path, weights_key: str | None = None) -> tuple[str, ...]:
    """Load a PyTorch or safetensors file into a person's own network, whatever was wrapped around its weights.

    Returns
    -------
    tuple of str
        What was assumed, a line each.

    Raises
    ------
    WeightsFileError
        The file is damaged, or holds what is no weights.
    WrongVariantError
        Names or shapes are another network's.
    """
    data = read_weights_file(file)
    content: object
    if is_safetensors(data):
        content = load_safetensors(file, data)
    elif data.startswith(pytorch_file.MAGICS):
        content = pytorch_file.read_pytorch(file, data)
        if isinstance(content, Mapping) and content.get("format") == "thumbnet-checkpoint":
            raise WeightsFileError(f"{file}: a thumbnet checkpoint, which is of a network by name; name that instead")
    else:
        raise WeightsFileError(f"{file}: no PyTorch file; an own module takes a state dict or safetensors")
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(_COUNTER)}
    if not wanted:
        raise WeightsFileError(f"{file}: the network has no weights; leave --weights out")
    weights, assumptions = choose_weights(file, content, weights_key, first_weights=(next(iter(wanted)),))
    check_tensors(file, {name: tensor for name, tensor in weights.tensors.items() if not name.endswith(_COUNTER)})
    missing = [name for name in wanted if name not in weights.tensors]
    foreign = [name for name in weights.tensors if name not in wanted and not name.endswith(_COUNTER)]
    if missing or foreign:
        found = [f"{len(missing)} weights are missing, such as {missing[0]}"] if missing else []
        found += [f"{len(foreign)} are another network's, such as {shorten(foreign[0])}"] if foreign else []
        raise WrongVariantError(f"{file}: {', and '.join(found)}; give the weights of this very module")
    for name, tensor in wanted.items():
        if weights.tensors[name].shape != tensor.shape:
            raise WrongVariantError(
                f"{file}: {name} is {list(weights.tensors[name].shape)}, the module's is {list(tensor.shape)}"
            )
    network.load_state_dict(
        {name: read_values(file, name, name, weights.tensors[name]) for name in wanted}, strict=False
    )
    return assumptions


def hash_weights(network: nn.Module) -> bytes:
    """Return the bytes of all weights in their order, for a digest of them."""
    return b"".join(
        name.encode() + tensor.detach().to(torch.float32).contiguous().numpy().tobytes()
        for name, tensor in network.state_dict().items()
        if not name.endswith(_COUNTER)
    )


def _describe(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(f"{type(error).__name__}: {lines[0] if lines else 'no message'}", 200, placeholder=" ...")
