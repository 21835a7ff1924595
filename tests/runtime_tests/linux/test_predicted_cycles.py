"""Blocks recorded on an emulated Linux board: all that is counted, stage by stage, and priced."""

import numpy as np
import pytest

from thumbnet.compile.compile_model import compile_model
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.targets.devices import get_device
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import make_request
from thumbnet.tools.network_options import NetworkFiles

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.needs_tools("qemu-aarch64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "gcc", "llvm-mca-19"),
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "digits"
    return compile_model(make_request(NetworkFiles("mobilenet_v1_0.25_digits"), get_board("raspberry_pi_4")), folder)


def test_all_that_is_counted_is_recorded(artifact):
    image = artifact.golden()[0][0]
    with TvmRpcSession(get_device("qemu_raspberry_pi_4")) as session:
        session.load(artifact)
        counted = session.measure(image, 1).samples[0]
        profile = session._server.profile
        profile.start()
        session.measure(image, 1)
        whole = [block for block in profile.stop() if block.call == 0]
        recorded = sum(block.executions * len(block.code) // 4 for block in whole)
        # The recording begins and ends some instructions beside the count.
        assert abs(recorded - counted) < 500
        prediction = session.predict_cycles(image)
    assert prediction.board == "raspberry_pi_4"
    assert prediction.band is None
    assert list(prediction.stages) == [layer["name"] for layer in artifact.manifest["layers"]]
    assert 0.2 * counted < prediction.cycles < 2 * counted
    assert 0.7 * prediction.cycles < sum(prediction.stages.values()) <= prediction.cycles
    assert np.all(np.array(list(prediction.stages.values())) > 0)
