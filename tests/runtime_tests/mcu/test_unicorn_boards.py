"""The whole session with boards that QEMU has not: their registers are modelled in unicorn_board.py."""

from dataclasses import replace

import pytest

from thumbnet.runtime_tests.errors import ClockError
from thumbnet.runtime_tests.mcu import microcontroller_session
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.session import WARM_UPS
from thumbnet.targets.device import Device
from thumbnet.targets.registry import get_board

pytest.importorskip("unicorn", reason="needs unicorn (pip install -e '.[dev]')")
from unicorn.arm_const import UC_ARM_REG_PRIMASK
from unicorn_board import CHIPS, UnicornBoard

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc")]


@pytest.fixture
def open_session(monkeypatch, tiny):
    def open_session(board, **options):
        line = UnicornBoard(board, build_firmware(tiny, board).elf, **options)
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


#: One of each way to a cycle counter and to a timer.
TIMED = ("nrf52840dk", "nrf5340dk", "rpi_pico", "rpi_pico2", "nucleo_f446re", "nucleo_h743zi2", "nucleo_u575zi_q")


@pytest.mark.parametrize("cycle_counter", [True, False], ids=["cycles", "timer"])
@pytest.mark.parametrize("name", TIMED)
def test_time_is_counted_whether_the_core_counts_cycles_or_not(name, cycle_counter, open_session, stand_in):
    session = open_session(get_board(name), cycle_counter=cycle_counter)
    by_cycles = cycle_counter and name != "rpi_pico"
    hz = get_board(name).clock_hz if by_cycles else 1_000_000
    session._transport.let_counters_start_again_in(0.02)  # while the clock is checked
    measured = session.measure(stand_in.make_images(1)[0], 5)
    assert measured.kind == ("cycles" if by_cycles else "seconds on the board")
    assert (measured.clock.hz, len(measured.samples), measured.warm_ups) == (hz, 5, WARM_UPS)
    assert abs(measured.clock.error) <= measured.clock.uncertainty and measured.clock.interval_s > 0.02


@pytest.mark.parametrize(
    ("pace", "says"), [(1.1, r"\+(9|10)\.\d%, 2% is allowed"), (0.9, r"-(9|10)\.\d%"), (0, "it stands still")]
)
@pytest.mark.parametrize("name", ["nucleo_f446re", "rpi_pico"])
def test_nothing_is_told_of_time_by_a_wrong_clock(name, pace, says, open_session, stand_in):
    session = open_session(get_board(name), pace=pace)
    image = stand_in.make_images(1)[0]
    for measure in (lambda: session.measure(image, 1), lambda: session.profile(image)):
        with pytest.raises(ClockError, match=rf"^desk: the board's clock counted .* Hz in .*{says}"):
            measure()
    assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()


#: Pins that are free on each family's boards.
MARKERS = {"rpi_pico": 15, "rpi_pico2": 15, "nrf52840dk": 35, "nrf5340dk": 5}


@pytest.mark.parametrize("name", CHIPS)
def test_the_marker_is_high_while_the_network_runs(name, open_session, stand_in, monkeypatch):
    pin = MARKERS.get(name, 16 * 2 + 3)
    board = get_board(name)
    session = open_session(replace(board, peripherals={**board.peripherals, "MARKER_PIN": pin}))
    line, output, edges = session._transport, session.image.symbols["__arena_start"] + 48, []

    def on_mark(marked, level):
        assert line.core.reg_read(UC_ARM_REG_PRIMASK) == 1, "an interrupt would be measured with the run"
        edges.append((marked, level, bytes(line.core.mem_read(output, 3))))

    line.on_mark = on_mark
    session.run(stand_in.make_images(2)[1])
    other, image = stand_in.make_images(2)
    edges.clear()
    assert session._ask(lambda client: client.calibrate()) is not None and not edges
    session.run(other)
    before, after = (stand_in.compute_pool(one).tobytes() for one in (image, other))
    assert edges == [(pin, 1, before), (pin, 0, after)]
    edges.clear()
    session.run_layers(image)
    assert [level for _, level, _ in edges] == [1, 0, 1, 0]


def test_a_crystal_that_doesnt_start_is_told(open_session):
    board = replace(
        get_board("rpi_pico2"), peripherals={**get_board("rpi_pico2").peripherals, "CRYSTAL_HZ": 15_000_000}
    )
    session = open_session(board)
    assert session.identity.missing == "PLL"
    assert session.setup_fault.startswith("PLL did not come, the core does not run at 150,000,000 Hz")
