"""The artifact: a folder of files, and a manifest.json that says what they are and what to expect of them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from thumbnet.compile.errors import AGAIN, ArtifactError, explain_os_error
from thumbnet.compile.file_access import hash_file, read_arrays, walk_folder
from thumbnet.compile.manifest import FORMAT, GOLDEN_FILE, MANIFEST, read_manifest


@dataclass(frozen=True)
class Artifact:
    """A compiled network on disk.

    Parameters
    ----------
    folder : Path
        Where it lies.
    manifest : dict
        Contents of manifest.json, as `thumbnet.compile.manifest.Manifest` has it;
        `thumbnet.compile.compile_model.compile_model` writes its keys.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read a folder and check every file against its hash.

        Raises
        ------
        ArtifactError
            Not an artifact, another format, a manifest that says what none can, or a file missing, changed or a link.
        """
        path = folder / MANIFEST
        try:
            if not os.path.lexists(path):
                raise ArtifactError(f"{folder}: no {MANIFEST} there; `thumbnet compile ... -o {folder}` makes one")
            manifest = read_manifest(path)
            _refuse_links(folder)
            for name, digest in manifest["files"].items():
                if not os.path.lexists(folder / name):
                    raise ArtifactError(f"{folder}: {name} is missing; {AGAIN}")
                if hash_file(folder / name) != digest:
                    raise ArtifactError(f"{folder / name}: changed since it was compiled; delete it and {AGAIN}")
            # Compilers run in folders of their own: a relative path would mean another place there.
            artifact = cls(folder.resolve(), manifest)
        except OSError as error:
            raise ArtifactError(explain_os_error(error, folder)) from error
        if "golden" in manifest:
            artifact.golden()
        return artifact

    @property
    def name(self) -> str:
        """The network's name as a C identifier; also the stem of the files."""
        return str(self.manifest["name"])

    def golden(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the built-in inputs ``[n, H, W, C]`` and their expected outputs ``[n, classes]``.

        Raises
        ------
        ArtifactError
            There are none, or they are not what the manifest says the network takes and gives.
        """
        path = self.folder / GOLDEN_FILE
        arrays = read_arrays(path)
        found = []
        for key in ("input", "output"):
            wanted, array = self.manifest[key], arrays.get(f"{key}s")
            if array is None or array.dtype != wanted["dtype"] or list(array.shape[1:]) != list(wanted["shape"]):
                has = "none" if array is None else f"{array.dtype} {list(array.shape)}"
                raise ArtifactError(
                    f"{path}: {key}s must be {wanted['dtype']} [n, {str(list(wanted['shape']))[1:]}, not {has}; {AGAIN}"
                )
            found.append(array)
        inputs, outputs = found
        if not len(inputs) or len(inputs) != len(outputs):
            raise ArtifactError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs; {AGAIN}")
        return inputs, outputs


def _refuse_links(folder: Path) -> None:
    """Refuse links and devices, listed or not: what they lead to is not the artifact's."""
    for entry in walk_folder(folder):
        if entry.is_symlink():
            raise ArtifactError(f"{entry.path}: is a link, an artifact has none; {AGAIN}")
        if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
            raise ArtifactError(f"{entry.path}: is no regular file; {AGAIN}")


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write manifest.json with the hashes of all other files of the folder."""
    files = {
        str(path.relative_to(folder)): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    text = json.dumps({"format": FORMAT, **manifest, "files": files}, indent=2)
    (folder / MANIFEST).write_text(text + "\n")
