"""A board's clock beside this computer's: over lines of any delay, and on boards whose clock is wrong."""

import random

import pytest

from thumbnet.runtime_tests.errors import ClockError
from thumbnet.runtime_tests.mcu.clock_check import LONGEST_S, TOLERANCE, UNCERTAINTY, check_clock


class Line:
    """A board of a clock that runs at a pace, at the end of a line with delays, in a time of its own."""

    def __init__(self, hz=100_000_000, *, pace=1.0, delay_s=0.002, jitter_s=0.0, seed=1, ticks=2**32 - 1000):
        self.hz, self.pace, self.delay_s, self.jitter_s, self.ticks = hz, pace, delay_s, jitter_s, ticks
        self.random, self.now, self.calls = random.Random(seed), 0.0, 0

    def read_ticks(self):
        self.calls += 1
        self._pass_one_way()
        stamp = int(self.ticks + self.now * self.hz * self.pace) % 2**32
        self._pass_one_way()
        return stamp

    def _pass_one_way(self):
        self.now += self.delay_s + self.random.random() * self.jitter_s

    def sleep(self, seconds):
        self.now += seconds

    def check(self):
        return check_clock(self.read_ticks, self.hz, lambda: self.now, self.sleep)


@pytest.mark.parametrize("pace", [1.0, 0.985, 1.015])
@pytest.mark.parametrize(("delay_s", "jitter_s"), [(0.0001, 0), (0.002, 0.001), (0.001, 0.016), (0.02, 0.05)])
@pytest.mark.parametrize("seed", range(3))
def test_a_right_clock_is_known_as_well_as_it_says(pace, delay_s, jitter_s, seed):
    line = Line(pace=pace, delay_s=delay_s, jitter_s=jitter_s, seed=seed)
    clock = line.check()
    assert clock.hz == line.hz
    assert clock.uncertainty <= UNCERTAINTY
    assert abs(clock.error - (pace - 1)) <= clock.uncertainty
    assert clock.interval_s < line.now < LONGEST_S + 1


def test_the_interval_is_as_long_as_the_line_asks_for():
    quick, slow = Line(delay_s=0.0005), Line(delay_s=0.01)
    assert quick.check().interval_s == pytest.approx(0.2, rel=0.2)  # two round trips of 1 ms, half of them
    assert slow.check().interval_s == pytest.approx(4.0, rel=0.2)


@pytest.mark.parametrize(("pace", "off"), [(1.1, "+10.0%"), (0.9, "-10.0%"), (1.03, "+3.0%"), (0.97, "-3.0%")])
@pytest.mark.parametrize("jitter_s", [0, 0.016])
def test_a_wrong_clock_is_an_error_with_both_times(pace, off, jitter_s):
    line = Line(pace=pace, jitter_s=jitter_s)
    said = r"^the board's clock counted (\d+\.\d+) s at its 100,000,000 Hz in (\d+\.\d+) s of this computer's: "
    with pytest.raises(ClockError, match=said) as caught:
        line.check()
    counted, passed = (float(word) for word in str(caught.value).split() if word[0].isdigit() and "." in word)
    assert counted / passed == pytest.approx(pace, abs=UNCERTAINTY)
    if not jitter_s:
        assert off in str(caught.value)
    assert "2% is allowed" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("pace", [1 + TOLERANCE - 0.002, 1 + TOLERANCE + 0.002, 1 - TOLERANCE - 0.002])
def test_what_is_near_the_limit_is_looked_at_until_it_is_decided(pace):
    line = Line(pace=pace, delay_s=0.005)
    if abs(pace - 1) > TOLERANCE:
        with pytest.raises(ClockError, match="2% is allowed"):
            line.check()
    else:
        assert line.check().uncertainty < 0.002
    assert line.now > 4


def test_a_timer_that_stands_still_is_told():
    with pytest.raises(ClockError, match=r"counted 0\.0000 s at its 100,000,000 Hz in 0\.\d+ s .*: it stands still;"):
        Line(pace=0).check()


def test_a_counter_may_start_again_while_it_is_watched():
    line = Line(hz=1_000_000_000, delay_s=0.05)  # every 4.3 s, in 20 s
    assert abs(line.check().error) < UNCERTAINTY
    assert line.now > 2 * 2**32 / line.hz


def test_a_line_that_is_too_slow_to_tell_is_an_error():
    with pytest.raises(ClockError, match=r"can't be checked: a call takes 2\.000 s, in 30 s .* not to 0"):
        Line(delay_s=1.0).check()
    with pytest.raises(ClockError, match=r"it answered after \d\.\d s, and its counter starts again after 0\.9 s"):
        Line(hz=5_000_000_000, delay_s=0.5).check()
