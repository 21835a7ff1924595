"""A serial port of this computer."""

from __future__ import annotations

import serial

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError


class SerialTransport(Transport):
    """A serial port, 8 data bits, no parity, one stop bit, held exclusively.

    Parameters
    ----------
    port : str
        For example ``/dev/ttyACM0``.
    baud : int
        Symbols a second.
    """

    #: Seconds after which a port that takes no bytes is held to be gone.
    WRITE_TIMEOUT_S = 10.0

    def __init__(self, port: str, baud: int) -> None:
        self._port = port
        self._baud = baud
        self._serial: serial.Serial | None = None

    def open(self) -> None:
        """See `Transport.open`."""
        try:
            self._serial = serial.Serial(
                self._port, self._baud, timeout=0, write_timeout=self.WRITE_TIMEOUT_S, exclusive=True
            )
            self._serial.reset_input_buffer()
        except (serial.SerialException, OSError, ValueError) as error:
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
        except (serial.SerialException, OSError) as error:
            raise DeviceUnreachableError(f"{self._port}: the line broke ({error})") from error
        if not data:
            raise TransportTimeoutError(f"{self._port}: nothing arrived in {timeout_s:g} s")
        return data

    def write(self, data: bytes) -> None:
        """See `Transport.write`."""
        try:
            self._opened().write(data)
        except (serial.SerialException, OSError) as error:
            raise DeviceUnreachableError(f"{self._port}: the line broke ({error})") from error

    def _opened(self) -> serial.Serial:
        if self._serial is None:
            raise DeviceUnreachableError(f"{self._port}: is not open")
        return self._serial
