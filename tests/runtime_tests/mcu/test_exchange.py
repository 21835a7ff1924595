"""A call's deadline, and what it makes of whatever arrives; in the time of the line, not of this computer."""

import random
import struct
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thumbnet.runtime_tests.errors import DeviceFaultError, DeviceUnreachableError, ProtocolError
from thumbnet.runtime_tests.mcu.exchange import HEADER, LONG_CALLS, VERSION, Command, Reply
from thumbnet.runtime_tests.mcu.framing import END, decode_frame, encode_frame
from thumbnet.runtime_tests.mcu.protocol import NONE, Identity, ProtocolClient, Run
from thumbnet.runtime_tests.mcu.transport import Transport, TransportTimeoutError

REPLY_S, RUN_S, RESEND_S = 10.0, 60.0, 0.25
IDENTITY = Identity(16, 48, 3, 51, 2, 3, 1024, 1000, "timer", 0, "tiny", "abc", "host")


class Answers(Transport):
    """A line at whose other end a function says what arrives: from a request and its count, pieces with their delays.

    It has a clock of its own, which waiting moves.
    """

    def __init__(self, answer):
        self.answer, self.now, self.requests, self.due = answer, 0.0, [], []

    def clock(self):
        return self.now

    def open(self):
        pass

    def close(self):
        pass

    def write(self, data, timeout_s):
        assert timeout_s > 0
        self.requests.append(decode_frame(data))
        self.due += [(self.now + delay, piece) for delay, piece in self.answer(self.requests[-1], len(self.requests))]
        self.due.sort(key=lambda due: due[0])

    def read(self, n, timeout_s):
        if self.due and self.due[0][0] <= self.now + timeout_s:
            at, piece = self.due.pop(0)
            self.now = max(self.now, at)
            if piece[n:]:
                self.due.insert(0, (at, piece[n:]))
            return piece[:n]
        self.now += timeout_s
        raise TransportTimeoutError("silence")

    def client(self):
        client = ProtocolClient(self, REPLY_S, RUN_S, RESEND_S, self.clock)
        client._identity = IDENTITY
        return client


def reply(request, status, results=b"", header=None):
    return encode_frame((header or request[: HEADER.size]) + bytes([status]) + results)


RUN_RESULTS = struct.pack("<5I", 10, 64, 3, 0, 0)

# ---------------------------------------------------------------------- deadlines


def test_a_silent_board_is_asked_until_the_deadline():
    line = Answers(lambda request, count: [])
    with pytest.raises(DeviceUnreachableError, match="the board did not answer OPEN in 10 s; is the firmware on it"):
        line.client().open()
    assert line.now == pytest.approx(REPLY_S) and len(line.requests) == REPLY_S / RESEND_S
    assert len(set(line.requests)) == 1


def test_a_silent_board_is_not_waited_for_as_long_as_a_run_may_take():
    line = Answers(lambda request, count: [])
    with pytest.raises(DeviceUnreachableError, match="did not answer RUN in 10 s"):
        line.client().run()
    assert line.now == pytest.approx(REPLY_S)


@pytest.mark.parametrize("accepted_every_s", [None, 5.0])
def test_a_run_that_hangs_ends_at_its_deadline(accepted_every_s):
    def answer(request, count):
        times = [0.1] if accepted_every_s is None else [i * accepted_every_s for i in range(1000)]
        return [(time, reply(request, Reply.ACCEPTED)) for time in times] if count == 1 else []

    line = Answers(answer)
    with pytest.raises(DeviceFaultError, match="RUN began but did not end in 60 s; the firmware hangs"):
        line.client().run()
    assert line.now == pytest.approx(RUN_S)


@pytest.mark.parametrize("command", [c for c in Command if c not in LONG_CALLS])
@pytest.mark.parametrize("status", [Reply.ACCEPTED, Reply.ARENA_OVERRUN])
def test_a_short_call_can_not_be_accepted(command, status):
    line = Answers(lambda request, count: [(0, reply(request, status))])
    with pytest.raises(ProtocolError, match=f"{command.name}: {status.name}, which only calls that run"):
        line.client()._exchange.call(command)


def test_a_run_whose_accepted_was_damaged_is_waited_for():
    def answer(request, count):
        damaged = bytearray(reply(request, Reply.ACCEPTED))
        damaged[5] ^= 64
        return [(0.1, bytes(damaged)), (40, reply(request, Reply.OK, RUN_RESULTS))] if count == 1 else []

    assert Answers(answer).client().run().ticks == 10


NOISE = {
    "random": lambda: random.Random(1).randbytes(100),
    "zeros": lambda: bytes(6),
    "no zeros": lambda: b"boot " * 20,
    "a frame of another": lambda: encode_frame(bytes(30)),
    "an accepted run of another": lambda: encode_frame(HEADER.pack(VERSION, Command.RUN, 1, 1) + bytes([1])),
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize(("call", "limit_s"), [("calibrate", REPLY_S), ("run", RUN_S)])
def test_a_line_that_is_never_quiet_ends_at_the_deadline(noise, call, limit_s):
    line = Answers(lambda request, count: [(i * 0.01, NOISE[noise]()) for i in range(25)])
    with pytest.raises((ProtocolError, DeviceUnreachableError)):
        getattr(line.client(), call)()
    assert line.now == pytest.approx(limit_s, abs=0.02)
    assert len(line.requests) == pytest.approx(limit_s / RESEND_S, abs=1)


@pytest.mark.parametrize("noise", [*NOISE, "much"])
def test_noise_before_a_reply_costs_nothing(noise):
    data = random.Random(2).randbytes(20_000) if noise == "much" else NOISE[noise]()
    line = Answers(lambda request, count: [(0, data + reply(request, Reply.OK, struct.pack("<I", 5)))])
    for _ in range(500):
        assert line.client().calibrate() == 5
    assert line.now == 0


def test_a_line_that_takes_no_bytes_ends_at_the_deadline():
    class Stuck(Answers):
        def write(self, data, timeout_s):
            self.now += timeout_s
            raise TransportTimeoutError("takes no bytes")

    line = Stuck(None)
    with pytest.raises(DeviceUnreachableError, match="did not answer CALIBRATE in 10 s"):
        line.client().calibrate()
    assert line.now == pytest.approx(REPLY_S)


def test_a_byte_lost_in_a_runs_reply_costs_one_repetition(make_line, stand_in):
    image = stand_in.make_images(1)[0]
    line = make_line()
    client = ProtocolClient(line, REPLY_S, RUN_S, RESEND_S, line.clock)
    client.open()
    receive = line._receive
    for lost in range(60):
        client.write_input(image.tobytes())

        def lose(data, lost=lost):
            receive(data[:lost] + data[lost + 1 :])
            line._receive = receive

        line._receive = lose
        started = line.now
        assert client.read_output(client.run()) == stand_in.compute_pool(image).tobytes()
        assert line.now - started < 2 * RESEND_S


# ---------------------------------------------------------------------- whose reply it is


def test_a_reset_at_any_point_gives_the_right_answer_or_an_error(make_line, stand_in):
    image = stand_in.make_images(1)[0]
    expected = stand_in.compute_pool(image).tobytes()
    messages, told = None, set()
    for at in range(100):
        line = make_line(seed=at, reset_at=at)
        client = ProtocolClient(line, REPLY_S, RUN_S, RESEND_S, line.clock)
        client._identity = replace(IDENTITY, chunk=16)
        try:
            client.open()
            client._identity = replace(client.identity, chunk=16)
            client.write_input(image.tobytes())
            assert client.read_output(client.run()) == expected
        except DeviceFaultError as error:
            told.add(str(error))
        if line.messages < at:
            messages = at
            break
    assert messages is not None and messages > 8
    names = {"WRITE_INPUT", "RUN", "READ_OUTPUT"}
    assert told == {f"the board was reset during {name}, or opened by another program" for name in names}


def test_a_client_that_reconnects_is_never_given_the_reply_to_another(make_line):
    line = make_line()
    for calls in range(300):
        client = ProtocolClient(line, clock=line.clock)
        assert client.open().model == "tiny"
        for _ in range(calls % 3):
            client.calibrate()


def test_another_program_that_opens_the_board_is_told(make_line):
    line = make_line()
    first, second = (ProtocolClient(line, clock=line.clock) for _ in range(2))
    first.open()
    second.open()
    with pytest.raises(DeviceFaultError, match="was reset during CALIBRATE, or opened by another program"):
        first.calibrate()
    second.calibrate()


@pytest.mark.parametrize("field", range(4))
def test_only_a_reply_with_the_whole_header_is_the_calls(field):
    def answer(request, count):
        header = list(HEADER.unpack_from(request))
        header[field] ^= 1 << random.Random(count).randrange([8, 8, 32, 32][field])
        other = reply(request, Reply.OK, struct.pack("<I", 1), HEADER.pack(*header))
        return [(0, other), (0, reply(request, Reply.OK, struct.pack("<I", 2)))]

    line = Answers(answer)
    for _ in range(40):
        assert line.client().calibrate() == 2


@pytest.mark.parametrize("payload", [bytes([VERSION, 4, 1]), bytes([9, 1, 0]), bytes([2]) + bytes(40)])
def test_another_version_of_the_protocol_is_told(payload):
    line = Answers(lambda request, count: [(0, encode_frame(payload))])
    with pytest.raises(
        ProtocolError, match=rf"speaks (another version|version 2) of the protocol, thumbnet {VERSION}; flash"
    ):
        line.client().open()


# ---------------------------------------------------------------------- replies that make no sense

CALLS = {
    "open": lambda client: client.open(),
    "write_input": lambda client: client.write_input(bytes(48)),
    "confirm_input": lambda client: client.confirm_input(bytes(48)),
    "run": lambda client: client.run(),
    "run_layer": lambda client: client.run_layer(0, 48),
    "read_output": lambda client: client.read_output(Run(1, 1, 1, 48, 0, 0)),
    "profile": lambda client: client.profile(),
    "self_test": lambda client: client.self_test(),
    "calibrate": lambda client: client.calibrate(),
    "clock": lambda client: client.clock(),
}
WORDS = st.lists(st.sampled_from([0, 1, 2, 3, 8, 48, NONE]) | st.integers(0, NONE), max_size=8)
RESULTS = st.binary(max_size=1100) | WORDS.map(lambda words: struct.pack(f"<{len(words)}I", *words))
SENSELESS = st.lists(
    st.tuples(st.sampled_from([*Reply]) | st.integers(0, 255), RESULTS)  # of this call
    | RESULTS  # in a frame, of no call
    | st.binary(max_size=300).map(lambda data: END + data),  # in no frame
    max_size=4,
)


@settings(max_examples=500)
@given(st.sampled_from([*CALLS]), SENSELESS)
@example("self_test", [(Reply.OK, struct.pack("<3I", 3, 1, 3))])
@example("profile", [(Reply.FAULT, bytes(15))])
@example("run", [(Reply.ARENA_OVERRUN, struct.pack("<3I", 2, 1, NONE))])
def test_replies_that_make_no_sense_give_our_errors_before_the_deadline(call, answers):
    def answer(request, count):
        pieces = []
        for one in answers if count == 1 else []:
            if isinstance(one, tuple):
                pieces.append(reply(request, *one))
            else:
                pieces.append(one if one[:1] == END else encode_frame(one))
        return [(0.01, piece) for piece in pieces]

    line = Answers(answer)
    try:
        CALLS[call](line.client())
    except (ProtocolError, DeviceFaultError, DeviceUnreachableError) as error:
        assert "\n" not in str(error)
    assert line.now <= 10 * RUN_S


WRONG = {
    "open": [b"", bytes(37), struct.pack("<8IBI", 16, 48, 3, 51, 2, 3, 1024, 1000, 0, 0) + b"\x01a\x01b"],
    "write_input": [b"x"],
    "confirm_input": [b"x"],
    "run": [b"", RUN_RESULTS[:-1], RUN_RESULTS + b"x", struct.pack("<5I", 1, 1025, 3, 0, 0), bytes(20)],
    "run_layer": [b"", RUN_RESULTS],
    "read_output": [b"", bytes(15), bytes(17)],
    "profile": [b"", struct.pack("<5I", 1, 0, 4, 0, 0)],
    "self_test": [b"", struct.pack("<3I", 2, NONE, 0), struct.pack("<3I", 3, 3, 0), struct.pack("<3I", 3, 1, 3)],
    "calibrate": [b"", bytes(3), bytes(5)],
}
NAMES = {"confirm_input": "INPUT_PLACED"}


@pytest.mark.parametrize(("call", "results"), [(call, results) for call in WRONG for results in WRONG[call]])
def test_a_reply_of_a_wrong_length_or_with_wrong_fields_names_the_call(call, results):
    line = Answers(lambda request, count: [(0, reply(request, Reply.OK, results))])
    with pytest.raises(
        ProtocolError, match=f"^{NAMES.get(call, call.upper())}: the firmware replied .*; flash it again"
    ):
        CALLS[call](line.client())


IDENTITIES = {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 6: 0, 7: 0, 8: 2}


@pytest.mark.parametrize("field", IDENTITIES)
def test_an_identity_with_an_impossible_field_is_refused(field):
    fields = [16, 48, 3, 51, 2, 3, 1024, 1000, 1, 0]
    names = b"\x04tiny\x03abc\x04host\x03PLL"
    good = struct.pack("<8IBI", *fields) + names
    line = Answers(lambda request, count: [(0, reply(request, Reply.OK, good))])
    assert line.client().open() == replace(IDENTITY, tick_kind="cycles", missing="PLL")
    fields[field] = IDENTITIES[field]
    line = Answers(lambda request, count: [(0, reply(request, Reply.OK, struct.pack("<8IBI", *fields) + names))])
    with pytest.raises(ProtocolError, match=r"^OPEN: the firmware replied"):
        line.client().open()
