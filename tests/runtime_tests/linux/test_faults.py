"""Whatever happens to connection or server: a right result, or an error within its time; never a wrong result.

After each fault a session with another server is right.
"""

import signal
import threading
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest

from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.linux import tvm_rpc_session
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.rpc_connection import connect_server
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device

from .faulty_proxy import Fault, FaultyProxy, Plan
from .test_tvm_rpc_session import images, make_artifact, reference

LOCAL, EMULATED = get_device("local"), get_device("qemu_raspberry_pi_4")
#: How long an answer may take in these sessions. A fault is told after one answer's time, or two where the handshake is
#: hit; what a busy computer needs for starting and ending processes comes on top.
ANSWER_S = 1.5
DEADLINE_S = 40
CONNECTION_FAULTS = list(Fault)
SERVER_FAULTS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)

pytestmark = pytest.mark.needs_tools("g++")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    made = {}

    def get(device):
        if device.board.name not in made:
            made[device.board.name] = make_artifact(tmp_path_factory.mktemp("artifact") / "it", device.board)
        return made[device.board.name]

    return get


def random_plan(rng, fault):
    # From the first byte of the handshake to the last of the answers, as often among few bytes as among many.
    after = int(np.exp(rng.uniform(0, np.log(100_000)))) - 1
    return Plan(fault, bool(rng.integers(2)), after, float(rng.uniform(0, 2 * ANSWER_S)))


def open_through(proxy, server, device, as_board, monkeypatch):
    """Open a session through a proxy: as with a server of ours, or as with a board that a tracker named."""
    address = replace(server.address, port=proxy.port)
    if as_board:
        monkeypatch.setattr(
            tvm_rpc_session,
            "connect_device",
            lambda _: (connect_server(address, ANSWER_S, answer_s=ANSWER_S), address),
        )
        board = Device("board", device.board, "rpc", address="127.0.0.1:9190", key="board")
        return TvmRpcSession(board, call_timeout_s=ANSWER_S)
    server.address = address
    monkeypatch.setattr(tvm_rpc_session, "LinuxServer", lambda *_: server)
    return TvmRpcSession(device, call_timeout_s=ANSWER_S)


def use(session, artifact, seed):
    """Do what `thumbnet test` does; returns the number of results, all of which are right."""
    results = 0
    session.load(artifact)
    for image in np.random.default_rng(seed).integers(-128, 128, (4, *images(1).shape[1:])).astype("int8"):
        expected = reference(image)
        np.testing.assert_array_equal(session.run(image), expected["classes"].reshape(10))
        for name, output in session.run_layers(image).items():
            np.testing.assert_array_equal(output, expected[name.removeprefix("net.")], err_msg=name)
        results += 1
    assert all(sample > 0 for sample in session.measure(images(1)[0], 2).samples)
    return results + 1


def run_one(device, artifact, seed, monkeypatch):
    """One session with one fault; returns what came of it."""
    rng = np.random.default_rng(seed)
    faults = [*CONNECTION_FAULTS, *SERVER_FAULTS]
    fault, as_board = faults[seed % len(faults)], bool(rng.integers(2))
    server_fault = fault in SERVER_FAULTS
    plan = Plan(Fault.NONE) if server_fault else random_plan(rng, fault)
    server = LinuxServer(device)
    processes = psutil.Process(server.process.pid)
    proxy = FaultyProxy(server.address.port, plan)
    started = time.monotonic()
    timer = threading.Timer(float(rng.uniform(0, 0.3)), strike, (processes, fault)) if server_fault else None
    try:
        if timer is not None:
            timer.start()
        with open_through(proxy, server, device, as_board, monkeypatch) as session:
            assert use(session, artifact, seed) == 5
        outcome = "right"
    except SessionError as error:
        assert "\n" not in str(error)
        outcome = "error"
    finally:
        took = time.monotonic() - started
        if timer is not None:
            timer.cancel()
            timer.join()
        proxy.close()
        server.close()
        monkeypatch.undo()
    assert took < DEADLINE_S, f"{fault} {plan}, as a board: {as_board}"
    assert not processes.is_running()
    return outcome


def strike(server, number):
    """Send a signal to the server's processes, in the order of their age, but for one that crashes by itself."""
    try:
        struck = [server, *server.children(recursive=True)]
        for process in struck[1:] if number == signal.SIGSEGV else struck:
            process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


def check_faults(device, artifact, seeds, monkeypatch):
    outcomes = []
    for seed in seeds:
        outcomes.append(run_one(device, artifact, seed, monkeypatch))
        with TvmRpcSession(device) as session:
            assert use(session, artifact, seed) == 5
    # Faults that hit nothing, and faults that do, or else this proves nothing.
    assert outcomes.count("right") >= len(outcomes) // 8
    assert outcomes.count("error") >= len(outcomes) // 4


def test_no_fault_gives_a_wrong_result_or_waits_for_ever(artifacts, monkeypatch):
    check_faults(LOCAL, artifacts(LOCAL), range(27), monkeypatch)


@pytest.mark.slow
def test_many_faults(artifacts, monkeypatch):
    check_faults(LOCAL, artifacts(LOCAL), range(100, 300), monkeypatch)


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")
def test_faults_of_an_emulated_board(artifacts, monkeypatch):
    check_faults(EMULATED, artifacts(EMULATED), range(300, 345), monkeypatch)
