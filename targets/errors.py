"""What can be wrong with a board or a device somebody names."""


class TargetError(Exception):
    """A board or device is unknown or badly described; the message is one line for the person."""


class BoardError(TargetError):
    """No such board, or a board that contradicts itself."""


class DeviceError(TargetError):
    """No such device, or a devices.toml that can't be read."""


class QuarantineError(TargetError):
    """A file of devices to leave out can't be read."""
