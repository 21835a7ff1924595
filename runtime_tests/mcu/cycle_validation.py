"""How far predicted cycles are from published ones: a table of cases, each a histogram of classes or a program."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from thumbnet.compile.file_access import read_file
from thumbnet.runtime_tests.cycles.block_profile import BlockProfile, ExecutedBlock
from thumbnet.runtime_tests.cycles.core_timing import EVENTS, TIMINGS
from thumbnet.runtime_tests.cycles.predict import CycleModel
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.mcu.emulator import MachineEmulator
from thumbnet.runtime_tests.mcu.firmware_build import read_symbols
from thumbnet.targets.board import Board
from thumbnet.targets.errors import BoardError
from thumbnet.targets.registry import BOARDS, get_board

#: The board whose flash is assumed where a row names a core alone.
_USUAL_BOARDS = {"cortex-m3": "mps2_an385", "cortex-m4": "nucleo_l4r5zi", "cortex-m33": "mps2_an505"}
#: Columns with what the caches before the flash of STM32L4+ would miss, in reads of 8 bytes.
_MISSES = ("SIM_art_icache_dword_misses", "SIM_art_dcache_dword_misses")
#: Columns of a histogram that describe classes of other columns, or data.
_NOT_CLASSES = re.compile(
    "total_instructions|load_use_stall|fp_use|ldr_literal_of_all|wide32|refills_all|stores_words|str_str[bh]?|SIM_.*"
    "|(flash|ram)_loads|published_cycles.*|clock_hz"
)
_POLL_S = 0.02


@dataclass(frozen=True)
class Case:
    """A published measurement beside its prediction.

    Parameters
    ----------
    name : str
        For people.
    board : Board
        Whose core and flash were assumed.
    published, predicted : float
        Cycles.
    """

    name: str
    board: Board
    published: float
    predicted: float

    @property
    def error(self) -> float:
        """Of the prediction, as a fraction of what was published."""
        return self.predicted / self.published - 1


def validate_cycles(table: Path) -> Iterator[Case]:
    """Predict each case of a table.

    Parameters
    ----------
    table : Path
        CSV with a heading. Each row has ``published_cycles`` and ``core`` (``m4`` or ``cortex-m4``) or ``board``; and
        either ``elf``, a program for the board's emulator, from the symbol ``measure_begin`` to ``measure_end``, its
        path relative to the table's folder; or executed instructions by class in columns named as `count_classes`
        names them, with ``total_instructions``, and the flash's simulated misses.

    Yields
    ------
    Case
        In the table's order.

    Raises
    ------
    SessionError
        The table, or a program in it, isn't what it should be.
    """
    text = read_file(table, most_bytes=1 << 26).decode(errors="replace")
    for number, row in enumerate(_rows_of(table, text), start=2):
        where = f"{table}: line {number}"
        board = _board_of(where, row)
        published = _number(where, row, "published_cycles")
        if not published:
            raise SessionError(f"{where}: published_cycles is '0', it must be more")
        name = " ".join(filter(None, (row.get("network"), row.get("backend")))) or row.get("elf") or f"line {number}"
        try:
            if row.get("elf"):
                predicted = _measure_program(table.parent / row["elf"], board)
            else:
                predicted = _price_histogram(where, row, board)
        except BoardError as error:
            raise SessionError(f"{where}: {error}") from error
        yield Case(name, board, published, predicted)


def _rows_of(table: Path, text: str) -> list[dict[str, str]]:
    """Return a table's rows; cells that a short row lacks are empty."""
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), restval=""))
    except csv.Error as error:
        raise SessionError(f"{table}: is no CSV table: {error}") from error
    if not rows:
        raise SessionError(f"{table}: has no cases; its first line names the columns, each further one is a case")
    return rows


def _board_of(where: str, row: Mapping[str, str]) -> Board:
    core = row.get("core") or ""
    name = row.get("board") or _USUAL_BOARDS.get(core if core.startswith("cortex-") else f"cortex-{core}")
    if not name:
        raise SessionError(f"{where}: core is {core!r}, known: {', '.join(_USUAL_BOARDS)}; or name a board")
    try:
        return get_board(name)
    except BoardError as error:
        raise SessionError(f"{where}: {error}") from error


def _number(where: str, row: Mapping[str, str], column: str) -> int:
    value = (row.get(column) or "").strip()
    if not re.fullmatch("[0-9]{1,15}", value):
        raise SessionError(f"{where}: {column} is {value!r}, it must be a whole number")
    return int(value)


def _price_histogram(where: str, row: Mapping[str, str], board: Board) -> float:
    timing = TIMINGS.get(board.core)
    if timing is None:
        raise SessionError(
            f"{where}: cycles of a {board.core} depend on the order of its instructions; give an ELF file"
        )
    counts = {
        column: _number(where, row, column)
        for column, value in row.items()
        if column and value.isdigit() and not _NOT_CLASSES.fullmatch(column)
    }
    instructions = sum(count for kind, count in counts.items() if kind not in EVENTS)
    total = _number(where, row, "total_instructions")
    if instructions != total:
        raise SessionError(
            f"{where}: its classes have {instructions:,} instructions, total_instructions says {total:,}"
        )
    flash = board.flash_timing
    waits = 0 if flash is None else flash.wait_states * sum(_number(where, row, column) for column in _MISSES)
    return timing.price_all(counts) + waits


def _measure_program(elf: Path, board: Board) -> float:
    emulated = board if board.qemu else next((other for other in BOARDS if other.stands_for == board.name), None)
    if emulated is None or emulated.qemu is None:
        raise BoardError(f"no emulator runs programs for {board.name}")
    model = CycleModel(board)
    if not elf.is_file():
        raise SessionError(f"{elf}: no such file")
    symbols = read_symbols(elf, emulated.cross_compiler)
    for mark in ("measure_begin", "measure_end"):
        if mark not in symbols:
            raise SessionError(
                f"{elf}: has no symbol {mark}; what is executed from measure_begin to measure_end is priced"
            )
    profile = BlockProfile([symbols["measure_begin"], symbols["measure_end"]], emulated.flash, board.flash_timing)
    try:
        return model.price(run_program(elf, emulated.qemu, profile))
    finally:
        profile.close()


def run_program(elf: Path, machine: str, profile: BlockProfile) -> list[ExecutedBlock]:
    """Run a program on an emulated board until it has passed both marks once; return what it executed in between.

    Raises
    ------
    SessionError
        It ends before.
    """
    profile.start()
    emulator = MachineEmulator(machine, elf, profile.qemu_options)
    try:
        while not profile.call_ended:
            if not emulator.running:
                raise SessionError(f"{elf}: ended before it reached measure_end")
            time.sleep(_POLL_S)
    finally:
        emulator.close()
    return [block for block in profile.stop() if block.call == 0]
