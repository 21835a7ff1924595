"""What tests on devices found, for people and programs."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import click

from thumbnet.models.weights import TrainedModel
from thumbnet.runtime_tests.device_runs import DeviceRun, RunStatus
from thumbnet.runtime_tests.report import Report, Status
from thumbnet.tools.error_line import error_line
from thumbnet.tools.output import print_table

#: Exit codes where a check failed, and where no check did but a device.
CHECK_FAILED, DEVICE_FAILED = 1, 2


def print_run(run: DeviceRun, title: str, trained: TrainedModel) -> None:
    """Print the checks of one device, and what makes their accuracy less than it looks."""
    if run.report.checks:
        checks = [(check.name, check.status.value, check.detail) for check in run.report.checks]
        print_table(title, ["check", "status", "result"], checks)
    for error in run.retried:
        click.echo(f"{run.device.name}: tried again after: {error_line(error)}", err=True)
    if run.ended and run.error is None and run.skipped_because is None:
        _print_doubts(run.report, trained)


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


def print_summary(model: str, runs: Sequence[DeviceRun]) -> None:
    """Print a line a device; with ``--debug`` where in the code each one's error was raised."""
    print_table(
        f"{model} on {len(runs)} devices",
        ["device", "board", "status", "checks passed", "what"],
        [(run.device.name, run.device.board.name, run.status.value, _count(run), _explain(run)) for run in runs],
    )
    if click.get_current_context().find_root().params.get("debug"):
        for run in runs:
            if run.error is not None:
                traceback.print_exception(run.error)


def _count(run: DeviceRun) -> str | None:
    made = [check.status for check in run.report.checks if check.status is not Status.SKIPPED]
    return f"{made.count(Status.PASSED)} of {len(made)}" if made else None


def _explain(run: DeviceRun) -> str | None:
    if run.skipped_because is not None:
        return run.skipped_because
    wrong = [f"{check.name}: {check.detail}" for check in run.report.checks if check.status is Status.FAILED]
    said = [*wrong, *([] if run.error is None else [error_line(run.error)])]
    return "; ".join(said) or None


def run_as_json(run: DeviceRun) -> dict[str, Any]:
    """Return what became of a test on a device as plain JSON values."""
    return {
        **run.report.as_json(),
        "passed": run.status is RunStatus.PASSED,
        "status": run.status.value,
        "error": None if run.error is None else error_line(run.error),
        "retried": [error_line(error) for error in run.retried],
        "skipped_because": run.skipped_because,
    }


def exit_code(runs: Sequence[DeviceRun]) -> int:
    """Return the command's exit code: a wrong result weighs more than a device that gives none."""
    statuses = {run.status for run in runs}
    if RunStatus.FAILED in statuses:
        return CHECK_FAILED
    return DEVICE_FAILED if RunStatus.ERROR in statuses else 0
