"""Kernels for the M-profile Vector Extension of Armv8.1-M: Cortex-M55."""
