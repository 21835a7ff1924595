"""Image files, drives of boot loaders, OpenOCD, pyOCD and commands of one's own."""

import os
import shutil
import stat
import struct
import subprocess
import sys
import types

import pytest

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.errors import FlashError
from thumbnet.runtime_tests.mcu import flash_board
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.image_files import formats_for, uf2_blocks, write_image
from thumbnet.targets.flash_way import FlashWay
from thumbnet.targets.registry import get_board

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc")]

NETDUINO, PICO = get_board("netduinoplus2"), get_board("rpi_pico")


# ---------------------------------------------------------------- files


def test_all_formats_hold_the_same_bytes(tmp_path, tiny):
    image = build_firmware(tiny, PICO)
    files = {form: write_image(image, PICO, form, tmp_path / f"x.{form}") for form in formats_for(PICO)}
    assert set(files) == {"elf", "hex", "bin", "uf2"} and not [path for path in tmp_path.iterdir() if "-" in path.name]
    content = files["bin"].read_bytes()
    again = tmp_path / "again.bin"
    subprocess.run(["arm-none-eabi-objcopy", "-I", "ihex", "-O", "binary", files["hex"], again], check=True)
    assert again.read_bytes() == content
    blocks = files["uf2"].read_bytes()
    assert len(blocks) % 512 == 0
    found = b""
    for number in range(len(blocks) // 512):
        block = blocks[512 * number : 512 * (number + 1)]
        # The UF2 specification's words, in order.
        assert struct.unpack_from("<8I", block) == (
            *(0x0A324655, 0x9E5D5157, 0x2000, 0x1000_0000 + 256 * number),
            *(256, number, len(blocks) // 512, 0xE48BFF56),
        )
        assert block[-4:] == struct.pack("<I", 0x0AB16F30)
        found += block[32 : 32 + 256]
    assert found[: len(content)] == content and not any(found[len(content) :])


def test_a_format_that_a_board_hasnt_is_refused(tmp_path, tiny):
    assert formats_for(NETDUINO) == ("elf", "hex", "bin") and formats_for(get_board("mps3_an547")) == ("elf", "hex")
    with pytest.raises(ToolchainError, match="netduinoplus2: its firmware has no uf2 file; there is elf, hex, bin"):
        write_image(build_firmware(tiny, NETDUINO), NETDUINO, "uf2", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_uf2_of_nothing_is_nothing():
    assert uf2_blocks(b"", 0, 1) == b""


# ---------------------------------------------------------------- drives


def _drive(folder, board_id="RPI-RP2"):
    folder.mkdir(parents=True)
    (folder / "INFO_UF2.TXT").write_text(f"UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: {board_id}\n")
    return folder


def test_a_drive_is_found_by_its_label_and_gets_the_file(tmp_path, tiny, monkeypatch):
    drive = _drive(tmp_path / "media" / "me" / "RPI-RP2")
    monkeypatch.setattr(flash_board, "_DRIVES", (str(tmp_path / "media"),))
    image = build_firmware(tiny, PICO)
    flash_board.flash_board(FlashWay("uf2", "RPI-RP2"), PICO, image)
    assert (drive / "firmware.uf2").read_bytes() == write_image(image, PICO, "uf2", tmp_path / "y").read_bytes()


def test_the_drive_of_another_chip_gets_nothing(tmp_path, tiny):
    drive = _drive(tmp_path / "drive", "RP2350")
    with pytest.raises(FlashError, match="the chip there is RP2350, rpi_pico has RPI-RP2; nothing was flashed"):
        flash_board.flash_board(FlashWay("uf2", str(drive)), PICO, build_firmware(tiny, PICO))
    assert len(list(drive.iterdir())) == 1


def test_a_drive_that_doesnt_come_is_told(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(flash_board, "UF2_WAIT_S", 0.1)
    with pytest.raises(FlashError, match=r"no drive of a boot loader came in 0\.1 s; plug rpi_pico in"):
        flash_board.flash_board(FlashWay("uf2", str(tmp_path / "none")), PICO, build_firmware(tiny, PICO))
    with pytest.raises(FlashError, match="netduinoplus2 has no boot loader that takes UF2"):
        flash_board.flash_board(FlashWay("uf2", str(tmp_path)), NETDUINO, build_firmware(tiny, NETDUINO))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_drive_that_ends_in_the_middle_is_told(tmp_path, tiny):
    drive = _drive(tmp_path / "drive")
    (drive / "firmware.uf2").symlink_to("/dev/full")
    with pytest.raises(FlashError, match=r"No space left on device after 0 of [\d,]+ bytes; plug the board in anew"):
        flash_board.flash_board(FlashWay("uf2", str(drive)), PICO, build_firmware(tiny, PICO))


# ---------------------------------------------------------------- OpenOCD and commands


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Give a program of any name that does what a shell script says."""

    def make(name, script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder

    return make


def test_openocd_gets_script_and_image(tool, tmp_path, tiny):
    tool("openocd", f'echo "$@" > {tmp_path}/said')
    image = build_firmware(tiny, NETDUINO)
    flash_board.flash_board(FlashWay("openocd", "board/x.cfg"), NETDUINO, image)
    said = (tmp_path / "said").read_text()
    assert said == f"-f board/x.cfg -c program {{{image.elf}}} verify reset exit\n"
    flash_board.flash_board(FlashWay("openocd", "board/x.cfg", "066C"), NETDUINO, image)
    said = (tmp_path / "said").read_text()
    assert said == f"-f board/x.cfg -c adapter serial 066C -c program {{{image.elf}}} verify reset exit\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo '** Verify Failed **' >&2; exit 1", "what is on the board is not what was sent"),
        ("echo 'Error: libusb_open() failed with LIBUSB_ERROR_BUSY' >&2; exit 1", "another program holds the probe"),
        ("echo 'Error: open failed' >&2; exit 1", "no probe is there"),
        ("echo 'Warn : UNEXPECTED idcode: 0x2ba01477' >&2; exit 1", "another chip is there than the script is for"),
        ("echo first; echo 'Error: something new' >&2; echo bye >&2; exit 1", "Error: something new"),
        ("exit 3", "it said nothing"),
    ],
)
def test_what_openocd_says_becomes_a_line(tool, tiny, script, message):
    tool("openocd", script)
    with pytest.raises(FlashError, match=message) as caught:
        flash_board.flash_board(FlashWay("openocd", "board/x.cfg"), NETDUINO, build_firmware(tiny, NETDUINO))
    assert str(caught.value).startswith("openocd board/x.cfg: ") and "\n" not in str(caught.value)


def test_a_command_of_ones_own_gets_the_files_it_names(tool, tmp_path, tiny):
    tool("myflash", f'cp "$2" {tmp_path}/image; echo "$1" > {tmp_path}/said')
    image = build_firmware(tiny, NETDUINO)
    flash_board.flash_board(FlashWay("command", "myflash 'two words' {bin}"), NETDUINO, image)
    assert (tmp_path / "said").read_text() == "two words\n"
    assert (tmp_path / "image").read_bytes() == write_image(image, NETDUINO, "bin", tmp_path / "z").read_bytes()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("myflash {elf}", "myflash ended with 4: error: no board"),
        ("not_there {elf}", "not_there: the command of flash is not installed"),
        ("myflash {uf2}", "netduinoplus2: its firmware has no uf2 file for the command"),
        ("myflash 'x {elf}", "the command of flash can't be read: No closing quotation"),
    ],
)
def test_a_command_that_fails_becomes_a_line(tool, tiny, command, message):
    tool("myflash", "echo error: no board >&2; echo >&2; exit 4")
    with pytest.raises(FlashError, match=message):
        flash_board.flash_board(FlashWay("command", command), NETDUINO, build_firmware(tiny, NETDUINO))


# ---------------------------------------------------------------- pyOCD


class FakeProbe:
    """What pyOCD's session does, on bytes instead of a board."""

    def __init__(self, part=0xC24, fault=None, damage=False, unique_id="066C"):
        self.part, self.fault, self.damage, self.unique_id = part, fault, damage, unique_id
        self.flash, self.asked, self.resets = {}, None, 0
        self.target = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read32(self, address):
        assert address == 0xE000_ED00
        return 0x4100_0001 | self.part << 4

    def read_memory_block8(self, origin, size):
        data = bytearray(self.flash["data"][:size])
        data[7] ^= self.damage
        return list(data)

    def reset(self):
        self.resets += 1


@pytest.fixture
def pyocd(monkeypatch, tmp_path):
    def install(*probes):
        class Error(RuntimeError):
            pass

        class FileProgrammer:
            def __init__(self, session):
                self.session = session

            def program(self, path):
                probe = self.session
                if probe.fault:
                    raise Error(probe.fault)
                out = tmp_path / "sent.bin"
                subprocess.run([shutil.which("arm-none-eabi-objcopy"), "-O", "binary", path, out], check=True)
                probe.flash["data"] = out.read_bytes()

        def find(blocking, unique_id):
            return [probe for probe in probes if (unique_id or "").lower() in probe.unique_id.lower()]

        def choose(blocking, unique_id, return_first, options):
            found = find(blocking, unique_id)
            for probe in found[:1]:
                probe.asked = options
            return found[0] if found else None

        helper = types.SimpleNamespace(session_with_chosen_probe=choose, get_all_connected_probes=find)
        parts = {
            "pyocd": {},
            "pyocd.core": {},
            "pyocd.core.exceptions": {"Error": Error},
            "pyocd.core.helpers": {"ConnectHelper": helper},
            "pyocd.flash": {},
            "pyocd.flash.file_programmer": {"FileProgrammer": FileProgrammer},
        }
        for name, values in parts.items():
            module = types.ModuleType(name)
            vars(module).update(values)
            monkeypatch.setitem(sys.modules, name, module)
        return probes[0] if probes else None

    return install


def test_pyocd_programs_compares_and_starts(pyocd, tiny):
    probe = pyocd(FakeProbe())
    flash_board.flash_board(FlashWay("pyocd", "stm32f405"), NETDUINO, build_firmware(tiny, NETDUINO))
    assert (probe.asked, probe.resets) == ({"target_override": "stm32f405"}, 1)


def test_pyocd_takes_the_probe_that_is_named(pyocd, tiny):
    first, second = FakeProbe(unique_id="066A"), FakeProbe(unique_id="066C")
    pyocd(first, second)
    image = build_firmware(tiny, NETDUINO)
    flash_board.flash_board(FlashWay("pyocd", probe="066C"), NETDUINO, image)
    assert (first.resets, second.resets) == (0, 1)
    with pytest.raises(FlashError, match=r"pyocd: 2 probes are there \(066A, 066C\); say by probe = "):
        flash_board.flash_board(FlashWay("pyocd"), NETDUINO, image)
    with pytest.raises(FlashError, match="pyocd: no probe 77 is there"):
        flash_board.flash_board(FlashWay("pyocd", probe="77"), NETDUINO, image)
    assert (first.resets, second.resets) == (0, 1)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (None, "no probe is there"),
        (FakeProbe(part=0xC27), "the core there is cortex-m7, netduinoplus2 has a cortex-m4; nothing was flashed"),
        (FakeProbe(part=0x123), r"an unknown one \(part 0x123\)"),
        (FakeProbe(fault="flash erase\nfailure"), "pyocd: flash erase failure while the image was loaded"),
        (FakeProbe(damage=True), "what is on the board from 0x08000007 on is not what was sent"),
    ],
)
def test_what_pyocd_says_becomes_a_line(pyocd, tiny, probe, message):
    pyocd(*([] if probe is None else [probe]))
    with pytest.raises(FlashError, match=message) as caught:
        flash_board.flash_board(FlashWay("pyocd"), NETDUINO, build_firmware(tiny, NETDUINO))
    assert "\n" not in str(caught.value)


def test_without_pyocd_a_line_says_how_to_get_it(monkeypatch, tiny):
    monkeypatch.setitem(sys.modules, "pyocd.core.exceptions", None)
    with pytest.raises(FlashError, match=r"pip install 'thumbnet\[probe\]'"):
        flash_board.flash_board(FlashWay("pyocd"), NETDUINO, build_firmware(tiny, NETDUINO))
