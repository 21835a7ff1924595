"""What can go wrong between a trained network and its artifact."""

import errno

#: The way out where an artifact is damaged.
AGAIN = "compile the network again"


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


class WrongScheduleError(TuningError):
    """A layer on a schedule can't be built or gives wrong bytes: it is in no record and no plan."""


#: The way out, by what the operating system says.
_WAYS_OUT = {
    errno.ENOSPC: "free some space, or name another place",
    errno.EDQUOT: "free some space, or name another place",
    errno.EFBIG: "raise the limit on the size of files, or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: "name another place, or ask for the permission",
    errno.EPERM: "name another place, or ask for the permission",
    errno.ENOTDIR: "a file is where a folder belongs; name another place",
    errno.EEXIST: "a file is where a folder belongs; name another place",
    errno.EISDIR: "a folder is where a file belongs; name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "these links lead in a circle; name the place itself",
    errno.EBUSY: "another file system is mounted there, or it is in use; name another place",
    errno.EXDEV: "another file system is mounted there; name another place",
    errno.ENOENT: "check the name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


def explain_os_error(error: OSError, place: object = None) -> str:
    """Return one line of what the operating system refused: what, where, and the way out.

    Parameters
    ----------
    error : OSError
        What was raised.
    place : object
        What was being written or read, where the error doesn't know it.
    """
    where = error.filename if place is None and error.filename is not None else place
    what = error.strerror or str(error) or type(error).__name__
    way_out = _WAYS_OUT.get(error.errno or 0)
    return (f"{where}: " if where is not None else "") + what + (f"; {way_out}" if way_out else "")
