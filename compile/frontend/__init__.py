"""PyTorch to Relax: the module quantized by torchao, imported as quantize / dequantize pairs."""
