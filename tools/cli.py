"""The command `thumbnet`: its table of commands, and the one place where errors become a line for the person."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import click

from thumbnet.tools.error_line import error_line

#: Where each command is defined. A command is imported when it runs or when its help is shown, and imports torch and
#: TVM inside its function, so that the help is there at once.
COMMANDS: dict[str, str] = {
    "models": "thumbnet.tools.commands.models:models",
    "boards": "thumbnet.tools.commands.boards:boards",
    "devices": "thumbnet.tools.commands.devices:devices",
    "cost": "thumbnet.tools.commands.cost:cost",
    "train": "thumbnet.tools.commands.train:train",
    "tune": "thumbnet.tools.commands.tune:tune",
    "records": "thumbnet.tools.commands.records:records",
    "compile": "thumbnet.tools.commands.compile:compile",
    "package": "thumbnet.tools.commands.package:package",
    "check": "thumbnet.tools.commands.check:check",
    "demo": "thumbnet.tools.commands.demo:demo",
    "test": "thumbnet.tools.commands.test:test",
    "flash": "thumbnet.tools.commands.flash:flash",
    "profile": "thumbnet.tools.commands.profile:profile",
    "serve": "thumbnet.tools.commands.serve:serve",
    "serve-kit": "thumbnet.tools.commands.serve_kit:serve_kit",
    "bench": "thumbnet.tools.commands.bench:bench",
}

BAD_INPUT = 2


class Stopped(BaseException):
    """The system asked this process to end, as Ctrl-C does: what was begun is cleaned up."""


class EndOfInputError(Exception):
    """An EOFError, which click would take for the end of what somebody types."""


class CommandTable(click.Group):
    """Takes the commands from `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - what a command returns
        """Run the command; with ``--debug`` print where an error was raised."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            if isinstance(error, EOFError):
                raise EndOfInputError(str(error) or "a file ends too early") from error
            raise


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, envvar="THUMBNET_DEBUG", help="Print where in the code an error was raised.")
@click.version_option(package_name="thumbnet")
def thumbnet(debug: bool) -> None:
    """Compile trained PyTorch MobileNets for Arm boards, deploy them, and prove that they answer right."""


def main() -> NoReturn:
    """Run the command line and leave with its exit code.

    0, a command's own, 2 for bad input, 130 for Ctrl-C, 143 and 129 where the system asked it to stop.
    """
    with _ending_signals() as received:
        code = _run(received)
    sys.exit(code)


def _run(received: Sequence[int]) -> int:
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A name that is no text of the terminal's is shown with escapes.
                stream.reconfigure(errors="backslashreplace")
        result = thumbnet.main(prog_name="thumbnet", standalone_mode=False)
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as request:
        code = request.exit_code
    except click.exceptions.NoArgsIsHelpError as request:
        click.echo(request.format_message())
        code = 0
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough. The code is not 0, for the command did not reach its end.
        # (rich, which prints the tables, leaves the same way.)
        code = 1
    except (Stopped, KeyboardInterrupt, click.Abort):
        code = _say_stopped(received)
    except Exception as error:
        # What interrupts a call from TVM comes out of it as an error of TVM's.
        if received:
            code = _say_stopped(received)
        else:
            click.echo(f"thumbnet: error: {error_line(error)}", err=True)
            code = BAD_INPUT
    _flush_output()
    return code


def _say_stopped(received: Sequence[int]) -> int:
    with contextlib.suppress(OSError):  # the terminal may be gone
        click.echo("thumbnet: stopped", err=True)
    return 128 + (received[0] if received else signal.SIGINT)


def _flush_output() -> None:
    """Flush what can be, so that Python's own flush at exit has nothing to fail on."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _ending_signals() -> Iterator[Sequence[int]]:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does, and give those received, Ctrl-C's among them.

    Where they are ignored, as `nohup` has it, they stay so.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        for other in ours.keys() - {signal.SIGINT}:  # the cleaning up is not to be stopped by the next one
            signal.signal(other, signal.SIG_IGN)
        raise Stopped

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = {
        number: handler
        for number, handler in handlers.items()
        if handler in (signal.SIG_DFL, signal.default_int_handler)
    }
    for number in ours:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
