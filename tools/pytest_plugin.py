"""A plugin of pytest: tests of one's own that run on boards.

It is there wherever thumbnet is installed, and does nothing where neither its options nor its fixtures are used.
"""

# ruff: noqa: PLC0415 - it is imported by every pytest

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from thumbnet.compile.artifact import Artifact
    from thumbnet.runtime_tests.session import DeviceSession
    from thumbnet.targets.device import Device


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ours."""
    group = parser.getgroup("thumbnet")
    group.addoption(
        "--thumbnet-device",
        action="append",
        default=[],
        metavar="NAME",
        help="a device of `thumbnet devices` to run tests with the fixture `device` on; may be repeated",
    )
    group.addoption(
        "--thumbnet-devices",
        type=Path,
        metavar="FILE",
        help="file of your own devices; ./devices.toml if it exists",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Look the devices up, and give the fixtures.

    Raises
    ------
    pytest.UsageError
        One is unknown, the file of devices is wrong, or several processes would share a board.
    """
    names = dict.fromkeys(config.getoption("--thumbnet-device"))
    devices = []
    if names:
        from thumbnet.targets.devices import check_places, get_device
        from thumbnet.targets.errors import TargetError

        try:
            devices = [get_device(name, config.getoption("--thumbnet-devices")) for name in names]
            check_places(devices)
        except TargetError as error:
            raise pytest.UsageError(str(error)) from error
        _check_workers(config, devices)
    config.pluginmanager.register(_fixtures(devices), "thumbnet-fixtures")


def _check_workers(config: pytest.Config, devices: Sequence[Device]) -> None:
    """Refuse to share a board among several workers of pytest-xdist's: one would hold it, the others skip its tests."""
    workers = config.getoption("numprocesses", None) or 1
    real = [device.name for device in devices if not device.emulated and device.kind != "local"]
    if workers > 1 and real:
        raise pytest.UsageError(f"{real[0]}: {workers} processes can't hold one board; leave -n {workers} out")


def _fixtures(devices: Sequence[Device]) -> ModuleType:
    """Return the fixtures for some devices; a conftest.py may have others of the same name, which then hold."""

    @pytest.fixture(scope="session", params=devices or None, ids=[device.name for device in devices] or None)
    def device(request: pytest.FixtureRequest) -> Iterator[DeviceSession]:
        """Open each ``--thumbnet-device``: a `thumbnet.runtime_tests.session.DeviceSession`."""
        if not devices:
            pytest.skip("needs a device: pytest --thumbnet-device NAME, see `thumbnet devices`")
        from thumbnet.runtime_tests.open_session import open_session

        with contextlib.ExitStack() as opened:
            with _skipping_missing():
                session = opened.enter_context(open_session(request.param))
            yield session

    @pytest.fixture(scope="session")
    def load_artifact(device: DeviceSession) -> Callable[[str | Path], Artifact]:
        """Put the artifact in a folder onto the device, and return it."""
        from thumbnet.compile.artifact import Artifact
        from thumbnet.tools.network import check_core

        def load_artifact(folder: str | Path) -> Artifact:
            artifact = Artifact.load(Path(folder))
            check_core(artifact, device.device)
            with _skipping_missing():
                device.load(artifact)
            return artifact

        return load_artifact

    # What pytest finds fixtures in that are no methods.
    fixtures = ModuleType("thumbnet_fixtures")
    vars(fixtures).update(device=device, load_artifact=load_artifact)
    return fixtures


@contextlib.contextmanager
def _skipping_missing() -> Iterator[None]:
    """Skip the test where the device, or its emulator, isn't there; all else that is wrong is an error."""
    from thumbnet.runtime_tests.errors import DeviceUnreachableError, EmulatorMissingError

    try:
        yield
    except (DeviceUnreachableError, EmulatorMissingError) as error:
        pytest.skip(str(error))
