"""`thumbnet devices`: what is on this desk."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path

import click

from thumbnet.tools.output import json_option, print_table, write_json

devices_option = click.option(
    "--devices",
    "devices_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of your own devices; ./devices.toml if it exists.",
)

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    help="Boards that run Linux: threads that share the work of an inference; the answer's bytes are the same.",
)


@click.command()
@devices_option
@json_option
def devices(devices_file: Path | None, json_file: Path | None) -> None:
    """List the devices networks can be tested on: emulators, this computer, and your own.

    Your own stand in devices.toml, a table a device: [devices.NAME] with board, kind = "serial" and port (and baud),
    or kind = "rpc" and the tracker's HOST:PORT and key, or kind = "tcp" and the address HOST:PORT of a firmware that
    is a program of Linux.
    """
    from thumbnet.targets.devices import list_devices

    known = list_devices(devices_file)
    print_table(
        "Devices",
        ["name", "kind", "board", "core", "address"],
        [(device.name, device.kind, device.board.name, device.board.core, device.address or None) for device in known],
    )
    write_json(
        json_file,
        [
            {"name": device.name, "board": device.board.name, "kind": device.kind, "address": device.address}
            for device in known
        ],
    )
