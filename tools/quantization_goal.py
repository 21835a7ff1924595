"""What a person wants of int8: how much accuracy it may lose, on which images, and whether to report on its layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.errors import CompileError
from thumbnet.compile.request import CompileOptions


@dataclass(frozen=True)
class QuantizationGoal:
    """What is wanted.

    Parameters
    ----------
    max_drop : float, optional
        Points of accuracy that int8 may lose.
    images : Path, optional
        Folder of images to test on.
    images_limit : int
        Of them at most.
    report : bool
        Compare each layer with float32.
    """

    max_drop: float | None = None
    images: Path | None = None
    images_limit: int = 500
    report: bool = False


def check_goal(goal: QuantizationGoal, options: CompileOptions) -> None:
    """Check that options and goal go together.

    Raises
    ------
    CompileError
        Naming the option to give or to leave out.
    """
    if goal.max_drop is not None and goal.images is None:
        raise CompileError("--max-drop is measured on images: give some (--images DIR)")
    if goal.images is not None and goal.max_drop is None and not goal.report:
        raise CompileError("--images is for --max-drop and --quantization-report: give one of them, or leave it out")
    if options.quantize == "none" and (goal.max_drop is not None or goal.report):
        raise CompileError("--max-drop and --quantization-report are about int8: leave them out, or --quantize none")
    if goal.max_drop is not None and options.prepares:
        raise CompileError(
            "--max-drop chooses the method itself: leave --ranges, --equalize and --correct-biases out, or --max-drop"
        )
