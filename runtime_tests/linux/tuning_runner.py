"""How MetaSchedule builds candidates for a device and measures them on it: the device's half of tuning.

The search itself is `thumbnet.compile.tuning.meta_schedule`, which takes builder and runner as arguments.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import functools
import os
import select
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, NamedTuple

import tvm
from tvm.s_tir.meta_schedule.builder import BuilderInput, BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, PyRunner, PyRunnerFuture, RunnerInput, RunnerResult
from tvm.s_tir.meta_schedule.runner.rpc_runner import (
    default_alloc_argument,
    default_run_evaluator,
    default_upload_module,
)
from tvm.support.popen_pool import PopenPoolExecutor

from thumbnet.compile.emit.export_library import export_library, find_compiler
from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.rpc_connection import (
    ANSWER_TIMEOUT_S,
    ServerAddress,
    close_connection,
    connect_server,
    limit_answers,
)
from thumbnet.runtime_tests.linux.tracker import TrackedDevice, connect_device
from thumbnet.runtime_tests.run_folder import run_folder
from thumbnet.runtime_tests.session import MeasurementKind, check_samples
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device

#: Longest time for building a candidate, and for uploading and measuring it, in seconds.
BUILD_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 30.0

#: Builders at work at a time; the search itself and an emulator want processors too.
BUILD_WORKERS = 2
#: How often it is looked whether the server is still there while candidates are built, in seconds.
_LOOK_S = 1.0
_PR_SET_PDEATHSIG = 1
_ENDED_SIGNAL = signal.SIGUSR1


class TuningTarget(NamedTuple):
    """What a search needs of a device. Both raise a `SessionError` when the device is gone, which ends the search.

    Parameters
    ----------
    builder : PyBuilder
        Compiles candidates on this computer, each into a shared library in a folder of its own.
    runner : PyRunner
        Runs them on the device, each in a connection of its own.
    kind : {"instructions", "seconds on the board"}
        What the runner's numbers are. MetaSchedule calls them seconds; instructions are 1e-9 of that each.
    """

    builder: PyBuilder
    runner: PyRunner
    kind: MeasurementKind


@contextlib.contextmanager
def open_tuning_target(
    device: Device, build_timeout_s: float = BUILD_TIMEOUT_S, run_timeout_s: float = RUN_TIMEOUT_S
) -> Iterator[TuningTarget]:
    """Open a device for tuning; leaving the block lets it go and ends every process that was started.

    A candidate that can't be built, crashes, or takes longer than its time counts as failed, and the search goes on.
    When one has failed the device is asked whether it still takes connections: if not, the search ends. So a device
    that is gone is noticed at once, and one that hangs after `run_timeout_s` and twice `ANSWER_TIMEOUT_S`.

    Parameters
    ----------
    device : Device
        Of kind ``emulated`` (Cortex-A), ``rpc`` or ``local``.
    build_timeout_s, run_timeout_s : float
        Longest time for building one candidate, and for uploading and measuring it, in seconds.

    Raises
    ------
    ToolchainError
        The board's compiler is missing.
    EmulatorMissingError, DeviceUnreachableError
        As `TvmRpcSession`; also out of the block, when the device is gone.
    DeviceFaultError
        Out of the block: the device's counter or timer stands still.
    """
    find_compiler(device.board.cross_compiler)
    with contextlib.ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory(prefix="tuning-", dir=run_folder())))
        access = _open_access(device, open_things)
        runner = _Runner(folder, run_timeout_s, access)
        open_things.callback(runner.close)
        try:
            yield TuningTarget(_Builder(device.board, folder, build_timeout_s, access), runner, access.kind)
        except Exception as error:
            # On its way through MetaSchedule an error may have become another.
            if access.fault is not None and error is not access.fault:
                raise access.fault from error
            raise


class _Access:
    """The way to a device: where it is, and whether it is still there.

    Attributes
    ----------
    fault : SessionError or None
        What was found wrong with the device.
    """

    def __init__(
        self,
        place: TrackedDevice | ServerAddress,
        kind: MeasurementKind,
        check_alive: Callable[[], None],
        check_answers: Callable[[], None],
    ) -> None:
        self.place, self.kind = place, kind
        self._check_alive, self._check_answers = check_alive, check_answers
        self.fault: SessionError | None = None

    def check_alive(self) -> None:
        """Raise if the device is known to be gone; asks nobody."""
        self._check(self._check_alive)

    def check_answers(self) -> None:
        """Raise if the device doesn't take connections any more."""
        self._check(self._check_answers)

    def check_costs(self, costs: Sequence[float]) -> None:
        """Raise if the device measured nothing."""
        self._check(lambda: check_samples(self.kind, costs))

    def _check(self, check: Callable[[], None]) -> None:
        try:
            check()
        except SessionError as error:
            self.fault = error
            raise


def _open_access(device: Device, open_things: contextlib.ExitStack) -> _Access:
    if device.kind == "rpc":
        tracked = TrackedDevice.of(device)

        def ask_tracker() -> None:
            connection, address = connect_device(tracked)
            close_connection(connection)
            if address.serves_session:
                raise SessionError(
                    f"{device.name}: `thumbnet serve` serves stages only, --space tvm needs TVM's server"
                )

        ask_tracker()  # a device that doesn't answer is found here, not trial after trial
        return _Access(tracked, "seconds on the board", lambda: None, ask_tracker)
    server = open_things.enter_context(LinuxServer(device))
    kind: MeasurementKind = "instructions" if server.counts_instructions else "seconds on the board"
    access = _Access(server.address, kind, server.check_alive, server.check_answers)
    open_things.enter_context(_interrupt_when_ended(server.process.pid, access))
    return access


@contextlib.contextmanager
def _interrupt_when_ended(server: int, access: _Access) -> Iterator[None]:
    """Raise what `access` finds wrong in the main thread when a server ends, wherever in Python that is in the block.

    Between two rounds a search computes for a minute, and asks nothing of builder and runner.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal can be handled there: the builder notices, or the runner
        return

    def check(*_: object) -> None:
        if access.fault is None:
            access.check_alive()

    def watch() -> None:
        if done not in select.select([ended, done], [], [])[0]:
            # As if the signal had come; none is sent.
            _thread.interrupt_main(_ENDED_SIGNAL)

    before = signal.signal(_ENDED_SIGNAL, check)
    ended, (done, leave) = os.pidfd_open(server), os.pipe()
    thread = threading.Thread(target=watch, name="server-end", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(leave)
        thread.join()
        os.close(ended)
        os.close(done)
        signal.signal(_ENDED_SIGNAL, before)


@tvm.ir.utils.derived_object
class _Builder(PyBuilder):  # type: ignore[misc]
    """Builds candidates in processes of their own. MetaSchedule's `LocalBuilder`, but for looking after the device."""

    def __init__(self, board: Board, folder: Path, timeout_s: float, access: _Access) -> None:
        super().__init__()
        self.board, self.folder, self.timeout_s, self.access = board, folder, timeout_s, access

    def build(self, build_inputs: list[BuilderInput]) -> list[BuilderResult]:
        # New processes each time: TVM leaks memory in them.
        pool = _start_pool(BUILD_WORKERS, self.folder, self.timeout_s)
        candidates: list[Future[str]] = []
        try:
            for item in build_inputs:
                candidates.append(pool.submit(build_candidate, item.mod, item.target, self.board, self.folder))
            return [self._result(candidate) for candidate in candidates]
        finally:
            _end_pool(pool, candidates)

    def _result(self, candidate: Future[str]) -> BuilderResult:
        while not wait([candidate], timeout=_LOOK_S).done:
            self.access.check_alive()
        error = candidate.exception()
        return BuilderResult(candidate.result(), None) if error is None else BuilderResult(None, f"{error!r}")


@tvm.ir.utils.derived_object
class _Runner(PyRunner):  # type: ignore[misc]
    """Measures candidates from a process of its own. MetaSchedule's `RPCRunner`, but for looking after the device."""

    def __init__(self, folder: Path, timeout_s: float, access: _Access) -> None:
        super().__init__()
        self.access, self.timeout_s = access, timeout_s
        self.pool = _start_pool(1, folder)  # one device: who measures shares it with nobody
        self.candidates: list[Future[list[float]]] = []
        # A count is the same each time; a time is the mean of runs that take 50 ms together.
        counts = access.kind == "instructions"
        self.evaluator = EvaluatorConfig(number=1 if counts else 3, repeat=1, min_repeat_ms=0 if counts else 50)

    def run(self, runner_inputs: list[RunnerInput]) -> list[PyRunnerFuture]:
        self.access.check_alive()
        self.candidates = [
            self.pool.submit(
                *(measure_candidate, self.access.place, self.timeout_s, self.evaluator, str(item.artifact_path)),
                [argument.as_json() for argument in item.args_info],
            )
            for item in runner_inputs
        ]
        return [_Measured(candidate, self.access) for candidate in self.candidates]

    def close(self) -> None:
        _end_pool(self.pool, self.candidates)


@tvm.ir.utils.derived_object
class _Measured(PyRunnerFuture):  # type: ignore[misc]
    def __init__(self, candidate: Future[list[float]], access: _Access) -> None:
        super().__init__()
        self.candidate, self.access = candidate, access

    def done(self) -> bool:
        return self.candidate.done()

    def result(self) -> RunnerResult:
        error = self.candidate.exception()
        if error is not None:
            self.access.check_answers()
            return RunnerResult(None, f"{error!r}")
        self.access.check_costs(self.candidate.result())
        return RunnerResult(self.candidate.result(), None)


def _start_pool(workers: int, folder: Path, timeout_s: float | None = None) -> PopenPoolExecutor:
    return PopenPoolExecutor(workers, timeout_s, initializer=functools.partial(_begin_worker, os.getpid(), folder))


def _end_pool(pool: PopenPoolExecutor, candidates: Sequence[Future[Any]]) -> None:
    for candidate in candidates:  # else they are begun one by one when the workers are killed
        candidate.cancel()
    pool.shutdown()


def _begin_worker(parent: int, folder: Path) -> None:
    """Let this worker end when the process that started it does, however that ends; and leave nothing outside a folder.

    Parameters
    ----------
    parent : int
        The process that started it.
    folder : Path
        Where TVM and the compilers it calls put their temporary files.
    """
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


def build_candidate(module: tvm.IRModule, target: tvm.target.Target, board: Board, folder: Path) -> str:
    """Compile and link one candidate and return its path. Runs in a worker.

    In a folder of its own: when a candidate was measured MetaSchedule deletes the folder that holds it, whole.
    """
    # MetaSchedule's default imports every GPU's intrinsics instead.
    load_tensor_intrinsics()
    remove_rewrite = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)
    built = tvm.driver.build(remove_rewrite(module), target=target)
    path = Path(tempfile.mkdtemp(dir=folder)) / "candidate.so"
    export_library(built, board, path)
    return str(path)


def measure_candidate(
    place: TrackedDevice | ServerAddress, timeout_s: float, evaluator: EvaluatorConfig, path: str, arguments: list[Any]
) -> list[float]:
    """Run one candidate on the device and return what the device's timer says. Runs in the runner's worker.

    Unlike MetaSchedule's own it doesn't wait for ever for a device that is gone; and a server that doesn't end the
    candidate in time is given up.
    """
    if isinstance(place, ServerAddress):
        session, server = connect_server(place, stay_s=timeout_s), place
    else:
        session, server = connect_device(place, timeout_s=max(ANSWER_TIMEOUT_S, timeout_s), stay_s=timeout_s)
    limit_answers(server, timeout_s + ANSWER_TIMEOUT_S)
    device = session.cpu()
    module = default_upload_module(session, path, Path(path).name)
    costs: list[float] = default_run_evaluator(
        session, module, device, evaluator, default_alloc_argument(session, device, arguments, 1)
    )
    return costs
