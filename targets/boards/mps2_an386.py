"""Arm MPS2 with the AN386 image."""

from thumbnet.targets.mps2 import mps2_board

BOARD = mps2_board("an386", "cortex-m4", "Cortex-M4 with FPU", stands_for="nucleo_l4r5zi")
