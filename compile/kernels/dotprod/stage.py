"""A chain of layers on the kernels of `thumbnet_dotprod.h` and `thumbnet_neon.h`, as one TIR function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from thumbnet.compile.kernels.dotprod.packing import pack_sdot, pack_sdot_depthwise, plan_sdot, plan_sdot_depthwise
from thumbnet.compile.kernels.neon.packing import DepthwisePlan
from thumbnet.compile.kernels.neon.stage import NeonStage, requantized
from thumbnet.compile.kernels.pixel_stage import Pixels
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.integer_network import Convolution, DepthwiseConvolution
from thumbnet.compile.network.layers import ConvolutionLayer


class DotprodStage(NeonStage):
    """Emits the kernel of one chain; parameters as in `RollingStage`, `window_bytes` being 1."""

    instruction_set = "dotprod"
    headers = (Path(__file__).with_name("thumbnet_dotprod.h"), *NeonStage.headers)

    depthwise_macro = "DOTPROD_DEPTHWISE"

    def depthwise_plan(self, layer: DepthwiseConvolution) -> DepthwisePlan:
        """Return how a depthwise layer is computed."""
        return plan_sdot_depthwise(layer) if layer.kernel == (3, 3) else super().depthwise_plan(layer)

    def _pack_depthwise(self, layer: DepthwiseConvolution) -> dict[str, NDArray[Any]]:
        return pack_sdot_depthwise(layer) if layer.kernel == (3, 3) else super()._pack_depthwise(layer)

    def _pack_convolution(self, layer: Convolution) -> dict[str, NDArray[Any]]:
        return pack_sdot(layer)

    def convolution_instructions(self, layer: Convolution, pixels: int) -> float:
        """Return the instructions of so many pixels of a convolution."""
        return plan_sdot(layer).instructions(pixels)

    def channel_tiles(self, layer: ConvolutionLayer) -> int:
        """Return how often a convolution goes over its pixels: once for each tile of output channels."""
        assert isinstance(layer, Convolution)
        return sum(group.tiles for group in plan_sdot(layer).groups)

    def _multiply_pixels(self, index: int, source: Pixels, target: tuple[str, Index], pixels: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        plan, at = plan_sdot(layer), 0
        for group in plan.groups:
            functions = plan.functions(group.channels)
            self.definitions += [function.definition("TN_DOTPROD_FN") for function in functions]
            channels = layer.output_shape[2]
            shape = (
                *(plan.inputs, source[2], channels, group.channels, group.tiles),
                *requantized(layer.requantization),
            )
            kernel = self._define_kernel("DOTPROD_POINTWISE", "pointwise", functions, *shape)
            weight = self._at(f"weight{index}", at)
            self._call(
                self._shared_pixels(kernel, layer, source[2]),
                self._at(source[0], source[1]),
                self._at(target[0], target[1] + group.first),
                *(weight, weight, pixels),
            )
            at += group.tiles * plan.tile_bytes(group.channels)
