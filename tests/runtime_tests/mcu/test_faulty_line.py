"""Inferences over lines that lose, damage, repeat and delay, and on boards that are reset: never a wrong answer."""

import random
from dataclasses import replace

import pytest

from thumbnet.runtime_tests.errors import DeviceFaultError, DeviceUnreachableError, ProtocolError
from thumbnet.runtime_tests.mcu.exchange import Command
from thumbnet.runtime_tests.mcu.protocol import ProtocolClient

REPLY_S, RUN_S, RESEND_S = 10.0, 60.0, 0.25
#: What a call may take beyond its deadline: the line's own time for a message.
MESSAGE_S = 0.01
FAILURES = (ProtocolError, DeviceFaultError, DeviceUnreachableError)


class Prover:
    """Makes inferences, and checks every output and every deadline."""

    def __init__(self, line, stand_in):
        self.line = line
        self.images = stand_in.make_images(32)
        self.outputs = [stand_in.compute_pool(image).tobytes() for image in self.images]
        self.layers = [stand_in.compute_scale(image).tobytes() for image in self.images]
        self.client = ProtocolClient(line, REPLY_S, RUN_S, RESEND_S, line.clock)
        self.calls = self.right = 0
        self.errors = []
        self._call = self.client._exchange.call
        self.client._exchange.call = self.timed_call

    def timed_call(self, command, arguments=b""):
        started = self.line.now
        limit = RUN_S if command in (Command.RUN, Command.RUN_LAYER, Command.PROFILE, Command.SELF_TEST) else REPLY_S
        self.calls += 1
        try:
            return self._call(command, arguments)
        finally:
            assert self.line.now - started <= limit + MESSAGE_S, f"{command.name} passed its deadline"

    def open(self):
        self.line.open()
        identity = self.client.open()
        # Inputs and outputs in many pieces, of which none may be missed or taken twice.
        self.client._identity = replace(identity, chunk=16)

    def infer(self, index, kind):
        client, image = self.client, self.images[index].tobytes()
        client.write_input(image)
        if kind == "layers":
            for layer, (size, expected) in enumerate([(48, self.layers[index]), (3, self.outputs[index])]):
                assert client.read_output(client.run_layer(layer, size)) == expected
        elif kind == "profile":
            assert all(ticks % 10 == 0 and ticks > 0 for ticks in client.profile())
        else:
            assert client.read_output(client.run()) == self.outputs[index]
        self.right += 1

    def infer_on_a_clean_line(self, count):
        rates, self.line.rate, self.line.reset_rate = (self.line.rate, self.line.reset_rate), 0.0, 0.0
        try:
            for index in range(count):
                self.infer(index, "run")
        finally:
            self.line.rate, self.line.reset_rate = rates


def prove(prover, count, seed):
    order, line = random.Random(seed), prover.line
    is_open = False
    while count > 0:
        try:
            if not is_open:
                prover.open()
                is_open = True
            prover.infer(order.randrange(len(prover.images)), order.choice(["run", "run", "run", "layers", "profile"]))
            count -= 1
        except FAILURES as error:
            prover.errors.append(error)
            is_open = False
        if is_open and order.random() < 0.1:
            resets = line.board.resets
            try:
                prover.infer_on_a_clean_line(2)
            except DeviceFaultError as error:
                # A reset since the last call is found out by the next one; nothing else may fail on a clean line.
                assert "was reset" in str(error) and resets > 0
                is_open = False


@pytest.mark.parametrize(
    "count", [pytest.param(300, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("rate", "reset_rate"), [(0.05, 0.0), (0.2, 0.0), (0.1, 0.004)])
def test_no_fault_of_the_line_or_reset_gives_a_wrong_answer(make_line, stand_in, count, rate, reset_rate):
    line = make_line(seed=count, rate=rate, reset_rate=reset_rate)
    prover = Prover(line, stand_in)
    prove(prover, count, seed=1)
    assert prover.right >= count and prover.calls > 5 * count
    assert sum(line.faults.values()) > count / 2 and len(line.faults) == 7
    resets = sum("was reset" in str(error) for error in prover.errors)
    assert (resets > 0) == (line.board.resets > 0) == (reset_rate > 0)
    # With up to a fifth of all messages damaged, a call still gets through in its deadline.
    others = [error for error in prover.errors if "was reset" not in str(error)]
    assert len(others) <= count / 100, others[:3]
