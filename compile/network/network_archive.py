"""A network in one .npz file: the layers' arrays, and the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from thumbnet.compile.errors import AGAIN, ArtifactError
from thumbnet.compile.file_access import read_arrays
from thumbnet.compile.manifest import MOST_MANIFEST_BYTES, first_fault

Read = TypeVar("Read")
Arrays = dict[str, NDArray[Any]]


def write_archive(path: Path, header: Mapping[str, Any], layers: Iterable[tuple[dict[str, Any], Arrays]]) -> None:
    """Write a network.

    Parameters
    ----------
    path : Path
        Of the .npz.
    header : mapping
        What is said of the whole network.
    layers : iterable of (dict, dict of str to ndarray)
        Each layer's scalars, ``name`` among them, and its arrays.
    """
    described: list[dict[str, Any]] = []
    arrays: Arrays = {}
    for scalars, own in layers:
        described.append(scalars)
        arrays.update({f"{scalars['name']}/{key}": array for key, array in own.items()})
    text = json.dumps({**header, "layers": described})
    np.savez_compressed(path, description=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]


def read_archive(
    path: Path,
    what: str,
    schema: type[BaseModel],
    join: Callable[[dict[str, Any], list[tuple[dict[str, Any], Arrays]]], Read],
) -> Read:
    """Read what `write_archive` wrote.

    Parameters
    ----------
    path : Path
        Of the .npz.
    what : str
        It is to be, with its article.
    schema : type
        Of the JSON.
    join : callable
        Given the header and the layers as `write_archive` takes them, makes the network; ValueError, KeyError or
        TypeError where they are none.

    Raises
    ------
    ArtifactError
        The file is no such network.
    """
    arrays = read_arrays(path)
    try:
        text = arrays.pop("description").tobytes()
        if len(text) > MOST_MANIFEST_BYTES:
            raise ValueError(f"its description has {len(text):,} bytes, {MOST_MANIFEST_BYTES:,} at most are read")
        schema.model_validate_json(text)
        header = json.loads(text)
        return join(header, [(scalars, _arrays_of(scalars["name"], arrays)) for scalars in header.pop("layers")])
    except ValidationError as error:
        raise ArtifactError(f"{path}: not {what} ({first_fault(error)}); {AGAIN}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not {what} ({error}); {AGAIN}") from error


def _arrays_of(name: str, arrays: Arrays) -> Arrays:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
