"""What a person says of a network's preprocessing, by options or in a TOML file, where the weights file doesn't."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from thumbnet.models.errors import PreprocessingError

ResizeMode = Literal["squash", "short-side"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
RESIZE_MODES: tuple[ResizeMode, ...] = get_args(ResizeMode)
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
#: As in `thumbnet.models.layers`, which loads torch; this module is there for the command line's help.
PADDINGS = ("same", "symmetric")
ACTIVATIONS = ("relu6", "relu")


@dataclass(frozen=True)
class GivenPreprocessing:
    """Preprocessing as far as a person says it; None leaves what the weights file says or suggests.

    Parameters
    ----------
    mean, std : tuple of float
        One value a channel, or one for all, for pixels scaled to 0..1: the input is ``(pixel / 255 - mean) / std``.
    resize_mode, crop_fraction, interpolation, label_offset
        See `thumbnet.models.preprocessing.Preprocessing`.

    Raises
    ------
    PreprocessingError
        A value is of the wrong type or out of range, or mean comes without std.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize_mode: ResizeMode | None = None
    crop_fraction: float | None = None
    interpolation: Interpolation | None = None
    label_offset: int | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name, value in vars(self).items():
            if value is not None:
                check_value(name, value)
        if (self.mean is None) != (self.std is None):
            given, missing = ("mean", "std") if self.std is None else ("std", "mean")
            raise PreprocessingError(f"{given} is given without {missing}; they belong together, give both")


def check_value(name: str, value: object) -> None:
    """Check the value of one of the names that a preprocessing file may have.

    Raises
    ------
    PreprocessingError
        Its type or range is wrong.
    """
    _CHECKS[name](name, value)


def read_preprocessing_file(path: Path) -> dict[str, Any]:
    """Read a TOML file of the fields of `GivenPreprocessing`, and padding, bn_epsilon and activation, all optional.

    Returns
    -------
    dict
        What it says, checked, by name; mean and std as tuples.

    Raises
    ------
    PreprocessingError
        The file can't be read, is no TOML, or has an unknown name, a wrong type or a value out of range.
    """
    try:
        if not path.is_file():
            raise PreprocessingError(f"{path}: no such file of preprocessing")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PreprocessingError(f"{path}: can't be read ({reason})") from error
    except tomllib.TOMLDecodeError as error:
        raise PreprocessingError(f"{path}: not TOML: {error}") from error
    for name in table:
        if name not in _CHECKS:
            near = difflib.get_close_matches(name, _CHECKS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_CHECKS)}"
            raise PreprocessingError(f"{path}: {name!r:.60} is not known; {hint}")
        if name in ("mean", "std"):
            table[name] = tuple(table[name]) if isinstance(table[name], list) else (table[name],)
        try:
            check_value(name, table[name])
        except PreprocessingError as error:
            raise PreprocessingError(f"{path}: {error}") from error
    return table


def _check_colours(name: str, values: object) -> None:
    if not isinstance(values, tuple) or not values:
        raise PreprocessingError(f"{name} {values!r:.60}: must be one number, or one a channel")
    for value in values:
        if not is_number(value) or not 0 <= value <= 1 or (name == "std" and value == 0):
            hint = f": {value:g} / 255 is {value / 255:.4g}" if is_number(value) and 1 < value <= 255 else ""
            least = "above 0" if name == "std" else "at least 0"
            raise PreprocessingError(
                f"{name} {value!r:.60}: must be a number, {least} and at most 1, for pixels scaled to 0..1{hint}"
            )


def _check_fraction(name: str, value: float) -> None:
    if not is_number(value) or not 0 < value <= 1:
        raise PreprocessingError(f"{name} {value!r:.60}: must be a number above 0 and at most 1")


def _check_offset(name: str, value: object) -> None:
    if type(value) is not int or value not in (0, 1):
        raise PreprocessingError(f"{name} {value!r:.60}: must be 0, or 1 where class 0 is the background")


def _one_of(choices: Sequence[str]) -> Callable[[str, object], None]:
    def check(name: str, value: object) -> None:
        if not isinstance(value, str) or value not in choices:
            raise PreprocessingError(f"{name} {value!r:.60}: must be one of {', '.join(choices)}")

    return check


def is_number(value: Any) -> bool:  # noqa: ANN401 - whatever a file holds
    """Say whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "mean": _check_colours,
    "std": _check_colours,
    "resize_mode": _one_of(RESIZE_MODES),
    "crop_fraction": _check_fraction,
    "interpolation": _one_of(INTERPOLATIONS),
    "label_offset": _check_offset,
    "padding": _one_of(PADDINGS),
    "bn_epsilon": _check_fraction,
    "activation": _one_of(ACTIVATIONS),
}
