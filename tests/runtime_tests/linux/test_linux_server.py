"""The server of emulated and local Linux devices, its tracker, and everything that may be missing."""

import shutil
import socket
import subprocess
import threading
import time

import pytest

from thumbnet.runtime_tests.errors import DeviceUnreachableError, EmulatorMissingError, SessionError
from thumbnet.runtime_tests.linux import emulated_linux, rpc_server_build, tracker
from thumbnet.runtime_tests.linux.elf_size import measure_elf
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.tracker import LoopbackTracker, connect_device, parse_address
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.runtime_tests.linux.vm_profile import parse_profile
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device

EMULATED, LOCAL = get_device("qemu_raspberry_pi_4"), get_device("local")


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def rpc_device(port, key="desk"):
    return Device("desk", LOCAL.board, "rpc", address=f"127.0.0.1:{port}", key=key)


def raise_in_time(device, match, seconds=5):
    started = time.monotonic()
    with pytest.raises(DeviceUnreachableError, match=match) as caught:
        TvmRpcSession(device)
    assert time.monotonic() - started < seconds
    assert "\n" not in str(caught.value)


def test_no_tracker_at_the_address():
    port = closed_port()
    raise_in_time(rpc_device(port), rf"no TVM tracker at 127\.0\.0\.1:{port} \(Connection refused\)")


def test_key_that_nobody_registered():
    with LoopbackTracker() as ours:
        raise_in_time(rpc_device(ours.port, "pi9"), "no device under key pi9; it has none; start its server")


@pytest.mark.needs_tools("g++")
def test_key_of_another_device_is_named():
    with LinuxServer(LOCAL) as server:
        raise_in_time(rpc_device(server.port, "pi9"), "no device under key pi9; it has host; start its server")


@pytest.mark.needs_tools("g++")
def test_device_held_by_another_program(monkeypatch):
    monkeypatch.setattr(connect_device, "__defaults__", (1.0, 0))
    with LinuxServer(LOCAL) as server:
        connection, _ = connect_device(server.host, server.port, server.key)
        raise_in_time(rpc_device(server.port, "host"), "device host not free within 1 s; another program holds it")
        tracker.close_connection(connection)
        TvmRpcSession(rpc_device(server.port, "host")).close()


@pytest.mark.needs_tools("g++")
def test_server_that_never_shakes_hands():
    """Stopped, a server still has its connection to the tracker, and the kernel accepts connections to it."""
    with LinuxServer(LOCAL) as server:
        server.process.send_signal(19)
        started = time.monotonic()
        with pytest.raises(DeviceUnreachableError, match=r"didn't answer within 1 s"):
            connect_device(server.host, server.port, server.key, timeout_s=1)
        assert time.monotonic() - started < 4
        server.process.send_signal(18)


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
        parse_address(address)


def hide(monkeypatch, *commands):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *rest: None if name in commands else which(name, *rest))


def test_missing_cross_compiler_names_its_package(monkeypatch):
    monkeypatch.setattr(rpc_server_build, "_aarch64_runtime", lambda: rpc_server_build.NATIVE)
    hide(monkeypatch, "aarch64-linux-gnu-g++")
    with pytest.raises(EmulatorMissingError, match="apt install g\\+\\+-aarch64-linux-gnu"):
        TvmRpcSession(EMULATED)


def test_missing_qemu_names_its_package(monkeypatch):
    monkeypatch.setattr(
        emulated_linux, "build_server", lambda board: rpc_server_build.ServerFiles(board.name, board.name)
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
        import zipfile  # noqa: PLC0415

        with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
            for name in rpc_server_build._RUNTIME_LIBRARIES:
                wheel.writestr(f"tvm/lib/{name}", b"library")
            wheel.writestr("tvm/lib/libtvm_compiler.so", b"left out")

    monkeypatch.setattr(rpc_server_build, "_download_wheels", download)
    folder = rpc_server_build._aarch64_runtime()
    assert rpc_server_build._aarch64_runtime() == folder
    assert len(downloads) == 1
    assert sorted(file.name for file in folder.iterdir()) == sorted(rpc_server_build._RUNTIME_LIBRARIES)


@pytest.mark.needs_tools("g++")
def test_server_listens_on_the_loopback_address_only():
    import psutil  # noqa: PLC0415

    with LinuxServer(LOCAL) as server:
        addresses = {
            connection.laddr.ip
            for process in (psutil.Process(server.process.pid), psutil.Process())
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert addresses == {"127.0.0.1"}


@pytest.mark.needs_tools("g++")
def test_server_refuses_a_wrong_key():
    with LinuxServer(LOCAL) as server:
        _, port, _ = tracker._take_server(server.host, server.port, server.key, 5)
        with pytest.raises(DeviceUnreachableError, match="cannot find server that matches"):
            tracker._connect_server("127.0.0.1", port, "host:0.123", 5, 0)


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
        "0\t40\t0\toverhead\n1\t140\t0\tinner\n0\t30\t512\tvm.builtin.alloc_storage\n0\t1040\t0\tconv\n"
    )
    assert [(call.name, call.cost, call.is_kernel) for call in calls] == [
        ("inner", 100, False),
        ("vm.builtin.alloc_storage", 0, False),
        ("conv", 1000, True),
    ]
    assert calls[1].storage_bytes == 512
