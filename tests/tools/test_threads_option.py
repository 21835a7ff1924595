"""``--threads`` on the command line: said in what is printed and in the JSON, and refused where there are none."""

import json

import pytest

from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

FILES = NetworkFiles("mobilenet_v1_0.25_digits", calibration=BUNDLED_FOLDER / "calibration", calibration_limit=4)
LINUX = ("--device", "qemu_raspberry_pi_4")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled") / "pi"
    compile_network(FILES, get_board("raspberry_pi_4"), folder)
    return folder


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "instructions (exact, one thread)"),
        (("--threads", 1), "instructions (exact, one thread)"),
        (("--threads", 2), "instructions (of 2 threads together, waiting included; runs differ by"),
    ],
)
def test_reports_say_how_many_threads(thumbnet, library, tmp_path, options, says):
    threads = options[1] if options else 1
    arguments = ("--images", BUNDLED_IMAGES, "--limit", 2, "--json", tmp_path / "test.json")
    code, out, _ = thumbnet("test", library, *LINUX, *arguments, *options)
    assert code == 0, out
    assert says in out
    report = json.loads((tmp_path / "test.json").read_text())
    assert report["threads"] == threads
    assert report["equal_to_reference"] is True
    code, out, _ = thumbnet("profile", library, *LINUX, "--json", tmp_path / "profile.json", *options)
    assert code == 0, out
    assert says.replace("instructions", "instructions of one inference") in " ".join(out.split())
    assert json.loads((tmp_path / "profile.json").read_text())["threads"] == threads


@pytest.mark.parametrize("command", ["test", "profile"])
def test_microcontrollers_have_one(refused, tmp_path, command):
    compile_network(FILES, get_board("mps2_an386"), tmp_path / "m4")
    images = ("--images", BUNDLED_IMAGES) if command == "test" else ()
    line = refused(command, tmp_path / "m4", "--device", "qemu_mps2_an386", *images, "--threads", 2)
    assert line.endswith("qemu_mps2_an386: a cortex-m4 runs a network in one thread; leave --threads 2 out")


@pytest.mark.parametrize("threads", ["0", "-1", "65", "two"])
def test_numbers_that_are_none(refused, tmp_path, threads):
    assert "--threads" in refused("profile", tmp_path, *LINUX, "--threads", threads)
