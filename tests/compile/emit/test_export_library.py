"""Linking for boards that take a shared library."""

import struct

import pytest

from thumbnet.compile.emit import export_library as under_test
from thumbnet.compile.emit.export_library import export_library, tvm_target
from thumbnet.compile.errors import ToolchainError
from thumbnet.targets.registry import get_board

tvm = pytest.importorskip("tvm")
from tvm import te  # noqa: E402

#: e_machine of an ELF file.
MACHINES = {"raspberry_pi_4": 183}


def compiled(board):
    image = te.placeholder((8,), "int8", "image")
    function = te.create_prim_func([image, te.compute((8,), lambda i: image[i] + image[7 - i])])
    return tvm.compile(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}), target=tvm_target(board))


@pytest.mark.needs_tools("aarch64-linux-gnu-gcc")
def test_library_is_of_the_boards_architecture_and_nothing_else_is_left(tmp_path):
    board = get_board("raspberry_pi_4")
    path = tmp_path / "made" / "net.so"
    export_library(compiled(board), board, path)
    assert struct.unpack_from("<H", path.read_bytes(), 18) == (MACHINES[board.name],)
    assert [file.name for file in path.parent.iterdir()] == ["net.so"]


@pytest.mark.needs_tools("gcc")
def test_host_library_runs(tmp_path):
    board = get_board("host")
    export_library(compiled(board), board, tmp_path / "net.so")
    import numpy as np  # noqa: PLC0415

    image, output = tvm.runtime.tensor(np.arange(8, dtype="int8")), tvm.runtime.empty((8,), "int8")
    tvm.runtime.load_module(str(tmp_path / "net.so"))["main"](image, output)
    assert output.numpy().tolist() == [7] * 8


def test_missing_compiler_names_its_package_and_leaves_the_old_file(tmp_path, monkeypatch):
    monkeypatch.setattr(under_test.shutil, "which", lambda _: None)
    path = tmp_path / "net.so"
    path.write_bytes(b"old")
    with pytest.raises(ToolchainError, match="apt install gcc-aarch64-linux-gnu"):
        export_library(None, get_board("raspberry_pi_4"), path)
    assert path.read_bytes() == b"old"


@pytest.mark.needs_tools("gcc")
def test_linker_that_fails_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    broken = tmp_path / "broken-gcc"
    broken.write_text("#!/bin/sh\necho 'ld: error: no space left' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(under_test.shutil, "which", lambda _: str(broken))
    path = tmp_path / "out" / "net.so"
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(ToolchainError, match=r"could not link net\.so: .*no space left") as caught:
        export_library(compiled(get_board("host")), get_board("host"), path)
    assert "\n" not in str(caught.value)
    assert [file.name for file in path.parent.iterdir()] == ["net.so"]
    assert path.read_bytes() == b"old"


@pytest.mark.needs_tools("gcc")
def test_a_full_disk_is_one_line_and_not_the_end_of_the_process(mount_disk):
    """LLVM writes object files, and exits where it can't."""
    disk = mount_disk(8)
    (disk / "other").write_bytes(bytes(4096))
    module = compiled(get_board("host"))
    with pytest.raises(ToolchainError, match=r"could not link net\.so: .*No space left on device") as caught:
        export_library(module, get_board("host"), disk / "net.so")
    assert "\n" not in str(caught.value)
    assert [file.name for file in disk.iterdir()] == ["other"]


def test_microcontrollers_take_no_library():
    with pytest.raises(ToolchainError, match="mps2_an386 is a cortex-m4 board: it takes C sources"):
        tvm_target(get_board("mps2_an386"))


def test_targets_are_the_boards():
    target = tvm_target(get_board("raspberry_pi_4"))
    assert target.kind.name == "llvm"
    assert target.attrs["mcpu"] == "cortex-a72"
