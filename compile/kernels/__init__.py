"""Layers and chains of layers as TIR, a folder for each instruction set with its micro-kernels in C beside it."""
