"""Options and fixtures of all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from .processes import Programs

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# The same examples in every run, and no limit on the time of one: some compile C.
settings.register_profile("thumbnet", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("thumbnet")


#: The Debian package of each tool that a test may need.
PACKAGES = {
    "cmake": "cmake",
    "g++": "g++",
    "gcc": "gcc",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf",
    "arm-none-eabi-g++": "gcc-arm-none-eabi",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "clang": "clang",
    "gdb-multiarch": "gdb-multiarch",
    "qemu-aarch64": "qemu-user",
    "qemu-arm": "qemu-user",
    "qemu-system-arm": "qemu-system-arm",
    "llvm-mca-19": "llvm-19",
    "node": "nodejs",
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked with tools that are missing, before their fixtures are made."""
    for mark in item.iter_markers("needs_tools"):
        for tool in mark.args:
            if shutil.which(tool) is None:
                pytest.skip(f"needs {tool} (apt install {PACKAGES[tool]})")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ours."""
    parser.addoption("--update-golden", action="store_true", help="write golden files anew, to be read in the diff")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the ImageNet-trained networks, images and golden outputs that are not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the ImageNet networks and images in {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Programs that the test starts; none outlives it, however it ends."""
    started = Programs()
    yield started
    started.end()


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew."""
    return bool(request.config.getoption("--update-golden"))
