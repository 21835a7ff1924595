"""What is shown of long steps: plain lines where there is no terminal, a line that changes on one, nothing of short."""

import contextlib
import io
import os
import pty
import re
import threading
from dataclasses import replace

import pytest

from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import ToolchainError
from thumbnet.models.weights import BUNDLED_FOLDER
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import make_request
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.progress import show_steps

FILES = NetworkFiles("mobilenet_v1_0.25_digits", calibration=BUNDLED_FOLDER / "calibration", calibration_limit=3)


class _Lines(io.StringIO):
    """A pipe that says when a line with some words has come through it."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def expect(self, words):
        return self.seen.setdefault(words, threading.Event())

    def write(self, text):
        for words, event in self.seen.items():
            if words in text:
                event.set()
        return super().write(text)


def test_lines_say_the_step_and_its_time_where_there_is_no_terminal():
    stream = _Lines()
    with show_steps("compiling it", stream=stream, line_every_s=0.01) as shown:
        for doing in ("planning", "linking"):
            told = stream.expect(doing)
            shown.step(doing)
            assert told.wait(60)
    lines = stream.getvalue().splitlines()
    assert all(re.fullmatch(r"thumbnet: compiling it(: \w+)? \(\d+ s\)", line) for line in lines), lines
    printed = len(lines)
    threading.Event().wait(0.05)
    assert len(stream.getvalue().splitlines()) == printed, "nothing comes after the end"


def test_lines_count_what_is_done():
    stream = _Lines()
    told = stream.expect("it: running images, 3 of 7 done (")
    with show_steps("it", 7, stream=stream, line_every_s=0.01) as shown:
        shown.step("running images")
        shown.advance()
        shown.advance(2)
        assert told.wait(60)


def test_short_steps_say_nothing():
    stream = io.StringIO()
    with show_steps("it", 3, stream=stream) as shown:
        shown.step("a moment")
    assert stream.getvalue() == ""


def test_a_reader_that_has_gone_stops_nothing():
    tried = threading.Event()

    class Closed(io.StringIO):
        def write(self, _):
            tried.set()
            raise BrokenPipeError

    with show_steps("it", stream=Closed(), line_every_s=0.01) as shown:
        shown.step("working")
        assert tried.wait(60)


def test_an_error_passes_and_ends_the_lines():
    stream = _Lines()
    with pytest.raises(KeyError), show_steps("it", stream=stream, line_every_s=0.01):
        assert stream.expect("it").wait(60)
        raise KeyError
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_terminal_shows_the_step_with_a_clock():
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, show_steps("compiling [it]", stream=stream) as display:
        display.step("planning")
        display._progress.refresh()
    seen = b""
    with os.fdopen(master, "rb", buffering=0) as reader, contextlib.suppress(OSError):  # the end of a terminal
        while part := reader.read(1 << 16):
            seen += part
    assert "compiling [it]: planning" in seen.decode()
    assert "0:00:0" in seen.decode()


@pytest.mark.parametrize(
    ("board", "quantize", "expected"),
    [
        (
            "mps2_an386",
            "int8",
            ("calibrating on image 3 of 3", "quantizing", "planning", "C sources", "layers.c for cortex-m4", "golden"),
        ),
        ("raspberry_pi_4", "int8", ("calibrating on image 1 of 3", "planning", "layers.c for cortex-a72", "linking")),
        ("raspberry_pi_4", "none", ("TVM", "planning", "weights.c for cortex-a72", "linking")),
        ("host", "int8", ("golden", "compiling mobilenet_v1_0_25_digits.so with TVM")),
    ],
)
@pytest.mark.needs_tools("gcc", "arm-none-eabi-gcc", "aarch64-linux-gnu-gcc")
def test_the_compiler_says_each_step_before_it(tmp_path, board, quantize, expected):
    said = []
    made = make_request(FILES, get_board(board))
    options = replace(made.options, quantize=quantize)
    compile_model(replace(made, options=options, progress=said.append), tmp_path / "artifact")
    for words in expected:
        assert any(words in step for step in said), (words, said)
    assert len(said) == len(set(said)), "no step twice"


@pytest.mark.parametrize("quantize", ["int8", "none"])
def test_a_missing_compiler_is_told_before_the_work(monkeypatch, tmp_path, quantize):
    said = []
    made = make_request(FILES, get_board("raspberry_pi_4"))
    monkeypatch.setenv("PATH", str(tmp_path))
    request = replace(made, options=replace(made.options, quantize=quantize), progress=said.append)
    with pytest.raises(ToolchainError, match="apt install gcc-aarch64-linux-gnu"):
        compile_model(request, tmp_path / "artifact")
    assert not said and not list(tmp_path.iterdir())
