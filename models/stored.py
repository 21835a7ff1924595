"""What a weights file of another framework holds, and how it is put into a PyTorch network of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from thumbnet.models.errors import WeightsFileError, WrongVariantError
from thumbnet.models.inverted_residual import InvertedResidual
from thumbnet.models.layers import Activation, Padding
from thumbnet.models.preprocessing import Preprocessing
from thumbnet.models.variants import RESOLUTIONS, ModelSpec, Version, build_model, format_name
from thumbnet.models.weights_file import shorten

LayerKind = Literal["conv", "depthwise", "linear"]
#: Scale and int8 zero point of an activation.
Quant = tuple[float, int]

#: The widths that are looked for when a file has to be named.
USUAL_WIDTHS: tuple[float, ...] = (0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4)


@dataclass(frozen=True)
class BatchNorm:
    """Parameters of a batch norm, each float32 ``[channels]``."""

    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    epsilon: float


@dataclass(frozen=True)
class StoredLayer:
    """One convolution or fully connected layer of a file.

    Parameters
    ----------
    name : str
        As the file calls it.
    kind : {"conv", "depthwise", "linear"}
        What it is.
    weight : ndarray
        float32, ``[out, in, kh, kw]`` (depthwise ``[channels, 1, kh, kw]``, linear ``[out, in]``).
    bias : ndarray
        float32 ``[out]``.
    stride : int
        1 for linear.
    batch_norm : BatchNorm or None
        After the layer; None where it is folded into weight and bias.
    activation : {"relu6", "relu"} or None
        After both.
    weight_scales : ndarray or None
        float32 ``[out]``: scale of each output channel's weights as symmetric int8.
    output_quant : (float, int) or None
        Scale and int8 zero point of the output, after the activation.
    """

    name: str
    kind: LayerKind
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int
    batch_norm: BatchNorm | None = None
    activation: Activation | None = None
    weight_scales: NDArray[np.float32] | None = None
    output_quant: Quant | None = None


@dataclass(frozen=True)
class StoredAdd:
    """An addition of two layers' outputs.

    Parameters
    ----------
    first, last : int
        Number of layers computed until the older and until the newer of the two.
    quant : (float, int) or None
        Scale and int8 zero point of the sum.
    """

    first: int
    last: int
    quant: Quant | None = None


@dataclass(frozen=True)
class StoredNetwork:
    """A file's network: its layers in the order of execution and what else it says.

    Parameters
    ----------
    layers : tuple of StoredLayer
        All convolutions, then the classifier.
    size : (int, int)
        Height and width of its input.
    preprocessing : Preprocessing
        What its input expects.
    padding : {"same", "symmetric"}
        Of its convolutions.
    adds : tuple of StoredAdd
        Its residual additions in order.
    input_quant, pool_quant : (float, int) or None
        Scale and int8 zero point of the input and of the pooled tensor.
    stated : frozenset of str
        The fields of the preprocessing that the file says; the others are as usual for such files.
    assumptions : tuple of str
        A line for each other thing that a person has to know of how the file was read.
    """

    layers: tuple[StoredLayer, ...]
    size: tuple[int, int]
    preprocessing: Preprocessing
    padding: Padding = "same"
    adds: tuple[StoredAdd, ...] = ()
    input_quant: Quant | None = None
    pool_quant: Quant | None = None
    stated: frozenset[str] = frozenset()
    assumptions: tuple[str, ...] = ()

    @property
    def activation(self) -> Activation:
        """After its convolutions: all those that have one have the same."""
        return next(layer.activation for layer in self.layers if layer.activation is not None)

    @property
    def classes(self) -> int:
        """Outputs of the classifier."""
        return int(self.layers[-1].weight.shape[0])

    @property
    def input_channels(self) -> int:
        """Channels of the image."""
        return int(self.layers[0].weight.shape[1])

    @property
    def first_weight(self) -> str:
        """What the file calls the layer that takes the image."""
        return self.layers[0].name

    @property
    def bn_epsilon(self) -> float | None:
        """Added to the variance in every batch norm, None where they are folded or differ."""
        epsilons = {layer.batch_norm.epsilon for layer in self.layers if layer.batch_norm is not None}
        return epsilons.pop() if len(epsilons) == 1 else None


@dataclass(frozen=True)
class Unit:
    """A convolution or linear module of a network of ours, with the batch norm and the activation after it."""

    path: str
    module: nn.Conv2d | nn.Linear
    batch_norm: nn.BatchNorm2d | None = None
    activated: bool = False

    @property
    def kind(self) -> LayerKind:
        """What a file calls such a layer."""
        if isinstance(self.module, nn.Linear):
            return "linear"
        return "depthwise" if self.module.groups > 1 else "conv"

    @property
    def stride(self) -> int:
        """Step of the convolution, 1 for linear."""
        return 1 if isinstance(self.module, nn.Linear) else self.module.stride[0]


def list_units(network: nn.Module) -> list[Unit]:
    """Return the convolution and linear modules of a MobileNet in the order of execution."""
    units: list[Unit] = []
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            units.append(Unit(path, module))
        elif isinstance(module, nn.BatchNorm2d):
            units[-1] = replace(units[-1], batch_norm=module)
        elif isinstance(module, nn.ReLU | nn.ReLU6):
            units[-1] = replace(units[-1], activated=True)
    return units


def list_residuals(network: nn.Module) -> list[str]:
    """Return the paths of the blocks that end in an add, in the order of execution."""
    return [
        path for path, module in network.named_modules() if isinstance(module, InvertedResidual) and module.residual
    ]


def fill_network(network: nn.Module, stored: StoredNetwork, spec: ModelSpec, file: Path) -> None:
    """Put a file's weights into a network of ours, layer by layer.

    Raises
    ------
    WrongVariantError
        Resolution, number, kind, stride or shape of the layers differ from the spec's.
    WeightsFileError
        A weight is not a finite number, or a variance is negative.
    """
    units = list_units(network)
    check_variant(stored, spec, file)
    for unit, layer in zip(units, stored.layers, strict=True):
        parts = (layer.weight, layer.bias, *(vars(layer.batch_norm).values() if layer.batch_norm else ()))
        if not all(np.isfinite(part).all() for part in parts):
            raise WeightsFileError(
                f"{file}: {shorten(layer.name)} holds values that are no finite numbers; get the file again"
            )
        if layer.batch_norm is not None and (layer.batch_norm.variance < 0).any():
            raise WeightsFileError(
                f"{file}: the batch norm after {shorten(layer.name)} holds a variance of"
                f" {layer.batch_norm.variance.min():g}, below 0; get the file again"
            )
        with torch.no_grad():
            unit.module.weight.copy_(torch.from_numpy(layer.weight))
            if unit.batch_norm is None:
                assert unit.module.bias is not None
                unit.module.bias.copy_(torch.from_numpy(layer.bias))
            else:
                _fill_batch_norm(unit.batch_norm, layer)
    check_folding(network, file, {unit.path: layer.name for unit, layer in zip(units, stored.layers, strict=True)})


def check_folding(network: nn.Module, file: Path, names: Mapping[str, str]) -> None:
    """Check that each batch norm can be folded into its convolution.

    Parameters
    ----------
    network : torch.nn.Module
        A MobileNet with its weights.
    file : Path
        Where they are from.
    names : dict
        From the paths of its convolutions to the file's names.

    Raises
    ------
    WeightsFileError
        A folded weight or bias is no finite number in float32.
    """
    for unit in list_units(network):
        norm = unit.batch_norm
        if norm is None:
            continue
        assert norm.running_var is not None and norm.running_mean is not None
        with torch.no_grad():
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            folded = unit.module.weight * scale.reshape(-1, 1, 1, 1)
            bias = norm.bias - norm.running_mean * scale
        if not bool(torch.isfinite(folded).all() and torch.isfinite(bias).all()):
            raise WeightsFileError(
                f"{file}: {shorten(names[unit.path])} with its batch norm folded in holds values that are no finite"
                " numbers; get the file again"
            )


def _fill_batch_norm(module: nn.BatchNorm2d, layer: StoredLayer) -> None:
    """Fill a batch norm, with the convolution's bias taken into it (our convolutions have none)."""
    channels = layer.bias.shape[0]
    assert module.running_mean is not None and module.running_var is not None
    if layer.batch_norm is None:
        # Already folded: an identity that adds the bias. 1 - epsilon and epsilon sum to 1 as exactly as float32 can.
        module.weight.fill_(1.0)
        module.bias.copy_(torch.from_numpy(layer.bias))
        module.running_mean.zero_()
        module.running_var.copy_(torch.full((channels,), 1.0 - module.eps, dtype=torch.float32))
        return
    norm = layer.batch_norm
    module.eps = norm.epsilon
    module.weight.copy_(torch.from_numpy(norm.gamma))
    module.bias.copy_(torch.from_numpy(norm.beta))
    module.running_mean.copy_(torch.from_numpy(norm.mean - layer.bias))
    module.running_var.copy_(torch.from_numpy(norm.variance))


def check_variant(stored: StoredNetwork, spec: ModelSpec, file: Path) -> None:
    """Compare a file's layers with a spec's (class count and input channels are taken from the file)."""
    if stored.size != spec.size or not _same_layers(stored, spec.version, spec.width_multiplier):
        found = name_variant(stored)
        if found is None:
            raise WrongVariantError(f"{file}: holds no MobileNet known here, so not {spec.name}; compare its layers")
        raise WrongVariantError(f"{file}: holds {found}, not {spec.name}; name that model or give the weights of this")


def name_variant(stored: StoredNetwork) -> str | None:
    """Return the name of the variant a file holds, or None for none of the usual widths."""
    versions: tuple[Version, ...] = ("v1", "v2")
    for version in versions:
        for width in USUAL_WIDTHS:
            if _same_layers(stored, version, width):
                return format_name(version, width, stored.size)
    return None


def _same_layers(stored: StoredNetwork, version: Version, width: float) -> bool:
    # Its layers are the same for images of any size.
    spec = ModelSpec("", version, width, RESOLUTIONS[0], stored.classes, stored.input_channels)
    # The meta device gives shapes without memory or time.
    with torch.device("meta"):
        network = build_model(spec)
    units = list_units(network)
    expected = [(unit.kind, tuple(unit.module.weight.shape), unit.stride, unit.activated) for unit in units]
    if expected != [
        (layer.kind, layer.weight.shape, layer.stride, layer.activation is not None) for layer in stored.layers
    ]:
        return False
    inside = [
        [position for position, unit in enumerate(units) if unit.path.startswith(f"{path}.")]
        for path in list_residuals(network)
    ]
    return [(add.first, add.last) for add in stored.adds] == [(block[0], block[-1] + 1) for block in inside]
