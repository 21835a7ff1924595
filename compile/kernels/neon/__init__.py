"""Kernels for Armv8-A's Advanced SIMD without dot product: Cortex-A53, A72."""
