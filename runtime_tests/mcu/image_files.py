"""A firmware in the formats that tools take: ELF, Intel HEX, plain bytes, and UF2 for drives of boot loaders."""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path

from thumbnet.compile.emit.run_tool import run_tool
from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.mcu.firmware_build import FirmwareImage
from thumbnet.targets.board import Board

FORMATS = ("elf", "hex", "bin", "uf2")

#: A block of UF2: its header, 256 bytes, the gap up to its last word.
_UF2_HEADER = struct.Struct("<8I")
_UF2_MAGIC = (0x0A32_4655, 0x9E5D_5157)
_UF2_END = struct.Struct("<I").pack(0x0AB1_6F30)
_UF2_BYTES, _UF2_BLOCK = 256, 512
_UF2_HAS_FAMILY = 0x2000
#: Chips whose boot ROM takes UF2 files, by series: the number of their family.
UF2_FAMILIES = {"rp2040": 0xE48B_FF56, "rp2350": 0xE48B_FF59}


def formats_for(board: Board) -> tuple[str, ...]:
    """Return the formats a board's firmware can have: UF2 where a boot ROM reads it, bytes where it is in one piece."""
    return tuple(
        form
        for form in FORMATS
        if (form != "uf2" or board.series in UF2_FAMILIES) and (form != "bin" or board.vectors is None)
    )


def write_image(image: FirmwareImage, board: Board, form: str, path: Path) -> Path:
    """Write a firmware in one format; the file appears whole or not at all.

    Parameters
    ----------
    image : FirmwareImage
        What to write.
    board : Board
        What it was built for.
    form : str
        One of `formats_for` the board.
    path : Path
        The file.

    Raises
    ------
    ToolchainError
        The board has no such format, or the compiler's `objcopy` is missing or fails.
    """
    if form not in formats_for(board):
        raise ToolchainError(f"{board.name}: its firmware has no {form} file; there is {', '.join(formats_for(board))}")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
        aside = Path(name) / "image"
        if form == "elf":
            shutil.copyfile(image.elf, aside)
        else:
            objcopy = board.cross_compiler.removesuffix("gcc") + "objcopy"
            kind = "ihex" if form == "hex" else "binary"
            run_tool([objcopy, "-O", kind, str(image.elf), str(aside)], Path(name))
        if form == "uf2":
            assert board.flash is not None and board.series is not None
            aside.write_bytes(uf2_blocks(aside.read_bytes(), board.flash.origin, UF2_FAMILIES[board.series]))
        aside.replace(path)
    return path


def uf2_blocks(data: bytes, origin: int, family: int) -> bytes:
    """Return bytes for an address as a UF2 file for chips of a family."""
    pieces = [data[at : at + _UF2_BYTES].ljust(_UF2_BYTES, b"\0") for at in range(0, len(data), _UF2_BYTES)]
    blocks = b""
    for number, piece in enumerate(pieces):
        place = origin + number * _UF2_BYTES
        sizes = (_UF2_HAS_FAMILY, place, _UF2_BYTES, number, len(pieces), family)
        block = _UF2_HEADER.pack(*_UF2_MAGIC, *sizes) + piece
        blocks += block.ljust(_UF2_BLOCK - len(_UF2_END), b"\0") + _UF2_END
    return blocks
