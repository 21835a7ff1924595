"""From the bundled network to artifacts, end to end."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.emit import footprint
from thumbnet.compile.errors import ArtifactError, CompileError, DoesNotFitError, QuantizationError
from thumbnet.compile.kernels.layouts import Layout
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference, run_reference_layers
from thumbnet.compile.plan.fit import CODE_RESERVE_BYTES
from thumbnet.compile.quantize_request import quantize_input
from thumbnet.compile.request import CompileOptions, CompileRequest
from thumbnet.compile.symbol_prefix import c_name
from thumbnet.models.image_folder import list_images
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES, load_model
from thumbnet.targets.board import Memory
from thumbnet.targets.registry import get_board

from .c_harness import STRICT, build, different_layers
from .networks import make_image
from .torch_modules import Head, Residual, calibrated, conv_unit

MODEL = "mobilenet_v1_0.25_digits"
C_NAME = "mobilenet_v1_0_25_digits"


@pytest.fixture(scope="module")
def trained():
    return load_model(MODEL)


def _read(trained, folder, count):
    images = list_images(folder).images[:count]
    inputs = [trained.preprocessing.to_float(trained.preprocessing.pixels(image.path)) for image in images]
    return inputs, np.array([image.class_index for image in images])


@pytest.fixture(scope="module")
def make_request(trained):
    calibration, _ = _read(trained, BUNDLED_FOLDER / "calibration", 8)

    def make(board, **changes):
        board = get_board(board) if isinstance(board, str) else board
        options = {name: changes.pop(name) for name in list(changes) if hasattr(CompileOptions, name)}
        request = CompileRequest(
            MODEL, trained.module, (1, 32, 32), board, CompileOptions(**options), calibration=calibration
        )
        return replace(request, **changes)

    return make


@pytest.fixture(scope="module")
def sources(make_request, tmp_path_factory):
    return compile_model(make_request("mps2_an386"), tmp_path_factory.mktemp("sources") / "artifact")


@pytest.fixture(scope="module")
def small_library(tmp_path_factory):
    """A residual network of four layers: LLVM takes half a minute for the digits'."""
    module = nn.Sequential(conv_unit(3, 4), Residual(conv_unit(4, 4, groups=4, activation=None)), Head(4))
    module, images = calibrated(module, (3, 8, 8))
    request = CompileRequest("Small net", module, (3, 8, 8), get_board("host"), calibration=images)
    return compile_model(request, tmp_path_factory.mktemp("small") / "artifact")


@pytest.fixture(scope="module")
def library(make_request, tmp_path_factory):
    return compile_model(make_request("host"), tmp_path_factory.mktemp("library") / "artifact")


@pytest.fixture(scope="module")
def digits(trained, sources):
    """Network, int8 images and labels of held-out digits, and the float network's answers."""
    network = load_reference(sources)
    inputs, labels = _read(trained, BUNDLED_IMAGES, 40)
    with torch.no_grad():
        answers = torch.cat([trained.module(image) for image in inputs]).argmax(1).numpy()
    return network, [quantize_input(network, image) for image in inputs], labels, answers


def test_the_quantized_network_reads_digits(digits):
    network, images, labels, answers = digits
    found = np.array([run_reference(network, image).argmax() for image in images])
    assert (found == answers).mean() >= 0.95
    assert (found == labels).mean() >= 0.95
    assert len(set(found)) >= 8


def test_sources_give_the_references_bytes_in_every_layer(sources, digits, tmp_path):
    network, images, _, _ = digits
    shutil.copytree(sources.folder, tmp_path / "copy")
    program = build(tmp_path / "copy", C_NAME)
    layouts = {layer["name"]: Layout(**layer["layout"]) for layer in sources.manifest["layers"]}
    assert different_layers(program, network, images[:3], layouts) == []
    fast = build(tmp_path / "copy", C_NAME, flags=(*STRICT, "-O3"))
    assert different_layers(fast, network, images, layouts) == []


def test_an_arena_of_the_callers(sources, digits, make_request, tmp_path):
    network, images, _, _ = digits
    request = make_request("mps2_an386", arena="caller")
    request = replace(request, options=replace(request.options, name="reader"))
    artifact = compile_model(request, tmp_path / "artifact")
    assert artifact.name == "reader" and artifact.manifest["caller_arena"]
    layouts = {layer["name"]: Layout(**layer["layout"]) for layer in artifact.manifest["layers"]}
    shutil.copytree(artifact.folder, tmp_path / "copy")
    assert different_layers(build(tmp_path / "copy", "reader"), network, images[:3], layouts) == []
    # Whoever has it, the board has to have the room.
    for key in ("static_bytes", "constant_bytes"):
        assert artifact.manifest["footprint"][key] <= sources.manifest["footprint"][key]
    assert artifact.manifest["footprint"]["static_bytes"] == artifact.manifest["arena_bytes"]
    assert artifact.manifest["memories"]["arena"] == sources.manifest["memories"]["arena"]


def test_libraries_have_their_arenas(make_request, tmp_path):
    with pytest.raises(CompileError, match="--arena caller is for boards that take C sources; leave it out"):
        compile_model(make_request("raspberry_pi_4", arena="caller"), tmp_path / "artifact")


def _load(artifact, name):
    return relax.VirtualMachine(tvm.runtime.load_module(str(artifact.folder / name)), tvm.cpu())


def test_a_small_library_gives_the_references_bytes_in_every_layer(small_library):
    network = load_reference(small_library)
    _check_library(small_library, network, [make_image(network, seed) for seed in range(5)])


@pytest.mark.slow
def test_a_library_gives_the_references_bytes_in_every_layer(library, digits):
    _, images, _, _ = digits
    # Its own reference: TVM's schedules keep more of the dead channels than microcontrollers' kernels do.
    _check_library(library, load_reference(library), images[:10])


def _check_library(library, network, images):
    main = _load(library, f"{library.name}.so")
    layers = _load(library, library.manifest["layers_library"])
    for image in images:
        argument = tvm.runtime.tensor(image[None])
        np.testing.assert_array_equal(main["main"](argument).numpy()[0], run_reference(network, image))
        expected = run_reference_layers(network, image)
        for output, (name, value) in zip(layers["layers"](argument), expected.items(), strict=True):
            np.testing.assert_array_equal(output.numpy()[0], value, name)


@pytest.mark.slow
def test_both_kinds_are_one_network(sources, library):
    for one, other in zip(sources.golden(), library.golden(), strict=True):
        np.testing.assert_array_equal(one, other)


EXPECTED = {
    "sources": {"name": C_NAME, "model": MODEL, "kind": "c", "board": "mps2_an386", "dtype": "int8"},
    "small_library": {"name": "small_net", "model": "Small net", "kind": "library", "board": "host", "dtype": "int8"},
}


@pytest.mark.parametrize("which", EXPECTED)
def test_the_manifest_says_what_to_expect(which, request):
    artifact = request.getfixturevalue(which)
    manifest = artifact.manifest
    assert {key: manifest[key] for key in EXPECTED[which]} == EXPECTED[which]
    assert {"thumbnet", "apache-tvm", "torch", "torchao", "numpy", "python"} <= set(manifest["versions"])
    network = load_reference(artifact)
    assert manifest["input"]["shape"] == list(network.input_shape)
    assert manifest["output"]["shape"] == [network.output.output_shape[2]]
    # Sources are listed by stage: one layer, or a chain computed together.
    listed = [name for layer in manifest["layers"] for name in layer.get("layers", [layer["name"]])]
    assert listed == [layer.name for layer in network.layers]
    assert manifest["macs"] == network.macs == sum(layer["macs"] for layer in manifest["layers"])
    inputs, outputs = artifact.golden()
    assert manifest["golden"]["outputs"] == outputs.tolist()
    for given, expected in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(run_reference(network, given), expected)


def test_the_arena_is_what_the_header_says(sources):
    header = (sources.folder / f"{C_NAME}.h").read_text()
    assert f"#define {C_NAME.upper()}_ARENA_BYTES {sources.manifest['arena_bytes']}\n" in header


@pytest.mark.needs_tools("arm-none-eabi-gcc")
def test_the_footprint_is_what_the_compiler_makes(sources):
    built = sources.manifest["footprint"]
    assert built["static_bytes"] == sources.manifest["arena_bytes"]
    # Beside the constants there are the layers' names, their table and gaps of alignment.
    assert 0 < built["constant_bytes"] - sources.manifest["constant_bytes"] < 2000
    assert 4000 < built["code_bytes"] < 40000
    assert 0 < built["library_bytes"] < 2000
    assert 64 < built["stack_bytes"] < 1000
    assert built["stack_path"][0] == f"{C_NAME}_run"
    assert (built["stack_unknown_because"], built["compiler"][:13]) == (None, "arm-none-eabi")


def test_without_the_boards_compiler_the_footprint_is_not_known(make_request, tmp_path, monkeypatch):
    which = shutil.which
    monkeypatch.setattr(
        footprint.shutil, "which", lambda name, *more: None if name == "arm-none-eabi-gcc" else which(name, *more)
    )
    artifact = compile_model(make_request("mps2_an386"), tmp_path / "artifact")
    assert artifact.manifest["footprint"] == {"unknown_because": "not known without arm-none-eabi-gcc"}


@pytest.mark.needs_tools("arm-none-eabi-gcc")
def test_a_board_is_filled_to_the_last_byte(make_request, sources, tmp_path):
    built = sources.manifest["footprint"]
    flash = built["code_bytes"] + built["constant_bytes"] + built["library_bytes"]
    # What is reserved where nothing is known doesn't count here.
    assert flash < built["constant_bytes"] + CODE_RESERVE_BYTES
    board = replace(get_board("mps2_an386"), flash=Memory("FLASH", 0, flash))
    compile_model(make_request(board), tmp_path / "fits")
    with pytest.raises(DoesNotFitError, match="of flash"):
        compile_model(make_request(replace(board, flash=Memory("FLASH", 0, flash - 1))), tmp_path / "too_small")


def test_compiling_twice_gives_the_same_files(sources, make_request, tmp_path):
    again = compile_model(make_request("mps2_an386"), tmp_path / "again")
    text = {name: hash for name, hash in again.manifest["files"].items() if not name.endswith(".npz")}
    assert text == {name: hash for name, hash in sources.manifest["files"].items() if not name.endswith(".npz")}


def test_float32_for_boards_that_run_linux(make_request, trained, tmp_path):
    artifact = compile_model(make_request("host", quantize="none"), tmp_path / "float")
    machine = _load(artifact, f"{C_NAME}.so")
    inputs, _ = _read(trained, BUNDLED_IMAGES, 5)
    for image in inputs:
        rows = np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy())
        with torch.no_grad():
            expected = trained.module(image).numpy()
        np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(rows)).numpy(), expected, rtol=1e-3, atol=1e-3)


REFUSED = {
    "float32 on a microcontroller": (CompileError, {"quantize": "none"}, "runs int8 networks only"),
    "no ranges": (QuantizationError, {"calibration": ()}, "--calibration DIR"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_not_be_compiled_leaves_no_folder(what, make_request, tmp_path):
    error, changes, message = REFUSED[what]
    with pytest.raises(error, match=message):
        compile_model(make_request("mps2_an386", **changes), tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


def test_a_board_too_small_leaves_the_old_artifact(make_request, sources, tmp_path):
    folder = tmp_path / "artifact"
    shutil.copytree(sources.folder, folder)
    board = replace(get_board("mps2_an386"), name="tiny", flash=Memory("FLASH", 0, 64 << 10))
    with pytest.raises(DoesNotFitError, match=r"needs \d+ KiB of flash, tiny has 64 KiB"):
        compile_model(make_request(board), folder)
    assert Artifact.load(folder).manifest == sources.manifest
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_other_things_is_left_alone(make_request, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not an artifact"):
        compile_model(make_request("mps2_an386"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "identifier"),
    [("mobilenet_v1_0.25_128", "mobilenet_v1_0_25_128"), ("3 Cats", "_3_cats"), ("vww_96", "vww_96")],
)
def test_c_names(name, identifier):
    assert c_name(name) == identifier


def test_input_pixels_become_the_nearest_step(digits):
    network, _, _, _ = digits
    scale, zero_point = network.input_quant
    steps = torch.tensor([-1000.0, -128.0, -1.4, 0.0, 1.4, 1.6, 127.0, 1000.0])
    image = (steps * scale).reshape(1, 1, 1, 8)
    found = quantize_input(network, image)
    assert found.shape == (1, 8, 1) and found.dtype == np.int8
    np.testing.assert_array_equal(found.ravel(), np.clip(np.rint(steps.numpy()) + zero_point, -128, 127))
