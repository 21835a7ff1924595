import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time

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


def test_a_file_keeps_its_mode(tmp_path):
    file = tmp_path / "secret.json"
    file.write_text("old")
    file.chmod(0o600)
    replace_file(file, b"new")
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"new", 0o600)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, exists):
    target, link, second = tmp_path / "target", tmp_path / "link", tmp_path / "folder" / "link"
    second.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to("target")
    second.symlink_to("../link")
    replace_file(second, b"new")
    assert link.is_symlink() and second.is_symlink()
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "target"]


def test_links_in_a_circle_are_one_line(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(click.ClickException, match="name the file itself"):
        replace_file(tmp_path / "a", b"x")


def test_a_fifo_is_written_to(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    replace_file(fifo, b"x" * 100_000)
    reader.join()
    assert read == [b"x" * 100_000]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_devices_are_written_to(tmp_path):
    """Copies of /dev/null and /dev/full: the defect this test is there for replaces them."""
    for name, minor in (("null", 3), ("full", 7)):
        try:
            os.mknod(tmp_path / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            (tmp_path / name).open("wb").close()
        except OSError as error:
            pytest.skip(f"no device can be made here ({error.strerror})")
    replace_file(tmp_path / "null", b"x")
    with pytest.raises(click.ClickException, match="full: can't be written: No space left on device; free some space"):
        replace_file(tmp_path / "full", b"x")
    assert all(stat.S_ISCHR((tmp_path / name).stat().st_mode) for name in ("null", "full"))


def _thumbnet(*arguments, **options):
    command = [sys.executable, "-c", "from thumbnet.tools.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=120, check=False, **options)


def test_standard_output_gets_the_json_behind_what_was_printed(tmp_path):
    file = tmp_path / "out"
    for target in ("/dev/stdout", file):
        with file.open("wb") as out:
            assert _thumbnet("boards", "--json", target, stdout=out).returncode == 0
        table, _, rest = file.read_text().partition("\n[")
        assert table.startswith("Boards") and json.loads("[" + rest)
    piped = _thumbnet("boards", "--json", "/dev/stdout", stdout=subprocess.PIPE)
    assert piped.stdout.decode() == file.read_text()


def test_a_place_that_can_not_be_written_to_is_told_before_the_work(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "none" / "file")
    for target in (tmp_path / "dangling", tmp_path / "none" / "file"):
        done = _thumbnet("boards", "--json", target, stdout=subprocess.PIPE)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"does not exist" in done.stderr


def test_a_run_killed_while_it_writes_leaves_nothing_for_long(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from thumbnet.tools import output\n"
        "Path.write_bytes = lambda self, data: (self.touch(), time.sleep(600))\n"
        "output.replace_file(Path(sys.argv[1]) / 'x.json', b'x')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    while not list(tmp_path.glob("*/*")) and not list(tmp_path.glob(".*/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1
    replace_file(tmp_path / "y.json", b"y")
    assert [path.name for path in tmp_path.iterdir()] == ["y.json"]
