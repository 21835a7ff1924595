"""The process that serves one client of a device: calls that come over TVM RPC go to a session of its own.

``thumbnet serve`` has one for every connection, so that nothing of a client outlives it, and whatever a network does
takes only its own session along.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import tvm_ffi
from numpy.typing import NDArray
from tvm.rpc import _ffi_api as tvm_rpc

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.errors import ProtocolError, SessionError
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.runtime_tests.served.messages import BEGIN, WAIT, Arrays, Opened, pack_answer, pack_error, unpack_request
from thumbnet.runtime_tests.session import DeviceSession
from thumbnet.targets.device import Device


def serve_session(device: Device, connection: int) -> None:
    """Serve a client of a device until it goes.

    Parameters
    ----------
    device : Device
        Opened when the client asks for it, and let go with it.
    connection : int
        The file of a connection whose client has shaken hands; it is closed.
    """
    os.set_inheritable(connection, False)  # whatever is started here must not keep the client waiting
    served = _Served(device)
    tvm_ffi.register_global_func(BEGIN, served.begin, override=True)
    tvm_ffi.register_global_func(WAIT, served.wait, override=True)
    try:
        tvm_rpc.ServerLoop(connection)
    finally:
        served.close()


class _Served:
    """A session, and the one call of it that is at work or done."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._session: DeviceSession | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._worker = ThreadPoolExecutor(1)
        self._answer: Future[bytes] | None = None

    def begin(self, call: str, request: bytes) -> None:
        """Begin a call; `wait` gives its answer."""
        self._answer = self._worker.submit(self._perform, str(call), bytes(request))

    def wait(self, seconds: float) -> bytes:
        """Return the answer to the last call, or nothing where there is none yet after so many seconds."""
        if self._answer is None:
            return pack_error(ProtocolError("no call was begun"))
        try:
            return self._answer.result(timeout=seconds)
        except TimeoutError:
            return b""

    def close(self) -> None:
        """Let the device go."""
        if self._answer is not None and not self._answer.done():
            os._exit(1)  # nobody waits for the call any more; what it started ends with this process
        if self._session is not None:
            self._session.close()

    def _perform(self, call: str, request: bytes) -> bytes:
        try:
            fields, arrays = unpack_request(request)
            result, outputs = self._call(call, fields, arrays)
            return pack_answer(call, result, outputs)
        except Exception as error:  # the client is told, whatever it is
            return pack_error(error)

    def _call(self, call: str, fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[object, Arrays]:
        if call == "open":
            return self._open(int(fields["threads"])), {}
        session = self._session
        if session is None:
            raise SessionError(f"{self._device.name}: is not open")
        calls: dict[str, Callable[[], tuple[object, Arrays]]] = {
            "load": lambda: self._load(session, arrays),
            "run": lambda: (None, {"output": session.run(arrays["image"])}),
            "run_layers": lambda: (None, session.run_layers(arrays["image"])),
            "measure": lambda: (session.measure(arrays["image"], int(fields["repeat"])), {}),
            "profile": lambda: (session.profile(arrays["image"]), {}),
            "predict_cycles": lambda: (session.predict_cycles(arrays["image"]), {}),
            "memory_use": lambda: (session.memory_use(), {}),
        }
        if call not in calls:
            raise ProtocolError(f"{call} is no call of a session")
        return calls[call]()

    def _open(self, threads: int) -> Opened:
        self._session = open_session(self._device, threads)
        compiler = self._session.compiler if self._device.board.artifact == "c" else None
        return Opened(self._device.name, self._session.place, compiler)

    def _load(self, session: DeviceSession, files: Arrays) -> tuple[None, Arrays]:
        folder = tempfile.TemporaryDirectory(prefix="artifact-", dir=run_folder())
        for name, content in files.items():
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts:
                raise ProtocolError(f"{name!r} is no name of a file in an artifact")
            path = Path(folder.name) / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.tobytes())
        session.load(Artifact.load(Path(folder.name)))
        self._folder = folder  # the session may read it until another is loaded
        return None, {}
