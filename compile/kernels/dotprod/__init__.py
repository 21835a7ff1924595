"""Kernels for Armv8.2-A's dot product: Cortex-A55, A76; what multiplies nothing by it is `neon`'s."""
