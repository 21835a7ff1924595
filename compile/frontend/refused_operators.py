"""What a network would take that has an operator without a form here."""

from __future__ import annotations

_WAYS_OUT = {
    "hardswish": "train it with ReLU6 in its place, as MobileNet V2 and EfficientNet-Lite have it",
    "silu": "train it with ReLU6 in its place, as EfficientNet-Lite has it",
    "gelu": "train it with ReLU6 in its place",
    "hardsigmoid": "it gates a squeeze-and-excite, which would have to be trained away",
    "sigmoid": "at the end leave it out, a class has the largest logit with and without; elsewhere train it away",
    "mul": "two activations are multiplied, as squeeze-and-excite does; take a network without (EfficientNet-Lite)",
    "cat": "channels are joined, where only sums of one shape have kernels; train with a residual sum in its place",
    "leaky_relu": "train it with ReLU in its place",
    "prelu": "train it with ReLU in its place",
    "elu": "train it with ReLU in its place",
    "tanh": "train it with ReLU6 in its place",
    "sum": "take the mean over rows and columns, x.mean((2, 3)); the next layer learns the factor",
    "chunk": "a part of the channels has no form here; give each part a convolution of its own",
    "split": "a part of the channels has no form here; give each part a convolution of its own",
    "index": "values are picked or put in another order; do so in the weights, or in the images",
    "softmax": "at the end it is left out, over the classes; elsewhere, as in attention, train it away",
    "scaled_dot_product_attention": "attention multiplies activations; take a network of convolutions",
    "matmul": "take nn.Linear for weights; products of two activations, as in attention, have no form here",
    "upsample_nearest2d": "networks that classify have no use for it",
    "conv_transpose2d": "networks that classify have no use for it",
    "conv1d": "take a convolution over images of one row",
    "layer_norm": "train it with batch norms, which become part of the convolutions",
    "group_norm": "train it with batch norms, which become part of the convolutions",
    "permute": "keep the order of PyTorch's axes: batch, channels, rows, columns",
    "transpose": "keep the order of PyTorch's axes: batch, channels, rows, columns",
}


def what_it_would_take(operator: str, path: str) -> str:
    """Return the way out for an operator of PyTorch's, by its name, in the module of that path."""
    if operator in _WAYS_OUT:
        return _WAYS_OUT[operator]
    where = f" at {path}" if path else ""
    return f"replace it{where} by convolutions, batch norms, ReLU or ReLU6, sums, pools or linear layers"
