"""How MetaSchedule builds candidates for a device and measures them on it: the device's half of tuning.

The search itself is `thumbnet.compile.tuning.meta_schedule`, which takes builder and runner as arguments.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tvm
from tvm import rpc
from tvm.s_tir.meta_schedule.builder import LocalBuilder
from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, RPCConfig, RPCRunner

from thumbnet.compile.emit.export_library import export_library
from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.tracker import ANSWER_TIMEOUT_S, connect_device, limit_answers, parse_address
from thumbnet.runtime_tests.session import MeasurementKind
from thumbnet.targets.board import Board
from thumbnet.targets.device import Device

#: Longest time for building a candidate, and for uploading and measuring it, in seconds.
BUILD_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 60.0

#: Builders at work at a time; the search itself and an emulator want processors too.
BUILD_WORKERS = 2


class TuningTarget(NamedTuple):
    """What a search needs of a device.

    Parameters
    ----------
    builder : LocalBuilder
        Compiles candidates on this computer, each into a shared library in a folder of its own.
    runner : RPCRunner
        Runs them on the device, each in a connection of its own.
    kind : {"instructions", "seconds on the board"}
        What the runner's numbers are. MetaSchedule calls them seconds; instructions are 1e-9 of that each.
    """

    builder: LocalBuilder
    runner: RPCRunner
    kind: MeasurementKind


@contextlib.contextmanager
def open_tuning_target(
    device: Device, build_timeout_s: float = BUILD_TIMEOUT_S, run_timeout_s: float = RUN_TIMEOUT_S
) -> Iterator[TuningTarget]:
    """Open a device for tuning; leaving the block lets it go and ends every process that was started.

    A candidate that can't be built, crashes, or takes longer than its time counts as failed, and the search goes on.

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
        As `TvmRpcSession`.
    """
    board = device.board
    with contextlib.ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory(prefix="thumbnet-tuning-")))
        host, port, key, kind = _open_tracker(device, open_things)
        builder = LocalBuilder(
            max_workers=BUILD_WORKERS,
            timeout_sec=build_timeout_s,
            f_build=build_candidate,
            f_export=functools.partial(export_candidate, board=board, folder=folder),
        )
        counts = kind == "instructions"
        runner = RPCRunner(
            rpc_config=RPCConfig(
                tracker_host=host, tracker_port=port, tracker_key=key, session_timeout_sec=int(run_timeout_s)
            ),
            # A count is the same each time; a time is the mean of runs that take 50 ms together.
            evaluator_config=EvaluatorConfig(number=1 if counts else 3, repeat=1, min_repeat_ms=0 if counts else 50),
            f_create_session=connect_for_candidate,
            max_workers=1,  # one device: who measures shares it with nobody
        )
        open_things.callback(runner.pool.shutdown, wait=False)
        yield TuningTarget(builder, runner, kind)


def _open_tracker(device: Device, open_things: contextlib.ExitStack) -> tuple[str, int, str, MeasurementKind]:
    """Return address of the tracker, key of the device, and what its timer counts."""
    if device.kind == "rpc":
        host, port = parse_address(device.address)
        connect_device(host, port, device.key)  # a device that doesn't answer is found here, not trial after trial
        return host, port, device.key, "seconds on the board"
    server = open_things.enter_context(LinuxServer(device))
    return (
        server.host,
        server.port,
        server.key,
        "instructions" if server.counts_instructions else "seconds on the board",
    )


def build_candidate(module: tvm.IRModule, target: tvm.target.Target, _parameters: object) -> tvm.runtime.Module:
    """Compile one candidate: MetaSchedule's default, without the import of every GPU's intrinsics. Runs in a worker."""
    load_tensor_intrinsics()
    remove_rewrite = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)
    return tvm.driver.build(remove_rewrite(module), target=target)


def export_candidate(module: tvm.runtime.Module, board: Board, folder: Path) -> str:
    """Link one candidate and return its path. Runs in a worker.

    In a folder of its own: when a candidate was measured MetaSchedule deletes the folder that holds it, whole.
    """
    path = Path(tempfile.mkdtemp(dir=folder)) / "candidate.so"
    export_library(module, board, path)
    return str(path)


def connect_for_candidate(config: RPCConfig) -> rpc.RPCSession:
    """Take the device for one candidate. Runs in the runner's worker.

    Unlike MetaSchedule's own it doesn't wait for ever for a device that is gone; and a server that doesn't end the
    candidate in time is given up.
    """
    session, server = connect_device(
        *(config.tracker_host, config.tracker_port, config.tracker_key),
        timeout_s=max(ANSWER_TIMEOUT_S, config.session_timeout_sec),
        stay_s=config.session_timeout_sec,
    )
    limit_answers(server, config.session_timeout_sec + ANSWER_TIMEOUT_S)
    return session
