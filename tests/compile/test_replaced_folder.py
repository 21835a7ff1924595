"""An artifact is whole or not there, and nothing of the person's is ever deleted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thumbnet.compile import replaced_folder as module
from thumbnet.compile.artifact import MANIFEST, Artifact, write_manifest
from thumbnet.compile.aside import PREFIX
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.replaced_folder import replaced_folder

from .artifacts import manifest, write_artifact


@pytest.fixture
def folder(tmp_path):
    return write_artifact(tmp_path / "artifact")


@pytest.fixture(params=["at once", "in two steps"])
def _either_way(request, monkeypatch):
    """File systems that can exchange two folders at once, and those that can't."""
    if request.param == "in two steps":
        monkeypatch.setattr(module, "_exchange", lambda *_: False)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder, says):
    before = {path: contents(path) for path in folder.parent.iterdir() if path.is_dir()}
    with pytest.raises(ArtifactError, match=says) as caught:
        with replaced_folder(folder):
            pytest.fail("the block must not run")
    assert "\n" not in str(caught.value) and "name a" in str(caught.value)
    assert {path: contents(path) for path in folder.parent.iterdir() if path.is_dir()} == before


@pytest.mark.usefixtures("_either_way")
def test_a_replaced_folder_takes_the_old_ones_place(folder):
    with replaced_folder(folder) as aside:
        assert aside != folder and list(aside.iterdir()) == []
        (aside / "new").write_text("new")
        assert (folder / "net.c").exists()
    assert contents(folder) == {"new": b"new"}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    folder = tmp_path / "a" / "b"
    with replaced_folder(folder) as aside:
        (aside / "new").write_text("new")
        assert not folder.exists()
    assert contents(folder) == {"new": b"new"}
    # As any folder made by the person, not the private one of tempfile.
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_what_was_there(folder, error, exists):
    target = folder if exists else folder.parent / "new"
    before = contents(folder)
    with pytest.raises(error), replaced_folder(target) as aside:
        (aside / "half").write_text("half")
        raise error
    assert contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_foreign_folder_or_file_is_refused(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("home", "file"):
        refused(tmp_path / name, "exists and is not an artifact; name another folder")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "a file"


@pytest.mark.parametrize(
    "text",
    [
        '{"manifest_version": 3, "name": "An extension", "files": {}}',
        '{"format": 1, "name": "an extension"}',
        '{"format": 1, "name": "net", "files": {"code.js": 3}}',
        '{"format": 2, "name": "net", "files": {"code.js": "%s"}}' % ("0" * 64),
        "[]",
        "",
    ],
)
def test_a_manifest_of_something_else_makes_no_artifact(tmp_path, text):
    extension = tmp_path / "extension"
    (extension / ".git").mkdir(parents=True)
    (extension / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (extension / "code.js").write_text("")
    (extension / MANIFEST).write_text(text)
    refused(extension, "exists and is not an artifact")


@pytest.mark.parametrize(
    "name", ["notes.txt", "host/notes.txt", ".git/config", "host/deep/er/notes", f"host/{MANIFEST}"]
)
def test_a_file_of_the_persons_in_an_artifact_is_named(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("mine")
    refused(folder, f"holds ({name}|.git|host/deep), which is not the artifact's")
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "link", "link to a folder", "fifo"])
def test_so_is_anything_else(folder, kind):
    path = folder / "host" / "mine"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc" if kind == "link to a folder" else "/etc/hostname")
    refused(folder, "holds host/mine, which is not the artifact's")


def test_a_file_the_person_has_changed_is_named(folder):
    (folder / "net.c").write_text("int x; /* an evening's work */\n")
    refused(folder, r"net\.c was changed since it was compiled; move or delete it, or name another folder")
    (folder / "net.c").unlink()
    (folder / "net.c").symlink_to("/etc/hostname")
    refused(folder, r"holds net\.c, which is not the artifact's")
    (folder / "net.c").unlink()
    with replaced_folder(folder) as aside:  # what is missing is nobody's
        (aside / "new").write_text("new")
    assert contents(folder) == {"new": b"new"}


@pytest.mark.usefixtures("_either_way")
def test_a_file_that_appears_meanwhile_is_kept(folder):
    before = contents(folder)
    with pytest.raises(ArtifactError, match=r"holds notes\.txt"):
        with replaced_folder(folder) as aside:
            (aside / "new").write_text("new")
            (folder / "notes.txt").write_text("mine")
    assert contents(folder) == {**before, "notes.txt": b"mine"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.usefixtures("_either_way")
def test_a_links_target_is_replaced(folder):
    link = folder.parent / "link"
    link.symlink_to(folder)
    with replaced_folder(link) as aside:
        (aside / "new").write_text("new")
    assert link.is_symlink() and contents(folder) == {"new": b"new"}
    link.unlink()
    link.symlink_to(folder.parent / "not yet")
    with replaced_folder(link) as aside:
        (aside / "new").write_text("new")
    assert link.is_symlink() and contents(folder.parent / "not yet") == {"new": b"new"}


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ArtifactError, match="name the"):
        with replaced_folder(tmp_path / "a"):
            pytest.fail("the block must not run")


def test_the_folder_one_is_in_is_refused(tmp_path, monkeypatch):
    (tmp_path / "empty" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty" / "er")
    refused(Path(), "is the folder you are in")
    refused(tmp_path / "empty" / "er", "is the folder you are in")
    refused(Path(".."), "is the folder you are in")
    with replaced_folder(Path("new")) as aside:
        (aside / "new").write_text("new")
    assert contents(Path("new")) == {"new": b"new"}


@pytest.mark.parametrize("folder", ["/", "/proc"])
def test_where_a_file_system_is_mounted_nothing_is_replaced(folder):
    with pytest.raises(ArtifactError, match="is where a file system is mounted"):
        with replaced_folder(Path(folder)):
            pytest.fail("the block must not run")


@pytest.mark.parametrize(
    ("name", "says"),
    [("x" * 300, "File name too long; choose a shorter name"), ("file/x", "a file is where a folder belongs")],
)
def test_a_place_that_can_not_be_is_one_line(tmp_path, name, says):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=says):
        with replaced_folder(tmp_path / name):
            pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_as_long_as_can_be_is_none_too_long(tmp_path):
    with replaced_folder(tmp_path / ("x" * 255)) as aside:
        (aside / "new").write_text("new")
    assert contents(tmp_path / ("x" * 255)) == {"new": b"new"}


def test_a_full_disk_is_one_line_and_leaves_what_was_there(mount_disk):
    small_disk = mount_disk(64)
    folder = write_artifact(small_disk / "artifact")
    before = contents(folder)
    with pytest.raises(ArtifactError, match="artifact: No space left on device; free some space"):
        with replaced_folder(folder) as aside:
            (aside / "large").write_bytes(bytes(100_000))
    with pytest.raises(ArtifactError, match="artifact: No space left on device; free some space"):
        with replaced_folder(folder) as aside:  # an error that names what is copied first
            (folder.parent.parent / "large").write_bytes(bytes(100_000))
            shutil.copy(folder.parent.parent / "large", aside)
    assert contents(folder) == before
    assert list(small_disk.iterdir()) == [folder]
    refused_disk = pytest.raises(ArtifactError, match="is where a file system is mounted")
    with refused_disk, replaced_folder(small_disk):
        pytest.fail("the block must not run")


def test_a_read_only_place_is_one_line(mount_disk):
    with pytest.raises(ArtifactError, match="Read-only file system; name a place that can be written to"):
        with replaced_folder(mount_disk(64, "ro") / "artifact"):
            pytest.fail("the block must not run")


def test_another_error_of_the_operating_system_is_left_as_it_is(folder):
    with pytest.raises(FileNotFoundError, match="weights"), replaced_folder(folder):
        (folder.parent / "weights").read_text()


WRITE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from artifacts import manifest
from thumbnet.compile.artifact import write_manifest
from thumbnet.compile import replaced_folder as module
if {two_steps}:
    module._exchange = lambda *_: False
def write(folder, text):
    with module.replaced_folder(folder) as aside:
        for name in ("net.c", "net.h", *(f"{{text}}{{i}}" for i in range(20))):
            (aside / name).write_text(text)
        write_manifest(aside, manifest(model=text))
{then}
"""


def start(then, *, two_steps=False, **options):
    code = WRITE.format(tests=str(Path(__file__).parent), then=then, two_steps=two_steps)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("two_steps", [False, True])
def test_of_many_runs_at_once_one_is_there_whole(tmp_path, two_steps):
    folder = tmp_path / "artifact"
    then = f"for _ in range(60): write(Path({str(folder)!r}), sys.argv[1])"
    code = WRITE.format(tests=str(Path(__file__).parent), then=then, two_steps=two_steps)
    runs = [
        subprocess.Popen([sys.executable, "-c", code, name], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert (run.returncode, err) == (0, "")
    model = json.loads((folder / MANIFEST).read_text())["model"]
    files = contents(folder)
    assert set(files) == {MANIFEST, "net.c", "net.h", *(f"{model}{i}" for i in range(20))}
    assert {text for name, text in files.items() if name != MANIFEST} == {model.encode()}
    assert list(tmp_path.iterdir()) == [folder]


def _wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_what_a_killed_run_leaves_is_removed_by_the_next_and_a_living_ones_is_not(folder):
    before = contents(folder)
    ready = folder.parent.parent / f"{folder.parent.name}.ready"
    then = f"""
with module.replaced_folder(Path({str(folder)!r})) as aside:
    (aside / "half").write_text("half")
    Path({str(ready)!r}).touch()
    time.sleep(600)
"""
    process = start(then)
    try:
        _wait_for(ready, process)
        [aside] = folder.parent.glob(f"{PREFIX}*")
        for name in ("artifact", "other"):  # at work still: not touched
            with replaced_folder(folder.parent / name) as new:
                (new / "net.c").write_text("")
                (new / "net.h").write_text("")
                write_manifest(new, manifest(golden={"file": "golden.npz"}))
        assert aside.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert aside.is_dir() and contents(folder) != before
        with replaced_folder(folder.parent / "third") as new:
            assert not aside.exists()
    finally:
        process.kill()
        process.communicate()
        ready.unlink(missing_ok=True)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["artifact", "other", "third"]


def test_a_run_killed_between_the_two_steps_loses_nothing(folder):
    before = contents(folder)
    then = f"""
import os, signal
rename = Path.rename
def kill_after(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = lambda self, target: kill_after(self, target) if "old" in str(target) else rename(self, target)
write(Path({str(folder)!r}), "new")
"""
    process = start(then, two_steps=True)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()
    with replaced_folder(folder.parent / "other"):
        assert contents(folder) == before
    Artifact.load(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["artifact", "other"]


def test_a_folder_that_only_looks_alike_is_left(folder):
    for name in (f"{PREFIX}notes", f"{PREFIX}abcdefgh.d", "thumbnet-abcdefgh"):
        (folder.parent / name).mkdir()
    with replaced_folder(folder) as aside:
        (aside / "new").write_text("new")
    assert len(list(folder.parent.iterdir())) == 4
