from pathlib import Path

import pytest

from thumbnet.targets import boards
from thumbnet.targets.board import Board, Memory
from thumbnet.targets.errors import BoardError
from thumbnet.targets.registry import get_board, list_boards


def test_every_board_file_has_its_line_in_the_table():
    files = {path.stem for path in Path(boards.__file__).parent.glob("*.toml")}
    assert {board.name for board in list_boards()} == files | {"host"}


def test_names_are_unique_and_found():
    names = [board.name for board in list_boards()]
    assert len(set(names)) == len(names)
    assert [get_board(name).name for name in names] == names


def test_an_unknown_board_names_the_nearest_and_all():
    with pytest.raises(BoardError, match=r"unknown board mps2_an388, did you mean mps2_an38[56]\?; known: .*pi_4"):
        get_board("mps2_an388")
    with pytest.raises(BoardError, match=r"^unknown board zx81; known: "):
        get_board("zx81")


def test_firmware_boards_have_what_their_port_needs():
    for board in list_boards():
        if board.firmware == "mps2":
            assert set(board.peripherals) == {"UART_BASE", "UART_IRQ", "FPGAIO_BASE", "FPGAIO_HZ"}
            assert board.clock_hz and board.qemu
            # V2 1.0-224: 3.6 MB of weights, 1.3 MB of activations.
            assert board.flash.size >= 4 << 20 and board.ram.size >= 4 << 20


def test_every_board_says_which_artifact_it_takes():
    kinds = {board.name: (board.artifact, board.runs_linux) for board in list_boards()}
    assert kinds["mps2_an386"] == ("c", False)
    assert kinds["raspberry_pi_2"] == ("c", True)
    assert kinds["raspberry_pi_4"] == kinds["host"] == ("library", True)


@pytest.mark.parametrize(
    ("core", "flash", "message"),
    [
        ("cortex-m99", Memory("FLASH", 0, 1), "unknown core cortex-m99"),
        ("cortex-m4", None, "needs both a flash and a ram"),
    ],
)
def test_a_contradictory_board_is_refused(core, flash, message):
    with pytest.raises(BoardError, match=message):
        Board("odd", "", "cortex-m", core, "gcc", flash=flash, ram=Memory("RAM", 0, 1))
