"""The project's shape: who may import whom, what is installed, and how long a file may be."""

import ast
import graphlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: From each folder to those of ours it may import.
MAY_IMPORT = {
    "models": {"models"},
    "targets": {"targets"},
    "compile": {"compile", "targets"},
    "runtime_tests": {"runtime_tests", "compile", "targets", "models"},
    "tools": {"tools", "runtime_tests", "compile", "targets", "models"},
}
#: Inside a folder, from the top down: each may import what stands behind it and, but for files, itself.
LEVELS = {
    "compile": (
        {"compile_model"},
        {"plan_stages"},
        {"quantize_request", "tuning"},
        {"emit"},
        {"passes", "plan", "post_training"},
        {"frontend", "kernels"},
        {"network"},
        {"artifact", "request", "replaced_folder"},
        {"manifest"},
        {"aside", "file_access", "progress", "symbol_prefix"},
        {"errors"},
    ),
    "compile/kernels": (
        {"instruction_sets"},
        {"neon_f32"},
        {"dotprod", "neon32"},
        {"dsp", "mve", "neon"},
        {
            *(
                "chains",
                "cycle_prices",
                "kernel",
                "layouts",
                "overlap",
                "pixel_stage",
                "portable",
                "portable_cost",
                "portable_float",
                "portable_pool",
                "rolling_rows",
            ),
            *("rolling_stage", "stage_code", "stage_cost"),
        },
    ),
    "runtime_tests/cycles": (
        {"predict"},
        {"core_timing", "instruction_classes", "llvm_mca"},
        {"block_profile"},
    ),
    "runtime_tests": (
        {"device_runs", "serve_session", "stage_measurer"},
        {"measure_stages", "network_tests", "open_session"},
        {"cost_checks"},
        {"latency"},
        {"repeated_readings", "served"},
        {"linux", "mcu"},
        {"report", "session"},
        {"cycles", "instruction_counter"},
        {"errors", "guarded_process", "qemu_plugin", "run_folder"},
    ),
}
LONGEST_FILE = 400
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def _sources(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def _folder(package):
    return ROOT.joinpath(*package.split(".")[1:])


def imported_modules(source, package):
    """Return what of ours a module imports, anywhere in it, as full names; `package` is its own: thumbnet.tools."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.startswith("thumbnet.")}
    return found


def imported_folders(source, package):
    """Return the folders of ours that a module imports."""
    return {name.split(".")[1] for name in imported_modules(source, package)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import thumbnet.models.cost", {"models"}),
        ("from thumbnet.compile.artifact import Artifact", {"compile"}),
        ("from thumbnet import tools", {"tools"}),
        ("def f():\n    from ..models import cost", {"models"}),
        ("from .fit import check_fit", {"compile"}),
        ("import numpy, torch.nn\nfrom tvm import relax", set()),
    ],
)
def test_imports_are_found(source, expected):
    assert imported_folders(source, "thumbnet.compile") == expected


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_follow_the_arrows(folder):
    sources = _sources(folder)
    assert sources
    wrong = {}
    for path in sources:
        package = ".".join(["thumbnet", *path.relative_to(ROOT).parent.parts])
        if extra := imported_folders(path.read_text(), package) - MAY_IMPORT[folder]:
            wrong[str(path.relative_to(ROOT))] = sorted(extra)
    assert not wrong, f"{folder} may import {sorted(MAY_IMPORT[folder])} only"


def _imported_modules(path):
    package = ".".join(["thumbnet", *path.relative_to(ROOT).parent.parts])
    return imported_modules(path.read_text(), package)


@pytest.mark.parametrize("folder", LEVELS)
def test_imports_inside_a_folder_go_down(folder):
    levels = LEVELS[folder]
    level_of = {name: level for level, names in enumerate(levels) for name in names}
    prefix = ["thumbnet", *folder.split("/")]
    wrong = []
    for path in _sources(folder):
        own = path.relative_to(ROOT / folder).with_suffix("").parts[0]
        if own == "__init__":
            continue
        assert own in level_of, f"{folder}/{own} has no place in LEVELS"
        for module in _imported_modules(path):
            parts = module.split(".")
            if parts[: len(prefix)] != prefix or len(parts) == len(prefix):
                continue
            other = parts[len(prefix)]
            # Files of the lowest level are peers.
            peers = level_of[own] == len(levels) - 1
            if other != own and level_of[other] <= level_of[own] and not peers:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_no_two_modules_import_each_other():
    graph = {}
    for folder in MAY_IMPORT:
        for path in _sources(folder):
            module = ".".join(["thumbnet", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
            graph[module] = _imported_modules(path)
    known = {
        module: {name for found in imports for name in (found, found.rpartition(".")[0]) if name in graph} - {module}
        for module, imports in graph.items()
    }
    assert sum(map(len, known.values())) > len(known)
    graphlib.TopologicalSorter(known).prepare()


def test_every_subpackage_is_listed():
    folders = {path.parent.relative_to(ROOT) for folder in MAY_IMPORT for path in _sources(folder)}
    assert sorted(SETUP["packages"]) == sorted(".".join(["thumbnet", *folder.parts]) for folder in folders)
    assert SETUP["package-dir"] == {f"thumbnet.{folder}": folder for folder in MAY_IMPORT}


def test_every_subpackage_has_an_init():
    for package in SETUP["packages"]:
        folder = _folder(package)
        assert (folder / "__init__.py").is_file(), f"{folder} is not installed without an __init__.py"


def test_package_data_is_there_and_whole():
    """Each pattern matches something, and each file that is no Python is installed."""
    installed = set()
    for package, patterns in SETUP["package-data"].items():
        for pattern in patterns:
            found = set(_folder(package).glob(pattern))
            assert found, f"{package}: {pattern} matches no file"
            installed |= found
    for folder in MAY_IMPORT:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in {".py", ".pyc", ".md"}:
                assert path in installed, f"{path} is not installed"


@pytest.mark.parametrize("folder", [*MAY_IMPORT, "tests"])
def test_files_are_short(folder):
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _sources(folder)}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_every_module_says_what_it_is(folder):
    for path in _sources(folder):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
