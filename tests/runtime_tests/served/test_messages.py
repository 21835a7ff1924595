"""What a served session is asked and answers, as bytes."""

import pytest

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.errors import (
    ArenaOverrunError,
    ClockError,
    DeviceUnreachableError,
    ProtocolError,
    SessionError,
)
from thumbnet.runtime_tests.served.messages import pack_answer, pack_error, unpack_answer
from thumbnet.runtime_tests.session import CheckedClock, LayerCost, Measurement


def test_errors_stay_what_they_are():
    overrun = ArenaOverrunError("wrote beyond", behind=True, reach_bytes=7, stage=3)
    for error in (overrun, ToolchainError("gcc failed"), DeviceUnreachableError("gone"), ClockError("off")):
        with pytest.raises(type(error), match=str(error)) as caught:
            unpack_answer("run", pack_error(error))
        assert vars(caught.value) == vars(error)
    with pytest.raises(SessionError, match="ZeroDivisionError: not foreseen"):
        unpack_answer("run", pack_error(ZeroDivisionError("not foreseen")))


def test_answers_are_checked():
    measured = Measurement("cycles", (1.0, 2.5), error=0.5, warm_ups=3, clock=CheckedClock(1000, 0.01, 0.002, 0.5))
    assert unpack_answer("measure", pack_answer("measure", measured, {})) == (measured, {})
    costs = [LayerCost("a", "instructions", 3.0), LayerCost("b", "instructions", 4.0)]
    assert unpack_answer("profile", pack_answer("profile", costs, {})) == (costs, {})
    whole = pack_answer("profile", costs, {})
    for damaged in (b"", b"x", whole[:-1], whole[: len(whole) // 2], pack_answer("run", None, {})):
        with pytest.raises(ProtocolError):
            unpack_answer("profile", damaged)
