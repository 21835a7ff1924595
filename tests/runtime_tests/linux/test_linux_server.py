"""The server of emulated and local Linux devices, trackers, and everything that may be missing."""

import shutil
import signal
import socket
import subprocess
import threading
import time
import zipfile

import psutil
import pytest

from thumbnet.runtime_tests.errors import DeviceUnreachableError, EmulatorMissingError, SessionError
from thumbnet.runtime_tests.linux import emulated_linux, rpc_server_build, server_watch
from thumbnet.runtime_tests.linux import tracker as tracker_module
from thumbnet.runtime_tests.linux.elf_size import measure_elf
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.rpc_connection import close_connection
from thumbnet.runtime_tests.linux.tracker import TrackedDevice, connect_device
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.runtime_tests.linux.vm_profile import parse_profile
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device

from ...processes import wait_until

EMULATED, LOCAL = get_device("qemu_raspberry_pi_4"), get_device("local")
#: Without a limit of ours these calls wait for a minute and more, or for ever; a busy computer takes its time too.
IN_TIME_S = 40


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def rpc_device(port, key="desk"):
    return Device("desk", LOCAL.board, "rpc", address=f"127.0.0.1:{port}", key=key)


def raise_in_time(device, match):
    started = time.monotonic()
    with pytest.raises(DeviceUnreachableError, match=match) as caught:
        TvmRpcSession(device)
    assert time.monotonic() - started < IN_TIME_S
    assert "\n" not in str(caught.value)


def test_no_tracker_at_the_address():
    port = closed_port()
    raise_in_time(rpc_device(port), rf"no TVM tracker at 127\.0\.0\.1:{port} \(Connection refused\)")


def test_key_that_nobody_registered(tracker):
    raise_in_time(rpc_device(tracker, "pi9"), "no device under key pi9; it has none; start its server")


def test_key_of_another_device_is_named(desk):
    raise_in_time(desk.device("pi9"), "no device under key pi9; it has desk; start its server")


def test_device_held_by_another_program(desk, monkeypatch):
    monkeypatch.setattr(connect_device, "__defaults__", (1.0, 0))
    connection, _ = connect_device(TrackedDevice.of(desk.device()), timeout_s=30)
    raise_in_time(desk.device(), "device desk not free within 1 s; another program holds it")
    close_connection(connection)
    monkeypatch.undo()
    TvmRpcSession(desk.device()).close()


def test_board_whose_server_hangs(desk, monkeypatch):
    """Stopped, a server still has its connection to the tracker, and the kernel accepts connections to it."""
    wait_until(desk.is_free, desk.server)
    monkeypatch.setattr(tracker_module, "ANSWER_TIMEOUT_S", 1.0)
    for process in (desk.server, *psutil.Process(desk.server.pid).children(recursive=True)):
        process.send_signal(signal.SIGSTOP)
    raise_in_time(desk.device(), r"didn't answer within 1 s; start it again")
    for process in (desk.server, *psutil.Process(desk.server.pid).children(recursive=True)):
        process.send_signal(signal.SIGCONT)


@pytest.mark.needs_tools("g++")
def test_server_of_ours_that_hangs_before_the_handshake(monkeypatch):
    monkeypatch.setattr(server_watch.ServerWatch.awaiting.__wrapped__, "__defaults__", (1.0, 60.0))
    with LinuxServer(LOCAL) as server:
        server.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(DeviceUnreachableError, match=r"the server hung: it did nothing for 1 s; open the device"):
            server.connect()
        assert time.monotonic() - started < IN_TIME_S


@pytest.mark.needs_tools("g++")
def test_server_of_ours_that_was_killed_is_told_with_its_exit():
    with LinuxServer(LOCAL) as server:
        server.process.kill()
        with pytest.raises(DeviceUnreachableError, match=r"local: the server ended \(exit -9\); open the device again"):
            server.connect()


def answer_with(reply):
    """Listen once and answer with bytes; returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(64)
            connection.sendall(reply)
            time.sleep(0.5)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x71\xf2\x02\x00\xff\xff\xff\x7fjunk"])
def test_something_else_listens_at_the_trackers_address(reply):
    raise_in_time(rpc_device(answer_with(reply)), "is no TVM tracker")


@pytest.mark.parametrize("address", ["", "here", "here:", "here:port", "here:70000", ":9190"])
def test_malformed_tracker_addresses(address):
    with pytest.raises(DeviceUnreachableError, match="must be HOST:PORT"):
        TrackedDevice.of(Device("desk", LOCAL.board, "rpc", address=address))


def hide(monkeypatch, *commands):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *rest: None if name in commands else which(name, *rest))


def test_missing_cross_compiler_names_its_package(monkeypatch, tmp_path):
    for name in rpc_server_build._RUNTIME_LIBRARIES:
        (tmp_path / name).touch()
    monkeypatch.setattr(rpc_server_build, "_aarch64_runtime", lambda _: tmp_path)
    hide(monkeypatch, "aarch64-linux-gnu-g++")
    with pytest.raises(EmulatorMissingError, match="apt install g\\+\\+-aarch64-linux-gnu"):
        TvmRpcSession(EMULATED)


def test_missing_qemu_names_its_package(monkeypatch):
    monkeypatch.setattr(
        emulated_linux, "build_server", lambda board, _: rpc_server_build.ServerFiles(board.name, board.name)
    )
    hide(monkeypatch, "qemu-aarch64")
    with pytest.raises(EmulatorMissingError, match="apt install qemu-user"):
        TvmRpcSession(EMULATED)


def test_wheels_that_pip_cannot_get(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EmulatorMissingError, match=r"pip can't get them .*PIP_FIND_LINKS") as caught:
        TvmRpcSession(EMULATED)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.so")), "nothing half-made is left"


def test_wheels_are_fetched_once(monkeypatch, tmp_path):
    """Also from a folder of wheels, offline; the second start asks pip nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    downloads = []

    def download(requirements, folder):
        downloads.append(requirements)
        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            for name in rpc_server_build._RUNTIME_LIBRARIES:
                wheel.writestr(f"tvm/lib/{name}", b"library")
            wheel.writestr("tvm/lib/libtvm_compiler.so", b"left out")

    monkeypatch.setattr(rpc_server_build, "_download_wheels", download)
    said = []
    folder = rpc_server_build._aarch64_runtime(said.append)
    assert rpc_server_build._aarch64_runtime(said.append) == folder
    assert len(said) == 1 and "downloading" in said[0]
    assert len(downloads) == 1
    assert sorted(file.name for file in folder.iterdir()) == sorted(rpc_server_build._RUNTIME_LIBRARIES)


def test_elf_size_refuses_what_is_no_library(tmp_path):
    for content in (b"", b"!<arch>\n", b"\x7fELF\x02\x01", b"\x7fELF\x02\x02" + bytes(100)):
        path = tmp_path / "x.so"
        path.write_bytes(content)
        with pytest.raises(SessionError):
            measure_elf(path)


@pytest.mark.needs_tools("g++")
def test_elf_size_equals_the_linkers(tmp_path):
    source, library = tmp_path / "x.c", tmp_path / "x.so"
    source.write_text("const char table[100000] = {1}; char zeros[50000]; int one = 1;")
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
    size = measure_elf(library)
    assert 100_000 < size.file_bytes < 110_000
    assert 50_000 < size.writable_bytes < 55_000


def test_profile_without_its_overhead():
    calls = parse_profile(
        "0\t40\t0\t-1\toverhead\n1\t140\t0\t-1\tinner\n0\t30\t512\t-1\tvm.builtin.alloc_storage\n0\t1040\t0\t7\tconv\n"
    )
    assert [(call.name, call.cost, call.is_kernel) for call in calls] == [
        ("inner", 100, False),
        ("vm.builtin.alloc_storage", 0, False),
        ("conv", 1000, True),
    ]
    assert calls[1].storage_bytes == 512
    assert calls[2].recorded == 7
