import pytest

from ...processes import Programs
from ..mcu.conftest import write_artifact
from .farm import Farm


@pytest.fixture(scope="module")
def farm():
    """A tracker with an emulated board that no test ends."""
    programs = Programs()
    try:
        farm = Farm(programs)
        farm.serve()
        yield farm
    finally:
        programs.end()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A stand-in for a compiled network, small enough to be built in a second."""
    return write_artifact(tmp_path_factory.mktemp("artifact") / "tiny")
