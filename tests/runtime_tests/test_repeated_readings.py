"""Readings of a board that is noisy, interrupted, slower when it is warm, or whose timer lies: a simulated one."""

import numpy as np
import pytest

from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.runtime_tests.repeated_readings import (
    BUDGET_S,
    LEAST_SAMPLES,
    MOST_SAMPLES,
    RepeatedReadings,
    is_sure,
    without_outliers,
)
from thumbnet.runtime_tests.session import DeviceSession, LayerCost
from thumbnet.targets.device import Device
from thumbnet.targets.registry import get_board

IMAGE = np.zeros((1, 1, 1), np.int8)
TRUE = {"reference": 2e-3, "long": 30e-3, "short": 100e-6}


class Board(DeviceSession):
    """Its stages cost what `TRUE` says, and what is done to it adds; its clock is the test's."""

    def __init__(self, board="raspberry_pi_4", kind="seconds on the board", seed=1, place="192.168.1.7"):
        self.device = Device("my_pi", get_board(board), "rpc", address=f"{place}:9190")
        self.kind, self.rng = kind, np.random.default_rng(seed)
        self.now, self.runs = 0.0, 0
        self.noise, self.interrupted_every = 0.0, 0
        self.factor = self.timer = 1.0
        self.call_s, self.cold_runs, self.error = 1e-3, 0, 1e-6

    def clock(self):
        return self.now

    def profile(self, image):
        self.runs += 1
        costs = []
        for number, true in enumerate(TRUE.values(), len(TRUE) * self.runs):
            cost = true * self.factor * (1 + self.noise * self.rng.standard_normal())
            interrupted = self.interrupted_every and number % self.interrupted_every == 0
            costs.append(cost * (10 if interrupted or self.runs <= self.cold_runs else 1))
        self.now += sum(costs) + self.call_s
        unit = self.device.board.clock_hz if self.kind == "cycles" else 1
        return [
            LayerCost(name, self.kind, cost * self.timer * unit, self.error)
            for name, cost in zip(TRUE, costs, strict=True)
        ]

    load = run = run_layers = measure = memory_use = None

    def close(self):
        pass


Board.__abstractmethods__ = frozenset()


def take(board, readings=None):
    return (readings or RepeatedReadings(board.clock)).take(board, IMAGE, "reference")


def medians(samples):
    return {name: float(np.median(values)) for name, values in samples.items()}


def test_a_quiet_board_is_soon_sure():
    board = Board()
    kind, samples = take(board)
    assert kind == "seconds on the board"
    assert {len(values) for values in samples.values()} == {LEAST_SAMPLES}
    assert medians(samples) == pytest.approx(TRUE)


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_board_is_measured_until_it_is_sure(seed):
    board = Board(seed=seed)
    board.noise = 0.03
    _, samples = take(board)
    assert LEAST_SAMPLES < len(samples["long"]) < MOST_SAMPLES
    assert medians(samples) == pytest.approx(TRUE, rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_outliers_are_measured_again_and_kept(seed):
    board = Board(seed=seed)
    board.noise, board.interrupted_every = 0.003, 7
    _, samples = take(board)
    assert medians(samples) == pytest.approx(TRUE, rel=0.01)
    interrupted = {name: [value for value in values if value > 5 * TRUE[name]] for name, values in samples.items()}
    assert any(interrupted.values()), "raw samples are raw"
    for name, values in samples.items():
        assert len(values) - len(interrupted[name]) >= LEAST_SAMPLES
        assert not set(interrupted[name]) & set(without_outliers(values))


def test_cold_runs_dont_count():
    board = Board()
    board.cold_runs = 3
    _, samples = take(board)
    assert medians(samples) == pytest.approx(TRUE)
    assert max(samples["long"]) < 2 * TRUE["long"]


def test_a_board_that_never_is_sure_has_a_budget():
    board = Board()
    board.noise, board.call_s = 0.2, BUDGET_S / 10
    _, samples = take(board)
    assert LEAST_SAMPLES <= len(samples["long"]) <= 11
    assert not is_sure(samples["long"])
    board = Board()
    board.noise = 0.2
    assert len(take(board)[1]["long"]) == MOST_SAMPLES


def test_a_stage_too_short_for_the_timer_needs_no_more_than_that_can_tell():
    board = Board()
    board.noise, board.error = 0.03, 100e-6
    _, samples = take(board)
    assert len(samples["short"]) < 30
    board.timer = 1e-4  # a timer of a tick a second, almost
    assert min(take(board)[1]["short"]) == board.error


def test_drift_is_noticed_and_its_readings_are_dropped():
    board = Board()
    readings = RepeatedReadings(board.clock)
    take(board, readings)
    board.factor = 1.03
    take(board, readings)
    board.factor = 1.2
    with pytest.raises(
        DeviceFaultError,
        match=r"^my_pi drifts: the reference stage costs 0\.0024 seconds .*, at first 0\.002, \+20%; these .* cool",
    ):
        take(board, readings)
    board.factor = 0.9
    with pytest.raises(DeviceFaultError, match=r"-10%"):
        take(board, readings)
    board.factor = 1.0
    take(board, readings)


def test_another_board_of_the_type_may_be_slower():
    board, other = Board(), Board(place="192.168.1.8")
    other.factor = 1.2
    readings = RepeatedReadings(board.clock)
    take(board, readings)
    readings._clock = other.clock
    take(other, readings)


@pytest.mark.parametrize(
    ("timer", "says"),
    [
        (0.0, "^my_pi: 3 stages together cost 0 seconds on the board: its timer stands still"),
        (1.5, r"^my_pi: its timer counted 0\.048150 s in a call of 0\.033100 s: it runs too fast, or its clock is not"),
    ],
)
def test_the_timer_is_checked_before_the_first_reading(timer, says):
    board = Board()
    board.timer = timer
    with pytest.raises(DeviceFaultError, match=says):
        take(board)
    assert board.runs == 1


def test_cycles_are_checked_by_the_boards_clock():
    board = Board("nucleo_l4r5zi", "cycles")
    assert take(board)[0] == "cycles"
    board.timer = 2.0
    with pytest.raises(DeviceFaultError, match=f"or its clock is not {board.device.board.clock_hz} Hz"):
        take(board)
