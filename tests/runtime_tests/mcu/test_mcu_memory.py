"""The stack of an inference, known before it runs and measured; and writes outside the arena, which are told."""

import re

import pytest

from thumbnet.compile.emit.footprint import measure_footprint
from thumbnet.compile.errors import DoesNotFitError
from thumbnet.runtime_tests.cost_checks import check_stack
from thumbnet.runtime_tests.errors import ArenaOverrunError
from thumbnet.runtime_tests.mcu import firmware_build
from thumbnet.runtime_tests.mcu.firmware_build import build_firmware
from thumbnet.runtime_tests.mcu.microcontroller_session import MicrocontrollerSession
from thumbnet.runtime_tests.report import Report
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm")]

BOARDS = ["mps2_an385", "mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547"]

# ---------------------------------------------------------------------- stack

#: Assembly that pushes 0, 1, 12 words; and a function that touches all of a large frame.
BARE = '__attribute__((naked)) void tiny_run(void) {{ __asm volatile("{}"); }}\n'
STACKS = {
    0: BARE.format("bx lr"),
    4: BARE.format("push {{r4}}\\npop {{r4}}\\nbx lr"),
    48: BARE.format("push {{r4-r11, lr}}\\npush {{r0-r2}}\\nadd sp, #12\\npop {{r4-r11, pc}}"),
}
LARGE = """
__attribute__((noinline)) static int fill(volatile int8_t *data) {
    for (int i = 0; i < 2000; i++) {
        data[i] = (int8_t)i;
    }
    return data[arena[0]];
}
void tiny_run(void) {
    volatile int8_t data[2000];
    arena[48] = (uint8_t)fill(data);
}
"""


def with_run(stand_in, run, folder, **manifest):
    main = stand_in.MAIN[: stand_in.MAIN.index("void tiny_run(void)")] + run.replace("{{", "{").replace("}}", "}")
    return stand_in.write_artifact(folder, main=main, **manifest)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("stack", STACKS)
def test_the_stack_is_known_and_measured_to_the_byte(board, stack, tmp_path, stand_in):
    with MicrocontrollerSession(get_device(f"qemu_{board}")) as session:
        session.load(with_run(stand_in, STACKS[stack], tmp_path / "a"))
        memory = session.memory_use()
        assert (memory.stack_bytes, memory.stack_measured_bytes) == (stack, stack)


@pytest.mark.parametrize("board", BOARDS)
def test_a_large_frame_is_known_and_measured(board, tmp_path, stand_in):
    with MicrocontrollerSession(get_device(f"qemu_{board}")) as session:
        session.load(with_run(stand_in, LARGE, tmp_path / "a"))
        memory = session.memory_use()
        assert memory.stack_unknown_because is None
        assert 2000 <= memory.stack_measured_bytes <= memory.stack_bytes < 2100
        assert memory.ram_bytes == 51 + memory.stack_bytes


def test_a_network_is_not_held_to_the_stack_of_the_one_before(tmp_path, stand_in):
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        for run, stack in ((STACKS[48], 48), (STACKS[4], 4)):
            session.load(with_run(stand_in, run, tmp_path / str(stack)))
            assert session.memory_use().stack_measured_bytes == stack


def test_what_the_compiler_cant_bound_is_unknown_with_the_reason(tmp_path, stand_in):
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(with_run(stand_in, RECURSIVE, tmp_path / "a"))
        memory = session.memory_use()
        assert memory.stack_bytes is None
        assert "recursion: again" in memory.stack_unknown_because
        assert memory.stack_measured_bytes > 0
        assert memory.ram_bytes == 51 + memory.stack_measured_bytes


def measure_published(artifact, board):
    """Return what `thumbnet compile` would say of the artifact's memory."""
    files = [artifact.folder / name for name in artifact.manifest["files"] if name.endswith((".c", ".h"))]
    return measure_footprint(files, "tiny", board)


@pytest.mark.parametrize("board", BOARDS)
def test_the_published_stack_is_exactly_the_firmwares(board, tmp_path, stand_in):
    sources = with_run(stand_in, LARGE, tmp_path / "a")
    published = measure_published(sources, get_board(board))
    image = build_firmware(sources, get_board(board))
    assert image.run_stack.bytes == published.stack.bytes
    assert image.compiler == published.compiler


def test_the_footprint_is_of_the_files_given_alone(tmp_path, stand_in):
    sources = with_run(stand_in, LARGE, tmp_path / "a")
    published = measure_published(sources, get_board("mps2_an386"))
    (sources.folder / "planted.c").write_text("#error built\n")
    (sources.folder / "stdint.h").write_text("#error included\n")
    assert measure_published(sources, get_board("mps2_an386")) == published


RECURSIVE = "static void again(int n) { if (n) { again(n - 1); arena[n & 15]++; again(n / 2); arena[0]++; } }\n"
RECURSIVE += "void tiny_run(void) { again(arena[0] & 3); }\n"


@pytest.mark.parametrize(
    ("built", "compiler", "expected"),
    [
        (LARGE, None, "passed: worst case 2,0"),
        (LARGE.replace("2000", "2004"), None, "failed: .*; the artifact's manifest says at most 2,008 bytes"),
        (LARGE.replace("2000", "2004"), "another", "passed: worst case 2,0"),
        (LARGE.replace("2000", "4096"), "another", "failed: .*; the artifact's manifest says at most 2,136 bytes"),
        (RECURSIVE, None, r"failed: worst case unknown \(recursion: again"),
    ],
)
def test_a_deeper_stack_than_the_published_one_fails(built, compiler, expected, tmp_path, stand_in):
    footprint = measure_published(with_run(stand_in, LARGE, tmp_path / "a"), get_board("mps2_an386")).as_json()
    footprint["compiler"] = compiler or footprint["compiler"]
    report = Report()
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(with_run(stand_in, built, tmp_path / "b", footprint=footprint))
        check_stack(report, session.memory_use())
    [check] = report.checks
    assert re.match(expected, f"{check.status.value}: {check.detail}"), check


def test_a_stack_that_the_firmware_lacks_is_told_before_flashing(tmp_path, stand_in, monkeypatch):
    artifact = with_run(stand_in, LARGE, tmp_path / "a")
    image = build_firmware(artifact, get_board("mps2_an386"))
    needs = image.firmware_stack.bytes
    assert needs > image.run_stack.bytes
    assert image.firmware_stack.path[:2] == ("start", "serve_loop")
    monkeypatch.setattr(firmware_build, "STACK_BYTES", needs)
    build_firmware(artifact, get_board("mps2_an386"))
    monkeypatch.setattr(firmware_build, "STACK_BYTES", needs - 8)
    with pytest.raises(DoesNotFitError, match=rf"need {needs} bytes of stack \(start -> serve_loop.* has {needs - 8}"):
        build_firmware(artifact, get_board("mps2_an386"))


# ---------------------------------------------------------------------- canaries

DISTANCES = (300, 1400, 65_537, 1_000_000, 2_000_000)
OVERRUNS = {
    # code in the pool, whose output is the arena's last 3 bytes; what is told; reach
    "behind": ("out[3] = 0;", "up to 1 bytes behind the end", 1),
    "a row behind": ("for (int i = 3; i < 40; i++) out[i] = 7;", "up to 37 bytes behind the end", 37),
    "before": ("out[-49] = 0;", "up to 1 bytes before the start", 1),
    "far before": ("out[-48 - 200] = 1;", "up to 200 bytes before the start", 200),
    **{f"{n} behind": (f"out[2 + {n}] = 0;", f"up to {n} bytes behind the end", n) for n in DISTANCES},
    **{f"{n} before": (f"out[-48 - {n}] = 0;", f"up to {n} bytes before the start", n) for n in DISTANCES},
    # The same byte may stand there already: a run of any value shows.
    **{
        f"{value} over 5 bytes": (f"for (int i = 3000; i < 3005; i++) out[i] = {value};", "behind the end", None)
        for value in (-1, -128, 1)
    },
}


def overrunning(stand_in, folder, code):
    layers = stand_in.LAYERS.replace("int32_t sum = 0;", f"int32_t sum = 0;\n{code}", 1)
    assert layers != stand_in.LAYERS
    return stand_in.write_artifact(folder, layers=layers)


@pytest.mark.parametrize(
    ("board", "name"), [(board, "behind") for board in BOARDS] + [("mps2_an386", name) for name in OVERRUNS][1:]
)
def test_a_write_outside_the_arena_is_told_with_side_and_stage(board, name, tmp_path, stand_in):
    code, message, reach = OVERRUNS[name]
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(get_device(f"qemu_{board}")) as session:
        session.load(overrunning(stand_in, tmp_path / "a", code))
        for call in (session.run, session.run_layers, session.profile, lambda image: session.measure(image, 2)):
            with pytest.raises(ArenaOverrunError, match=message) as caught:
                call(image)
            assert "its arena of 51 bytes, seen after stage pool" in str(caught.value)
            assert caught.value.behind == ("behind" in message)
            assert reach is None or caught.value.reach_bytes == reach
            assert caught.value.stage == 1
        with pytest.raises(ArenaOverrunError, match="seen after the whole inference"):
            session.self_test()


def test_an_overrun_that_only_the_whole_inference_shows_is_told(tmp_path, stand_in):
    run = "void tiny_run(void) { volatile int8_t *volatile end = (int8_t *)arena; end[51 + 4] = 1; }\n"
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(with_run(stand_in, run, tmp_path / "a"))
        with pytest.raises(ArenaOverrunError, match=r"up to 5 bytes behind .*seen after the whole inference"):
            session.run(stand_in.make_images(1)[0])


def test_what_an_overrun_has_damaged_is_mended_and_told_once(tmp_path, stand_in):
    code = "if (data[0] == 0) {\nout[500] = 0;\n}"
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(overrunning(stand_in, tmp_path / "a", code))
        for value in (1, 0, 1, 0):
            image[0, 0, 0] = value * 64
            if stand_in.compute_scale(image)[0, 0, 0]:
                assert session.run(image).tolist() == stand_in.compute_pool(image).tolist()
            else:
                with pytest.raises(ArenaOverrunError, match="up to 498 bytes behind the end"):
                    session.run(image)


@pytest.mark.parametrize("board", BOARDS)
def test_all_ram_that_is_nobodys_is_watched(board, tiny):
    image, ram = build_firmware(tiny, get_board(board)), get_board(board).ram
    before = image.symbols["__arena_start"] - image.symbols["__bss_end"]
    behind = image.symbols["__ram_end"] - image.symbols["__arena_end"]
    assert image.symbols["__ram_end"] == ram.origin + ram.size
    assert abs(before - behind) < 128
    assert before + behind > ram.size - (40 << 10)


def test_an_arena_that_fills_the_ram_still_fits(tmp_path, stand_in):
    board = get_board("mps2_an386")
    used = build_firmware(stand_in.write_artifact(tmp_path / "a"), board).symbols["__bss_end"] - board.ram.origin
    arena = (board.ram.size - used) & ~15
    for extra, fits in ((-16, True), (16, False)):
        main = stand_in.MAIN.replace("arena[TINY_ARENA_BYTES]", f"arena[{arena + extra}]")
        artifact = stand_in.write_artifact(tmp_path / f"b{extra}", main=main, arena_bytes=arena + extra)
        if fits:
            symbols = build_firmware(artifact, board).symbols
            assert symbols["__bss_end"] <= symbols["__arena_start"] < symbols["__bss_end"] + 32
        else:
            with pytest.raises(DoesNotFitError, match="need 4097 KiB of RAM, mps2_an386 has 4096 KiB"):
                build_firmware(artifact, board)


def test_the_arenas_own_edges_are_free_to_write(tmp_path, stand_in):
    layers = stand_in.LAYERS.replace("void tiny_pool(const int8_t *data, int8_t *out) {", EDGE, 1)
    artifact = stand_in.write_artifact(
        tmp_path / "a", layers=layers.replace("int32_t sum = 0;", "int32_t sum = 0;\narena_edge(out);", 1)
    )
    image = stand_in.make_images(1)[0]
    with MicrocontrollerSession(get_device("qemu_mps2_an386")) as session:
        session.load(artifact)
        session.run(image)


EDGE = """
static void arena_edge(volatile int8_t *out) {
    out[2] = 1;
    out[-48] = out[-48];
}
void tiny_pool(const int8_t *data, int8_t *out) {"""
