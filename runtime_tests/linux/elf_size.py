"""What a shared library takes in memory, from its program headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from thumbnet.runtime_tests.errors import SessionError

_LOAD = 1
_WRITABLE = 2
#: Offset of e_phoff, then of e_phentsize and e_phnum; and the fields of a program header, by the ELF's word size.
_LAYOUTS = {1: ("I", 28, 42, "IIIIIIII", (0, 6, 4, 5)), 2: ("Q", 32, 54, "IIQQQQQQ", (0, 1, 5, 6))}


@dataclass(frozen=True)
class ElfSize:
    """Bytes of an ELF file's loaded segments.

    Parameters
    ----------
    file_bytes : int
        Of all segments, as they lie in the file: code, constants, initial values.
    writable_bytes : int
        Of the writable segments, in memory.
    """

    file_bytes: int
    writable_bytes: int


def measure_elf(path: Path) -> ElfSize:
    """Read the program headers of a little-endian ELF file (ELF specification 1.2, part 1, "Program Header").

    Raises
    ------
    SessionError
        It is no such file.
    """
    data = path.read_bytes()
    layout = _LAYOUTS.get(data[4]) if data[:4] == b"\x7fELF" and data[5:6] == b"\x01" else None
    if layout is None:
        raise SessionError(f"{path}: not a little-endian ELF library; compile the network again")
    word, offset_at, count_at, fields, picks = layout
    try:
        (start,) = struct.unpack_from(f"<{word}", data, offset_at)
        size, count = struct.unpack_from("<HH", data, count_at)
        headers = [struct.unpack_from(f"<{fields}", data, start + index * size) for index in range(count)]
    except struct.error as error:
        raise SessionError(f"{path}: truncated; compile the network again") from error
    kind, flags, in_file, in_memory = picks
    loaded = [header for header in headers if header[kind] == _LOAD]
    return ElfSize(
        sum(header[in_file] for header in loaded),
        sum(header[in_memory] for header in loaded if header[flags] & _WRITABLE),
    )
