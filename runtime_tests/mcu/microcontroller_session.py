"""A microcontroller held open: emulated by QEMU, or a real one at a serial port. Both speak `protocol`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import ToolchainError
from thumbnet.compile.kernels.layouts import Layout, nhwc_layout
from thumbnet.runtime_tests.errors import (
    ArenaOverrunError,
    DeviceFaultError,
    DeviceUnreachableError,
    ProtocolError,
    SessionError,
)
from thumbnet.runtime_tests.instruction_counter import InstructionCounter
from thumbnet.runtime_tests.mcu.debug_port import DebugPort
from thumbnet.runtime_tests.mcu.emulator import Emulator, find_qemu
from thumbnet.runtime_tests.mcu.firmware_build import FirmwareImage, build_firmware
from thumbnet.runtime_tests.mcu.protocol import Identity, ProtocolClient, SelfTest
from thumbnet.runtime_tests.mcu.serial_transport import SerialTransport
from thumbnet.runtime_tests.mcu.transport import Transport
from thumbnet.runtime_tests.session import DeviceSession, LayerCost, Measurement, MeasurementKind, MemoryUse
from thumbnet.targets.device import Device

Result = TypeVar("Result")

#: With -icount shift=0 QEMU's clock advances by one nanosecond an instruction.
_ICOUNT_HZ = 1_000_000_000


class MicrocontrollerSession(DeviceSession):
    """One microcontroller with one network on it.

    Parameters
    ----------
    device : Device
        Kind ``"emulated"`` or ``"serial"``, with a Cortex-M board.
    run_timeout_s : float
        How long one inference may take before the firmware is held to hang.
    wrap_transport : callable or None
        Given the transport, returns the one to use: for example a `LoggingTransport` around it.
    count_exactly : bool
        Emulated: count instructions by the plugin; else by the timer of -icount, with its error.
    shortcut : bool
        Emulated: move inputs and layers through QEMU's debug port; else, as on a real board, through the serial port.
    """

    def __init__(
        self,
        device: Device,
        run_timeout_s: float = 300.0,
        wrap_transport: Callable[[Transport], Transport] | None = None,
        count_exactly: bool = True,
        shortcut: bool = True,
    ) -> None:
        if device.kind not in ("emulated", "serial") or device.board.family != "cortex-m":
            raise SessionError(
                f"{device.name}: {device.board.name} by {device.kind} is no microcontroller at a serial port"
            )
        self.device = device
        self.image: FirmwareImage | None = None
        self.identity: Identity | None = None
        #: Why instructions aren't counted by the plugin; None where they are.
        self.inexact_because: str | None = None if count_exactly else "asked for"
        self._shortcut = shortcut
        self._run_timeout_s = run_timeout_s
        self._wrap = wrap_transport or (lambda transport: transport)
        self._artifact: Artifact | None = None
        self._emulator: Emulator | None = None
        self._counter: InstructionCounter | None = None
        self._transport: Transport | None = None
        self._client: ProtocolClient | None = None
        self._overhead = 0
        self._stack_bytes: int | None = None

    # ------------------------------------------------------------------ loading

    def load(self, artifact: Artifact) -> None:
        """Build the firmware and start it (emulated), or check that the board runs it (serial).

        Raises
        ------
        ToolchainError, ArtifactError, DoesNotFitError
            The firmware can't be built.
        EmulatorMissingError
            QEMU is not installed.
        DeviceUnreachableError
            Nothing answers.
        ProtocolError
            What answers is another firmware or network; the message says how to flash this one.
        """
        self.close()
        if self.device.kind == "emulated":
            find_qemu()  # before a long build
        self.image = build_firmware(artifact, self.device.board)
        self._artifact = artifact
        try:
            transport = self._start_emulator(self.image) if self.device.kind == "emulated" else self._open_port()
            self._transport = self._wrap(transport)
            self._transport.open()
            self._client = ProtocolClient(self._transport, run_timeout_s=self._run_timeout_s)
            self.identity = self._identify(self.image)
            self._check_identity(self.identity, self.image)
            self._calibrate()
        except BaseException:
            self.close()
            raise

    def _open_port(self) -> Transport:
        return SerialTransport(self.device.address, self.device.baud)

    def _start_emulator(self, image: FirmwareImage) -> Transport:
        machine = self.device.board.qemu
        if machine is None:
            raise SessionError(f"{self.device.board.name}: QEMU has no such board")
        options = ["-icount", "shift=0,sleep=off"]
        if self.inexact_because is None:
            try:
                marks = (image.symbols["measure_begin"], image.symbols["measure_end"])
                self._counter = InstructionCounter(marks)
                options = self._counter.qemu_options
            except ToolchainError as error:
                self.inexact_because = str(error)
        self._emulator = Emulator(machine, image.elf, options)
        return self._emulator.transport

    def _identify(self, image: FirmwareImage) -> Identity:
        try:
            return self._ask(lambda client: client.identify())
        except DeviceUnreachableError as error:
            if self.device.kind == "serial":
                raise DeviceUnreachableError(f"{error} Flash {image.elf} if not, and reset the board") from error
            raise

    def _check_identity(self, identity: Identity, image: FirmwareImage) -> None:
        board = self.device.board.name
        if identity.board == board and identity.model_hash == image.model_hash:
            return
        raise ProtocolError(
            f"{self.device.name} runs {identity.model} {identity.model_hash} for {identity.board}, wanted "
            f"{self._loaded.name} {image.model_hash} for {board}; flash {image.elf}"
        )

    def _calibrate(self) -> None:
        """Measure a call of one instruction: what it costs beyond that is the measurement's own."""
        if self._counter is None:
            self._overhead = self._ask(lambda client: client.calibrate())
        else:
            self._counter.clear_marks()
            self._ask(lambda client: client.calibrate())
            self._overhead = 0
            (spent,) = self._counted()
            self._overhead = spent - 1

    # ------------------------------------------------------------------ the session

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """See `DeviceSession.run`."""
        self._run_once(image)
        return self._read_output()

    def run_layers(self, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `DeviceSession.run_layers`."""
        self._write(image)
        outputs = {}
        for index, layer in enumerate(self._loaded.manifest["layers"]):
            size, address = self._ask(partial(ProtocolClient.run_layer, layer=index))
            layout = _layout_of(layer)
            if size != layout.size:
                raise ProtocolError(f"layer {layer['name']}: {size} bytes on the board, {layout.size} in the manifest")
            data = self._ask(partial(self._read_layer, index=index, size=size, address=address))
            outputs[layer["name"]] = layout.unpack(data).reshape(layer["shape"])
        return outputs

    def measure(self, image: NDArray[Any], repeat: int) -> Measurement:
        """See `DeviceSession.measure`."""
        samples = tuple(self._run_once(image) for _ in range(repeat))
        return Measurement(self._kind, samples, self._error)

    def profile(self, image: NDArray[Any]) -> list[LayerCost]:
        """See `DeviceSession.profile`."""
        layers = self._loaded.manifest["layers"]
        self._write(image)
        if self._counter is not None:
            self._counter.clear_marks()
        ticks = self._ask(lambda client: client.profile(len(layers)))
        costs = [float(n) for n in self._counted()] if self._counter is not None else [self._convert(t) for t in ticks]
        if len(costs) != len(layers):
            raise ProtocolError(f"{self.device.name} ran {len(costs)} layers, the manifest has {len(layers)}")
        return [
            LayerCost(layer["name"], self._kind, cost, self._error) for layer, cost in zip(layers, costs, strict=True)
        ]

    def memory_use(self) -> MemoryUse:
        """See `DeviceSession.memory_use`.

        Flash is the network's own code and constants (`image.image_bytes` is the whole image, with firmware and golden
        vectors). RAM is the network's static data and the worst-case stack; where that is unknown, the most that a run
        has used on the board. An inference is run where there was none yet.
        """
        image = self.image
        assert image is not None and self._loaded
        if self._stack_bytes is None:
            inputs, _ = self._loaded.golden()
            self.run(inputs[0])
        measured, worst = self._stack_bytes, image.run_stack
        stack = measured if worst.bytes is None else worst.bytes
        return MemoryUse(
            ram_bytes=image.network_ram_bytes + (stack or 0),
            flash_bytes=image.network_flash_bytes,
            arena_bytes=self._identified.arena_bytes,
            stack_bytes=worst.bytes,
            stack_measured_bytes=measured,
            stack_unknown_because=worst.unknown_because,
        )

    def self_test(self) -> SelfTest:
        """Let the board check itself against the golden vectors in its image."""
        return self._ask(lambda client: client.self_test())

    def close(self) -> None:
        """End the emulator, or let the port go."""
        self._client = None
        if self._transport is not None:
            with contextlib.suppress(SessionError, OSError):
                self._transport.close()
            self._transport = None
        if self._emulator is not None:
            self._emulator.close()
            self._emulator = None
        if self._counter is not None:
            self._counter.close()
            self._counter = None

    # ------------------------------------------------------------------ parts

    @property
    def elf(self) -> Path | None:
        """The firmware's ELF file, None before `load`."""
        return self.image.elf if self.image else None

    @property
    def _memory(self) -> DebugPort | None:
        """The shortcut to the board's memory, None where all data go through the serial port."""
        return self._emulator.debug_port if self._emulator is not None and self._shortcut else None

    @property
    def _loaded(self) -> Artifact:
        if self._artifact is None:
            raise SessionError(f"{self.device.name}: no network is loaded")
        return self._artifact

    @property
    def _identified(self) -> Identity:
        if self.identity is None:
            raise SessionError(f"{self.device.name}: no network is loaded")
        return self.identity

    @property
    def _kind(self) -> MeasurementKind:
        if self.device.kind == "emulated":
            return "instructions"
        return "cycles" if self._identified.tick_kind == "cycles" else "seconds on the board"

    @property
    def _error(self) -> float:
        if self._counter is not None:
            return 0.0
        return self._scale * 2  # either end of the interval may be off by a tick, and so may the calibration

    @property
    def _scale(self) -> float:
        """Unit of the measurement in a tick."""
        hz = self._identified.tick_hz
        return {"instructions": _ICOUNT_HZ / hz, "cycles": 1.0, "seconds on the board": 1 / hz}[self._kind]

    def _convert(self, ticks: int) -> float:
        return max(0, ticks - self._overhead) * self._scale

    def _ask(self, question: Callable[[ProtocolClient], Result]) -> Result:
        if self._client is None:
            raise SessionError(f"{self.device.name}: no network is loaded")
        try:
            return question(self._client)
        except ArenaOverrunError as error:
            raise self._explain_overrun(error) from error
        except DeviceFaultError as error:
            raise DeviceFaultError(f"{self.device.name}: {error}") from error
        except DeviceUnreachableError as error:
            if self._emulator is not None:
                error = self._emulator.explain(error)
            raise DeviceUnreachableError(f"{self.device.name}: {error}") from error

    def _write(self, image: NDArray[Any]) -> None:
        wanted = self._loaded.manifest["input"]
        if list(image.shape) != list(wanted["shape"]) or image.dtype != np.dtype(wanted["dtype"]):
            raise SessionError(
                f"{self._loaded.name} takes an input {wanted['shape']} of {wanted['dtype']}, "
                f"not {list(image.shape)} of {image.dtype}"
            )
        data = np.ascontiguousarray(image).tobytes()
        identity, memory = self._identified, self._memory

        def write(client: ProtocolClient) -> None:
            if memory is None:
                client.write_input(data, identity.chunk)
            else:
                memory.write_memory(identity.input_address, data)
                client.confirm_input(data)

        self._ask(write)

    def _explain_overrun(self, error: ArenaOverrunError) -> ArenaOverrunError:
        manifest, side = self._loaded.manifest, "behind the end" if error.behind else "before the start"
        seen = "the whole inference"
        if error.stage is not None and error.stage < len(manifest["layers"]):
            seen = f"stage {manifest['layers'][error.stage]['name']}"
        return ArenaOverrunError(
            f"{self.device.name}: {self._loaded.name} wrote up to {error.reach_bytes} bytes {side} of its arena of "
            f"{self._identified.arena_bytes} bytes, seen after {seen}; its generated code is wrong",
            behind=error.behind,
            reach_bytes=error.reach_bytes,
            stage=error.stage,
        )

    def _run_once(self, image: NDArray[Any]) -> float:
        self._write(image)
        if self._counter is not None:
            self._counter.clear_marks()
        try:
            ticks, stack = self._ask(lambda client: client.run())
        except ArenaOverrunError:
            self.run_layers(image)  # tells after which stage it was, unless that hides it
            raise
        self._stack_bytes = max(stack, self._stack_bytes or 0)
        if self._counter is None:
            return self._convert(ticks)
        (spent,) = self._counted()
        return float(spent)

    def _read_layer(self, client: ProtocolClient, index: int, size: int, address: int) -> bytes:
        if self._memory is not None:
            return self._memory.read_memory(address, size)
        return client.read_layer(index, size, self._identified.chunk)

    def _read_output(self) -> NDArray[Any]:
        output = self._loaded.manifest["output"]
        size = self._identified.output_bytes
        data = self._ask(lambda client: client.read_output(size, self._identified.chunk))
        return np.frombuffer(data, np.dtype(output["dtype"])).reshape(output["shape"])

    def _counted(self) -> list[int]:
        """Return the instructions of each measured call since the marks were cleared."""
        assert self._counter is not None
        counts = [count for _, count in self._counter.read_marks()]
        return [end - begin - self._overhead for begin, end in zip(counts[::2], counts[1::2], strict=True)]


def _layout_of(layer: Mapping[str, Any]) -> Layout:
    """Return how a layer's output lies in the arena; rows, pixels, channels where the manifest doesn't say."""
    if "layout" not in layer:
        shape = (*(1,) * (3 - len(layer["shape"])), *layer["shape"])
        return replace(nhwc_layout(shape), size=math.prod(shape))
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in layer["layout"].items()
    }
    return Layout(**fields)
