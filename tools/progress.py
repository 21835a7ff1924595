"""What a command is doing, and for how long already, while it does it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import IO, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

#: Where there is no terminal, a line is printed as often, in seconds; what is done sooner says nothing.
LINE_EVERY_S = 5.0


class StepDisplay:
    """Shows the steps of a command on standard error; made by `show_steps`.

    Parameters
    ----------
    progress : Progress
        What draws it, with one task.
    what : str
        What all steps are for.
    """

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.tasks[0].id
        self._what = what

    def step(self, doing: str) -> None:
        """Say what is done next."""
        self._progress.update(self._task, description=f"{self._what}: {doing}")

    def advance(self, count: int = 1) -> None:
        """Say that so many more of the total are done."""
        self._progress.advance(self._task, count)


@contextlib.contextmanager
def show_steps(
    what: str, total: int | None = None, *, stream: TextIO | None = None, line_every_s: float = LINE_EVERY_S
) -> Iterator[StepDisplay]:
    """Show what a command is doing until the block ends: a line of a terminal, which then is gone, else plain lines.

    Parameters
    ----------
    what : str
        What the steps are for, such as "compiling mobilenet_v1_0.25_digits".
    total : int, optional
        How often `StepDisplay.advance` will be called, where that is known.
    stream : TextIO, optional
        Instead of standard error.
    line_every_s : float
        Seconds between plain lines.
    """
    console = Console(file=sys.stderr if stream is None else stream)
    animated = console.is_terminal and not console.is_dumb_terminal
    counting = () if total is None else (BarColumn(), MofNCompleteColumn())
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), *counting, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not animated) as progress:
        progress.add_task(what, total=total)
        with contextlib.nullcontext() if animated else _printing_lines(progress, console.file, line_every_s):
            yield StepDisplay(progress, what)


@contextlib.contextmanager
def _printing_lines(progress: Progress, stream: IO[str], every_s: float) -> Iterator[None]:
    ended = threading.Event()

    def print_lines() -> None:
        while not ended.wait(every_s):
            task = progress.tasks[0]
            done = "" if task.total is None else f", {task.completed:.0f} of {task.total:.0f} done"
            try:
                print(f"thumbnet: {task.description}{done} ({task.elapsed:.0f} s)", file=stream, flush=True)
            except (OSError, ValueError):  # nobody reads it any more
                return

    printer = threading.Thread(target=print_lines, name="progress", daemon=True)
    printer.start()
    try:
        yield
    finally:
        ended.set()
        printer.join()
