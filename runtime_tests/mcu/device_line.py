"""The line to a real board: a serial port, or a connection over TCP."""

from __future__ import annotations

from thumbnet.runtime_tests.mcu.serial_ports import find_port
from thumbnet.runtime_tests.mcu.serial_transport import SerialTransport
from thumbnet.runtime_tests.mcu.tcp_transport import TcpTransport
from thumbnet.runtime_tests.mcu.transport import Transport
from thumbnet.targets.device import Device

#: Bits on the line of the longest request and its reply: some 1050 bytes each, ten bits a byte.
_LONGEST_CALL_BITS = 2 * 1050 * 10
#: What a network may take to bring both; TCP repeats by itself what is lost.
_NETWORK_DELAY_S = 2.0


def line_of(device: Device) -> Transport:
    """Return the line to a device of kind serial or tcp, to be opened.

    Raises
    ------
    DeviceUnreachableError
        It is known by its USB serial number, and there is no such port, or more than one.
    """
    if device.kind == "tcp":
        return TcpTransport(device.address)
    path = device.address or find_port(device.name, device.serial_number, device.interface)
    return SerialTransport(path, device.baud)


def longest_call_s(device: Device) -> float:
    """Return how long the longest call and its reply are under way; an emulator's socket takes no time."""
    on_the_line_s = {"serial": _LONGEST_CALL_BITS / device.baud, "tcp": _NETWORK_DELAY_S}
    return on_the_line_s.get(device.kind, 0.0)
