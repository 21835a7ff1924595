"""What a person says of a network and of how to compile it: values, and the commands' options that give them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from thumbnet.compile.request import CompileOptions
from thumbnet.models.given_preprocessing import (
    ACTIVATIONS,
    INTERPOLATIONS,
    PADDINGS,
    RESIZE_MODES,
    GivenPreprocessing,
    read_preprocessing_file,
)
from thumbnet.tools.skipped_images import strict_option

if TYPE_CHECKING:  # torch takes seconds
    from torch import nn

    from thumbnet.models.layers import Activation, Padding

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class NetworkFiles:
    """A network by name, the files that make it a trained one, and what a person says that they don't.

    Parameters
    ----------
    model : str
        A name of `thumbnet models`, or of any other width and resolution; ``package.module:factory`` is a person's own;
        with `module` any name.
    module : nn.Module, optional
        A person's own network that is in memory; it is left as it is.
    input_shape : (C, H, W), optional
        Of an own network's image.
    weights : Path, optional
        Trained weights; bundled networks have their own.
    weights_key : str, optional
        Which of several sets of weights in the file.
    classes : int, optional
        Number of classes the weights must have.
    calibration : Path, optional
        Folder of images that give int8's ranges.
    calibration_limit : int
        Images of it at most.
    strict : bool
        An image of it that can't be read is an error.
    preprocessing : GivenPreprocessing
        From an image to the network's input.
    padding, bn_epsilon, activation : optional
        See `thumbnet.models.conventions.Conventions`.
    """

    model: str
    weights: Path | None = None
    weights_key: str | None = None
    classes: int | None = None
    calibration: Path | None = None
    calibration_limit: int = 32
    strict: bool = False
    preprocessing: GivenPreprocessing = field(default_factory=GivenPreprocessing)
    padding: Padding | None = None
    bn_epsilon: float | None = None
    activation: Activation | None = None
    input_shape: tuple[int, int, int] | None = None
    module: nn.Module | None = None

    @property
    def is_own(self) -> bool:
        """Whether the model is a person's own module."""
        return self.module is not None or ":" in self.model


def _split_shape(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 6 for part in parts):
        raise click.BadParameter(f"{text!r} is not channels x rows x columns, such as 3x120x160")
    channels, height, width = map(int, parts)
    return channels, height, width


def _split_numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not one number, or one a channel with commas between") from error


_PREPROCESSING = tuple(part.name for part in fields(GivenPreprocessing))
_CONVENTIONS = ("padding", "bn_epsilon", "activation")
_TRAINED = (
    "model",
    "input_shape",
    "weights",
    "weights_key",
    "classes",
    "preprocessing_file",
    *_PREPROCESSING,
    *_CONVENTIONS,
)
_CALIBRATION = ("calibration", "calibration_limit", "strict")

#: By the field of `NetworkFiles`, `GivenPreprocessing` and `CompileOptions` that they give.
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "model": click.argument("model"),
    "input_shape": click.option(
        "--input",
        "input_shape",
        metavar="CxHxW",
        callback=_split_shape,
        help="Image of your own network (MODEL is package.module:factory): channels, rows and columns, such as"
        " 3x120x160.",
    ),
    "weights": click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Trained weights."),
    "weights_key": click.option(
        "--weights-key", help="Which set of weights to take from a file that holds several, such as model_ema."
    ),
    "classes": click.option("--classes", type=click.IntRange(min=1), help="Number of classes the weights must have."),
    "preprocessing_file": click.option(
        "--preprocessing",
        "preprocessing_file",
        type=click.Path(path_type=Path),
        help="TOML file of the nine options that follow (mean, resize_mode, ...); they take precedence over it.",
    ),
    "mean": click.option(
        "--mean",
        metavar="NUMBERS",
        callback=_split_numbers,
        help="The input is (pixel / 255 - mean) / std: one number for all channels, or 0.485,0.456,0.406.",
    ),
    "std": click.option("--std", metavar="NUMBERS", callback=_split_numbers),
    "resize_mode": click.option(
        "--resize-mode",
        type=click.Choice(RESIZE_MODES),
        help="squash: the centre of both axes is stretched to a square (TensorFlow). short-side: the short side is"
        " resized, the central square kept (torchvision, timm).",
    ),
    "crop_fraction": click.option(
        "--crop-fraction", type=float, metavar="FRACTION", help="Part of the image's height and width that is kept."
    ),
    "interpolation": click.option("--interpolation", type=click.Choice(INTERPOLATIONS)),
    "label_offset": click.option("--label-offset", type=int, help="1 where the network's class 0 is the background."),
    "padding": click.option(
        "--padding", type=click.Choice(PADDINGS), help="same: TensorFlow's. symmetric: PyTorch's, equal on both sides."
    ),
    "bn_epsilon": click.option("--bn-epsilon", type=float, help="Of the batch norms; 1e-3 or 1e-5 as a rule."),
    "activation": click.option("--activation", type=click.Choice(ACTIVATIONS)),
    "calibration": click.option(
        "--calibration",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of images that give int8's ranges; weights from a quantization-aware file bring their own, which"
        " this replaces, and bundled networks have images of their own.",
    ),
    "calibration_limit": click.option(
        "--calibration-limit",
        type=click.IntRange(min=1),
        default=32,
        show_default=True,
        help="Images at most, spread evenly over the folder.",
    ),
    "strict": strict_option,
    "quantize": click.option("--quantize", type=click.Choice(["int8", "none"]), default="int8", show_default=True),
    "ranges": click.option(
        "--ranges",
        type=click.Choice(["minmax", "percentile", "mse", "auto"]),
        help="How int8's ranges come from calibration images: all values; all but 0.01 % at each end; the least squared"
        " error (what is done without this option, where the weights bring no ranges); or for each tensor the one of"
        " these that changes the network's answers least, measured on the calibration images.",
    ),
    "equalize": click.option(
        "--equalize",
        is_flag=True,
        help="Bring the sizes of channels together before quantizing; the float network computes the same.",
    ),
    "correct_biases": click.option(
        "--correct-biases",
        is_flag=True,
        help="Take what int8 adds to the mean of each channel on calibration images back out of its bias.",
    ),
    "tuning": click.option(
        "--tuning", type=click.Path(path_type=Path, file_okay=False), help="Records of `thumbnet tune`."
    ),
    "emulated_records": click.option(
        "--emulated-records",
        is_flag=True,
        help="Take records of emulated boards, where --tuning has none of the real one.",
    ),
    "untuned": click.option(
        "--untuned",
        is_flag=True,
        help="Leave the records out that come with thumbnet for the bundled networks on emulated boards.",
    ),
    "ram_limit": click.option(
        "--ram-limit",
        type=click.IntRange(min=1),
        help="Bytes the arena may take at most; the plan of least --objective under it is chosen. Without it,"
        " microcontrollers take the smallest arena within 7 % of the fastest plan, boards that run Linux within"
        " 0.05 %.",
    ),
    "objective": click.option(
        "--objective",
        type=click.Choice(["cycles", "instructions"]),
        help="What the plan is to need little of, as predicted: cycles where the core has a model of them (Cortex-M3,"
        " M4, M7, M33), executed instructions elsewhere.",
    ),
    "stream_input": click.option(
        "--stream-input",
        is_flag=True,
        help="Boards that take C sources: the program hands over the image row by row (a camera), which then takes no"
        " RAM.",
    ),
    "arena": click.option(
        "--arena",
        type=click.Choice(["own", "caller"]),
        default="own",
        show_default=True,
        help="Boards that take C sources: the network has its arena, or your program gives it one at each call, which"
        " networks may share.",
    ),
    "name": click.option(
        "--name",
        metavar="PREFIX",
        help="What the network is called in C: prefix of its symbols and macros, stem of its files. Networks in one"
        " program need different ones; without it, the model's name.",
    ),
    "keep_dead_channels": click.option(
        "--keep-dead-channels",
        is_flag=True,
        help="Leave channels in that are proven to have no influence on the answer, whatever the image.",
    ),
}


def network_files(command: Command) -> Command:
    """Give a command the options of a network and its calibration, collected as `files`."""
    return _collected("files", _make_files, (*_TRAINED, *_CALIBRATION))(command)


def trained_network(command: Command) -> Command:
    """Give a command the options of a network that is not to be quantized, collected as `files`."""
    return _collected("files", _make_files, _TRAINED)(command)


def compile_options(*names: str) -> Callable[[Command], Command]:
    """Give a command options of the compiler, all of them or those named, collected as `options`."""
    return _collected("options", CompileOptions, names or [option.name for option in fields(CompileOptions)])


def _make_files(preprocessing_file: Path | None, **given: Any) -> NetworkFiles:  # noqa: ANN401 - options by name
    """Put what the file of preprocessing says where no option says otherwise."""
    said = {} if preprocessing_file is None else read_preprocessing_file(preprocessing_file)
    for name in (*_PREPROCESSING, *_CONVENTIONS):
        if given[name] is None:
            given[name] = said.get(name)
    preprocessing = GivenPreprocessing(**{name: given.pop(name) for name in _PREPROCESSING})
    return NetworkFiles(preprocessing=preprocessing, **given)


def _collected(parameter: str, kind: Callable[..., Any], names: Sequence[str]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collect(**given: Any) -> Any:  # noqa: ANN401 - a command's parameters
            value = kind(**{name: given.pop(name) for name in names})
            return command(**given, **{parameter: value})

        decorated: Any = collect
        for name in reversed(list(names)):
            decorated = OPTIONS[name](decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate
