"""How many threads of a device share a network's work: the pool of TVM's runtime there, and who makes use of it."""

from __future__ import annotations

import tvm
from tvm import rpc

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.targets.device import Device

#: TVM's mode of a pool on the fast cores.
_BIG_CORES = 1


def check_shares_work(artifact: Artifact, threads: int) -> None:
    """Refuse a network whose layers run in one thread, however many there are.

    Our own kernels share their work, and so do schedules that a search chose; TVM's own untuned ones don't.

    Raises
    ------
    SessionError
        More than one thread is asked for, and no layer would use it.
    """
    own_kernels = any("layout" in layer for layer in artifact.manifest["layers"])
    if threads > 1 and not own_kernels and not artifact.manifest.get("tuned"):
        raise SessionError(
            f"{artifact.folder}: its layers have TVM's untuned schedules, which run in one thread; leave --threads"
            f" {threads} out, or compile it with --tuning"
        )


def limit_pool(connection: rpc.RPCSession, device: Device, threads: int) -> None:
    """Let TVM's runtime on a device use so many threads from now on.

    Raises
    ------
    SessionError
        It has fewer.
    """
    connection.get_function("runtime.config_threadpool")(_BIG_CORES, threads)
    there = int(connection.get_function("runtime.NumThreads")())
    if there < threads:
        raise SessionError(
            f"{device.name}: the pool of its server has {there}, --threads {threads} asks for more; start the server"
            f" with TVM_NUM_THREADS={threads} in its environment, or give --threads {there}"
        )


def share_stages(artifact: Artifact, library: tvm.runtime.Module, threads: int) -> None:
    """Have the stages of our own kernels use so many threads of the pool; TVM's own schedules use what there are."""
    name = f"{artifact.name}_set_threads"
    if library.implements_function(name, query_imports=True):
        library.get_function(name, query_imports=True)(threads)
