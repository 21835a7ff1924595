"""The firmware and its session on every emulated microcontroller."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.errors import ArtifactError, DoesNotFitError, ToolchainError
from thumbnet.runtime_tests import instruction_counter
from thumbnet.runtime_tests.errors import (
    DeviceFaultError,
    EmulatorMissingError,
    ProtocolError,
    SessionError,
)
from thumbnet.runtime_tests.mcu import microcontroller_session
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.identity_check import check_identity
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.mcu.transport import Transport
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")]

BOARDS = ["mps2_an385", "mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547"]


@pytest.fixture(scope="module", params=BOARDS)
def session(request, tiny):
    with MicrocontrollerSession(get_device(f"qemu_{request.param}")) as session:
        session.load(tiny)
        yield session


def test_identifies_itself(session):
    identity = session.identity
    assert (identity.model, identity.board) == ("tiny", session.device.board.name)
    assert (identity.input_bytes, identity.output_bytes, identity.layer_count) == (48, 3, 2)


def test_runs_images(session, stand_in):
    outputs = [session.run(image).tolist() for image in stand_in.make_images(8)]
    assert outputs == [stand_in.compute_pool(image).tolist() for image in stand_in.make_images(8)]
    assert len({tuple(output) for output in outputs}) > 1


def test_reads_every_layer(session, stand_in):
    image = stand_in.make_images(1)[0]
    layers = session.run_layers(image)
    assert list(layers) == ["scale", "pool"]
    np.testing.assert_array_equal(layers["scale"], stand_in.compute_scale(image))
    np.testing.assert_array_equal(layers["pool"], stand_in.compute_pool(image))


def test_counts_are_exact_and_repeat(session, stand_in):
    image = stand_in.make_images(1)[0]
    assert session.inexact_because is None
    measurement = session.measure(image, 3)
    assert (measurement.kind, measurement.error) == ("instructions", 0.0)
    assert len(set(measurement.samples)) == 1
    layers = session.profile(image)
    assert [layer.name for layer in layers] == ["scale", "pool"]
    # The whole is its layers, each without the few instructions of its selection, and calls between them.
    assert 0 < measurement.samples[0] - sum(layer.value for layer in layers) + 12 < 24


def test_self_test_and_memory(session):
    result = session.self_test()
    assert (result.vectors, result.mismatch) == (3, None)
    memory = session.memory_use()
    assert 51 <= memory.arena_bytes <= memory.ram_bytes - memory.stack_bytes
    assert 48 < memory.flash_bytes < 2000 < session.image.image_bytes
    assert 0 < memory.stack_measured_bytes <= memory.stack_bytes < 512


def test_refuses_another_shape(session):
    with pytest.raises(SessionError, match=r"takes an input \[4, 4, 3\] of int8, not \[4, 4, 1\] of int8"):
        session.run(np.zeros((4, 4, 1), np.int8))


COUNTED_LOOP = """
#include "tiny.h"
void tiny_scale(int8_t *data);
void tiny_pool(const int8_t *data, int8_t *out);
/* 1 + 100 * 3 + 1 instructions. */
__attribute__((naked)) void tiny_scale(int8_t *data) {
    (void)data;
    __asm volatile("movs r0, #100\\n1:\\nnop\\nsubs r0, #1\\nbne 1b\\nbx lr");
}
/* 1 + 7 * 4 + 1 instructions; a predicated one counts, whether it does anything or not. */
__attribute__((naked)) void tiny_pool(const int8_t *data, int8_t *out) {
    (void)data, (void)out;
    __asm volatile("movs r0, #7\\n1:\\nsubs r0, #1\\nit eq\\nmoveq r1, #3\\nbne 1b\\nbx lr");
}
extern const int8_t tiny_weights[48];
"""
BARE_CALLS = "__attribute__((naked)) void tiny_run_layer(uint32_t layer) { (void)layer; __asm volatile("
BARE_CALLS += '"cbz r0, 1f\\nb tiny_pool\\n1:\\nb tiny_scale"); }\n'
BARE_CALLS += '__attribute__((naked)) void tiny_run(void) { __asm volatile("b tiny_scale"); }\n'


@pytest.mark.parametrize("board", BOARDS)
def test_counts_a_hand_assembled_loop(board, tmp_path, stand_in):
    main = stand_in.MAIN[: stand_in.MAIN.index("void tiny_run_layer")] + BARE_CALLS
    artifact = stand_in.write_artifact(tmp_path / "a", main=main, layers=COUNTED_LOOP)
    with MicrocontrollerSession(get_device(f"qemu_{board}")) as session:
        session.load(artifact)
        image = stand_in.make_images(1)[0]
        # tiny_run: b, movs, 100 * (nop, subs, bne), bx
        assert session.measure(image, 2).samples == (303.0, 303.0)
        # cbz and b, or cbz, b: two instructions before each layer
        assert [layer.value for layer in session.profile(image)] == [2 + 302, 2 + 30]


@pytest.mark.parametrize("board", BOARDS)
def test_falls_back_to_the_timer(board, tmp_path, stand_in, monkeypatch):
    # Long enough that a wrong rate of the timer is more than its error.
    layers = COUNTED_LOOP.replace("#100", "#60000").replace("movs r0, #60000", "movw r0, #60000")
    main = stand_in.MAIN[: stand_in.MAIN.index("void tiny_run_layer")] + BARE_CALLS
    tiny = stand_in.write_artifact(tmp_path / "a", main=main, layers=layers)
    image = stand_in.make_images(1)[0]
    device = get_device(f"qemu_{board}")
    with MicrocontrollerSession(device) as session:
        session.load(tiny)
        exact = session.measure(image, 1).samples[0]

    def no_plugin(source):
        raise ToolchainError("gcc is not installed")

    monkeypatch.setattr(instruction_counter, "build_plugin", no_plugin)
    with MicrocontrollerSession(device) as session:
        session.load(tiny)
        assert session.inexact_because == "gcc is not installed"
        measurement = session.measure(image, 2)
        assert 0 < measurement.error < 200
        assert all(abs(sample - exact) <= measurement.error for sample in measurement.samples)


def test_self_test_finds_a_wrong_golden_vector(tmp_path, stand_in):
    outputs = np.stack([stand_in.compute_pool(image) for image in stand_in.make_images(3)])
    outputs[1, 2] ^= 1
    artifact = stand_in.write_artifact(tmp_path / "a", outputs=outputs)
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(artifact)
        result = session.self_test()
        assert (result.mismatch, result.output_index) == (1, 2)


class NoisyTransport(Transport):
    """Damages the first bytes of a message now and then, in either direction."""

    def __init__(self, inner):
        self.inner = inner
        self.writes = self.damaged = 0

    def open(self):
        self.inner.open()

    def close(self):
        self.inner.close()

    def read(self, n, timeout_s):
        return self.inner.read(n, timeout_s)

    def write(self, data, timeout_s):
        self.writes += 1
        if self.writes % 3 == 0:
            self.damaged += 1
            data = data[:4] + bytes([data[4] ^ 0x10 or 1]) + data[5:]
        self.inner.write(data, timeout_s)


def test_repeats_damaged_frames(tiny, stand_in):
    lines = []

    def wrap(inner):
        lines.append(NoisyTransport(inner))
        return lines[-1]

    with MicrocontrollerSession(get_device("qemu_mps2_an386"), wrap_transport=wrap) as session:
        session.load(tiny)
        for image in stand_in.make_images(5):
            assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
    assert lines[0].damaged >= 5


HANGS = '    while (data[0] == 77) {\n        __asm volatile("");\n    }\n    for (int i = 0; i < 48; i++) {'
FAULTS = (
    "    if (data[0] == 77) {\n        *(volatile int *)0xF0000000u = 1;\n    }\n    for (int i = 0; i < 48; i++) {"
)
# In large steps: QEMU lets Cortex-M4 and M7 write below their RAM, down to their code, which these hardly meet.
RECURSES = (
    "    if (data[0] == 77) {\n        volatile int *big = __builtin_alloca(2400000);\n        big[5] = 1;\n"
    "        tiny_scale(data);\n        data[0] = (int8_t)big[5];\n    }\n"
    "    for (int i = 0; i < 48; i++) {"
)


def make_trap(stand_in, folder, body):
    return stand_in.write_artifact(
        folder, layers=stand_in.LAYERS.replace("    for (int i = 0; i < 48; i++) {", body, 1)
    )


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(HANGS, "RUN began but did not end in 1 s; the firmware hangs", id="hangs"),
        pytest.param(FAULTS, "the core faulted: bus fault", id="faults"),
        pytest.param(RECURSES, "the core faulted", id="stack"),
    ],
)
def test_reports_what_goes_wrong(board, body, message, tmp_path, stand_in):
    artifact = make_trap(stand_in, tmp_path / "a", body)
    with MicrocontrollerSession(get_device(f"qemu_{board}"), run_timeout_s=1) as session:
        session.load(artifact)
        image = stand_in.make_images(1)[0]
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        image[0, 0, 0] = 77
        with pytest.raises(DeviceFaultError, match=message) as caught:
            session.run(image)
        assert "\n" not in str(caught.value)


def test_says_what_to_install(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmulatorMissingError, match="apt install qemu-system-arm"):
        MicrocontrollerSession(get_device("qemu_mps2_an386")).load(tiny)
    with pytest.raises(ToolchainError, match="apt install gcc-arm-none-eabi"):
        build_firmware(tiny, get_board("mps2_an386"))


def test_refuses_what_is_no_firmware(tiny, tmp_path, stand_in):
    with pytest.raises(ToolchainError, match="nucleo_f746zg: thumbnet has no firmware for it"):
        build_firmware(tiny, replace(get_board("nucleo_f746zg"), firmware=None, series=None))
    with pytest.raises(SessionError, match="no board that runs our firmware"):
        MicrocontrollerSession(get_device("local"))
    broken = stand_in.write_artifact(tmp_path / "broken", main=stand_in.MAIN + "\nint x = y;\n")
    with pytest.raises(ToolchainError, match=r"tiny\.c: .*undeclared"):
        build_firmware(broken, get_board("mps2_an386"))
    other = type(tiny)(tiny.folder, {**tiny.manifest, "kind": "so"})
    with pytest.raises(ArtifactError, match="takes C sources"):
        build_firmware(other, get_board("mps2_an386"))


def test_only_what_the_manifest_lists_is_built(tmp_path, stand_in):
    artifact = stand_in.write_artifact(
        tmp_path / "a", main=stand_in.MAIN.replace("#include", "#include <string.h>\n#include", 1)
    )
    built = build_firmware(artifact, get_board("mps2_an386"))
    (artifact.folder / "planted.c").write_text("#error built\n")
    (artifact.folder / "include").mkdir()
    for header in ("string.h", "stdint.h", "include/tiny.h", "port.h"):
        (artifact.folder / header).write_text("#error included\n")
    shutil.rmtree(built.elf.parent)
    assert build_firmware(artifact, get_board("mps2_an386")).elf == built.elf


def test_sources_that_change_after_loading_are_refused(tmp_path, stand_in):
    artifact = stand_in.write_artifact(tmp_path / "a")
    (artifact.folder / "tiny.c").write_text(stand_in.MAIN + "\n")
    with pytest.raises(ArtifactError, match=r"tiny\.c: changed since it was loaded; compile the network again"):
        build_firmware(artifact, get_board("mps2_an386"))


def test_a_damaged_cache_is_built_again(tmp_path, stand_in):
    artifact = stand_in.write_artifact(tmp_path / "a", main=stand_in.MAIN + f"/* {tmp_path} */\n")
    elf = build_firmware(artifact, get_board("mps2_an386")).elf
    elf.unlink()
    assert build_firmware(artifact, get_board("mps2_an386")).elf.is_file()


@pytest.mark.parametrize("field", ["input_bytes", "output_bytes", "arena_bytes", "layer_count", "stack_bytes"])
def test_a_firmware_with_other_sizes_than_the_manifests_is_refused(field, tiny):
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(tiny)
        identity, image, device = session.identity, session.image, session.device
    check_identity(device, identity, tiny, image)
    other = replace(identity, **{field: getattr(identity, field) + 1})
    says = r"qemu_mps2_an386: the firmware has \d+ .*, tiny's manifest says \d+; flash .*\.elf, or"
    with pytest.raises(ProtocolError, match=says):
        check_identity(device, other, tiny, image)


def test_a_timer_that_stands_still_is_told(tiny, stand_in):
    emulated = get_device("qemu_mps2_an386")
    # Where the counter is looked for lies memory, which doesn't count.
    peripherals = {**emulated.board.peripherals, "FPGAIO_BASE": 0x2030_0000}
    device = replace(emulated, board=replace(emulated.board, peripherals=peripherals))
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(device, count_exactly=False) as session:
        session.load(tiny)
        assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
        for measure in (lambda: session.measure(image, 2), lambda: session.profile(image)):
            with pytest.raises(DeviceFaultError, match="counted 0 ticks in a run and 0 in an empty call: it stands"):
                measure()


def test_an_image_too_large_names_both_numbers(tmp_path, stand_in):
    main = stand_in.MAIN.replace("arena[TINY_ARENA_BYTES]", "arena[5 << 20]")
    artifact = stand_in.write_artifact(tmp_path / "a", main=main)
    with pytest.raises(DoesNotFitError, match=r"need \d+ KiB of RAM, mps2_an386 has 4096 KiB"):
        build_firmware(artifact, get_board("mps2_an386"))


def test_the_image_is_the_same_every_time(tiny, tmp_path, monkeypatch):
    first = build_firmware(tiny, get_board("mps2_an386"), tmp_path / "first.elf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    second = build_firmware(tiny, get_board("mps2_an386"))
    assert first.elf != second.elf
    assert first.elf.read_bytes() == second.elf.read_bytes() == (tmp_path / "first.elf").read_bytes()


def test_another_network_on_the_board_is_told(tiny, tmp_path, stand_in, monkeypatch):
    other = stand_in.write_artifact(tmp_path / "a", main=stand_in.MAIN + "\n/* other */\n")
    built = build_firmware(other, get_board("mps2_an386"))
    asked = build_firmware(tiny, get_board("mps2_an386"))
    mixed = replace(built, model_hash=asked.model_hash, image_bytes=asked.image_bytes)
    monkeypatch.setattr(microcontroller_session, "build_firmware", lambda artifact, board: mixed)
    with (
        MicrocontrollerSession(get_device("qemu_mps2_an386")) as session,
        pytest.raises(ProtocolError, match=r"runs tiny .* wanted tiny .* flash .*firmware\.elf"),
    ):
        session.load(tiny)
