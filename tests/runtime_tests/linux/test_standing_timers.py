"""A counter or a timer that stands still on the device is an error, never a network that costs nothing."""

import subprocess

import pytest

from thumbnet.runtime_tests.errors import DeviceFaultError
from thumbnet.runtime_tests.linux.rpc_server_build import build_server
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.runtime_tests.session import Measurement
from thumbnet.targets.devices import get_device

from .test_tvm_rpc_session import images, make_artifact

CLOCK = """
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    now->tv_sec = 1;
    now->tv_nsec = 0;
    return 0;
}
"""


def check(device, tmp_path, kind):
    artifact = make_artifact(tmp_path / "artifact", device.board)
    with TvmRpcSession(device) as session:
        session.load(artifact)
        with pytest.raises(DeviceFaultError, match=rf"3 of 3 measurements gave no cost \(.*0.0 {kind}\): the device's"):
            session.measure(images(1)[0], 3)
        with pytest.raises(DeviceFaultError, match="timer stands still"):
            session.profile(images(1)[0])


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")
@pytest.mark.usefixtures("counter_that_stands_still")
def test_counter_of_an_emulated_board(tmp_path):
    check(get_device("qemu_raspberry_pi_4"), tmp_path, "instructions")


@pytest.mark.needs_tools("g++", "gcc")
def test_clock_of_this_computer(tmp_path, monkeypatch):
    device = get_device("local")
    build_server(device.board)  # a compiler needs a clock
    (tmp_path / "clock.c").write_text(CLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "clock.c", "-o", tmp_path / "clock.so"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "clock.so"))
    check(device, tmp_path, "seconds on the board")


@pytest.mark.parametrize("samples", [(), (0.0,), (1.0, 0.0), (-1.0,), (float("nan"),), (float("inf"),)])
def test_no_measurement_holds_a_zero(samples):
    with pytest.raises(DeviceFaultError, match="measurements gave no cost"):
        Measurement("cycles", samples)
