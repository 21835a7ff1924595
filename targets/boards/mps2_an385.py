"""Arm MPS2 with the AN385 image."""

from thumbnet.targets.mps2 import mps2_board

BOARD = mps2_board("an385", "cortex-m3", "Cortex-M3, which has no DSP extension")
