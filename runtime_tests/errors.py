"""What can go wrong between this computer and a device."""


class SessionError(Exception):
    """The device can't be used; the message is one line for the person."""


class DeviceUnreachableError(SessionError):
    """The device did not answer: not there, not powered, or another program holds it."""


class DeviceFaultError(SessionError):
    """The device answered that something failed on its side, or stopped in the middle."""


class EmulatorMissingError(SessionError):
    """The emulator, or something it needs, is not installed."""


class ProtocolError(SessionError):
    """The device and this computer don't speak the same protocol version, or a frame was damaged too often."""
