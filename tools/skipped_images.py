"""How commands speak of images they left out."""

from __future__ import annotations

from collections.abc import Sequence

import click

#: Of a folder full of them, the first few tell why.
SHOWN = 5

strict_option = click.option(
    "--strict", is_flag=True, help="End at an image that can't be read, instead of skipping it."
)


def print_skipped(skipped: Sequence[str]) -> None:
    """Name the images that were skipped, and why, on standard error."""
    for line in skipped[:SHOWN]:
        click.echo(f"thumbnet: skipped {' '.join(line.split())}", err=True)
    if len(skipped) > SHOWN:
        click.echo(f"thumbnet: skipped {len(skipped) - SHOWN} more", err=True)
