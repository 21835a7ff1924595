"""The firmware that MLPerf Tiny's runner drives, driven as the runner does: its commands, its lines, its arithmetic.

What is sent and expected here is what benchmark/runner of mlcommons/tiny sends and looks for.
"""

import re
import time

import numpy as np
import pytest
from click.testing import CliRunner

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.mcu.emulator import MachineEmulator
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.mlperf_tiny import benchmark_name, mlperf_source
from thumbnet.runtime_tests.mcu.transport import TransportTimeoutError
from thumbnet.targets.registry import get_board
from thumbnet.tools.cli import thumbnet

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")]

#: Bytes of a line of data.
LINE_BYTES = 31
SCALE = 0.05  # of the stand-in's output
PIXELS_MINUS_128 = {"mean": [128 / 255] * 3, "std": [1 / 255] * 3}


class Runner:
    """The runner's end of the line."""

    def __init__(self, transport):
        self._transport, self._heard = transport, b""

    def _read_line(self):
        while b"\n" not in self._heard:
            try:
                self._heard += self._transport.read(4096, 60)
            except TransportTimeoutError as error:
                raise AssertionError(f"no line after {self._heard}") from error
        line, self._heard = self._heard.split(b"\n", 1)
        assert line.endswith(b"\r")
        return line.decode("ascii").strip("\r\0")

    def until_ready(self):
        lines = []
        while "m-ready" not in lines:
            lines.append(self._read_line())
        return lines[:-1]

    def send(self, command):
        self._transport.write(f"{command}%".encode(), 60)
        return self.until_ready()

    def load(self, data):
        assert self.send(f"db load {len(data)}") == [f"m-[Expecting {len(data)} bytes]"]
        parts = [data[at : at + LINE_BYTES] for at in range(0, len(data), LINE_BYTES)]
        answers = [self.send(f"db {part.hex()}") for part in parts]
        assert answers == [*[[]] * (len(parts) - 1), ["m-load-done"]]

    def infer(self, command):
        """Return the two times in microseconds, the results, and all that was said."""
        lines = self.send(command)
        results = [match for match in (re.match(r"^m-results-\[([^]]+)\]$", line) for line in lines) if match]
        laps = [int(match[1]) for match in (re.match(r"^m-lap-us-([0-9]+)$", line) for line in lines) if match]
        return laps, [float(value) for value in results[0][1].split(",")], lines


@pytest.fixture
def start(stand_in, tmp_path):
    emulators = []

    def start(name, **manifest):
        board = get_board(name)
        artifact = stand_in.write_artifact(tmp_path / "a", preprocessing=PIXELS_MINUS_128, **manifest)
        image = build_firmware(artifact, board, protocol="mlperf-tiny")
        assert image.firmware_stack.bytes is not None and image.firmware_stack.path[:2] == ("start", "serve_loop")
        emulators.append(MachineEmulator(board.qemu, image.elf))
        return Runner(emulators[-1].transport)

    yield start
    for emulator in emulators:
        emulator.close()


def softmax(logits):
    powers = np.exp(SCALE * (logits.astype(np.float64) - logits.max()))
    return powers / powers.sum()


@pytest.mark.parametrize("name", ["mps2_an386", "netduinoplus2", "mps2_an505", "mps3_an547"])
def test_the_runner_drives_it_in_both_modes(name, start, stand_in):
    runner = start(name)
    booted = runner.until_ready()
    assert (booted[0], booted[2:]) == ("m-timestamp-mode-performance", ["m-init-done"])
    assert re.fullmatch(r"m-lap-us-\d+", booted[1])
    assert runner.send("name") == [f"m-name-dut-[{name}]"]
    assert runner.send("profile") == ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", "m-model-[tiny]"]
    for image in stand_in.make_images(3):  # accuracy
        runner.load((image.astype(np.int16) + 128).astype(np.uint8).tobytes())
        _, results, lines = runner.infer("infer 1 0")
        assert results == pytest.approx(softmax(stand_in.compute_pool(image)), abs=2e-6)
        assert runner.send("results") == [lines[-1]]
    laps, again, lines = runner.infer("infer 20 3")  # performance: of the last input, which each run overwrites
    assert again == results
    assert [line for line in lines if "lap" not in line and "results" not in line] == [
        *("m-warmup-start-3", "m-warmup-done", "m-infer-start-20", "m-infer-done")
    ]
    assert laps[1] >= laps[0]
    assert "m-warmup-start-10" in runner.infer("infer 1")[2]


def test_times_are_microseconds(start, stand_in):
    runner = start("mps2_an386")
    runner.until_ready()
    runner.load(bytes(48))
    # Emulated without a count of instructions, the board's clock is this computer's.
    before = time.monotonic()
    [first] = runner.send("timestamp")
    time.sleep(0.5)
    [second] = runner.send("timestamp")
    most_s = time.monotonic() - before
    laps, _, _ = runner.infer("infer 2000 0")
    assert 0.49e6 < int(second.split("-")[-1]) - int(first.split("-")[-1]) < most_s * 1e6
    assert 0 < laps[1] - laps[0] < (time.monotonic() - before) * 1e6


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("reboot", "e-[Unknown command: reboot]"),
        ("", "e-[Unknown command: ]"),
        ("x" * 300, "e-[Unknown command: ]"),
        ("db " + "00" * 63, "e-[Unknown command: ]"),
        ("results", "e-[Unknown command: results]"),
        ("infer 1 0", "e-[No input is loaded]"),
        ("infer 0 0", "e-[infer takes how many, and how many before]"),
        ("infer 1 0 0", "e-[infer takes how many, and how many before]"),
        ("infer 99999999999 0", "e-[infer takes how many, and how many before]"),
        ("db load 47", "e-[The network takes 48 bytes]"),
        ("db load 48x", "e-[The network takes 48 bytes]"),
        ("db 0", "e-[Not a byte in hexadecimal]"),
        ("db 0g", "e-[Not a byte in hexadecimal]"),
        ("db " + "00" * 49, "e-[More bytes than were announced]"),
    ],
)
def test_what_it_cant_do_is_one_line(command, says, start):
    runner = start("mps2_an386")
    runner.until_ready()
    assert runner.send(command) == [says]
    assert runner.send("name") == ["m-name-dut-[mps2_an386]"]


def test_the_command_writes_a_firmware_for_the_runner(stand_in, tmp_path):
    artifact = stand_in.write_artifact(tmp_path / "a", preprocessing=PIXELS_MINUS_128)
    words = [artifact.folder, "--device", "qemu_mps2_an386", "--only-build", "--protocol", "mlperf-tiny"]
    words += ["-o", tmp_path / "out"]
    done = CliRunner().invoke(thumbnet, ["flash", *map(str, words)], standalone_mode=False)
    assert done.exception is None, done.exception
    emulator = MachineEmulator("mps2-an386", tmp_path / "out" / "tiny.elf")
    try:
        assert Runner(emulator.transport).until_ready()[-1] == "m-init-done"
    finally:
        emulator.close()


def test_a_fault_is_told_whatever_is_asked(start, stand_in, tmp_path):
    layers = stand_in.LAYERS.replace("    for (int c = 0", "    __builtin_trap();\n    for (int c = 0")
    runner = start("mps2_an386", layers=layers)
    runner.until_ready()
    runner.load(bytes(48))
    assert runner.send("infer 1 0")[-1].startswith("e-[The core faulted at 0x000")
    assert runner.send("name")[0].endswith("CFSR 0x00010000]")


def test_tasks_are_known_by_their_shapes_and_pixels_by_the_preprocessing(stand_in, tmp_path):
    artifact = stand_in.write_artifact(
        tmp_path / "a",
        input={"shape": [4, 4, 3], "dtype": "int8", "scale": 1 / 64, "zero_point": 3},
        preprocessing={"mean": [0.485, 0.5, 0.25], "std": [0.229, 0.5, 1.0]},
    )
    assert benchmark_name(artifact) == "tiny"
    shapes = {**artifact.manifest, "input": {"shape": [96, 96, 3]}, "output": {"shape": [2]}}
    assert benchmark_name(Artifact(artifact.folder, shapes)) == "vww01"
    rows = re.findall(r"\{([-\d,]+)\}", mlperf_source(artifact))
    taken = np.array([row.split(",") for row in rows], int)
    pixels = np.arange(256) / 255
    expected = [(pixels - 0.485) / 0.229, (pixels - 0.5) / 0.5, pixels - 0.25]
    assert taken.tolist() == [np.clip(np.floor(64 * row + 0.5) + 3, -128, 127).tolist() for row in expected]
