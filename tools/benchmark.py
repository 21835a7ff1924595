"""The benchmark: two networks, with and without their dead channels, run on emulated microcontrollers and counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.emit.stack_usage import STACK_KIND
from thumbnet.compile.errors import ArtifactError, ToolchainError
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.session import Measurement
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device
from thumbnet.targets.errors import BoardError
from thumbnet.tools.output import replace_file
from thumbnet.tools.stage_costs import StageCost, profile_stages
from thumbnet.tools.workloads import WORKLOADS, Workload, make_benchmark_request

#: The cores the rivals were measured on.
BOARDS = ("mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547")
RIVALS_FILE = Path(__file__).parent / "rivals.json"

#: What the numbers of a row are; beside every table and in every row of the JSON file.
KINDS = {
    # Loads of many registers take as many cycles and more on Cortex-M4, and the kernels here live on them.
    "instructions": "executed in one inference, counted exactly in emulation; neither cycles nor time: a load of four "
    "registers is one instruction",
    "macs": "multiply-accumulates of the network as compiled",
    "ram_bytes": "the network's static RAM (arena_bytes and what else it keeps) and stack_bytes",
    "arena_bytes": "static, known at compile time; input and output included",
    "stack_bytes": STACK_KIND,
    "stack_measured_bytes": "most that an inference used, by high-water mark on the emulated board",
    "flash_bytes": "whole image of the ELF: network, firmware and RPC; no test vectors in it",
    "network_flash_bytes": "code and constants of the network alone",
}


@dataclass(frozen=True)
class Result:
    """One network on one board; the fields are described in `KINDS`."""

    network: str
    dead_channels: str
    board: Board
    weights: str
    whole: Measurement
    macs: int
    ram_bytes: int | None
    arena_bytes: int | None
    stack_bytes: int | None
    stack_measured_bytes: int | None
    flash_bytes: int
    network_flash_bytes: int
    equal_to_reference: bool
    elf: Path
    stages: tuple[StageCost, ...] = field(repr=False)

    @property
    def instructions(self) -> int:
        """Executed instructions of one inference."""
        return round(self.whole.samples[0])

    def as_json(self) -> dict[str, Any]:
        """Return the row for a JSON file; its layers stand in order of execution."""
        return {
            "network": self.network,
            "dead_channels": self.dead_channels,
            "board": self.board.name,
            "core": self.board.core,
            "weights": self.weights,
            "instructions": self.instructions,
            "macs": self.macs,
            "instructions_per_mac": self.instructions / self.macs,
            "ram_bytes": self.ram_bytes,
            "arena_bytes": self.arena_bytes,
            "stack_bytes": self.stack_bytes,
            "stack_measured_bytes": self.stack_measured_bytes,
            "flash_bytes": self.flash_bytes,
            "network_flash_bytes": self.network_flash_bytes,
            "equal_to_reference": self.equal_to_reference,
            "layers": [stage.as_json() for stage in self.stages],
            "elf": str(self.elf),
            "kinds": KINDS,
        }


def emulated_device(board: Board) -> Device:
    """Return the built-in emulator of a board.

    Raises
    ------
    BoardError
        It is no microcontroller, or there is no emulator of it.
    """
    if board.family != "cortex-m" or board.qemu is None:
        raise BoardError(
            f"{board.name}: the benchmark runs on emulated microcontrollers, there is none of it; "
            f"take one of {', '.join(BOARDS)}"
        )
    return Device(f"qemu_{board.name}", board, "emulated")


def run_benchmark(
    boards: Sequence[Board],
    output: Path,
    *,
    weights_dir: Path | None = None,
    workloads: Sequence[Workload] = WORKLOADS,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Compile, deploy, check and count each network on each board, with its dead channels and without.

    Parameters
    ----------
    boards : sequence of Board
        With emulators.
    output : Path
        Folder for the artifacts (``NETWORK-DEAD-BOARD``) and for the ELF files that ran (``elf/``).
    weights_dir : Path or None
        Where trained weights may be; random ones stand in for what is not there.
    workloads : sequence of Workload
        The networks.
    progress : callable
        Told before each step what is done next; `count_steps` tells how often.

    Yields
    ------
    Result
        Two a network and board.

    Raises
    ------
    BoardError, CompileError, ModelError, SessionError
        Of the specific type for what is wrong.
    """
    devices = [emulated_device(board) for board in boards]
    for workload in workloads:
        trained = workload.trained_weights(weights_dir)
        for device in devices:
            whole: Artifact | None = None
            for dead_channels in ("kept", "removed"):
                name = f"{workload.network}-{dead_channels}-{device.board.name}"
                elf = output / "elf" / f"{name}.elf"
                _refuse_other(elf)
                progress(f"compiling {name}")
                request = make_benchmark_request(workload, device.board, trained, keep=dead_channels == "kept")
                artifact = compile_model(request, output / name)
                whole = whole or artifact
                progress(f"running {name}")
                weights = "random" if trained is None else "trained"
                yield _run(
                    artifact,
                    device,
                    whole_network=whole,
                    elf=elf,
                    network=workload.network,
                    dead_channels=dead_channels,
                    weights=weights,
                )


def _refuse_other(elf: Path) -> None:
    """Refuse to replace what is no ELF file, and so none of an earlier run."""
    if os.path.lexists(elf) and not (elf.is_file() and not elf.is_symlink() and elf.read_bytes()[:4] == b"\x7fELF"):
        raise ArtifactError(f"{elf}: exists and is no ELF file; move it, or name another folder")


def count_steps(boards: Sequence[Board], workloads: Sequence[Workload] = WORKLOADS) -> int:
    """Return how often `run_benchmark` calls its `progress`."""
    return len(boards) * len(workloads) * 4


def load_rivals() -> list[dict[str, Any]]:
    """Return what other runtimes were measured to need; the file says how."""
    rivals: list[dict[str, Any]] = json.loads(RIVALS_FILE.read_text())["rivals"]
    return rivals


def rivals_of(result: Result, rivals: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rivals that did the same work on the same core, fewest instructions first.

    Random weights have no dead channels, so nothing was removed from them and no rival with channels removed compares.
    """
    if result.dead_channels == "removed" and result.weights == "random":
        return []
    same = (result.network, result.dead_channels, result.board.core)
    found = [rival for rival in rivals if (rival["network"], rival["dead_channels"], rival["core"]) == same]
    return sorted(found, key=lambda rival: int(rival["instructions"]))


class _WithoutTestVectors(Artifact):
    """An artifact whose firmware gets no golden vectors: the image that somebody would ship."""

    def golden(self) -> tuple[NDArray[Any], NDArray[Any]]:
        inputs, outputs = super().golden()
        return inputs[:0], outputs[:0]


def _run(
    artifact: Artifact,
    device: Device,
    *,
    whole_network: Artifact,
    elf: Path,
    network: str,
    dead_channels: str,
    weights: str,
) -> Result:
    inputs, _ = artifact.golden()
    with MicrocontrollerSession(device) as session:
        session.load(_WithoutTestVectors(artifact.folder, artifact.manifest))
        if session.inexact_because is not None:
            raise ToolchainError(f"{device.name}: the benchmark needs exact counts: {session.inexact_because}")
        equal = _is_equal(session, inputs, artifact, whole_network)
        measured = session.measure(inputs[0], 1)
        stages = profile_stages(artifact, session, inputs[0])
        memory = session.memory_use()
        image = session.image
        assert image is not None
    elf.parent.mkdir(parents=True, exist_ok=True)
    replace_file(elf, image.elf.read_bytes())
    return Result(
        network=network,
        dead_channels=dead_channels,
        board=device.board,
        weights=weights,
        whole=measured,
        macs=artifact.manifest["macs"],
        ram_bytes=memory.ram_bytes,
        arena_bytes=memory.arena_bytes,
        stack_bytes=memory.stack_bytes,
        stack_measured_bytes=memory.stack_measured_bytes,
        flash_bytes=image.image_bytes,
        network_flash_bytes=image.network_flash_bytes,
        equal_to_reference=equal,
        elf=elf.resolve(),
        stages=tuple(stages),
    )


def _is_equal(
    session: MicrocontrollerSession, inputs: NDArray[np.int8], artifact: Artifact, whole_network: Artifact
) -> bool:
    """Compare outputs with the reference of the network with all its channels, and each stage with its own reference.

    Two classes are two bytes, which a wrong network can give as well; the stages are thousands of them.
    """
    whole = load_reference(whole_network)
    outputs = all(np.array_equal(session.run(image), run_reference(whole, image)) for image in inputs)
    expected = run_reference_layers(load_reference(artifact), inputs[0])
    stages = session.run_layers(inputs[0])
    return outputs and all(
        np.array_equal(found.reshape(-1), expected[name].reshape(-1)) for name, found in stages.items()
    )
