"""`thumbnet serve`, and --tracker of `tune` and `test`: what is asked for wrongly, and what is taken."""

import json
import socket

import psutil
import pytest

from ..processes import Programs, wait_for_end, wait_until
from ..runtime_tests.served.farm import Farm
from .test_whole_way import BUNDLED_IMAGES

DIGITS = "mobilenet_v1_0.25_digits"


@pytest.fixture
def nowhere():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "name devices by --device, or by --tracker and --board"),
        (("--tracker", "127.0.0.1:1"), "--tracker and --board go together"),
        (("--board", "mps2_an386"), "--tracker and --board go together"),
        (("--device", "local", "--tracker", "127.0.0.1:1", "--board", "host"), "name devices by --device, or by"),
        (("--tracker", "127.0.0.1:1", "--board", "mps2_an387"), "unknown board mps2_an387, did you mean mps2_an386"),
        (("--tracker", "here", "--board", "mps2_an386"), "'here' is no tracker's address; it must be HOST:PORT"),
    ],
)
def test_devices_are_named_one_way(refused, tmp_path, options, says):
    assert says in refused("tune", DIGITS, *options, "-o", tmp_path / "db")
    assert says in refused("test", tmp_path, *options, "--images", tmp_path)
    assert not (tmp_path / "db").exists()


def test_no_tracker_is_told_with_the_command_that_starts_one(refused, nowhere, tmp_path):
    line = refused("tune", DIGITS, "--tracker", nowhere, "--board", "mps2_an386", "-o", tmp_path / "db")
    port = int(nowhere.partition(":")[2])
    assert f"no TVM tracker at {nowhere} (Connection refused)" in line
    assert f"rpc_tracker --host ADDRESS --port {port} --port-end {port + 1}` starts one" in line


def test_what_cant_be_served_is_told(refused, nowhere, tmp_path):
    desk = tmp_path / "devices.toml"
    desk.write_text(f'[devices.pi]\nboard = "raspberry_pi_4"\nkind = "rpc"\ntracker = "{nowhere}"\nkey = "pi4"\n')
    line = refused("serve", "--device", "pi", "--devices", desk, "--tracker", nowhere)
    assert f"pi: is on the tracker {nowhere} already" in line
    assert "unknown device qemu_mps2_an387" in refused("serve", "--device", "qemu_mps2_an387", "--tracker", nowhere)
    assert "it must be HOST:PORT" in refused("serve", "--device", "qemu_mps2_an386", "--tracker", "here")


@pytest.mark.slow
@pytest.mark.emulated
@pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")
def test_an_artifact_is_tested_on_all_boards_of_a_tracker(thumbnet, tmp_path):
    assert thumbnet("compile", DIGITS, "--board", "mps2_an386", "-o", tmp_path / "out")[0] == 0
    programs = Programs()
    try:
        farm = Farm(programs)
        servers = [farm.serve(), farm.serve()]
        wait_until(lambda: farm.count() == len(servers), psutil.Process())
        where = ("--tracker", farm.address, "--board", "mps2_an386")
        images = ("--images", BUNDLED_IMAGES, "--limit", 2)
        code, out, err = thumbnet("test", tmp_path / "out", *where, *images, "--json", tmp_path / "report.json")
        assert code == 0, err
        devices = json.loads((tmp_path / "report.json").read_text())["devices"]
        assert len(devices) == 2
        assert [device in out for device in devices] == [True, True]
        assert len({report["instructions_per_inference"] for report in devices.values()}) == 1
        servers[0].kill()
        wait_for_end(servers[0])
        wait_until(lambda: farm.count() == 1, psutil.Process())
        assert thumbnet("test", tmp_path / "out", *where, *images)[0] == 0
    finally:
        programs.end()
