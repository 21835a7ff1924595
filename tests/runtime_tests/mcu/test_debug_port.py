"""The debug port, whose other end is silent, late or talks nonsense."""

import contextlib
import socket
import threading
import time

import pytest

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.mcu.debug_port import DebugPort, _packet

STOPPED = b"$T02#b2"


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_silent_stub_ends_at_the_deadline_and_a_late_answer_is_not_taken(ends):
    ours, theirs = ends
    port = DebugPort(ours, timeout_s=0.2)
    theirs.sendall(STOPPED + b"+")
    with pytest.raises(DeviceUnreachableError, match="debug port"):
        port.read_memory(0, 2)
    with contextlib.suppress(BrokenPipeError):
        theirs.sendall(_packet("abcd"))
    for _ in range(2):
        with pytest.raises(DeviceUnreachableError, match="debug port broke"):
            port.read_memory(4, 2)


def test_a_stub_that_trickles_ends_at_the_deadline(ends):
    ours, theirs = ends
    stop = threading.Event()

    def trickle():
        with contextlib.suppress(OSError):
            while not stop.wait(0.02):
                theirs.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    try:
        with pytest.raises(DeviceUnreachableError, match="debug port"):
            DebugPort(ours, timeout_s=0.3).read_memory(0, 2)
    finally:
        stop.set()
        thread.join()
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("answer", [b"$zzzz#00", b"zzzz#00", b"$\xff\xff\xff\xff#00", b"$E01#a6", b"$#00", b"-"])
def test_nonsense_is_an_error_of_ours(ends, answer):
    ours, theirs = ends
    theirs.sendall(STOPPED + b"+" + answer)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(DeviceUnreachableError):
        DebugPort(ours, timeout_s=60).read_memory(0, 2)
