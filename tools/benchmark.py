"""The benchmark: networks on emulated boards, checked and counted, beside what other runtimes were measured to need.

Microcontrollers run two small networks, each with and without its dead channels; boards with Linux run full-sized ones.
"""

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
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.runtime_tests.session import DeviceSession, Measurement, MemoryUse
from thumbnet.targets.board import Board, Family
from thumbnet.targets.device import Device
from thumbnet.targets.errors import BoardError
from thumbnet.tools.cycle_output import CYCLE_KINDS, cycle_fields
from thumbnet.tools.output import replace_file
from thumbnet.tools.stage_costs import StageCost, profile_stages
from thumbnet.tools.workloads import WORKLOADS, DeadChannels, Weights, Workload, make_benchmark_request

#: The cores the rivals were measured on, by family; a Cortex-A53 has a Cortex-A72's instructions.
BOARDS: dict[Family, tuple[str, ...]] = {
    "cortex-m": ("mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547"),
    "cortex-a": ("raspberry_pi_3", "raspberry_pi_4", "raspberry_pi_5"),
}
RIVALS_FILE = Path(__file__).parent / "rivals.json"

#: What the numbers of a row are; beside every table and in every row of the JSON file.
KINDS = {
    # Loads of many registers take as many cycles and more on Cortex-M4, and the kernels here live on them.
    "instructions": "executed in one inference, counted exactly in emulation; neither cycles nor time: a load of four "
    "registers is one instruction",
    **CYCLE_KINDS,
    "threads": "that the inference ran on",
    "macs": "multiply-accumulates of the network as compiled",
    "weights": "trained; random, like trained ones; or worst case: random signs, all of the largest magnitude, so that "
    "no weights make the kernels execute more",
    "ram_bytes": "the network's static RAM (arena_bytes and what else it keeps) and stack_bytes",
    "arena_bytes": "static, known at compile time; input and output included",
    "stack_bytes": STACK_KIND,
    "stack_measured_bytes": "most that an inference used, by high-water mark on the emulated board",
    "flash_bytes": "whole image of the ELF: network, firmware and RPC, no test vectors; on Linux the network's library",
    "network_flash_bytes": "code and constants of the network alone",
    "rival_value": "instructions of the best of the other runtimes that were measured on the same network and core",
}


@dataclass(frozen=True)
class Result:
    """One network on one board; the fields are described in `KINDS`."""

    network: str
    dead_channels: DeadChannels
    board: Board
    weights: Weights
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
    cycles: CyclePrediction | None = None
    unpredicted_because: str | None = None

    @property
    def instructions(self) -> int:
        """Executed instructions of one inference."""
        return round(self.whole.samples[0])

    def as_json(self, rival: dict[str, Any] | None) -> dict[str, Any]:
        """Return the row for a JSON file, with the best of its `rivals_of`; its layers stand in order of execution."""
        return {
            "network": self.network,
            "quantize": "int8",
            "dead_channels": self.dead_channels,
            "board": self.board.name,
            "core": self.board.core,
            "weights": self.weights,
            "instructions": self.instructions,
            "kind": self.whole.kind,
            **cycle_fields(self.cycles, self.unpredicted_because),
            "threads": 1,
            "macs": self.macs,
            "instructions_per_mac": self.instructions / self.macs,
            "ram_bytes": self.ram_bytes,
            "arena_bytes": self.arena_bytes,
            "stack_bytes": self.stack_bytes,
            "stack_measured_bytes": self.stack_measured_bytes,
            "flash_bytes": self.flash_bytes,
            "network_flash_bytes": self.network_flash_bytes,
            "equal_to_reference": self.equal_to_reference,
            "rival": rival and rival["runtime"],
            "rival_value": rival and rival["instructions"],
            "rival_source": rival and rival["source"],
            "layers": [stage.as_json() for stage in self.stages],
            "elf": str(self.elf),
            "kinds": KINDS,
        }


def emulated_device(board: Board) -> Device:
    """Return the built-in emulator of a board.

    Raises
    ------
    BoardError
        There is none.
    """
    if board.qemu is None:
        known = ", ".join(name for names in BOARDS.values() for name in names)
        raise BoardError(
            f"{board.name}: the benchmark runs on emulated boards, there is none of it; take one of {known}"
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
    """Compile, deploy, check and count each network on each board of its family.

    Parameters
    ----------
    boards : sequence of Board
        With emulators.
    output : Path
        Folder for the artifacts and for the ELF files that ran (``elf/``).
    weights_dir : Path or None
        Where trained weights may be; random ones stand in for what is not there.
    workloads : sequence of Workload
        The networks.
    progress : callable
        Told before each step what is done next; `count_steps` tells how often.

    Yields
    ------
    Result
        One for each of a workload's runs on each board.

    Raises
    ------
    BoardError, CompileError, ModelError, SessionError
        Of the specific type for what is wrong.
    """
    for workload in workloads:
        trained = workload.trained_weights(weights_dir)
        for device in (emulated_device(board) for board in boards if board.family == workload.family):
            whole: dict[Weights, Artifact] = {}
            for weights, dead_channels in workload.runs(weights_dir):
                which = dead_channels if workload.family == "cortex-m" else weights.replace(" ", "-")
                name = f"{workload.network}-{which}-{device.board.name}"
                elf = output / "elf" / f"{name}.elf"
                _refuse_other(elf)
                progress(f"compiling {name}")
                keep = dead_channels == "kept"
                request = make_benchmark_request(workload, device.board, weights, trained, keep=keep)
                artifact = compile_model(request, output / name)
                progress(f"running {name}")
                yield _run(
                    artifact,
                    device,
                    whole_network=whole.setdefault(weights, artifact),
                    elf=elf,
                    network=workload.network,
                    dead_channels=dead_channels,
                    weights=weights,
                )


def _refuse_other(elf: Path) -> None:
    """Refuse to replace what is no ELF file, and so none of an earlier run."""
    if os.path.lexists(elf) and not (elf.is_file() and not elf.is_symlink() and elf.read_bytes()[:4] == b"\x7fELF"):
        raise ArtifactError(f"{elf}: exists and is no ELF file; move it, or name another folder")


def count_steps(
    boards: Sequence[Board], workloads: Sequence[Workload] = WORKLOADS, weights_dir: Path | None = None
) -> int:
    """Return how often `run_benchmark` calls its `progress`."""
    return 2 * sum(
        len(workload.runs(weights_dir)) for workload in workloads for board in boards if board.family == workload.family
    )


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
    dead_channels: DeadChannels,
    weights: Weights,
) -> Result:
    inputs, _ = artifact.golden()
    with open_session(device) as session:
        session.load(_WithoutTestVectors(artifact.folder, artifact.manifest))
        if isinstance(session, MicrocontrollerSession) and session.inexact_because is not None:
            raise ToolchainError(f"{device.name}: the benchmark needs exact counts: {session.inexact_because}")
        equal = _is_equal(session, inputs, artifact, whole_network)
        measured = session.measure(inputs[0], 1)
        cycles, unpredicted_because = session.predict_cycles_or_say_why(inputs[0])
        stages = profile_stages(artifact, session, inputs[0], cycles)
        memory = session.memory_use()
        flash_bytes, network_flash_bytes = _keep_image(session, artifact, memory, elf)
    return Result(
        network=network,
        dead_channels=dead_channels,
        board=device.board,
        weights=weights,
        whole=measured,
        macs=artifact.manifest["macs"],
        ram_bytes=memory.ram_bytes,
        arena_bytes=artifact.manifest["arena_bytes"],
        stack_bytes=memory.stack_bytes,
        stack_measured_bytes=memory.stack_measured_bytes,
        flash_bytes=flash_bytes,
        network_flash_bytes=network_flash_bytes,
        equal_to_reference=equal,
        elf=elf.resolve(),
        stages=tuple(stages),
        cycles=cycles,
        unpredicted_because=unpredicted_because,
    )


def _keep_image(session: DeviceSession, artifact: Artifact, memory: MemoryUse, elf: Path) -> tuple[int, int]:
    """Copy the ELF file that ran, and return its bytes of flash and the network's."""
    elf.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(session, MicrocontrollerSession):
        image = session.image
        assert image is not None
        replace_file(elf, image.elf.read_bytes())
        return image.image_bytes, image.network_flash_bytes
    replace_file(elf, (artifact.folder / f"{artifact.name}.so").read_bytes())
    assert memory.flash_bytes is not None
    return memory.flash_bytes, memory.flash_bytes


def _is_equal(session: DeviceSession, inputs: NDArray[np.int8], artifact: Artifact, whole_network: Artifact) -> bool:
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
