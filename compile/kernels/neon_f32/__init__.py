"""Kernels in float32 for Armv8-A's Advanced SIMD: Cortex-A53, A72, A76."""
