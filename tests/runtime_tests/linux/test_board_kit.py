"""The server kit: complete in itself, used by `thumbnet test` under emulation, and everything that may be wrong."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial

import pytest
from tvm import rpc

from thumbnet.compile.artifact import MANIFEST
from thumbnet.compile.errors import ArtifactError
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.runtime_tests.linux.board_kit import needed_versions, write_kit
from thumbnet.targets.errors import BoardError
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

from ...processes import signals_by_default

BOARD = get_board("raspberry_pi_4")
SERVER = "thumbnet_board_server"
needs_emulator = pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-aarch64")
pytestmark = [pytest.mark.emulated, needs_emulator]


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit") / "kit"
    write_kit(BOARD, folder)
    return folder


@pytest.fixture
def on_board(kit, tmp_path):
    """Return a copy of the kit elsewhere, whose server an emulator runs as a board's kernel would."""
    copy = tmp_path / "a board" / "kit"
    shutil.copytree(kit, copy)
    emulate(copy)
    return copy


def emulate(kit):
    real = kit / SERVER
    real.rename(kit / "server.aarch64")
    real.write_text(
        f'#!/bin/sh\nexec qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu {BOARD.core} "{kit}/server.aarch64" "$@"\n'
    )
    real.chmod(0o755)


def run_sh(kit, *arguments):
    done = subprocess.run([kit / "run.sh", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


# ---------------------------------------------------------------------- the folder


def test_kit_is_small_complete_and_executable(kit):
    names = {file.name for file in kit.iterdir()}
    libraries = {"libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so", "libthumbnet_instrument.so"}
    assert names == {SERVER, "run.sh", "README.md", MANIFEST} | libraries
    assert sum(file.stat().st_size for file in kit.iterdir()) < 10_000_000
    assert os.access(kit / "run.sh", os.X_OK) and os.access(kit / SERVER, os.X_OK)
    home = str(kit.home() / ".cache")
    assert home.encode() not in (kit / SERVER).read_bytes(), "looks for its libraries beside itself only"
    assert [file.name for file in kit.parent.iterdir()] == ["kit"]


def test_kit_says_what_it_needs_and_what_it_means(kit):
    needs = json.loads((kit / MANIFEST).read_text())["needs"]
    files = [file for file in kit.iterdir() if file.read_bytes()[:4] == b"\x7fELF"]
    assert len(files) == 5
    linked = "".join(
        subprocess.run(["aarch64-linux-gnu-readelf", "-V", file], capture_output=True, text=True, check=True).stdout
        for file in files
    )
    for name in ("GLIBC", "GLIBCXX"):
        versions = {tuple(map(int, found.split("."))) for found in re.findall(rf"Name: {name}_([\d.]+)", linked)}
        assert needs[name] == ".".join(map(str, max(versions)))
    text = (kit / "README.md").read_text()
    assert f"glibc {needs['GLIBC']}" in text
    assert 'board = "raspberry_pi_4"' in text
    assert "no authentication" in text


def test_versions_are_compared_as_numbers(tmp_path):
    (tmp_path / "a").write_bytes(b"\0GLIBC_2.9\0GLIBC_2.17\0GLIBCXX_3.4\0XGLIBC_9.9\0GLIBC_2.99x\0GLIBC_PRIVATE\0")
    (tmp_path / "b").write_bytes(b"\0GLIBCXX_3.4.26\0GLIBCXX_3.4.9\0")
    assert needed_versions([tmp_path / "a", tmp_path / "b"]) == {"GLIBC": "2.17", "GLIBCXX": "3.4.26"}


def test_kit_replaces_a_kit_and_nothing_else(kit, tmp_path):
    folder = tmp_path / "kit"
    shutil.copytree(kit, folder)
    write_kit(BOARD, folder)
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in kit.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / MANIFEST).write_text('{"format": 1, "kind": "library", "files": {}}')
    (tmp_path / "file").write_text("")
    for name in ("mine", "network", "file"):
        with pytest.raises(ArtifactError, match="name another folder"):
            write_kit(BOARD, tmp_path / name)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "kit", "mine", "network"]


@pytest.mark.parametrize("board", ["mps2_an386", "host"])
def test_boards_without_linux_of_their_own_have_no_kit(board, tmp_path):
    with pytest.raises(BoardError, match=f"{board}: .* name one that TVM has a runtime for"):
        write_kit(get_board(board), tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


# ---------------------------------------------------------------------- on the board


@pytest.fixture
def tracker():
    """Yield the address of a tracker, started as the kit's README says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = start_tracker(port)
    yield f"127.0.0.1:{port}"
    stop(process)


def start_tracker(port):
    command = [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--port", str(port)]
    with signals_by_default():
        process = subprocess.Popen(
            [*command, "--port-end", str(port + 1)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process
    raise AssertionError(f"the tracker ended with {process.returncode}")


def stop(process):
    process.send_signal(signal.SIGINT if process.poll() is None else 0)
    process.wait()


@pytest.fixture
def board(on_board, tracker, tmp_path):
    """Start the kit as its README says; yield the process, its output a line at a time."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [on_board / "run.sh", tracker, "pi4"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert "on the tracker as pi4, listening on port" in process.stdout.readline()
    yield process
    process.terminate()
    process.wait()
    process.stdout.close()
    assert not list(temporary.iterdir()), "uploads are removed with the server"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    files = NetworkFiles("mobilenet_v1_0.25_digits", calibration=BUNDLED_FOLDER / "calibration", calibration_limit=4)
    return compile_network(files, BOARD, tmp_path_factory.mktemp("compiled") / "digits").folder


CRASH = """
#include <stdlib.h>
int __tvm_ffi_crash(void *self, const void *arguments, int count, void *result);
int __tvm_ffi_crash(void *self, const void *arguments, int count, void *result) { abort(); }
"""


def test_kit_alone_serves_thumbnet_test_and_outlives_a_crash(board, tracker, digits, tmp_path):
    devices = tmp_path / "devices.toml"
    devices.write_text(
        f'[devices.desk_pi]\nboard = "raspberry_pi_4"\nkind = "rpc"\ntracker = "{tracker}"\nkey = "pi4"\n'
    )
    arguments = ("--device", "desk_pi", "--devices", devices, "--images", BUNDLED_IMAGES, "--limit", "3")
    command = [sys.executable, "-c", "from thumbnet.tools.cli import main; main()", "test", digits, *arguments]
    test = partial(subprocess.run, command, capture_output=True, text=True, check=False)
    done = test()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 images give the reference's bytes" in done.stdout

    (tmp_path / "crash.c").write_text(CRASH)
    library = tmp_path / "crash.so"
    subprocess.run([BOARD.cross_compiler, "-shared", "-fPIC", tmp_path / "crash.c", "-o", library], check=True)
    host, _, port = tracker.partition(":")
    session = rpc.connect_tracker(host, int(port)).request("pi4")
    session.upload(str(library))
    crash = session.load_module("crash.so")["crash"]
    with pytest.raises(Exception, match=r"RPC|recv|closed|[Ss]ocket|channel"):
        crash()
    lines = iter(board.stdout.readline, "")
    assert next(line for line in lines if line.startswith("session: signal 6"))

    assert test().returncode == 0


def test_tracker_that_comes_late_and_goes_away_is_tried_again(on_board, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [on_board / "run.sh", f"127.0.0.1:{port}", "pi4"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert f"no tracker at 127.0.0.1:{port} (Connection refused); trying again" in process.stdout.readline()
        tracker = start_tracker(port)
        assert "on the tracker as pi4" in process.stdout.readline()
        stop(tracker)
        assert "trying again" in process.stdout.readline()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", ["libtvm_ffi.so", "libtvm_runtime_extra.so", SERVER])
def test_missing_file_is_named(on_board, name):
    (on_board / name).unlink()
    code, said = run_sh(on_board, "127.0.0.1:9190", "pi4")
    assert (code, len(said.splitlines())) == (2, 1)
    assert f"{name} is missing" in said and "copy the whole kit again" in said


def test_c_library_that_is_too_old_is_one_line(on_board):
    server = on_board / "server.aarch64"
    needed = needed_versions([server])["GLIBC"]
    server.write_bytes(server.read_bytes().replace(f"GLIBC_{needed}\0".encode(), b"GLIBC_2.99\0"))
    code, said = run_sh(on_board, "127.0.0.1:9190", "pi4")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "GLIBC_2.99' not found" in said
    assert "it needs 64-bit Arm Linux with glibc" in said


def test_another_processor_is_one_line(kit):
    """This computer's, without an emulator."""
    if os.uname().machine == "aarch64":
        pytest.skip("this computer runs the kit")
    code, said = run_sh(kit, "127.0.0.1:9190", "pi4")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert f"doesn't start here ({os.uname().machine}," in said


def test_damaged_library_is_one_line(on_board):
    (on_board / "libthumbnet_instrument.so").write_bytes(b"\x7fELF")
    code, said = run_sh(on_board, "127.0.0.1:9190", "pi4")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "libthumbnet_instrument.so: file too short" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "usage: ./run.sh TRACKER:PORT KEY [PORT]"),
        (("127.0.0.1", "pi4"), "--tracker: 127.0.0.1 is no value of it"),
        (("127.0.0.1:99999", "pi4"), "--tracker: 127.0.0.1:99999 is no value of it"),
        (("127.0.0.1:9190", 'pi"4'), '--key: pi"4 is no value of it'),
        (("127.0.0.1:9190", "pi4", "port"), "--port: port is no value of it"),
    ],
)
def test_bad_arguments_are_one_line(on_board, arguments, says):
    code, said = run_sh(on_board, *arguments)
    assert (code, len(said.splitlines())) == (2, 1)
    assert says in said
