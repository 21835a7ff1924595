"""What a person says of a network and of how to compile it: values, and the commands' options that give them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from thumbnet.compile.request import CompileOptions

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class NetworkFiles:
    """A network by name, and the files that make it a trained one.

    Parameters
    ----------
    model : str
        A name of `thumbnet models`, or of any other width and resolution.
    weights : Path, optional
        Trained weights; bundled networks have their own.
    calibration : Path, optional
        Folder of images that give int8's ranges.
    calibration_limit : int
        Images of it at most.
    classes : int, optional
        Number of classes the weights must have.
    weights_key : str, optional
        Which of several sets of weights in the file.
    """

    model: str
    weights: Path | None = None
    calibration: Path | None = None
    calibration_limit: int = 32
    classes: int | None = None
    weights_key: str | None = None


#: By the field of `NetworkFiles` and `CompileOptions` that they give.
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "model": click.argument("model"),
    "weights": click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="Trained weights."),
    "calibration": click.option(
        "--calibration",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of images that give int8's ranges; weights from a quantization-aware file bring their own, which"
        " this replaces.",
    ),
    "calibration_limit": click.option(
        "--calibration-limit", type=click.IntRange(min=1), default=32, show_default=True, help="Images at most."
    ),
    "classes": click.option("--classes", type=click.IntRange(min=1), help="Number of classes the weights must have."),
    "weights_key": click.option(
        "--weights-key", help="Which set of weights to take from a file that holds several, such as model_ema."
    ),
    "quantize": click.option("--quantize", type=click.Choice(["int8", "none"]), default="int8", show_default=True),
    "tuning": click.option(
        "--tuning", type=click.Path(path_type=Path, file_okay=False), help="Records of `thumbnet tune`."
    ),
    "ram_limit": click.option(
        "--ram-limit",
        type=click.IntRange(min=1),
        help="Microcontrollers: bytes the arena may take at most; the fewest instructions under it are chosen. Without"
        " it, the smallest arena is taken whose predicted instructions are within 7 % of the fastest's.",
    ),
    "stream_input": click.option(
        "--stream-input",
        is_flag=True,
        help="Microcontrollers: the program hands over the image row by row (a camera), so that it takes no RAM.",
    ),
    "keep_dead_channels": click.option(
        "--keep-dead-channels",
        is_flag=True,
        help="Leave channels in that are proven to have no influence on the answer, whatever the image.",
    ),
}


def network_files(command: Command) -> Command:
    """Give a command the options of a network, collected as `files`."""
    return _collected("files", NetworkFiles, [field.name for field in fields(NetworkFiles)])(command)


def compile_options(*names: str) -> Callable[[Command], Command]:
    """Give a command options of the compiler, all of them or those named, collected as `options`."""
    return _collected("options", CompileOptions, names or [field.name for field in fields(CompileOptions)])


def _collected(parameter: str, kind: type, names: Any) -> Callable[[Command], Command]:  # noqa: ANN401 - any iterable
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
