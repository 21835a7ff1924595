"""`thumbnet test`: prove an artifact on devices."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thumbnet.tools.commands.devices import choose_devices, devices_option, farm_options, threads_option
from thumbnet.tools.output import check_place, json_option, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.skipped_images import print_skipped, strict_option

if TYPE_CHECKING:
    from thumbnet.runtime_tests.device_runs import DeviceRun
    from thumbnet.runtime_tests.session import DeviceSession
    from thumbnet.targets.device import Device
    from thumbnet.tools.device_tests import DeviceTests


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(file_okay=False))
@click.option("--device", "names", multiple=True, help="Name of a device, see `thumbnet devices`; may be repeated.")
@click.option(
    "--all", "every", is_flag=True, help="With --board: all devices of that type that `thumbnet devices` has."
)
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
@click.option(
    "--retries",
    type=click.IntRange(min=0, max=100),
    default=0,
    show_default=True,
    help="How often a device that does not answer or can't be flashed is tried again; a wrong result never is.",
)
@click.option(
    "--quarantine",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of devices to leave out: a [[quarantine]] with device or board, and reason.",
)
@click.option("--verify-quarantine", is_flag=True, help="Test those that --quarantine names, and leave the others out.")
@click.option(
    "--junit",
    "junit_file",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=check_place,
    help="Also write the result to this file as JUnit XML: a suite a device, a case a check.",
)
@strict_option
@threads_option
@devices_option
@json_option
def test(
    artifacts: Sequence[str],
    names: Sequence[str],
    every: bool,
    tracker: str | None,
    board: str | None,
    images: Path,
    limit: int | None,
    exclude: Path | None,
    retries: int,
    quarantine: Path | None,
    verify_quarantine: bool,
    junit_file: Path | None,
    strict: bool,
    threads: int,
    devices_file: Path | None,
    json_file: Path | None,
) -> int:
    """Run images through the network in ARTIFACT on a device, and check what comes out.

    Bytes against the reference, classes against PyTorch and the labels, instructions or seconds, RAM, flash and stack.
    With several --device, with --all or --tracker, on all of them at once. Each takes the ARTIFACT that was compiled
    for its board or core; the name of a bundled network is compiled for every board among them.
    The exit code is 0 where every check passes, 1 where one fails, 2 where a device or the input is at fault. Ctrl-C
    keeps what was found until then.
    """
    from thumbnet.tools.device_results import exit_code

    targets = choose_devices(names, tracker, board, devices_file, every=every)
    runs = _leave_out(targets, quarantine, verify_quarantine)
    several = len(runs) > 1 or every or tracker is not None
    what = targets[0].name if len(targets) == 1 else f"{len(targets)} devices"
    with show_steps(f"{Path(artifacts[0]).name} on {what}") as shown:
        shown.step("loading PyTorch and TVM")
        from thumbnet.models.image_folder import load_images
        from thumbnet.runtime_tests.run_folder import run_folder
        from thumbnet.tools.artifact_choice import choose_artifacts
        from thumbnet.tools.device_tests import DeviceTests, open_answering

        chosen = choose_artifacts(artifacts, targets, run_folder() / "compiled", shown.step)
        shown.step("looking at the images")
        tests = DeviceTests.of(
            chosen,
            lambda classes: load_images(images, limit=limit, strict=strict, classes=classes, exclude=exclude),
        )
    print_skipped(tests.images.skipped)
    what = f"{tests.model} on {what}"
    with contextlib.ExitStack() as opened:
        held: dict[str, DeviceSession] = {}
        if tracker is not None:
            with show_steps(what) as shown:
                shown.step("opening the devices")
                held = open_answering(runs, threads, shown.step, opened)
        started = datetime.now(UTC)
        total = len(tests.images.images) * sum(run.skipped_because is None for run in runs)
        try:
            with show_steps(what, total) as shown:
                tests.run(runs, shown, held=held, threads=threads, retries=retries)
        finally:
            _report(tests, runs, started, several=several, json_file=json_file, junit_file=junit_file)
    error = runs[0].error
    if not several and error is not None and runs[0].report.passed:
        raise error
    return exit_code(runs)


def _report(
    tests: DeviceTests,
    runs: Sequence[DeviceRun],
    started: datetime,
    *,
    several: bool,
    json_file: Path | None,
    junit_file: Path | None,
) -> None:
    from thumbnet.tools.device_results import print_run, print_summary, run_as_json
    from thumbnet.tools.junit_file import write_junit

    for run in runs:
        print_run(run, tests.title(run.device), tests.network_on(run.device))
    if several:
        print_summary(tests.model, runs)
    found = {run.device.name: run_as_json(run) for run in runs}
    write_json(json_file, {"devices": found} if several else found.popitem()[1])
    write_junit(junit_file, tests.model, runs, started)


def _leave_out(devices: Sequence[Device], quarantine: Path | None, verify: bool) -> list[DeviceRun]:
    """Return a run for each device, with the reason where it is to be left out."""
    from thumbnet.runtime_tests.device_runs import DeviceRun
    from thumbnet.targets.quarantine import read_quarantine

    if quarantine is None:
        if verify:
            raise click.UsageError("--verify-quarantine needs --quarantine FILE")
        return [DeviceRun(device) for device in devices]
    reasons = read_quarantine(quarantine)
    runs = [DeviceRun(device, reasons.reason_for(device)) for device in devices]
    if not verify:
        return runs
    if all(run.skipped_because is None for run in runs):
        raise click.UsageError(f"--verify-quarantine: {quarantine} names none of the devices")
    return [DeviceRun(run.device, None if run.skipped_because else "is not in quarantine") for run in runs]
