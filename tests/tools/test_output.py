import json
import stat

import click
import pytest

from thumbnet.tools.output import print_table, replace_file, write_json


def test_table_cells(capsys):
    print_table("title", ["name", "bytes", "share"], [("a", 1234567, 0.5), ("[b]", None, True)], footer=("all", 5, ""))
    out = capsys.readouterr().out
    assert "1,234,567" in out
    assert "0.5" in out
    # No markup: brackets are themselves.
    assert "[b]" in out
    assert "-" in out
    assert "yes" in out
    assert "all" in out


def test_wide_tables_keep_their_lines_in_a_pipe(capsys):
    print_table("title", ["name"], [("x" * 150,)])
    assert "x" * 150 in capsys.readouterr().out


def test_json_is_replaced_whole(tmp_path):
    file = tmp_path / "out.json"
    file.write_text("old")
    with pytest.raises(TypeError):
        write_json(file, {("no", "key"): 1})
    assert file.read_text() == "old"
    write_json(file, {"a": [1, 2]})
    assert json.loads(file.read_text()) == {"a": [1, 2]}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    write_json(None, {})


def test_files_have_the_usual_mode(tmp_path):
    plain, replaced = tmp_path / "plain", tmp_path / "replaced"
    plain.touch()
    replace_file(replaced, b"x")
    assert stat.S_IMODE(plain.stat().st_mode) == stat.S_IMODE(replaced.stat().st_mode)


def test_what_can_not_be_written_has_one_line(tmp_path):
    with pytest.raises(click.ClickException, match="can't be written"):
        replace_file(tmp_path / "none" / "file", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(click.ClickException, match="can't be written"):
        replace_file(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
