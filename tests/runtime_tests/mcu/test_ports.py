"""The firmware's ports: an image for every board, with each thing in the memory where it belongs, and emulated ones."""

import re
import struct
import subprocess
from dataclasses import replace

import pytest

from thumbnet.compile.errors import DoesNotFitError, ToolchainError
from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.firmware_sources import BOOT2_BYTES, boot_crc
from thumbnet.runtime_tests.mcu.identity_check import explain_setup
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.targets.board import Memory
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board, list_boards

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc")]

BARE = [board.name for board in list_boards() if board.family == "cortex-m"]
K = 1 << 10


def _qemu_version():
    said = subprocess.run(["qemu-system-arm", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"version (\d+)", said).group(1))


def _read(elf, section):
    out = elf.with_suffix(f"{section}.bin")
    subprocess.run(
        ["arm-none-eabi-objcopy", "-O", "binary", "-j", section, elf, out], capture_output=True, text=True, check=True
    )
    return out.read_bytes()


@pytest.mark.parametrize("name", BARE)
def test_every_microcontroller_has_a_firmware(name, tiny):
    board = get_board(name)
    image = build_firmware(tiny, board)
    at = image.symbols
    ram = next(bank for bank in board.ram_banks if bank.origin <= at["__stack_bottom"] < bank.end)
    assert ram.origin <= at["__stack_bottom"] < at["__stack_top"] <= at["__bss_end"] <= ram.end
    arena = next(bank for bank in board.ram_banks if bank.origin <= at["__arena_start"] < bank.end)
    assert at["__guard_start"] <= at["__arena_start"] < at["__arena_end"] <= at["__ram_end"] == arena.end
    assert board.flash.origin <= at["reset_handler"] < board.flash.end
    assert image.firmware_stack.bytes is not None and image.run_stack.bytes is not None


@pytest.mark.parametrize(
    "case",
    [
        ("nucleo_h743zi2", 64 * K, 0x2000_0000, 0x2000_0000),
        ("nucleo_h743zi2", 120 * K, 0x2000_0000, 0x2400_0000),
        ("nucleo_h743zi2", 500 * K, 0x2400_0000, 0x2000_0000),
        ("nucleo_f746zg", 200 * K, 0x2001_0000, 0x2000_0000),
        ("nucleo_f746zg", 280 * K, 0x2000_0000, 0x2000_0000),
        ("nucleo_l4r5zi", 300 * K, 0x2004_0000, 0x2000_0000),
        ("netduinoplus2", 112 * K, 0x2000_0000, 0x1000_0000),
    ],
)
def test_arena_and_data_lie_where_there_is_room(tmp_path, stand_in, case):
    name, arena_bytes, arena, data = case
    symbols = build_firmware(_with_arena(tmp_path, stand_in, arena_bytes), get_board(name)).symbols
    board = get_board(name)
    assert symbols["__stack_bottom"] == data
    assert symbols["__guard_start"] == (symbols["__bss_end"] if arena == data else arena)
    assert symbols["__arena_end"] - symbols["__arena_start"] == arena_bytes
    assert symbols["__ram_end"] in {bank.end for bank in board.ram_banks}
    assert arena <= symbols["__arena_start"]


def test_what_fits_in_no_memory_names_the_memory(tmp_path, stand_in):
    with pytest.raises(DoesNotFitError, match=r"need \d+ KiB of DTCM\+SRAM1\+SRAM2, nucleo_f746zg has 320 KiB"):
        build_firmware(_with_arena(tmp_path, stand_in, 310 * K), get_board("nucleo_f746zg"))


def _with_arena(folder, stand_in, arena_bytes, **manifest):
    header = stand_in.HEADER.replace("TINY_ARENA_BYTES 51", f"TINY_ARENA_BYTES {arena_bytes}")
    return stand_in.write_artifact(folder / "artifact", header=header, arena_bytes=arena_bytes, **manifest)


def test_the_memory_that_was_compiled_for_is_kept(tmp_path, stand_in):
    banks = [{"name": "SRAM1", "used_bytes": 51, "bytes": 128 * K}]
    chosen = {"board": "nucleo_h743zi2", "core": "cortex-m7"}
    memories = {"arena": "SRAM1", "stack": "DTCM", "banks": banks}
    artifact = stand_in.write_artifact(tmp_path / "a", **chosen, memories=memories)
    symbols = build_firmware(artifact, get_board("nucleo_h743zi2")).symbols
    assert 0x3000_0000 <= symbols["__arena_start"] < 0x3002_0000 == symbols["__ram_end"]
    # On another board of the core that name may mean another memory.
    assert build_firmware(artifact, get_board("nucleo_f746zg")).symbols["__arena_start"] < 0x2001_0000


def test_the_rp2040_boots_from_a_block_with_its_crc(tiny):
    elf = build_firmware(tiny, get_board("rpi_pico")).elf
    block = _read(elf, ".boot2")
    assert len(block) == BOOT2_BYTES + 4 and any(block[:BOOT2_BYTES])
    assert struct.unpack("<I", block[BOOT2_BYTES:]) == (boot_crc(block[:BOOT2_BYTES]),)
    # The catalogue's check value of CRC-32/MPEG-2, which the datasheet describes.
    assert boot_crc(b"123456789") == 0x0376_E6E7
    stack, reset = struct.unpack_from("<II", _read(elf, ".vectors"))
    symbols = build_firmware(tiny, get_board("rpi_pico")).symbols
    assert (stack, reset & ~1) == (symbols["__stack_top"], symbols["reset_handler"])


def test_the_rp2350_finds_its_image_definition(tiny):
    image = build_firmware(tiny, get_board("rpi_pico2"))
    assert image.symbols["image_definition"] - 0x1000_0000 < 4 * K
    # RP2350 datasheet, "Minimum viable image metadata".
    expected = (0xFFFFDED3, 0x10210142, 0x000001FF, 0, 0xAB123579)
    assert struct.unpack("<5I", _read(image.elf, ".image_definition")) == expected


@pytest.mark.parametrize(("board", "clock_hz"), [("nucleo_f446re", 216_500_000), ("rpi_pico", 133_000_000)])
def test_a_clock_that_the_chip_cant_have_is_told(tiny, board, clock_hz):
    with pytest.raises(ToolchainError, match="clock_hz is to be"):
        build_firmware(tiny, replace(get_board(board), clock_hz=clock_hz))


@pytest.mark.needs_tools("qemu-system-arm")
@pytest.mark.parametrize(("machine", "least_version"), [("netduinoplus2", 6), ("b_l475e_iot01a", 9)])
@pytest.mark.parametrize("shortcut", [True, False])
def test_an_emulated_stm32_computes_and_counts_the_same(tiny, stand_in, machine, least_version, shortcut):
    if _qemu_version() < least_version:
        pytest.skip(f"needs QEMU {least_version} for {machine}")
    images = stand_in.make_images(4)
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(tiny)
        expected = session.measure(images[0], 1).samples
    with MicrocontrollerSession(get_device(f"qemu_{machine}"), shortcut=shortcut) as session:
        session.load(tiny)
        assert session.identity.missing  # no clock is modelled: every wait has ended by itself
        assert session.setup_fault is None
        outputs = [session.run(image).tolist() for image in images]
        assert outputs == [stand_in.compute_pool(image).tolist() for image in images]
        assert session.self_test().mismatch is None
        assert session.measure(images[0], 1).samples == expected
        missing = session.identity
    real = Device("desk", session.device.board, "serial", address="/dev/ttyACM0")
    assert re.search(r"did not come, the core does not run at \d+,000,000 Hz", explain_setup(real, missing))


@pytest.mark.needs_tools("qemu-system-arm")
@pytest.mark.parametrize(
    ("arena_bytes", "memories"), [(100 * K, {}), (51, {"arena": "CCM", "stack": "SRAM1", "banks": []})]
)
def test_nothing_lies_in_a_memory_that_the_emulator_lacks(tmp_path, stand_in, arena_bytes, memories):
    compiled = {"board": "netduinoplus2", **({"memories": memories} if memories else {})}
    artifact = _with_arena(tmp_path, stand_in, arena_bytes, **compiled)
    ccm = next(bank for bank in get_board("netduinoplus2").ram_banks if bank.name == "CCM")
    in_ccm = [name for name in ("__stack_bottom", "__arena_start") if _lies_in(ccm, artifact, name)]
    assert in_ccm == ["__arena_start" if memories else "__stack_bottom"]  # on a real board
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(get_device("qemu_netduinoplus2")) as session:
        session.load(artifact)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()


def _lies_in(bank, artifact, name):
    return bank.origin <= build_firmware(artifact, get_board("netduinoplus2")).symbols[name] < bank.end


@pytest.mark.needs_tools("qemu-system-arm")
def test_memory_that_isnt_there_is_a_fault_that_is_told(tiny):
    board = replace(get_board("netduinoplus2"), ram=Memory("SRAM", 0x2000_0000, 64 * K), other_ram=(), arena_in=None)
    board = replace(board, other_ram=(Memory("NONE", 0x6000_0000, 64 * K),), arena_in="NONE")
    with (
        MicrocontrollerSession(Device("desk", board, "emulated")) as session,
        pytest.raises(DeviceFaultError, match="bus fault of address 0x6000"),
    ):
        session.load(tiny)
