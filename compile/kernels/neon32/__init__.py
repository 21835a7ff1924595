"""int8 kernels for 32-bit Arm with Advanced SIMD (Cortex-A7 and other Armv7-A)."""
