"""What ticks are believed."""

import pytest

from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.runtime_tests.mcu.board_timer import BoardTimer

SECONDS = BoardTimer("seconds on the board", 1000, 3)


def test_ticks_become_the_unit_of_their_kind():
    assert SECONDS.convert(103, call_s=0.2) == pytest.approx(0.1)
    assert SECONDS.error == 0.002
    assert BoardTimer("cycles", 1000, 3).convert(103, call_s=0.2) == 100
    # An emulator's time has nothing to do with ours.
    assert BoardTimer("instructions", 25_000_000, 3).convert(103, call_s=0.0) == 4000


@pytest.mark.parametrize(
    ("timer", "ticks", "call_s", "message"),
    [
        (
            SECONDS,
            3,
            0.2,
            "counted 3 ticks in a run and 3 in an empty call: it stands still, or 1000 Hz are too coarse",
        ),
        (SECONDS, 0, 0.2, "counted 0 ticks in a run and 3 in an empty call"),
        (BoardTimer("cycles", 1000, 0), 0, 0.2, "counted 0 ticks"),
        (BoardTimer("instructions", 1000, 0), 0, 0.2, "counted 0 ticks"),
        (
            SECONDS,
            2**32 - 100,
            0.2,
            r"counted 4294967\.196000 s in a call of 0\.200000 s: it doesn't count up at 1000 Hz",
        ),
        (SECONDS, 300, 0.2, "it doesn't count up"),
        (BoardTimer("cycles", 10**9, 3), 7, 5.0, r"run took up to 5\.0 s, .* starts again after 4\.3 s: its 7 ticks"),
    ],
)
def test_ticks_that_can_not_be_are_refused(timer, ticks, call_s, message):
    with pytest.raises(DeviceFaultError, match=message):
        timer.convert(ticks, call_s)
    with pytest.raises(DeviceFaultError):
        timer.convert_layers([0, ticks, 0], call_s)


def test_single_layers_may_be_too_short_for_the_timer():
    assert SECONDS.convert_layers([2, 13, 3, 4], call_s=0.2) == pytest.approx([0, 0.010, 0, 0.001])
    with pytest.raises(DeviceFaultError, match="counted 3 ticks in a run and 3 in an empty call"):
        SECONDS.convert_layers([3, 3, 2], call_s=0.2)
    # Each layer is shorter than the call, all together are not.
    with pytest.raises(DeviceFaultError, match="it doesn't count up"):
        SECONDS.convert_layers([100, 100, 100], call_s=0.2)
