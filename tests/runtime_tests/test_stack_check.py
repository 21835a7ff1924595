"""The check of the stack, where bound and measurement disagree."""

import pytest

from thumbnet.runtime_tests.network_tests import _check_stack
from thumbnet.runtime_tests.report import Report
from thumbnet.runtime_tests.session import MemoryUse


@pytest.mark.parametrize(
    ("worst", "measured", "status", "detail"),
    [
        (168, 168, "passed", "worst case 168 bytes, high-water mark 168 bytes"),
        (168, 172, "failed", "worst case 168 bytes, high-water mark 172 bytes"),
        (None, 64, "skipped", "worst case unknown (recursion: f -> f); high-water mark 64 bytes"),
        (None, None, "skipped", "neither bounded nor measured"),
    ],
)
def test_a_deeper_run_than_the_worst_case_fails_with_both_numbers(worst, measured, status, detail):
    report = Report()
    because = None if worst else "recursion: f -> f"
    _check_stack(report, MemoryUse(1, 1, 1, worst, measured, because))
    [check] = report.checks
    assert (check.name, check.status.value) == ("stack", status)
    assert detail in check.detail
    assert (report.values["stack_kind"] is None) == (worst is None)
