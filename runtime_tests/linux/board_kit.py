"""A folder to copy to a board that runs Linux: the RPC server with everything it needs, and how to start it."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import jinja2

from thumbnet.compile.artifact import write_manifest
from thumbnet.compile.manifest import SERVER_KIT, refuse_other_kinds
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.replaced_folder import replaced_folder
from thumbnet.runtime_tests.linux.rpc_server_build import build_board_server
from thumbnet.targets.board import Board
from thumbnet.targets.errors import BoardError

_TEMPLATES = Path(__file__).with_name("kit")
#: The name of a version that a file needs of the C library, or of C++'s.
_VERSION = re.compile(rb"(?<=\0)(GLIBC|GLIBCXX)_([0-9.]+)(?=\0)")

#: What a person calls that which has symbols of these versions.
_NAMES = {"GLIBC": "glibc", "GLIBCXX": "libstdc++ of GLIBCXX"}


def write_kit(board: Board, folder: Path, progress: Progress = say_nothing) -> list[Path]:
    """Write the kit of a board, which appears whole or not at all.

    Parameters
    ----------
    board : Board
        Of family cortex-a, one that takes a shared library.
    folder : Path
        Where to; an older kit there is replaced.
    progress : callable
        Told before each step what is done next.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    BoardError
        There is no TVM runtime for the board.
    ArtifactError
        `folder` exists and is neither empty nor a kit.
    EmulatorMissingError
        A compiler, or TVM's runtime for the board, is missing.
    """
    if board.family != "cortex-a" or board.artifact != "library":
        raise BoardError(f"{board.name}: a {board.core} board has no server kit; name one that TVM has a runtime for")
    refuse_other_kinds(folder, SERVER_KIT)
    built = build_board_server(board, progress)
    needs = needed_versions(built)
    context = {
        "board": board,
        "tvm": importlib.metadata.version("apache-tvm"),
        "files": [file.name for file in built],
        "server": built[0].name,
        "instrument": built[1].name,
        "needs": " and ".join(f"{name} {needs[symbol]}" for symbol, name in _NAMES.items()) + ", or newer",
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # a shell script and Markdown, not HTML
    )
    with replaced_folder(folder) as aside:
        for file in built:
            shutil.copyfile(file, aside / file.name)
        for name in ("run.sh", "README.md"):
            (aside / name).write_text(environment.get_template(f"{name}.j2").render(context))
        for name in (built[0].name, "run.sh"):
            (aside / name).chmod(0o755)
        write_manifest(
            aside,
            {"name": "server_kit", "kind": SERVER_KIT, "board": board.name, "tvm": context["tvm"], "needs": needs},
        )
    return sorted(folder.iterdir())


def needed_versions(files: Sequence[Path]) -> dict[str, str]:
    """Return the newest versions of ``GLIBC`` and ``GLIBCXX`` that ELF files need, from their names of versions."""
    newest: dict[str, tuple[int, ...]] = {}
    for file in files:
        for name, version in _VERSION.findall(file.read_bytes()):
            numbers = tuple(int(part) for part in version.split(b"."))
            newest[name.decode()] = max(newest.get(name.decode(), ()), numbers)
    return {name: ".".join(map(str, numbers)) for name, numbers in newest.items()}
