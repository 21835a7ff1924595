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
        click.option(
            "--board", help="With --tracker (or, in `thumbnet test`, --all): the type of board, see `thumbnet boards`."
        ),
        click.option(
            "--tracker",
            help="HOST:PORT of a tracker: take all boards of the type --board that are there, see `thumbnet serve`; the"
            " real ones or, where there are none, emulated ones.",
        ),
    ):
        command = option(command)
    return command


def choose_devices(
    names: Sequence[str], tracker: str | None, board: str | None, devices_file: Path | None, *, every: bool = False
) -> list[Device]:
    """Return the devices that --device, --tracker and --board, or --all (`every`) and --board name.

    Raises
    ------
    DeviceError, BoardError
        A name is unknown, there is no device of that board, or two devices are one port.
    DeviceUnreachableError
        No tracker there, or no such board on it.
    """
    from thumbnet.targets.devices import check_places, devices_of, get_device, read_own_boards
    from thumbnet.targets.registry import get_board

    if every and tracker is not None:
        raise click.UsageError("--all is of `thumbnet devices`, --tracker of a tracker: give one of them")
    if (tracker is not None or every) != (board is not None):
        other = "--all" if every else "--tracker"
        raise click.UsageError(f"{other} and --board go together: where, and which boards")
    if bool(names) == (board is not None):
        raise click.UsageError("name devices by --device, or by --tracker and --board")
    if board is None:
        devices = [get_device(name, devices_file) for name in dict.fromkeys(names)]
    elif every:
        devices = devices_of(get_board(board, read_own_boards(devices_file)), devices_file)
    else:
        wanted = get_board(board)
        from thumbnet.runtime_tests.linux.tracker import find_devices

        assert tracker is not None
        devices = find_devices(tracker, wanted)
    check_places(devices)
    return devices


@click.command()
@click.option(
    "--scan",
    is_flag=True,
    help="List the serial ports instead, and which of thumbnet's firmware answers there. Some boards start anew where"
    " their port is opened.",
)
@devices_option
@json_option
def devices(scan: bool, devices_file: Path | None, json_file: Path | None) -> None:
    """List the devices networks can be tested on: emulators, this computer, and your own.

    Your own stand in devices.toml, a table a device: [devices.NAME] with board, kind = "serial" and port, or
    serial_number of its USB device (and baud), or kind = "rpc" and the tracker's HOST:PORT and key, or kind = "tcp" and
    the address HOST:PORT of a firmware that is a program of Linux. --scan prints such tables for what is plugged in.
    """
    from thumbnet.targets.devices import list_devices

    known = list_devices(devices_file)
    if scan:
        from thumbnet.tools.scanned_ports import print_scan

        write_json(json_file, print_scan(known))
        return
    print_table(
        "Devices",
        ["name", "kind", "board", "core", "address"],
        [(device.name, device.kind, device.board.name, device.board.core, device.place or None) for device in known],
    )
    write_json(
        json_file,
        [
            {"name": device.name, "board": device.board.name, "kind": device.kind, "address": device.place}
            for device in known
        ],
    )
