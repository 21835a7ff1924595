"""`thumbnet tune`: search for the schedules that run fastest on a device."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from thumbnet.compile.request import CompileOptions
from thumbnet.tools.commands.devices import devices_option
from thumbnet.tools.network_options import NetworkFiles, compile_options, network_files
from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.skipped_images import print_skipped


@click.command()
@network_files
# Other channels are other layers: records serve the network they were found for.
@compile_options("quantize", "keep_dead_channels")
@click.option("--device", required=True, help="Where candidates are measured, see `thumbnet devices`.")
@click.option("--trials", type=click.IntRange(min=1), default=256, show_default=True, help="Candidates to measure.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
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
    device: str,
    trials: int,
    seed: int,
    folder: Path,
    devices_file: Path | None,
    json_file: Path | None,
) -> None:
    """Tune MODEL on a device that runs Linux; `thumbnet compile --tuning` then uses the records.

    An emulated device counts instructions: the search then finds the schedule that executes the fewest.
    """
    from thumbnet.targets.devices import get_device

    target = get_device(device, devices_file)
    if target.board.artifact == "c":
        raise click.BadParameter(f"{device} takes C sources; only boards that take a shared library are tuned so far")

    from thumbnet.compile.compile_model import import_network
    from thumbnet.compile.emit.build_library import keep_entry
    from thumbnet.compile.tuning.meta_schedule import tune_module
    from thumbnet.runtime_tests.linux.tuning_runner import open_tuning_target
    from thumbnet.tools.network import make_request

    model = files.model
    request = make_request(files, target.board, options)
    quantization = request.manifest["quantization"]
    print_skipped(quantization["calibration_skipped"])
    # Every layer's output is not what will be deployed.
    module = keep_entry(import_network(request), "main")
    # A copy of standard error: the search sends the original to a file.
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as stream,
        show_steps(f"{model} on {target.name}, candidates", trials, stream=stream) as shown,
        open_tuning_target(target) as measuring,
    ):
        tuned = tune_module(
            module,
            target.board,
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
    rows = [(item.name, item.uses, item.trials, item.best and item.best * factor) for item in tuned]
    print_table(
        f"{model} on {target.name}: best of each layer, in {measuring.kind}; ranges: {quantization['ranges']}",
        ["layer", "uses", "candidates", "best"],
        [
            (name, uses, count, None if best is None else f"{best:,.0f}" if counts else f"{best:.6f}")
            for name, uses, count, best in rows
        ],
    )
    write_json(
        json_file,
        {
            "model": model,
            "device": target.name,
            "board": target.board.name,
            "kind": measuring.kind,
            "ranges": quantization["ranges"],
            "folder": str(folder),
            "layers": [
                {"name": name, "uses": uses, "candidates": count, "best": best} for name, uses, count, best in rows
            ],
        },
    )
