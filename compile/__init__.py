"""From a PyTorch module to an artifact for one board: quantize, import, lower, plan, emit, tune."""
