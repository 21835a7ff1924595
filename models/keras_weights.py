"""Finds a layer's weights in the HDF5 files of Keras, by whichever of their two layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.weights_file import LARGEST_BYTES, shorten

Refuse = Callable[[str], WeightsFileError]
#: The names from a file's root to a group or dataset.
Steps = tuple[str, ...]
#: Groups inside groups: a model of three nested ones has 9.
_DEEPEST = 16
_MOST_GROUPS = 20_000
#: The group of a whole model's weights in ``.h5``.
_MODEL = "model_weights"
#: What the group of a model's layers is called: by Keras 3, and by TensorFlow's Keras.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


class KerasWeights(Protocol):
    """The weights of one file."""

    def read(self, names: Steps, slots: Steps, parameters: Sequence[Steps]) -> list[NDArray[np.float32]]:
        """Return all parameters of a layer, in their order.

        Parameters
        ----------
        names, slots
            See `thumbnet.models.keras_config.KerasLayer`.
        parameters : sequence of tuple of str
            The names each of them may have, in the order of the layer's own list.
        """


class DatasetReader:
    """Reads the datasets of one file: follows no links, and reads no more than a file may have."""

    def __init__(self, root: h5py.Group, refuse: Refuse) -> None:
        self._root = root
        self._refuse = refuse
        self._left = LARGEST_BYTES
        self._groups = 0

    def open(self, path: Steps) -> Any:  # noqa: ANN401 - of a library without types
        """Return a group or dataset."""
        found: Any = self._root
        for step in path:
            # Other links lead to other files.
            if not isinstance(found.get(step, getlink=True), h5py.HardLink):
                raise self._refuse(f"nothing or a link at {shorten('/'.join(path))}")
            found = found[step]
        return found

    def list_datasets(self, path: Steps) -> Iterator[Steps]:
        """Yield the paths of all datasets at and below a path."""
        found = self.open(path)
        # A group may be linked into itself.
        self._groups += 1
        if isinstance(found, h5py.Dataset):
            yield path
        elif len(path) > _DEEPEST or self._groups > _MOST_GROUPS:
            raise self._refuse(f"more groups than any network at {shorten('/'.join(path))}")
        else:
            for step in found:
                yield from self.list_datasets((*path, step))

    def read(self, path: Steps) -> NDArray[np.float32]:
        """Return the values of a dataset of floats."""
        found, name = self.open(path), shorten("/".join(path))
        if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f" or found.external or found.is_virtual:
            raise self._refuse(f"no plain floats at {name}")
        self._left -= found.size * found.dtype.itemsize
        if found.size == 0 or self._left < 0:
            raise self._refuse(f"{shorten(found.shape)} numbers at {name}")
        return np.asarray(found, dtype=np.float32)


class NamedKerasWeights:
    """The layout of ``.h5``: a group a layer of the outermost model, in it the weights by layer and name."""

    def __init__(self, reader: DatasetReader, refuse: Refuse) -> None:
        self._reader = reader
        self._refuse = refuse
        self._datasets: dict[str, list[Steps]] = {}

    def read(
        self,
        names: Steps,
        slots: Steps,
        parameters: Sequence[Steps],
    ) -> list[NDArray[np.float32]]:
        """Return all parameters of a layer, in their order."""
        if names[0] not in self._datasets:
            self._datasets[names[0]] = list(self._reader.list_datasets((_MODEL, names[0])))
        found = []
        for parameter in parameters:
            paths = [path for path in self._datasets[names[0]] if path[-1].partition(":")[0] in parameter]
            if len(names) > 1:
                paths = [path for path in paths if path[-2] == names[-1]]
            if len(paths) != 1:
                raise self._refuse(f"{len(paths)} weights called {parameter[0]} in layer {shorten(names[-1])}")
            found.append(self._reader.read(paths[0]))
        return found


class NumberedKerasWeights:
    """The layout of ``.keras``: a group a layer, called after its class, with numbered weights."""

    def __init__(self, reader: DatasetReader, refuse: Refuse) -> None:
        self._reader = reader
        self._refuse = refuse

    def read(self, names: Steps, slots: Steps, parameters: Sequence[Steps]) -> list[NDArray[np.float32]]:
        """Return all parameters of a layer, in their order."""
        path: Steps = ()
        for slot in slots:
            inside = self._reader.open(path)
            path = (*path, next((name for name in _CONTAINERS if name in inside), _CONTAINERS[0]), slot)
        group = self._reader.open((*path, "vars"))
        # Older files say no name.
        stored = group.attrs.get("name", names[-1])
        if len(group) != len(parameters) or stored != names[-1]:
            raise self._refuse(
                f"{len(group)} weights of {shorten(stored)} where {len(parameters)} of {shorten(names[-1])} belong"
            )
        return [self._reader.read((*path, "vars", str(number))) for number in range(len(parameters))]
