"""A serial port of this computer."""

from __future__ import annotations

import termios

import serial

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError

#: What pyserial raises of a port that is not, or no longer, there.
BROKEN = (serial.SerialException, OSError, termios.error)


class SerialTransport(Transport):
    """A serial port, 8 data bits, no parity, one stop bit, held exclusively.

    Parameters
    ----------
    port : str
        For example ``/dev/ttyACM0``.
    baud : int
        Symbols a second.
    """

    def __init__(self, port: str, baud: int) -> None:
        self._port = port
        self._baud = baud
        self._serial: serial.Serial | None = None

    def open(self) -> None:
        """See `Transport.open`."""
        try:
            self._serial = serial.Serial(self._port, self._baud, timeout=0, write_timeout=0, exclusive=True)
            self._serial.reset_input_buffer()
        except (*BROKEN, ValueError) as error:
            if "exclusively lock" in str(error):
                raise DeviceUnreachableError(f"{self._port}: another program holds it; close that first") from error
            raise DeviceUnreachableError(
                f"{self._port}: can't be opened ({error}); is the board plugged in?"
            ) from error

    def close(self) -> None:
        """Close the port."""
        if self._serial is not None:
            self._serial.close()
            self._serial = None

    def read(self, n: int, timeout_s: float) -> bytes:
        """See `Transport.read`."""
        port = self._opened()
        try:
            port.timeout = timeout_s
            data: bytes = port.read(1)
            if data:
                data += port.read(min(n - 1, port.in_waiting))
        except BROKEN as error:
            raise DeviceUnreachableError(f"{self._port}: the line broke ({error})") from error
        if not data:
            raise TransportTimeoutError(f"{self._port}: nothing arrived in {timeout_s:g} s")
        return data

    def write(self, data: bytes, timeout_s: float) -> None:
        """See `Transport.write`."""
        port = self._opened()
        try:
            port.write_timeout = timeout_s
            port.write(data)
        except serial.SerialTimeoutException as error:
            raise TransportTimeoutError(f"{self._port}: takes no bytes for {timeout_s:g} s") from error
        except BROKEN as error:
            raise DeviceUnreachableError(f"{self._port}: the line broke ({error})") from error

    def _opened(self) -> serial.Serial:
        if self._serial is None:
            raise DeviceUnreachableError(f"{self._port}: is not open")
        return self._serial
