"""`thumbnet package`: a compiled network as the build system of a project takes it."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path

import click

from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.package.forms import FORMS


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", "form", required=True, type=click.Choice(list(FORMS)), help="The build system.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--package-version", "version", default="1.0.0", show_default=True, metavar="X.Y.Z")
@click.option("--author", default="thumbnet", show_default=True, help="Who publishes the package; the pack's vendor.")
@json_option
def package(artifact: Path, form: str, output: Path, version: str, author: str, json_file: Path | None) -> None:
    r"""Write the network in ARTIFACT into the folder OUTPUT as a package for other projects.

    Each has an example that classifies the first golden vector and prints its class; README.md in it says how to use
    it. A package in OUTPUT is replaced whole, and nothing else.

    \b
    thumbnet package build/v1 --format cmake -o packages/v1        add_subdirectory, FetchContent, find_package
    thumbnet package build/v1 --format zephyr -o modules/v1        a module; samples: classify, and the test server
    thumbnet package build/v1 --format arduino -o libraries/v1     a library for Arduino's IDE and CLI
    thumbnet package build/v1 --format platformio -o lib/v1        a library with library.json
    thumbnet package build/v1 --format cmsis-pack -o packs/v1      VENDOR.NAME.pdsc and the .pack file
    """
    from thumbnet.compile.artifact import Artifact
    from thumbnet.tools.package.write_package import AUTHOR, VERSION, Publisher, write_package

    if not VERSION.fullmatch(version):
        raise click.BadParameter(f"{version!r} is not three numbers with dots between, such as 1.0.0")
    if not AUTHOR.fullmatch(author) or not any(letter.isalnum() and letter.isascii() for letter in author):
        raise click.BadParameter(
            f'{author!r} has more than 80 characters, none of a to z, or one of = " \\ < > & $ {{ }} # ;'
        )
    loaded = Artifact.load(artifact)
    files = write_package(loaded, form, output, Publisher(author, version))
    rows = [(str(file.relative_to(output)), file.stat().st_size) for file in files]
    total = f"{sum(size for _, size in rows):,}"
    print_table(f"{loaded.name} as a {form} package, in {output}", ["file", "bytes"], rows, footer=("all", total))
    write_json(
        json_file,
        {"name": loaded.name, "format": form, "version": version, "folder": str(output), "files": dict(rows)},
    )
