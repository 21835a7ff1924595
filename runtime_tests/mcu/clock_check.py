"""A board's clock beside this computer's: no time of a board is told before they agree.

A stamp is the board's count of ticks with the two times here between which it was taken: when it was asked for, and
when it came. Whatever the line delays, the board's clock stood at the count somewhere in between, so that of two stamps
the time between them is known to half of what both took under way. The longer they are apart the less that matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from thumbnet.runtime_tests.errors import ClockError
from thumbnet.runtime_tests.session import CheckedClock

#: By how much a board's clock may be off, as a part of it.
TOLERANCE = 0.02
#: How well it has to be known for that; stamps are taken until it is.
UNCERTAINTY = 0.005
#: Stamps from which the quickest is the first, and how long is waited between later ones, in seconds.
FIRST_STAMPS, PAUSE_S = 5, 0.02
#: Seconds after which a clock has to be known well enough, for a line that takes longer can't tell it.
LONGEST_S = 30.0
#: A counter of this many ticks starts again.
_WRAP_TICKS = 1 << 32


@dataclass(frozen=True)
class _Stamp:
    """A count of ticks, with those of earlier wraps, and when it was asked for and came, in seconds."""

    ticks: int
    asked: float
    came: float

    @property
    def under_way(self) -> float:
        return self.came - self.asked


def check_clock(
    read_ticks: Callable[[], int],
    hz: int,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> CheckedClock:
    """Compare a board's ticks with this computer's clock, for as long as the line's delays ask for.

    Parameters
    ----------
    read_ticks : callable
        Asks the board for its count of ticks, modulo 2**32.
    hz : int
        Ticks a second, as the board has it.
    clock, sleep : callable
        This computer's clock in seconds, and what waits for so many.

    Raises
    ------
    ClockError
        The board's clock is off by more than `TOLERANCE` or stands still, or the line is too slow to know.
    SessionError
        Of the board, while it is asked.
    """
    stamps: list[_Stamp] = []

    def take() -> _Stamp:
        asked = clock()
        ticks = read_ticks()
        before = stamps[-1].ticks if stamps else 0
        stamps.append(_Stamp(before + (ticks - before) % _WRAP_TICKS, asked, clock()))
        return stamps[-1]

    first = min((take() for _ in range(FIRST_STAMPS)), key=lambda stamp: stamp.under_way)
    best: CheckedClock | None = None
    while clock() - first.came < LONGEST_S:
        sleep(PAUSE_S)
        last = take()
        if (last.came - stamps[-2].asked) * hz >= _WRAP_TICKS:
            raise ClockError(
                f"the board's clock can't be checked: it answered after {last.came - stamps[-2].asked:.1f} s, and its "
                f"counter starts again after {_WRAP_TICKS / hz:.1f} s; check the line"
            )
        compared = _compare(first, last, hz)
        if best is None or compared.uncertainty < best.uncertainty:
            best = compared
        if best.uncertainty <= UNCERTAINTY and abs(abs(best.error) - TOLERANCE) > best.uncertainty:
            break
    if best is None or best.uncertainty > UNCERTAINTY:
        raise ClockError(
            f"the board's clock can't be checked: a call takes {first.under_way:.3f} s, in {LONGEST_S:.0f} s it is "
            f"known to {0 if best is None else best.uncertainty:.1%} and not to {UNCERTAINTY:.1%}; check the line"
        )
    if abs(best.error) > TOLERANCE:
        counted = best.interval_s * (1 + best.error)
        verdict = "it stands still" if counted == 0 else f"{best.error:+.1%}, {TOLERANCE:.0%} is allowed"
        raise ClockError(
            f"the board's clock counted {counted:.4f} s at its {hz:,} Hz in {best.interval_s:.4f} s of this "
            f"computer's: {verdict}; check the board's crystal and its file"
        )
    return best


def _compare(first: _Stamp, last: _Stamp, hz: int) -> CheckedClock:
    """Return what two stamps say of a clock: each was taken in the middle of its way, or half of that off."""
    interval = (last.asked + last.came - first.asked - first.came) / 2
    uncertainty = (first.under_way + last.under_way) / 2 / interval
    return CheckedClock(hz, (last.ticks - first.ticks) / hz / interval - 1, uncertainty, interval)
