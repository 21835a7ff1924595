"""Predicted cycles for people and for JSON files: beside counted instructions, and beside published measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from thumbnet.runtime_tests.cycles.core_timing import TIMINGS
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.mcu.cycle_validation import Case
from thumbnet.tools.output import print_table

#: What the fields of `cycle_fields` are, for JSON files and beneath tables.
CYCLE_KINDS = {
    "predicted_cycles": "of one inference, by a model of the core and the board's flash, from the blocks that were "
    "executed in emulation; no measurement",
    "predicted_cycles_band": "lowest and highest error of that model on published measurements, as fractions; null "
    "where there are none",
    "predicted_cycles_basis": "what the model is, and what its band rests on",
}


def cycle_fields(prediction: CyclePrediction | None, reason: str | None = None) -> dict[str, Any]:
    """Return a prediction as fields of a JSON file; where there is none `reason`, if known, takes the basis' place."""
    if prediction is None:
        return {"predicted_cycles": None, "predicted_cycles_band": None, "predicted_cycles_basis": reason}
    return prediction.as_json()


def print_basis(predictions: Iterable[tuple[str, CyclePrediction | None, str | None]]) -> None:
    """Print once for each core what its cycles rest on, or why there are none: given core, prediction and reason."""
    lines: dict[str, str] = {}
    for core, prediction, reason in predictions:
        if prediction is not None:
            lines.setdefault(core, f"predicted cycles of {core}, as on {prediction.board}: {prediction.basis}")
        elif reason is not None:
            lines.setdefault(core, f"cycles of {core} are not predicted: {reason}")
    for line in lines.values():
        click.echo(line)


def print_validation(table: str, cases: Sequence[Case]) -> dict[str, Any]:
    """Print each case's published and predicted cycles and each core's band; return them for a JSON file."""
    print_table(
        f"Predicted cycles beside published ones: {table}",
        ["case", "board", "core", "published cycles", "predicted cycles", "error"],
        [
            (case.name, case.board.name, case.board.core, round(case.published), round(case.predicted), _error(case))
            for case in cases
        ],
    )
    bands = [_band(core, cases) for core in dict.fromkeys(case.board.core for case in cases)]
    print_table(
        "Errors by core",
        ["core", "cases", "lowest", "highest", "mean, unsigned", "band that predictions state"],
        [
            (
                band["core"],
                band["cases"],
                f"{band['lowest']:+.1%}",
                f"{band['highest']:+.1%}",
                f"{band['mean_unsigned']:.1%}",
                _stated(band["stated_band"]),
            )
            for band in bands
        ],
    )
    rows = [
        {
            "case": case.name,
            "board": case.board.name,
            "core": case.board.core,
            "published_cycles": case.published,
            "predicted_cycles": round(case.predicted),
            "error": case.error,
        }
        for case in cases
    ]
    return {"table": table, "cases": rows, "cores": bands}


def _band(core: str, cases: Sequence[Case]) -> dict[str, Any]:
    errors = [case.error for case in cases if case.board.core == core]
    timing = TIMINGS.get(core)
    return {
        "core": core,
        "cases": len(errors),
        "lowest": min(errors),
        "highest": max(errors),
        "mean_unsigned": sum(map(abs, errors)) / len(errors),
        "stated_band": None if timing is None or timing.band is None else list(timing.band),
    }


def _error(case: Case) -> str:
    return f"{case.error:+.1%}"


def _stated(band: Sequence[float] | None) -> str:
    return "none" if band is None else f"{band[0]:+.0%} to {band[1]:+.0%}"
