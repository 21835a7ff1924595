"""Measure candidate stages on a device: each in the same program, its bytes checked first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.network.layers import NETWORK_INPUT, Network
from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.tuning.stage_record import CostKind
from thumbnet.compile.tuning.trial_artifact import write_trials
from thumbnet.compile.tuning.trial_network import trial_name
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.device import Device

#: What is kept low. Emulated devices give instructions and predicted cycles, real ones cycles or seconds.
Objective = Literal["cycles", "instructions", "seconds"]


@dataclass(frozen=True)
class ReadingSource:
    """Where a reading was taken.

    Parameters
    ----------
    device : Device
        The device that was open.
    place : str or None
        What tells it from others of its type, see `DeviceSession.place`.
    compiler : str
        What the program was built with.
    """

    device: Device
    place: str | None
    compiler: str


@dataclass(frozen=True)
class StageReading:
    """What one stage cost.

    Parameters
    ----------
    kind : str
        What `samples` are: ``"instructions"``, ``"predicted cycles"``, ``"cycles"`` or ``"seconds on the board"``.
    samples : tuple of float
        Raw, in the order taken; empty where the stage gave wrong bytes.
    source : ReadingSource
        Where it was taken.
    """

    kind: CostKind
    samples: tuple[float, ...]
    source: ReadingSource

    @property
    def cost(self) -> float:
        """The median, infinite where there is none."""
        return float(np.median(self.samples)) if self.samples else float("inf")


def measure_stages(
    session: DeviceSession,
    network: Network,
    values: Mapping[str, NDArray[Any]],
    trials: Sequence[StagePlan],
    objective: Objective,
) -> list[StageReading]:
    """Build trials into one program, run it, check each one's bytes, and return what each cost.

    Raises
    ------
    SessionError
        The device fails, or doesn't measure what is asked for.
    ToolchainError
        The board's compiler is missing or fails.
    """
    # Trials that read the same tensor share it, where they stand side by side.
    order = sorted(range(len(trials)), key=lambda index: (trials[index].sources, str(trials[index].source)))
    sorted_trials = [trials[index] for index in order]
    image = values[NETWORK_INPUT]
    with tempfile.TemporaryDirectory(prefix="trials-", dir=run_folder()) as folder:
        artifact = write_trials(network, values, sorted_trials, session.device.board, Path(folder))
        session.load(artifact)
        try:
            outputs = session.run_layers(image)
            kind, costs = _costs(session, image, objective)
        finally:
            _forget_image(session)
    source = ReadingSource(session.device, session.place, session.compiler)
    readings = {}
    for position, index in enumerate(order):
        name = trial_name(position)
        right = np.array_equal(outputs[name].reshape(-1), values[trials[index].name].reshape(-1))
        readings[index] = StageReading(kind, tuple(costs[name]) if right else (), source)
    return [readings[index] for index in range(len(trials))]


def _costs(
    session: DeviceSession, image: NDArray[Any], objective: Objective
) -> tuple[CostKind, dict[str, list[float]]]:
    """Return the kind of a device's costs, and each stage's samples."""
    if objective == "cycles" and session.device.emulated:
        prediction = session.predict_cycles(image)
        if prediction is None:
            raise SessionError(
                f"{session.device.name}: there is no model of the {session.device.board.core}'s cycles; "
                "take --objective instructions"
            )
        return "predicted cycles", {name: [cycles] for name, cycles in prediction.stages.items()}
    costs = session.profile(image)
    kind = costs[0].kind
    wanted = {"cycles": "cycles", "instructions": "instructions", "seconds": "seconds on the board"}[objective]
    if kind != wanted:
        raise SessionError(f"{session.device.name}: measures {kind}, not {wanted}; choose another --objective")
    return kind, {cost.name: [cost.value] for cost in costs}


def _forget_image(session: DeviceSession) -> None:
    """Remove a program's image from the cache: nobody needs it again."""
    if isinstance(session, MicrocontrollerSession) and session.elf is not None:
        shutil.rmtree(session.elf.parent, ignore_errors=True)
