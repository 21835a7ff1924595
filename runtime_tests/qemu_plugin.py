"""Plugins for QEMU, built on this computer."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.guarded_process import run_guarded
from thumbnet.runtime_tests.run_folder import cache_folder, run_folder

_API = Path(__file__).with_name("qemu_plugin_api.h")
_FLAGS = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")


def build_plugin(source: Path) -> Path:
    """Return a plugin's shared library, built by this computer's gcc the first time.

    Parameters
    ----------
    source : Path
        Its C file.

    Raises
    ------
    ToolchainError
        gcc is missing or failed.
    """
    gcc = shutil.which("gcc")
    if gcc is None:
        raise ToolchainError("gcc is not installed, QEMU's plugins need it; `apt install gcc libc6-dev`")
    digest = hashlib.sha256(source.read_bytes() + _API.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    library = cache_folder("plugins") / f"{source.stem}-{digest}.so"
    if library.is_file():
        return library
    with tempfile.TemporaryDirectory(dir=run_folder()) as folder:
        aside = Path(folder) / library.name
        done = run_guarded([gcc, *_FLAGS, "-I", str(_API.parent), "-o", str(aside), str(source)])
        if done.returncode != 0:
            raise ToolchainError(f"{source.name}: gcc failed: {first_error(done.stderr)}")
        aside.replace(library)
    return library


def first_error(output: str) -> str:
    """Return the line of a compiler's or linker's output that says what is wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("collect2:")]
    return next((line for line in lines if "error" in line), lines[-1] if lines else "no output")
