"""Fixtures of all tests."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the ImageNet-trained networks, images and golden outputs that are not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the ImageNet networks and images in {SHARED_DATA}")
    return SHARED_DATA
