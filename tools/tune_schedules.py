"""Tuning of networks that TVM lays out, of float32 and on the host: the schedule of each layer, with MetaSchedule."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.emit.build_library import keep_entry
from thumbnet.compile.quantize_request import import_network
from thumbnet.compile.request import CompileRequest
from thumbnet.compile.tuning.meta_schedule import tune_module
from thumbnet.runtime_tests.linux.tuning_runner import open_tuning_target
from thumbnet.targets.device import Device
from thumbnet.tools.output import print_table
from thumbnet.tools.progress import show_steps


@dataclass(frozen=True)
class ScheduledLayer:
    """What the search found for one layer: uses in the network, candidates recorded, and the best one's cost."""

    name: str
    uses: int
    candidates: int
    best: float | None


def tune_schedules(
    request: CompileRequest, device: Device, folder: Path, *, trials: int, seed: int
) -> tuple[str, list[ScheduledLayer]]:
    """Search, show progress and the result.

    Returns
    -------
    str, list of ScheduledLayer
        What costs are, and the layers.

    Raises
    ------
    SessionError, TuningError
        The device fails; the folder can't be used.
    """
    # Every layer's output is not what will be deployed.
    module = keep_entry(import_network(request), "main")
    # A copy of standard error: the search sends the original to a file.
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as stream,
        show_steps(f"{request.name} on {device.name}, candidates", trials, stream=stream) as shown,
        open_tuning_target(device) as measuring,
    ):
        tuned = tune_module(
            module,
            device.board,
            folder,
            trials=trials,
            builder=measuring.builder,
            runner=measuring.runner,
            seed=seed,
            on_round=shown.advance,
        )
    # MetaSchedule calls what it is given seconds; the emulator gives 1e-9 of an instruction count.
    counts = measuring.kind == "instructions"
    factor = 1e9 if counts else 1.0
    layers = [ScheduledLayer(item.name, item.uses, item.trials, item.best and item.best * factor) for item in tuned]
    print_table(
        f"{request.name} on {device.name}: best of each layer, in {measuring.kind};"
        f" ranges: {request.manifest['quantization']['ranges']}",
        ["layer", "uses", "candidates", "best"],
        [
            (
                layer.name,
                layer.uses,
                layer.candidates,
                None if layer.best is None else f"{layer.best:,.0f}" if counts else f"{layer.best:.6f}",
            )
            for layer in layers
        ],
    )
    return measuring.kind, layers
