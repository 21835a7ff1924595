"""Worst-case stack: of machine code written down here, and of C that the cross compiler makes for each core."""

import subprocess

import pytest

from thumbnet.compile.emit.machine_code import read_functions
from thumbnet.compile.emit.stack_usage import STACK_FLAG, StackUsage
from thumbnet.targets.board import CORTEX_M_FLAGS

# ---------------------------------------------------------------------- machine code written down


def make_listing(**functions):
    """Write what objdump and readelf would of functions, each instruction taking four bytes."""
    listing, symbols, address = [], [], 0x100
    for name, code in functions.items():
        start = address
        listing.append(f"{address:08x} <{name}>:")
        for line in code.strip().splitlines():
            mnemonic, _, operands = line.strip().partition(" ")
            listing.append(f"     {address:x}:\t{mnemonic}\t{operands}")
            address += 4
        symbols.append(f"    {len(symbols)}: {start | 1:08x}     {address - start} FUNC    GLOBAL DEFAULT    1 {name}")
    return "\n".join(listing), "\n".join(symbols)


def frame_of(code):
    function = read_functions(*make_listing(f=code))["f"]
    assert function.unknown_because is None, function.unknown_because
    return function.frame_bytes


@pytest.mark.parametrize(
    ("code", "bytes_"),
    [
        ("bx lr", 0),
        ("push {r4, r5, lr}\npop {r4, r5, pc}", 12),
        ("stmdb sp!, {r4, r5, r6, r7, r8, r9, sl, fp, lr}\nldmia.w sp!, {r4, r5, r6, r7, r8, r9, sl, fp, pc}", 36),
        ("push {r4, lr}\nvpush {d8-d15}\nsub sp, #24\nadd sp, #24\nvpop {d8-d15}\npop {r4, pc}", 8 + 64 + 24),
        ("vpush {s16-s17}\nvpush {s18}\nvpop {s18}\nvpop {s16-s17}\nbx lr", 12),
        ("vstmdb sp!, {d8-d9}\nvldmia sp!, {d8-d9}\nbx lr", 16),
        ("sub.w sp, sp, #1024 @ 0x400\nsubw sp, sp, #1028 @ 0x404\nadd.w sp, sp, #2052\nbx lr", 2052),
        ("str.w lr, [sp, #-4]!\nldr.w pc, [sp], #4", 4),
        ("strd r4, r5, [sp, #-16]!\nldrd r4, r5, [sp], #16\nbx lr", 16),
        ("vstrw.32 q0, [sp, #-16]!\nvldrw.u32 q0, [sp], #16\nbx lr", 16),
        ("str r0, [sp, #4]\nadd r7, sp, #8\ncmp sp, r0\nldmia.w sp, {r8, r9}\nbx lr", 0),
        # A return under a condition leaves the frame for what follows, which pushes more.
        ("push {r4, lr}\ncmp r0, #0\nit eq\npopeq {r4, pc}\npush {r5, r6}\npop {r5, r6}\npop {r4, pc}", 16),
        # The deeper branch counts, whether it lies before or behind.
        ("cbz r0, 10c <f+0xc>\npush {r4, r5, r6, r7}\npop {r4, r5, r6, r7}\npush {r4}\npop {r4}\nbx lr", 16),
        ("b.n 108 <f+0x8>\nbx lr\nsub sp, #8\nwls lr, r0, 114 <f+0x14>\nle lr, 110 <f+0x10>\nadd sp, #8\nbx lr", 8),
    ],
)
def test_frames(code, bytes_):
    assert frame_of(code) == bytes_


def test_code_behind_a_table_is_followed():
    code = "push {r4, lr}\ntbb [pc, r0]\n.short 0x0402\nsub sp, #40\nadd sp, #40\npop {r4, pc}"
    assert frame_of(code) == 48


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("mov sp, r7\nbx lr", "mov sp, r7 at 0x100 moves the stack pointer"),
        ("sub sp, sp, r3\nbx lr", "moves the stack pointer"),
        ("msr MSP, r0\nbx lr", "moves the stack pointer"),
        ("stc 15, cr1, [sp, #-16]!\nbx lr", "moves the stack pointer"),
        ("ldr r0, [sp, r1]!\nbx lr", "moves the stack pointer"),
        ("ldr r0, [sp], r1\nbx lr", "moves the stack pointer"),
        ("<UNDEFINED> instruction: 0xec2dbb08\nbx lr", "moves the stack pointer"),
        ("push {r4}\nb.n 100 <f>", "grows in a loop"),
        ("pop {r4}\nbx lr", "takes more from the stack"),
    ],
)
def test_what_cant_be_told_is_said(code, reason):
    assert reason in read_functions(*make_listing(f=code))["f"].unknown_because


def usage_of(frames=None, pointers=None, **functions):
    return StackUsage(read_functions(*make_listing(**functions)), frames or {}, pointers)


LEAF = "push {r4, r5}\npop {r4, r5}\nbx lr"  # at 0x100


def test_depth_at_the_call_counts_not_the_frame():
    # A tail call has given its frame back; the call before it has not.
    use = usage_of(
        leaf=LEAF, tail="push {r4, r5, r6, lr}\npop {r4, r5, r6, lr}\nb.w 100 <leaf>", top="sub sp, #4\nbl 10c <tail>"
    ).worst_case("top")
    assert (use.bytes, use.path) == (4 + 16, ("top", "tail"))
    use = usage_of(leaf=LEAF, top="push {lr}\nbl 100 <leaf>\npop {pc}").worst_case("top")
    assert (use.bytes, use.path) == (4 + 8, ("top", "leaf"))


def test_pointers_and_recursion_are_told():
    use = usage_of(a="push {lr}\nblx r3\npop {pc}").worst_case("a")
    assert (use.bytes, use.unknown_because) == (None, "a calls through a pointer")
    known = {"a": ("leaf",)}
    use = usage_of(leaf=LEAF, **{"a.constprop.0": "push {lr}\nblx r3\npop {pc}"}, pointers=known)
    assert use.worst_case("a.constprop.0").bytes == 12
    use = usage_of(a="push {lr}\nbl 10c <b>\npop {pc}", b="push {lr}\nbl 100 <a>\npop {pc}").worst_case("a")
    assert (use.bytes, use.unknown_because) == (None, "recursion: a -> b -> a")
    assert "is not a function" in usage_of(a="bl 900 <gone>\nbx lr").worst_case("a").unknown_because


def test_the_compilers_account_has_to_agree():
    assert usage_of({"leaf": 8}, leaf=LEAF).worst_case("leaf").bytes == 8
    use = usage_of({"leaf": 16}, leaf=LEAF).worst_case("leaf")
    assert (use.bytes, use.unknown_because) == (None, "leaf: the compiler says 16 bytes, its machine code 8")
    assert "depends on the run" in usage_of({"leaf": None}, leaf=LEAF).worst_case("leaf").unknown_because


# ---------------------------------------------------------------------- what the compiler makes

PROGRAM = """
#include <string.h>
extern volatile int sink;
volatile int sink;
__attribute__((noinline)) void leaf(int *data) { for (int i = 0; i < 9; i++) sink += data[i]; }
__attribute__((noinline)) void small(void) { int data[9]; memset(data, sink, sizeof(data)); leaf(data); }
__attribute__((noinline)) void large(void) { int data[900]; memset(data, sink, sizeof(data)); leaf(data); sink++; }
__attribute__((noinline)) int chosen(int which, int a, int b) {
    switch (which) {
    case 0: small(); return a;
    case 1: return a + b;
    case 2: large(); return b;
    case 3: small(); return a - b;
    case 4: return a * sink;
    case 5: return b * sink;
    case 6: leaf((int *)&sink); return 7;
    default: return 0;
    }
}
__attribute__((noinline)) void varying(int n) { int data[n]; memset(data, 1, sizeof(data)); leaf(data); sink++; }
__attribute__((noinline)) int again(int n) { int r = n ? again(n - 1) * sink + again(n / 2) : 1; return r; }
__attribute__((noinline)) void pointed(void (*f)(int *)) { int data[4] = {1}; f(data); sink++; }
double divided(double a, double b) { return a / b; }
unsigned long long divided_long(unsigned long long a, unsigned long long b) { return a / b; }
int main(void) { chosen(sink, 1, 2); varying(sink); sink = again(sink); pointed(sink ? leaf : 0); return 0; }
"""


@pytest.fixture(scope="module", params=[core for core in CORTEX_M_FLAGS])
def program(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "program.c").write_text(PROGRAM)
    flags = [*CORTEX_M_FLAGS[request.param], "-O3", "-fno-inline"]
    compiler = ["arm-none-eabi-gcc", *flags]
    subprocess.run([*compiler, STACK_FLAG, "-c", "program.c", "-o", "program.o"], cwd=folder, check=True)
    link = ["-nostartfiles", "-Wl,-e,main,-u,divided,-u,divided_long,--gc-sections", "program.o", "-o", "program.elf"]
    subprocess.run([*compiler, *link], cwd=folder, check=True)
    return StackUsage.of_program(folder / "program.elf", "arm-none-eabi-", [folder / "program.ci"])


@pytest.mark.needs_tools("arm-none-eabi-gcc")
def test_frames_are_the_compilers(program):
    names = ["leaf", "small", "large", "chosen", "pointed"]
    assert {name: program._functions[name].frame_bytes for name in names} == {
        name: program._frames[name] for name in names
    }
    assert program._frames["large"] >= 3600


@pytest.mark.needs_tools("arm-none-eabi-gcc")
def test_worst_cases_of_compiled_c(program):
    frames = program._frames
    assert program.worst_case("large").bytes >= frames["large"] + frames["leaf"]
    use = program.worst_case("chosen")
    assert use.path[:2] == ("chosen", "large")
    assert use.bytes <= frames["chosen"] + program.worst_case("large").bytes
    assert program.worst_case("varying").bytes is None
    assert program.worst_case("again").unknown_because == "recursion: again -> again"
    assert program.worst_case("pointed").unknown_because == "pointed calls through a pointer"
    assert program.worst_case("main").bytes is None


@pytest.mark.needs_tools("arm-none-eabi-gcc")
def test_library_functions_count(program):
    use = program.worst_case("divided_long")
    assert use.unknown_because is None
    assert use.path[1] == "__aeabi_uldivmod"
    assert use.bytes > 8
    assert program.worst_case("divided").unknown_because is None
