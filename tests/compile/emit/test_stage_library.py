"""The plain C library of a board with Linux: its files and symbols, its example, its CMake file, two in one program."""

import shutil
import subprocess

import numpy as np
import pytest

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import REFERENCE_FILE
from thumbnet.compile.network.network_file import load_network
from thumbnet.compile.network.reference import run_reference
from thumbnet.models.image_folder import list_images
from thumbnet.models.weights import BUNDLED_FOLDER, BUNDLED_IMAGES
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import compile_network, load_trained
from thumbnet.tools.network_options import NetworkFiles

BOARD = get_board("raspberry_pi_4")
COMPILER = BOARD.cross_compiler
RUN = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", BOARD.core)
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror")
needs_tools = pytest.mark.needs_tools(COMPILER, "qemu-aarch64")
pytestmark = [pytest.mark.emulated, needs_tools]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Return the two bundled networks, compiled for a board with Linux."""
    folder = tmp_path_factory.mktemp("compiled")
    return [
        compile_network(NetworkFiles(model, calibration=BUNDLED_FOLDER / "calibration"), BOARD, folder / model)
        for model in ("mobilenet_v1_0.25_digits", "mobilenet_v2_0.35_digits")
    ]


@pytest.fixture(scope="module")
def example(artifacts, tmp_path_factory):
    """Return the example program, built by the artifact's CMake file where there is a CMake, else by the compiler."""
    folder, build = artifacts[0].folder, tmp_path_factory.mktemp("build")
    if shutil.which("cmake") is None:
        name = artifacts[0].name
        run(COMPILER, *STRICT, folder / "example.c", folder / f"lib{name}.a", "-lm", "-o", build / "example")
    else:
        run("cmake", "-S", folder, "-B", build, f"-DCMAKE_C_COMPILER={COMPILER}")
        run("cmake", "--build", build)
    return build / "example"


def run(*command, code=0):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def symbols(file, *options):
    return [line.split()[-2:] for line in run("aarch64-linux-gnu-nm", *options, file).splitlines() if " " in line]


def write_pgm(path, pixels, comment=""):
    height, width = pixels.shape[:2]
    path.write_bytes(f"P5\n{comment}{width} {height}\n255\n".encode() + pixels.tobytes())
    return path


def test_files_of_an_artifact(artifacts):
    for artifact in artifacts:
        name = artifact.name
        library = {f"{name}.so", f"lib{name}.so", f"lib{name}.a", f"{name}.h", "example.c", "CMakeLists.txt"}
        found = {file.name for file in artifact.folder.iterdir()}
        assert found == library | {"golden.npz", "host", "manifest.json"}
        Artifact.load(artifact.folder)


def test_symbols_of_an_archive_are_prefixed_by_the_networks_name(artifacts):
    for artifact in artifacts:
        name = artifact.name
        found = symbols(artifact.folder / f"lib{name}.a", "--extern-only")
        defined = [symbol for kind, symbol in found if kind != "U"]
        assert f"{name}_run" in defined
        assert not [symbol for symbol in defined if not symbol.startswith(f"{name}_")]
        # The C library's, and nothing of TVM.
        wanted = {symbol for kind, symbol in found if kind == "U" and not symbol.startswith(f"{name}_")}
        assert wanted <= {"memcpy", "memmove", "memset"}


def test_shared_library_needs_the_c_library_only(artifacts):
    for artifact in artifacts:
        dynamic = run("aarch64-linux-gnu-readelf", "-d", artifact.folder / f"lib{artifact.name}.so")
        needed = [line for line in dynamic.splitlines() if "(NEEDED)" in line]
        assert all("libc.so.6" in line for line in needed)
        assert f"[lib{artifact.name}.so]" in next(line for line in dynamic.splitlines() if "(SONAME)" in line)


def expected_lines(artifact, pixels):
    """Return what the example prints, from the reference."""
    network = load_network(artifact.folder / REFERENCE_FILE)
    assert network.input_quant.zero_point == -128
    output = run_reference(network, (pixels.astype(np.int16) - 128).astype(np.int8)).reshape(-1)
    scale, zero_point = network.output.output_quant
    best = np.argsort(-output.astype(int), kind="stable")[:5]
    return [f"class {index}: {np.float32(scale) * np.float32(int(output[index]) - zero_point):.4f}" for index in best]


def test_example_gives_the_references_classes(artifacts, example, tmp_path):
    preprocessing = load_trained(artifacts[0]).preprocessing
    right = 0
    images = list_images(BUNDLED_IMAGES).images[:10]
    for image in images:
        pixels = preprocessing.pixels(image.path)
        lines = run(*RUN, example, write_pgm(tmp_path / "a.pgm", pixels)).splitlines()
        assert lines == expected_lines(artifacts[0], pixels)
        right += lines[0].startswith(f"class {image.class_index}:")
    assert right >= 9


def test_example_resizes_a_picture_to_its_nearest_pixels(artifacts, example, tmp_path):
    preprocessing = load_trained(artifacts[0]).preprocessing
    pixels = preprocessing.pixels(list_images(BUNDLED_IMAGES).images[0].path)
    expected = expected_lines(artifacts[0], pixels)
    large = write_pgm(tmp_path / "large.pgm", pixels.repeat(3, axis=0).repeat(2, axis=1), "# three by two\n")
    assert run(*RUN, example, large).splitlines() == expected
    rows, columns = ((2 * np.arange(32) + 1) * size // 64 for size in (20, 45))
    other = np.random.default_rng(1).integers(0, 256, (20, 45, 1), np.uint8)
    odd = write_pgm(tmp_path / "odd.pgm", other)
    assert run(*RUN, example, odd).splitlines() == expected_lines(artifacts[0], other[rows][:, columns])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "can't be opened"),
        (b"", "not a binary PGM"),
        (b"P6\n1 1\n255\nabc", "not a binary PGM"),
        (b"P5\n", "its size or its 255 levels are missing"),
        (b"P5\n-3 4\n255\n", "its size"),
        (b"P5\n4 4\n65535\n" + bytes(32), "255 levels"),
        (b"P5\n1000000 4\n255\n", "its size"),
        (b"P5\n4 4\n255\n" + bytes(15), "fewer pixels"),
    ],
)
def test_example_says_what_is_wrong_with_a_picture(example, tmp_path, content, says):
    picture = tmp_path / "a.pgm"
    if content is not None:
        picture.write_bytes(content)
    lines = run(*RUN, example, picture, code=2).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{picture}: ") and says in lines[0]


def test_example_on_a_processor_without_the_networks_instructions(tmp_path):
    """Instead of an illegal instruction."""
    board = get_board("raspberry_pi_5")
    files = NetworkFiles("mobilenet_v1_0.25_digits", calibration=BUNDLED_FOLDER / "calibration", calibration_limit=4)
    artifact = compile_network(files, board, tmp_path / "a76")
    archive = artifact.folder / f"lib{artifact.name}.a"
    run(COMPILER, *STRICT, artifact.folder / "example.c", archive, "-lm", "-o", tmp_path / "example")
    pixels = load_trained(artifact).preprocessing.pixels(list_images(BUNDLED_IMAGES).images[0].path)
    picture = write_pgm(tmp_path / "a.pgm", pixels)
    said = run(*RUN, tmp_path / "example", picture, code=2)
    assert said.endswith("compiled for raspberry_pi_5 (cortex-a76); this processor has no dot product instruction\n")
    lines = run(*RUN[:-1], board.core, tmp_path / "example", picture).splitlines()
    assert lines == expected_lines(artifact, pixels)


def test_another_computers_compiler_is_refused_in_one_sentence(artifacts, tmp_path):
    if shutil.which("cmake") is None or shutil.which("gcc") is None:
        pytest.skip("needs cmake and gcc (apt install cmake gcc)")
    said = " ".join(run("cmake", "-S", artifacts[0].folder, "-B", tmp_path, "-DCMAKE_C_COMPILER=gcc", code=1).split())
    assert f"{artifacts[0].name} was compiled for raspberry_pi_4" in said
    assert f"use -DCMAKE_C_COMPILER={COMPILER}" in said


TWO = """
#include <stdio.h>
#include "{0}.h"
#include "{1}.h"
int main(void) {{
    if (fread({0}_input(), 1, sizeof(char[{2}_INPUT_BYTES]), stdin) != {2}_INPUT_BYTES ||
        fread({1}_input(), 1, sizeof(char[{3}_INPUT_BYTES]), stdin) != {3}_INPUT_BYTES)
        return 1;
    {1}_run();
    {0}_run();
    fwrite({0}_output(), 1, {2}_OUTPUT_BYTES, stdout);
    fwrite({1}_output(), 1, {3}_OUTPUT_BYTES, stdout);
    return 0;
}}
"""


@pytest.mark.parametrize("kind", ["a", "so"])
def test_two_networks_in_one_program(artifacts, tmp_path, kind):
    names = [artifact.name for artifact in artifacts]
    (tmp_path / "two.c").write_text(TWO.format(*names, *(name.upper() for name in names)))
    folders = [artifact.folder for artifact in artifacts]
    includes = [f"-I{folder}" for folder in folders]
    libraries = [folder / f"lib{name}.{kind}" for folder, name in zip(folders, names, strict=True)]
    paths = [f"-Wl,-rpath,{folder}" for folder in folders]
    run(COMPILER, *STRICT, *includes, tmp_path / "two.c", *libraries, *paths, "-o", tmp_path / "two")
    images, outputs = zip(*(artifact.golden() for artifact in artifacts), strict=True)
    given = images[0][0].tobytes() + images[1][0].tobytes()
    done = subprocess.run([*RUN, tmp_path / "two"], input=given, capture_output=True, check=True)
    assert done.stdout == outputs[0][0].tobytes() + outputs[1][0].tobytes()


def test_cmake_of_a_program_with_two_networks(artifacts, tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake (apt install cmake)")
    names = [artifact.name for artifact in artifacts]
    (tmp_path / "two.c").write_text(TWO.format(*names, *(name.upper() for name in names)))
    added = "\n".join(f"add_subdirectory({artifact.folder} {artifact.name})" for artifact in artifacts)
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(two C)\n{added}\nadd_executable(two two.c)\n"
        f"target_link_libraries(two PRIVATE {names[0]} {names[1]}_shared)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_C_COMPILER={COMPILER}")
    run("cmake", "--build", tmp_path / "build")
    assert not (tmp_path / "build" / names[0] / "example").exists(), "a program of one's own builds no example"
    images, outputs = zip(*(artifact.golden() for artifact in artifacts), strict=True)
    given = images[0][0].tobytes() + images[1][0].tobytes()
    done = subprocess.run([*RUN, tmp_path / "build" / "two"], input=given, capture_output=True, check=True)
    assert done.stdout == outputs[0][0].tobytes() + outputs[1][0].tobytes()
