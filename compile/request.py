"""What the compiler is asked for: a network, a board, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thumbnet.compile.errors import CompileError
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.symbol_prefix import c_name, check_symbol_prefix
from thumbnet.targets.board import Board

if TYPE_CHECKING:  # the options are there at once for the command line; torch takes seconds
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

QuantizeMode = Literal["int8", "none"]
#: How activations get their ranges.
RangeMethod = Literal["minmax", "percentile", "mse", "auto"]
#: What a plan is to need little of.
Objective = Literal["cycles", "instructions"]
#: Who has the arena.
ArenaOwner = Literal["own", "caller"]


@dataclass(frozen=True)
class CompileOptions:
    """How to compile; `check_options` says which boards take which.

    Parameters
    ----------
    quantize : {"int8", "none"}
        int8, or float32 (boards that take a shared library only).
    ranges : {"minmax", "percentile", "mse", "auto"}, optional
        How int8's ranges come from calibration images; without it by least squared error, where no ranges are known.
    equalize : bool
        Bring the sizes of channels together first, see `thumbnet.compile.post_training.equalize`.
    correct_biases : bool
        Take what int8 moves the channels' means by back out of the biases.
    tuning : Path, optional
        Folder of tuning records to apply: of stages, or for boards that take a shared library of TVM's schedules.
    emulated_records : bool
        Apply records of stages that were made on emulated boards, where there are none of real ones.
    untuned : bool
        Leave the records out that come with the package for the bundled networks.
    ram_limit : int, optional
        Boards with our own kernels: bytes the arena should not pass. Without it, microcontrollers get a smaller arena
        for a few percent more instructions.
    stream_input : bool
        Boards that take C sources: the program gives the image row by row as the network asks for it; it needs no RAM.
    keep_dead_channels : bool
        Leave channels in that are proven to have no influence on the output.
    arena : {"own", "caller"}
        Boards that take C sources: the network has its arena, or is given one by the program at each call.
    name : str, optional
        What the network is called in C, see `thumbnet.compile.symbol_prefix`; two in one program need two names.
        Without it a name is made of the model's.
    objective : {"cycles", "instructions"}, optional
        Boards with our own kernels: what the plan is to need little of, as predicted. Without it cycles, where the core
        has a model of them.
    """

    quantize: QuantizeMode = "int8"
    ranges: RangeMethod | None = None
    equalize: bool = False
    correct_biases: bool = False
    tuning: Path | None = None
    emulated_records: bool = False
    untuned: bool = False
    ram_limit: int | None = None
    stream_input: bool = False
    keep_dead_channels: bool = False
    objective: Objective | None = None
    arena: ArenaOwner = "own"
    name: str | None = None

    @property
    def prepares(self) -> bool:
        """Whether something is done to the float network, or its ranges are not left to the quantizer."""
        return self.ranges is not None or self.equalize or self.correct_biases


#: int8, for speed, with all channels that matter.
DEFAULT_OPTIONS = CompileOptions()


@dataclass(frozen=True)
class PixelRule:
    """From an image to a network's input, as the program on the board has to do it too.

    Parameters
    ----------
    mean, std : tuple of float
        One value a channel, in units of a pixel (0 to 255): the real value is ``(pixel - mean) / std``.
    geometry : str
        How an image is cropped and resized, in words, one line.
    assumptions : tuple of str
        What of this and of the network nobody has said, one line each.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: str
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompileRequest:
    """What to compile, and how.

    Parameters
    ----------
    name : str
        The network's name; where the options have none in C, that is made from it.
    module : nn.Module
        In eval mode, float32 NCHW to logits.
    input_shape : (C, H, W)
        Of one image.
    board : Board
        Where it is to run.
    options : CompileOptions
        How.
    calibration : sequence of torch.Tensor
        Inputs ``[1, C, H, W]`` that give the ranges int8 needs where `activation_quant` lacks them.
    activation_quant, weight_scales
        Known quantization, see `thumbnet.compile.frontend.quantizer.MobileNetQuantizer`.
    golden_images : sequence of torch.Tensor
        Inputs ``[1, C, H, W]`` for the golden vectors; the calibration's first ones by default.
    pixel_rule : PixelRule, optional
        For the generated header and the example program.
    manifest : mapping
        What the caller wants to be in the manifest too.
    write_extra : callable
        Given the unfinished artifact's ``host`` folder, writes what the caller wants to keep there.
    progress : callable
        Told before each step what is done next.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, int, int]
    board: Board
    options: CompileOptions = DEFAULT_OPTIONS
    calibration: Sequence[torch.Tensor] = ()
    activation_quant: Mapping[str, tuple[float, int]] | None = None
    weight_scales: Mapping[str, NDArray[np.float32]] | None = None
    golden_images: Sequence[torch.Tensor] = ()
    pixel_rule: PixelRule | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    write_extra: Callable[[Path], None] = lambda _: None
    progress: Progress = say_nothing

    @property
    def c_name(self) -> str:
        """What the network is called in C: prefix of its symbols, stem of its files."""
        return self.options.name or c_name(self.name)


def check_options(options: CompileOptions, board: Board) -> None:
    """Check that a board takes what is asked for.

    Raises
    ------
    CompileError
        Naming the option to leave out, or to change.
    """
    if options.name is not None:
        check_symbol_prefix(options.name)
    if options.untuned and options.tuning is not None:
        raise CompileError(
            f"--untuned leaves records out, and --tuning {options.tuning} asks for some; take one of them"
        )
    if options.quantize == "none" and options.prepares:
        raise CompileError(
            "--ranges, --equalize and --correct-biases are about int8; leave them out, or --quantize none"
        )
    if board.artifact == "c":
        if options.quantize == "none":
            raise CompileError(
                f"{board.name} runs int8 networks only; leave --quantize none to boards that take a shared library"
            )
        return
    if options.stream_input:
        raise CompileError(f"{board.name}: --stream-input is for boards that take C sources; leave it out")
    if options.arena != "own":
        raise CompileError(f"{board.name}: --arena {options.arena} is for boards that take C sources; leave it out")
    if board.instruction_set is None:
        refuse_plan_options(options, board)


def refuse_plan_options(options: CompileOptions, board: Board) -> None:
    """Refuse what only plans of our own kernels keep, for networks that TVM lays out.

    Raises
    ------
    CompileError
        Something of it is asked for.
    """
    for name, given in (("--ram-limit", options.ram_limit), ("--objective", options.objective)):
        if given:
            raise CompileError(
                f"{board.name}: {name} plans networks on our own kernels, which this board or request does"
                " without; leave it out"
            )
