"""`thumbnet serve-kit`: the server that a board with Linux runs, as a folder to copy there."""

# ruff: noqa: PLC0415 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path

import click

from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps


@click.command("serve-kit")
@click.option("--board", required=True, help="Type of board, see `thumbnet boards`.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
@json_option
def serve_kit(board: str, output: Path, json_file: Path | None) -> None:
    """Write the server of a board that runs Linux into the folder OUTPUT, to be copied there and started by run.sh.

    It needs neither Python nor TVM on the board. README.md in the folder says how to start it, which C library it
    needs, and what it means: TVM RPC has no authentication and runs what it is sent.
    """
    from thumbnet.runtime_tests.linux.board_kit import write_kit
    from thumbnet.targets.registry import get_board

    try:
        with show_steps(f"the server of a {board}") as shown:
            files = write_kit(get_board(board), output, shown.step)
    except OSError as error:
        raise click.ClickException(f"{output}: can't be written ({error.strerror})") from error
    rows = [(file.name, file.stat().st_size) for file in files]
    print_table(
        f"The server of a {board}, in {output}",
        ["file", "bytes"],
        rows,
        footer=("all", f"{sum(size for _, size in rows):,}"),
    )
    click.echo(f"Copy the folder to the board, then start it there: ./run.sh TRACKER:PORT KEY ({output}/README.md).")
    write_json(json_file, {"board": board, "folder": str(output), "files": dict(rows)})
