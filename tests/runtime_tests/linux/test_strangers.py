"""Other users of this computer reach the loopback address: none of them gets anything from a server of ours."""

import json
import os
import socket
import stat
import struct
from pathlib import Path

import psutil
import pytest
from tvm.rpc.base import RPC_MAGIC, RPC_TRACKER_MAGIC, TrackerCode

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.emulated_linux import LinuxServer
from thumbnet.runtime_tests.linux.rpc_connection import ServerAddress, close_connection, connect_server
from thumbnet.targets.devices import get_device

NOBODY = 65534
DEVICES = [
    pytest.param(
        get_device("qemu_raspberry_pi_4"),
        marks=[pytest.mark.emulated, pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")],
        id="emulated",
    ),
    pytest.param(get_device("local"), marks=pytest.mark.needs_tools("g++"), id="local"),
]


@pytest.fixture(scope="module", params=DEVICES)
def server(request):
    with LinuxServer(request.param) as running:
        yield running


def as_a_stranger(action):
    """Run a function as another user, where the tests may become one, and return what it returns."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(write, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)


def shake_hands(port, key):
    """Say what a client of TVM's says; returns whether the server takes it."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        text = f"client:{key}".encode()
        connection.sendall(struct.pack("<ii", RPC_MAGIC, len(text)) + text)
        return connection.recv(4, socket.MSG_WAITALL) == struct.pack("<i", RPC_MAGIC)


def listening_ports(process):
    return {
        (connection.laddr.ip, connection.laddr.port)
        for one in (process, *process.children(recursive=True))
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_nothing_but_the_server_listens_and_it_on_the_loopback_address(server):
    before = listening_ports(psutil.Process())
    assert before == {("127.0.0.1", server.address.port)}


def test_the_key_opens_and_nothing_else_does(server):
    key, port = server.address.key, server.address.port
    assert len(key) == 32
    assert as_a_stranger(lambda: shake_hands(port, key)), "else this test proves nothing"
    name = server.device.board.name
    for wrong in ("", " ", "0" * 32, key[:-1], key + "0", key.upper(), name, f"{name}:0.5", f"0 {key}", f"\0{key}"):
        if wrong != key:
            assert not as_a_stranger(lambda wrong=wrong: shake_hands(port, wrong)), wrong
    close_connection(server.connect())


def test_a_client_of_tvms_without_the_key_is_turned_away_in_one_line(server):
    with pytest.raises(DeviceUnreachableError, match=r"127\.0\.0\.1:\d+ refused: ") as caught:
        connect_server(ServerAddress("127.0.0.1", server.address.port, "guessed"))
    assert "\n" not in str(caught.value)
    assert "guessed" not in str(caught.value)


def test_whoever_asks_for_a_list_or_a_key_as_of_a_tracker_hears_nothing(server):
    def ask():
        answers = []
        for request in ([TrackerCode.SUMMARY], [TrackerCode.REQUEST, server.device.board.name, "me", 1]):
            with socket.create_connection(("127.0.0.1", server.address.port)) as connection:
                text = json.dumps(request).encode()
                connection.sendall(struct.pack("<ii", RPC_TRACKER_MAGIC, len(text)) + text)
                try:
                    answers.append(connection.recv(100).decode())
                except ConnectionResetError:
                    answers.append("")
        return answers

    assert as_a_stranger(ask) == ["", ""]


def test_the_key_is_nowhere_where_others_read(server):
    assert server.address.key not in repr(server.address)
    for process in (psutil.Process(), psutil.Process(server.process.pid)):
        assert server.address.key not in " ".join(process.cmdline())
        assert server.address.key not in str(process.environ())


def test_nobody_else_enters_the_folder_of_uploads(server, tmp_path):
    connection = server.connect()
    library = tmp_path / "library.so"
    library.write_bytes(b"code")
    connection.upload(str(library))
    [uploaded] = server._folder.glob("session-*/library.so")
    assert stat.S_IMODE(uploaded.stat().st_mode) & 0o077 == 0
    for folder in (uploaded.parent, server._folder, server._folder.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.geteuid()

    def enter():
        try:
            return os.listdir(uploaded.parent) + os.listdir(server._folder)  # noqa: PTH208 - names are all it wants
        except PermissionError:
            return "refused"

    if os.geteuid() == 0:
        assert as_a_stranger(enter) == "refused"
    close_connection(connection)


def test_a_connection_that_says_nothing_does_not_keep_the_owner_out(server):
    with socket.create_connection(("127.0.0.1", server.address.port)):
        close_connection(server.connect())


def test_cache_of_another_user_is_not_used(tmp_path, monkeypatch):
    from thumbnet.compile.errors import ToolchainError  # noqa: PLC0415
    from thumbnet.runtime_tests.run_folder import cache_folder  # noqa: PLC0415

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder("native")
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    folder.parent.chmod(0o777)
    cache_folder("native")
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700, "also where it was made with other permissions"
    if os.geteuid() != 0:
        pytest.skip("needs root, to make another user's folder")
    os.chown(folder.parent, NOBODY, NOBODY)
    with pytest.raises(ToolchainError, match=f"{folder.parent}: belongs to another user; set XDG_CACHE_HOME"):
        cache_folder("native")
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    planted = Path(tmp_path / "link")
    planted.mkdir()
    (planted / "thumbnet").symlink_to(elsewhere)
    os.lchown(planted / "thumbnet", NOBODY, NOBODY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(planted))
    with pytest.raises(ToolchainError, match="belongs to another user"):
        cache_folder("native")
