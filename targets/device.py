"""One board on a desk, or one emulator of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thumbnet.targets.board import Board
from thumbnet.targets.flash_way import FlashWay

Kind = Literal["emulated", "local", "serial", "rpc", "tcp"]

#: How keys of emulated boards end on a tracker, so that none is taken for a real one.
_EMULATED_KEY = ".emulated"


@dataclass(frozen=True)
class Device:
    """One board that can be reached.

    Parameters
    ----------
    name : str
        Identifier used on the command line.
    board : Board
        Its type.
    kind : {"emulated", "local", "serial", "rpc", "tcp"}
        How it is reached.
    address : str
        Serial: the port, for example ``/dev/ttyACM0``; rpc: ``host:port`` of a TVM RPC tracker; tcp: ``host:port`` of
        the board's firmware; otherwise empty.
    serial_number : str
        Serial: USB serial number of the port, whose path is looked up whenever it is opened; empty where `address` says
        the path.
    interface : int or None
        Serial: which interface of the USB device with that number, where several are serial ports.
    baud : int
        Serial: symbols a second.
    key : str
        rpc: the key under which the device is registered on the tracker.
    flash : FlashWay or None
        Serial: how a firmware gets onto the board, None where somebody else puts it there.
    """

    name: str
    board: Board
    kind: Kind
    address: str = ""
    serial_number: str = ""
    interface: int | None = None
    baud: int = 115200
    key: str = ""
    flash: FlashWay | None = None

    @property
    def place(self) -> str:
        """Where it is reached, in words; empty where it is started anew each time."""
        if not self.serial_number:
            return self.address
        return f"USB {self.serial_number}" + ("" if self.interface is None else f" interface {self.interface}")

    @property
    def emulated(self) -> bool:
        """Whether no real board is behind it: instructions are counted, and nothing is said of time."""
        return self.kind == "emulated" or self.key.endswith(_EMULATED_KEY)

    @property
    def firmware_board(self) -> Board:
        """What a firmware is built for: the board, an emulated one with the memories that its emulator has."""
        return self.board.as_emulated() if self.kind == "emulated" else self.board


def tracker_key(board: Board, *, emulated: bool) -> str:
    """Return the key under which boards of a type stand on a tracker."""
    return board.name + _EMULATED_KEY if emulated else board.name
