"""The firmware as a program of 32-bit Linux, emulated: at the end of a socket, and over TCP as on a real board."""

import os
import shutil
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests import instruction_counter
from thumbnet.runtime_tests.errors import (
    ArenaOverrunError,
    DeviceFaultError,
    DeviceUnreachableError,
    EmulatorMissingError,
    ProtocolError,
)
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

from ...processes import wait_until

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-linux-gnueabihf-gcc", "qemu-arm")]

BOARD = get_board("raspberry_pi_2")
DEVICE = get_device("qemu_raspberry_pi_2")
START = "    for (int i = 0; i < 48; i++) {"


@pytest.fixture
def image(stand_in):
    return stand_in.make_images(1)[0]


def write(stand_in, folder, **options):
    return stand_in.write_artifact(folder, board=BOARD.name, core=BOARD.core, **options)


@pytest.fixture(scope="module")
def session(tmp_path_factory, stand_in):
    with open_session(DEVICE) as session:
        session.load(write(stand_in, tmp_path_factory.mktemp("tiny") / "artifact"))
        yield session


def test_runs_images_and_layers(session, stand_in, image):
    assert (session.identity.model, session.identity.board) == ("tiny", "raspberry_pi_2")
    outputs = [session.run(each).tolist() for each in stand_in.make_images(8)]
    assert outputs == [stand_in.compute_pool(each).tolist() for each in stand_in.make_images(8)]
    layers = session.run_layers(image)
    np.testing.assert_array_equal(layers["scale"], stand_in.compute_scale(image))
    np.testing.assert_array_equal(layers["pool"], stand_in.compute_pool(image))
    assert session.self_test().mismatch is None


#: 1 + 100 * 3 + 1 instructions.
COUNTED = (
    '__attribute__((naked)) void tiny_run(void) { __asm volatile("mov r0, #100\\n1:\\nnop\\nsubs r0, #1\\nbne 1b\\n'
)
COUNTED += 'bx lr"); }\n'
#: Nothing, or 48 bytes, on the stack.
PUSHES = {
    0: '__attribute__((naked)) void tiny_run(void) { __asm volatile("bx lr"); }\n',
    48: '__attribute__((naked)) void tiny_run(void) { __asm volatile("push {r0-r11}\\nadd sp, #48\\nbx lr"); }\n',
}


def with_run(stand_in, run, folder):
    return write(stand_in, folder, main=stand_in.MAIN[: stand_in.MAIN.index("void tiny_run(void)")] + run)


def test_counts_exactly(session, stand_in, image, tmp_path):
    measured = session.measure(image, 3)
    assert (measured.kind, measured.error) == ("instructions", 0.0)
    assert len(set(measured.samples)) == 1
    layers = session.profile(image)
    assert 0 < measured.samples[0] - sum(layer.value for layer in layers) + 12 < 24
    with MicrocontrollerSession(DEVICE) as counting:
        counting.load(with_run(stand_in, COUNTED, tmp_path / "a"))
        assert counting.measure(image, 2).samples == (302.0, 302.0)


@pytest.mark.parametrize("stack", PUSHES)
def test_the_stack_is_known_and_measured_to_the_byte(stack, stand_in, tmp_path):
    with MicrocontrollerSession(DEVICE) as session:
        session.load(with_run(stand_in, PUSHES[stack], tmp_path / "a"))
        memory = session.memory_use()
        assert (memory.stack_bytes, memory.stack_measured_bytes) == (stack, stack)
        assert memory.ram_bytes == 51 + stack
        assert memory.arena_bytes == 51 and 48 < memory.flash_bytes < 2000


#: What writes outside the arena; side and reach that are told.
OVERRUNS = {
    "out[3] = 0;": ("behind the end", 1),
    "out[2 + 1000000] = 0;": ("behind the end", 1_000_000),
    "out[-49] = 0;": ("before the start", 1),
    "out[-48 - 1000000] = 0;": ("before the start", 1_000_000),
}


@pytest.mark.parametrize("code", OVERRUNS)
def test_a_write_outside_the_arena_is_told_with_side_and_stage(code, stand_in, image, tmp_path):
    message, reach = OVERRUNS[code]
    layers = stand_in.LAYERS.replace("int32_t sum = 0;", f"int32_t sum = 0;\n{code}", 1)
    with MicrocontrollerSession(DEVICE) as session:
        session.load(write(stand_in, tmp_path / "a", layers=layers))
        with pytest.raises(ArenaOverrunError, match=f"{message} of its arena .* seen after stage pool") as caught:
            session.run(image)
        assert caught.value.reach_bytes == reach


#: What the first layer does where the first value is 77, and what is told.
FAULTS = {
    "*(volatile int *)0xF0000000u = 1;": "memory protection fault of address 0xf0000000",
    '__asm volatile("udf #0");': "undefined instruction",
    "volatile int big[600]; big[5] = 1; tiny_scale(data); data[0] = (int8_t)big[5];": "stack overflow",
    'for (;;) { __asm volatile(""); }': "RUN began but did not end in 1 s",
}


def faulty(stand_in, folder, body):
    layers = stand_in.LAYERS.replace(START, f"    if (data[0] == 77) {{ {body} }}\n{START}", 1)
    return write(stand_in, folder, layers=layers)


@pytest.mark.parametrize("body", FAULTS)
def test_faults_are_told_and_the_session_can_be_loaded_again(body, stand_in, image, tmp_path):
    artifact = faulty(stand_in, tmp_path / "a", body)
    bad = image.copy()
    bad[0, 0, 0] = 77
    with MicrocontrollerSession(DEVICE, run_timeout_s=1) as session:
        for _ in range(2):
            session.load(artifact)
            assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
            with pytest.raises(DeviceFaultError, match=FAULTS[body]) as caught:
                session.run(bad)
            assert "\n" not in str(caught.value)


def test_a_killed_emulator_is_told(stand_in, image, tmp_path):
    with MicrocontrollerSession(DEVICE) as session:
        session.load(write(stand_in, tmp_path / "a"))
        os.kill(_qemu_of(session), signal.SIGKILL)
        with pytest.raises(DeviceUnreachableError, match="qemu_raspberry_pi_2: "):
            session.run(image)


def test_says_what_to_install(stand_in, monkeypatch, tmp_path):
    tiny = write(stand_in, tmp_path / "a")
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        with pytest.raises(EmulatorMissingError, match="qemu-arm is not installed; `apt install qemu-user`"):
            MicrocontrollerSession(DEVICE).load(tiny)
        with pytest.raises(ToolchainError, match="arm-linux-gnueabihf-gcc is not installed; `apt install gcc-arm-l"):
            build_firmware(tiny, BOARD)

    def no_plugin(source):
        raise ToolchainError("gcc is not installed")

    monkeypatch.setattr(instruction_counter, "build_plugin", no_plugin)
    with pytest.raises(EmulatorMissingError, match="only counts exactly: gcc is not installed"):
        MicrocontrollerSession(DEVICE).load(tiny)


# ---------------------------------------------------------------------- over TCP


@pytest.fixture
def serve(programs):
    """Start a network's firmware as a person does on a board; return the device, and the program."""

    def start(artifact):
        elf = build_firmware(artifact, BOARD).elf
        command = [shutil.which("qemu-arm"), "-cpu", BOARD.qemu, elf, "--listen", "127.0.0.1:0"]
        program = programs.start(command, stdout=subprocess.PIPE)
        words = program.stdout.readline().decode().split()
        assert words[:2] == ["listening", "on"]
        return Device("desk", BOARD, "tcp", address=words[2]), program

    return start


def test_a_board_over_tcp(serve, stand_in, image, tmp_path):
    # Layers that take long beside the jitter of a clock that is this computer's.
    spin = "    for (volatile int n = 0; n < 20000; n++) {\n    }\n"
    layers = stand_in.LAYERS.replace(START, spin + START).replace("    for (int c = 0", spin + "    for (int c = 0")
    tiny = write(stand_in, tmp_path / "a", layers=layers)
    device, _ = serve(tiny)
    for _ in range(2):  # a client after the other
        with open_session(device) as session:
            session.load(tiny)
            assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
            np.testing.assert_array_equal(session.run_layers(image)["scale"], stand_in.compute_scale(image))
            measured = session.measure(image, 2)
            assert measured.kind == "seconds on the board" and measured.error > 0
            assert [layer.kind for layer in session.profile(image)] == ["seconds on the board"] * 2
            assert session.memory_use().stack_measured_bytes >= 0


def test_a_second_client_is_turned_away_and_the_first_served_on(serve, stand_in, image, tmp_path):
    tiny = write(stand_in, tmp_path / "a")
    device, _ = serve(tiny)
    with open_session(device) as session:
        session.load(tiny)
        with pytest.raises(
            DeviceUnreachableError, match=r"desk: 127\.0\.0\.1:.* (the other end closed the line|the line broke)"
        ):
            open_session(device).load(tiny)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()


@pytest.mark.parametrize("body", FAULTS)
def test_after_a_fault_the_next_client_finds_a_fresh_board(body, serve, stand_in, image, tmp_path):
    artifact = faulty(stand_in, tmp_path / "a", body)
    device, program = serve(artifact)
    bad = image.copy()
    bad[0, 0, 0] = 77
    for _ in range(2):
        with MicrocontrollerSession(device, run_timeout_s=1) as session:
            session.load(artifact)
            assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
            with pytest.raises(DeviceFaultError, match=FAULTS[body]):
                session.run(bad)
    assert program.poll() is None


def test_noise_neither_ends_nor_moves_the_server(serve, stand_in, image, tmp_path):
    tiny = write(stand_in, tmp_path / "a")
    device, program = serve(tiny)
    host, port = device.address.split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(np.random.default_rng(0).bytes(100_000))
    with MicrocontrollerSession(device) as session:

        def is_loaded():
            try:
                session.load(tiny)
            except DeviceUnreachableError:  # the stranger's process is there a moment longer
                return False
            return True

        wait_until(is_loaded, program)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
    assert program.poll() is None


def test_another_network_or_none_on_the_board_says_how_to_start_it(serve, stand_in, tmp_path):
    device, program = serve(write(stand_in, tmp_path / "a", main=stand_in.MAIN + "\n/* another */\n"))
    tiny = write(stand_in, tmp_path / "b")
    with pytest.raises(ProtocolError, match=r"desk runs tiny .* wanted tiny .* copy .*firmware\.elf to the board and"):
        open_session(device).load(tiny)
    program.kill()
    program.wait()
    with pytest.raises(
        DeviceUnreachableError, match=r"desk: .*can't be connected .*is the firmware started there"
    ) as no:
        open_session(device).load(tiny)
    assert "copy" in str(no.value) and "firmware.elf" in str(no.value) and "\n" not in str(no.value)


#: What a person may write, and what is said to it.
WRONG = {
    "--listen localhost:1": "localhost:1 is no IPv4 ADDRESS:PORT",
    "--listen 127.0.0.1": "127.0.0.1 is no IPv4 ADDRESS:PORT",
    "--listen 127.0.0.1:65536": "is no IPv4 ADDRESS:PORT",
    "--listen 127.0.0.1:1x": "is no IPv4 ADDRESS:PORT",
    "--listen 127.0.0.1:-1": "is no IPv4 ADDRESS:PORT",
    "--listen 127.0.0.1:": "is no IPv4 ADDRESS:PORT",
    "--listen 192.0.2.1:7355": "192.0.2.1:7355 (Cannot assign requested address)",
    "--line 77": "77 is no socket",
    "--line x": "x is no socket",
    "--help": "usage: ",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_line_is_one_line(arguments, stand_in, tmp_path, programs):
    elf = build_firmware(write(stand_in, tmp_path / "a"), BOARD).elf
    done = programs.run(["qemu-arm", elf, *arguments.split()])
    assert done.returncode in (1, 2)
    assert WRONG[arguments] in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_nobody_but_loopback_is_served_where_nothing_is_said(stand_in, tmp_path, programs):
    elf = build_firmware(write(stand_in, tmp_path / "a"), BOARD).elf
    program = programs.start(["qemu-arm", elf], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # Where another program has the port, this one says so, with the same address.
    assert b"127.0.0.1:7355" in program.stdout.readline()


def test_the_emulated_board_listens_nowhere(session):
    listening = [
        line.split()[9]
        for table in ("tcp", "tcp6", "unix")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        if table != "unix" and line.split()[3] == "0A"
    ]
    sockets = [str(link.readlink()) for link in Path(f"/proc/{_qemu_of(session)}/fd").iterdir()]
    assert any(name.startswith("socket:") for name in sockets)
    assert not {f"socket:[{inode}]" for inode in listening} & set(sockets)


def _qemu_of(session):
    [qemu] = [
        child.pid
        for child in psutil.Process(session._emulator._process.pid).children(recursive=True)
        if child.name() == "qemu-arm"
    ]
    return qemu


def test_a_board_of_another_name_is_another(stand_in, tmp_path):
    tiny = write(stand_in, tmp_path / "a")
    device = replace(DEVICE, board=replace(BOARD, name="raspberry_pi_2b"))
    with MicrocontrollerSession(device) as session:
        session.load(tiny)
        assert session.identity.board == "raspberry_pi_2b"
