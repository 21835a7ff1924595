"""`thumbnet test`: prove an artifact on a device."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from thumbnet.tools.commands.devices import devices_option, threads_option
from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.skipped_images import print_skipped, strict_option

if TYPE_CHECKING:
    from thumbnet.compile.artifact import Artifact
    from thumbnet.models.image_folder import ImageSet
    from thumbnet.models.weights import TrainedModel
    from thumbnet.runtime_tests.report import Report

#: Exit code where the device worked and a check failed.
CHECK_FAILED = 1


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", required=True, help="Name of a device, see `thumbnet devices`.")
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of images, with labels.csv (file,class_index) or a folder a class where the labels are known.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use only so many of the images, spread evenly.")
@click.option(
    "--exclude",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of images to leave out, told by their content: those calibrated on.",
)
@strict_option
@threads_option
@devices_option
@json_option
def test(
    artifact: Path,
    device: str,
    images: Path,
    limit: int | None,
    exclude: Path | None,
    strict: bool,
    threads: int,
    devices_file: Path | None,
    json_file: Path | None,
) -> int:
    """Run images through the network in ARTIFACT on a device, and check what comes out.

    Bytes against the reference, classes against PyTorch and the labels, instructions or seconds, RAM, flash and stack.
    The exit code is 0 where every check passes, 1 where one fails, 2 where the device or the input is at fault.
    """
    from thumbnet.compile.artifact import Artifact
    from thumbnet.targets.devices import get_device

    target = get_device(device, devices_file)
    loaded = Artifact.load(artifact)

    what = f"{loaded.manifest['model']} on {target.name}"
    with show_steps(what) as shown:
        shown.step("loading PyTorch and TVM")
        from thumbnet.models.image_folder import load_images
        from thumbnet.runtime_tests.network_tests import run_tests
        from thumbnet.runtime_tests.open_session import open_session
        from thumbnet.tools.network import check_core, load_trained

        check_core(loaded, target)
        trained = load_trained(loaded)
        classes = trained.spec.classes - trained.preprocessing.label_offset
        shown.step("looking at the images")
        found = load_images(images, limit=limit, strict=strict, classes=classes, exclude=exclude)
    print_skipped(found.skipped)
    with show_steps(what, len(found.images)) as shown:
        shown.step("opening the device")
        with open_session(target, threads, shown.step) as session:
            report = run_tests(loaded, session, trained, found.images, advance=shown.advance, progress=shown.step)
    skipped = f", {len(found.skipped)} skipped" if found.skipped else ""
    print_table(
        f"{what}: {len(found.images)} images{skipped}",
        ["check", "status", "result"],
        [(check.name, check.status.value, check.detail) for check in report.checks],
    )
    report.values["skipped_images"] = list(found.skipped)
    report.values["images_calibrated_on"] = _count_calibrated_on(loaded, found)
    _print_doubts(report, trained)
    write_json(json_file, report.as_json())
    return 0 if report.passed else CHECK_FAILED


def _count_calibrated_on(artifact: Artifact, found: ImageSet) -> int:
    from thumbnet.models.image_folder import hash_image

    seen = set(artifact.manifest["quantization"].get("calibration_sha256", ()))
    return sum(hash_image(image) in seen for image in found.images) if seen else 0


def _print_doubts(report: Report, trained: TrainedModel) -> None:
    """Say what makes the accuracy less than it looks, or another network's."""
    if seen := report.values["images_calibrated_on"]:
        click.echo(f"{seen} of the images gave int8 its ranges; --exclude DIR leaves those of a folder out.")
    published, top1 = trained.spec.published_top1, report.values["pytorch_top1"]
    if published is None or top1 is None or trained.spec.classes not in (1000, 1001):
        return
    # Two standard errors of so many images; device and reference can't tell, for they get the same wrong input.
    if top1 < published / 100 - 2 * (0.25 / report.values["images"]) ** 0.5:
        click.echo(
            f"PyTorch float has top-1 {top1:.1%} where {published:.1f}% is published: the preprocessing or the labels"
            " may be another's; `thumbnet check` compares them."
        )
