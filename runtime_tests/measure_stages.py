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
from thumbnet.runtime_tests.repeated_readings import RepeatedReadings
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
    *,
    repeated: RepeatedReadings,
    reference: StagePlan,
) -> list[StageReading]:
    """Build trials into one program, run it, check each one's bytes, and return what each cost.

    Parameters
    ----------
    session : DeviceSession
        An open device.
    network : Network
        Whose stages are tried.
    values : mapping of str to ndarray
        Its input and every layer's output ``[H, W, C]`` for one image.
    trials : sequence of StagePlan
        The stages.
    objective : {"cycles", "instructions", "seconds"}
        What is measured.
    repeated : RepeatedReadings
        Takes the readings of a real board; counts are exact and taken once.
    reference : StagePlan
        Stands in each program of a real board.

    Raises
    ------
    SessionError
        The device fails, or doesn't measure what is asked for.
    ToolchainError
        The board's compiler is missing or fails.
    """
    exact = session.device.emulated
    stages = list(trials) if exact or any(trial is reference for trial in trials) else [*trials, reference]
    # Trials that read the same tensor share it, where they stand side by side.
    order = sorted(range(len(stages)), key=lambda index: (stages[index].sources, str(stages[index].source)))
    sorted_trials = [stages[index] for index in order]
    image = values[NETWORK_INPUT]
    with tempfile.TemporaryDirectory(prefix="trials-", dir=run_folder()) as folder:
        artifact = write_trials(network, values, sorted_trials, session.device.board, Path(folder))
        session.load(artifact)
        try:
            outputs = session.run_layers(image)
            if exact:
                kind, costs = _costs(session, image, objective)
            else:
                _check_kind(session, session.profile(image)[0].kind, objective)
                position = next(i for i, trial in enumerate(sorted_trials) if trial is reference)
                kind, costs = repeated.take(session, image, trial_name(position))
        finally:
            _forget_image(session)
    source = ReadingSource(session.device, session.place, session.compiler)
    readings = {}
    for position, index in enumerate(order):
        name = trial_name(position)
        right = np.array_equal(outputs[name].reshape(-1), values[stages[index].name].reshape(-1))
        readings[index] = StageReading(kind, tuple(costs[name]) if right else (), source)
    return [readings[index] for index in range(len(trials))]


def _costs(
    session: DeviceSession, image: NDArray[Any], objective: Objective
) -> tuple[CostKind, dict[str, list[float]]]:
    """Return the kind of an emulated device's costs, and each stage's one sample."""
    if objective == "cycles":
        prediction = session.predict_cycles(image)
        if prediction is None:
            raise SessionError(
                f"{session.device.name}: there is no model of the {session.device.board.core}'s cycles; "
                "take --objective instructions"
            )
        return "predicted cycles", {name: [cycles] for name, cycles in prediction.stages.items()}
    costs = session.profile(image)
    _check_kind(session, costs[0].kind, objective)
    return costs[0].kind, {cost.name: [cost.value] for cost in costs}


def _check_kind(session: DeviceSession, kind: CostKind, objective: Objective) -> None:
    """Refuse costs of another kind than was asked for."""
    wanted = {"cycles": "cycles", "instructions": "instructions", "seconds": "seconds on the board"}[objective]
    if kind != wanted:
        raise SessionError(f"{session.device.name}: measures {kind}, not {wanted}; choose another --objective")


def _forget_image(session: DeviceSession) -> None:
    """Remove a program's image from the cache: nobody needs it again."""
    if isinstance(session, MicrocontrollerSession) and session.elf is not None:
        shutil.rmtree(session.elf.parent, ignore_errors=True)
