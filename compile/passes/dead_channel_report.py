"""What removing dead channels saved, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from thumbnet.compile.network.integer_network import Layer
from thumbnet.compile.network.layer_fields import split_layer


@dataclass(frozen=True)
class Size:
    """Of a layer or of several.

    Parameters
    ----------
    channels : int
        Of the output.
    macs : int
        Multiply-accumulates of one inference.
    constant_bytes : int
        Weights, biases and multipliers (and left shifts, where there are any).
    """

    channels: int
    macs: int
    constant_bytes: int

    @classmethod
    def of(cls, layer: Layer) -> Size:
        """Measure a layer."""
        arrays = split_layer(layer)[1]
        return cls(layer.output_shape[2], layer.macs, sum(array.nbytes for array in arrays.values()))

    @classmethod
    def total(cls, sizes: Iterable[Size]) -> Size:
        """Add up."""
        return sum(sizes, cls(0, 0, 0))

    def __add__(self, other: Size) -> Size:
        """Add each of the three."""
        return Size(self.channels + other.channels, self.macs + other.macs, self.constant_bytes + other.constant_bytes)

    def __sub__(self, other: Size) -> Size:
        """Subtract each of the three."""
        return Size(self.channels - other.channels, self.macs - other.macs, self.constant_bytes - other.constant_bytes)


@dataclass(frozen=True)
class LayerReport:
    """One layer, before and after.

    Parameters
    ----------
    name : str
        The layer.
    constant : int
        How many channels of its output were proven to have one value. Not all of them could be removed, where others
        were because nothing reads them.
    kept : tuple of int
        Which channels of its output stay.
    before, after : Size
        Its size.
    """

    name: str
    constant: int
    kept: tuple[int, ...]
    before: Size
    after: Size

    def as_json(self) -> dict[str, Any]:
        """Return all but the list of kept channels."""
        return {
            "name": self.name,
            "constant": self.constant,
            "before": asdict(self.before),
            "after": asdict(self.after),
        }


@dataclass(frozen=True)
class DeadChannelReport:
    """All layers, before and after; `before`, `after` and `removed` add them up."""

    layers: tuple[LayerReport, ...]

    @property
    def before(self) -> Size:
        """The network as it was."""
        return Size.total(layer.before for layer in self.layers)

    @property
    def after(self) -> Size:
        """The network as it is now."""
        return Size.total(layer.after for layer in self.layers)

    @property
    def removed(self) -> Size:
        """What it has less."""
        return self.before - self.after

    def as_json(self) -> dict[str, Any]:
        """Return the totals removed, before and after, and the layers that lost something."""
        return {
            **asdict(self.removed),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "layers": [layer.as_json() for layer in self.layers if layer.before != layer.after],
        }
