"""Relax passes from quantize / dequantize pairs to integer operators, one a file; `pipeline` gives their order."""
