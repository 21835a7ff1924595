"""What a network costs: multiply-accumulates, parameters, memory; beside the same with standard convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from thumbnet.models.stored import LayerKind, list_units
from thumbnet.models.variants import ModelSpec, build_model

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCost:
    """The cost of one convolution or linear layer.

    Parameters
    ----------
    name : str
        Path of its module.
    kind : {"conv", "depthwise", "linear"}
        What it is.
    kernel, stride : int
        Elements along one axis; 1 for linear.
    input_shape, output_shape : tuple of int
        ``[H, W, C]``, or ``[C]`` for linear.
    macs : int
        Multiply-accumulates of one inference.
    parameters : int
        Weights, and the classifier's biases. Batch norms are not counted, as in the papers.
    standard_macs, standard_parameters : int
        The same with standard convolutions: a depthwise convolution and the pointwise one after it become one 3x3
        convolution from the former's inputs to the latter's outputs. The sum stands at the depthwise layer, the
        pointwise one has 0.
    alive : int
        Elements in memory while it runs when whole layers run one after the other: its input, its output and, inside
        a residual block, the block's input that the add still needs (the add takes the place of one of its inputs).
    """

    name: str
    kind: LayerKind
    kernel: int
    stride: int
    input_shape: Shape
    output_shape: Shape
    macs: int
    parameters: int
    standard_macs: int
    standard_parameters: int
    alive: int


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Parameters
    ----------
    layers : tuple of LayerCost
        In the order of execution.
    largest_activation : (str, int)
        The layer whose output, or ``"input"``, is the largest single tensor, and its elements.
    largest_alive : (str, int)
        The layer at which the most elements have to be in memory at once, and their number (`LayerCost.alive`).
        Elements are bytes in int8 and four bytes in float32.
    """

    layers: tuple[LayerCost, ...]
    largest_activation: tuple[str, int]
    largest_alive: tuple[str, int]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights and the classifier's biases."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def standard_macs(self) -> int:
        """Multiply-accumulates of the same network with standard convolutions."""
        return sum(layer.standard_macs for layer in self.layers)

    @property
    def standard_parameters(self) -> int:
        """Parameters of the same network with standard convolutions."""
        return sum(layer.standard_parameters for layer in self.layers)


def compute_cost(spec: ModelSpec) -> Cost:
    """Count what one inference of a network costs.

    The shapes come from running the network itself without data, the counts from the formulas of the MobileNet V1
    paper (section 3.1): ``k * k * in / groups * out * H * W`` multiply-accumulates with the output's height and width.
    """
    with torch.device("meta"):
        network = build_model(spec).eval()
        image = torch.empty(1, *spec.input_shape)
        shapes = _trace_shapes(network, image)
    units = list_units(network)
    layers = []
    for position, unit in enumerate(units):
        inputs, outputs = shapes[unit.path]
        kernel = 1 if isinstance(unit.module, nn.Linear) else unit.module.kernel_size[0]
        bias = 0 if unit.module.bias is None else unit.module.bias.numel()
        weights = unit.module.weight.numel()
        area = math.prod(outputs[:-1])
        standard_weights, standard_area = weights, area
        if unit.kind == "depthwise":
            # The pointwise layer that follows has the same height and width.
            standard_weights = kernel * kernel * inputs[-1] * shapes[units[position + 1].path][1][-1]
        elif position and units[position - 1].kind == "depthwise":
            standard_weights = 0
        layers.append(
            LayerCost(
                unit.path,
                unit.kind,
                kernel,
                unit.stride,
                inputs,
                outputs,
                weights * area,
                weights + bias,
                standard_weights * standard_area,
                standard_weights + bias,
                _count_alive(unit.path, shapes),
            )
        )
    peak = max(layers, key=lambda layer: layer.alive)
    return Cost(tuple(layers), _find_largest(layers), (peak.name, peak.alive))


def _trace_shapes(network: nn.Module, image: torch.Tensor) -> dict[str, tuple[Shape, Shape]]:
    """Run a network on the meta device and return every module's input and output shape by its path."""
    shapes: dict[str, tuple[Shape, Shape]] = {}

    def watch(path: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            shapes[path] = (_channels_last(inputs[0]), _channels_last(output))

        return hook

    for path, module in network.named_modules():
        module.register_forward_hook(watch(path))
    network(image)
    return shapes


def _channels_last(tensor: torch.Tensor) -> Shape:
    channels, *area = tensor.shape[1:]
    return (*area, channels)


def _find_largest(layers: list[LayerCost]) -> tuple[str, int]:
    sizes = [("input", math.prod(layers[0].input_shape))]
    sizes += [(layer.name, math.prod(layer.output_shape)) for layer in layers]
    return max(sizes, key=lambda entry: entry[1])


def _count_alive(path: str, shapes: dict[str, tuple[Shape, Shape]]) -> int:
    inputs, outputs = shapes[path]
    alive = math.prod(inputs) + math.prod(outputs)
    block, inside, _ = path.partition(".conv.")
    # Inside a residual block (nothing else keeps its shape) the block's input waits for the add. The block's first
    # layer reads it, so there it is counted already.
    if inside and shapes[block][0] == shapes[block][1] and path != f"{block}.conv.0.0":
        alive += math.prod(shapes[block][0])
    return alive
