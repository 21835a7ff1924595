"""The check of the stack, where bound, measurement and manifest disagree."""

import pytest

from thumbnet.runtime_tests.cost_checks import check_stack
from thumbnet.runtime_tests.report import Report
from thumbnet.runtime_tests.session import MemoryUse


@pytest.mark.parametrize(
    ("worst", "measured", "limit", "status", "detail"),
    [
        (168, 168, None, "passed", "worst case 168 bytes, high-water mark 168 bytes"),
        (168, 172, None, "failed", "worst case 168 bytes, high-water mark 172 bytes"),
        (None, 64, None, "skipped", "worst case unknown (recursion: f -> f); high-water mark 64 bytes"),
        (None, None, None, "skipped", "neither bounded nor measured"),
        (168, 160, 168, "passed", "worst case 168 bytes, high-water mark 160 bytes"),
        (
            168,
            160,
            160,
            "failed",
            "worst case 168 bytes, high-water mark 160 bytes; the artifact's manifest says at most",
        ),
        (168, 172, 170, "failed", "high-water mark 172 bytes; the artifact's manifest says at most 170 bytes"),
        (None, 64, 170, "failed", "worst case unknown (recursion: f -> f); high-water mark 64 bytes; the artifact's"),
    ],
)
def test_a_deeper_run_than_the_worst_case_fails_with_the_numbers(worst, measured, limit, status, detail):
    report = Report()
    because = None if worst else "recursion: f -> f"
    check_stack(report, MemoryUse(1, 1, 1, worst, measured, because, limit))
    [check] = report.checks
    assert (check.name, check.status.value) == ("stack", status)
    assert detail in check.detail
    assert (report.values["stack_kind"] is None) == (worst is None)
