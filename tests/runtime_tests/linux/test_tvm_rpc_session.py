"""Sessions with Linux devices, on a small integer network written here in Relax and again in numpy."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from thumbnet.compile.artifact import Artifact, write_manifest
from thumbnet.compile.emit.export_library import export_library, tvm_target
from thumbnet.runtime_tests.errors import DeviceFaultError, SessionError
from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
from thumbnet.targets.devices import get_device

from ...processes import wait_for_end, wait_until

tvm = pytest.importorskip("tvm")
from tvm import relax  # noqa: E402

EMULATED, LOCAL = get_device("qemu_raspberry_pi_4"), get_device("local")
needs_emulator = [pytest.mark.emulated, pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")]
DEVICES = [
    pytest.param(EMULATED, marks=needs_emulator, id="emulated"),
    pytest.param(LOCAL, marks=pytest.mark.needs_tools("g++"), id="local"),
]

#: Without a limit of ours these calls wait for a minute and more, or for ever; a busy computer takes its time too.
IN_TIME_S = 40

# name, stride, padding, kernel [out, height, width, in], right shift of the sum
LAYERS = (("first", 1, 1, (8, 3, 3, 4), 5), ("second", 2, 1, (8, 3, 3, 8), 5), ("classes", 1, 0, (10, 8, 8, 8), 7))
INPUT = (16, 16, 4)


def weights(name):
    kernel = next(layer[3] for layer in LAYERS if layer[0] == name)
    return np.random.default_rng(len(name)).integers(-20, 21, kernel).astype("int8")


def reference(image):
    """Every layer's output, in plain numpy."""
    outputs, value = {}, image.astype("int64")
    for name, stride, padding, (count, height, width, _), shift in LAYERS:
        padded = np.pad(value, ((padding, padding), (padding, padding), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (0, 1))[::stride, ::stride]
        sums = np.einsum("yxchw,nhwc->yxn", windows, weights(name).astype("int64"))
        value = np.clip(sums >> shift, -128, 127)
        assert value.shape[2] == count
        outputs[name] = value.astype("int8")
    return outputs


def network(dtype):
    """The network in Relax; float32 has no shift, so that its values stay whole and comparable."""
    builder = relax.BlockBuilder()
    functions = {}
    shape = INPUT
    for name, stride, padding, kernel, shift in LAYERS:
        value = relax.Var("value", relax.TensorType((1, *shape), dtype))
        weight = relax.Var("weight", relax.TensorType(kernel, dtype))
        with builder.function(name, [value, weight], attrs={"Primitive": True}, private=True):
            with builder.dataflow():
                accumulator = "int32" if dtype == "int8" else "float32"
                summed = relax.op.nn.conv2d(
                    value,
                    weight,
                    strides=stride,
                    padding=padding,
                    data_layout="NHWC",
                    kernel_layout="OHWI",
                    out_dtype=accumulator,
                )
                result = builder.emit(summed)
                if dtype == "int8":
                    result = builder.emit(relax.op.right_shift(result, relax.const(shift, "int32")))
                result = builder.emit(relax.op.clip(result, -128, 127))
                result = builder.emit_output(relax.op.astype(result, dtype))
            builder.emit_func_output(result)
        functions[name] = next(g for g in builder.get().get_global_vars() if g.name_hint == name)
        side = (shape[0] + 2 * padding - kernel[1]) // stride + 1
        shape = (side, side, kernel[0])
    for entry in ("main", "layers"):
        image = relax.Var("image", relax.TensorType((1, *INPUT), dtype))
        with builder.function(entry, [image]):
            with builder.dataflow():
                values = [image]
                for name, *_ in LAYERS:
                    call = tvm.ir.Call(functions[name], [values[-1], relax.const(weights(name).astype(dtype))])
                    values.append(builder.emit(call))
                result = relax.op.reshape(values[-1], (1, 10)) if entry == "main" else relax.Tuple(values[1:])
                output = builder.emit_output(result)
            builder.emit_func_output(output)
    return builder.finalize()


def make_artifact(folder, board, dtype="int8"):
    target = tvm_target(board)
    with target:
        fused = tvm.transform.Sequential(
            [relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern(), relax.transform.FuseTIR()]
        )(network(dtype))
    folder.mkdir()
    export_library(tvm.compile(fused, target=target), board, folder / "small.so")
    shapes = {name: list(output.shape) for name, output in reference(np.zeros(INPUT, "int8")).items()}
    manifest = {
        "name": "small",
        "model": "small",
        "kind": "library",
        "board": board.name,
        "core": board.core,
        "dtype": dtype,
        "input": {"shape": list(INPUT), "dtype": dtype},
        "output": {"shape": [10], "dtype": dtype},
        "layers": [{"name": f"net.{name}", "shape": shape, "symbol": name} for name, shape in shapes.items()],
    }
    if dtype == "int8":
        inputs = images(2)
        outputs = np.stack([reference(image)["classes"].reshape(-1) for image in inputs])
        np.savez(folder / "golden.npz", inputs=inputs, outputs=outputs)
        manifest["golden"] = {"file": "golden.npz"}
    write_manifest(folder, manifest)
    return Artifact.load(folder)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Artifacts by board and dtype, made once."""
    made = {}

    def get(board, dtype="int8"):
        if (board.name, dtype) not in made:
            made[board.name, dtype] = make_artifact(tmp_path_factory.mktemp("artifact") / "it", board, dtype)
        return made[board.name, dtype]

    return get


@pytest.fixture(scope="module", params=DEVICES)
def session(request, artifacts):
    with TvmRpcSession(request.param) as opened:
        opened.load(artifacts(request.param.board))
        yield opened


def images(count):
    return np.random.default_rng(0).integers(-128, 128, (count, *INPUT)).astype("int8")


def test_the_test_network_depends_on_its_input():
    first, second = (reference(image)["classes"] for image in images(2))
    assert np.any(first != second)
    assert len(np.unique(first)) > 3


def test_output_is_numpys_byte_for_byte(session):
    for image in images(3):
        output = session.run(image)
        assert (output.shape, output.dtype) == ((10,), np.int8)
        np.testing.assert_array_equal(output, reference(image)["classes"].reshape(10))


def test_every_layer_is_numpys_byte_for_byte(session):
    image = images(1)[0]
    outputs = session.run_layers(image)
    expected = reference(image)
    assert list(outputs) == [f"net.{name}" for name in expected]
    for name, output in expected.items():
        np.testing.assert_array_equal(outputs[f"net.{name}"], output, err_msg=name)


def test_measurement_has_its_kind_and_every_sample(session):
    measured = session.measure(images(1)[0], 5)
    assert len(measured.samples) == 5
    if session.device.kind == "emulated":
        assert measured.kind == "instructions"
        assert len(set(measured.samples)) == 1, "instructions are the same each time"
        assert all(sample == int(sample) for sample in measured.samples)
        macs = 16 * 16 * 8 * 36 + 8 * 8 * 8 * 72 + 10 * 512
        assert macs / 16 < measured.samples[0] < macs * 20
    else:
        assert measured.kind == "seconds on the board"
        assert all(1e-7 < sample < 1 for sample in measured.samples)


def test_profile_names_each_layer_and_stays_within_the_whole(session):
    image = images(1)[0]
    costs = session.profile(image)
    assert [cost.name for cost in costs] == ["net.first", "net.second", "net.classes", "reshape"]
    if session.device.kind == "emulated":
        assert costs == session.profile(image)
        assert costs[3].value < 1000
        whole = session.measure(image, 1).samples[0]
        assert 0.5 * whole < sum(cost.value for cost in costs) < whole
        # multiply-accumulates of the layers: 73728, 36864, 5120
        assert costs[0].value > costs[1].value > costs[2].value
    assert np.array_equal(session.run(image), reference(image)["classes"].reshape(10)), "the instrument is gone again"


def test_memory_use_holds_weights_and_activations(session):
    use = session.memory_use()
    session.run_layers(images(1)[0])
    assert session.memory_use() == use, "whatever was run before"
    stored = sum(weights(name).nbytes for name, *_ in LAYERS)
    largest = 16 * 16 * 8
    assert use.flash_bytes > stored
    assert use.arena_bytes >= largest
    assert stored + use.arena_bytes < use.ram_bytes < stored + use.arena_bytes + 200_000


def test_wrong_input_is_refused_with_both_shapes(session):
    with pytest.raises(SessionError, match=r"takes int8 \[16, 16, 4\], the image is float32 \[16, 16, 3\]"):
        session.run(np.zeros((16, 16, 3), "float32"))


@pytest.mark.parametrize("device", DEVICES)
def test_float32_networks_run(device, artifacts):
    with TvmRpcSession(device) as session:
        session.load(artifacts(device.board, "float32"))
        image = images(1)[0].astype("float32") / 128
        outputs = session.run_layers(image)
        np.testing.assert_allclose(session.run(image), outputs["net.classes"].reshape(10), rtol=1e-5)
        assert np.ptp(outputs["net.classes"]) > 0


@pytest.mark.parametrize("device", DEVICES[:1])
def test_counts_are_the_same_in_every_session(device, artifacts):
    counts = set()
    for _ in range(3):
        with TvmRpcSession(device) as session:
            session.load(artifacts(device.board))
            counts.update(session.measure(images(1)[0], 2).samples)
    assert len(counts) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_server_killed_in_mid_run_is_a_fault_in_bounded_time(device, artifacts):
    with TvmRpcSession(device) as session:
        session.load(artifacts(device.board))
        threading.Timer(0.5, session._server.process.kill).start()
        started = time.monotonic()
        with pytest.raises(DeviceFaultError, match=r"the server ended \(exit -9\); open the device again") as caught:
            session.measure(images(1)[0], 1_000_000)
        assert "\n" not in str(caught.value)
        assert 0.4 < time.monotonic() - started < IN_TIME_S
        with pytest.raises(DeviceFaultError, match="load the network again to go on"):
            session.run(images(1)[0])


@pytest.mark.parametrize("device", DEVICES)
def test_network_that_crashes_leaves_the_device_usable(device, artifacts):
    with TvmRpcSession(device) as session:
        session.load(artifacts(device.board))
        psutil.Process(session._server.process.pid).children()[0].send_signal(signal.SIGSEGV)
        with pytest.raises(DeviceFaultError, match="the server said: session: signal 11, Segmentation fault"):
            session.run(images(1)[0])
        session.load(artifacts(device.board))
        assert session.run(images(1)[0]).shape == (10,)


@pytest.mark.parametrize("device", DEVICES)
def test_server_that_hangs_is_a_fault_in_bounded_time(device, artifacts):
    with TvmRpcSession(device, call_timeout_s=2) as session:
        session.load(artifacts(device.board))
        processes = psutil.Process(session._server.process.pid).children()
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(
            DeviceFaultError, match=r"the inference failed: the server hung: it did nothing for 2 s; open"
        ):
            session.run(images(1)[0])
        assert time.monotonic() - started < IN_TIME_S
        gone, alive = psutil.wait_procs(processes, timeout=IN_TIME_S)
        assert gone and not alive


def test_server_that_computes_for_ever_is_a_fault_too(artifacts):
    with TvmRpcSession(LOCAL, call_timeout_s=1) as session:
        session.load(artifacts(LOCAL.board))
        with pytest.raises(DeviceFaultError, match="didn't answer: it computed for 1 s"), session._calling("it"):
            session._connection.get_function("thumbnet.nothing")
            timer = session._main.module.time_evaluator("invoke_stateful", session._cpu, number=10_000_000)
            session._set_input(session._main, "main", images(1)[0])
            timer("main")


@pytest.mark.parametrize("device", DEVICES[1:])
def test_artifact_of_another_board_is_refused(device, artifacts, tmp_path):
    artifact = artifacts(device.board)
    other = Artifact(artifact.folder, {**artifact.manifest, "board": "raspberry_pi_3"})
    with TvmRpcSession(device) as session:
        with pytest.raises(SessionError, match="compiled for raspberry_pi_3, local is a host"):
            session.load(other)
        with pytest.raises(SessionError, match="no network loaded"):
            session.run(images(1)[0])


@pytest.mark.parametrize("device", DEVICES)
def test_closing_leaves_no_process_and_no_folder(device):
    session = TvmRpcSession(device)
    process, watch = psutil.Process(session._server.process.pid), psutil.Process(session._server.watch._process.pid)
    processes, folder = [watch, process, *process.children(recursive=True)], session._server._folder
    assert len(processes) == 3
    session.close()
    session.close()
    assert not any(process.is_running() for process in processes)
    assert not folder.exists()


@pytest.mark.parametrize("device", DEVICES)
def test_server_that_hangs_before_it_is_closed_does_not_keep_anybody(device, artifacts):
    """What lies on it is freed then, which is a call."""
    session = TvmRpcSession(device, call_timeout_s=2)
    session.load(artifacts(device.board))
    for process in psutil.Process(session._server.process.pid).children():
        process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < IN_TIME_S


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, "SIGKILL while the server is stopped"])
def test_servers_die_with_the_program_however_it_ends(device, end, artifacts, programs):
    program = f"""
        from pathlib import Path
        import numpy as np
        from thumbnet.compile.artifact import Artifact
        from thumbnet.runtime_tests.linux.tvm_rpc_session import TvmRpcSession
        from thumbnet.targets.devices import get_device
        with TvmRpcSession(get_device({device.name!r})) as session:
            session.load(Artifact.load(Path({str(artifacts(device.board).folder)!r})))
            print(session._server.process.pid, flush=True)
            session.measure(np.zeros({INPUT}, "int8"), 1_000_000)
    """
    running = programs.start([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    server = psutil.Process(int(running.stdout.readline()))
    assert len(server.children()) == 1
    time.sleep(0.5)  # now it waits inside TVM
    if end not in list(signal.Signals):
        for process in (server, *server.children()):
            process.send_signal(signal.SIGSTOP)
        end = signal.SIGKILL
    running.send_signal(end)
    wait_for_end(running)
    wait_until(lambda: not programs.alive(), psutil.Process())
    # What SIGKILL left is removed by the next run.
    folder = programs.run(
        [sys.executable, "-c", "from thumbnet.runtime_tests.run_folder import *; print(run_folder())"]
    )
    assert not list(Path(folder.stdout.strip()).parent.glob(f"{running.pid}-*"))


@pytest.mark.needs_tools("g++")
def test_rpc_device_on_a_tracker(artifacts, desk):
    """A device of kind rpc is what somebody registered on a tracker; here a Python server of TVM's, as on a board."""
    with TvmRpcSession(desk.device()) as session:
        session.load(artifacts(LOCAL.board))
        image = images(1)[0]
        np.testing.assert_array_equal(session.run(image), reference(image)["classes"].reshape(10))
        assert session.measure(image, 3).kind == "seconds on the board"
        assert [cost.name for cost in session.profile(image)][:3] == [f"net.{name}" for name, *_ in LAYERS]
        assert session.memory_use().flash_bytes > 0


@pytest.mark.needs_tools("g++")
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_board_that_hangs_or_dies_in_mid_run_is_a_fault_in_bounded_time(artifacts, desk, how):
    """The last test with the desk's server: TVM's ends with a process it served that was killed."""
    wait_until(desk.is_free, desk.server)
    with TvmRpcSession(desk.device(), call_timeout_s=2) as session:
        session.load(artifacts(LOCAL.board))
        # Below the server is the one that listens, and below that the one that serves.
        serving = psutil.Process(desk.server.pid).children(recursive=True)[-1]
        serving.send_signal(how)
        started = time.monotonic()
        with pytest.raises(DeviceFaultError, match=r"desk: the inference failed: .*; look at the server on the board"):
            session.run(images(1)[0])
        assert time.monotonic() - started < IN_TIME_S
    if how == signal.SIGSTOP:
        serving.send_signal(signal.SIGCONT)
