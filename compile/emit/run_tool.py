"""Running compilers and what belongs to them: one line where they fail, and nothing left of one that is killed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from thumbnet.compile.errors import ToolchainError


def run_tool(command: Sequence[str], folder: Path) -> str:
    """Run a compiler or one of its companions in a folder, and return what it printed.

    Raises
    ------
    ToolchainError
        It can't be run, or fails; with the first error it names.
    """
    try:
        # The compiler's own temporary files in there too: one that is killed leaves them.
        environment = {**os.environ, "TMPDIR": str(folder)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ToolchainError(f"{command[0]} can't be run ({error.strerror})") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line or "undefined" in line), lines[-1] if lines else "")
        raise ToolchainError(f"{Path(command[0]).name} failed: {first}")
    return done.stdout
