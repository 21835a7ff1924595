"""Packages for other build systems: what can be built here is built and run, the rest is held to its system's rules."""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from click.testing import CliRunner

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.errors import ArtifactError
from thumbnet.compile.network.golden import make_golden
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.targets.board import CORTEX_M_FLAGS
from thumbnet.tools.commands.package import package
from thumbnet.tools.package.forms import FORMS
from thumbnet.tools.package.write_package import Publisher, write_package

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compile"))
import networks

PUBLISHER = Publisher("Ann Author", "1.2.3", "https://example.org/reader")
WARNINGS = ("-Wall", "-Wextra", "-Werror")
OPTIONS = [{}, {"streamed": True}, {"caller_arena": True}, {"streamed": True, "caller_arena": True}]
#: Of a module's description, what Zephyr's `scripts/zephyr_module.py` takes.
ZEPHYR_KEYS = {
    *("name", "build", "tests", "samples", "boards", "blobs", "security", "package-managers", "runners"),
    *("build.cmake", "build.kconfig", "build.cmake-ext", "build.kconfig-ext", "build.depends", "build.settings"),
}
#: As much of Arduino's core as the example needs, on a computer.
ARDUINO = """
#pragma once
#include <cstdio>
#include <cstdlib>
static unsigned long micros() { return 0; }
static void delay(unsigned long) { std::exit(0); }
static struct {
    void begin(long) {}
    void print(const char *text) { std::printf("%s", text); }
    void print(int value) { std::printf("%d", value); }
    void println(const char *text) { std::printf("%s\\n", text); }
    void println(unsigned long value) { std::printf("%lu\\n", value); }
} Serial;
"""
#: As much as the port of the server takes of Zephyr's headers.
ZEPHYR = Path(__file__).resolve().parents[1] / "runtime_tests" / "mcu" / "zephyr"


def _write_artifact(folder, *, name="reader", core="cortex-m4", streamed=False, caller_arena=False, **changes):
    network = networks.one_of_each_kind(size=8)
    folder.mkdir(parents=True)
    lowered = lower_network(network, 1 << 20, streamed=streamed)
    emit_c(lowered, name, folder, title="a test", generator="thumbnet's tests", caller_arena=caller_arena)
    inputs, outputs = make_golden(network)
    np.savez(folder / "golden.npz", inputs=inputs, outputs=outputs)
    manifest = {
        "name": name,
        "model": 'nets:make "it" & <more>; ${x}',
        "kind": "c",
        "board": "mps2_an386",
        "core": core,
        "dtype": "int8",
        "golden": {"file": "golden.npz"},
        "arena_bytes": lowered.plan.arena_bytes,
        "streamed_input": streamed,
        "caller_arena": caller_arena,
        "input": {"shape": network.input_shape, "dtype": "int8", "scale": 1.0, "zero_point": 0},
        "output": {"shape": [outputs[0].size], "dtype": "int8", "scale": 1.0, "zero_point": 0},
        "layers": [
            {"name": stage.name, "shape": stage.output_layout.shape, "layout": asdict(stage.output_layout)}
            for stage in lowered.stages
        ],
    }
    write_manifest(folder, {**manifest, **changes})
    return Artifact.load(folder)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return _write_artifact(tmp_path_factory.mktemp("artifact") / "net")


@pytest.fixture(scope="module")
def packages(artifact, tmp_path_factory):
    """A package of each form, by its name."""
    folder = tmp_path_factory.mktemp("packages")
    for form in FORMS:
        write_package(artifact, form, folder / form, PUBLISHER)
    return {form: folder / form for form in FORMS}


def _class(artifact):
    return f"reader: class {artifact.golden()[1][0].argmax()}"


def _run(*command, cwd=None):
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.needs_tools("cmake", "gcc")
@pytest.mark.parametrize("options", OPTIONS)
def test_cmake_builds_and_runs(options, tmp_path):
    artifact = _write_artifact(tmp_path / "net", **options)
    write_package(artifact, "cmake", tmp_path / "package", PUBLISHER)
    _run("cmake", "-S", tmp_path / "package", "-B", tmp_path / "build", f"-DCMAKE_C_FLAGS={' '.join(WARNINGS)}")
    _run("cmake", "--build", tmp_path / "build")
    assert _run(tmp_path / "build" / "reader_example") == f"{_class(artifact)}\n"


@pytest.mark.needs_tools("cmake", "gcc")
def test_cmake_sees_another_answer(artifact, tmp_path):
    write_package(artifact, "cmake", tmp_path / "package", PUBLISHER)
    golden = tmp_path / "package" / "example" / "reader_golden.h"
    head, brace, values = golden.read_text().partition("golden_output[READER_OUTPUT_BYTES] = {\n    ")
    golden.write_text(f"{head}{brace}1 + {values}")
    _run("cmake", "-S", tmp_path / "package", "-B", tmp_path / "build")
    _run("cmake", "--build", tmp_path / "build")
    done = subprocess.run([tmp_path / "build" / "reader_example"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "reader: the output is not the golden one\n")


@pytest.mark.needs_tools("cmake", "gcc")
def test_cmake_installs_a_package_that_is_found(packages, artifact, tmp_path):
    _run("cmake", "-S", packages["cmake"], "-B", tmp_path / "build", f"-DCMAKE_INSTALL_PREFIX={tmp_path}/installed")
    _run("cmake", "--build", tmp_path / "build")
    _run("cmake", "--install", tmp_path / "build")
    _use_by_cmake(tmp_path, "find_package(reader 1.1 REQUIRED)", f"-DCMAKE_PREFIX_PATH={tmp_path}/installed")


@pytest.mark.needs_tools("cmake", "gcc")
def test_cmake_fetches_the_package(packages, tmp_path):
    fetch = f"include(FetchContent)\nFetchContent_Declare(reader SOURCE_DIR {packages['cmake']})\n"
    _use_by_cmake(tmp_path, f"{fetch}FetchContent_MakeAvailable(reader)")
    assert not list((tmp_path / "made").rglob("reader_example")), "the example is for who builds the package alone"


def _use_by_cmake(folder, find, *options):
    """Build somebody's program with the package's library."""
    (folder / "mine").mkdir()
    text = f"cmake_minimum_required(VERSION 3.16)\nproject(mine C)\n{find}\n"
    text += "add_executable(mine main.c)\ntarget_link_libraries(mine PRIVATE reader::reader)\n"
    (folder / "mine" / "CMakeLists.txt").write_text(text)
    (folder / "mine" / "main.c").write_text('#include "reader.h"\nint main(void) { reader_run(); return 0; }\n')
    _run("cmake", "-S", folder / "mine", "-B", folder / "made", *options)
    _run("cmake", "--build", folder / "made")
    _run(folder / "made" / "mine")


@pytest.mark.needs_tools("cmake", "arm-none-eabi-gcc")
def test_cmake_builds_for_the_board(packages, tmp_path):
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={packages['cmake']}/cmake/toolchain.cmake"
    _run("cmake", "-S", packages["cmake"], "-B", tmp_path / "build", toolchain)
    _run("cmake", "--build", tmp_path / "build")
    symbols = _run("arm-none-eabi-nm", tmp_path / "build" / "reader_example")
    assert "reader_widen4" in symbols, "the kernels of the DSP extension"


@pytest.mark.needs_tools("g++", "gcc")
@pytest.mark.parametrize("options", OPTIONS)
def test_the_example_of_arduino_prints_the_class(options, tmp_path):
    artifact = _write_artifact(tmp_path / "net", **options)
    for form, example in (
        ("arduino", "examples/Classify/Classify.ino"),
        ("platformio", "examples/classify/src/main.cpp"),
    ):
        folder, build = tmp_path / form, tmp_path / f"{form} build"
        write_package(artifact, form, folder, PUBLISHER)
        build.mkdir()
        (build / "Arduino.h").write_text(ARDUINO)
        (build / "main.cc").write_text(f'#include "{folder / example}"\nint main() {{ setup(); for (;;) loop(); }}\n')
        include = ("-I", build, "-I", folder / "include", "-I", folder / "src")
        _run("gcc", "-c", *WARNINGS, *include, *sorted((folder / "src").glob("*.c")), cwd=build)
        _run("g++", *WARNINGS, *include, "main.cc", *sorted(build.glob("*.o")), "-o", "main", cwd=build)
        assert _run(build / "main") == f"{_class(artifact)}, microseconds 0\n"


def test_arduino_library_keeps_arduinos_rules(packages):
    """Those of arduino-lint that are about files, and about what library.properties says."""
    folder = packages["arduino"]
    lines = (folder / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    assert len(properties) == len(lines), "a property twice"
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,62}", properties["name"])
    assert "arduino" not in f"{properties['name']}{properties['maintainer']}".lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    for key in ("author", "maintainer", "sentence", "paragraph", "url", "architectures"):
        assert properties[key].strip() == properties[key] != ""
    assert properties["sentence"] not in properties["paragraph"]
    assert re.fullmatch(r"https?://\S+", properties["url"])
    categories = {"Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing"}
    assert properties["category"] in categories | {"Data Storage", "Data Processing", "Other"}
    assert all((folder / "src" / header).is_file() for header in properties["includes"].split(","))
    for file in ("README.md", "LICENSE"):
        assert (folder / file).is_file()
    sketches = list((folder / "examples").iterdir())
    assert sketches and all((sketch / f"{sketch.name}.ino").is_file() for sketch in sketches)
    assert not [path for path in folder.rglob("*") if path.is_symlink() or path.suffix == ".exe"]


def test_platformio_library_keeps_the_schema(packages):
    folder = packages["platformio"]
    library = json.loads((folder / "library.json").read_text())
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,49}", library["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
    assert 0 < len(library["description"]) <= 255
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+-]*", word) for word in library["keywords"])
    assert library["authors"][0]["name"] == "Ann Author"
    assert (folder / library["build"]["includeDir"] / library["headers"][0]).is_file()
    [example] = library["examples"]
    assert all((folder / example["base"] / file).is_file() for file in example["files"])
    assert "framework = arduino" in (folder / example["base"] / "platformio.ini").read_text()


def test_cmsis_pack_is_whole(packages, tmp_path):
    folder = packages["cmsis-pack"]
    archive = folder / "Ann_Author.reader.1.2.3.pack"
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        assert packed.testzip() is None
        assert all(".." not in PurePosixPath(name).parts and not name.startswith("/") for name in names)
        packed.extractall(tmp_path)
    assert names.count("Ann_Author.reader.pdsc") == 1 and not [name for name in names if name.endswith(".pack")]
    pack = ET.parse(tmp_path / "Ann_Author.reader.pdsc").getroot()  # our own file
    assert pack.tag == "package" and pack.attrib["schemaVersion"]
    order = [child.tag for child in pack]
    assert order[:4] == ["vendor", "name", "description", "url"]
    assert {"license", "releases", "conditions", "components"} <= set(order) and len(set(order)) == len(order)
    assert f"{pack.findtext('vendor')}.{pack.findtext('name')}" == "Ann_Author.reader"
    release = pack.find("releases/release")
    assert release.attrib["version"] == "1.2.3"
    [component] = pack.findall("components/component")
    conditions = {condition.attrib["id"]: condition for condition in pack.findall("conditions/condition")}
    assert conditions[component.attrib["condition"]].find("require").attrib == {"Dcore": "Cortex-M4"}
    assert all(component.attrib[key] for key in ("Cclass", "Cgroup", "Csub", "Cversion"))
    files = component.findall("files/file")
    assert {file.attrib["category"] for file in files} <= {"doc", "header", "include", "sourceC"}
    assert all((tmp_path / file.attrib["name"]).exists() for file in files)
    listed = {file.attrib["name"] for file in files}
    assert {f"src/{path.name}" for path in (tmp_path / "src").iterdir()} <= listed
    assert (tmp_path / pack.findtext("license")).is_file()


@pytest.mark.parametrize("core", CORTEX_M_FLAGS)
def test_cmsis_pack_names_the_core_as_cmsis_does(core, tmp_path):
    write_package(_write_artifact(tmp_path / "net", core=core), "cmsis-pack", tmp_path / "package", PUBLISHER)
    text = (tmp_path / "package" / "Ann_Author.reader.pdsc").read_text()
    [name] = re.findall(r'<require Dcore="(.*)"/>', text)
    assert name in {"Cortex-M0+", "Cortex-M3", "Cortex-M4", "Cortex-M7", "Cortex-M33", "Cortex-M55"}


@pytest.mark.needs_tools("gcc")
def test_equal_packs_are_equal_bytes_and_their_template_runs(packages, artifact, tmp_path):
    write_package(artifact, "cmsis-pack", tmp_path / "again", PUBLISHER)
    for path in packages["cmsis-pack"].iterdir():
        if path.suffix == ".pack":
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    folder = packages["cmsis-pack"]
    sources = [folder / "template/main.c", *sorted((folder / "src").glob("*.c"))]
    _run("gcc", *WARNINGS, "-I", folder / "include", *sources, "-o", tmp_path / "main")
    assert _run(tmp_path / "main") == f"{_class(artifact)}\n"


def test_zephyr_module_is_what_zephyr_reads(packages):
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    folder = packages["zephyr"]
    module = yaml.safe_load((folder / "zephyr/module.yml").read_text())
    found = {key for key in module} | {f"build.{key}" for key in module["build"]}
    assert found <= ZEPHYR_KEYS
    assert (folder / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (folder / module["build"]["kconfig"]).is_file()
    [symbol] = re.findall(r"^config (\w+)$", (folder / "Kconfig").read_text(), re.MULTILINE)
    assert f"if(CONFIG_{symbol})" in (folder / "CMakeLists.txt").read_text()
    named = re.findall(r"src/[\w.]+\.c", (folder / "CMakeLists.txt").read_text())
    assert {folder / file for file in named} == set((folder / "src").glob("*.c"))
    for root in module["samples"]:
        samples = list((folder / root).iterdir())
        assert len(samples) == 2
        for sample in samples:
            assert f"CONFIG_{symbol}=y" in (sample / "prj.conf").read_text().splitlines()
            named = re.findall(r"src/[\w.]+\.c", (sample / "CMakeLists.txt").read_text())
            assert {sample / file for file in named} == set((sample / "src").glob("*.c"))
    assert yaml.safe_load((folder / "samples/classify/sample.yaml").read_text())["tests"]


@pytest.mark.needs_tools("arm-none-eabi-gcc")
@pytest.mark.parametrize("options", OPTIONS)
def test_zephyr_server_compiles_against_what_zephyr_declares(options, tmp_path):
    """No more than that: Zephyr itself is not among what can be installed for tests."""
    write_package(_write_artifact(tmp_path / "net", **options), "zephyr", tmp_path / "package", PUBLISHER)
    server = tmp_path / "package" / "samples" / "server"
    listed = (server / "CMakeLists.txt").read_text().partition("target_compile_definitions(app PRIVATE")[2]
    definitions = [f"-D{word}" for word in listed.replace('"', "").rstrip(")\n").split()]
    assert len(definitions) == 6
    include = ("-I", ZEPHYR, "-I", tmp_path / "package" / "include")
    flags = (*CORTEX_M_FLAGS["cortex-m4"], *WARNINGS, "-DCONFIG_MAIN_STACK_SIZE=8192", *definitions, *include)
    for source in sorted((server / "src").glob("*.c")):
        _run("arm-none-eabi-gcc", *flags, "-Os", "-c", source, "-o", tmp_path / f"{source.stem}.o")
    undefined = _run("arm-none-eabi-nm", "-u", *tmp_path.glob("*.o"))
    defined = _run("arm-none-eabi-nm", "--defined-only", *tmp_path.glob("*.o"))
    missing = set(re.findall(r" U (\w+)", undefined)) - set(re.findall(r" \w (\w+)", defined))
    ours = {name for name in missing if not re.match(r"(k_|uart_|device_|sys_|chosen_|mem|str|reader_|__)", name)}
    assert not ours


def test_what_is_no_package_stays(artifact, tmp_path):
    other = _write_artifact(tmp_path / "other")
    with pytest.raises(ArtifactError, match="holds a compiled network, not a package"):
        write_package(artifact, "cmake", other.folder, PUBLISHER)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="exists and is not an artifact"):
        write_package(artifact, "cmake", mine, PUBLISHER)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    folder = tmp_path / "package"
    write_package(artifact, "cmake", folder, PUBLISHER)
    write_package(artifact, "arduino", folder, PUBLISHER)
    assert (folder / "library.properties").is_file() and not (folder / "cmake").exists()
    (folder / "src" / "mine.c").write_text("int mine;\n")
    with pytest.raises(ArtifactError, match=r"holds src/mine\.c"):
        write_package(artifact, "cmake", folder, PUBLISHER)
    with pytest.raises(ArtifactError, match="holds a package, no network"):
        Artifact.load(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "other", "package"]


REFUSED = {
    "a name too long": ("platformio", {"name": "n" * 51}, "51 characters, a platformio package takes 50"),
    "Arduino's name": ("arduino", {"name": "arduino_net"}, "only Arduino's own"),
    "Linux": ("zephyr", {"core": "cortex-a7"}, "take --format cmake"),
    "an unknown core": ("cmake", {"core": "cortex-m99"}, "cortex-m99"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_package(case, tmp_path):
    form, changes, said = REFUSED[case]
    artifact = _write_artifact(tmp_path / "net", **changes)
    with pytest.raises(ArtifactError, match=re.escape(said)) as caught:
        write_package(artifact, form, tmp_path / "package", PUBLISHER)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "package").exists()


def test_the_command(artifact, tmp_path):
    runner = CliRunner()
    arguments = [str(artifact.folder), "--format", "platformio", "-o", str(tmp_path / "package")]
    done = runner.invoke(package, [*arguments, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert set(written["files"]) == {
        str(path.relative_to(tmp_path / "package")) for path in (tmp_path / "package").rglob("*") if path.is_file()
    }
    shutil.rmtree(tmp_path / "package")
    for bad in (
        ["--package-version", "1.0"],
        ["--package-version", "01.0.0"],
        ["--author", 'a"b'],
        ["--author", "-"],
        ["--url", "ftp://x"],
    ):
        done = runner.invoke(package, [*arguments, *bad])
        assert done.exit_code == 2 and not (tmp_path / "package").exists()
    assert "FetchContent" in runner.invoke(package, ["--help"]).output
