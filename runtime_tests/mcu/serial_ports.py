"""The serial ports of this computer, and the one of a board that is known by its USB serial number.

A port's path (``/dev/ttyACM0``) follows the order in which boards are plugged in; the serial number stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serial.tools import list_ports

from thumbnet.runtime_tests.errors import DeviceUnreachableError

#: Of those that are there, so many are named.
_NAMED = 8


@dataclass(frozen=True)
class SerialPort:
    """A serial port of this computer.

    Parameters
    ----------
    path : str
        For example ``/dev/ttyACM0``.
    description : str or None
        What its USB device calls itself; None where the port is no USB port.
    serial_number : str or None
        Of its USB device, None where that has none or the port is no USB port.
    usb_device : str or None
        Where its USB device is plugged in; None where the port is no USB port.
    interface : int or None
        Number of the USB device's interface, where it has several.
    """

    path: str
    description: str | None
    serial_number: str | None = None
    usb_device: str | None = None
    interface: int | None = None


def list_serial_ports() -> list[SerialPort]:
    """Return the serial ports of this computer, by path."""
    ports = []
    for found in sorted(list_ports.comports()):
        # Linux: "1-2.4:1.2" is interface 2 of the device 1-2.4.
        usb_device, _, interface = (found.location or "").partition(":")
        number = interface.rpartition(".")[2]
        ports.append(
            SerialPort(
                found.device,
                None if found.vid is None else found.description,
                found.serial_number or None,
                None if found.vid is None else usb_device or found.device,
                int(number) if number.isdecimal() else None,
            )
        )
    return ports


def find_port(name: str, serial_number: str, interface: int | None = None) -> str:
    """Return the path of the port of a board.

    Parameters
    ----------
    name : str
        The device's, for messages.
    serial_number : str
        Of its USB device.
    interface : int or None
        Which of the USB device's interfaces, where several are serial ports.

    Raises
    ------
    DeviceUnreachableError
        It is not plugged in, two boards have that number, or the board has several ports and none was chosen.
    """
    ports = list_serial_ports()
    fitting = [port for port in ports if port.serial_number == serial_number]
    if interface is not None and len(fitting) > 1:
        chosen = [port for port in fitting if port.interface == interface]
        if not chosen:
            raise DeviceUnreachableError(
                f"{name}: no serial port is interface {interface} of the board with USB serial number {serial_number}; "
                f"it has {_describe(fitting)}"
            )
        fitting = chosen
    if not fitting:
        known = [port for port in ports if port.serial_number is not None]
        there = f"there are {_describe(known)}" if known else "no port has one"
        raise DeviceUnreachableError(
            f"{name}: no serial port has the USB serial number {serial_number}; {there}; is the board plugged in?"
        )
    if len({port.usb_device for port in fitting}) > 1:
        raise DeviceUnreachableError(
            f"{name}: {len(fitting)} boards have the USB serial number {serial_number}, at {_describe(fitting)}; "
            "unplug one, or name the board by port = ... instead"
        )
    if len(fitting) > 1:
        raise DeviceUnreachableError(
            f"{name}: the board with USB serial number {serial_number} has {_describe(fitting)}; say which by "
            "interface = ..."
        )
    return fitting[0].path


def _describe(ports: Sequence[SerialPort]) -> str:
    def describe(port: SerialPort) -> str:
        interface = "" if port.interface is None else f", interface {port.interface}"
        return f"{port.path} ({port.serial_number}{interface})"

    more = f" and {len(ports) - _NAMED} more" if len(ports) > _NAMED else ""
    return ", ".join(map(describe, ports[:_NAMED])) + more
