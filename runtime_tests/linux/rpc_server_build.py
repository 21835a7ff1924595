"""Build what runs on a Linux board: the native TVM RPC server and the instrument that measures inside it.

Both are linked to TVM's runtime libraries of the board's architecture. The host's lie in the installed package; those
of AArch64 are taken out of the AArch64 wheels of the very versions that are installed, which pip downloads once (94 MB,
of which 6 MB are kept). Everything is kept in the user's cache folder (``$XDG_CACHE_HOME/thumbnet`` or
``~/.cache/thumbnet``), so that the next start is quick and needs no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.emit.export_library import find_compiler
from thumbnet.compile.errors import ToolchainError
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.runtime_tests.errors import EmulatorMissingError
from thumbnet.runtime_tests.qemu_plugin import first_error
from thumbnet.runtime_tests.run_folder import cache_folder
from thumbnet.targets.board import Board

NATIVE = Path(__file__).resolve().parent / "native"

#: The libraries of TVM that a server needs; the extra one fills tuning's arguments with random numbers.
_RUNTIME_LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so")
_PACKAGES = ("apache-tvm-ffi", "apache-tvm")
_AARCH64_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_24_aarch64", "manylinux2014_aarch64")
_FLAGS = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class ServerFiles:
    """A built server.

    Parameters
    ----------
    server : Path
        The executable ``thumbnet_rpc_server``, see native/rpc_server.cc.
    instrument : Path
        The library it loads, see native/instrument.cc.
    """

    server: Path
    instrument: Path


def build_server(board: Board, progress: Progress = say_nothing) -> ServerFiles:
    """Build the RPC server and the instrument for a Linux board, or find them built.

    `progress` is told before each step what is done next; of what is built already there is nothing to tell.

    Raises
    ------
    EmulatorMissingError
        A compiler, or TVM's runtime for the board's architecture, is missing.
    """
    libraries = _runtime_libraries(board, progress)
    folders = sorted({str(library.parent) for library in libraries})
    # The server needs the third library though it names nothing of it: it registers functions.
    links = ["-Wl,--no-as-needed", *map(str, libraries), *(f"-Wl,-rpath,{folder}" for folder in folders), "-ldl"]
    server = _compile(board, "rpc_server.cc", "thumbnet_rpc_server", links, progress)
    return ServerFiles(server, build_instrument(board, progress))


def build_board_server(board: Board, progress: Progress = say_nothing) -> list[Path]:
    """Build what a board needs that serves itself, see native/board_server.cc; `progress` as in `build_server`.

    Returns
    -------
    list of Path
        The executable ``thumbnet_board_server``, the instrument, and TVM's runtime libraries, which it looks for beside
        itself.

    Raises
    ------
    EmulatorMissingError
        As `build_server`.
    """
    libraries = _runtime_libraries(board, progress)
    links = ["-Wl,--no-as-needed", *map(str, libraries), "-Wl,-rpath,$ORIGIN", "-ldl"]
    server = _compile(board, "board_server.cc", "thumbnet_board_server", links, progress)
    return [server, build_instrument(board, progress), *libraries]


def build_instrument(board: Board, progress: Progress = say_nothing) -> Path:
    """Build the instrument alone: for boards whose server somebody else started, which it is uploaded to.

    Raises
    ------
    EmulatorMissingError
        As `build_server`.
    """
    libraries = _runtime_libraries(board, progress)[:2]
    # nodelete: the functions it registers stay when the module it was loaded as goes.
    options = ["-shared", "-fPIC", "-Wl,-z,nodelete", *map(str, libraries), "-ldl"]
    return _compile(board, "instrument.cc", "libthumbnet_instrument.so", options, progress)


def _compile(board: Board, source: str, result: str, options: Sequence[str], progress: Progress) -> Path:
    """Compile one file into a cache folder that is named by everything the result depends on."""
    compiler = _find_compiler(board.cross_compiler.removesuffix("gcc") + "g++")
    includes = ["-isystem", str(_package_folder("tvm_ffi") / "include")]
    command = [compiler, *_FLAGS, *includes, str(NATIVE / source), *options]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    sources = (file.read_text() for file in (NATIVE / source, *sorted(NATIVE.glob("*.h"))))
    facts = [*command, version, *map(importlib.metadata.version, _PACKAGES), *sources]
    path = cache_folder("native") / hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16] / result

    def compile_aside(aside: Path) -> None:
        progress(f"compiling {source} for {board.core}")
        done = subprocess.run([*command, "-o", str(aside)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EmulatorMissingError(f"{compiler} can't build {source}: {first_error(done.stderr)}")

    _make_once(path, compile_aside)
    return path


def _find_compiler(name: str) -> str:
    try:
        return find_compiler(name)
    except ToolchainError as error:
        raise EmulatorMissingError(f"the device needs a compiler: {error}") from error


def _runtime_libraries(board: Board, progress: Progress) -> tuple[Path, ...]:
    if board.family == "host":
        packages = zip(("tvm_ffi", "tvm", "tvm"), _RUNTIME_LIBRARIES, strict=True)
        libraries = tuple(_package_folder(package) / "lib" / name for package, name in packages)
        return _check_there(libraries, "reinstall the packages " + " and ".join(_PACKAGES))
    if not str(board.llvm.get("mtriple", "")).startswith("aarch64"):
        raise EmulatorMissingError(
            f"{board.name}: TVM's package has a runtime for AArch64 and this computer, none for {board.core}"
        )
    folder = _aarch64_runtime(progress)
    libraries = tuple(folder / name for name in _RUNTIME_LIBRARIES)
    return _check_there(libraries, f"delete the folder {folder}, and it is fetched again")


def _check_there(libraries: tuple[Path, ...], way_out: str) -> tuple[Path, ...]:
    missing = [library for library in libraries if not library.is_file()]
    if missing:
        raise EmulatorMissingError(f"{missing[0]} of TVM's runtime is missing; {way_out}")
    return libraries


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmulatorMissingError(f"the Python package {package} is not installed; `make demo` installs everything")
    return Path(spec.origin).parent


def _aarch64_runtime(progress: Progress) -> Path:
    """Return the folder of TVM's runtime libraries for AArch64, which pip fetches the first time."""
    requirements = [f"{package}=={importlib.metadata.version(package)}" for package in _PACKAGES]
    folder = cache_folder("runtime") / ("aarch64-" + "-".join(item.partition("==")[2] for item in requirements))

    def extract_libraries(aside: Path) -> None:
        aside.mkdir()
        progress("downloading TVM's runtime for AArch64 with pip, 94 MB, once")
        with tempfile.TemporaryDirectory() as wheels:
            _download_wheels(requirements, Path(wheels))
            for wheel in Path(wheels).glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    for member in archive.namelist():
                        name = member.rpartition("/")[2]
                        if name in _RUNTIME_LIBRARIES:
                            (aside / name).write_bytes(archive.read(member))
        missing = [name for name in _RUNTIME_LIBRARIES if not (aside / name).is_file()]
        if missing:
            raise EmulatorMissingError(f"the AArch64 wheels of {', '.join(requirements)} lack {', '.join(missing)}")

    _make_once(folder, extract_libraries)
    return folder


def _download_wheels(requirements: Sequence[str], folder: Path) -> None:
    platforms = [option for platform in _AARCH64_PLATFORMS for option in ("--platform", platform)]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", *platforms, "--python-version", version, "--dest", str(folder), *requirements),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr.strip()[-200:])
        raise EmulatorMissingError(
            f"emulated AArch64 boards need TVM's AArch64 wheels once and pip can't get them ({said.strip()}); "
            f"connect to the network, or put both ({', '.join(requirements)}) into a folder named by PIP_FIND_LINKS"
        )


def _make_once(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file or folder aside and rename it to `path`, unless it is there; one process at a time."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            aside = Path(folder) / path.name
            make(aside)
            aside.replace(path)
