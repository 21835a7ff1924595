"""What a type of board is: its core, its memories, its toolchain."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from thumbnet.targets.errors import BoardError

Family = Literal["cortex-m", "cortex-a", "host"]

#: GCC flags that select each core.
CORTEX_M_FLAGS: dict[str, tuple[str, ...]] = {
    "cortex-m0plus": ("-mcpu=cortex-m0plus", "-mthumb"),
    "cortex-m3": ("-mcpu=cortex-m3", "-mthumb"),
    "cortex-m4": ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    "cortex-m7": ("-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    "cortex-m33": ("-mcpu=cortex-m33", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    "cortex-m55": ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
}

#: The same for Cortex-A cores that need more than their name: 32-bit Arm, in A32, with the vectors and the calling
#: convention of Debian's armhf.
CORTEX_A_FLAGS: dict[str, tuple[str, ...]] = {
    "cortex-a7": ("-mcpu=cortex-a7", "-marm", "-mfpu=neon-vfpv4", "-mfloat-abi=hard"),
}

#: Cores with MVE (Helium).
MVE_CORES = frozenset({"cortex-m55"})
#: Cores of 32 bits with Advanced SIMD.
ARMV7_CORES = frozenset({"cortex-a7"})
#: Cores with Armv8.2-A's dot product.
DOT_PRODUCT_CORES = frozenset({"cortex-a55", "cortex-a76"})


@dataclass(frozen=True)
class Memory:
    """One memory region of a board.

    Parameters
    ----------
    name : str
        As the linker script calls it, for example ``"FLASH"``.
    origin : int
        First address.
    size : int
        Bytes.
    emulated : bool
        Whether what emulates the board has it.
    """

    name: str
    origin: int
    size: int
    emulated: bool = True

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.origin + self.size

    def overlaps(self, other: Memory) -> bool:
        """Whether they share a byte."""
        return self.origin < other.end and other.origin < self.end


@dataclass(frozen=True)
class Caches:
    """The data caches of a processor that runs Linux, in bytes.

    Parameters
    ----------
    first_level : int
        Each core's own, for data alone.
    second_level : int
        Shared by all cores, or, where there is a third level, each core's own.
    third_level : int or None
        Shared by all cores; None where there is none.
    """

    first_level: int
    second_level: int
    third_level: int | None = None

    @property
    def last_level(self) -> int:
        """Bytes of the last cache before memory."""
        return self.third_level or self.second_level


@dataclass(frozen=True)
class FlashTiming:
    """What reading a flash costs, and the small caches before it.

    Parameters
    ----------
    wait_states : int
        Cycles that the core waits for a read which the caches miss.
    read_bytes : int
        Bytes a read brings.
    line_bytes : int
        Bytes of a line of the caches; each read fills its own part.
    instruction_lines, data_lines : int
        Lines of each cache, 0 where there is none.
    """

    wait_states: int
    read_bytes: int
    line_bytes: int
    instruction_lines: int
    data_lines: int


@dataclass(frozen=True)
class Board:
    """A type of board: everything thumbnet knows about it, said once.

    Parameters
    ----------
    name : str
        Identifier used on the command line.
    description : str
        One line for people.
    family : {"cortex-m", "cortex-a", "host"}
        What kind of processor it has; all but microcontrollers run Linux.
    core : str
        Processor, for example ``"cortex-m4"``; GCC's and LLVM's name.
    flash, ram : Memory or None
        Where constants and code, and where data go, the first bank of each; None where an operating system decides.
    other_flash, other_ram : tuple of Memory
        Further banks, in the order in which they are to be filled.
    arena_in : str or None
        Name of the memory that the arena lies in, see `placement`; None takes the first in which it fits.
    clock_hz : int or None
        Clock of the core in hertz, None where it varies.
    llvm : dict
        TVM target fields (``mtriple``, ``mcpu``, ``mattr``) of a board that takes a shared library; one without
        takes C sources.
    caches : Caches or None
        Of a board that runs Linux, where they are known: plans are chosen with them.
    cross_compiler : str
        The C compiler that builds for it.
    firmware : str or None
        Name of the board's port in ``runtime_tests/mcu/firmware``, None where only sources are made; for
        boards that take C sources.
    series : str or None
        Which of the chips that share the port it is, where their clocks are set up differently.
    flash_timing : FlashTiming or None
        Of `flash`, for predicted cycles; None where the core never waits for it, or where nobody has said.
    vectors : Memory or None
        Where the core expects its vector table after reset, None where that is the start of `flash`.
    peripherals : dict
        What the firmware's port must know of the board, name to number: ``UART_BASE`` and the like.
    stands_for : str or None
        An emulated board without waits for its memory: the board whose cycles are predicted from what it executes.
    qemu : str or None
        What emulates the board: QEMU's machine (Cortex-M) or its processor (Cortex-A); None where nothing does.

    Raises
    ------
    BoardError
        Where the fields contradict each other.
    """

    name: str
    description: str
    family: Family
    core: str
    cross_compiler: str
    flash: Memory | None = None
    ram: Memory | None = None
    other_flash: tuple[Memory, ...] = ()
    other_ram: tuple[Memory, ...] = ()
    arena_in: str | None = None
    clock_hz: int | None = None
    llvm: dict[str, object] = field(default_factory=dict, hash=False)
    firmware: str | None = None
    series: str | None = None
    flash_timing: FlashTiming | None = None
    vectors: Memory | None = None
    peripherals: dict[str, int] = field(default_factory=dict, hash=False)
    stands_for: str | None = None
    qemu: str | None = None
    caches: Caches | None = None

    def __post_init__(self) -> None:
        """Refuse a board that no artifact could be built for."""
        if self.family == "cortex-m":
            if self.core not in CORTEX_M_FLAGS:
                raise BoardError(f"{self.name}: unknown core {self.core}; known: {', '.join(CORTEX_M_FLAGS)}")
            if self.flash is None or self.ram is None:
                raise BoardError(f"{self.name}: a Cortex-M board needs both a flash and a ram memory")
            for one, other in pairwise(sorted((*self.flash_banks, *self.ram_banks), key=lambda bank: bank.origin)):
                if one.overlaps(other):
                    raise BoardError(f"{self.name}: its memories {one.name} and {other.name} overlap")
            if self.qemu is not None and not any(bank.emulated for bank in self.ram_banks):
                raise BoardError(f"{self.name}: none of its RAM is emulated, {self.qemu} could run nothing")
        elif not self.llvm and self.core not in ARMV7_CORES:
            raise BoardError(f"{self.name}: a {self.family} board needs its llvm target")

    @property
    def flash_banks(self) -> tuple[Memory, ...]:
        """All memories for constants and code; none where an operating system decides."""
        return () if self.flash is None else (self.flash, *self.other_flash)

    @property
    def ram_banks(self) -> tuple[Memory, ...]:
        """All memories for data, in the order in which they are to be filled."""
        return () if self.ram is None else (self.ram, *self.other_ram)

    def as_emulated(self) -> Board:
        """Return the board with the RAM alone that what emulates it has."""
        if self.ram is None:
            return self
        ram, *others = (bank for bank in self.ram_banks if bank.emulated)
        return replace(self, ram=ram, other_ram=tuple(others))

    @property
    def artifact(self) -> Literal["c", "library"]:
        """Which kind of artifact it takes: C sources, or a shared library that a TVM runtime loads."""
        return "library" if self.llvm else "c"

    @property
    def runs_linux(self) -> bool:
        """Whether an operating system decides where code and data go."""
        return self.family != "cortex-m"

    @property
    def instruction_set(self) -> Literal["dsp", "mve", "neon", "neon32", "dotprod"] | None:
        """Which of our int8 kernels suit the core; None where TVM's own schedules are as good (the host)."""
        if self.family == "cortex-m":
            # Both have a portable form, for cores without their extension.
            return "mve" if self.core in MVE_CORES else "dsp"
        if self.family == "cortex-a":
            if self.core in ARMV7_CORES:
                return "neon32"
            return "dotprod" if self.core in DOT_PRODUCT_CORES else "neon"
        return None

    @property
    def core_flags(self) -> tuple[str, ...]:
        """GCC flags that select the core; empty for the host."""
        if self.family == "cortex-a":
            return CORTEX_A_FLAGS.get(self.core, (f"-mcpu={self.core}",))
        return CORTEX_M_FLAGS.get(self.core, ())
