"""Trackers, servers and clients that end, hang, and come back: nobody waits for ever, and nothing is left."""

import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.tracker import find_devices
from thumbnet.runtime_tests.run_folder import cache_folder
from thumbnet.runtime_tests.served import served_session

from ...processes import wait_until
from .farm import M4, Farm

pytestmark = [pytest.mark.emulated, pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")]


def test_a_tracker_that_is_started_anew_has_its_servers_again(programs, artifact):
    farm = Farm(programs)
    farm.serve()
    image = artifact.golden()[0][0]
    with farm.open() as session:
        session.load(artifact)
        expected = session.run(image)
        farm.end_tracker()
        np.testing.assert_array_equal(session.run(image), expected)  # who is served notices nothing
        with pytest.raises(DeviceUnreachableError, match="no TVM tracker at"):
            farm.count() or find_devices(farm.address, M4)
        farm.start_tracker()
        wait_until(lambda: farm.count() == 1, programs.alive("serve")[0])
        np.testing.assert_array_equal(session.run(image), expected)
    with farm.open() as session:
        session.load(artifact)
        np.testing.assert_array_equal(session.run(image), expected)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_server_that_is_killed_or_hangs_leaves_nobody_waiting(programs, artifact, how, monkeypatch):
    monkeypatch.setattr(served_session, "SILENCE_S", 3.0)
    farm = Farm(programs)
    server = psutil.Process(farm.serve().pid)
    with farm.open() as session:
        session.load(artifact)
        image = artifact.golden()[0][0]
        session.run(image)
        for process in (server, *server.children()):
            process.send_signal(how)
        with pytest.raises(DeviceUnreachableError, match=r"its server at .* is gone or hangs .*; start it again"):
            session.run(image)
        with pytest.raises(DeviceUnreachableError, match="start it again"):  # at once
            session.load(artifact)
    server.kill()
    wait_until(lambda: not programs.alive("qemu-system-arm") and not programs.alive("serve"), psutil.Process())
    farm.serve()
    wait_until(lambda: farm.count() == 1, psutil.Process())
    farm.open().close()


def test_a_client_that_is_killed_frees_the_device(programs, artifact):
    farm = Farm(programs)
    server = psutil.Process(farm.serve().pid)
    program = (
        "import time; from pathlib import Path; from thumbnet.compile.artifact import Artifact;"
        "from thumbnet.targets.registry import get_board;"
        "from thumbnet.runtime_tests.linux.tracker import find_devices;"
        "from thumbnet.runtime_tests.open_session import open_session;"
        f"session = open_session(find_devices({farm.address!r}, get_board('mps2_an386'))[0]);"
        f"session.load(Artifact.load(Path({str(artifact.folder)!r}))); print('up', flush=True); time.sleep(600)"
    )
    client = programs.start([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline() == "up\n"
    [serving] = server.children()
    runs = cache_folder("runs")
    assert list(runs.glob(f"{serving.pid}-*"))
    client.kill()
    wait_until(lambda: not programs.alive("qemu-system-arm"), psutil.Process())
    wait_until(lambda: not list(runs.glob(f"{serving.pid}-*")), psutil.Process())
    farm.open().close()
