"""The counting plugin by itself, on a program of known length for an emulated Linux."""

import shutil
import subprocess

import pytest

from thumbnet.compile.errors import ToolchainError
from thumbnet.runtime_tests.instruction_counter import SOURCE, InstructionCounter
from thumbnet.runtime_tests.qemu_plugin import build_plugin

# 2 + 1000 * 2 + 2 (mov, mov, 1000 times subs and b.ne, mov, svc) instructions; exit(0) at the end.
PROGRAM = """
.global _start
_start:
    mov x0, #1000
    mov x8, #93
again:
    subs x0, x0, #1
    b.ne again
done:
    mov x0, #0
    svc #0
"""


#: Four threads at once, 2,000,000 instructions each, and the few of starting and ending them.
THREADED = """
#include <pthread.h>
static void *turn(void *unused) {
    __asm volatile("mov x9, #16960; movk x9, #15, lsl #16; 1: subs x9, x9, #1; b.ne 1b" ::: "x9", "cc");
    return unused;
}
int main(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], 0, turn, 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], 0);
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    for tool, package in (("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"), ("qemu-aarch64", "qemu-user")):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (apt install {package})")
    folder = tmp_path_factory.mktemp("counted")
    (folder / "loop.S").write_text(PROGRAM)
    command = ["aarch64-linux-gnu-gcc", "-nostdlib", "-static", str(folder / "loop.S"), "-o", str(folder / "loop")]
    subprocess.run(command, check=True)
    listing = subprocess.run(["aarch64-linux-gnu-nm", folder / "loop"], capture_output=True, text=True, check=True)
    symbols = {fields[2]: int(fields[0], 16) for fields in map(str.split, listing.stdout.splitlines())}
    return folder / "loop", symbols


@pytest.mark.emulated
@pytest.mark.parametrize("attempt", range(3))
def test_counts_a_program_exactly(program, attempt):
    path, symbols = program
    counter = InstructionCounter([symbols["again"], symbols["done"]], room=2000)
    try:
        subprocess.run(["qemu-aarch64", *counter.qemu_options, str(path)], check=True)
        marks = counter.read_marks()
        assert counter.count == 2 + 2000 + 2
        assert len(marks) == 1001
        assert marks[0] == (symbols["again"], 2)
        assert marks[-1] == (symbols["done"], 2002)
    finally:
        counter.close()
    assert not counter.path.exists()


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "qemu-aarch64")
def test_counts_what_all_threads_execute(tmp_path):
    (tmp_path / "turns.c").write_text(THREADED)
    command = ["aarch64-linux-gnu-gcc", "-O1", "-static", "-pthread", tmp_path / "turns.c", "-o", tmp_path / "turns"]
    subprocess.run(command, check=True)
    counter = InstructionCounter(threads=True)
    try:
        subprocess.run(["qemu-aarch64", *counter.qemu_options, tmp_path / "turns"], check=True)
        assert 8_000_000 < counter.count < 8_400_000
    finally:
        counter.close()


@pytest.mark.emulated
def test_too_many_marks_are_told(program):
    path, symbols = program
    counter = InstructionCounter([symbols["again"]], room=10)
    try:
        subprocess.run(["qemu-aarch64", *counter.qemu_options, str(path)], check=True)
        with pytest.raises(OverflowError, match="1000 marks passed, there is room for 10"):
            counter.read_marks()
        counter.clear_marks()
        assert counter.read_marks() == []
    finally:
        counter.close()


def test_the_plugin_is_built_once_and_errors_are_told(tmp_path, monkeypatch):
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = build_plugin(SOURCE)
    time = first.stat().st_mtime_ns
    assert build_plugin(SOURCE).stat().st_mtime_ns == time
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    broken = tmp_path / "broken.c"
    broken.write_text("int x = y;\n")
    with pytest.raises(ToolchainError, match=r"broken\.c: gcc failed: .*undeclared"):
        build_plugin(broken)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="apt install gcc"):
        build_plugin(SOURCE)
