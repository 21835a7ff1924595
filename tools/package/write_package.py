"""Write a package: the network's sources, an example, and what the build system wants to be told."""

from __future__ import annotations

import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.errors import AGAIN, ArtifactError
from thumbnet.compile.manifest import PACKAGE, refuse_other_kinds
from thumbnet.compile.replaced_folder import replaced_folder
from thumbnet.runtime_tests.mcu.firmware_build import golden_source, hash_network
from thumbnet.runtime_tests.mcu.firmware_sources import FIRMWARE
from thumbnet.targets.board import CORTEX_A_FLAGS, CORTEX_M_FLAGS
from thumbnet.tools.package.forms import FORMS, Form

_TEMPLATES = Path(__file__).with_name("templates")
#: The test server on Zephyr: what is every board's of the firmware, and the port to Zephyr's drivers.
_SERVER = (
    *("rpc.c", "network_calls.c", "network_memory.c", "frame.c", "port_zephyr.c"),
    *("rpc.h", "network_calls.h", "reply.h", "serve.h", "frame.h", "port.h", "model.h", "measure.h", "canary.h"),
)
#: Stack for the server and what Zephyr's drivers need in interrupts, beside the network's.
_SERVER_STACK_BYTES = 4096
#: What is assumed of a network whose stack is not known.
_UNKNOWN_STACK_BYTES = 8192
#: Of every file in an archive, so that equal packages are equal bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
VERSION = re.compile(r"(?:0|[1-9]\d{0,4})\.(?:0|[1-9]\d{0,4})\.(?:0|[1-9]\d{0,4})")
URL = re.compile(r"https?://[A-Za-z0-9._~/:@%+-]{1,200}")
AUTHOR = re.compile(r"[^\x00-\x1f\x7f=\"\\<>&${}#;]{1,80}")


@dataclass(frozen=True)
class Publisher:
    """Who publishes a package.

    Parameters
    ----------
    author : str
        A person or a company.
    version : str
        Of the package: three numbers.
    url : str
        Where it is from.
    """

    author: str
    version: str
    url: str

    @property
    def vendor(self) -> str:
        """The author as CMSIS-Packs name vendors."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.author).strip("_") or "thumbnet"


def write_package(artifact: Artifact, form_name: str, folder: Path, publisher: Publisher) -> list[Path]:
    """Write a network's package, which appears whole or not at all.

    Parameters
    ----------
    artifact : Artifact
        Of C sources.
    form_name : str
        One of `FORMS`.
    folder : Path
        Where to; an older package there is replaced.
    publisher : Publisher
        For the package's own description.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ArtifactError
        The artifact is no C sources, or of a board or a name that the form doesn't take; or `folder` exists and is
        neither empty nor a package.
    """
    form = FORMS[form_name]
    _check(artifact, form_name, form, publisher)
    refuse_other_kinds(folder, PACKAGE)
    context = {"form": form_name, **_context(artifact, form, publisher)}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # what is written into each of these languages holds nothing to escape: see _plain
    )
    with replaced_folder(folder) as aside:
        for name in artifact.manifest["files"]:
            if name.endswith((".c", ".h")) and "/" not in name:
                public = name == f"{artifact.name}.h"
                _copy(artifact.folder / name, aside / (form.headers if public else form.sources) / name)
        for name in _SERVER if form.server else ():
            _copy(FIRMWARE / name, aside / str(form.server) / name)
        if form.server:
            (aside / form.server / "golden.c").write_text(golden_source(artifact))
        for file, template in form.files.items():
            path = aside / file.format(**context)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(environment.get_template(template).render(context))
        if form.archive:
            _write_archive(aside, aside / form.archive.format(**context))
        write_manifest(
            aside,
            {
                "name": artifact.name,
                "kind": PACKAGE,
                "package_format": form_name,
                "version": publisher.version,
                "model": artifact.manifest["model"],
                "board": artifact.manifest["board"],
            },
        )
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check(artifact: Artifact, form_name: str, form: Form, publisher: Publisher) -> None:
    manifest, where = artifact.manifest, artifact.folder
    if manifest["kind"] != "c":
        raise ArtifactError(
            f"{where}: holds libraries for {manifest['board']}, which its own CMakeLists.txt brings into programs;"
            " packages are made of C sources"
        )
    if manifest["core"] not in {**CORTEX_M_FLAGS, **CORTEX_A_FLAGS}:
        raise ArtifactError(f"{where}: was compiled for {manifest['core']}, which this thumbnet doesn't know; {AGAIN}")
    if form_name != "cmake" and manifest["core"] not in CORTEX_M_FLAGS:
        raise ArtifactError(
            f"{where}: was compiled for {manifest['core']}; {form_name} packages are for microcontrollers, take"
            " --format cmake"
        )
    if len(artifact.name) > form.longest_name:
        raise ArtifactError(
            f"{where}: its name has {len(artifact.name)} characters, a {form_name} package takes {form.longest_name};"
            " compile it again with a shorter --name"
        )
    if form_name == "arduino" and artifact.name.startswith("arduino"):
        raise ArtifactError(
            f"{where}: only Arduino's own libraries may be called {artifact.name}; compile it with another --name"
        )
    if form_name == "arduino" and "arduino" in publisher.author.lower():
        raise ArtifactError(
            f"--author {publisher.author!r}: only Arduino's own libraries are by Arduino; name yourself"
        )


def _context(artifact: Artifact, form: Form, publisher: Publisher) -> dict[str, Any]:
    manifest, name = artifact.manifest, artifact.name
    inputs, outputs = artifact.golden()
    stack = manifest.get("footprint", {}).get("stack_bytes") or _UNKNOWN_STACK_BYTES
    files = sorted(file for file in manifest["files"] if "/" not in file)
    return {
        "name": name,
        "NAME": name.upper(),
        "pack": f"{publisher.vendor}.{name}",
        "vendor": publisher.vendor,
        "author": publisher.author,
        "version": publisher.version,
        "url": publisher.url,
        "title": _plain(f"{manifest['model'][:80]} for {manifest['board'][:40]} ({manifest['core']}), int8"),
        "board": re.sub(r"\W", "_", manifest["board"]),
        "core": manifest["core"],
        "dcore": manifest["core"].replace("cortex-m", "Cortex-M").replace("plus", "+"),
        "core_flags": CORTEX_M_FLAGS.get(manifest["core"]) or CORTEX_A_FLAGS[manifest["core"]],
        "linux": manifest["core"] not in CORTEX_M_FLAGS,
        "streamed": manifest.get("streamed_input", False),
        "caller_arena": manifest.get("caller_arena", False),
        "sources": [file for file in files if file.endswith(".c")],
        "own_headers": [file for file in files if file.endswith(".h") and file != f"{name}.h"],
        "image": _values(inputs[0]),
        "expected": _values(outputs[0]),
        "hash": hash_network(artifact),
        "stack_bytes": -(-(stack + _SERVER_STACK_BYTES) // 1024) * 1024,
        "server_sources": [*(file for file in _SERVER if file.endswith(".c")), "golden.c"] if form.server else [],
    }


def _plain(words: str) -> str:
    """Return words without what means something to CMake, YAML, XML, JSON, or a comment of C."""
    return re.sub(r"[^A-Za-z0-9 _.,:()+-]", "_", words)


def _values(array: NDArray[np.int8]) -> str:
    values = array.reshape(-1).tolist()
    lines = [", ".join(map(str, values[i : i + 20])) for i in range(0, len(values), 20)]
    return ",\n    ".join(lines)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_archive(folder: Path, archive: Path) -> None:
    """Put all files of a folder into a zip file, by their names from there on."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
