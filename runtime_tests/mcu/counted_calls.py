"""What the firmware's measured calls execute: exact counts, from the marks that the emulator logs, and blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from thumbnet.runtime_tests.cycles.block_profile import BlockProfile, ExecutedBlock
from thumbnet.runtime_tests.cycles.predict import CyclePrediction, model_of
from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.runtime_tests.instruction_counter import InstructionCounter
from thumbnet.targets.board import Board


class CountedCalls:
    """The counter of an emulated board whose firmware makes measured calls, see measure.c.

    Parameters
    ----------
    symbols : mapping of str to int
        Addresses in the firmware.
    board : Board
        The emulated one.

    Raises
    ------
    ToolchainError
        A plugin can't be built.
    """

    def __init__(self, symbols: Mapping[str, int], board: Board) -> None:
        self._places = [symbols["measure_begin"], symbols["measure_end"]]
        self._cycle_model = model_of(board)
        self._counter = InstructionCounter(self._places)
        self._profile: BlockProfile | None = None
        try:
            if self._cycle_model is not None:
                self._profile = BlockProfile(self._places, board.flash, self._cycle_model.board.flash_timing)
        except BaseException:
            self._counter.close()
            raise
        self._overhead = 0

    @property
    def qemu_options(self) -> list[str]:
        """QEMU's options that load the plugins."""
        profile = [] if self._profile is None else self._profile.qemu_options
        return [*self._counter.qemu_options, *profile]

    def clear(self) -> None:
        """Forget the calls made so far."""
        self._counter.clear_marks()

    def calibrate(self) -> None:
        """Take the call since `clear`, of one instruction, for the measure: what it costs beyond is the call's own."""
        self._overhead = 0
        self._overhead = self.read(1)[0] - 1

    def read(self, calls: int) -> list[int]:
        """Return the instructions of each of the calls since `clear`.

        Raises
        ------
        DeviceFaultError
            Not so many were made, or they can't have cost what was counted.
        """
        try:
            marks = self._counter.read_marks()
        except OverflowError as error:
            raise DeviceFaultError(f"the emulator counts wrongly: {error}") from error
        counts = [count for _, count in marks]
        costs = [end - begin - self._overhead for begin, end in zip(counts[::2], counts[1::2], strict=False)]
        if [place for place, _ in marks] != calls * self._places or min(costs) <= 0:
            raise DeviceFaultError(
                f"the emulator counts wrongly: {len(marks)} marks passed in {calls} measured calls, "
                f"expected {2 * calls}; instructions {costs[:4]}"
            )
        return costs

    def predict(
        self, stages: Sequence[str], run: Callable[[], object], profile: Callable[[], object]
    ) -> CyclePrediction | None:
        """Return the predicted cycles of an inference and of its stages; None where there is no model of the core.

        Parameters
        ----------
        stages : sequence of str
            Their names.
        run, profile : callable
            Make one measured call, and one of each stage in order.
        """
        if self._cycle_model is None:
            return None
        with self._recording() as runs:
            run()
        with self._recording() as parts:
            profile()
        return self._cycle_model.predict(runs[0], dict(zip(stages, parts, strict=True)))

    @contextlib.contextmanager
    def _recording(self) -> Iterator[list[list[ExecutedBlock]]]:
        """Record the blocks of the measured calls made in the block; at its end the list holds those of each call.

        Raises
        ------
        DeviceFaultError
            There were more than there is room for.
        """
        assert self._profile is not None
        calls: list[list[ExecutedBlock]] = []
        self._profile.start()
        yield calls
        try:
            blocks = self._profile.stop()
        except OverflowError as error:
            raise DeviceFaultError(f"the emulator can't record it: {error}") from error
        calls += [[] for _ in range(1 + max((block.call for block in blocks), default=-1))]
        for block in blocks:
            calls[block.call].append(block)

    def close(self) -> None:
        """Let the counters go. May be called twice."""
        self._counter.close()
        if self._profile is not None:
            self._profile.close()
