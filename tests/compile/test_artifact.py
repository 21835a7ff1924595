"""An artifact's files are those that were compiled, and are files."""

import io
import json
import os
import zipfile

import numpy as np
import pytest

from thumbnet.compile import file_access
from thumbnet.compile.artifact import FORMAT, MANIFEST, Artifact, write_manifest
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.file_access import read_arrays

from .artifacts import manifest, rewrite, write_artifact

FILES = ["golden.npz", "host/reference.npz", "net.c", "net.h"]


@pytest.fixture
def folder(tmp_path):
    return write_artifact(tmp_path / "artifact")


def _refused(folder, says):
    with pytest.raises(ArtifactError, match=says) as caught:
        Artifact.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_artifact_loads(folder):
    artifact = Artifact.load(folder)
    assert artifact.name == "net" and artifact.manifest["format"] == FORMAT
    assert sorted(artifact.manifest["files"]) == FILES
    inputs, outputs = artifact.golden()
    assert inputs.shape == (1, 2, 2, 1) and outputs.tolist() == [[1, 1, 1]]


def test_a_manifest_in_a_folder_of_the_artifact_is_a_file_like_others(folder):
    (folder / "host" / MANIFEST).write_text("{}")
    write_manifest(folder, manifest())
    assert f"host/{MANIFEST}" in Artifact.load(folder).manifest["files"]


def test_a_relative_path_becomes_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert Artifact.load(folder.relative_to(folder.parent)).folder == folder.resolve()


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    _refused(folder, f"{name}: changed since it was compiled")


def test_a_missing_file_is_refused(folder):
    (folder / "net.c").unlink()
    _refused(folder, r"net\.c is missing; compile the network again")


def test_another_format_is_refused(folder):
    rewrite(folder, format=99)
    _refused(folder, f"format 99, this thumbnet reads {FORMAT}")


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    _refused(tmp_path, "makes one")
    _refused(tmp_path / "none", "makes one")
    (tmp_path / "file").write_text("")
    _refused(tmp_path / "file", "makes one")


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "zero"])
def test_only_regular_files_are_read(folder, name, kind):
    """A FIFO would hang, /dev/zero would fill the memory; a link's bytes are the right ones and still not its own."""
    path = folder / name
    moved = folder.parent / "moved"
    path.rename(moved)
    if kind == "link":
        path.symlink_to(moved)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    _refused(folder, "is a link|is no regular file")


def test_a_link_or_fifo_that_is_not_listed_is_refused_too(folder):
    (folder / "host" / "pytorch.pt").symlink_to("/etc/hostname")
    _refused(folder, r"host/pytorch\.pt: is a link")
    (folder / "host" / "pytorch.pt").unlink()
    os.mkfifo(folder / "more.h")
    _refused(folder, r"more\.h: is no regular file")


def test_a_folder_that_is_a_link_is_refused_inside_and_followed_outside(folder):
    (folder / "host").rename(folder.parent / "elsewhere")
    (folder / "host").symlink_to(folder.parent / "elsewhere")
    _refused(folder, "host: is a link")
    (folder / "host").unlink()
    (folder.parent / "elsewhere").rename(folder / "host")
    (folder.parent / "link").symlink_to(folder)
    assert Artifact.load(folder.parent / "link").folder == folder.resolve()


def test_a_file_too_large_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(file_access, "MOST_BYTES", 10_000)
    with (folder / "net.c").open("ab") as file:
        file.truncate(1 << 40)  # sparse: takes no room
    _refused(folder, r"net\.c: has 1,099,511,627,776 bytes, 10,000 at most")


def _npz(folder, **arrays):
    np.savez(folder / "golden.npz", **arrays)
    write_manifest(folder, manifest())


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"inputs": np.zeros((0, 2, 2, 1), np.int8), "outputs": np.zeros((0, 3), np.int8)}, "0 inputs and 0 outputs"),
        ({"inputs": np.zeros((2, 2, 2, 1), np.int8), "outputs": np.zeros((1, 3), np.int8)}, "2 inputs and 1 outputs"),
        (
            {"inputs": np.zeros((1, 2, 3, 1), np.int8), "outputs": np.zeros((1, 3), np.int8)},
            r"\[n, 2, 2, 1\], not int8",
        ),
        ({"inputs": np.zeros((1, 2, 2, 1), np.int16), "outputs": np.zeros((1, 3), np.int8)}, "not int16"),
        ({"inputs": np.zeros((1, 2, 2, 1), np.int8), "outputs": np.zeros((1, 4), np.int8)}, r"\[n, 3\], not int8"),
        ({"inputs": np.int8(3), "outputs": np.zeros((1, 3), np.int8)}, r"not int8 \[\]"),
        ({"inputs": np.zeros((1, 2, 2, 1), np.int8)}, "outputs must be int8 .* not none"),
    ],
)
def test_golden_vectors_are_what_the_manifest_says(folder, arrays, says):
    _npz(folder, **arrays)
    _refused(folder, says)


def _entry(header, data=b""):
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def _archive(path, *entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            archive.writestr("inputs.npy", entry)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (_entry("{'descr': '|i1', 'fortran_order': False, 'shape': (1099511627776,), }", b"12"), "claims int8"),
        (_entry("{'descr': '|i1', 'fortran_order': False, 'shape': (-1, -2), }", b"12"), "claims int8"),
        (_entry("{'descr': '|i1', 'fortran_order': False, 'shape': (1,), }", b"12"), "claims int8 .1,. and has 2"),
        (_entry("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"12345678"), "Python objects"),
        (_entry("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", b"12345678"), "Python objects"),
        (_entry("{'descr': '|i1', 'shape': (2,), }", b"12"), "not NumPy arrays"),
        (_entry("__import__('os')", b"12"), "not NumPy arrays"),
        (b"", "not NumPy arrays"),
        (b"\x93NUMPY\x09\x00", "not NumPy arrays"),
    ],
)
def test_a_header_is_compared_with_what_is_there_before_anything_is_allocated(tmp_path, entry, says):
    _archive(tmp_path / "a.npz", entry)
    with pytest.raises(ArtifactError, match=says):
        read_arrays(tmp_path / "a.npz")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(file_access, "MOST_BYTES", 1 << 20)
    _archive(tmp_path / "a.npz", bytes(2 << 20))
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    with pytest.raises(ArtifactError, match="more than 1,048,576 bytes unpacked"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive at all"])
def test_what_is_no_archive_is_refused(folder, data):
    (folder / "golden.npz").write_bytes(data)
    write_manifest(folder, manifest())
    _refused(folder, "golden.npz: not NumPy arrays")


def test_arrays_are_read_as_numpy_does(tmp_path):
    arrays = {
        "a": np.arange(24, dtype=np.int32).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "b/none": np.zeros((0, 3), np.int8),
        "scalar": np.float32(3),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].flags.writeable


def test_object_arrays_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    _archive(tmp_path / "a.npz", stream.getvalue())
    with pytest.raises(ArtifactError, match="Python objects"):
        read_arrays(tmp_path / "a.npz")


def test_the_file_on_disk_is_json(folder):
    assert json.loads((folder / MANIFEST).read_text())["golden"] == {"file": "golden.npz"}
