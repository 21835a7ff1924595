"""The command `thumbnet`: its table of commands, and the one place where errors become a line for the person."""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from thumbnet.compile.errors import CompileError
from thumbnet.models.errors import ModelError
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.targets.errors import TargetError

#: Where each command is defined. A command is imported when it runs or when its help is shown, and imports torch and
#: TVM inside its function, so that the help is there at once.
COMMANDS: dict[str, str] = {
    "models": "thumbnet.tools.commands.models:models",
    "boards": "thumbnet.tools.commands.boards:boards",
    "devices": "thumbnet.tools.commands.devices:devices",
    "cost": "thumbnet.tools.commands.cost:cost",
    "train": "thumbnet.tools.commands.train:train",
    "tune": "thumbnet.tools.commands.tune:tune",
    "compile": "thumbnet.tools.commands.compile:compile",
    "demo": "thumbnet.tools.commands.demo:demo",
    "test": "thumbnet.tools.commands.test:test",
    "profile": "thumbnet.tools.commands.profile:profile",
    "serve-kit": "thumbnet.tools.commands.serve_kit:serve_kit",
    "bench": "thumbnet.tools.commands.bench:bench",
}

KNOWN_ERRORS = (ModelError, TargetError, CompileError, SessionError)
BAD_INPUT = 2
INTERRUPTED = 130


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


@click.group(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="thumbnet")
def thumbnet() -> None:
    """Compile trained PyTorch MobileNets for Arm boards, deploy them, and prove that they answer right."""


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0, a command's own, 2 for bad input, 130 for Ctrl-C."""
    try:
        code = thumbnet.main(prog_name="thumbnet", standalone_mode=False)
    except (click.exceptions.NoArgsIsHelpError, click.exceptions.Exit) as request:
        if isinstance(request, click.exceptions.Exit):
            sys.exit(request.exit_code)
        click.echo(request.format_message())
        sys.exit(0)
    except click.ClickException as error:
        _fail(error.format_message())
    except KNOWN_ERRORS as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; nothing may be flushed into it at exit. The code is not 0,
        # for the command did not reach its end. (rich, which prints the tables, leaves the same way.)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("thumbnet: stopped", err=True)
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    click.echo(f"thumbnet: error: {' '.join(message.split())}", err=True)
    sys.exit(BAD_INPUT)
