"""What can go wrong between a trained network and its artifact."""


class CompileError(Exception):
    """The network can't be compiled as asked; the message is one line for the person."""


class UnsupportedOperatorError(CompileError):
    """The network has an operator, or a use of one, that has no integer form here."""


class QuantizationError(CompileError):
    """Ranges or calibration data are missing or don't fit the network."""


class DoesNotFitError(CompileError):
    """The network needs more flash or RAM than the board has.

    Parameters
    ----------
    message : str
        What needs what, and what there is.
    flash_bytes, ram_bytes : int or None
        What the board has for constants and for the arena, where that is known.
    """

    def __init__(self, message: str, *, flash_bytes: int | None = None, ram_bytes: int | None = None) -> None:
        super().__init__(message)
        self.flash_bytes = flash_bytes
        self.ram_bytes = ram_bytes


class ArtifactError(CompileError):
    """A folder is no artifact, or not the one its manifest describes."""


class ToolchainError(CompileError):
    """A compiler the build needs is missing or failed."""


class TuningError(CompileError):
    """The search can't start, or its records can't be used."""
