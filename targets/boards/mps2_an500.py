"""Arm MPS2 with the AN500 image."""

from thumbnet.targets.mps2 import mps2_board

BOARD = mps2_board("an500", "cortex-m7", "Cortex-M7 with FPU")
