"""`thumbnet devices`: what is on this desk."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from thumbnet.tools.output import json_option, print_table, write_json

if TYPE_CHECKING:
    from thumbnet.targets.device import Device

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

Command = TypeVar("Command", bound=Callable[..., Any])


def farm_options(command: Command) -> Command:
    """Give a command the options that name all boards of a type on a tracker, in place of --device."""
    for option in (
        click.option("--board", help="With --tracker: the type of board, see `thumbnet boards`."),
        click.option(
            "--tracker",
            help="HOST:PORT of a tracker: take all boards of the type --board that are there, see `thumbnet serve`; the"
            " real ones or, where there are none, emulated ones.",
        ),
    ):
        command = option(command)
    return command


def choose_devices(
    names: Sequence[str], tracker: str | None, board: str | None, devices_file: Path | None
) -> list[Device]:
    """Return the devices that --device, or --tracker and --board, name.

    Raises
    ------
    DeviceError, BoardError
        A name is unknown.
    DeviceUnreachableError
        No tracker there, or no such board on it.
    """
    from thumbnet.targets.devices import get_device
    from thumbnet.targets.registry import get_board

    if (tracker is None) != (board is None):
        raise click.UsageError("--tracker and --board go together: where, and which boards")
    if bool(names) == (tracker is not None):
        raise click.UsageError("name devices by --device, or by --tracker and --board")
    if tracker is None or board is None:
        return [get_device(name, devices_file) for name in dict.fromkeys(names)]
    wanted = get_board(board)
    from thumbnet.runtime_tests.linux.tracker import find_devices

    return find_devices(tracker, wanted)


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
