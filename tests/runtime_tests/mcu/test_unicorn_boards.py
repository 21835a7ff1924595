"""The whole session with boards that QEMU has not: their registers are modelled in unicorn_board.py."""

from dataclasses import replace

import pytest

from thumbnet.runtime_tests.mcu import microcontroller_session
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.targets.device import Device
from thumbnet.targets.registry import get_board

pytest.importorskip("unicorn", reason="needs unicorn (pip install -e '.[dev]')")
from unicorn_board import CHIPS, UnicornBoard

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc")]


@pytest.fixture
def open_session(monkeypatch, tiny):
    def open_session(board):
        line = UnicornBoard(board, build_firmware(tiny, board).elf)
        monkeypatch.setattr(microcontroller_session, "line_of", lambda device: line)
        session = MicrocontrollerSession(Device("desk", board, "serial", address="unicorn"))
        session.load(tiny)
        return session

    return open_session


@pytest.mark.parametrize("name", CHIPS)
def test_a_whole_session(name, open_session, stand_in):
    session = open_session(get_board(name))
    assert (session.identity.board, session.identity.missing, session.setup_fault) == (name, "", None)
    counted = ("timer", 1_000_000) if name == "rpi_pico" else ("cycles", get_board(name).clock_hz)
    assert (session.identity.tick_kind, session.identity.tick_hz) == counted
    images = stand_in.make_images(3)
    assert [session.run(image).tolist() for image in images] == [
        stand_in.compute_pool(image).tolist() for image in images
    ]
    layers = session.run_layers(images[0])
    assert (layers["scale"] == stand_in.compute_scale(images[0])).all()
    assert session.self_test().mismatch is None
    assert session.memory_use().stack_measured_bytes > 0


def test_the_pico_measures_time_by_its_timer(open_session, stand_in):
    session = open_session(get_board("rpi_pico"))
    assert (session.identity.tick_kind, session.identity.tick_hz) == ("timer", 1_000_000)


def test_a_crystal_that_doesnt_start_is_told(open_session):
    board = replace(
        get_board("rpi_pico2"), peripherals={**get_board("rpi_pico2").peripherals, "CRYSTAL_HZ": 15_000_000}
    )
    session = open_session(board)
    assert session.identity.missing == "PLL"
    assert session.setup_fault.startswith("PLL did not come, the core does not run at 150,000,000 Hz")
