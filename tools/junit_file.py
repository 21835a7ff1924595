"""What tests on devices found, as JUnit XML: what Jenkins, GitLab and others show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from junitparser.junitparser import FinalResult

from thumbnet.runtime_tests.device_runs import DeviceRun, RunStatus
from thumbnet.runtime_tests.report import CheckResult, Status
from thumbnet.tools.error_line import error_line, printable
from thumbnet.tools.output import replace_file

#: What failed before, or instead of, a check.
DEVICE_CASE = "device"


def write_junit(file: Path | None, model: str, runs: Sequence[DeviceRun], started: datetime) -> None:
    """Write a suite a device with a case a check; do nothing where no file was asked for.

    A failed check is a failure, a device that failed an error, what was left out, or ended by somebody, skipped with
    the reason.

    Parameters
    ----------
    file : Path or None
        Replaced in one step.
    model : str
        The network's name.
    runs : sequence of DeviceRun
        What became of the devices.
    started : datetime
        When the tests began, with its time zone.
    """
    if file is None:
        return
    root = JUnitXml("thumbnet test")
    suites = [_suite(model, run, started) for run in runs]
    for suite in suites:
        root.append(suite)
    # Schemas know no count of skipped cases here.
    root.tests, root.failures, root.errors = (
        sum(getattr(suite, name) for suite in suites) for name in ("tests", "failures", "errors")
    )
    root.time = max((suite.time for suite in suites), default=0.0)
    replace_file(file, b"<?xml version='1.0' encoding='utf-8'?>\n" + root.tostring() + b"\n")


def _suite(model: str, run: DeviceRun, started: datetime) -> TestSuite:
    suite = TestSuite(printable(f"{model} on {run.device.name}"))
    suite.timestamp = started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    facts = {"model": model, "device": run.device.name, "board": run.device.board.name, "core": run.device.board.core}
    for name, value in facts.items():
        suite.add_property(name, printable(value))
    for error in run.retried:
        suite.add_property("retried", error_line(error))
    # Readers split class names at dots.
    name = ".".join(["thumbnet", *(printable(part).replace(".", "_") for part in (model, run.device.name))])
    suite.add_testcases([_case(name, check.name, _result(check)) for check in run.report.checks])
    if (result := _device_result(run)) is not None:
        suite.add_testcase(_case(name, DEVICE_CASE, result))
    suite.time = round(run.seconds, 3)
    return suite


def _case(class_name: str, name: str, result: FinalResult | None) -> TestCase:
    case = TestCase(printable(name), class_name)
    if result is not None:
        case.result = result
    return case


def _result(check: CheckResult) -> FinalResult | None:
    if check.status is Status.PASSED:
        return None
    kind = Failure if check.status is Status.FAILED else Skipped
    return kind(printable(check.detail), "check")


def _device_result(run: DeviceRun) -> FinalResult | None:
    if run.skipped_because is not None:
        return Skipped(printable(run.skipped_because), "quarantine")
    if run.error is not None:
        return Error(error_line(run.error), type(run.error).__name__)
    return Skipped("stopped before it was done", "stopped") if run.status is RunStatus.STOPPED else None
