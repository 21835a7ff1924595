"""The work of an inference shared among threads: the same bytes, all their instructions, and who can't."""

import re
from dataclasses import replace

import numpy as np
import psutil
import pytest

from thumbnet.compile.artifact import Artifact
from thumbnet.compile.compile_model import compile_model
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.targets.devices import get_device
from thumbnet.tools.workloads import Workload, make_benchmark_request

from .test_tvm_rpc_session import LOCAL, images, make_artifact, reference

EMULATED = get_device("qemu_raspberry_pi_4")
MICROCONTROLLER = get_device("qemu_mps2_an386")


@pytest.fixture(scope="module", params=["int8", "none"])
def artifact(request, tmp_path_factory):
    """A network whose layers are worth sharing, on our own kernels."""
    wide = Workload("wide", "mobilenet_v2_0.75_64", 10, family="cortex-a")
    made = make_benchmark_request(wide, EMULATED.board, "random", None, keep=True)
    made = replace(made, options=replace(made.options, quantize=request.param))
    return compile_model(made, tmp_path_factory.mktemp("wide") / "artifact")


@pytest.fixture
def small(tmp_path):
    """A network on TVM's own schedules."""
    return make_artifact(tmp_path / "small", LOCAL.board)


def _input(artifact):
    rng, expected = np.random.default_rng(0), artifact.manifest["input"]
    if expected["dtype"] == "int8":
        return rng.integers(-128, 128, expected["shape"]).astype("int8")
    return rng.uniform(-1, 1, expected["shape"]).astype("float32")


def _threads_of(session):
    [serving] = psutil.Process(session._server.process.pid).children()
    return serving.num_threads()


@pytest.mark.emulated
@pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")
def test_any_number_of_threads_gives_the_same_bytes(artifact):
    image = _input(artifact)
    outputs, counts, running, stages = {}, {}, {}, {}
    for threads in (1, 2, 4):
        with open_session(EMULATED, threads=threads) as session:
            session.load(artifact)
            outputs[threads] = session.run(image).tobytes()
            stages[threads] = {name: output.tobytes() for name, output in session.run_layers(image).items()}
            running[threads] = _threads_of(session)
            measured = session.measure(image, 3)
            assert measured.threads == session.threads == threads
            counts[threads] = min(measured.samples)
            costs = session.profile(image)
            assert (max(cost.error for cost in costs) > 0) == (threads > 1)
            assert ("waiting included" in measured.certainty) == (threads > 1)
            assert (measured.error > 0) == (threads > 1)
            memory = session.memory_use()
            assert session.run(image).tobytes() == outputs[threads], "in the process of the reading, too"
            assert memory.ram_bytes > 0
    assert outputs[1] == outputs[2] == outputs[4]
    assert stages[1] == stages[2] == stages[4]
    assert np.unique(np.frombuffer(outputs[1], artifact.manifest["output"]["dtype"])).size > 3
    assert (running[2] - running[1], running[4] - running[1]) == (1, 3)
    # What they wait comes on top of the same work; an addition lost for each two would be less than it.
    assert counts[2] > counts[1] and counts[4] > counts[1]
    assert len(set(counts.values())) == 3


@pytest.mark.needs_tools("g++")
def test_pool_of_a_real_board(small, desk):
    """A server that somebody else started has the threads it has."""
    tuned = Artifact(small.folder, {**small.manifest, "tuned": True})
    says = (
        r"desk: the pool of its server has (\d+), --threads 64 asks for more; start the server with TVM_NUM_THREADS=64"
    )
    with open_session(desk.device(), threads=64) as session, pytest.raises(SessionError, match=says) as caught:
        session.load(tuned)
    there = int(re.search(says, str(caught.value))[1])
    with open_session(desk.device(), threads=there) as session:
        session.load(tuned)
        image = images(1)[0]
        np.testing.assert_array_equal(session.run(image), reference(image)["classes"].reshape(10))
        assert session.measure(image, 3).threads == there


@pytest.mark.needs_tools("g++")
def test_layers_that_use_one_thread_are_told(small):
    with open_session(LOCAL, threads=2) as session, pytest.raises(SessionError, match="run in one thread; leave --thr"):
        session.load(small)


def test_a_microcontroller_has_one_thread():
    with pytest.raises(
        SessionError, match="qemu_mps2_an386: a cortex-m4 runs a network in one thread; leave --threads"
    ):
        open_session(MICROCONTROLLER, threads=2)
