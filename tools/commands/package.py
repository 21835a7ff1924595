"""`thumbnet package`: a compiled network as the build system of a project takes it."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path

import click

from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.package.forms import FORMS

#: Behind the mark that keeps lines as they are.
EXAMPLES = """\b
For example:
  thumbnet package build/v1 --format cmake -o extern/v1
      add_subdirectory, FetchContent, find_package
  thumbnet package build/v1 --format zephyr -o modules/v1
      a module, and two samples: classify, and the server of `thumbnet test`
  thumbnet package build/v1 --format arduino -o libraries/v1
  thumbnet package build/v1 --format platformio -o lib/v1
  thumbnet package build/v1 --format cmsis-pack --author "Ann Author" -o packs
      Ann_Author.NAME.pdsc and Ann_Author.NAME.1.0.0.pack
"""


@click.command(epilog=EXAMPLES)
@click.argument("artifact", type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", "form", required=True, type=click.Choice(list(FORMS)), help="The build system.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--package-version", "version", default="1.0.0", show_default=True, metavar="X.Y.Z")
@click.option("--author", default="thumbnet", show_default=True, help="Who publishes the package; the pack's vendor.")
@click.option("--url", default="https://example.com/", show_default=True, help="Where the package is from.")
@json_option
def package(
    artifact: Path, form: str, output: Path, version: str, author: str, url: str, json_file: Path | None
) -> None:
    """Write the network in ARTIFACT into the folder OUTPUT as a package for other projects.

    Each has an example that classifies the first golden vector and prints its class; README.md in it says how to use
    it. A package in OUTPUT is replaced whole, and nothing else.
    """
    from thumbnet.compile.artifact import Artifact
    from thumbnet.tools.package.write_package import AUTHOR, URL, VERSION, Publisher, write_package

    if not VERSION.fullmatch(version):
        raise click.BadParameter(f"{version!r} is not three numbers with dots between, such as 1.0.0")
    if not AUTHOR.fullmatch(author) or not any(letter.isalnum() and letter.isascii() for letter in author):
        raise click.BadParameter(
            f'{author!r} has more than 80 characters, none of a to z, or one of = " \\ < > & $ {{ }} # ;'
        )
    if not URL.fullmatch(url):
        raise click.BadParameter(f"{url!r} is no address of http or https of up to 200 plain characters")
    loaded = Artifact.load(artifact)
    files = write_package(loaded, form, output, Publisher(author, version, url))
    rows = [(str(file.relative_to(output)), file.stat().st_size) for file in files]
    total = f"{sum(size for _, size in rows):,}"
    print_table(f"{loaded.name} as a {form} package, in {output}", ["file", "bytes"], rows, footer=("all", total))
    write_json(
        json_file,
        {"name": loaded.name, "format": form, "version": version, "folder": str(output), "files": dict(rows)},
    )
