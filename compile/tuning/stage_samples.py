"""Measured stages as arrays: what cost models are trained on and tested with, and those shipped with the package.

Those shipped say what is likely before anything is measured, and nothing more: no search takes them for measurements
of its own stages, and what it measures soon outweighs them. So they serve later kernels too, only less well;
`StageSamples.kernels_digest` tells of which they are.
"""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thumbnet.compile.errors import TuningError
from thumbnet.compile.file_access import read_arrays
from thumbnet.compile.tuning.stage_features import FEATURES

#: What is shipped: made by `python -m thumbnet.tools.seed_records`.
SEEDS = Path(__file__).parent / "seeds"
_ARRAYS = ("features", "estimates", "costs", "networks", "node_pairs")


@dataclass(frozen=True)
class StageSamples:
    """Stages that were measured on one core, all for the same kind of cost.

    Parameters
    ----------
    core, kind : str
        Where, and of what cost, see `stage_record.CostKind`.
    features : ndarray
        float32 ``[n, len(FEATURES)]``.
    estimates : ndarray
        float64 ``[n]``, what kernels predict: `StagePlan.cost`.
    costs : ndarray
        float64 ``[n]``, measured, in the unit of the kind.
    networks : ndarray
        int32 ``[n]``: the place in `names` of the network a stage is of.
    node_pairs : ndarray
        int32 ``[n]``: equal for stages that compete, which compute the same layers from and to the same layouts.
    names : tuple of str
        The networks.
    kernels_digest : str
        Of the kernels' sources, see `stage_key.kernels_digest`.
    """

    core: str
    kind: str
    features: NDArray[np.float32]
    estimates: NDArray[np.float64]
    costs: NDArray[np.float64]
    networks: NDArray[np.int32]
    node_pairs: NDArray[np.int32]
    names: tuple[str, ...]
    kernels_digest: str

    @property
    def log_ratios(self) -> NDArray[np.float64]:
        """The logarithm of cost over estimate, float64 ``[n]``."""
        ratios: NDArray[np.float64] = np.log(self.costs / self.estimates)
        return ratios

    def at(self, kept: ArrayLike) -> StageSamples:
        """Return those where `kept`, boolean ``[n]``, is true."""
        places = np.flatnonzero(kept)
        return replace(self, **{name: getattr(self, name)[places] for name in _ARRAYS})

    def of(self, network: str) -> StageSamples:
        """Return those of one of the networks."""
        return self.at(self.networks == self.names.index(network))


def samples_file(core: str, kind: str) -> str:
    """Return the name of the file of a core's samples of a kind."""
    return f"{core}-{kind.replace(' ', '-')}.npz"


def encode_samples(samples: StageSamples) -> bytes:
    """Return the content of a file that `load_samples` reads: an .npz of the fields and the features' names."""
    fields = {field.name: np.array(getattr(samples, field.name)) for field in dataclasses.fields(samples)}
    fields["features"] = samples.features.astype(np.float16)  # half the size, and far more exact than any model
    file = io.BytesIO()
    np.savez_compressed(file, feature_names=np.array(FEATURES), **fields)  # type: ignore[arg-type]
    return file.getvalue()


def load_samples(path: Path) -> StageSamples:
    """Read what `encode_samples` made.

    Raises
    ------
    ArtifactError
        The file can't be read.
    TuningError
        It is none of measured stages, or has other features than this version's.
    """
    arrays = read_arrays(path)
    names = {field.name for field in dataclasses.fields(StageSamples)}
    if set(arrays) != names | {"feature_names"}:
        raise TuningError(f"{path}: holds no measured stages; `python -m thumbnet.tools.seed_records` makes them")
    if tuple(arrays["feature_names"]) != FEATURES:
        raise TuningError(
            f"{path}: has features of another version; `python -m thumbnet.tools.seed_records` makes it again"
        )
    return StageSamples(
        core=str(arrays["core"]),
        kind=str(arrays["kind"]),
        names=tuple(map(str, arrays["names"])),
        kernels_digest=str(arrays["kernels_digest"]),
        **{name: arrays[name] for name in _ARRAYS} | {"features": arrays["features"].astype(np.float32)},
    )


def load_seeds(core: str, kind: str) -> StageSamples | None:
    """Return the samples shipped for a core and a kind of cost; None where there are none.

    For measured cycles those of predicted ones are taken: the ratios differ, but rank alike.
    """
    path = SEEDS / samples_file(core, "predicted cycles" if kind == "cycles" else kind)
    return load_samples(path) if path.exists() else None
