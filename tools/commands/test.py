"""`thumbnet test`: prove an artifact on a device."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thumbnet.tools.commands.devices import choose_devices, devices_option, farm_options, threads_option
from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.skipped_images import print_skipped, strict_option

if TYPE_CHECKING:
    from thumbnet.compile.artifact import Artifact
    from thumbnet.models.image_folder import ImageSet
    from thumbnet.models.weights import TrainedModel
    from thumbnet.runtime_tests.report import Report
    from thumbnet.runtime_tests.session import DeviceSession
    from thumbnet.targets.device import Device

#: Exit code where the device worked and a check failed.
CHECK_FAILED = 1


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", help="Name of a device, see `thumbnet devices`.")
@farm_options
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
    device: str | None,
    tracker: str | None,
    board: str | None,
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
    With --tracker, on all boards of a type that answer there, one after the other.
    The exit code is 0 where every check passes, 1 where one fails, 2 where the device or the input is at fault.
    """
    from thumbnet.compile.artifact import Artifact

    targets = choose_devices([device] if device else [], tracker, board, devices_file)
    loaded = Artifact.load(artifact)

    model = loaded.manifest["model"]
    what = f"{model} on {targets[0].name if device else f'{board} at {tracker}'}"
    with show_steps(what) as shown:
        shown.step("loading PyTorch and TVM")
        from thumbnet.models.image_folder import load_images
        from thumbnet.tools.network import check_core, load_trained

        check_core(loaded, targets[0])
        trained = load_trained(loaded)
        classes = trained.spec.classes - trained.preprocessing.label_offset
        shown.step("looking at the images")
        found = load_images(images, limit=limit, strict=strict, classes=classes, exclude=exclude)
    print_skipped(found.skipped)
    reports: dict[str, Report] = {}
    with contextlib.ExitStack() as opened:
        with show_steps(what) as shown:
            shown.step("opening the device")
            sessions = _open_answering(targets, threads, shown.step, opened)
        for session in sessions:
            reports[session.device.name] = _test_on(session, loaded, trained, found)
    json = {name: report.as_json() for name, report in reports.items()}
    write_json(json_file, {"devices": json} if tracker else json.popitem()[1])
    return 0 if all(report.passed for report in reports.values()) else CHECK_FAILED


def _open_answering(
    targets: Sequence[Device], threads: int, progress: Callable[[str], None], opened: contextlib.ExitStack
) -> list[DeviceSession]:
    """Open all devices that answer and hold them, so that no two of a tracker are the same; name those that don't."""
    from thumbnet.runtime_tests.errors import SessionError
    from thumbnet.runtime_tests.open_session import open_session

    sessions: list[DeviceSession] = []
    for target in targets:
        try:
            sessions.append(opened.enter_context(open_session(target, threads, progress)))
        except SessionError as error:
            if target is targets[-1] and not sessions:
                raise
            click.echo(f"{target.name}: {error}; it is left out", err=True)
    return sessions


def _test_on(session: DeviceSession, loaded: Artifact, trained: TrainedModel, found: ImageSet) -> Report:
    """Test on one device, print the outcome and return it."""
    from thumbnet.runtime_tests.network_tests import run_tests

    what = f"{loaded.manifest['model']} on {session.device.name}"
    with show_steps(what, len(found.images)) as shown:
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
    return report


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
