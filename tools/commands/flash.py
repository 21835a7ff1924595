"""`thumbnet flash`: the firmware of an artifact onto a board, or into files."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from thumbnet.tools.commands.devices import devices_option
from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps

if TYPE_CHECKING:
    from thumbnet.runtime_tests.mcu.firmware_sources import Protocol


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", required=True, help="Name of a device, see `thumbnet devices`.")
@click.option("--only-build", is_flag=True, help="Write the firmware's files into --output, and touch no board.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for --only-build.")
@click.option(
    "--protocol",
    type=click.Choice(["thumbnet", "mlperf-tiny"]),
    default="thumbnet",
    show_default=True,
    help="What the firmware speaks; MLPerf Tiny's is for the benchmark's own runner, with --only-build.",
)
@click.option("--force", is_flag=True, help="Flash the board even where it runs this firmware already.")
@devices_option
@json_option
def flash(
    artifact: Path,
    device: str,
    only_build: bool,
    output: Path | None,
    protocol: Protocol,
    force: bool,
    devices_file: Path | None,
    json_file: Path | None,
) -> None:
    """Put the firmware with the network in ARTIFACT onto a microcontroller's board, verify it, and start it.

    The board's table in devices.toml says how: flash = "gdb:HOST:PORT" for the GDB server of any probe, "pyocd",
    "openocd:BOARD.cfg", "uf2:LABEL" for a boot loader's drive, or "command: PROGRAM {elf}" (or {hex}, {bin}, {uf2}).
    A board that runs this very firmware is left alone. `thumbnet test`, `profile` and `tune` flash by themselves.

    With --only-build --protocol mlperf-tiny the firmware is one that the runner of MLPerf Tiny drives, in its modes
    performance and accuracy (115,200 baud): it takes the runner's pixels as the network was trained on them, and gives
    probabilities.
    """
    from thumbnet.compile.artifact import Artifact
    from thumbnet.runtime_tests.mcu.deploy import deploy
    from thumbnet.runtime_tests.mcu.device_line import line_of
    from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
    from thumbnet.runtime_tests.mcu.image_files import formats_for, write_image
    from thumbnet.targets.devices import get_device

    if only_build != (output is not None):
        raise click.UsageError("--only-build and --output go together")
    if protocol != "thumbnet" and not only_build:
        raise click.UsageError(
            f"--protocol {protocol}: thumbnet can't ask such a firmware what it runs; take --only-build, and flash it "
            "by yourself"
        )
    target = get_device(device, devices_file)
    if target.board.runs_linux:
        raise click.UsageError(f"{device}: {target.board.name} is no microcontroller; nothing is flashed there")
    if output is None and target.kind != "serial":
        raise click.UsageError(f"{device}: an emulated board starts with its firmware; nothing is flashed there")
    loaded = Artifact.load(artifact)
    files: list[Path] = []
    flashed = False
    with show_steps(f"{loaded.manifest['model']} on {target.name}") as shown:
        shown.step("building the firmware")
        image = build_firmware(loaded, target.firmware_board, protocol=protocol)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            files = [
                write_image(image, target.board, form, output / f"{loaded.name}.{form}")
                for form in formats_for(target.board)
            ]
        else:
            line = line_of(target)
            line.open()
            try:
                flashed = deploy(target, image, line, force=force, progress=shown.step)
            finally:
                line.close()
    rows = [("wrote", str(file)) for file in files]
    if output is None:
        rows.append(("firmware", "flashed, verified and started" if flashed else "was there already"))
    print_table(
        "Flashed" if output is None else "Built",
        ["what", "value"],
        [("model", image.model_hash), ("image (bytes)", f"{image.image_bytes:,}"), *rows],
    )
    write_json(
        json_file,
        {
            "device": target.name,
            "board": target.board.name,
            "model_hash": image.model_hash,
            "image_bytes": image.image_bytes,
            "flashed": flashed,
            "files": [str(file) for file in files],
        },
    )
