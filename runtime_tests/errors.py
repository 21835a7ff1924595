"""What can go wrong between this computer and a device."""


class SessionError(Exception):
    """The device can't be used; the message is one line for the person."""


class DeviceUnreachableError(SessionError):
    """The device did not answer: not there, not powered, or another program holds it."""


class DeviceFaultError(SessionError):
    """The device answered that something failed on its side, or stopped in the middle."""


class ClockError(DeviceFaultError):
    """The board's clock is not what it says, or can't be known: nothing can be said of time."""


class ArenaOverrunError(DeviceFaultError):
    """The network wrote outside its arena.

    Parameters
    ----------
    message : str
        One line for the person.
    behind : bool
        Behind the arena's end; else before its start.
    reach_bytes : int
        How far beyond the arena's edge the furthest changed byte lies; 1 is the one next to it.
    stage : int or None
        Index of the stage after which it was seen; None: after the whole inference.
    """

    def __init__(self, message: str, *, behind: bool, reach_bytes: int, stage: int | None) -> None:
        super().__init__(message)
        self.behind = behind
        self.reach_bytes = reach_bytes
        self.stage = stage


class EmulatorMissingError(SessionError):
    """The emulator, or something it needs, is not installed."""


class ProtocolError(SessionError):
    """The device speaks another protocol version or runs another network, or what it says is damaged or senseless."""


class FlashError(SessionError):
    """A firmware did not get onto a board; the message says where it ended and what to look at."""
