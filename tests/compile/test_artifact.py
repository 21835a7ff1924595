"""An artifact is whole or not there, and its files are those that were compiled."""

import json

import numpy as np
import pytest

from thumbnet.compile.artifact import FORMAT, MANIFEST, Artifact, replaced_folder, write_manifest
from thumbnet.compile.errors import ArtifactError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "host").mkdir(parents=True)
    (folder / "net.c").write_text("int x;\n")
    (folder / "host" / "reference.npz").write_bytes(b"1234")
    np.savez(folder / "golden.npz", inputs=np.zeros((1, 2, 2, 1), np.int8), outputs=np.ones((1, 3), np.int8))
    write_manifest(folder, {"name": "net"})
    return folder


def _rewrite(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_a_whole_artifact_loads(folder):
    artifact = Artifact.load(folder)
    assert artifact.name == "net" and artifact.manifest["format"] == FORMAT
    assert set(artifact.manifest["files"]) == {"net.c", "host/reference.npz", "golden.npz"}
    inputs, outputs = artifact.golden()
    assert inputs.shape == (1, 2, 2, 1) and outputs.tolist() == [[1, 1, 1]]


def test_a_relative_path_becomes_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert Artifact.load(folder.relative_to(folder.parent)).folder == folder.resolve()


@pytest.mark.parametrize("name", ["net.c", "host/reference.npz", "golden.npz"])
def test_a_changed_file_is_refused(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=f"{name}: changed since it was compiled"):
        Artifact.load(folder)


def test_a_missing_file_is_refused(folder):
    (folder / "net.c").unlink()
    with pytest.raises(ArtifactError, match=r"net\.c is missing; compile the network again"):
        Artifact.load(folder)


def test_another_format_is_refused(folder):
    _rewrite(folder, format=99)
    with pytest.raises(ArtifactError, match=f"format 99, this thumbnet reads {FORMAT}"):
        Artifact.load(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "host/../../secret"])
def test_a_path_out_of_the_folder_is_refused(folder, name):
    (folder.parent / "secret").write_text("secret")
    _rewrite(folder, files={name: "0"})
    with pytest.raises(ArtifactError, match="points outside the artifact"):
        Artifact.load(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '"text"', "\udcff", "null", '{"format": 1}', '{"format": 1, "files": 3}']
)
def test_a_damaged_manifest_is_refused_in_one_line(folder, text):
    (folder / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match="compile the network again") as caught:
        Artifact.load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="makes one"):
        Artifact.load(tmp_path)


def _contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_replaced_folder_takes_the_old_ones_place(folder):
    with replaced_folder(folder) as aside:
        assert aside != folder and list(aside.iterdir()) == []
        (aside / "new").write_text("new")
        assert (folder / "net.c").exists()
    assert _contents(folder) == {"new": b"new"}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    folder = tmp_path / "a" / "b"
    with replaced_folder(folder) as aside:
        (aside / "new").write_text("new")
        assert not folder.exists()
    assert _contents(folder) == {"new": b"new"}
    # As any folder made by the person, not the private one of tempfile.
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_what_was_there(folder, error, exists):
    target = folder if exists else folder.parent / "new"
    before = _contents(folder)
    with pytest.raises(error), replaced_folder(target) as aside:
        (aside / "half").write_text("half")
        raise error
    assert _contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_foreign_folder_or_file_is_refused(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("home", "file"):
        with pytest.raises(ArtifactError, match="exists and is not an artifact; name another folder"):
            with replaced_folder(tmp_path / name):
                pytest.fail("the block must not run")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "a file"
