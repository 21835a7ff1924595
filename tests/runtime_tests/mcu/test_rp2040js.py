"""A Raspberry Pi Pico in rp2040js: our UF2 file boots by its second stage and gives the reference's bytes over UART.

The time of its instructions is a model of rp2040js's, and no latency.
"""

import socket
from pathlib import Path

import numpy as np
import pytest

from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.runtime_tests.mcu import microcontroller_session
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.image_files import write_image
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.mcu.transport import SocketTransport
from thumbnet.targets.device import Device
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

PICO = get_board("rpi_pico")
BOARD = Path(__file__).with_name("rp2040_board.mjs")
#: Where `make rp2040js` puts it.
EMULATOR = Path(__file__).resolve().parents[3] / "build" / "rp2040js" / "node_modules" / "rp2040js"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.emulated,
    pytest.mark.needs_tools("node", "arm-none-eabi-gcc"),
    pytest.mark.skipif(not EMULATOR.is_dir(), reason="needs rp2040js (make rp2040js)"),
]


@pytest.fixture
def open_pico(programs, monkeypatch, tmp_path):
    """Start a Pico with the firmware of an artifact; return a session with it."""
    sessions = []

    def open_pico(artifact):
        uf2 = write_image(build_firmware(artifact, PICO), PICO, "uf2", tmp_path / "firmware.uf2")
        ours, theirs = socket.socketpair()
        with theirs:
            programs.start(["node", BOARD, EMULATOR, uf2], stdin=theirs, stdout=theirs)
        monkeypatch.setattr(microcontroller_session, "line_of", lambda _: SocketTransport(ours, "rp2040js"))
        sessions.append(MicrocontrollerSession(Device("desk", PICO, "serial", address="rp2040js")))
        sessions[-1].load(artifact)
        return sessions[-1]

    yield open_pico
    for session in sessions:
        session.close()


def test_a_whole_session(open_pico, tiny, stand_in):
    session = open_pico(tiny)
    assert (session.identity.board, session.identity.missing, session.setup_fault) == ("rpi_pico", "", None)
    assert (session.identity.tick_kind, session.identity.tick_hz) == ("timer", 1_000_000)
    images = stand_in.make_images(3)
    outputs = [session.run(image).tolist() for image in images]
    assert outputs == [stand_in.compute_pool(image).tolist() for image in images]
    np.testing.assert_array_equal(session.run_layers(images[0])["scale"], stand_in.compute_scale(images[0]))
    assert session.self_test().mismatch is None


def test_a_real_network_gives_the_references_bytes(open_pico, tmp_path):
    artifact = compile_network(NetworkFiles("mobilenet_v1_0.25_digits"), PICO, tmp_path / "digits")
    session = open_pico(artifact)
    inputs, outputs = artifact.golden()
    assert len(inputs) > 1
    np.testing.assert_array_equal([session.run(image) for image in inputs], outputs)
    expected = run_reference_layers(load_reference(artifact), inputs[0])
    found = session.run_layers(inputs[0])
    assert len(found) > 10
    for name, output in found.items():
        np.testing.assert_array_equal(output.reshape(-1), expected[name].reshape(-1), err_msg=name)
    memory = session.memory_use()
    assert 0 < memory.stack_measured_bytes <= memory.stack_bytes


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (32 + 8, "the second stage's CRC is wrong: the ROM doesn't boot it"),  # a byte of the second stage
        (512 + 28, "block 1 is no UF2"),  # the family of the next block
    ],
)
def test_a_damaged_file_doesnt_boot(programs, tiny, tmp_path, at, says):
    uf2 = write_image(build_firmware(tiny, PICO), PICO, "uf2", tmp_path / "firmware.uf2")
    data = bytearray(uf2.read_bytes())
    data[at] ^= 1
    uf2.write_bytes(data)
    done = programs.run(["node", BOARD, EMULATOR, uf2])
    assert (done.returncode, done.stderr.strip()) == (1, says)
