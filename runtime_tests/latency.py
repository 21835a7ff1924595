"""What a real device measured, as people read it: milliseconds and cycles, where each is from, and how they spread.

Emulated devices count instructions: of these nothing is said here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thumbnet.runtime_tests.session import Measurement
from thumbnet.targets.board import Board


@dataclass(frozen=True)
class Spread:
    """How the samples of one inference spread.

    Parameters
    ----------
    kind : str
        What they are and where they are from, in words.
    minimum, median, percentile_90 : float
        Of the samples; the 90th percentile is one of them.
    """

    kind: str
    minimum: float
    median: float
    percentile_90: float


@dataclass(frozen=True)
class Latency:
    """The time of one inference, in milliseconds and in cycles of the core.

    Parameters
    ----------
    milliseconds : Spread
        Measured, or from the cycles.
    cycles : Spread or None
        Counted, or from the time; None where nobody knows the core's clock.
    """

    milliseconds: Spread
    cycles: Spread | None


def latency_of(measured: Measurement, board: Board) -> Latency | None:
    """Return the latency that a device measured; None where instructions were counted, or no clock is known."""
    hz = board.clock_hz if measured.clock is None or measured.kind != "cycles" else measured.clock.hz
    if measured.kind == "instructions" or (measured.kind == "cycles" and hz is None):
        return None
    at = "" if hz is None else f"at {hz:,} Hz"
    if measured.kind == "cycles" and hz is not None:
        milliseconds = _spread(f"from the cycles, {at}", measured, 1000 / hz)
        return Latency(milliseconds, _spread("counted by the core", measured, 1.0))
    cycles = None if hz is None else _spread(f"from the time, {at}", measured, float(hz))
    return Latency(_spread("measured by the board's timer", measured, 1000.0), cycles)


def _spread(kind: str, measured: Measurement, factor: float) -> Spread:
    samples = np.asarray(measured.samples) * factor
    highest = float(np.percentile(samples, 90, method="inverted_cdf"))
    return Spread(kind, float(samples.min()), float(np.median(samples)), highest)


def describe_cost(measured: Measurement, board: Board) -> str:
    """Return what one inference cost, in one line for people."""
    latency = latency_of(measured, board)
    if latency is None:
        where = "" if measured.kind == "instructions" else " on the board"
        return f"{np.median(measured.samples):,.0f} {measured.kind}{where} ({measured.certainty})"
    time, cycles = latency.milliseconds, latency.cycles
    text = (
        f"{time.median:.3f} ms {time.kind} (minimum {time.minimum:.3f}, 90th percentile {time.percentile_90:.3f}; "
        f"{measured.certainty})"
    )
    if cycles is not None:
        text += f"; {cycles.median:,.0f} cycles {cycles.kind}"
    return text if measured.clock is None else f"{text}; {measured.clock}"


def measurement_fields(measured: Measurement, board: Board) -> dict[str, Any]:
    """Return all that is known of a measurement for a JSON file, every sample among it."""
    latency = latency_of(measured, board)
    return {
        "kind": measured.kind,
        "samples": list(measured.samples),
        "error": measured.error,
        "warm_up_runs": measured.warm_ups,
        "clock": None if measured.clock is None else asdict(measured.clock),
        "milliseconds": None if latency is None else asdict(latency.milliseconds),
        "cycles": None if latency is None or latency.cycles is None else asdict(latency.cycles),
    }
