"""MobileNet V1 and V2 in PyTorch: definitions, published variants, weights, preprocessing, cost."""
