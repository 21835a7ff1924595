"""What is at the serial ports of this computer: each is asked whether our firmware answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from thumbnet.runtime_tests.errors import DeviceUnreachableError, SessionError
from thumbnet.runtime_tests.mcu.deploy import ANSWER_S
from thumbnet.runtime_tests.mcu.protocol import Identity, ProtocolClient
from thumbnet.runtime_tests.mcu.serial_ports import SerialPort
from thumbnet.runtime_tests.mcu.serial_transport import SerialTransport
from thumbnet.targets.device import Device

#: At once.
_MOST_THREADS = 16


@dataclass(frozen=True)
class ScannedPort:
    """A serial port and what is there.

    Parameters
    ----------
    port : SerialPort
        The port.
    state : {"answers", "no answer", "unusable", "not asked"}
        Whether our firmware answers. Unusable: it can't be opened, or another program holds it.
    identity : Identity or None
        What the firmware says of itself.
    detail : str
        What is to be said of the other states.
    """

    port: SerialPort
    state: Literal["answers", "no answer", "unusable", "not asked"]
    identity: Identity | None = None
    detail: str = ""


def scan_ports(ports: Sequence[SerialPort], bauds: Mapping[str, int]) -> list[ScannedPort]:
    """Ask at serial ports whether our firmware answers, at several at once.

    All that is sent is the protocol's OPEN, some twenty bytes, again and again for `ANSWER_S` seconds; each port is
    held meanwhile. Ports that are no USB ports, where anything may be listening, are asked only where somebody has said
    that a board is there.

    Parameters
    ----------
    ports : sequence of SerialPort
        The ports.
    bauds : mapping of str to int
        Symbols a second by the path of ports that are known to be a board's.
    """

    def scan(port: SerialPort) -> ScannedPort:
        if port.usb_device is None and port.path not in bauds:
            return ScannedPort(port, "not asked", detail="no USB port")
        return _scan_port(port, bauds.get(port.path, Device.baud))

    with ThreadPoolExecutor(_MOST_THREADS) as pool:
        return list(pool.map(scan, ports))


def _scan_port(port: SerialPort, baud: int) -> ScannedPort:
    line = SerialTransport(port.path, baud)
    try:
        line.open()
    except DeviceUnreachableError as error:
        return ScannedPort(port, "unusable", detail=str(error).removeprefix(f"{port.path}: "))
    try:
        return ScannedPort(port, "answers", ProtocolClient(line, reply_timeout_s=ANSWER_S).open())
    except DeviceUnreachableError:
        return ScannedPort(port, "no answer")
    except SessionError as error:  # something answers that makes no sense, or an older firmware
        return ScannedPort(port, "no answer", detail=str(error))
    finally:
        line.close()
