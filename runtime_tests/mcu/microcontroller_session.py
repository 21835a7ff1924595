"""A board that runs our firmware, held open: emulated by QEMU, or a real one. All speak `protocol`.

A microcontroller's line is a serial port; on boards that run Linux the firmware is a program, and the line is TCP.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.errors import DoesNotFitError, ToolchainError
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.errors import (
    ArenaOverrunError,
    DeviceFaultError,
    DeviceUnreachableError,
    EmulatorMissingError,
    SessionError,
)
from thumbnet.runtime_tests.mcu.counted_calls import CountedCalls
from thumbnet.runtime_tests.mcu.debug_port import DebugPort
from thumbnet.runtime_tests.mcu.deploy import deploy
from thumbnet.runtime_tests.mcu.device_line import line_of, longest_call_s
from thumbnet.runtime_tests.mcu.emulator import Emulator, find_qemu, start_emulator
from thumbnet.runtime_tests.mcu.firmware_build import FirmwareImage, build_firmware
from thumbnet.runtime_tests.mcu.identity_check import check_identity, explain_setup, way_onto_board
from thumbnet.runtime_tests.mcu.manifest_stages import explain_overrun, layout_of
from thumbnet.runtime_tests.mcu.protocol import Identity, ProtocolClient, Run, SelfTest
from thumbnet.runtime_tests.mcu.run_meter import RunMeter
from thumbnet.runtime_tests.mcu.transport import Transport
from thumbnet.runtime_tests.session import WARM_UPS, DeviceSession, LayerCost, Measurement, MemoryUse
from thumbnet.targets.device import Device

Result = TypeVar("Result")

#: By how much the stack of an inference may pass the manifest's where another compiler built the firmware; built by the
#: same one, it may not.
OTHER_COMPILER_STACK_BYTES = 128


class MicrocontrollerSession(DeviceSession):
    """One board with our firmware, and one network in that.

    Parameters
    ----------
    device : Device
        Kind ``"emulated"``, ``"serial"`` or ``"tcp"``, with a board that takes C sources.
    run_timeout_s : float
        How long one inference may take before the firmware is held to hang.
    wrap_transport : callable or None
        Given the transport, returns the one to use: for example a `LoggingTransport` around it.
    count_exactly : bool
        Emulated microcontrollers: count instructions by the plugin; else by the timer of -icount, with its error.
    shortcut : bool
        Emulated microcontrollers: move inputs and layers through QEMU's debug port; else, as on a real board, through
        the serial port.
    """

    def __init__(
        self,
        device: Device,
        run_timeout_s: float = 300.0,
        wrap_transport: Callable[[Transport], Transport] | None = None,
        count_exactly: bool = True,
        shortcut: bool = True,
    ) -> None:
        if device.kind not in ("emulated", "serial", "tcp") or device.board.artifact != "c":
            raise SessionError(
                f"{device.name}: {device.board.name} by {device.kind} is no board that runs our firmware"
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
        self._counter: CountedCalls | None = None
        self._transport: Transport | None = None
        self._client: ProtocolClient | None = None
        self._meter: RunMeter | None = None
        self._stack_bytes: int | None = None

    # ------------------------------------------------------------------ loading

    def load(self, artifact: Artifact) -> None:
        """Build the firmware and start it (emulated), flash it where the device says how, or check that it is there.

        Raises
        ------
        ToolchainError, ArtifactError, DoesNotFitError
            The firmware can't be built.
        EmulatorMissingError
            QEMU is not installed.
        DeviceUnreachableError
            Nothing answers.
        FlashError
            The board can't be flashed.
        ProtocolError
            What answers is another firmware or network; the message says how to flash this one.
        """
        self.close()
        if self.device.kind == "emulated":
            find_qemu(self.device.board)  # before a long build
        self.image = self._build(artifact)
        self._artifact = artifact
        self._stack_bytes = None
        try:
            transport = self._start_emulator(self.image) if self.device.kind == "emulated" else line_of(self.device)
            self._transport = self._wrap(transport)
            self._open(self._transport, self.image)
            if self.device.flash is not None:
                deploy(self.device, self.image, self._transport)
            self._client = ProtocolClient(
                self._transport, run_timeout_s=self._run_timeout_s, resend_s=0.25 + longest_call_s(self.device)
            )
            self.identity = self._identify(self.image)
            check_identity(self.device, self.identity, artifact, self.image)
            self._meter = self._ask(lambda client: RunMeter(self.device, client, self._counter))
        except BaseException:
            self.close()
            raise

    def _build(self, artifact: Artifact) -> FirmwareImage:
        built_for = self.device.firmware_board
        try:
            return build_firmware(artifact, built_for)
        except DoesNotFitError as error:
            lacking = [bank.name for bank in self.device.board.ram_banks if bank not in built_for.ram_banks]
            if not lacking:
                raise
            raise DoesNotFitError(f"{error}; emulated, it has no {', '.join(lacking)}") from error

    def _open(self, transport: Transport, image: FirmwareImage) -> None:
        try:
            transport.open()
        except DeviceUnreachableError as error:
            if self.device.kind != "tcp":
                raise
            raise DeviceUnreachableError(
                f"{self.device.name}: {error} If not, {way_onto_board(self.device, image)}"
            ) from error

    def _start_emulator(self, image: FirmwareImage) -> Transport:
        board = self.device.board
        options = ["-icount", "shift=0,sleep=off"]
        if self.inexact_because is None:
            try:
                self._counter = CountedCalls(image.symbols, self.device.board)
                options = self._counter.qemu_options
            except ToolchainError as error:
                self.inexact_because = str(error)
        # QEMU's chips have timers at rates of their own, or none.
        if board.firmware != "mps2" and self._counter is None:
            raise EmulatorMissingError(f"{self.device.name} only counts exactly: {self.inexact_because}")
        self._emulator = start_emulator(board, image.elf, options)
        return self._emulator.transport

    def _identify(self, image: FirmwareImage) -> Identity:
        try:
            return self._ask(lambda client: client.open())
        except DeviceUnreachableError as error:
            if self.device.kind == "emulated":
                raise
            remedy = way_onto_board(self.device, image)
            if not self.device.board.runs_linux:
                remedy += ", and reset the board"
            raise DeviceUnreachableError(f"{error} If not, {remedy}") from error

    # ------------------------------------------------------------------ the session

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """See `DeviceSession.run`."""
        run, _ = self._run_once(image)
        output = self._loaded.manifest["output"]
        data = self._ask(lambda client: client.read_output(run))
        return np.frombuffer(data, np.dtype(output["dtype"])).reshape(output["shape"])

    def run_layers(self, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `DeviceSession.run_layers`."""
        self._write(image)
        outputs = {}
        for index, layer in enumerate(self._loaded.manifest["layers"]):
            layout = layout_of(layer)
            run = self._ask(partial(ProtocolClient.run_layer, layer=index, output_bytes=layout.size))
            data = self._ask(partial(self._read_layer, run=run))
            outputs[layer["name"]] = layout.unpack(data).reshape(layer["shape"])
        return outputs

    def measure(self, image: NDArray[Any], repeat: int) -> Measurement:
        """See `DeviceSession.measure`. A real board is warmed up before."""
        meter = self._checked_meter()
        warm_ups = 0 if self.device.kind == "emulated" else WARM_UPS
        for _ in range(warm_ups):
            self._run_once(image)
        samples = tuple(self._cost(meter, *self._run_once(image)) for _ in range(repeat))
        return Measurement(meter.kind, samples, meter.error, warm_ups=warm_ups, clock=meter.clock)

    def profile(self, image: NDArray[Any]) -> list[LayerCost]:
        """See `DeviceSession.profile`."""
        meter = self._checked_meter()
        layers = self._loaded.manifest["layers"]
        self._write(image)
        meter.start()
        started = time.monotonic()
        ticks = self._ask(lambda client: client.profile())
        call_s = time.monotonic() - started
        costs = self._ask(lambda _: meter.read_layers(ticks, call_s))
        return [
            LayerCost(layer["name"], meter.kind, cost, meter.error) for layer, cost in zip(layers, costs, strict=True)
        ]

    def predict_cycles(self, image: NDArray[Any]) -> CyclePrediction | None:
        """See `DeviceSession.predict_cycles`."""
        if self._counter is None:
            return None
        names = [layer["name"] for layer in self._loaded.manifest["layers"]]
        return self._counter.predict(names, partial(self._run_once, image), partial(self.profile, image))

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
            stack_limit_bytes=self._stack_limit(image),
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
        self._meter = None

    # ------------------------------------------------------------------ parts

    @property
    def setup_fault(self) -> str | None:
        """See `DeviceSession.setup_fault`."""
        return explain_setup(self.device, self.identity)

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
    def _running_meter(self) -> RunMeter:
        if self._meter is None:
            raise SessionError(f"{self.device.name}: no network is loaded")
        return self._meter

    def _cost(self, meter: RunMeter, run: Run, call_s: float) -> float:
        return self._ask(lambda _: meter.read_run(run.ticks, call_s))

    def _checked_meter(self) -> RunMeter:
        """Return the meter; what it says of a real board's time can be believed."""
        meter = self._running_meter
        self._ask(meter.check_clock)
        return meter

    def _stack_limit(self, image: FirmwareImage) -> int | None:
        footprint = self._loaded.manifest.get("footprint", {})
        published: int | None = footprint.get("stack_bytes")
        if published is None or footprint.get("compiler") == image.compiler:
            return published
        return published + OTHER_COMPILER_STACK_BYTES

    def _ask(self, question: Callable[[ProtocolClient], Result]) -> Result:
        if self._client is None:
            raise SessionError(f"{self.device.name}: no network is loaded")
        try:
            return question(self._client)
        except ArenaOverrunError as error:
            raise explain_overrun(error, self.device, self._loaded) from error
        except DeviceFaultError as error:
            raise type(error)(f"{self.device.name}: {error}") from error
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
        memory, address = self._memory, self._identified.input_address

        def write(client: ProtocolClient) -> None:
            if memory is None:
                client.write_input(data)
            else:
                memory.write_memory(address, data)
                client.confirm_input(data)

        self._ask(write)

    def _run_once(self, image: NDArray[Any]) -> tuple[Run, float]:
        """Run one inference; return it, and how many seconds the call took here."""
        self._write(image)
        self._running_meter.start()
        started = time.monotonic()
        try:
            run = self._ask(lambda client: client.run())
        except ArenaOverrunError:
            self.run_layers(image)  # tells after which stage it was, unless that hides it
            raise
        self._stack_bytes = max(run.stack_bytes, self._stack_bytes or 0)
        return run, time.monotonic() - started

    def _read_layer(self, client: ProtocolClient, run: Run) -> bytes:
        if self._memory is None:
            return client.read_output(run)
        return run.check_output(self._memory.read_memory(run.output_address, run.output_bytes))
