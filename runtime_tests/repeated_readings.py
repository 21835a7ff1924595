"""Costs of a real board's stages, measured until they can be trusted.

A count is the same each time. A time or a hardware counter is not: caches are cold, another program has the processor,
the clock follows the temperature. So a program is warmed up and run until the medians are sure, and it holds a
reference stage: a board that computes that slower or faster than before is noticed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.runtime_tests.session import WARM_UPS, DeviceSession, LayerCost, MeasurementKind

#: Samples of a stage without its outliers that are needed, and all that are taken at most.
LEAST_SAMPLES, MOST_SAMPLES = 5, 50
#: The standard error of a median, as a part of it, at which it is sure.
SURE = 0.01
#: Seconds after which a program's samples have to do, sure or not.
BUDGET_S = 60.0
#: A sample so many standard deviations from the median is an outlier: it is kept, and another is measured for it.
OUTLIER = 5.0
#: By how much the reference stage may cost more or less than at first.
MOST_DRIFT = 0.05

#: Of a normal distribution, by its median absolute deviation; and the standard error of its median, by its deviation.
_DEVIATION, _MEDIAN_ERROR = 1.4826, 1.2533
#: How much faster than this computer's a board's clock may run.
_CLOCK_TOLERANCE = 1.1


class RepeatedReadings:
    """Takes the readings of one device, and remembers what its reference stage cost at first.

    Parameters
    ----------
    clock : callable
        Seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_costs: dict[str | None, float] = {}

    def take(
        self, session: DeviceSession, image: NDArray[Any], reference: str
    ) -> tuple[MeasurementKind, dict[str, list[float]]]:
        """Run a program again and again, and return what its samples are, and all of each stage in the order taken.

        Parameters
        ----------
        session : DeviceSession
            A real device with the program loaded.
        image : ndarray
            The input ``[H, W, C]``.
        reference : str
            Name of the stage that stands in every program.

        Raises
        ------
        DeviceFaultError
            The timer stands still or runs too fast; or the reference stage costs another than at first, so that nothing
            can be compared.
        """
        for _ in range(WARM_UPS):
            costs = self._profile(session, image)
        kind, resolutions = costs[0].kind, {cost.name: cost.error for cost in costs}
        samples: dict[str, list[float]] = {cost.name: [] for cost in costs}
        ends = self._clock() + BUDGET_S
        for count in range(1, MOST_SAMPLES + 1):
            for cost in self._profile(session, image):
                # One too short for the timer costs as little as that can tell.
                samples[cost.name].append(max(cost.value, cost.error))
            if count >= LEAST_SAMPLES and self._clock() >= ends:
                break
            if all(is_sure(taken, resolutions[name]) for name, taken in samples.items()):
                break
        self._check_drift(session, float(np.median(samples[reference])), kind)
        return kind, samples

    def _profile(self, session: DeviceSession, image: NDArray[Any]) -> list[LayerCost]:
        started = self._clock()
        costs = session.profile(image)
        self._check_timer(session, costs, self._clock() - started)
        return costs

    def _check_timer(self, session: DeviceSession, costs: Sequence[LayerCost], took_s: float) -> None:
        total, kind, hz = sum(cost.value for cost in costs), costs[0].kind, session.device.board.clock_hz
        name = session.device.name
        if not total > 0:
            raise DeviceFaultError(
                f"{name}: {len(costs)} stages together cost {total:g} {kind}: its timer stands still"
            )
        if kind == "cycles" and hz is None:
            return  # nobody knows how long one takes
        seconds = total / hz if kind == "cycles" and hz else total
        if seconds > took_s * _CLOCK_TOLERANCE:
            raise DeviceFaultError(
                f"{name}: its timer counted {seconds:.6f} s in a call of {took_s:.6f} s: it runs too fast, "
                f"or its clock is not {'what the board says' if hz is None else f'{hz} Hz'}"
            )

    def _check_drift(self, session: DeviceSession, cost: float, kind: MeasurementKind) -> None:
        first = self._first_costs.setdefault(session.place, cost)
        drift = cost / first - 1
        if abs(drift) > MOST_DRIFT:
            raise DeviceFaultError(
                f"{session.device.name} drifts: the reference stage costs {cost:g} {kind}, at first {first:g}, "
                f"{drift:+.0%}; these readings are dropped; let it cool, fix its clock, end what else runs on it"
            )


def is_sure(samples: Sequence[float], resolution: float = 0.0) -> bool:
    """Tell whether the median of samples is sure, see `SURE`; or as sure as the timer's resolution lets it be."""
    kept = without_outliers(samples, resolution)
    if len(kept) < LEAST_SAMPLES:
        return False
    median = float(np.median(kept))
    error = _MEDIAN_ERROR * _deviation(kept) / math.sqrt(len(kept))
    return error <= max(SURE * median, resolution)


def without_outliers(samples: Sequence[float], resolution: float = 0.0) -> list[float]:
    """Return the samples that are no outliers, see `OUTLIER`; a difference that doesn't matter makes none."""
    median = float(np.median(samples))
    reach = max(OUTLIER * _deviation(samples), SURE * median, resolution)
    return [sample for sample in samples if abs(sample - median) <= reach]


def _deviation(samples: Sequence[float]) -> float:
    """Return the standard deviation, by the median absolute deviation: outliers don't count."""
    return _DEVIATION * float(np.median(np.abs(np.asarray(samples) - np.median(samples))))
