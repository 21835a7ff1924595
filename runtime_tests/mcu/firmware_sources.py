"""What a board's firmware is made of: sources, linker script, and the block that its boot ROM runs first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jinja2

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.emit.run_tool import run_tool
from thumbnet.compile.errors import ToolchainError
from thumbnet.targets.board import Board, Memory
from thumbnet.targets.placement import Placement, arena_memories, place

FIRMWARE = Path(__file__).parent / "firmware"
#: What a firmware speaks: thumbnet's own protocol, or that of the benchmark MLPerf Tiny's runner.
Protocol = Literal["thumbnet", "mlperf-tiny"]
#: The sources of each, which every board's firmware has.
_SERVERS: dict[Protocol, tuple[str, ...]] = {
    "thumbnet": ("rpc.c", "network_calls.c", "network_memory.c", "frame.c", "measure.c", "canary.c"),
    "mlperf-tiny": ("mlperf_tiny.c", "network_memory.c"),
}
#: And those of a port, by the series of the chip where they differ.
_PORTS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("linux", None): ("port_linux.c",),
    ("mps2", None): ("start.c", "port_mps2.c"),
    **{
        ("stm32", series): ("start.c", "setup.c", "port_stm32.c", clocks)
        for series, clocks in {
            "f4": "stm32_f4.c",
            "f7": "stm32_f4.c",
            "l4": "stm32_l4.c",
            "h7": "stm32_h7.c",
            "u5": "stm32_u5.c",
        }.items()
    },
    **{("rp2", series): ("start.c", "setup.c", "port_rp2.c") for series in ("rp2040", "rp2350")},
    **{("nrf", series): ("start.c", "setup.c", "port_nrf.c") for series in ("nrf52", "nrf53")},
}
STACK_BYTES = 16 << 10
#: With the stack that reports faults, and the firmware's own data: two frames and some hundred bytes.
DATA_BYTES = STACK_BYTES + (4 << 10)
#: RAM on either side of the arena that a program of Linux watches.
GUARD_BYTES = 1 << 20

#: The second stage of the RP2040's boot: 252 bytes and their CRC.
BOOT2 = FIRMWARE / "rp2040_boot2.c"
BOOT2_BYTES = 252
_CRC_POLYNOMIAL = 0x04C1_1DB7


def sources_of(board: Board, protocol: Protocol) -> tuple[str, ...]:
    """Return the names of the sources of a board's firmware that speaks a protocol.

    Raises
    ------
    ToolchainError
        There is no port for it.
    """
    own = _PORTS.get((board.firmware or "", board.series))
    if own is None:
        raise ToolchainError(
            f"{board.name}: thumbnet has no firmware for it; build the C sources into your own program"
        )
    return (*own, *_SERVERS[protocol])


def linker_script(board: Board, artifact: Artifact, protocol: Protocol) -> str:
    """Return the linker script of a firmware with a network in it."""
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    sizes = {"stack_bytes": STACK_BYTES, "arena_bytes": artifact.manifest["arena_bytes"]}
    if board.flash is None:
        text = (FIRMWARE / "linux.ld.j2").read_text()
        return template.from_string(text).render(board=board, **sizes, guard_bytes=GUARD_BYTES)
    placement = _place(board, artifact, protocol)
    beside = [bank for bank in board.ram_banks if not bank.overlaps(placement.arena)]
    text = (FIRMWARE / "firmware.ld.j2").read_text()
    return template.from_string(text).render(
        board=board,
        flash=board.flash_banks,
        ram=[Memory(region_of(bank), bank.origin, bank.size) for bank in (placement.arena, *beside)],
        code=board.flash.name,
        data=region_of(placement.data),
        arena=region_of(placement.arena),
        **sizes,
    )


def region_of(memory: Memory) -> str:
    """Return what the linker script calls a memory."""
    return memory.name.replace("+", "_")


def _place(board: Board, artifact: Artifact, protocol: Protocol) -> Placement:
    """Return what goes where: as it was compiled, where it was for this board. The linker has the last word."""
    manifest = artifact.manifest
    beside_arena = manifest.get("streamed_input") or protocol == "mlperf-tiny"
    image_bytes = math.prod(manifest["input"]["shape"]) if beside_arena else 0
    compiled_for = manifest.get("memories", {}).get("arena") if manifest["board"] == board.name else None
    if compiled_for in {memory.name for memory in arena_memories(board)}:
        board = replace(board, arena_in=compiled_for)
    largest = max(arena_memories(board), key=lambda memory: memory.size)
    return place(board, manifest["arena_bytes"], DATA_BYTES + image_bytes) or Placement(largest, largest)


def write_boot_block(board: Board, compiler: str, flags: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write the source of the block that a board's boot ROM runs first; return it by its object's name, if any.

    Raises
    ------
    ToolchainError
        It can't be built, or is too long.
    """
    if board.series != "rp2040":
        return {}
    run_tool([compiler, *flags, "-Os", "-I", str(FIRMWARE), "-c", str(BOOT2), "-o", "boot2.o"], folder)
    objcopy = compiler.removesuffix("gcc") + "objcopy"
    run_tool([objcopy, "-O", "binary", "-j", ".boot2.entry", "boot2.o", "boot2.bin"], folder)
    code = (folder / "boot2.bin").read_bytes()
    for name in ("boot2.o", "boot2.bin", "boot2.ci", "boot2.su"):
        (folder / name).unlink(missing_ok=True)
    if not 0 < len(code) <= BOOT2_BYTES:
        raise ToolchainError(f"{BOOT2.name}: has {len(code)} bytes, the boot ROM runs {BOOT2_BYTES}")
    code = code.ljust(BOOT2_BYTES, b"\0")
    block = code + boot_crc(code).to_bytes(4, "little")
    values = ",".join(map(str, block))
    (folder / "boot_block.c").write_text(
        f'__attribute__((section(".boot2"), used)) static const unsigned char boot_block[] = {{{values}}};\n'
    )
    return {"firmware_boot_block": Path("boot_block.c")}


def boot_crc(data: bytes) -> int:
    """Return the CRC-32 that the RP2040's boot ROM computes: highest bit first, nothing inverted at the end."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (_CRC_POLYNOMIAL if crc & 1 << 31 else 0)) & 0xFFFF_FFFF
    return crc
