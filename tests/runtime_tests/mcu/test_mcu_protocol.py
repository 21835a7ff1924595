"""The calls of the firmware, which runs as a program of this computer under sanitizers."""

import contextlib
import os
import struct
import subprocess
import tty
from dataclasses import replace

import pytest

from thumbnet.runtime_tests.errors import DeviceFaultError, DeviceUnreachableError
from thumbnet.runtime_tests.mcu.exchange import HEADER, VERSION, Command, Reply
from thumbnet.runtime_tests.mcu.framing import FrameReader, decode_frame, encode_frame
from thumbnet.runtime_tests.mcu.protocol import ProtocolClient
from thumbnet.runtime_tests.mcu.serial_transport import SerialTransport
from thumbnet.runtime_tests.mcu.transport import LoggingTransport, TransportTimeoutError


@pytest.fixture
def client(make_line):
    line = make_line()
    client = ProtocolClient(line, clock=line.clock)
    client.open()
    return client


def in_pieces(client, chunk):
    client._identity = replace(client.identity, chunk=chunk)
    return client


def test_a_whole_session(client, stand_in):
    identity = client.identity
    assert (identity.model, identity.model_hash, identity.board, identity.tick_hz) == ("tiny", "abc", "host", 1000)
    assert identity.missing == "crystal, and more than there is "
    for image in stand_in.make_images(3):
        in_pieces(client, 7).write_input(image.tobytes())
        run = client.run()
        assert (run.ticks, run.stack_bytes, run.output_bytes) == (10, 64, 3)
        assert in_pieces(client, 2).read_output(run) == stand_in.compute_pool(image).tobytes()
    client.write_input(image.tobytes())
    assert in_pieces(client, 11).read_output(client.run_layer(0, 48)) == stand_in.compute_scale(image).tobytes()
    client.write_input(image.tobytes())
    assert in_pieces(client, 4).profile() == [10, 10]
    assert client.self_test().mismatch is None


def test_a_run_needs_a_fresh_input(client, stand_in):
    image = stand_in.make_images(1)[0].tobytes()
    with pytest.raises(DeviceFaultError, match="needs its input written first"):
        client.run()
    client.write_input(image)
    client.run()
    with pytest.raises(DeviceFaultError, match="needs its input written first"):
        client.run()
    client.write_input(image)
    with pytest.raises(DeviceFaultError, match="needs its input written first"):
        client.run_layer(1, 3)


def test_an_output_is_read_only_while_it_is_there(client, stand_in):
    image = stand_in.make_images(1)[0].tobytes()

    def place_another():
        with pytest.raises(DeviceFaultError, match="not the one sent"):
            client.confirm_input(b"another")

    ways_to_lose_it = [
        lambda: client.write_input(image),
        lambda: client.write_input(image[:5]),
        client.self_test,
        lambda: (client.write_input(image), client.profile()),
        lambda: (client.write_input(image), client.run_layer(0, 48)),
        lambda: (client.write_input(image), client.run()),
        place_another,
        client.open,
    ]
    for lose in ways_to_lose_it:
        client.write_input(image)
        run = client.run()
        client.read_output(run)
        client.calibrate()
        client.read_output(run)
        lose()
        with pytest.raises(DeviceFaultError, match="READ_OUTPUT failed on the board: that output is no more"):
            client.read_output(run)
    with pytest.raises(DeviceFaultError, match="that output is no more"):
        client.read_output(replace(run, sequence=0))


def test_an_output_that_is_not_the_runs_is_told(client, stand_in):
    client.write_input(stand_in.make_images(1)[0].tobytes())
    run = client.run()
    with pytest.raises(DeviceFaultError, match=r"the output read has CRC .*, the run left .*; run it again"):
        client.read_output(replace(run, output_crc=run.output_crc ^ 1))


@pytest.mark.parametrize(
    ("command", "arguments", "status"),
    [
        (200, b"", Reply.UNKNOWN),
        (Command.RUN, b"x", Reply.BAD_LENGTH),
        (Command.OPEN, b"x", Reply.BAD_LENGTH),
        (Command.WRITE_INPUT, b"abc", Reply.BAD_LENGTH),
        (Command.WRITE_INPUT, struct.pack("<I", 40) + bytes(9), Reply.BAD_RANGE),
        (Command.WRITE_INPUT, struct.pack("<I", 0xFFFFFFF0) + bytes(32), Reply.BAD_RANGE),
        (Command.WRITE_INPUT, struct.pack("<I", 7) + bytes(1), Reply.BAD_RANGE),
        (Command.READ_OUTPUT, struct.pack("<3I", 4, 2, 2), Reply.BAD_RANGE),
        (Command.READ_OUTPUT, struct.pack("<3I", 4, 0xFFFFFFFF, 2), Reply.BAD_RANGE),
        (Command.READ_OUTPUT, struct.pack("<3I", 4, 2, 0xFFFFFFFF), Reply.BAD_RANGE),
        (Command.READ_OUTPUT, struct.pack("<3I", 3, 0, 1), Reply.NO_OUTPUT),
        (Command.RUN_LAYER, struct.pack("<I", 2), Reply.BAD_RANGE),
        (Command.INPUT_PLACED, struct.pack("<I", 1), Reply.BAD_CRC),
    ],
)
def test_bad_requests_are_refused(make_line, stand_in, command, arguments, status):
    line = make_line()
    client = ProtocolClient(line, clock=line.clock)
    client.open()
    client.write_input(stand_in.make_images(1)[0].tobytes())
    client.calibrate()
    assert client.run().sequence == 4
    header = HEADER.pack(VERSION, command, client._exchange._session, 5)
    assert ask(line, header + arguments)[-1] == header + bytes([status])


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ((VERSION, Command.CALIBRATE, 7, 2), Reply.OK),
        ((VERSION, Command.CALIBRATE, 8, 2), Reply.NO_SESSION),
        ((VERSION, Command.CALIBRATE, 0, 2), Reply.NO_SESSION),
        ((VERSION, Command.OPEN, 0, 2), Reply.NO_SESSION),
        ((VERSION + 1, Command.CALIBRATE, 7, 2), Reply.BAD_VERSION),
        ((VERSION, Command.CALIBRATE, 7, 1), None),
        ((VERSION, Command.CALIBRATE, 7, 0), None),
    ],
)
def test_a_request_outside_the_session_changes_nothing(make_line, header, status):
    line = make_line()
    ask(line, HEADER.pack(VERSION, Command.OPEN, 7, 1))
    replies = ask(line, HEADER.pack(*header))
    assert [reply[HEADER.size] for reply in replies] == ([] if status is None else [status])
    header = HEADER.pack(VERSION, Command.CALIBRATE, 7, 9)
    assert ask(line, header)[0][: HEADER.size + 1] == header + bytes([Reply.OK])


def test_noise_at_the_host_is_ended_by_the_reply_behind_it(make_line):
    line = make_line()
    line.write(encode_frame(HEADER.pack(VERSION, Command.OPEN, 7, 1)), 1)
    reader = FrameReader()
    reader.take(b"\x09noise")
    _, answer = reader.take(line.read(4096, 1))
    assert decode_frame(answer)[HEADER.size] == Reply.OK


def ask(line, payload):
    line.write(encode_frame(payload), 1)
    replies = b""
    with contextlib.suppress(TransportTimeoutError):
        while True:
            replies += line.read(4096, 1)
    return [decode_frame(frame) for frame in FrameReader().take(replies)]


def test_speaks_over_a_serial_port(host_program, stand_in):
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    process = subprocess.Popen([host_program], stdin=master, stdout=master)
    os.close(master)
    transport = SerialTransport(os.ttyname(slave), 115200)
    try:
        transport.open()
        client = ProtocolClient(transport, reply_timeout_s=60)
        image = stand_in.make_images(1)[0]
        assert client.open().model == "tiny"
        client.write_input(image.tobytes())
        assert client.read_output(client.run()) == stand_in.compute_pool(image).tobytes()
        with pytest.raises(TransportTimeoutError):
            transport.read(1, 0.01)
    finally:
        transport.close()
        os.close(slave)
        process.kill()
        process.wait()
    with pytest.raises(DeviceUnreachableError, match="is not open"):
        transport.read(1, 0.01)


def test_a_missing_port_is_told():
    with pytest.raises(DeviceUnreachableError, match="/dev/none: can't be opened"):
        SerialTransport("/dev/none", 115200).open()


def test_the_log_shows_both_directions(make_line, tmp_path):
    line, path = make_line(), tmp_path / "line.log"
    with path.open("w") as log:
        transport = LoggingTransport(line, log)
        transport.open()
        ProtocolClient(transport, clock=line.clock).open()
        with pytest.raises(TransportTimeoutError):
            transport.read(1, 0.01)
    kinds = [text[0] for text in path.read_text().splitlines()]
    assert kinds[:2] == ["o", ">"] and "<" in kinds and kinds[-1] == "!"
