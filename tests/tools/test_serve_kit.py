"""`thumbnet serve-kit`: what it prints and writes, and bad input."""

import json

import pytest


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
def test_serve_kit_prints_its_files_and_the_next_step(thumbnet, tmp_path):
    kit = tmp_path / "kit"
    code, out, _ = thumbnet("serve-kit", "--board", "raspberry_pi_3", "-o", kit, "--json", tmp_path / "kit.json")
    assert code == 0
    assert "./run.sh TRACKER:PORT KEY" in out
    content = json.loads((tmp_path / "kit.json").read_text())
    assert content["files"] == {file.name: file.stat().st_size for file in kit.iterdir()}
    assert f"{sum(content['files'].values()):,}" in out
    assert "raspberry_pi_3" in (kit / "README.md").read_text()


@pytest.mark.parametrize(
    ("board", "says"),
    [
        ("raspberry_pi_44", "did you mean raspberry_pi_4?"),
        ("nucleo_f746zg", "nucleo_f746zg: a cortex-m7 board has no server kit; name one that TVM has a runtime for"),
        ("raspberry_pi_2", "raspberry_pi_2: a cortex-a7 board has no server kit"),
        ("host", "name one that TVM has a runtime for"),
    ],
)
def test_boards_that_serve_nothing(refused, tmp_path, board, says):
    assert says in refused("serve-kit", "--board", board, "-o", tmp_path / "kit")
    assert not list(tmp_path.iterdir())


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
def test_a_kit_is_no_network(thumbnet, refused, tmp_path):
    assert thumbnet("serve-kit", "--board", "raspberry_pi_4", "-o", tmp_path / "kit")[0] == 0
    line = refused("profile", tmp_path / "kit", "--device", "qemu_raspberry_pi_4")
    assert f"{tmp_path}/kit: holds a server kit, no network; name a folder of `thumbnet compile -o`" in line


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
def test_folder_that_cannot_be_made(refused):
    assert "/proc/none/kit: No such file or directory" in refused(
        "serve-kit", "--board", "raspberry_pi_4", "-o", "/proc/none/kit"
    )


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
def test_foreign_folder_is_left_alone(refused, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    line = refused("serve-kit", "--board", "raspberry_pi_4", "-o", tmp_path)
    assert "name another folder" in line
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]
