"""The project's shape: who may import whom, what is installed, and how long a file may be."""

import ast
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
LONGEST_FILE = 400
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def _sources(folder):
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def _folder(package):
    return ROOT.joinpath(*package.split(".")[1:])


def imported_folders(source, package):
    """Return the folders of ours that a module imports, anywhere in it; `package` is its own: thumbnet.tools."""
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
        found |= {name.split(".")[1] for name in names if name.startswith("thumbnet.")}
    return found


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
            if path.is_file() and path.suffix not in {".py", ".pyc"} and "README" not in path.name:
                assert path in installed, f"{path} is not installed"


@pytest.mark.parametrize("folder", [*MAY_IMPORT, "tests"])
def test_files_are_short(folder):
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in _sources(folder)}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_every_module_says_what_it_is(folder):
    for path in _sources(folder):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
