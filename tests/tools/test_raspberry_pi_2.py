"""32-bit Arm, the whole way: C sources in a program of Linux, run by emulation and reached over TCP."""

import json
import shutil
import subprocess

import pytest

from thumbnet.compile.artifact import Artifact
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.targets.registry import get_board

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-linux-gnueabihf-gcc", "qemu-arm")]

CALIBRATION = ("--calibration", BUNDLED_FOLDER / "calibration", "--calibration-limit", 8)
NETWORKS = ("mobilenet_v1_0.25_digits", "mobilenet_v2_0.35_digits")


def compile_for_pi(thumbnet, name, folder, *options):
    code, out, err = thumbnet("compile", name, "--board", "raspberry_pi_2", *CALIBRATION, *options, "-o", folder)
    assert code == 0, err
    assert "C sources" in out
    footprint = Artifact.load(folder).manifest["footprint"]
    assert footprint["stack_bytes"] is None and "system's to give" in footprint["stack_unknown_because"]
    assert footprint["code_bytes"] > 5_000 and footprint["constant_bytes"] > 50_000
    return folder


def run_on(thumbnet, folder, device, *options):
    report = folder.with_suffix(".json")
    images = ("--images", BUNDLED_IMAGES, "--limit", 4)
    code, out, err = thumbnet("test", folder, "--device", device, *images, *options, "--json", report)
    assert code == 0, out + err
    values = json.loads(report.read_text())
    assert values["equal_to_reference"] is True and values["layers_different"] == []
    return values


@pytest.mark.parametrize("name", NETWORKS)
def test_bundled_networks_give_the_references_bytes(name, thumbnet, tmp_path):
    values = run_on(thumbnet, compile_for_pi(thumbnet, name, tmp_path / "a"), "qemu_raspberry_pi_2")
    assert values["measurement"]["kind"] == "instructions" and values["measurement"]["error"] == 0
    assert values["instructions_per_inference"] < 600_000
    assert values["ram_bytes"] > values["arena_bytes"] > 1024


def test_an_image_read_row_by_row_and_a_limit_on_ram(thumbnet, tmp_path):
    options = ("--stream-input", "--ram-limit", 9_000)
    folder = compile_for_pi(thumbnet, NETWORKS[0], tmp_path / "a", *options)
    assert run_on(thumbnet, folder, "qemu_raspberry_pi_2")["arena_bytes"] <= 9_000


def test_a_board_over_tcp_answers_in_seconds(thumbnet, tmp_path, programs):
    folder = compile_for_pi(thumbnet, NETWORKS[0], tmp_path / "a")
    board = get_board("raspberry_pi_2")
    elf = build_firmware(Artifact.load(folder), board).elf
    server = programs.start(
        [shutil.which("qemu-arm"), "-cpu", board.qemu, elf, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE
    )
    address = server.stdout.readline().decode().split()[2]
    devices = tmp_path / "devices.toml"
    devices.write_text(f'[devices.my_pi]\nboard = "raspberry_pi_2"\nkind = "tcp"\naddress = "{address}"\n')
    values = run_on(thumbnet, folder, "my_pi", "--devices", devices)
    assert values["measurement"]["kind"] == "seconds on the board"
    assert 0 < values["seconds_per_inference"] < 10
    code, out, _ = thumbnet("profile", folder, "--device", "my_pi", "--devices", devices)
    assert code == 0 and "neon32" in out


def test_bench_of_a_network_with_random_weights(thumbnet, tmp_path):
    code, out, _ = thumbnet(
        *("bench", "--board", "raspberry_pi_2", "--network", "mobilenet_v2_0.35_96"),
        *("-o", tmp_path / "bench", "--json", tmp_path / "rows.json"),
    )
    assert code == 0, out
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert (row["core"], row["weights"], row["equal_to_reference"]) == ("cortex-a7", "random", True)
    assert all(layer["kernel"].startswith("neon32") for layer in row["layers"])
    # Vectors everywhere: no inner loop of single values.
    assert row["instructions_per_mac"] < 0.4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--quantize", "none"), "raspberry_pi_2 runs int8 networks only; leave --quantize none to boards that take a"),
        (("--tuning", "db"), "db: no records of stages there"),
        (("--ram-limit", "100"), "the leanest arena found takes"),
    ],
)
def test_what_the_board_does_not_take_is_one_line(options, says, refused, tmp_path):
    (tmp_path / "db").mkdir()
    options = [tmp_path / "db" if option == "db" else option for option in options]
    arguments = ("compile", NETWORKS[0], "--board", "raspberry_pi_2", *CALIBRATION, "-o", tmp_path / "a")
    assert says in refused(*arguments, *options)
    assert not (tmp_path / "a").exists()
