"""`thumbnet test` on several devices: all at once, with a report that machines read, whatever becomes of each."""

import contextlib
import json
import shutil
import signal

import pytest

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.models.weights import BUNDLED_IMAGES
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

from ..processes import communicate, wait_until
from ..runtime_tests.served.farm import THUMBNET
from .test_junit_file import read_junit

DIGITS = "mobilenet_v1_0.25_digits"
IMAGES = ("--images", BUNDLED_IMAGES, "--limit", 3)
M4, OTHER_M4, M55 = (f"qemu_{name}" for name in ("mps2_an386", "netduinoplus2", "mps3_an547"))
emulated = pytest.mark.emulated
needs_tools = pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")


@pytest.fixture(scope="module")
def for_m4(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m4") / "digits"
    compile_network(NetworkFiles(DIGITS), get_board("mps2_an386"), folder)
    return folder


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A board that isn't there, and two names of one port."""
    file = tmp_path_factory.mktemp("desk") / "devices.toml"
    entry = '[devices.{}]\nboard = "nucleo_l4r5zi"\nkind = "serial"\nport = "{}"\n'
    ports = {"gone": "/dev/ttyNOTHERE", "again": "/dev/../dev/ttyNOTHERE"}
    file.write_text("".join(entry.format(*pair) for pair in ports.items()))
    return file


def _devices(*names):
    return [word for name in names for word in ("--device", name)]


@emulated
@needs_tools
def test_each_device_has_its_outcome(thumbnet, for_m4, desk, tmp_path):
    quarantine, junit, result = tmp_path / "quarantine.toml", tmp_path / "junit.xml", tmp_path / "result.json"
    quarantine.write_text('[[quarantine]]\nboard = "b_l475e_iot01a"\nreason = "needs another QEMU"\n')
    code, out, err = thumbnet(
        *("test", for_m4, *_devices(M4, OTHER_M4, "gone", "qemu_b_l475e_iot01a"), *IMAGES, "--devices", desk),
        *("--retries", 1, "--quarantine", quarantine, "--junit", junit, "--json", result),
    )
    assert code == 2, err
    root = read_junit(junit)
    assert (root.get("failures"), root.get("errors")) == ("0", "1")
    suites = {suite.get("name").split(" on ")[1]: suite for suite in root}
    checks = [case.get("name") for case in suites[M4]]
    assert len(list(suites[M4].iter("testcase"))) == 9 == len(list(suites[OTHER_M4].iter("testcase"))), checks
    retried = [fact.get("value") for fact in suites["gone"].iter("property") if fact.get("name") == "retried"]
    assert len(retried) == 1 and "/dev/ttyNOTHERE: can't be opened" in retried[0]
    assert suites["gone"].find("testcase/error").get("type") == "DeviceUnreachableError"
    skipped = suites["qemu_b_l475e_iot01a"].find("testcase/skipped")
    assert (skipped.get("type"), skipped.get("message")) == ("quarantine", "needs another QEMU")
    found = json.loads(result.read_text())["devices"]
    assert {name: device["status"] for name, device in found.items()} == {
        **{M4: "passed", OTHER_M4: "passed"},
        **{"gone": "error", "qemu_b_l475e_iot01a": "skipped"},
    }
    assert found[M4]["equal_to_reference"] and found[M4]["passed"] and not found["gone"]["passed"]
    assert "gone: tried again after: /dev/ttyNOTHERE" in err
    assert f"{DIGITS} on 4 devices" in out and f"{DIGITS} on {OTHER_M4}: 3 images" in out


@emulated
@needs_tools
def test_a_wrong_result_weighs_more_than_a_device_that_gives_none(thumbnet, for_m4, desk, tmp_path):
    broken, junit = tmp_path / "broken", tmp_path / "junit.xml"
    shutil.copytree(for_m4, broken)
    source = broken / "mobilenet_v1_0_25_digits_layers.c"
    text = source.read_text()
    body = text.index("void mobilenet_v1_0_25_digits_features_3_pointwise_0(")
    source.write_text(text[:body] + text[body:].replace(", -128, ", ", -120, ", 1))
    manifest = Artifact.load(for_m4).manifest
    write_manifest(broken, {key: value for key, value in manifest.items() if key not in ("format", "files")})
    options = ("--devices", desk, "--retries", 5, "--junit", junit)
    code, _, err = thumbnet("test", broken, *_devices(M4), *IMAGES, *options)
    assert code == 1 and "tried again" not in err, err
    failed = [case.get("name") for case in read_junit(junit).iter("testcase") if case.find("failure") is not None]
    assert {"golden vectors", "equal to the reference", "every layer equal"} <= set(failed)
    options = ("--devices", desk, "--junit", junit)
    assert thumbnet("test", broken, *_devices(M4, "gone"), *IMAGES, *options)[0] == 1
    assert read_junit(junit).get("errors") == "1"


def test_one_device_that_fails_is_one_line_and_a_junit_error(refused, for_m4, desk, tmp_path):
    junit = tmp_path / "junit.xml"
    line = refused("test", for_m4, *_devices("gone"), "--devices", desk, *IMAGES, "--junit", junit)
    assert "/dev/ttyNOTHERE: can't be opened" in line
    assert [case.get("name") for case in read_junit(junit).iter("testcase")] == ["device"]


@emulated
@needs_tools
def test_devices_in_quarantine_can_be_verified(thumbnet, refused, for_m4, tmp_path):
    quarantine, result = tmp_path / "quarantine.toml", tmp_path / "result.json"
    quarantine.write_text(f'[[quarantine]]\ndevice = "{M4}"\nreason = "was odd"\n')
    options = (*IMAGES, "--quarantine", quarantine, "--json", result)
    for verify, statuses in (((), ["skipped", "passed"]), (("--verify-quarantine",), ["passed", "skipped"])):
        assert thumbnet("test", for_m4, *_devices(M4, OTHER_M4), *options, *verify)[0] == 0
        found = json.loads(result.read_text())["devices"]
        assert [found[name]["status"] for name in (M4, OTHER_M4)] == statuses
    line = refused("test", for_m4, *_devices(OTHER_M4), *options, "--verify-quarantine")
    assert "names none of the devices" in line
    line = refused("test", for_m4, *_devices(M4), *IMAGES, "--verify-quarantine")
    assert "--verify-quarantine needs --quarantine FILE" in line


@pytest.mark.slow
@emulated
@needs_tools
def test_each_device_takes_the_artifact_for_its_core(thumbnet, refused, for_m4, tmp_path):
    assert thumbnet("compile", DIGITS, "--board", "mps3_an547", "-o", tmp_path / "m55")[0] == 0
    result = tmp_path / "result.json"
    places = ((for_m4, tmp_path / "m55"), (DIGITS,))
    counts = []
    for place in places:  # a bundled network is compiled for each
        code, _, err = thumbnet("test", *place, *_devices(M4, M55), *IMAGES, "--json", result)
        assert code == 0, err
        devices = json.loads(result.read_text())["devices"]
        counts.append([devices[name]["instructions_per_inference"] for name in (M4, M55)])
    assert counts[0] == counts[1]
    assert counts[0][1] < counts[0][0] / 3
    line = refused("test", *places[0], *_devices(M4), *IMAGES)
    assert "was compiled for mps3_an547 (cortex-m55), and none of the devices takes it" in line


@emulated
@needs_tools
def test_all_devices_of_a_board_are_taken(thumbnet, refused, for_m4, desk, tmp_path):
    result = tmp_path / "result.json"
    code, _, err = thumbnet("test", for_m4, "--all", "--board", "mps2_an386", *IMAGES, "--json", result)
    assert code == 0, err
    assert list(json.loads(result.read_text())["devices"]) == [M4]
    line = refused("test", for_m4, "--all", "--board", "rpi_pico", *IMAGES)
    assert "no device is a rpi_pico; a table [devices.NAME] in devices.toml adds one" in line
    both = refused("test", for_m4, "--all", "--board", "nucleo_l4r5zi", "--devices", desk, *IMAGES)
    assert "gone and again are both at /dev/../dev/ttyNOTHERE; name one of them" in both


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--all",), "--all and --board go together"),
        (("--all", "--board", "mps2_an386", "--device", M4), "name devices by --device, or by"),
        (("--all", "--board", "mps2_an386", "--tracker", "127.0.0.1:1"), "give one of them"),
        (_devices(M4, M55), "compile with --board mps3_an547"),
        (_devices(M4, "again", "gone"), "again and gone are both at"),
        ((*_devices(M4), "--quarantine", "none.toml"), "none.toml: can't be read"),
        ((*_devices(M4), "--junit", "none/junit.xml"), "the folder none does not exist"),
        ((*_devices(M4), "--retries", "-1"), "not in the range"),
    ],
)
def test_what_cant_be_is_one_line(refused, for_m4, desk, options, says):
    with contextlib.chdir(desk.parent):
        assert says in refused("test", for_m4, *IMAGES, *options)


def test_artifacts_that_cant_go_together_are_one_line(refused, for_m4, tmp_path):
    twin = shutil.copytree(for_m4, tmp_path / "twin")
    assert "are both for mps2_an386: which is" in refused("test", for_m4, twin, *_devices(M4), *IMAGES)
    line = refused("test", for_m4, *_devices("qemu_raspberry_pi_4"), *IMAGES)
    assert "compile with --board raspberry_pi_4" in line
    assert "stands alone" in refused("test", DIGITS, for_m4, *_devices(M4), *IMAGES)


@pytest.mark.slow
@emulated
@needs_tools
@pytest.mark.parametrize("devices", [(M4, OTHER_M4), (M4,)])
def test_ctrl_c_keeps_what_was_found(programs, for_m4, tmp_path, devices):
    junit, result = tmp_path / "junit.xml", tmp_path / "result.json"
    images = tmp_path / "images"
    for number in range(10):  # it is not done before the signal comes
        shutil.copytree(BUNDLED_IMAGES, images / str(number))
    command = ["test", for_m4, *_devices(*devices), "--images", images, "--junit", junit, "--json", result]
    with (tmp_path / "said").open("w") as said:
        process = programs.start([*THUMBNET, *command], stdout=said, stderr=said)
        wait_until(lambda: programs.alive("qemu-system-arm"), process)
        process.send_signal(signal.SIGINT)
        communicate(process)
    assert process.returncode == 130, (tmp_path / "said").read_text()
    assert not programs.alive()
    cases = [case for case in read_junit(junit).iter("testcase") if case.get("name") == "device"]
    assert [case.find("skipped").get("type") for case in cases] == ["stopped"] * len(devices)
    found = json.loads(result.read_text())
    found = found["devices"].values() if len(devices) > 1 else [found]
    assert [device["status"] for device in found] == ["stopped"] * len(devices)
    assert "thumbnet: stopped" in (tmp_path / "said").read_text()
