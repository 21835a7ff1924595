"""What a manifest may say: every key that is read, with type and range; what isn't read is let through."""

import json

import pytest

from thumbnet.compile.artifact import MANIFEST, Artifact
from thumbnet.compile.errors import ArtifactError

from .artifacts import manifest, rewrite, write_artifact

LAYOUT = {
    "shape": [1, 1, 3],
    "element_bytes": 1,
    "first": 0,
    "row_bytes": 3,
    "pixel_bytes": 3,
    "channel_bytes": 1,
    "size": 7,
    "border": [0, 0, 0, 0],
}
LAYER = {"name": "classes", "shape": [1, 1, 3]}


@pytest.fixture
def folder(tmp_path):
    return write_artifact(tmp_path / "artifact")


def _refused(folder, says):
    with pytest.raises(ArtifactError, match=says) as caught:
        Artifact.load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert MANIFEST in str(caught.value) and str(caught.value).endswith("compile the network again")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", '"text"', "\udcff", "null", '{"format": 1}', '{"format": 1, "files": 3}', '{"format": true}'),
        "[" * 100_000,
        '{"format": 1, "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"format": 1, "macs": ' + "9" * 10_000 + "}",
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(folder, text):
    (folder / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    _refused(folder, "compile the network again")


def test_a_huge_manifest_is_refused(folder):
    rewrite(folder, more="x" * (5 << 20))
    with pytest.raises(ArtifactError, match=r"manifest\.json: has 5,\d+,\d+ bytes, 4,194,304 at most are read"):
        Artifact.load(folder)


def test_more_keys_are_let_through_anywhere(folder):
    rewrite(folder, preprocessing={"mean": [0.5]}, layers=[{**LAYER, "more": None, "layout": LAYOUT}])
    assert Artifact.load(folder).manifest["preprocessing"] == {"mean": [0.5]}


@pytest.mark.parametrize("key", sorted({*manifest(), "format", "files"}))
def test_no_key_may_be_missing(folder, key):
    content = json.loads((folder / MANIFEST).read_text())
    del content[key]
    (folder / MANIFEST).write_text(json.dumps(content))
    _refused(folder, {"format": "format None", "golden": "has no golden vectors"}.get(key, f"{key}: field required"))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "host/../../secret", "host/./x", "a//b", "a\0b", "a\nb", ""]
)
def test_a_path_out_of_the_folder_is_refused(folder, name):
    (folder.parent / "secret").write_text("secret")
    rewrite(folder, files={name: "0" * 64})
    _refused(folder, "points outside the artifact|is no name of a file|at least 1 char")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a\0"}, "name: string should match"),
        ({"name": "a" * 5000}, "name: string should have at most 128"),
        ({"name": "../../x"}, "name: string should match"),
        ({"name": "other"}, r"lists no other\.c among its files"),
        ({"model": "x\ny"}, "model: string should match"),
        ({"model": 3}, "model: input should be a valid string, not 3"),
        ({"model": "\ud800"}, "model: "),
        ({"core": ""}, "core: "),
        ({"board": None}, "board: input should be a valid string, not None"),
        ({"kind": "exe"}, "kind: "),
        ({"dtype": "float64"}, "dtype: "),
        ({"dtype": "float32"}, "dtype is float32, the input's int8"),
        ({"files": {}}, "files: "),
        ({"files": []}, "files: "),
        ({"files": {"net.c": "0"}}, "files.'net.c': "),
        ({"files": {MANIFEST: "0" * 64}}, "can't list itself"),
        ({"layers": []}, "lists no layers"),
        ({"layers": [LAYER, LAYER]}, "two layers have one name"),
        ({"layers": [{**LAYER, "shape": []}]}, r"layers\.0\.shape: "),
        ({"layers": [{**LAYER, "shape": [1 << 16] * 3}]}, r"layers\.0\.shape: has .* elements"),
        ({"layers": [{**LAYER, "macs": -1}]}, r"layers\.0\.macs: "),
        ({"layers": [{**LAYER, "kernel": None}]}, r"layers\.0\.kernel: "),
        ({"layers": [{**LAYER, "layers": "ab"}]}, r"layers\.0\.layers: "),
        ({"layers": [{**LAYER, "layout": None}]}, r"layers\.0\.layout: "),
        ({"layers": [{**LAYER, "layout": {**LAYOUT, "size": 2}}]}, r"layout: its values reach beyond its 2 bytes"),
        ({"layers": [{**LAYER, "layout": {**LAYOUT, "more": 2}}]}, r"layout\.more: "),
        ({"layers": [{**LAYER, "layout": {**LAYOUT, "shape": [1, 2, 3]}}]}, r"its layout is of \[1, 2, 3\]"),
        ({"input": {"shape": [2, 2], "dtype": "int8"}}, "not HWC and classes"),
        ({"input": {"shape": [2, 2, 0], "dtype": "int8"}}, r"input\.shape\.2: "),
        ({"input": {"shape": [2, 2, True], "dtype": "int8"}}, r"input\.shape\.2: "),
        ({"input": {"shape": [2, 2, 1], "dtype": "int8", "scale": float("nan")}}, r"input\.scale: "),
        ({"input": {"shape": [2, 2, 1], "dtype": "int8", "scale": 10**400}}, r"input\.scale: "),
        ({"input": {"shape": [2, 2, 1], "dtype": "int8", "zero_point": 128}}, r"input\.zero_point: "),
        ({"output": {"shape": [3.5], "dtype": "int8"}}, r"output\.shape\.0: "),
        ({"golden": {"file": "../golden.npz"}}, r"golden\.file: "),
        ({"golden": None}, "golden: "),
        ({"macs": 10**300}, "macs: "),
        ({"arena_bytes": "many"}, "arena_bytes: "),
        ({"layers_library": "../../x.so"}, "layers_library: points outside"),
        ({"layers_library": "x.so"}, r"lists no x\.so among its files"),
        ({"tuned": 1}, "tuned: "),
        ({"footprint": {"code_bytes": -1}}, r"footprint\.code_bytes: "),
        ({"ram_choices": [{"arena_bytes": 1}]}, r"ram_choices\.0\.predicted_instructions: "),
        ({"dead_channels": "some"}, "dead_channels"),
        ({"dead_channels": {"removed": {}}}, "dead_channels"),
        ({"quantization": {"mode": "int8"}}, r"quantization\.ranges: "),
    ],
)
def test_what_no_code_expects_is_refused_with_its_place(folder, changes, says):
    rewrite(folder, **changes)
    _refused(folder, says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "library"}, r"lists no net\.so among its files"),
        ({"dtype": "float32", "input": {"shape": [2, 2, 1], "dtype": "float32"}}, "dtype is float32"),
    ],
)
def test_a_library_needs_its_library(folder, changes, says):
    rewrite(folder, **changes)
    _refused(folder, says)
