"""The firmware's frame reader and calls, fed with sequences of requests that a seeded mutator has spoilt."""

import random
import struct
import subprocess

import pytest

from thumbnet.runtime_tests.mcu.exchange import HEADER, VERSION, Command, Reply
from thumbnet.runtime_tests.mcu.framing import FrameDamagedError, FrameReader, decode_frame, encode_frame

NUMBERS = (0, 1, 2, 3, 4, 7, 16, 47, 48, 49, 51, 255, 1024, 1025, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)


class Mutator:
    """Makes requests of every kind, most of them wrong somewhere."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.sequence = 0
        self.made = []
        self.run = 0

    def number(self):
        return self.random.choice(NUMBERS) if self.random.random() < 0.8 else self.random.getrandbits(32)

    def request(self):
        chance = self.random.random
        self.sequence += self.random.choice([0, 1, 1, 1, 1, 2, -1])
        command = self.random.choice([*Command]) if chance() < 0.95 else self.random.randrange(256)
        session = 7 if chance() < 0.95 else self.number()
        version = VERSION if chance() < 0.98 else self.random.randrange(256)
        words = b"".join(struct.pack("<I", self.number()) for _ in range(self.random.randrange(4)))
        data = self.random.randbytes(self.random.choice([0, 1, 7, 48, 1024, 1025, 1100])) if chance() < 0.3 else b""
        if command == Command.WRITE_INPUT and chance() < 0.8:
            words, data = struct.pack("<I", 0), bytes(48)
        if command in {Command.RUN, Command.RUN_LAYER, Command.PROFILE}:
            words, data, self.run = words[: 4 * (command == Command.RUN_LAYER)], b"", max(0, self.sequence)
        if command == Command.READ_OUTPUT and chance() < 0.8:
            words, data = struct.pack("<3I", self.run, self.number(), self.number()), b""
        return HEADER.pack(version, command, session, max(0, self.sequence)) + words + data

    def message(self):
        frame = bytearray(encode_frame(self.request()))
        self.made.append(bytes(frame))
        kind = self.random.randrange(10)
        at = self.random.randrange(len(frame))
        if kind == 0:
            frame[at] = self.random.randrange(256)
        elif kind == 1:
            del frame[at : at + self.random.randint(1, 8)]
        elif kind == 2:
            frame[at:at] = self.random.randbytes(self.random.choice([1, 2, 300, 3000]))
        elif kind == 3:
            frame = bytearray(self.random.choice(self.made))
        elif kind == 4:
            frame = frame[:at] + self.random.choice(self.made)[at:]
        return bytes(frame)


def count_answers(program, seed, messages):
    mutator = Mutator(seed)
    start = encode_frame(HEADER.pack(VERSION, Command.OPEN, 7, 1))
    noise = b"".join(mutator.message() for _ in range(messages))
    # Whatever came before, a new session is opened, and works.
    last = [HEADER.pack(VERSION, Command.OPEN, 9, 1), HEADER.pack(VERSION, Command.CALIBRATE, 9, 2)]
    data = start + noise + b"".join(map(encode_frame, last))
    done = subprocess.run([program], input=data, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr.decode()}"
    answers = []
    for frame in FrameReader().take(done.stdout):
        try:
            answers.append(decode_frame(frame))
        except FrameDamagedError as error:
            pytest.fail(f"seed {seed}: the firmware sent a damaged frame: {error}")
    assert [answer[: HEADER.size] for answer in answers[-2:]] == last
    assert [answer[HEADER.size] for answer in answers[-2:]] == [Reply.OK, Reply.OK]
    assert {answer[0] for answer in answers} == {VERSION}
    return [answer[HEADER.size] for answer in answers]


@pytest.mark.parametrize("streams", [20, pytest.param(2000, id="long", marks=pytest.mark.slow)])
def test_no_sequence_of_requests_breaks_the_firmware(host_program, streams):
    statuses = [status for seed in range(streams) for status in count_answers(host_program, seed, 200)]
    # All that it can say was said, but for what needs a fault of the core or a network that writes outside its arena.
    assert {*Reply} - {*statuses} == {Reply.FAULT, Reply.ARENA_OVERRUN}
