"""Boards of one's own on the command line, and which memory holds the arena."""

import json

import pytest

DIGITS = "mobilenet_v1_0.25_digits"


def test_a_board_is_printed_as_a_start_for_ones_own(thumbnet, tmp_path):
    code, out, _ = thumbnet("boards", "nucleo_h743zi2", "--json", tmp_path / "board.json")
    assert code == 0 and 'series = "h7"' in out
    (entry,) = json.loads((tmp_path / "board.json").read_text())
    assert entry["ram_bytes"] == (128 + 512 + 288) << 10
    assert [bank["name"] for bank in entry["board_file"]["ram"]][:2] == ["DTCM", "AXI_SRAM"]


def test_a_network_is_compiled_for_a_board_of_ones_own(thumbnet, tmp_path):
    _, text, _ = thumbnet("boards", "nucleo_h743zi2")
    (tmp_path / "mine.toml").write_text(text.replace("480_000_000", "400_000_000"))
    code, out, _ = thumbnet(
        *("compile", DIGITS, "--board-file", tmp_path / "mine.toml", "--arena-memory", "AXI_SRAM"),
        *("-o", tmp_path / "out", "--json", tmp_path / "out.json"),
    )
    assert code == 0 and "AXI_SRAM (bytes)" in out
    manifest = json.loads((tmp_path / "out.json").read_text())
    assert (manifest["board"], manifest["memories"]["arena"], manifest["memories"]["stack"]) == (
        *("mine", "AXI_SRAM"),
        "DTCM",
    )
    used = {bank["name"]: bank["used_bytes"] for bank in manifest["memories"]["banks"]}
    assert used["AXI_SRAM"] == manifest["arena_bytes"] and used["DTCM"] == manifest["footprint"]["stack_bytes"]
    assert used["SRAM1"] == 0 and list(used) == ["FLASH", "AXI_SRAM", "DTCM", "SRAM1", "SRAM2", "SRAM3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --board or --board-file"),
        (["--board", "nucleo_f446re", "--board-file", "x.toml"], "give either --board or --board-file"),
        (["--board-file", "none.toml"], "none.toml: can't be read (No such file or directory)"),
        (["--board", "nucleo_h743zi2", "--arena-memory", "CCM"], "nucleo_h743zi2 has no RAM CCM"),
        (
            ["--board", "raspberry_pi_4", "--arena-memory", "CCM"],
            "raspberry_pi_4 has no RAM CCM; its system gives memory",
        ),
    ],
)
def test_a_board_that_isnt_there_is_one_clear_line(refused, tmp_path, options, message):
    assert message in refused("compile", DIGITS, *options, "-o", tmp_path / "out")


def test_a_file_of_a_built_in_boards_name_is_refused(thumbnet, refused, tmp_path):
    _, text, _ = thumbnet("boards", "nucleo_f446re")
    (tmp_path / "nucleo_f446re.toml").write_text(text)
    line = refused("compile", DIGITS, "--board-file", tmp_path / "nucleo_f446re.toml", "-o", tmp_path / "out")
    assert "nucleo_f446re is the name of a built-in board; give the file another" in line


def test_this_computer_has_no_file(refused):
    assert "no file describes host" in refused("boards", "host")
