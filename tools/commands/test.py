"""`thumbnet test`: prove an artifact on a device."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from thumbnet.tools.commands.devices import devices_option
from thumbnet.tools.output import json_option, print_table, write_json

#: Exit code where the device worked and a check failed.
CHECK_FAILED = 1


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", required=True, help="Name of a device, see `thumbnet devices`.")
@click.option("--images", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of images.")
@click.option("--limit", type=click.IntRange(min=1), help="Use only so many of the images.")
@devices_option
@json_option
def test(
    artifact: Path, device: str, images: Path, limit: int | None, devices_file: Path | None, json_file: Path | None
) -> int:
    """Run images through the network in ARTIFACT on a device, and check what comes out.

    Bytes against the reference, classes against PyTorch and the labels, instructions or seconds, RAM, flash and stack.
    The exit code is 0 where every check passes, 1 where one fails, 2 where the device or the input is at fault.
    """
    from thumbnet.compile.artifact import Artifact
    from thumbnet.models.preprocessing import load_labels
    from thumbnet.targets.devices import get_device

    target = get_device(device, devices_file)
    loaded = Artifact.load(artifact)
    labelled = load_labels(images)[:limit]

    from thumbnet.runtime_tests.network_tests import run_tests
    from thumbnet.runtime_tests.open_session import open_session
    from thumbnet.tools.network import check_core, load_trained

    check_core(loaded, target)
    trained = load_trained(loaded)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{loaded.manifest['model']} on {target.name}", total=len(labelled))
        with open_session(target) as session:
            report = run_tests(loaded, session, trained, labelled, lambda: progress.advance(task))
    print_table(
        f"{loaded.manifest['model']} on {target.name}: {len(labelled)} images",
        ["check", "status", "result"],
        [(check.name, check.status.value, check.detail) for check in report.checks],
    )
    write_json(json_file, report.as_json())
    return 0 if report.passed else CHECK_FAILED
