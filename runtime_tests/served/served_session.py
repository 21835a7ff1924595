"""The session with a device of another computer, or of another process: all calls go to a session there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import rpc

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.progress import Progress, say_nothing
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.rpc_connection import (
    ServerAddress,
    close_connection,
    drop_connections,
    last_line,
    limit_answers,
)
from thumbnet.runtime_tests.served.messages import BEGIN, WAIT, Arrays, Opened, pack_request, unpack_answer
from thumbnet.runtime_tests.session import DeviceSession, LayerCost, Measurement, MemoryUse
from thumbnet.targets.device import Device

#: How long a server may take until its session's process answers, in seconds.
START_S = 120.0
#: How long a server may say nothing, in seconds: while it works it says so every `_WAIT_S`.
SILENCE_S = 15.0
_WAIT_S = 1.0


class ServedSession(DeviceSession):
    """A device behind a server of `thumbnet serve`, held open.

    Parameters
    ----------
    device : Device
        Of kind ``rpc``.
    connection : RPCSession
        To its server.
    address : ServerAddress
        Of that.
    threads : int
        Threads that share an inference's work.
    progress : callable
        Told before the device is opened.

    Raises
    ------
    SessionError
        The device can't be opened there.
    """

    def __init__(
        self,
        device: Device,
        connection: rpc.RPCSession,
        address: ServerAddress,
        threads: int = 1,
        progress: Progress = say_nothing,
    ) -> None:
        self.device, self.threads = device, threads
        self._connection: rpc.RPCSession | None = connection
        self._address = address
        self._fault: DeviceUnreachableError | None = None
        self._opened: Opened | None = None
        try:
            progress(f"opening it at {address.host}:{address.port}")
            limit_answers(address, START_S)
            self._opened, _ = self._ask("open", {"threads": threads})
            limit_answers(address, SILENCE_S)
        except BaseException:
            self.close()
            raise
        self.device = replace(device, name=f"{self._opened.name} at {address.host}:{address.port}")

    @property
    def place(self) -> str | None:
        """Its computer, and what that knows of its place; see `DeviceSession.place`."""
        there = None if self._opened is None else self._opened.place
        return self._address.host if there is None else f"{self._address.host} {there}"

    @property
    def compiler(self) -> str:
        """The compiler on the server, where programs are built there; see `DeviceSession.compiler`."""
        there = None if self._opened is None else self._opened.compiler
        return super().compiler if there is None else there

    def load(self, artifact: Artifact) -> None:
        """Send an artifact's files and load them there, see `DeviceSession.load`."""
        files = {
            str(path.relative_to(artifact.folder)): np.frombuffer(path.read_bytes(), np.uint8)
            for path in sorted(artifact.folder.rglob("*"))
            if path.is_file()
        }
        self._ask("load", {}, files)

    def run(self, image: NDArray[Any]) -> NDArray[Any]:
        """See `DeviceSession.run`."""
        return self._ask("run", {}, {"image": image})[1]["output"]

    def run_layers(self, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `DeviceSession.run_layers`."""
        return self._ask("run_layers", {}, {"image": image})[1]

    def measure(self, image: NDArray[Any], repeat: int) -> Measurement:
        """See `DeviceSession.measure`."""
        measured: Measurement = self._ask("measure", {"repeat": repeat}, {"image": image})[0]
        return measured

    def profile(self, image: NDArray[Any]) -> list[LayerCost]:
        """See `DeviceSession.profile`."""
        costs: list[LayerCost] = self._ask("profile", {}, {"image": image})[0]
        return costs

    def predict_cycles(self, image: NDArray[Any]) -> CyclePrediction | None:
        """See `DeviceSession.predict_cycles`."""
        predicted: CyclePrediction | None = self._ask("predict_cycles", {}, {"image": image})[0]
        return predicted

    def memory_use(self) -> MemoryUse:
        """See `DeviceSession.memory_use`."""
        used: MemoryUse = self._ask("memory_use", {})[0]
        return used

    def close(self) -> None:
        """Let the device go: its server does when the connection ends. May be called twice."""
        connection, self._connection = self._connection, None
        close_connection(connection)

    def _ask(
        self, call: str, fields: Mapping[str, Any], arrays: Arrays | None = None
    ) -> tuple[Any, dict[str, NDArray[Any]]]:
        if self._fault is not None or self._connection is None:
            raise self._fault or DeviceUnreachableError(f"{self.device.name}: is closed")
        try:
            self._connection.get_function(BEGIN)(call, pack_request(fields, arrays or {}))
            wait, answer = self._connection.get_function(WAIT), b""
            while not answer:
                answer = bytes(wait(_WAIT_S))
        except BaseException as error:
            # What is left of the connection would make each clean-up wait for a server that hangs.
            drop_connections(self._address)
            reason = last_line(error) if isinstance(error, Exception) else "interrupted"
            place = f"{self._address.host}:{self._address.port}"
            self._fault = DeviceUnreachableError(
                f"{self.device.name}: its server at {place} is gone or hangs ({reason}); start it again"
            )
            if isinstance(error, Exception):
                raise self._fault from error
            raise
        return unpack_answer(call, answer)
