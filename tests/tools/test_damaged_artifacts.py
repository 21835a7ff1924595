"""Whatever is wrong with an artifact is one line: no traceback, no hang, no memory that a header claims."""

import contextlib
import json
import random
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from thumbnet.compile.artifact import MANIFEST, Artifact, write_manifest
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network
from thumbnet.tools.network_options import NetworkFiles

from .damage import damage

DIGITS = "mobilenet_v1_0.25_digits"
#: A hang, on whatever machine.
LONGEST_S = 300
#: The digits network and its reference need a few megabytes.
MOST_BYTES = 1 << 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One artifact of each kind; the libraries are none that could be run."""
    folder = tmp_path_factory.mktemp("whole")
    files = NetworkFiles(DIGITS, calibration=BUNDLED_FOLDER / "calibration", calibration_limit=4)
    sources = compile_network(files, get_board("mps2_an386"), folder / "c")
    host = {"board": "host", "core": get_board("host").core, "kind": "library"}
    kept = {key: value for key, value in sources.manifest.items() if key not in ("files", "format")}
    for name, own in (("library", {"layers_library": f"{sources.name}_layers.so"}), ("float", {"dtype": "float32"})):
        shutil.copytree(folder / "c", folder / name, ignore=shutil.ignore_patterns("*.c", "*.h", "CMake*"))
        for file in (f"{sources.name}.so", f"{sources.name}_layers.so"):
            (folder / name / file).write_bytes(b"\x7fELF")
        manifest = {**kept, **host, **own}
        if name == "float":
            (folder / name / "golden.npz").unlink()
            (folder / name / "host" / "reference.npz").unlink()
            del manifest["golden"]
            manifest["layers"] = []
            for end in ("input", "output"):
                manifest[end] = {"shape": manifest[end]["shape"], "dtype": "float32"}
        write_manifest(folder / name, manifest)
        Artifact.load(folder / name)
    return folder


@contextlib.contextmanager
def limited():
    """Bound the memory that is asked for, and the time."""

    def too_long(*_):
        raise AssertionError("hangs")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, before[1]))
    signal.alarm(LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def _read_all(folder):
    """Read what the commands read of an artifact, and compute with it."""
    artifact = Artifact.load(folder)
    if artifact.manifest["dtype"] == "int8":
        inputs, _ = artifact.golden()
        run_reference(load_reference(artifact), inputs[0])


def _read_or_refuse(whole, folder, seed):
    chance = random.Random(seed)
    kind = damage(whole / chance.choice(["c", "c", "library", "float"]), folder, chance)
    try:
        with limited():
            _read_all(folder)
    except ArtifactError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return kind, True
    return kind, False


def test_whole_ones_are_read(whole):
    for name in ("c", "library", "float"):
        with limited():
            _read_all(whole / name)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.filterwarnings("error")
def test_whatever_is_changed_is_read_or_refused(whole, tmp_path, seed):
    _read_or_refuse(whole, tmp_path / "damaged", seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_whatever_is_changed_in_many_ways_is_read_or_refused(whole, tmp_path):
    seen = []
    for seed in range(1000, 1500):
        try:
            seen.append(_read_or_refuse(whole, tmp_path / "damaged", seed))
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error
        shutil.rmtree(tmp_path / "damaged")
    for kind in {kind for kind, _ in seen}:
        assert sum(refused for found, refused in seen if found == kind) > 10, kind


def _rewrite(folder, change):
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


@pytest.fixture(params=["test", "profile"])
def refused_by(request, refused):
    """Run a command on an artifact that it must refuse; returns the line."""
    images = ("--images", BUNDLED_IMAGES) if request.param == "test" else ()
    return lambda folder: refused(request.param, folder, "--device", "qemu_mps2_an386", *images)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("core"), "core: field required"),
        (lambda content: content.pop("layers"), "layers: field required"),
        (lambda content: content.update(name="a\0b"), "name: "),
        (lambda content: content.update(model="x" * 5000), "model: "),
        (lambda content: content.update(files={}), "files: "),
        (lambda content: content["files"].update({"../x": "0" * 64}), "points outside the artifact"),
        (lambda content: content["input"].update(shape=[10**12] * 3), "input.shape.0: "),
        (lambda content: content.pop("golden"), "has no golden vectors"),
    ],
)
def test_the_commands_say_it_in_one_line(refused_by, whole, tmp_path, change, says):
    folder = tmp_path / "damaged"
    shutil.copytree(whole / "c", folder)
    _rewrite(folder, change)
    line = refused_by(folder)
    assert says in line and str(folder) in line


def test_an_empty_golden_npz_is_no_ctrl_c(refused_by, whole, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(whole / "c", folder)
    (folder / "golden.npz").write_bytes(b"")
    manifest = json.loads((folder / MANIFEST).read_text())
    write_manifest(folder, {key: value for key, value in manifest.items() if key not in ("format", "files")})
    assert "golden.npz: not NumPy arrays" in refused_by(folder)


def test_a_reference_of_another_network_is_refused(whole, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(whole / "c", folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["output"]["shape"] = [11]
    with np.load(folder / "golden.npz") as arrays:
        inputs = arrays["inputs"]
    np.savez(folder / "golden.npz", inputs=inputs, outputs=np.zeros((len(inputs), 11), np.int8))
    write_manifest(folder, {key: value for key, value in manifest.items() if key not in ("format", "files")})
    with pytest.raises(ArtifactError, match=r"reference\.npz: takes \[32, 32, 1\] and gives \[10\], the manifest says"):
        load_reference(Artifact.load(folder))
