"""Puts the layers of a file together to a network, whatever framework wrote it, and refuses what no MobileNet has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.layers import Activation, Padding, compute_same_padding
from thumbnet.models.preprocessing import Preprocessing
from thumbnet.models.stored import BatchNorm, Quant, StoredAdd, StoredLayer, StoredNetwork

#: Zeros before and after an axis.
Margin = tuple[int, int]
#: Those of rows, and of columns.
Margins = tuple[Margin, Margin]
NO_MARGINS: Margins = ((0, 0), (0, 0))
#: What is said of a classifier of a single output, that a sigmoid belongs after.
SINGLE_OUTPUT = (
    "the one output becomes the logit of class 1, beside a 0 for class 0: softmax of both is the sigmoid of it"
)


@dataclass(frozen=True, eq=False)
class Feature:
    """A tensor between two layers.

    Parameters
    ----------
    size : (int, int)
        Height and width in pixels, without the margins.
    channels : int
        Of the image, or outputs of the layer before.
    margins : ((int, int), (int, int))
        Zeros that were put before and after its rows and columns.
    layers : int
        Layers that were computed until then.
    """

    size: tuple[int, int]
    channels: int
    margins: Margins = NO_MARGINS
    layers: int = 0


class LayerChain:
    """Takes the layers of a classifier in the order of execution.

    Each method stands for a layer: it takes the feature the layer takes, and returns the one it gives. Only an addition
    may take another feature than the newest.

    Parameters
    ----------
    size : (int, int)
        Height and width of the image.
    channels : int
        Of the image.
    refuse : callable
        Makes the error for what has no place in a MobileNet.
    """

    def __init__(self, size: tuple[int, int], channels: int, refuse: Callable[[str], WeightsFileError]) -> None:
        self.image = Feature(size, channels)
        #: The first convolution takes ``pixel * scale + offset``, float64 ``[channels]`` or ``[1]`` each; None where
        #: no layer says so.
        self.scaling: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._refuse = refuse
        self._newest = self.image
        self._latest: dict[int, Feature] = {}
        self._layers: list[StoredLayer] = []
        self._adds: list[StoredAdd] = []
        self._paddings: set[Padding] = {"same", "symmetric"}
        self._pooled = False
        self._pool_quant: Quant | None = None

    @property
    def classified(self) -> bool:
        """Whether the classifier is in the chain."""
        return bool(self._layers) and self._layers[-1].kind == "linear"

    @property
    def classes(self) -> int:
        """Outputs of the last layer, two for a single one."""
        return max(2, self._layers[-1].weight.shape[0]) if self._layers else 0

    @property
    def pooled(self) -> bool:
        """Whether the pooling is in the chain."""
        return self._pooled

    def rescale(self, name: str, feature: Feature, scale: NDArray[np.float64], offset: NDArray[np.float64]) -> Feature:
        """Multiply the image and add to it, each with one number or one a channel."""
        self._take(name, feature)
        if self._layers or feature.margins != NO_MARGINS:
            raise self._refuse(f"{name} scales between layers")
        before = (np.ones(1), np.zeros(1)) if self.scaling is None else self.scaling
        scale, offset = before[0] * scale, before[1] * scale + offset
        if not {scale.size, offset.size} <= {1, feature.channels}:
            raise self._refuse(f"{name} scales {scale.size} channels of {feature.channels}")
        if not (np.isfinite(scale) & np.isfinite(offset) & (scale > 0)).all():
            raise self._refuse(f"{name} scales pixels by {scale.min():g}")
        self.scaling = scale, offset
        return feature

    def pad(self, name: str, feature: Feature, margins: Margins) -> Feature:
        """Put zeros around both axes."""
        self._take(name, feature)
        fits = all(0 <= zeros <= size for size, margin in zip(feature.size, margins, strict=True) for zeros in margin)
        if self._pooled or feature.margins != NO_MARGINS or not fits:
            raise self._refuse(f"{name} pads rows by {_join(margins[0])}, columns by {_join(margins[1])}")
        return self._give(replace(feature, margins=margins))

    def convolve(self, feature: Feature, layer: StoredLayer, *, same: bool) -> Feature:
        """Convolve, with zeros as TensorFlow's SAME has them, or without; after the pooling this is the classifier.

        A depthwise convolution of one channel is given as what it is, an ordinary one.
        """
        self._take(layer.name, feature)
        outputs, inputs, kernel, width = layer.weight.shape
        if self._pooled:
            if layer.kind == "depthwise" or (kernel, width, layer.stride) != (1, 1, 1):
                raise self._refuse(f"{layer.name} is a convolution after the pooling")
            return self.classify(feature, replace(layer, kind="linear", weight=layer.weight[:, :, 0, 0]))
        if kernel != width or inputs * (feature.channels if layer.kind == "depthwise" else 1) != feature.channels:
            shape = "x".join(map(str, layer.weight.shape))
            raise self._refuse(f"{layer.name} has weights of {shape} for {feature.channels} channels")
        if layer.kind == "depthwise" and outputs != feature.channels:
            raise self._refuse(f"{layer.name} gives {outputs} channels of {feature.channels}, a depthwise multiplier")
        extents = []
        for size, (before, after) in zip(feature.size, feature.margins, strict=True):
            padded = size + before + after
            own = compute_same_padding(padded, kernel, layer.stride) if same else (0, 0)
            if padded + sum(own) < kernel:
                raise self._refuse(f"{layer.name} takes {kernel} pixels of {padded}")
            self._tell_padding(layer, size, (before + own[0], after + own[1]))
            extents.append((padded + sum(own) - kernel) // layer.stride + 1)
        self._layers.append(layer)
        return self._give(Feature((extents[0], extents[1]), outputs, layers=len(self._layers)))

    def _tell_padding(self, layer: StoredLayer, size: int, margin: Margin) -> None:
        """Narrow down what padding the network has, by the zeros around one axis of `size` pixels."""
        kernel = layer.weight.shape[2]
        expected: dict[Padding, Margin] = {
            "same": compute_same_padding(size, kernel, layer.stride),
            "symmetric": ((kernel - 1) // 2, (kernel - 1) // 2),
        }
        self._paddings &= {padding for padding, zeros in expected.items() if zeros == margin}
        if not self._paddings:
            raise self._refuse(
                f"{layer.name} has {margin[0]} zeros before and {margin[1]} after its {size} pixels, neither"
                " TensorFlow's SAME nor equal on both sides as in the layers before"
            )

    def normalise(self, name: str, feature: Feature, norm: BatchNorm) -> Feature:
        """Put a batch norm after a convolution."""
        self._take(name, feature)
        last = self._last_convolution(name, "a batch norm", feature)
        if last.batch_norm is not None or last.activation is not None:
            raise self._refuse(f"{name} is a batch norm that doesn't follow a convolution")
        self._layers[-1] = replace(last, batch_norm=norm)
        return self._give(replace(feature))

    def activate(self, name: str, feature: Feature, activation: Activation, quant: Quant | None = None) -> Feature:
        """Put an activation after a convolution or its batch norm, whose output then has `quant`."""
        self._take(name, feature)
        last = self._last_convolution(name, "an activation", feature)
        if last.activation is not None:
            raise self._refuse(f"{name} is a second activation")
        self._layers[-1] = replace(last, activation=activation, output_quant=quant or last.output_quant)
        return self._give(replace(feature))

    def _last_convolution(self, name: str, what: str, feature: Feature) -> StoredLayer:
        if self._pooled:
            raise self._refuse(f"{name} is {what} after the pooling, where one dense layer belongs")
        added = any(add.last == len(self._layers) for add in self._adds)
        if not self._layers or added or feature.margins != NO_MARGINS:
            raise self._refuse(f"{name} is {what} that doesn't follow a convolution")
        return self._layers[-1]

    def add(self, name: str, features: tuple[Feature, Feature], quant: Quant | None = None) -> Feature:
        """Add the newest feature and an older one."""
        older = features[0] if features[1] is self._newest else features[1]
        self._take(name, features[0] if older is features[1] else features[1])
        new = self._newest
        # Of the older layer what came last counts: after its batch norm and activation, before any padding.
        if self._pooled or not 0 < older.layers < new.layers or self._latest.get(older.layers) is not older:
            raise self._refuse(f"{name} adds what no block of a MobileNet adds")
        if (older.size, older.channels) != (new.size, new.channels):
            raise self._refuse(
                f"{name} adds {spell(older.size)} x {older.channels} to {spell(new.size)} x {new.channels}"
            )
        self._adds.append(StoredAdd(older.layers, new.layers, quant))
        return self._give(replace(new))

    def pool(self, name: str, feature: Feature, quant: Quant | None = None) -> Feature:
        """Average over all pixels."""
        self._take(name, feature)
        if self._pooled or not self._layers or feature.margins != NO_MARGINS:
            raise self._refuse(f"{name} is a pooling that doesn't follow a convolution")
        self._pooled, self._pool_quant = True, quant
        return self._give(replace(feature, size=(1, 1)))

    def classify(self, feature: Feature, layer: StoredLayer) -> Feature:
        """Put the classifier after the pooling."""
        self._take(layer.name, feature)
        if not self._pooled:
            raise self._refuse(f"{layer.name} is a dense layer without an average over all pixels before it")
        if self.classified:
            raise self._refuse(f"{layer.name} is a second dense layer")
        if layer.weight.shape[1] != feature.channels:
            raise self._refuse(f"{layer.name} takes {layer.weight.shape[1]} channels of {feature.channels}")
        self._layers.append(layer)
        return self._give(Feature((1, 1), layer.weight.shape[0], layers=len(self._layers)))

    def finish(
        self, feature: Feature, preprocessing: Preprocessing, stated: frozenset[str], input_quant: Quant | None = None
    ) -> StoredNetwork:
        """Return the network whose output is a feature."""
        self._take("its output", feature)
        if not self.classified:
            raise self._refuse("no classifier (a network without its top)")
        activations = {layer.activation for layer in self._layers} - {None}
        if len(activations) != 1:
            raise self._refuse(f"{len(activations)} kinds of activation")
        *layers, classifier = self._layers
        assumptions: list[str] = []
        if self.scaling is not None:
            said = preprocessing.describe_scaling()
            assumptions.append(f"the file's own scaling of pixels becomes the input's: {said}")
        if classifier.weight.shape[0] == 1:
            classifier = _split_output(classifier)
            assumptions.append(SINGLE_OUTPUT)
        return StoredNetwork(
            (*layers, classifier),
            self.image.size,
            preprocessing,
            "same" if "same" in self._paddings else "symmetric",
            tuple(self._adds),
            input_quant,
            self._pool_quant,
            stated,
            tuple(assumptions),
        )

    def _take(self, name: str, feature: Feature) -> None:
        if feature is not self._newest:
            raise self._refuse(f"{name} takes another layer's output than that of the layer before it")

    def _give(self, feature: Feature) -> Feature:
        self._newest = feature
        if feature.margins == NO_MARGINS:
            self._latest[feature.layers] = feature
        return feature


def spell(size: tuple[int, int]) -> str:
    """Return height and width for people: ``120 x 160``."""
    return " x ".join(map(str, size))


def _join(margin: Margin) -> str:
    return " and ".join(map(str, margin))


def _split_output(classifier: StoredLayer) -> StoredLayer:
    """Return a classifier of two classes for one of a single output."""
    scales = classifier.weight_scales
    return replace(
        classifier,
        weight=add_silent_class(classifier.weight),
        bias=add_silent_class(classifier.bias),
        weight_scales=None if scales is None else np.concatenate([scales, scales]),
    )


def add_silent_class(parameter: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a classifier's parameter of a single output ``[1, ...]`` with zeros for class 0 before it."""
    return np.concatenate([np.zeros_like(parameter), parameter])
