"""Reads what torch.save wrote, as data: no class or function that the file names is imported or run."""

from __future__ import annotations

import collections
import contextlib
import io
import pickletools
import re
import warnings
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from pathlib import Path
from typing import Any

import torch

from thumbnet.models.errors import WeightsFileError
from thumbnet.models.weights_file import check_size, shorten

#: A zip (torch.save since 1.6), or a bare pickle (before), of whatever protocol.
MAGICS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
#: Of pickle, which is torch.save's own and the only one that PyTorch reads as weights.
_PROTOCOL = 2
#: An old file begins with a pickle each of its magic number, its protocol, the machine's word sizes, and its content.
_OLD_PICKLES = 4
#: Of the pickle, which holds everything but the weights: a trainer's whole state takes a tenth.
_LARGEST_PICKLE = 8 * 2**20
_MOST_NAMES = 10_000

#: Archives that are none of torch.save, by a member they have: what they are and the way out.
_OTHER_ARCHIVES = {
    r"(.*/)?constants\.pkl": (
        "a TorchScript program, of which nothing is run here; torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        " gives its weights"
    ),
    r"(.*/)?(archive_format|serialized_exported_program\.json)": (
        "a program of torch.export (.pt2), of which nothing is run here;"
        " torch.save(torch.export.load(FILE).state_dict, NEW_FILE) gives its weights"
    ),
    r".*\.npy": "a NumPy archive, which is not read; give a PyTorch state dict",
}
#: What torch.load allows in a file of weights and what takes memory that has nothing to do with the file's size.
_UNBOUNDED = frozenset({"builtins.bytearray", "torch._utils._rebuild_device_tensor_from_cpu_tensor"})


#: How the names begin that say nothing of what else a file holds.
_OF_WEIGHTS = ("_codecs.", "builtins.", "collections.", "numpy.", "torch.")
# What zipfile, zlib and pickletools raise on bytes that were never a file of torch.save.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, LookupError, ValueError, RuntimeError)


class Inert:
    """Takes the place of whatever a file names that is no weight: it does nothing and keeps nothing."""

    def __new__(cls, *_args: object, **_options: object) -> Inert:
        """Stand for an instance, or for a function's result."""
        return super().__new__(cls)

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        """Leave an instance's attributes in the file."""


class InertMapping(Inert):
    """The same for classes of dictionaries: PyTorch puts items into nothing but plain ones."""

    def __new__(cls, *_args: object, **_options: object) -> Any:  # noqa: ANN401, D102 - no instance of this class
        return collections.OrderedDict()


def read_pytorch(file: Path, data: bytes) -> object:
    """Return what a file of torch.save holds.

    Classes and functions that PyTorch doesn't count among weights (a trainer's settings, a whole model) become
    instances of `Inert` whose class has their name.

    Raises
    ------
    WeightsFileError
        The file is damaged or none of torch.save; the message says what it is where that is known.
    """
    try:
        names = _list_names(file, _open_archive(file, data) if data.startswith(b"PK") else _cut(data))
        attempts = [_stand_for(names, kind) for kind in (Inert, InertMapping)]
    except _DAMAGE as error:
        raise WeightsFileError(f"{file}: a damaged PyTorch file; get it again") from error
    if unbounded := sorted(names & _UNBOUNDED):
        raise WeightsFileError(f"{file}: holds more than weights ({unbounded[0]}); save model.state_dict() alone")
    for inert in attempts:
        # A damaged pickle fails in any way inside the unpickler.
        with contextlib.suppress(Exception), warnings.catch_warnings(), torch.serialization.safe_globals(inert):
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    others = sorted(name for name in names if not name.startswith(_OF_WEIGHTS))
    named = f" ({shorten(others[0])})" if others else ""
    raise WeightsFileError(
        f"{file}: damaged, or holds more than weights{named}; get it again, or save model.state_dict() alone"
    )


def _stand_for(names: set[str], kind: type[Inert]) -> list[Any]:
    """Return what stands for each of the named classes and functions; numpy's keep their state as objects do."""
    return [(type(name, (Inert if name.startswith("numpy.") else kind,), {}), name) for name in names]


def _open_archive(file: Path, data: bytes) -> list[io.BytesIO]:
    """Return the pickle of a zip archive of torch.save."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.namelist()
        for pattern, what in _OTHER_ARCHIVES.items():
            if any(re.fullmatch(pattern, member) for member in members):
                raise WeightsFileError(f"{file}: {what}")
        check_size(file, sum(member.file_size for member in archive.infolist()), "expands to")
        pickles = [member for member in archive.infolist() if member.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise WeightsFileError(f"{file}: a zip archive, but none of torch.save; save model.state_dict()")
        if pickles[0].file_size > _LARGEST_PICKLE:
            raise WeightsFileError(
                f"{file}: {pickles[0].file_size:,} bytes of it are no weights, at most {_LARGEST_PICKLE:,} are read;"
                " save model.state_dict() alone"
            )
        return [io.BytesIO(archive.read(pickles[0]))]


def _cut(data: bytes) -> list[io.BytesIO]:
    """Return the pickles at the beginning of an old file: one stream, read once for each of them."""
    return [io.BytesIO(data[:_LARGEST_PICKLE])] * _OLD_PICKLES


def _list_names(file: Path, pickles: list[io.BytesIO]) -> set[str]:
    """Return the classes and functions that pickles name."""
    names: set[str] = set()
    for stream in pickles:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "PROTO" and argument is not None and argument > _PROTOCOL:
                raise WeightsFileError(
                    f"{file}: a pickle of protocol {argument}, of weights only {_PROTOCOL} is read; save them with"
                    " torch.save(model.state_dict(), NEW_FILE)"
                )
            if opcode.name == "GLOBAL":
                names.add(_modernize(str(argument)))
                if len(names) > _MOST_NAMES:
                    raise ValueError("more classes than any checkpoint has")
    return names


def _modernize(name: str) -> str:
    """Return the full name of a class or function; pickles of torch.save call modules as Python 2 did."""
    module, _, attribute = name.partition(" ")
    module, attribute = NAME_MAPPING.get((module, attribute), (IMPORT_MAPPING.get(module, module), attribute))
    return f"{module}.{attribute}"
