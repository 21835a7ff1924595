"""The firmware's protocol code on this computer, under the address and undefined-behaviour sanitizers."""

import os
import shutil
import socket
import struct
import subprocess
import time
import tty
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thumbnet.runtime_tests.errors import DeviceFaultError, DeviceUnreachableError, ProtocolError
from thumbnet.runtime_tests.mcu import firmware_build
from thumbnet.runtime_tests.mcu.framing import FrameReader, decode_frame, encode_frame
from thumbnet.runtime_tests.mcu.protocol import Command, ProtocolClient, Reply
from thumbnet.runtime_tests.mcu.serial_transport import SerialTransport
from thumbnet.runtime_tests.mcu.transport import LoggingTransport, SocketTransport, TransportTimeoutError

FIRMWARE = firmware_build.FIRMWARE
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
DEFINITIONS = ("-DMODEL=tiny", "-DMODEL_UPPER=TINY", '-DMODEL_HEADER="tiny.h"', "-DMODEL_HASH=abc", "-DBOARD=host")


@pytest.fixture(scope="module")
def program(tiny, tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("host")
    (folder / "golden.c").write_text(firmware_build._golden_source(tiny))
    sources = [FIRMWARE / "rpc.c", FIRMWARE / "frame.c", Path(__file__).with_name("port_host.c"), folder / "golden.c"]
    command = ["gcc", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZERS, *DEFINITIONS]
    command += ["-I", str(FIRMWARE), "-I", str(tiny.folder), *map(str, [*sources, *tiny.folder.glob("*.c")])]
    subprocess.run([*command, "-o", str(folder / "program")], check=True)
    return folder / "program"


@pytest.fixture
def line(program):
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([program], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
    theirs.close()
    transport = SocketTransport(ours, "host program")
    transport.open()
    yield transport
    transport.close()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 0, errors.decode()


@pytest.fixture
def client(line):
    return ProtocolClient(line, reply_timeout_s=5)


def test_a_whole_session(client, stand_in):
    identity = client.identify()
    assert (identity.model, identity.model_hash, identity.board, identity.tick_hz) == ("tiny", "abc", "host", 1000)
    for image in stand_in.make_images(3):
        client.write_input(image.tobytes(), 7)
        assert client.run() == (10, 64)
        assert client.read_output(3, 2) == stand_in.compute_pool(image).tobytes()
    client.write_input(image.tobytes(), 48)
    size, _ = client.run_layer(0)
    assert client.read_layer(0, size, 11) == stand_in.compute_scale(image).tobytes()
    client.write_input(image.tobytes(), 48)
    assert client.profile(2) == [10, 10]
    assert client.self_test().mismatch is None


def test_a_run_needs_a_fresh_input(client, stand_in):
    image = stand_in.make_images(1)[0].tobytes()
    with pytest.raises(DeviceFaultError, match="needs its input written first"):
        client.run()
    client.write_input(image, 48)
    client.run()
    with pytest.raises(DeviceFaultError, match="needs its input written first"):
        client.run()
    client.write_input(image, 48)
    with pytest.raises(DeviceFaultError, match="needs its input written first"):
        client.run_layer(1)


@pytest.mark.parametrize(
    ("command", "arguments", "status"),
    [
        (200, b"", Reply.UNKNOWN),
        (Command.RUN, b"x", Reply.BAD_LENGTH),
        (Command.WRITE_INPUT, b"abc", Reply.BAD_LENGTH),
        (Command.WRITE_INPUT, struct.pack("<I", 40) + bytes(9), Reply.BAD_RANGE),
        (Command.WRITE_INPUT, struct.pack("<I", 0xFFFFFFF0) + bytes(32), Reply.BAD_RANGE),
        (Command.WRITE_INPUT, struct.pack("<I", 7) + bytes(1), Reply.BAD_RANGE),
        (Command.READ_OUTPUT, struct.pack("<2I", 2, 2), Reply.BAD_RANGE),
        (Command.READ_OUTPUT, struct.pack("<2I", 0xFFFFFFFF, 2), Reply.BAD_RANGE),
        (Command.RUN_LAYER, struct.pack("<I", 2), Reply.BAD_RANGE),
        (Command.READ_LAYER, struct.pack("<3I", 2, 0, 1), Reply.BAD_RANGE),
        (Command.PROFILE, struct.pack("<I", 3), Reply.BAD_RANGE),
        (Command.INPUT_PLACED, struct.pack("<I", 1), Reply.BAD_CRC),
    ],
)
def test_bad_requests_are_refused(line, command, arguments, status):
    line.write(encode_frame(bytes([9, command]) + arguments))
    frames = FrameReader()
    replies = []
    while not replies or decode_frame(replies[-1])[2] == Reply.ACCEPTED:
        replies += frames.take(line.read(4096, 5))
    assert decode_frame(replies[-1]) == bytes([9, command, status])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=1100) | st.binary(min_size=2, max_size=16).map(encode_frame), max_size=6))
def test_survives_any_noise(program, noise):
    data = b"".join(noise) + b"\0" + encode_frame(bytes([250, Command.CALIBRATE]))
    # Not even a repetition of the last sequence number may be answered wrongly: 251 is asked first.
    data = encode_frame(bytes([251, Command.CALIBRATE])) + data
    done = subprocess.run([program], input=data, capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr.decode()
    frames = FrameReader().take(done.stdout)
    assert decode_frame(frames[-1])[0] == 250


class LossyTransport(SocketTransport):
    """Damages the first attempt of every request, loses half of the second, damages the replies to the third."""

    def __init__(self, inner):
        self.inner, self.attempt, self.last = inner, 0, None

    def write(self, data):
        self.attempt = self.attempt + 1 if data == self.last else 1
        self.last = data
        if self.attempt == 1:
            data = data[:-2] + bytes([data[-2] ^ 0x40 or 1]) + data[-1:]
        elif self.attempt == 2:
            data = data[: len(data) // 2]
        self.inner.write(data)

    def read(self, n, timeout_s):
        if self.attempt == 3:
            time.sleep(0.02)  # so that ACCEPTED and the reply behind it are both there
        data = self.inner.read(n, timeout_s)
        return data[:-2] + bytes([data[-2] ^ 1 or 2]) + data[-1:] if self.attempt == 3 else data


def test_a_repeated_request_is_not_run_twice(line, stand_in):
    client = ProtocolClient(LossyTransport(line), reply_timeout_s=0.2, attempts=5)
    for image in stand_in.make_images(2):
        client.write_input(image.tobytes(), 16)
        client.run()  # a second run in the overwritten input would be refused
        assert client.read_output(3, 3) == stand_in.compute_pool(image).tobytes()


class DeadLine(SocketTransport):
    def __init__(self, answer=b""):
        self.answer, self.writes = answer, 0

    def write(self, data):
        self.writes += 1

    def read(self, n, timeout_s):
        if not self.answer:
            raise TransportTimeoutError("silence")
        return self.answer


def test_gives_up_in_the_end():
    line = DeadLine()
    with pytest.raises(DeviceUnreachableError, match="did not answer IDENTIFY") as caught:
        ProtocolClient(line, reply_timeout_s=0.01, attempts=3).identify()
    assert line.writes == 3 and "\n" not in str(caught.value)
    with pytest.raises(ProtocolError, match="damaged 3 times of 3; check the cable"):
        ProtocolClient(DeadLine(b"\x05abcd\0"), reply_timeout_s=0.1, attempts=3).identify()


def test_speaks_over_a_serial_port(program, stand_in):
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    process = subprocess.Popen([program], stdin=master, stdout=master)
    os.close(master)
    transport = SerialTransport(os.ttyname(slave), 115200)
    try:
        transport.open()
        client = ProtocolClient(transport, reply_timeout_s=5)
        image = stand_in.make_images(1)[0]
        assert client.identify().model == "tiny"
        client.write_input(image.tobytes(), 48)
        client.run()
        assert np.frombuffer(client.read_output(3, 3), np.int8).tolist() == stand_in.compute_pool(image).tolist()
        with pytest.raises(TransportTimeoutError):
            transport.read(1, 0.01)
    finally:
        transport.close()
        os.close(slave)
        process.wait(timeout=10)
    with pytest.raises(DeviceUnreachableError, match="is not open"):
        transport.read(1, 0.01)


def test_a_missing_port_is_told():
    with pytest.raises(DeviceUnreachableError, match="/dev/none: can't be opened"):
        SerialTransport("/dev/none", 115200).open()


def test_the_log_shows_both_directions(line, tmp_path):
    path = tmp_path / "line.log"
    with path.open("w") as log:
        transport = LoggingTransport(line, log)
        transport.open()
        ProtocolClient(transport).calibrate()
        with pytest.raises(TransportTimeoutError):
            transport.read(1, 0.01)
    kinds = [text[0] for text in path.read_text().splitlines()]
    assert kinds[:2] == ["o", ">"] and "<" in kinds and kinds[-1] == "!"
