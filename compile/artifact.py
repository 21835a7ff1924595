"""The artifact: a folder of files, and a manifest.json that says what they are and what to expect of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.errors import ArtifactError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    """A compiled network on disk.

    Parameters
    ----------
    folder : Path
        Where it lies.
    manifest : dict
        Contents of manifest.json; `thumbnet.compile.compile_model.compile_model` writes its keys.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read a folder and check every file against its hash.

        Raises
        ------
        ArtifactError
            Not an artifact, another format, or a file missing or changed.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ArtifactError(f"{folder}: no {MANIFEST} there; `thumbnet compile ... -o {folder}` makes one")
        try:
            manifest = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}: not JSON ({error}); compile the network again") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
            raise ArtifactError(f"{path}: format {found}, this thumbnet reads {FORMAT}; compile the network again")
        files = manifest.get("files")
        if not isinstance(files, dict):
            raise ArtifactError(f"{path}: lists no files; compile the network again")
        for name, digest in files.items():
            file = folder / name
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ArtifactError(f"{path}: {name} points outside the artifact")
            if not file.is_file():
                raise ArtifactError(f"{folder}: {name} is missing; compile the network again")
            if hash_file(file) != digest:
                raise ArtifactError(f"{file}: changed since it was compiled; compile the network again")
        # Compilers run in folders of their own: a relative path would mean another place there.
        return cls(folder.resolve(), manifest)

    @property
    def name(self) -> str:
        """The network's name as a C identifier; also the stem of the files."""
        return str(self.manifest["name"])

    def golden(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the built-in inputs ``[n, H, W, C]`` and their expected outputs ``[n, classes]``."""
        with np.load(self.folder / "golden.npz", allow_pickle=False) as arrays:
            return arrays["inputs"], arrays["outputs"]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write manifest.json with the hashes of all other files of the folder."""
    files = {
        str(path.relative_to(folder)): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    text = json.dumps({"format": FORMAT, **manifest, "files": files}, indent=2)
    (folder / MANIFEST).write_text(text + "\n")


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of `folder` when the block ends without error.

    An artifact is thus whole or not there: a failure or Ctrl-C leaves what was at `folder` untouched.

    Raises
    ------
    ArtifactError
        `folder` exists and is neither empty nor an artifact.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file())):
        raise ArtifactError(f"{folder}: exists and is not an artifact; name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            folder.replace(old)
            aside.replace(folder)
            shutil.rmtree(old)
        else:
            aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
