"""Boards as data: what a TOML file may say of one, checked key by key.

Built-in boards are such files, one's own look the same: a file of its own, whose name is the board's, or a table
``[boards.NAME]`` in a devices.toml.
"""

from __future__ import annotations

import json
import reprlib
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from thumbnet.targets.board import CORTEX_M_FLAGS, Board, Caches, Family, FlashTiming, Memory
from thumbnet.targets.errors import BoardError, TargetError
from thumbnet.targets.suggest import suggest

#: A file of a thousand boards or devices is a tenth of it.
MOST_BYTES = 1 << 20
LONGEST_SAID = 200


def _is_core(core: str) -> str:
    if core.startswith("cortex-m") and core not in CORTEX_M_FLAGS:
        raise ValueError(
            f"unknown core {core}{suggest(core, list(CORTEX_M_FLAGS))}; known: {', '.join(CORTEX_M_FLAGS)}"
        )
    return core


def _pin_number(pin: str) -> int:
    """Return the number of ``"PD8"``: 16 pins a port."""
    number = int(pin[2:])
    if number > 15:
        raise ValueError(f"a port has pins 0 to 15, not {number}")
    return 16 * (ord(pin[1]) - ord("A")) + number


BoardName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
BankName = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
#: Of a processor, a compiler, a machine of QEMU's: no option and no path can be in it.
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$")]
Core = Annotated[Word, AfterValidator(_is_core)]
Address = Annotated[int, Field(ge=0, lt=1 << 32)]
Size = Annotated[int, Field(gt=0, le=1 << 32)]
Count = Annotated[int, Field(ge=0, le=1 << 16)]
Hertz = Annotated[int, Field(gt=0, le=10_000_000_000)]
Irq = Annotated[int, Field(ge=0, lt=480)]
StmPin = Annotated[str, StringConstraints(pattern=r"^P[A-K][0-9]{1,2}$"), AfterValidator(_pin_number)]
RpPin = Annotated[int, Field(ge=0, lt=48)]
NrfPin = Annotated[int, Field(ge=0, lt=64)]


class Part(BaseModel):
    """A table whose keys are all known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Bank(Part):
    """A memory."""

    name: BankName
    origin: Address
    size: Size

    def memory(self) -> Memory:
        """Return it for the board; ValueError where it leaves the address space."""
        if self.origin + self.size > 1 << 32:
            raise ValueError(f"{self.name} ends at {self.origin + self.size:#x}, behind the last address")
        return Memory(self.name, self.origin, self.size)


class RamBank(Bank):
    """A memory for data; `emulated` is false where `qemu` hasn't it."""

    emulated: bool = True

    def memory(self) -> Memory:
        """See `Bank.memory`."""
        return replace(super().memory(), emulated=self.emulated)


class UartPort(Part):
    """What every port needs to know of its UART."""

    uart_base: Address
    uart_irq: Irq


class PinnedPort(UartPort):
    """A port whose pins are chosen; the marker's is high while the network runs."""

    @field_validator("marker_pin", check_fields=False)
    @classmethod
    def _leave_the_line_alone(cls, pin: int | None, info: ValidationInfo) -> int | None:
        if pin is not None and pin in {info.data.get("tx_pin"), info.data.get("rx_pin")}:
            raise ValueError("the line needs that pin for itself")
        return pin


class Mps2Port(UartPort):
    """Arm's FPGA boards: see port_mps2.c."""

    family: Literal["mps2"]
    fpgaio_base: Address
    fpgaio_hz: Hertz


class Stm32Port(PinnedPort):
    """ST's STM32: see port_stm32.c; `pin_function` is the number of the pins' alternate function."""

    family: Literal["stm32"]
    series: Literal["f4", "f7", "l4", "h7", "u5"]
    tx_pin: StmPin
    rx_pin: StmPin
    marker_pin: StmPin | None = None
    pin_function: Annotated[int, Field(ge=0, lt=16)]
    supply: Literal["ldo", "smps"] = "ldo"


class Rp2Port(PinnedPort):
    """Raspberry Pi's RP2040 and RP2350: see port_rp2.c."""

    family: Literal["rp2"]
    series: Literal["rp2040", "rp2350"]
    tx_pin: RpPin
    rx_pin: RpPin
    marker_pin: RpPin | None = None
    crystal_hz: Hertz


class NrfPort(PinnedPort):
    """Nordic's nRF52 and nRF53: see port_nrf.c; pins of port 1 begin at 32."""

    family: Literal["nrf"]
    series: Literal["nrf52", "nrf53"]
    tx_pin: NrfPin
    rx_pin: NrfPin
    marker_pin: NrfPin | None = None


class LinuxPort(Part):
    """A program of Linux: see port_linux.c."""

    family: Literal["linux"]


_PORTS: dict[str, type[BaseModel]] = {
    **{"mps2": Mps2Port, "stm32": Stm32Port, "rp2": Rp2Port, "nrf": NrfPort},
    "linux": LinuxPort,
}


class FlashTimingPart(Part):
    """See `FlashTiming`."""

    wait_states: Count
    read_bytes: Annotated[int, Field(gt=0, le=256)]
    line_bytes: Annotated[int, Field(gt=0, le=4096)]
    instruction_lines: Annotated[int, Field(ge=0, le=256)]
    data_lines: Annotated[int, Field(ge=0, le=256)]


class CachesPart(Part):
    """See `Caches`."""

    first_level: Size
    second_level: Size
    third_level: Size | None = None


class Llvm(BaseModel):
    """TVM's target; what else it may say is TVM's to know."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    mtriple: Word


class BoardPart(Part):
    """A board; see `Board`."""

    description: Text
    core: Core
    family: Literal["cortex-m", "cortex-a"] = "cortex-m"
    cross_compiler: Word = "arm-none-eabi-gcc"
    clock_hz: Hertz | None = None
    qemu: Word | None = None
    stands_for: BoardName | None = None
    flash: Annotated[list[Bank], Field(max_length=16)] = []
    ram: Annotated[list[RamBank], Field(max_length=16)] = []
    vectors: Bank | None = None
    flash_timing: FlashTimingPart | None = None
    caches: CachesPart | None = None
    llvm: Llvm | None = None
    port: Annotated[Mps2Port | Stm32Port | Rp2Port | NrfPort | LinuxPort, Field(discriminator="family")] | None = None


class _Named(Part):
    name: BoardName


def parse_board(name: str, table: object, where: str) -> Board:
    """Return the board that a table describes.

    Parameters
    ----------
    name : str
        The board's.
    table : object
        As TOML has it.
    where : str
        What messages begin with: the file, and what in it.

    Raises
    ------
    BoardError
        The table says what no board can be.
    """
    try:
        _Named(name=name)
        part = BoardPart.model_validate(table)
        return _board_of(name, part)
    except ValidationError as error:
        raise BoardError(f"{where}: {_explain(error)}") from error
    except ValueError as error:
        raise BoardError(f"{where}: {error}") from error
    except BoardError as error:
        raise BoardError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from error


def read_board(path: Path) -> Board:
    """Read a board from a file of its own, TOML or, where it is called so, JSON; the file's name is the board's.

    Raises
    ------
    BoardError
        The file can't be read, or describes no board.
    """
    return parse_board(path.stem, read_tables(path, BoardError), str(path))


def read_tables(path: Path, kind: type[TargetError]) -> dict[str, Any]:
    """Read a file of tables somebody has written, TOML or, where it is called so, JSON.

    Raises
    ------
    TargetError
        Of that kind: it can't be read, or is neither.
    """
    form = "JSON" if path.suffix == ".json" else "TOML"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise kind(f"{path}: can't be read (no regular file, or larger than {MOST_BYTES:,} bytes)")
        text = path.read_bytes().decode()
        document = json.loads(text) if form == "JSON" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise kind(f"{path}: can't be read ({reason})") from error
    except (ValueError, RecursionError) as error:  # numbers of too many digits and tables too deep among them
        raise kind(f"{path}: not {form}: {error}") from error
    if not isinstance(document, dict):
        raise kind(f"{path}: not a table")
    return document


def _board_of(name: str, part: BoardPart) -> Board:
    flash, ram = [bank.memory() for bank in part.flash], [bank.memory() for bank in part.ram]
    names = [bank.name for bank in (*flash, *ram)]
    for bank in names:
        if names.count(bank) > 1:
            raise BoardError(f"two memories are called {bank}")
    family: Family = part.family
    if family == "cortex-m" and part.clock_hz is None:
        raise BoardError("clock_hz is missing")
    return Board(
        name=name,
        description=part.description,
        family=family,
        core=part.core,
        cross_compiler=part.cross_compiler,
        flash=flash[0] if flash else None,
        ram=ram[0] if ram else None,
        other_flash=tuple(flash[1:]),
        other_ram=tuple(ram[1:]),
        clock_hz=part.clock_hz,
        llvm={} if part.llvm is None else part.llvm.model_dump(),
        firmware=None if part.port is None else part.port.family,
        series=getattr(part.port, "series", None),
        peripherals=_peripherals(part.port),
        flash_timing=None if part.flash_timing is None else FlashTiming(**part.flash_timing.model_dump()),
        vectors=None if part.vectors is None else part.vectors.memory(),
        stands_for=part.stands_for,
        qemu=part.qemu,
        caches=None if part.caches is None else Caches(**part.caches.model_dump()),
    )


def _peripherals(port: Part | None) -> dict[str, int]:
    """Return what the port's C files are told, by the names of its macros."""
    fields: Mapping[str, Any] = {} if port is None else dict(port)
    numbers = {key.upper(): value for key, value in fields.items() if isinstance(value, int)}
    return numbers | ({"SUPPLY_SMPS": int(fields["supply"] == "smps")} if "supply" in fields else {})


def _explain(error: ValidationError) -> str:
    """Return one line about the first thing that is wrong."""
    first = error.errors()[0]
    # A union's branch is no place in the file.
    place = [str(part) for part in first["loc"] if part not in _PORTS]
    where = ".".join(place)[:LONGEST_SAID]
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        return f"unknown field {where}{suggest(place[-1], known)}; known there: {', '.join(known)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    said = reprlib.repr(first["input"])
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "union_tag_not_found":
        return f"{where}.family is missing"
    return f"{where} is {said}: {reason[:1].lower()}{reason[1:]}"[: 3 * LONGEST_SAID]


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """Return the keys a table at that place may have."""
    tables: dict[str, type[BaseModel]] = {
        **{"flash": Bank, "ram": RamBank, "vectors": Bank},
        **{"flash_timing": FlashTimingPart, "caches": CachesPart, **_PORTS},
    }
    model = next((tables[part] for part in reversed(place) if isinstance(part, str) and part in tables), BoardPart)
    return list(model.model_fields)
