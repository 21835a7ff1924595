"""`thumbnet tune`: the plan, or the schedules, that run fastest on a device."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thumbnet.compile.request import CompileOptions
from thumbnet.tools.commands.devices import choose_devices, devices_option, farm_options
from thumbnet.tools.network_options import NetworkFiles, compile_options, network_files
from thumbnet.tools.output import json_option, write_json
from thumbnet.tools.skipped_images import print_skipped

if TYPE_CHECKING:
    from thumbnet.compile.plan.stage_graph import StagePlan
    from thumbnet.compile.request import CompileRequest
    from thumbnet.runtime_tests.measure_stages import Objective, StageReading
    from thumbnet.targets.device import Device

#: Trials where nobody says: for a search of stages more than it needs as a rule.
TRIALS = 2000
#: The same of networks that TVM lays out.
LAYOUT_TRIALS = 256


@click.command()
@network_files
# Other channels are other layers: records serve the network they were found for.
@compile_options("quantize", "keep_dead_channels", "ram_limit")
@click.option(
    "--device",
    "names",
    multiple=True,
    help="Where stages are measured, see `thumbnet devices`; all of one type of board, may be repeated.",
)
@farm_options
@click.option(
    "--space",
    type=click.Choice(["both", "kernels", "tvm"]),
    help="kernels: plans of our own kernels. tvm: layers on TVM's schedules, by MetaSchedule; all there is on the host"
    " and for float32. both: the kernels first, then schedules of the layers where these could be better; the default"
    " elsewhere.",
)
@click.option(
    "--objective",
    type=click.Choice(["cycles", "instructions", "seconds"]),
    help="What is kept low: cycles on microcontrollers, seconds on boards that run Linux, predicted cycles on emulated"
    " boards, or instructions where these can't be predicted.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), help="Stages to measure at most; 2000, or 256 on the host and for float32."
)
@click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True), help="Minutes after which nothing more is begun."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of MetaSchedule's search.")
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the records; those of an earlier run are added to.",
)
@devices_option
@json_option
def tune(
    files: NetworkFiles,
    options: CompileOptions,
    names: tuple[str, ...],
    tracker: str | None,
    board: str | None,
    space: str | None,
    objective: Objective | None,
    trials: int | None,
    time_limit: float | None,
    seed: int,
    folder: Path,
    devices_file: Path | None,
    json_file: Path | None,
) -> None:
    """Tune MODEL on devices; `thumbnet compile --tuning` then uses the records.

    A network is cut into stages, each computed by one of many ways; thumbnet knows what each should cost, and measures
    those that a good plan could use, until no other is expected to be better. RAM is kept to --ram-limit, or to what
    the network takes without tuning. Ctrl-C keeps all that was measured.
    """
    devices = choose_devices(names, tracker, board, devices_file)
    if options.quantize == "none" and space not in {None, "tvm"}:
        raise click.BadParameter("--quantize none is tuned by --space tvm only")
    planned = devices[0].board.instruction_set is not None and options.quantize == "int8"
    space = space or ("both" if planned else "tvm")
    if not planned and space == "tvm" and (tracker or len(devices) > 1):
        raise click.BadParameter(f"the host and float32 are tuned on one device, not on {len(devices)} or a tracker's")

    from thumbnet.tools.network import make_request

    request = make_request(files, devices[0].board, options)
    print_skipped(request.manifest["quantization"]["calibration_skipped"])
    if not planned and space == "tvm":
        found = _tune_schedules(request, devices[0], folder, trials=trials or LAYOUT_TRIALS, seed=seed)
    else:
        minutes = math.inf if time_limit is None else time_limit
        found = _tune_stages(
            *(request, devices, objective, folder), space=space, trials=trials or TRIALS, minutes=minutes, seed=seed
        )
    write_json(
        json_file,
        {
            "model": files.model,
            "devices": [device.name for device in devices],
            "board": devices[0].board.name,
            "space": space,
            "ranges": request.manifest["quantization"]["ranges"],
            "folder": str(folder),
            **found,
        },
    )


def _tune_schedules(request: CompileRequest, device: Device, folder: Path, *, trials: int, seed: int) -> dict[str, Any]:
    from thumbnet.tools.tune_schedules import tune_schedules

    kind, layers = tune_schedules(request, device, folder, trials=trials, seed=seed)
    return {"kind": kind, "layers": [asdict(layer) for layer in layers]}


def _tune_stages(
    request: CompileRequest,
    devices: list[Device],
    objective: Objective | None,
    folder: Path,
    *,
    space: str,
    trials: int,
    minutes: float,
    seed: int,
) -> dict[str, Any]:
    from thumbnet.compile.tuning.cost_model import model_of_core
    from thumbnet.compile.tuning.records import opened_records
    from thumbnet.compile.tuning.schedule_search import ScheduleSearch
    from thumbnet.compile.tuning.stage_key import is_scheduled
    from thumbnet.compile.tuning.stage_records import (
        measured_costs,
        newest_records,
        opened_stage_records,
        read_stage_records,
    )
    from thumbnet.tools.tune_stages import (
        as_json,
        check_devices,
        check_objective,
        compare_with_kernels,
        default_objective,
        describe_devices,
        kind_of,
        make_record,
        prepare_stages,
        print_tuned,
        tune_stages,
    )
    from thumbnet.tools.tuning_picture import draw_tuning

    check_devices(devices)
    wanted = objective or default_objective(devices[0])
    check_objective(wanted, devices[0])
    tuning = prepare_stages(request, wanted, own_kernels=space != "tvm")
    kind = kind_of(wanted, devices[0])
    readings: list[tuple[StagePlan, float]] = []
    with contextlib.ExitStack() as opened:
        recorder = opened.enter_context(opened_stage_records(folder))
        board = devices[0].board
        emulated = devices[0].emulated
        there = read_stage_records(folder)
        known = newest_records(there, core=board.core, kind=kind, emulated=emulated)
        measured = measured_costs(there, core=board.core, kind=kind, emulated=emulated, board=board.name)
        schedules = None
        if space != "kernels":
            database = opened.enter_context(opened_records(folder))
            schedules = ScheduleSearch(
                *(tuning.network, board, kind, database, measured),
                seed=seed,
                on_wrong=lambda error: click.echo(f"{error}", err=True),
            )

        def record(stage: StagePlan, reading: StageReading) -> None:
            # Of schedules there are as many as anyone likes: a wrong one is not worth remembering.
            if reading.samples or stage.kernel is None:
                recorder.add(make_record(stage, reading))
                readings.append((stage, reading.cost))

        try:
            tuned = tune_stages(
                tuning,
                devices,
                model=model_of_core(board.core, kind, known.values()),
                measured=measured,
                schedules=schedules,
                on_reading=record,
                trials=trials,
                time_limit_s=60 * minutes,
            )
        except KeyboardInterrupt:
            click.echo(f"{len(readings)} stages are kept in {folder}; the same command goes on from there.", err=True)
            raise
    title = f"{request.name} on {describe_devices(devices)}, arena of at most {tuning.ram_limit:,} bytes"
    print_tuned(title, kind, tuned)
    rival = compare_with_kernels(tuning, tuned, measured)
    picture = folder / "tuning.png"
    predicted = [
        (record.predicted, record.cost) for record in known.values() if record.right and not is_scheduled(record.stage)
    ]
    predicted += [(stage.cost, cost) for stage, cost in readings if stage.kernel is None and math.isfinite(cost)]
    draw_tuning(picture, tuned, title=title, kind=kind, readings=predicted)
    click.echo(f"How it went is drawn in {picture}.")
    return {"kind": kind, **as_json(tuned), **({} if rival is None else {"plan_of_kernels": rival})}
