"""A chain of layers on the kernels of `thumbnet_neon32.h`: int8 pixels, a vector being eight or four channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from thumbnet.compile.kernels.neon.packing import DepthwisePlan
from thumbnet.compile.kernels.neon.stage import NeonStage, requantized
from thumbnet.compile.kernels.neon32.depthwise_assembly import BLOCK
from thumbnet.compile.kernels.neon32.packing import pack_lanes, plan_depthwise, plan_lanes
from thumbnet.compile.kernels.pixel_stage import Pixels
from thumbnet.compile.kernels.stage_code import Index
from thumbnet.compile.network.integer_network import Convolution, DepthwiseConvolution


class Neon32Stage(NeonStage):
    """Emits the kernel of one chain; parameters as in `RollingStage`, `window_bytes` being 1."""

    instruction_set = "neon32"
    portable_vectors = False
    headers = (Path(__file__).with_name("thumbnet_neon32.h"), *NeonStage.headers)
    block = BLOCK

    def depthwise_plan(self, layer: DepthwiseConvolution) -> DepthwisePlan:
        """Return how a depthwise layer is computed."""
        return plan_depthwise(layer)

    def _pack_convolution(self, layer: Convolution) -> dict[str, NDArray[Any]]:
        return pack_lanes(layer)

    def convolution_instructions(self, layer: Convolution, pixels: int) -> float:
        """Return the instructions of so many pixels of a convolution."""
        return plan_lanes(layer).instructions(pixels)

    def _multiply_pixels(self, index: int, source: Pixels, target: tuple[str, Index], pixels: Index) -> None:
        layer = self.layers[index]
        assert isinstance(layer, Convolution)
        plan, at = plan_lanes(layer), 0
        for before, blocks in plan.groups():
            first, width = blocks[0].first, blocks[0].width
            function = plan.function(width)
            self.definitions.append(function.definition())
            shape = (
                *(plan.inputs, source[2], plan.outputs, width, len(blocks), blocks[-1].first - first),
                *(plan.schedule_length, *requantized(layer.requantization)),
            )
            kernel = self._define_kernel("NEON32_LANES", "lanes", [function], *shape)
            self._call(
                self._shared_pixels(kernel, layer, source[2]),
                self._at(source[0], source[1]),
                self._at(target[0], target[1] + first),
                self._at(f"weight{index}", at),
                self._at(f"schedule{index}", before * plan.schedule_length),
                pixels,
            )
            at += len(blocks) * plan.block_bytes(width)
