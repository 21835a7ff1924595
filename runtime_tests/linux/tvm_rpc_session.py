"""The session with a device that runs Linux: emulated, on the network, or this computer; all over TVM RPC.

A real board registers on a tracker that both computers reach (``python -m tvm.exec.rpc_tracker``); on the board runs
the server of `board_kit`, or TVM's own of the same version. It is a `Device` of kind ``rpc``. **TVM RPC has no
authentication and no encryption, and runs whatever it is sent**: it belongs on a network where you trust everyone. The
servers that thumbnet starts itself listen on 127.0.0.1, are on no tracker, and take only who knows a random key.

``local`` runs in a server process too: a network that crashes doesn't take the session along, its heap is its own, and
what is measured goes through the same calls as on a board.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax, rpc

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.errors import DeviceFaultError, SessionError
from thumbnet.runtime_tests.linux.board_faults import check_processor, explain_loader, needs_dot_product
from thumbnet.runtime_tests.linux.elf_size import measure_elf
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.outputs import shape_output, unpack_layer
from thumbnet.runtime_tests.linux.recorded_calls import predict_calls
from thumbnet.runtime_tests.linux.rpc_connection import close_connection, drop_connections, last_line, limit_answers
from thumbnet.runtime_tests.linux.rpc_server_build import build_instrument
from thumbnet.runtime_tests.linux.server_watch import IDLE_S
from thumbnet.runtime_tests.linux.shared_work import check_shares_work, limit_pool, share_stages
from thumbnet.runtime_tests.linux.tracker import Connected, TrackedDevice, connect_device
from thumbnet.runtime_tests.linux.vm_profile import VmCall, middle_costs, name_layers, parse_profile
from thumbnet.runtime_tests.session import (
    WARM_UPS,
    DeviceSession,
    LayerCost,
    Measurement,
    MeasurementKind,
    MemoryUse,
    check_samples,
)
from thumbnet.targets.device import Device

#: How long one answer (an inference, an upload) may take before the device counts as hung, in seconds.
CALL_TIMEOUT_S = 60.0

_NOTHING = "thumbnet.nothing"
_PROFILED_RUNS = 3  # where counts differ from run to run


class TvmRpcSession(DeviceSession):
    """One Linux device, held open over TVM RPC. Device kinds ``emulated`` (Cortex-A), ``rpc`` and ``local``.

    Costs are executed instructions on emulated devices, exact, and seconds on the board on the others. What is counted
    is one call of the network: the Relax VM's work of dispatching the layers, and all layers; neither the transfer of
    the input nor of the output.

    Parameters
    ----------
    device : Device
        The device to open.
    call_timeout_s : float
        How long one inference may take before the device counts as hung, in seconds; on servers of our own in seconds
        of processor time, and they may not do nothing for longer than `IDLE_S` either. A board that is gone from the
        network is noticed in a quarter of a minute.
    threads : int
        Threads of TVM's pool that share an inference's work.
    progress : callable
        Told before each step of opening it what is done next.
    connected : Connected, optional
        Kind ``rpc``: what `connect_device` gave, to begin with.

    Raises
    ------
    EmulatorMissingError
        What the emulated or the local device needs is not installed.
    DeviceUnreachableError
        No tracker, no such key, another program holds the device, or it doesn't answer.
    """

    def __init__(
        self,
        device: Device,
        call_timeout_s: float = CALL_TIMEOUT_S,
        *,
        threads: int = 1,
        progress: Progress = say_nothing,
        connected: Connected | None = None,
    ) -> None:
        self.device = device
        self.threads = threads
        self.call_timeout_s = call_timeout_s
        self._server: LinuxServer | None = None
        self._connection: rpc.RPCSession | None = None
        self._artifact: Artifact | None = None
        self._layers: relax.VirtualMachine | None = None
        try:
            if device.kind != "rpc":
                self._server = LinuxServer(device, threads, progress)
            self._connect(connected)
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str | None:
        """The address of the server on the board, see `DeviceSession.place`."""
        return self._address.host if self._server is None else super().place

    @property
    def cost_kind(self) -> MeasurementKind:
        """What this device's costs are."""
        counted = self._server is not None and self._server.counts_instructions
        return "instructions" if counted else "seconds on the board"

    @property
    def _counts_vary(self) -> bool:
        # Threads wait for each other, sometimes longer.
        return self.threads > 1 and self.cost_kind == "instructions"

    def load(self, artifact: Artifact) -> None:
        """Upload a network's library and make it ready.

        Raises
        ------
        SessionError
            The artifact holds no library, or one for another board or processor; or the device can't run it in so many
            threads.
        DeviceFaultError
            The device refuses the library.
        """
        manifest = artifact.manifest
        kind, board = manifest.get("kind"), manifest.get("board")
        if kind != "library":
            raise SessionError(f"{artifact.folder}: holds {kind}, {self.device.name} runs a library; compile it again")
        if board != self.device.board.name:
            raise SessionError(
                f"{artifact.folder}: compiled for {board}, {self.device.name} is a {self.device.board.name}; "
                f"`thumbnet compile ... --board {self.device.board.name}` makes the right one"
            )
        check_shares_work(artifact, self.threads)
        if self._artifact is not None or self._fault is not None:
            self._connect()  # a process that never saw the other network: its heap tells nothing, names don't clash
        with self._calling("loading the network"):
            self._check_processor(artifact)
            self._limit_pool()
            self._main = self._start_vm(artifact, f"{artifact.name}.so")
        self._artifact = artifact

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """Run one inference, see `DeviceSession.run`."""
        artifact = self._loaded()
        with self._calling("the inference"):
            output = self._invoke(self._main, "main", image).numpy()
        return shape_output(artifact, "output", output, artifact.manifest["output"]["shape"])

    def run_layers(self, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run one inference that gives every layer's output, see `DeviceSession.run_layers`."""
        artifact = self._loaded()
        layers = artifact.manifest["layers"]
        with self._calling("the inference by layers"):
            arrays = self._invoke_layers(artifact, image)
        if len(arrays) != len(layers):
            raise DeviceFaultError(f"{artifact.name}: gives {len(arrays)} layers, its manifest lists {len(layers)}")
        return {
            layer["name"]: unpack_layer(artifact, layer, array) for layer, array in zip(layers, arrays, strict=True)
        }

    def _invoke_layers(self, artifact: Artifact, image: NDArray[Any]) -> list[NDArray[Any]]:
        if self._layers is None:
            library = artifact.manifest.get("layers_library")
            self._layers = self._start_vm(artifact, library) if library else self._main
        # A network of one layer gives a tuple of one.
        return [np.asarray(output.numpy()) for output in self._invoke(self._layers, "layers", image)]

    def measure(self, image: NDArray[Any], repeat: int) -> Measurement:
        """Run inferences of one input under the device's timer.

        Before the first sample the network has run `WARM_UPS` times. The cost of an empty call, by the same timer, is
        subtracted from instruction counts: those of one thread are exact and repeatable.
        """
        self._loaded()
        with self._calling("measuring"):
            self._set_input(self._main, "main", image)
        first = self._sample("invoke_stateful")
        # One at a time: however many are asked for, the device says something in between.
        samples = [self._sample("invoke_stateful") for _ in range(repeat)]
        error = max(first, *samples) - min(first, *samples) if self._counts_vary else 0.0
        if self.cost_kind == "instructions":
            overhead = min(self._sample(_NOTHING) for _ in range(3))
            samples = [sample - overhead for sample in samples]
        return Measurement(self.cost_kind, tuple(samples), error, self.threads, WARM_UPS)

    def profile(self, image: NDArray[Any]) -> list[LayerCost]:
        """Run one inference with the VM's calls measured one by one, see `DeviceSession.profile`.

        A layer's cost is that of its kernels, with the VM's calling of them and without the instrument's own overhead;
        what the VM does between kernels (allocating, checking shapes) belongs to no layer. So the layers' sum is less
        than what `measure` gives. On real boards and ``local`` the clock's resolution, a microsecond at worst, is the
        error; where several threads' instructions are counted, what those of three inferences differ by, of which the
        middle one is given.

        Raises
        ------
        DeviceFaultError
            The instrument can't be loaded on the device, or what it reads stands still.
        """
        artifact = self._loaded()
        runs = range(_PROFILED_RUNS if self._counts_vary else 1)
        profiles = [name_layers(artifact, self._profile_calls(image)) for _ in runs]
        check_samples(self.cost_kind, [sum(cost for _, cost in profile) for profile in profiles])
        unit, error = (1.0, 0.0) if self.cost_kind == "instructions" else (1e-9, 1e-6)
        return [
            LayerCost(name, self.cost_kind, cost * unit, max(spread * unit, error))
            for name, cost, spread in middle_costs(profiles)
        ]

    def predict_cycles(self, image: NDArray[Any]) -> CyclePrediction | None:
        """Run one inference, and one by the VM's calls, and price what was executed; see `DeviceSession`."""
        run, profile = partial(self.measure, image, 1), partial(self._profile_calls, image)
        return predict_calls(self._server, self._loaded(), run, profile)

    def memory_use(self) -> MemoryUse:
        """Return what the network takes on the device, see `DeviceSession.memory_use`.

        The network is loaded into a new process for it, so that the answer doesn't depend on what was asked before.
        ``flash_bytes`` are the library's loaded segments as they lie in the file. ``ram_bytes`` is what the process's
        heap grew by from before the library was loaded to after its first inference (activations, the kernels' own
        buffers, the VM, and the weights, which the VM copies there), plus the library's writable segments; None where
        the board's C library can't tell. ``arena_bytes`` is the storage that an inference allocates for activations.
        The stack is not measured.

        Raises
        ------
        DeviceFaultError
            The instrument can't be loaded on the device.
        """
        artifact = self._loaded()
        segments = measure_elf(artifact.folder / f"{artifact.name}.so")
        self._connect()
        expected = artifact.manifest["input"]
        image = np.zeros(expected["shape"], expected["dtype"])
        with self._calling("measuring its memory"):
            heap = self._load_between_readings(artifact, image)
        arena = sum(call.storage_bytes for call in self._profile_calls(image))
        ram = None if heap is None else heap + segments.writable_bytes
        return MemoryUse(ram, segments.file_bytes, arena)

    def _load_between_readings(self, artifact: Artifact, image: NDArray[Any]) -> int | None:
        """Load a network and run it once; return what the heap grew by, in bytes."""
        self._need_instrument()
        read_heap = self._remote.get_function("thumbnet.heap_bytes")
        self._limit_pool()
        before = int(read_heap())
        self._main = self._start_vm(artifact, f"{artifact.name}.so")
        self._artifact = artifact
        self._invoke(self._main, "main", image)
        return int(read_heap()) - before if before >= 0 else None

    def close(self) -> None:
        """Let the device go. May be called twice."""
        self._disconnect()
        if self._server is not None:
            self._server.close()

    def _connect(self, connected: Connected | None = None) -> None:
        self._disconnect()
        self._fault: DeviceFaultError | None = None
        if self._server is None:
            self._connection, self._address = connected or connect_device(TrackedDevice.of(self.device))
        else:
            self._connection, self._address = self._server.connect(), self._server.address
        self._has_instrument = self._server is not None
        self._cpu = self._connection.cpu()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with self._limit_answers():
                # What lies on the device is freed before the connection goes.
                self._main = self._layers = self._instrument = self._artifact = None
                close_connection(self._connection)
                self._connection = None

    @property
    def _remote(self) -> rpc.RPCSession:
        assert self._connection is not None
        return self._connection

    def _loaded(self) -> Artifact:
        if self._fault is not None:
            raise DeviceFaultError(f"{self._fault} (load the network again to go on)")
        if self._artifact is None:
            raise SessionError(f"{self.device.name}: no network loaded")
        return self._artifact

    def _limit_pool(self) -> None:
        # A server of ours with one thread makes no pool, which would take RAM.
        if self._server is None or self.threads > 1:
            limit_pool(self._remote, self.device, self.threads)

    def _start_vm(self, artifact: Artifact, library: str) -> relax.VirtualMachine:
        self._remote.upload(str(artifact.folder / library))
        module = self._remote.load_module(library)
        share_stages(artifact, module, self.threads)
        return relax.VirtualMachine(module, self._cpu)

    def _set_input(self, vm: relax.VirtualMachine, function: str, image: NDArray[Any]) -> None:
        expected = self._loaded().manifest["input"]
        if list(image.shape) != list(expected["shape"]) or str(image.dtype) != expected["dtype"]:
            raise SessionError(
                f"{self._loaded().name}: takes {expected['dtype']} {expected['shape']}, "
                f"the image is {image.dtype} {list(image.shape)}"
            )
        tensor = tvm.runtime.empty((1, *image.shape), str(image.dtype), self._cpu)
        tensor.copyfrom(np.ascontiguousarray(image[np.newaxis]))
        vm.set_input(function, tensor)

    def _invoke(self, vm: relax.VirtualMachine, function: str, image: NDArray[Any]) -> Any:  # noqa: ANN401 - TVM's
        self._set_input(vm, function, image)
        vm.invoke_stateful(function)
        return vm.get_outputs(function)

    def _sample(self, function: str) -> float:
        """Measure one call of a function in the device's unit; TVM calls it once more, before the sample."""
        with self._calling("measuring"):
            result = self._time(function)
        return float(round(result * 1e9)) if self.cost_kind == "instructions" else result

    def _time(self, function: str) -> float:
        module = self._remote._sess if function == _NOTHING else self._main.module
        [result] = module.time_evaluator(function, self._cpu, number=1, repeat=1)("main").results
        return float(result)

    def _profile_calls(self, image: NDArray[Any]) -> list[VmCall]:
        with self._calling("profiling"):
            return self._invoke_profiled(image)

    def _invoke_profiled(self, image: NDArray[Any]) -> list[VmCall]:
        self._need_instrument()
        take_profile = self._remote.get_function("thumbnet.take_profile")
        self._invoke(self._main, "main", image)  # so that buffers are allocated
        self._main.set_instrument("thumbnet.profile_calls")
        try:
            take_profile()
            self._invoke(self._main, "main", image)
            return parse_profile(take_profile())
        finally:
            self._main.set_instrument("thumbnet.profile_nothing")

    def _check_processor(self, artifact: Artifact) -> None:
        if needs_dot_product(artifact):
            self._need_instrument()
            check_processor(artifact, self.device, int(self._remote.get_function("thumbnet.hwcap")()))

    def _need_instrument(self) -> None:
        if self._has_instrument:
            return
        library = build_instrument(self.device.board)
        self._remote.upload(str(library))
        self._instrument = self._remote.load_module(library.name)
        self._has_instrument = True

    @contextlib.contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        """Bound what is called over RPC in time, and turn what TVM raises into an error of the session.

        Freeing what lies on the device is a call as well: a function of its own inside the block has the variables.
        """
        try:
            with self._limit_answers():
                yield
        except SessionError:
            raise
        except BaseException as error:
            # What is left of the connection would make each clean-up wait for a server that hangs, or that still works
            # on what Ctrl-C interrupted here.
            drop_connections(self._address)
            reason = self._explain(error) if isinstance(error, Exception) else "interrupted"
            self._fault = DeviceFaultError(f"{self.device.name}: {what} failed: {reason}")
            if isinstance(error, Exception):
                raise self._fault from error
            raise

    def _limit_answers(self) -> contextlib.AbstractContextManager[None]:
        if self._server is not None:
            return self._server.watch.awaiting(min(IDLE_S, self.call_timeout_s), self.call_timeout_s)
        limit_answers(self._address, self.call_timeout_s)
        return contextlib.nullcontext()

    def _explain(self, error: Exception) -> str:
        reason = last_line(error)
        if loader := explain_loader(reason):
            return loader
        return f"{reason}; look at the server on the board" if self._server is None else self._server.explain(reason)
