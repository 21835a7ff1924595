"""Cycles of blocks of code by LLVM's scheduling models of the cores, through llvm-mca."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.cycles.block_profile import ExecutedBlock

#: LLVM 14 to 18 know no timing of MVE, and less of the rest.
LLVM_VERSION = 19
#: Times each block is repeated, so that its start and its end overlap with the next as in a loop.
_REPEATS = 25
#: Blocks that are asked for; what the others execute takes as long on average.
_COVERED = 0.999

#: No tables nobody reads; a call's own cycle (LLVM's default is 100); and low-overhead loops, which its models lack and
#: which cost nothing once they run.
_QUIETLY = (
    "-instruction-info=0",
    "-resource-pressure=0",
    "-call-latency=1",
    "-skip-unsupported-instructions=lack-sched",
)

#: LLVM's triple of each core whose model is used.
TRIPLES = {
    "cortex-m7": "thumbv7em-none-eabihf",
    "cortex-m55": "thumbv8.1m.main-none-eabihf",
    "cortex-a53": "aarch64-linux-gnu",
    "cortex-a55": "aarch64-linux-gnu",
    "cortex-a72": "aarch64-linux-gnu",
    "cortex-a76": "aarch64-linux-gnu",
}
#: Makes up to four instructions behind it conditional: one, and as many as there are letters in the rest of its name.
_CONDITION = re.compile(r"(?P<name>it|vpst|vpt)(?P<rest>[te]{0,3})(?=[ .]|$)")
#: Cores whose multiple loads and stores LLVM takes for one access, and the words their bus has a cycle.
_BUS_WORDS = {"cortex-m7": 2, "cortex-m55": 2}
_MULTIPLE = re.compile(r"^\s*(?:v?ldm|v?stm|v?push|v?pop)\w*(?:\.\w+)?\s+(.*)$")
_LIST = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True)
class _Marker:
    """An instruction that no compiled code has: it parts blocks in what the disassembler prints."""

    code: bytes
    text: str


_THUMB_MARKER = _Marker(bytes.fromhex("b7be"), "bkpt #183")
_A64_MARKER = _Marker(bytes.fromhex("e0f620d4"), "brk #0x7b7")


#: Cycles of code that was priced before, by core and code: the same kernels come again and again.
_PRICES: dict[tuple[str, bytes], float] = {}


def block_cycles(core: str, blocks: Sequence[ExecutedBlock]) -> float:
    """Return the cycles of all executions of blocks, their data and code taken for near.

    Parameters
    ----------
    core : str
        A key of `TRIPLES`.
    blocks : sequence of ExecutedBlock
        What was executed.

    Raises
    ------
    ToolchainError
        LLVM isn't installed, or doesn't understand the code.
    """
    ordered = sorted(blocks, key=lambda block: -block.executions * len(block.code))
    work = [block.executions * len(block.code) for block in ordered]
    total, chosen, covered = sum(work), [], 0
    for block, bytes_executed in zip(ordered, work, strict=True):
        if covered >= _COVERED * total:
            break
        chosen.append(block)
        covered += bytes_executed
    _price(core, list({block.code for block in chosen}))
    cycles = sum(block.executions * _PRICES[core, block.code] for block in chosen)
    return cycles * total / covered if covered else 0.0


def _price(core: str, codes: Sequence[bytes]) -> None:
    """Enter in `_PRICES` the cycles of those pieces of code that aren't there yet."""
    new = [code for code in codes if (core, code) not in _PRICES]
    if new:
        listings = _disassemble(core, new)
        for code, listing, cycles in zip(new, listings, _analyse(core, listings), strict=True):
            _PRICES[core, code] = cycles + _bus_cycles(core, listing)


def _disassemble(core: str, codes: Sequence[bytes]) -> list[list[str]]:
    marker = _A64_MARKER if TRIPLES[core].startswith("aarch64") else _THUMB_MARKER
    lines = [" ".join(f"0x{byte:02x}" for byte in code + marker.code) for code in codes]
    text = _run("llvm-mc", ["--disassemble", *_target(core, "triple")], "\n".join(lines))
    listings: list[list[str]] = [[]]
    for line in text.splitlines():
        instruction = " ".join(line.split())
        if instruction == marker.text:
            listings.append([])
        elif instruction and not instruction.startswith("."):
            listings[-1].append(instruction)
    if len(listings) != len(codes) + 1:
        raise ToolchainError(f"llvm-mc-{LLVM_VERSION} read {len(listings) - 1} of {len(codes)} blocks of {core}")
    return listings[:-1]


def _analyse(core: str, listings: Sequence[Sequence[str]]) -> list[float]:
    """Return the cycles that each block takes on average when it is repeated."""
    lines: list[str] = []
    for number, listing in enumerate(listings):
        lines += [f"# LLVM-MCA-BEGIN {number}", *(_closed(listing) or ["nop"]), "# LLVM-MCA-END"]
    # It refuses a text without any instruction that it knows.
    lines += ["# LLVM-MCA-BEGIN none", "nop", "# LLVM-MCA-END"]
    options = [*_target(core, "mtriple"), f"-iterations={_REPEATS}", "-json", *_QUIETLY]
    report = json.loads(_run("llvm-mca", options, "\n".join(lines) + "\n"))
    cycles = {region["Name"]: region["SummaryView"]["TotalCycles"] for region in report["CodeRegions"]}
    # A block of low-overhead loops' instructions alone is none to LLVM.
    return [cycles.get(str(number), 0) / _REPEATS for number in range(len(listings))]


def _closed(listing: Sequence[str]) -> list[str]:
    """Return a block without what an IT or VPT at its end says of instructions in the block behind it.

    The emulator cuts blocks anywhere, at the end of a page for one.
    """
    closed = list(listing)
    for index in range(max(len(closed) - 4, 0), len(closed)):
        found = _CONDITION.match(closed[index])
        if found is None:
            continue
        beyond = 1 + len(found["rest"]) - (len(closed) - index - 1)
        if beyond > len(found["rest"]):
            return closed[:index]
        if beyond > 0:
            closed[index] = found["name"] + found["rest"][:-beyond] + closed[index][found.end("rest") :]
    return closed


def _bus_cycles(core: str, listing: Sequence[str]) -> int:
    """Return what multiple loads and stores take beyond the one access that LLVM counts."""
    words = _BUS_WORDS.get(core)
    if words is None:
        return 0
    beyond = 0
    for line in listing:
        found = _MULTIPLE.match(line)
        registers = _LIST.search(found[1]) if found else None
        if registers:
            beyond += -(-len(registers[1].split(",")) // words) - 1
    return beyond


def _target(core: str, option: str) -> list[str]:
    return [f"--{option}={TRIPLES[core]}", f"--mcpu={core}"]


def _run(tool: str, options: Sequence[str], text: str) -> str:
    name = f"{tool}-{LLVM_VERSION}"
    path = shutil.which(name)
    if path is None:
        raise ToolchainError(
            f"{name} is not installed, cycles of this core are predicted by it; `apt install llvm-{LLVM_VERSION}`"
        )
    done = subprocess.run([path, *options], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if "error" in line), "no word")
        raise ToolchainError(f"{name}: {said}")
    return done.stdout
