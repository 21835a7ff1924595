"""Firmware images: the firmware's sources, a network's sources and its golden vectors, built for one board.

For boards that run Linux they are programs, linked statically: nothing has to be there but the kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.emit.footprint import CODE_FLAGS
from thumbnet.compile.emit.stack_usage import STACK_FLAG, StackUsage, StackUse
from thumbnet.compile.errors import ArtifactError, DoesNotFitError, ToolchainError
from thumbnet.runtime_tests.guarded_process import run_guarded, shared_lifeline
from thumbnet.runtime_tests.mcu.firmware_sources import (
    BOOT2,
    FIRMWARE,
    STACK_BYTES,
    Protocol,
    linker_script,
    region_of,
    sources_of,
    write_boot_block,
)
from thumbnet.runtime_tests.mcu.mlperf_tiny import benchmark_name, mlperf_source
from thumbnet.runtime_tests.qemu_plugin import first_error
from thumbnet.runtime_tests.run_folder import cache_folder, run_folder
from thumbnet.targets.board import Board
from thumbnet.targets.placement import arena_memories

ARENA_SECTION = ".thumbnet_arena"
#: What the firmware's functions call through pointers.
POINTERS = {"frame_send": ("write_port",), "measured_call": ("{name}_run", "{name}_run_layer", "measured_nothing")}
#: Golden vectors in the image: as many as fit in this, but at least one.
GOLDEN_BYTES = 64 << 10

#: The Debian packages of each compiler and of what belongs to it.
_PACKAGES = {
    "arm-none-eabi": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "arm-linux-gnueabihf": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
}

#: No build path, time or identifier gets into the image.
COMPILE_FLAGS = (*CODE_FLAGS, "-Wall", "-Wextra", "-Werror", STACK_FLAG)
#: By the beginning of an object's name. -O3 is what instruction counts are published with; none of the firmware's own
#: instructions is counted, so that it is made small.
OPTIMIZATION = {"network": "-O3", "firmware": "-Os", "data": "-Os"}
LINK_FLAGS = ("-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,--fatal-warnings")


@dataclass(frozen=True)
class _Form:
    """What an image is: its flags for the linker, the function that all else is called from."""

    link_flags: tuple[str, ...]
    root: str


_BARE = _Form(("-nostartfiles",), "start")
_PROGRAM = _Form(("-static",), "serve_loop")


@dataclass(frozen=True)
class FirmwareImage:
    """A built firmware.

    Parameters
    ----------
    elf : Path
        The image, with symbols.
    symbols : dict of str to int
        Addresses.
    model_hash : str
        What the firmware answers to identify; of the network's sources and golden vectors.
    image_bytes : int
        Of the whole image: network, firmware and golden vectors.
    compiler : str
        Which compiler built it, in its own words.
    run_stack, firmware_stack : StackUse
        Worst cases of one inference, and of everything the firmware does outside of fault handlers.
    """

    elf: Path
    symbols: dict[str, int]
    model_hash: str
    image_bytes: int
    compiler: str
    run_stack: StackUse
    firmware_stack: StackUse

    @property
    def network_flash_bytes(self) -> int:
        """Code and constants of the network alone, without the firmware and golden vectors around it."""
        return self.symbols["__network_flash_end"] - self.symbols["__network_flash_start"]

    @property
    def network_ram_bytes(self) -> int:
        """Static RAM of the network: its arena, and what else it keeps."""
        arena = self.symbols["__arena_end"] - self.symbols["__arena_start"]
        return arena + self.symbols["__network_ram_end"] - self.symbols["__network_ram_start"]


def hash_network(artifact: Artifact) -> str:
    """Return 16 hexadecimal digits of the network's sources and golden vectors; a firmware is known by them."""
    files = {name: artifact.manifest["files"][name] for name in (*_listed_sources(artifact), "golden.npz")}
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]


def build_firmware(
    artifact: Artifact, board: Board, out: Path | None = None, protocol: Protocol = "thumbnet"
) -> FirmwareImage:
    """Build the firmware of a network for a board, or take it from the cache.

    Parameters
    ----------
    artifact : Artifact
        Kind ``"c"``.
    board : Board
        With a firmware port.
    out : Path or None
        Where the ELF file is put as well, to be flashed by whatever tool the board needs.
    protocol : {"thumbnet", "mlperf-tiny"}
        What it speaks on its line.

    Raises
    ------
    ArtifactError
        The artifact is no C sources, or they have changed since it was loaded.
    ToolchainError
        The cross compiler is missing or failed, or the board has no firmware port.
    DoesNotFitError
        The image is larger than the board's flash or RAM.
    """
    if artifact.manifest.get("kind") != "c":
        raise ArtifactError(
            f"{artifact.folder}: is of kind {artifact.manifest.get('kind')}, {board.name} takes C sources"
        )
    if board.firmware is None:
        raise ToolchainError(
            f"{board.name}: thumbnet has no firmware for it; build the C sources into your own program"
        )
    compiler = _find_tool(board.cross_compiler)
    plan = _plan_build(artifact, board, compiler, protocol)
    folder = cache_folder("firmware") / plan.digest
    if not (folder / "firmware.elf").is_file():
        _build_aside(plan, folder, board, artifact)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f".{out.name}-{os.getpid()}")
        shutil.copyfile(folder / "firmware.elf", aside)
        aside.replace(out)
    elf = folder / "firmware.elf"
    stack = StackUsage.of_program(
        elf,
        compiler.removesuffix("gcc"),
        sorted(folder.glob("*.ci")),
        {caller: [target.format(name=artifact.name) for target in targets] for caller, targets in POINTERS.items()},
    )
    image = FirmwareImage(
        elf=elf,
        symbols=read_symbols(elf, compiler),
        model_hash=hash_network(artifact),
        image_bytes=_image_bytes(elf, compiler),
        compiler=plan.compiler_version,
        run_stack=stack.worst_case(f"{artifact.name}_run"),
        firmware_stack=stack.worst_case(_form_of(board).root),
    )
    _check_stack(image, board, artifact)
    return image


@dataclass(frozen=True)
class _Plan:
    compiler: str
    compiler_version: str
    flags: tuple[str, ...]
    firmware: dict[str, Path]  # object's stem to source
    network: dict[str, bytes]  # name to contents: sources and headers, the listed ones alone
    linker_script: str
    data: str  # source of what the firmware needs of the artifact beside the network
    digest: str


def _plan_build(artifact: Artifact, board: Board, compiler: str, protocol: Protocol) -> _Plan:
    name = artifact.name
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise ArtifactError(f"{artifact.folder}: {name!r} is no C identifier in lower case")
    definitions = {
        "TN_MODEL": name,
        "TN_MODEL_UPPER": name.upper(),
        "TN_MODEL_HEADER": f"<{name}.h>",
        "TN_MODEL_HASH": hash_network(artifact),
        "BOARD": board.name,
        f"{name.upper()}_ARENA_ATTRIBUTE": f'__attribute__((section("{ARENA_SECTION}")))',
        **({"MLPERF_MODEL": benchmark_name(artifact)} if protocol == "mlperf-tiny" else {}),
        **({} if board.clock_hz is None else {"CLOCK_HZ": f"{board.clock_hz}u"}),
        **({} if board.series is None else {f"SERIES_{board.series.upper()}": "1"}),
        **{key: f"{value:#x}u" for key, value in board.peripherals.items()},
    }
    flags = (*board.core_flags, *COMPILE_FLAGS, *(f"-D{key}={value}" for key, value in definitions.items()))
    form = _form_of(board)
    firmware = {f"firmware_{Path(name).stem}": FIRMWARE / name for name in sources_of(board, protocol)}
    network = {name: _read_listed(artifact, name) for name in _listed_sources(artifact)}
    if not any(name.endswith(".c") for name in network):
        raise ArtifactError(f"{artifact.folder}: lists no C sources; compile the network again")
    script = linker_script(board, artifact, protocol)
    data = mlperf_source(artifact) if protocol == "mlperf-tiny" else golden_source(artifact)
    version = _run([compiler, "--version"], FIRMWARE, "version")
    options = [*flags, *OPTIMIZATION.values(), *form.link_flags, *LINK_FLAGS]
    digest = hashlib.sha256("\0".join([*options, script, data, version]).encode())
    contents = {path.name: path.read_bytes() for path in [*firmware.values(), *sorted(FIRMWARE.glob("*.h")), BOOT2]}
    for name, content in [*contents.items(), *network.items()]:
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return _Plan(compiler, version.splitlines()[0], flags, firmware, network, script, data, digest.hexdigest()[:32])


def _form_of(board: Board) -> _Form:
    return _PROGRAM if board.runs_linux else _BARE


def _listed_sources(artifact: Artifact) -> list[str]:
    """Return the sources and headers that the manifest lists; others in the folder are not the network's."""
    return sorted(name for name in artifact.manifest["files"] if name.endswith((".c", ".h")))


def _read_listed(artifact: Artifact, name: str) -> bytes:
    content = (artifact.folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != artifact.manifest["files"][name]:
        raise ArtifactError(f"{artifact.folder / name}: changed since it was loaded; compile the network again")
    return content


def golden_source(artifact: Artifact) -> str:
    """Return the C source of the golden vectors that the firmware checks itself with."""
    inputs, outputs = artifact.golden()
    inputs, outputs = inputs.astype(np.int8), outputs.astype(np.int8)
    size = inputs[0].nbytes + outputs[0].nbytes if len(inputs) else 1
    count = min(len(inputs), max(1, GOLDEN_BYTES // size))
    return (
        "#include <stdint.h>\n"
        f"extern const uint32_t golden_count;\nconst uint32_t golden_count = {count};\n"
        f"{_array('golden_inputs', inputs[:count])}{_array('golden_outputs', outputs[:count])}"
    )


def _array(name: str, values: NDArray[Any]) -> str:
    flat = values.reshape(-1).tolist() or [0]
    lines = [",".join(map(str, flat[i : i + 32])) for i in range(0, len(flat), 32)]
    return f"extern const int8_t {name}[];\nconst int8_t {name}[{len(flat)}] = {{\n" + ",\n".join(lines) + "\n};\n"


def _build_aside(plan: _Plan, folder: Path, board: Board, artifact: Artifact) -> None:
    with tempfile.TemporaryDirectory(dir=run_folder()) as name:
        aside = Path(name) / "build"
        for file, content in plan.network.items():
            path = aside / "network" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (aside / "data.c").write_text(plan.data)
        (aside / "firmware.ld").write_text(plan.linker_script)
        blocks = write_boot_block(board, plan.compiler, plan.flags, aside)
        # A network may have the name of a header of the firmware's.
        include = ("-iquote", str(FIRMWARE), "-I", "network")

        def compile_one(lifeline: int, stem: str, source: Path) -> None:
            maps = (f"-ffile-prefix-map={source.parent}=.", f"-ffile-prefix-map={aside}=.")
            flags = (*plan.flags, OPTIMIZATION[stem.split("_", maxsplit=1)[0]], *include, *maps)
            _run([plan.compiler, *flags, "-c", str(source), "-o", f"{stem}.o"], aside, source.name, lifeline)

        sources = [Path("network", file) for file in plan.network if file.endswith(".c")]
        objects = {
            **plan.firmware,
            **{f"network_{path.stem}": path for path in sources},
            **blocks,
            "data": Path("data.c"),
        }
        # The lifeline breaks first: after Ctrl-C or an error, no compiler is waited for.
        with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool, shared_lifeline() as lifeline:
            list(pool.map(partial(compile_one, lifeline), objects, objects.values()))
        files = [f"{stem}.o" for stem in sorted(objects)]
        flags = (*board.core_flags, *_form_of(board).link_flags, *LINK_FLAGS)
        command = [plan.compiler, *flags, "-Tfirmware.ld", *files, "-o", "firmware.elf"]
        try:
            _run(command, aside, "link")
        except ToolchainError as error:
            raise _explain_overflow(str(error.__cause__ or error), board, artifact) or error from None
        for file in files:
            (aside / file).unlink()
        if not (folder / "firmware.elf").is_file():
            shutil.rmtree(folder, ignore_errors=True)  # a damaged cache
        with contextlib.suppress(OSError):  # another process may have built the same meanwhile
            aside.rename(folder)


def _explain_overflow(output: str, board: Board, artifact: Artifact) -> DoesNotFitError | None:
    found = re.search(r"region `(\w+)' overflowed by (\d+) bytes", output)
    if found is None or board.flash is None or board.ram is None:
        return None
    memories = (*board.flash_banks, *board.ram_banks, *arena_memories(board))
    memory = next((memory for memory in memories if region_of(memory) == found.group(1)), None)
    if memory is None:
        return None
    needs = memory.size + int(found.group(2))
    return DoesNotFitError(
        f"{artifact.name} and the firmware need {-(-needs // 1024)} KiB of {memory.name}, "
        f"{board.name} has {memory.size // 1024} KiB; take a narrower network, a lower resolution or a larger board",
        flash_bytes=board.flash.size,
        ram_bytes=max(memory.size for memory in arena_memories(board)),
    )


def _check_stack(image: FirmwareImage, board: Board, artifact: Artifact) -> None:
    needs = image.firmware_stack.bytes
    if needs is not None and needs > STACK_BYTES:
        raise DoesNotFitError(
            f"{artifact.name} and the firmware need {needs} bytes of stack ({' -> '.join(image.firmware_stack.path)}), "
            f"the firmware for {board.name} has {STACK_BYTES}; make STACK_BYTES larger",
        )


def _find_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        package = _PACKAGES.get(name.rpartition("-")[0], f"gcc ({name})")
        raise ToolchainError(f"{name} is not installed; `apt install {package}` brings it")
    return path


def _run(command: Sequence[str], folder: Path, what: str, lifeline: int | None = None) -> str:
    done = run_guarded(command, folder, lifeline)
    if done.returncode != 0:
        raise ToolchainError(f"{what}: {Path(command[0]).name} failed: {first_error(done.stderr)}") from ToolchainError(
            done.stderr
        )
    return done.stdout


def _binutil(compiler: str, tool: str) -> str:
    return _find_tool(compiler.removesuffix("gcc") + tool)


def read_symbols(elf: Path, compiler: str) -> dict[str, int]:
    """Return the addresses of an ELF file's symbols, of functions without the bit that says Thumb.

    Raises
    ------
    ToolchainError
        It is no ELF file, or the compiler's `nm` is missing.
    """
    lines = _run([_binutil(compiler, "nm"), str(elf)], elf.parent, elf.name).splitlines()
    fields = [line.split() for line in lines]
    return {field[2]: int(field[0], 16) & ~(field[1] in "tT") for field in fields if len(field) == 3}


def _image_bytes(elf: Path, compiler: str) -> int:
    text, data = _run([_binutil(compiler, "size"), str(elf)], elf.parent, elf.name).splitlines()[1].split()[:2]
    return int(text) + int(data)
