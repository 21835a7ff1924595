"""What an inference costs on a device, in time or instructions and in memory, as checks of a report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.emit.stack_usage import STACK_KIND
from thumbnet.runtime_tests.errors import ClockError
from thumbnet.runtime_tests.latency import describe_cost, measurement_fields
from thumbnet.runtime_tests.report import Report, Status
from thumbnet.runtime_tests.session import TIMED_RUNS, DeviceSession, MemoryUse

#: Inferences of one image for the cost of one inference, where it is counted.
COUNTED_RUNS = 3


def check_cost(report: Report, session: DeviceSession, image: NDArray[Any]) -> None:
    """Add what an inference of an image costs, and what memory it takes, to a report.

    Parameters
    ----------
    report : Report
        Gets the checks and their figures.
    session : DeviceSession
        With the network loaded.
    image : ndarray
        The input ``[H, W, C]``.

    Raises
    ------
    SessionError
        The device failed.
    """
    _measure_cost(report, session, image)
    memory = session.memory_use()
    report.values.update(asdict(memory))
    report.add("memory", Status.PASSED, f"RAM {_bytes(memory.ram_bytes)}, flash {_bytes(memory.flash_bytes)}")
    check_stack(report, memory)


def _measure_cost(report: Report, session: DeviceSession, image: NDArray[Any]) -> None:
    """Measure what an inference costs; nothing is said of time where the board's clock is wrong."""
    name = "cost of one inference"
    report.values.update(
        threads=session.threads,
        measurement=None,
        instructions_per_inference=None,
        cycles_per_inference=None,
        seconds_per_inference=None,
    )
    board = session.device.board
    try:
        measured = session.measure(image, COUNTED_RUNS if session.device.emulated else TIMED_RUNS)
    except ClockError as error:
        report.add(name, Status.FAILED, str(error))
        return
    middle = float(np.median(measured.samples))
    instructions = measured.kind == "instructions"
    cycles, unpredicted_because = session.predict_cycles_or_say_why(image)
    if cycles is not None:
        report.values.update(cycles.as_json())
    report.values.update(
        measurement=measurement_fields(measured, board),
        instructions_per_inference=int(middle) if instructions else None,
        cycles_per_inference=middle if measured.kind == "cycles" else None,
        seconds_per_inference=middle if measured.kind == "seconds on the board" else None,
    )
    detail = describe_cost(measured, board)
    if cycles is not None or unpredicted_because is not None:
        detail += f"; {cycles or f'cycles not predicted: {unpredicted_because}'}"
    report.add(name, Status.PASSED, detail)


def check_stack(report: Report, memory: MemoryUse) -> None:
    """Compare the high-water mark with the worst case, and both with the artifact's: no run may surprise anybody."""
    worst, measured, limit = memory.stack_bytes, memory.stack_measured_bytes, memory.stack_limit_bytes
    report.values["stack_kind"] = None if worst is None else STACK_KIND
    if measured is None:
        report.add("stack", Status.SKIPPED, "neither bounded nor measured on boards that run Linux")
        return
    known = f"unknown ({memory.stack_unknown_because});" if worst is None else f"{worst:,} bytes,"
    detail = f"worst case {known} high-water mark {measured:,} bytes"
    if limit is not None and (worst is None or max(worst, measured) > limit):
        report.add("stack", Status.FAILED, f"{detail}; the artifact's manifest says at most {limit:,} bytes")
    elif worst is None:
        report.add("stack", Status.SKIPPED, detail)
    else:
        report.add("stack", Status.PASSED if measured <= worst else Status.FAILED, detail)


def _bytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,} bytes"
