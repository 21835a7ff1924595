"""A device as a search of `thumbnet.compile.tuning.tune_plan` uses it: opened once, given stages again and again."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from thumbnet.compile.errors import DoesNotFitError, ToolchainError
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.measure_stages import Objective, StageReading, measure_stages
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.runtime_tests.repeated_readings import RepeatedReadings
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.device import Device


class DeviceMeasurer:
    """One device; a context manager.

    Parameters
    ----------
    device : Device
        It is opened at the first measurement, and again after it failed.
    network : Network
        Whose stages are measured.
    values : mapping of str to ndarray
        Its input and every layer's output for one image, see `measure_stages`.
    objective : {"cycles", "instructions", "seconds"}
        What is measured.
    on_reading : callable
        Told each stage and its reading as they come, before the search is.
    """

    def __init__(
        self,
        device: Device,
        network: Network,
        values: Mapping[str, NDArray[Any]],
        objective: Objective,
        on_reading: Callable[[StagePlan, StageReading], None] = lambda _stage, _reading: None,
    ) -> None:
        self.name = device.name
        self._device, self._network, self._values, self._objective = device, network, values, objective
        self._on_reading = on_reading
        self._session: DeviceSession | None = None
        self._repeated = RepeatedReadings()
        self._reference: StagePlan | None = None

    def measure(self, stages: Sequence[StagePlan]) -> list[float]:
        """Return what each stage costs, infinite where it gave wrong bytes or can't be built.

        Raises
        ------
        SessionError
            The device failed.
        """
        try:
            if self._session is None:
                self._session = open_session(self._device)
            reference = self._reference or stages[0]
            readings = measure_stages(
                *(self._session, self._network, self._values, stages, self._objective),
                repeated=self._repeated,
                reference=reference,
            )
        except (ToolchainError, DoesNotFitError):
            # One that can't be built takes the others of its program with it; or they are too many for the board.
            if len(stages) == 1:
                return [math.inf]
            half = len(stages) // 2
            return [*self.measure(stages[:half]), *self.measure(stages[half:])]
        except SessionError:
            self.close()
            raise
        self._reference = reference  # one that can be measured
        for stage, reading in zip(stages, readings, strict=True):
            self._on_reading(stage, reading)
        return [reading.cost for reading in readings]

    def close(self) -> None:
        """Let the device go. May be called twice."""
        if self._session is not None:
            with contextlib.suppress(SessionError):
                self._session.close()
            self._session = None

    def __enter__(self) -> Self:
        """Return the measurer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the device go."""
        self.close()
