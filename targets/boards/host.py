"""The computer thumbnet runs on."""

import os
import platform

from thumbnet.targets.board import Board

# "generic" is what every compiler and runtime of the machine's architecture agrees on; the triple names it.
BOARD = Board(
    name="host",
    description=f"this computer ({platform.machine()})",
    family="host",
    core=platform.machine(),
    cross_compiler="gcc",
    llvm={"mtriple": f"{platform.machine()}-linux-gnu", "num-cores": os.cpu_count() or 1},
)
