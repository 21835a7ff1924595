"""JUnit XML of tests on devices: valid, whole, and with everything a reader shows in its place."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from thumbnet.runtime_tests.device_runs import DeviceRun
from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.report import Status
from thumbnet.targets.device import Device
from thumbnet.targets.registry import get_board
from thumbnet.tools.junit_file import write_junit

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)


def read_junit(file):
    """Return the root of a valid file."""
    root = etree.parse(file).getroot()
    SCHEMA.assertValid(root)
    for part in (root, *root.iter("testsuite")):
        cases = list(part.iter("testcase"))
        counted = {"tests": len(cases)}
        counted |= {name: len(list(part.iter(kind))) for name, kind in (("failures", "failure"), ("errors", "error"))}
        if part.tag == "testsuite":
            counted["skipped"] = len(list(part.iter("skipped")))
        assert {name: int(part.get(name)) for name in counted} == counted
    return root


def _run(name, *checks, **fields):
    run = DeviceRun(Device(name, get_board("rpi_pico"), "serial", address="/dev/none"), **fields)
    for check in checks:
        run.report.add(*check)
    return run


@pytest.fixture
def written(tmp_path):
    def write(*runs):
        write_junit(tmp_path / "junit.xml", "net_0.25", runs, STARTED)
        return read_junit(tmp_path / "junit.xml")

    return write


def test_each_outcome_has_its_element(written):
    checks = (("bytes", Status.PASSED, "all"), ("top-1", Status.FAILED, "3 %"), ("stack", Status.SKIPPED, "no stack"))
    root = written(
        _run("a.b", *checks, ended=True, seconds=1.23456),
        _run("gone", ended=True, error=DeviceUnreachableError("gone: no answer"), seconds=2000.0),
        _run("left_out", skipped_because="its cable is loose"),
        _run("slow", checks[0], seconds=9.0),
    )
    found = {
        (case.get("classname"), case.get("name")): [(part.tag, part.get("type"), part.get("message")) for part in case]
        for case in root.iter("testcase")
    }
    assert found == {
        ("thumbnet.net_0_25.a_b", "bytes"): [],
        ("thumbnet.net_0_25.a_b", "top-1"): [("failure", "check", "3 %")],
        ("thumbnet.net_0_25.a_b", "stack"): [("skipped", "check", "no stack")],
        ("thumbnet.net_0_25.gone", "device"): [("error", "DeviceUnreachableError", "gone: no answer")],
        ("thumbnet.net_0_25.left_out", "device"): [("skipped", "quarantine", "its cable is loose")],
        ("thumbnet.net_0_25.slow", "bytes"): [],
        ("thumbnet.net_0_25.slow", "device"): [("skipped", "stopped", "stopped before it was done")],
    }
    assert [suite.get("time") for suite in root] == ["1.235", "2000.0", "0.0", "9.0"]
    assert (root.get("time"), root[0].get("timestamp")) == ("2000.0", "2026-01-02T03:04:05")
    facts = {entry.get("name"): entry.get("value") for entry in root[0].iter("property")}
    assert facts == {"model": "net_0.25", "device": "a.b", "board": "rpi_pico", "core": "cortex-m0plus"}


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31m", "\ud800", "a\nb", "]]>", "<&\"'>", "\ufffe", "ß漢", "x" * 9000])
def test_any_text_makes_a_valid_file(written, text):
    error, checks = DeviceUnreachableError(text), [(text, Status.FAILED, text)]
    root = written(_run(text, *checks, error=error, retried=[error], ended=True), _run("q", skipped_because=text))
    assert len(list(root.iter("testcase"))) == 3
