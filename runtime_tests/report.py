"""What a test run found."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Status(Enum):
    """The closed set of outcomes of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """One check.

    Parameters
    ----------
    name : str
        What was checked.
    status : Status
        How it went.
    detail : str
        One line: the numbers, or the reason for skipping.
    """

    name: str
    status: Status
    detail: str


@dataclass
class Report:
    """All checks of one artifact on one device, and the numbers they rest on.

    Parameters
    ----------
    checks : list of CheckResult
        In the order made.
    values : dict
        Figures by name, for JSON; those that could not be had are None.
    """

    checks: list[CheckResult] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, status: Status, detail: str) -> None:
        """Append a check."""
        self.checks.append(CheckResult(name, status, detail))

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status is not Status.FAILED for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        checks = [{"name": check.name, "status": check.status.value, "detail": check.detail} for check in self.checks]
        return {**self.values, "passed": self.passed, "checks": checks}
