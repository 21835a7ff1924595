"""The benchmark: networks, checked and measured, beside what other runtimes need.

Microcontrollers run two small networks, each with and without its dead channels, boards with Linux full-sized ones, all
of them emulated: executed instructions are counted, and stand beside counts of other runtimes. This computer is timed,
in turns with ONNX Runtime.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.emit.stack_usage import STACK_KIND
from thumbnet.compile.errors import ArtifactError, ToolchainError
from thumbnet.compile.network.golden import GOLDEN_IMAGES
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.compile.request import CompileRequest, QuantizeMode
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.runtime_tests.session import DeviceSession, Measurement, MemoryUse
from thumbnet.targets.board import Board, Family
from thumbnet.targets.device import Device
from thumbnet.targets.errors import BoardError
from thumbnet.tools.cycle_output import CYCLE_KINDS, cycle_fields
from thumbnet.tools.onnx_rival import make_onnx_rival, time_in_turns
from thumbnet.tools.output import replace_file
from thumbnet.tools.stage_costs import StageCost, cost_fields, median, profile_stages
from thumbnet.tools.workloads import WORKLOADS, DeadChannels, Weights, Workload, make_benchmark_request

#: By family the cores the rivals were counted on (a Cortex-A53 has a Cortex-A72's instructions; on a Cortex-A7 there is
#: none), and this computer.
BOARDS: dict[Family, tuple[str, ...]] = {
    "cortex-m": ("mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547"),
    "cortex-a": ("raspberry_pi_2", "raspberry_pi_3", "raspberry_pi_4", "raspberry_pi_5"),
    "host": ("host",),
}
#: What float32 logits may differ by from PyTorch's, which adds in another order; relative to the largest.
FLOAT_TOLERANCE = 1e-4
#: Inferences for a cost that differs from run to run: where several threads wait for each other.
REPEATED_RUNS = 5
RIVALS_FILE = Path(__file__).parent / "rivals.json"

#: What the numbers of a row are; beside every table and in every row of the JSON file.
KINDS = {
    # Loads of many registers take as many cycles and more on Cortex-M4, and the kernels here live on them.
    "instructions": "executed in one inference, counted exactly in emulation; neither cycles nor time: a load of four "
    "registers is one instruction",
    "seconds": "wall time of one inference on this computer, the median of repeated ones in turns with the rival's",
    **CYCLE_KINDS,
    "threads": "that the inference ran on; instructions are those of all together, with what they spend waiting",
    "macs": "multiply-accumulates of the network as compiled",
    "weights": "trained; random, like trained ones; or worst case: random signs, all of the largest magnitude, so that "
    "no weights make the kernels execute more",
    "ram_bytes": "the network's static RAM (arena_bytes and what else it keeps) and stack_bytes",
    "arena_bytes": "static, known at compile time; input and output included",
    "stack_bytes": STACK_KIND,
    "stack_measured_bytes": "most that an inference used, by high-water mark on the emulated board",
    "flash_bytes": "whole image of the ELF: network, firmware and RPC, no test vectors; on Linux the network's library",
    "network_flash_bytes": "code and constants of the network alone",
    "rival_value": "the same of the best of the other runtimes that were measured on the same network and core in one "
    "thread; on this computer of ONNX Runtime, in turns",
    "equal_to_reference": "int8: whether all bytes are the reference's, of the outputs and of every stage",
    "largest_relative_error": "float32: of the logits, to PyTorch's, relative to the largest",
}


@dataclass(frozen=True)
class Result:
    """One network on one board in so many threads; the fields are described in `KINDS`."""

    network: str
    quantize: QuantizeMode
    dead_channels: DeadChannels
    board: Board
    weights: Weights
    threads: int
    whole: Measurement
    #: Of ONNX Runtime, in turns with `whole`; None where it is not installed, and on emulated boards.
    rival: Measurement | None
    macs: int | None
    memory: MemoryUse
    arena_bytes: int | None
    flash_bytes: int
    network_flash_bytes: int
    equal_to_reference: bool | None
    largest_relative_error: float | None
    elf: Path
    stages: tuple[StageCost, ...] = field(repr=False)
    cycles: CyclePrediction | None = None
    unpredicted_because: str | None = None

    @property
    def right(self) -> bool:
        """Whether the answers are the reference's: their bytes, of float32 as near as `FLOAT_TOLERANCE`."""
        if self.largest_relative_error is not None:
            return self.largest_relative_error <= FLOAT_TOLERANCE
        return bool(self.equal_to_reference)

    @property
    def cost(self) -> float | None:
        """Of one inference; None where the answers are wrong: what that costs says nothing."""
        return median(self.whole.samples) if self.right else None

    def as_json(self, rival: dict[str, Any] | None) -> dict[str, Any]:
        """Return the row for a JSON file, with the best of its `rivals_of`; its layers stand in order of execution."""
        name = "seconds" if self.whole.kind == "seconds on the board" else self.whole.kind
        row: dict[str, Any] = {
            "network": self.network,
            "quantize": self.quantize,
            "dead_channels": self.dead_channels,
            "board": self.board.name,
            "core": self.board.core,
            "weights": self.weights,
            name: None if self.cost is None else cost_fields(self.whole.kind, self.cost)[name],
            "kind": self.whole.kind,
            "samples": list(self.whole.samples),
            "error": self.whole.error,
            **cycle_fields(self.cycles, self.unpredicted_because),
            "threads": self.threads,
            "macs": self.macs,
            f"{name}_per_mac": self.cost / self.macs if self.cost and self.macs else None,
            "ram_bytes": self.memory.ram_bytes,
            "arena_bytes": self.arena_bytes,
            "stack_bytes": self.memory.stack_bytes,
            "stack_measured_bytes": self.memory.stack_measured_bytes,
            "flash_bytes": self.flash_bytes,
            "network_flash_bytes": self.network_flash_bytes,
            "equal_to_reference": self.equal_to_reference,
            "largest_relative_error": self.largest_relative_error,
            "rival": rival and rival["runtime"],
            "rival_version": rival and rival["version"],
            "rival_value": rival and rival[name],
            "rival_samples": list(self.rival.samples) if self.rival else None,
            "rival_source": rival and rival["source"],
            "layers": [stage.as_json() for stage in self.stages],
            "elf": str(self.elf),
        }
        return {**row, "kinds": {key: kind for key, kind in KINDS.items() if key in row}}


def benchmark_device(board: Board) -> Device:
    """Return where a board's networks are measured: its built-in emulator; the host itself.

    Raises
    ------
    BoardError
        There is no emulator.
    """
    if board.family == "host":
        return Device("local", board, "local")
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
    threads: Sequence[int] = (1,),
    progress: Progress = say_nothing,
) -> Iterator[Result]:
    """Compile, deploy, check and measure each network on each board of its family.

    Parameters
    ----------
    boards : sequence of Board
        Of `benchmark_device`.
    output : Path
        Folder for the artifacts and for the ELF files that ran (``elf/``).
    weights_dir : Path or None
        Where trained weights may be; random ones stand in for what is not there.
    workloads : sequence of Workload
        The networks.
    threads : sequence of int
        In how many threads each is run, one after the other; microcontrollers and the host run all in one.
    progress : callable
        Told before each step what is done next.

    Yields
    ------
    Result
        One for each of a workload's runs on each board in each number of threads; `count_results` tells how many.

    Raises
    ------
    BoardError, CompileError, ModelError, SessionError
        Of the specific type for what is wrong.
    """
    for workload in workloads:
        trained = workload.trained_weights(weights_dir)
        for device in (benchmark_device(board) for board in boards if workload.runs_on(board)):
            whole: dict[Weights, Artifact] = {}
            for weights, dead_channels in workload.runs(weights_dir):
                which = dead_channels if workload.family == "cortex-m" else weights.replace(" ", "-")
                suffix = () if workload.quantize == "int8" else ("float32",)
                name = "-".join([workload.network, *suffix, which, device.board.name])
                elf = output / "elf" / f"{name}.elf"
                _refuse_other(elf)
                keep = dead_channels == "kept"
                request = make_benchmark_request(workload, device.board, weights, trained, keep=keep)
                request = replace(request, progress=functools.partial(_say_compiling, progress, name))
                artifact = compile_model(request, output / name)
                case = _Case(workload, weights, dead_channels, device, request, artifact, elf)
                for count in threads:
                    progress(f"running {name}")
                    yield _run(case, whole.setdefault(weights, artifact), count)


def _refuse_other(elf: Path) -> None:
    """Refuse to replace what is no ELF file, and so none of an earlier run."""
    if os.path.lexists(elf) and not (elf.is_file() and not elf.is_symlink() and elf.read_bytes()[:4] == b"\x7fELF"):
        raise ArtifactError(f"{elf}: exists and is no ELF file; move it, or name another folder")


def _say_compiling(progress: Progress, name: str, doing: str) -> None:
    progress(f"compiling {name}: {doing}")


def count_results(
    boards: Sequence[Board],
    workloads: Sequence[Workload] = WORKLOADS,
    weights_dir: Path | None = None,
    threads: Sequence[int] = (1,),
) -> int:
    """Return how many results `run_benchmark` yields."""
    return len(threads) * sum(
        len(workload.runs(weights_dir)) for workload in workloads for board in boards if workload.runs_on(board)
    )


def load_rivals() -> list[dict[str, Any]]:
    """Return what other runtimes were measured to need; the file says how."""
    rivals: list[dict[str, Any]] = json.loads(RIVALS_FILE.read_text())["rivals"]
    return rivals


def rivals_of(result: Result, rivals: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rivals that did the same work on the same core in one thread, the cheapest first.

    Random weights have no dead channels, so nothing was removed from them and no rival with channels removed compares.
    """
    if result.rival is not None:
        return [
            {
                "runtime": "ONNX Runtime" + (", QDQ uint8" if result.quantize == "int8" else ""),
                "version": version("onnxruntime"),
                "seconds": median(result.rival.samples),
                "source": "measured in turns with thumbnet, on this computer, from the same PyTorch network",
            }
        ]
    if result.threads > 1 or (result.dead_channels == "removed" and result.weights == "random"):
        return []
    same = (result.network, result.quantize, result.dead_channels, result.board.core)
    keys = ("network", "quantize", "dead_channels", "core")
    found = [rival for rival in rivals if tuple(rival[key] for key in keys) == same]
    return sorted(found, key=lambda rival: int(rival["instructions"]))


class _WithoutTestVectors(Artifact):
    """An artifact whose firmware gets no golden vectors: the image that somebody would ship."""

    def golden(self) -> tuple[NDArray[Any], NDArray[Any]]:
        inputs, outputs = super().golden()
        return inputs[:0], outputs[:0]


@dataclass(frozen=True)
class _Case:
    """A compiled network, where it came from and where it runs."""

    workload: Workload
    weights: Weights
    dead_channels: DeadChannels
    device: Device
    request: CompileRequest
    artifact: Artifact
    elf: Path


def _run(case: _Case, whole_network: Artifact, threads: int) -> Result:
    artifact, device, timed = case.artifact, case.device, None
    int8 = case.workload.quantize == "int8"
    with open_session(device, threads) as session:
        session.load(_WithoutTestVectors(artifact.folder, artifact.manifest) if int8 else artifact)
        if isinstance(session, MicrocontrollerSession) and session.inexact_because is not None:
            raise ToolchainError(f"{device.name}: the benchmark needs exact counts: {session.inexact_because}")
        equal = error = None
        if int8:
            image = artifact.golden()[0][0]
            equal = _is_equal(session, artifact, whole_network)
        else:
            image = _rows(case.request.calibration[0])
            error = _largest_error(session, case.request)
        if device.kind == "local":
            rival = make_onnx_rival(case.request, threads)
            measured, timed = time_in_turns(session, image, rival)
        else:
            measured = session.measure(image, REPEATED_RUNS if threads > 1 else 1)
        cycles, unpredicted_because = session.predict_cycles_or_say_why(image)
        stages = profile_stages(artifact, session, image, cycles)
        memory = session.memory_use()
        flash_bytes, network_flash_bytes = _keep_image(session, artifact, memory, case.elf)
    return Result(
        network=case.workload.network,
        quantize=case.workload.quantize,
        dead_channels=case.dead_channels,
        board=device.board,
        weights=case.weights,
        threads=threads,
        whole=measured,
        rival=timed,
        macs=artifact.manifest.get("macs"),
        memory=memory,
        arena_bytes=artifact.manifest.get("arena_bytes"),
        flash_bytes=flash_bytes,
        network_flash_bytes=network_flash_bytes,
        equal_to_reference=equal,
        largest_relative_error=error,
        elf=case.elf.resolve(),
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


def _is_equal(session: DeviceSession, artifact: Artifact, whole_network: Artifact) -> bool:
    """Compare outputs with the reference of the network with all its channels, and each stage with its own reference.

    Two classes are two bytes, which a wrong network can give as well; the stages are thousands of them.
    """
    inputs, _ = artifact.golden()
    whole = load_reference(whole_network)
    outputs = all(np.array_equal(session.run(image), run_reference(whole, image)) for image in inputs)
    expected = run_reference_layers(load_reference(artifact), inputs[0])
    stages = session.run_layers(inputs[0])
    return outputs and all(
        np.array_equal(found.reshape(-1), expected[name].reshape(-1)) for name, found in stages.items()
    )


def _largest_error(session: DeviceSession, request: CompileRequest) -> float:
    """Return how far the logits of some images are from PyTorch's, relative to the largest."""
    images = request.calibration[:GOLDEN_IMAGES]
    with torch.no_grad():
        expected = np.stack([request.module(image)[0].numpy() for image in images])
    found = np.stack([session.run(_rows(image)) for image in images])
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    return error if np.isfinite(error) else math.inf


def _rows(image: torch.Tensor) -> NDArray[np.float32]:
    """Return an image ``[1, C, H, W]`` as a device takes it: ``[H, W, C]``."""
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
