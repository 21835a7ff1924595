"""Which memory holds what."""

import pytest

from thumbnet.targets.board import Board, Memory
from thumbnet.targets.errors import BoardError
from thumbnet.targets.placement import arena_memories, largest_arena, place, with_arena_in

K = 1 << 10
DTCM, SRAM1, SRAM2 = (
    Memory("DTCM", 0x2000_0000, 64 * K),
    Memory("SRAM1", 0x2001_0000, 240 * K),
    Memory("SRAM2", 0x2004_C000, 16 * K),
)
AXI = Memory("AXI", 0x2400_0000, 512 * K)
FLASH = Memory("FLASH", 0x0800_0000, 1 << 20)


def _board(*ram):
    return Board("b", "", "cortex-m", "cortex-m7", "gcc", flash=FLASH, ram=ram[0], other_ram=ram[1:])


F7 = _board(DTCM, SRAM1, SRAM2)


def _names(placement):
    return placement and (placement.arena.name, placement.data.name)


def test_banks_that_adjoin_are_one_memory_too():
    assert [memory.name for memory in arena_memories(F7)] == ["DTCM", "SRAM1", "SRAM2", "DTCM+SRAM1+SRAM2"]
    joined = arena_memories(F7)[-1]
    assert (joined.origin, joined.size) == (DTCM.origin, 320 * K)
    assert [memory.name for memory in arena_memories(_board(AXI, SRAM1, DTCM))] == [
        "AXI",
        "SRAM1",
        "DTCM",
        "DTCM+SRAM1",
    ]
    assert arena_memories(_board(DTCM)) == [DTCM]


@pytest.mark.parametrize(
    ("arena", "data", "expected"),
    [
        (10 * K, 20 * K, ("DTCM", "DTCM")),
        (44 * K, 20 * K, ("DTCM", "DTCM")),
        (44 * K + 1, 20 * K, ("DTCM", "SRAM1")),
        (64 * K, 20 * K, ("DTCM", "SRAM1")),
        (64 * K + 1, 20 * K, ("SRAM1", "DTCM")),
        (240 * K, 20 * K, ("SRAM1", "DTCM")),
        (241 * K, 20 * K, ("DTCM+SRAM1+SRAM2", "DTCM+SRAM1+SRAM2")),
        (300 * K, 20 * K, ("DTCM+SRAM1+SRAM2", "DTCM+SRAM1+SRAM2")),
        (300 * K + 1, 20 * K, None),
    ],
)
def test_the_arena_goes_by_the_boards_order_and_data_where_there_is_room(arena, data, expected):
    assert _names(place(F7, arena, data)) == expected


def test_the_arenas_memory_can_be_asked_for():
    board = with_arena_in(F7, "SRAM2")
    assert _names(place(board, 10 * K, 20 * K)) == ("SRAM2", "DTCM")
    assert place(board, 17 * K, K) is None
    assert largest_arena(board, K) == 16 * K
    with pytest.raises(BoardError, match=r"b has no RAM SRAM, did you mean SRAM\d\?; it has DTCM, SRAM1, SRAM2, DTCM"):
        with_arena_in(F7, "SRAM")


@pytest.mark.parametrize("ram", [(DTCM,), (DTCM, SRAM1), (DTCM, SRAM1, SRAM2), (AXI, DTCM), (SRAM2, AXI, DTCM)])
@pytest.mark.parametrize("data", [1, 4 * K, 16 * K, 20 * K])
def test_the_largest_arena_can_be_placed_and_a_larger_one_not(ram, data):
    board = _board(*ram)
    largest = largest_arena(board, data)
    placement = place(board, largest, data)
    assert placement is not None and placement.arena.size >= largest
    shared = placement.arena.overlaps(placement.data)
    assert not shared or (placement.arena == placement.data and largest + data <= placement.arena.size)
    assert place(board, largest + 1, data) is None
