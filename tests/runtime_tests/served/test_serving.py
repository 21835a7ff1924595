"""Devices on a tracker: served, found and used by their owner, and by nobody else."""

import re
import socket
import struct
import subprocess
import sys

import numpy as np
import psutil
import pytest
from tvm.rpc.base import RPC_MAGIC, TrackerCode

from thumbnet.runtime_tests.errors import DeviceUnreachableError, SessionError
from thumbnet.runtime_tests.linux import farm_key
from thumbnet.runtime_tests.linux.farm_key import is_served, new_match_key, shown_key
from thumbnet.runtime_tests.linux.rpc_connection import ServerAddress, connect_server
from thumbnet.runtime_tests.linux.tracker import Tracker, connect_device, find_devices
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.targets.device import tracker_key
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

from ...processes import wait_until
from .farm import M4

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")]


def test_a_served_session_is_what_the_session_there_is(farm, artifact):
    image = artifact.golden()[0][0]
    with farm.open() as served, MicrocontrollerSession(get_device("qemu_mps2_an386")) as here:
        assert re.fullmatch(r"qemu_mps2_an386 at 127\.0\.0\.1:\d+", served.device.name)
        assert (served.place, served.compiler, served.device.emulated) == ("127.0.0.1", here.compiler, True)
        for session in (served, here):
            session.load(artifact)
        np.testing.assert_array_equal(served.run(image), here.run(image))
        layers = here.run_layers(image)
        assert list(served.run_layers(image)) == list(layers)
        for name, output in served.run_layers(image).items():
            np.testing.assert_array_equal(output, layers[name])
        assert served.measure(image, 2) == here.measure(image, 2)
        assert served.profile(image) == here.profile(image)
        assert served.predict_cycles(image) == here.predict_cycles(image)
        assert served.memory_use() == here.memory_use()
        with pytest.raises(SessionError, match=r"takes an input .* not \[2, "):
            served.run(image[:2])
        np.testing.assert_array_equal(served.run(image), here.run(image))


def test_one_client_at_a_time_and_nothing_of_it_is_left(farm, artifact, monkeypatch):
    server = next(process for process in farm.programs.alive("serve"))
    with farm.open() as session:
        session.load(artifact)
        assert [p for p in server.children(recursive=True) if "qemu" in p.name()]
        monkeypatch.setattr(connect_device, "__defaults__", (1.0, 0))
        with pytest.raises(DeviceUnreachableError, match=r"not free within 1 s; another program holds it"):
            farm.open()
        monkeypatch.undo()
    wait_until(lambda: not server.children(recursive=True), psutil.Process())
    farm.open().close()


def test_real_boards_are_taken_before_emulated_ones_and_those_never_for_real_ones(farm):
    assert [device.key for device in find_devices(farm.address, M4)] == ["mps2_an386.emulated"]
    with Tracker("127.0.0.1", farm.port) as real:
        key = tracker_key(M4, emulated=False)
        real.call(TrackerCode.UPDATE_INFO, {"key": f"server:{key}", "addr": ["127.0.0.1", 1]})
        [device] = find_devices(farm.address, M4)
        assert (device.key, device.emulated) == ("mps2_an386", False)
    wait_until(lambda: find_devices(farm.address, M4)[0].emulated, psutil.Process())
    with pytest.raises(
        DeviceUnreachableError, match=r"no device under key mps2_an500; it has mps2_an386.emulated; `thu"
    ):
        find_devices(farm.address, get_board("mps2_an500"))


def test_a_server_of_tvms_is_no_microcontroller(farm):
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--key", M4.name]
    server = farm.programs.start([*command, "--tracker", farm.address], stderr=subprocess.DEVNULL)
    wait_until(lambda: not find_devices(farm.address, M4)[0].emulated, server)
    with pytest.raises(SessionError, match=r"what is under key mps2_an386 at .* is no server of `thumbnet serve`"):
        farm.open()
    for process in farm.programs.alive("rpc_server") + psutil.Process(server.pid).children(recursive=True):
        process.kill()
    wait_until(lambda: find_devices(farm.address, M4)[0].emulated, psutil.Process())


def ask_for_key(farm, key="mps2_an386.emulated"):
    with Tracker("127.0.0.1", farm.port) as tracker:
        _, (host, port, match_key) = tracker.call(TrackerCode.REQUEST, key, "stranger", 1)
    return host, port, match_key


def test_who_has_no_secret_is_not_served_whatever_the_tracker_told_him(farm, tmp_path, monkeypatch):
    host, port, match_key = ask_for_key(farm)
    assert is_served(match_key)
    right = shown_key(match_key, host, port)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for shown in (
        *(match_key, f"{match_key}.", f"{match_key}.{'0' * 64}", right[:-1], right + "0", "", "\0", "x" * 2000),
        *(shown_key(match_key, host, port), shown_key(match_key, "127.0.0.2", port)),
    ):
        with pytest.raises(DeviceUnreachableError):
            connect_server(ServerAddress(host, port, shown), 5)
    monkeypatch.undo()
    assert shown_key(match_key, host, port) == right
    farm.open().close()  # a key that was taken and not used is offered anew


def test_what_says_nothing_or_nonsense_keeps_nobody_out(farm):
    host, port, _ = ask_for_key(farm)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", struct.pack("<ii", RPC_MAGIC, 1 << 30)):
        with socket.create_connection((host, port)) as stranger:
            stranger.sendall(said)
            farm.open().close()


def test_the_secret_is_the_users_and_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    match_key = new_match_key("pi")
    assert shown_key(match_key, "host", 1) == shown_key(match_key, "host", 1) != shown_key(match_key, "host", 2)
    assert shown_key("pi:0.123", "host", 1) == "pi:0.123", "a server of TVM's is shown what the tracker says"
    path = tmp_path / "thumbnet" / farm_key.FILE
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_text() not in shown_key(match_key, "host", 1)
    path.write_text("short")
    with pytest.raises(SessionError, match=r"farm\.key: has 5 bytes, a key has 64"):
        shown_key(match_key, "host", 1)


def test_only_the_trackers_address_is_listened_at(farm):
    for server in farm.programs.alive("serve"):
        listening = [c for c in server.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert {connection.laddr.ip for connection in listening} <= {"127.0.0.1"}
