"""What is at the serial ports: a table, and what of it belongs into a devices.toml."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

import click

from thumbnet.runtime_tests.mcu.port_scan import ScannedPort, scan_ports
from thumbnet.runtime_tests.mcu.serial_ports import SerialPort, list_serial_ports
from thumbnet.targets.device import Device
from thumbnet.targets.registry import list_boards
from thumbnet.tools.output import print_table

#: What stands for a board that nobody has named yet.
_UNKNOWN_BOARD = "NAME"


def print_scan(devices: Sequence[Device]) -> list[dict[str, Any]]:
    """Scan the serial ports, print what is there, and return it as plain JSON values.

    Parameters
    ----------
    devices : sequence of Device
        Those that are known.
    """
    ports = list_serial_ports()
    known = {port.path: device for port in ports if (device := _device_at(port, devices)) is not None}
    found = scan_ports(ports, {path: device.baud for path, device in known.items()})
    print_table(
        "Serial ports",
        ["port", "USB device", "serial number", "interface", "answer", "device"],
        [
            (
                *(scanned.port.path, scanned.port.description, scanned.port.serial_number, scanned.port.interface),
                *(_answer(scanned), known[scanned.port.path].name if scanned.port.path in known else None),
            )
            for scanned in found
        ],
    )
    new = [scanned for scanned in found if scanned.port.path not in known and scanned.port.usb_device is not None]
    if new:
        names = {device.name for device in devices}
        click.echo("For your devices.toml (flash = ... says how a firmware gets there, see its part of the README):\n")
        click.echo("\n".join(_table(scanned, ports, names) for scanned in new))
    return [_as_json(scanned, known.get(scanned.port.path)) for scanned in found]


def _device_at(port: SerialPort, devices: Sequence[Device]) -> Device | None:
    for device in devices:
        if device.kind != "serial":
            continue
        if device.address and os.path.realpath(device.address) == os.path.realpath(port.path):
            return device
        if device.serial_number == port.serial_number and device.interface in (None, port.interface):
            return device
    return None


def _answer(scanned: ScannedPort) -> str:
    if scanned.identity is not None:
        return f"{scanned.identity.board} runs {scanned.identity.model} {scanned.identity.model_hash}"
    return f"{scanned.state}: {scanned.detail}" if scanned.detail else scanned.state


def _table(scanned: ScannedPort, ports: Sequence[SerialPort], names: set[str]) -> str:
    """Return the table of a devices.toml for a port; its name is added to `names`."""
    port, identity = scanned.port, scanned.identity
    board = _UNKNOWN_BOARD if identity is None else identity.board
    lines = [f"board = {_quoted(board)}"]
    if identity is None:
        lines[0] += "    # one of `thumbnet boards`"
    elif board not in {known.name for known in list_boards()}:
        lines[0] += "    # needs its [boards.NAME] here"
    lines.append('kind = "serial"')
    fitting = [other for other in ports if other.serial_number == port.serial_number]
    if port.serial_number is None or len({other.usb_device for other in fitting}) > 1:
        lines.append(f"port = {_quoted(port.path)}    # no serial number tells it from others")
    else:
        lines.append(f"serial_number = {_quoted(port.serial_number)}")
        if len(fitting) > 1:
            lines.append(f"interface = {port.interface}")
    base = re.sub(r"[^A-Za-z0-9_-]", "_", "board" if identity is None else board)
    name = next(name for number in range(1, len(names) + 2) if (name := f"{base}_{number}") not in names)
    names.add(name)
    return "\n".join([f"[devices.{name}]", *lines, ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # as TOML has it


def _as_json(scanned: ScannedPort, device: Device | None) -> dict[str, Any]:
    port, identity = scanned.port, scanned.identity
    return {
        "port": port.path,
        "description": port.description,
        "serial_number": port.serial_number,
        "interface": port.interface,
        "state": scanned.state,
        "detail": scanned.detail or None,
        "board": None if identity is None else identity.board,
        "model": None if identity is None else identity.model,
        "model_hash": None if identity is None else identity.model_hash,
        "device": None if device is None else device.name,
    }
