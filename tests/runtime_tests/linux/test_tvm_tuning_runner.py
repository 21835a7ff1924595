"""MetaSchedule's builder and runner for Linux devices, on one layer."""

import signal
import time
from pathlib import Path

import psutil
import pytest

from thumbnet.compile.emit.export_library import tvm_target
from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.runtime_tests.errors import DeviceUnreachableError
from thumbnet.runtime_tests.linux.tuning_runner import open_tuning_target
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device

tvm = pytest.importorskip("tvm")
from tvm import te  # noqa: E402
from tvm.s_tir import meta_schedule as ms  # noqa: E402

EMULATED, LOCAL = get_device("qemu_raspberry_pi_4"), get_device("local")
needs_emulator = [pytest.mark.emulated, pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")]
DEVICES = [
    pytest.param(EMULATED, marks=needs_emulator, id="emulated"),
    pytest.param(LOCAL, marks=pytest.mark.needs_tools("g++"), id="local"),
]


def pointwise():
    """A 1x1 convolution, 16x16x32 to 16x16x64, int8 to int8."""
    image, weight = te.placeholder((1, 16, 16, 32), "int8", "image"), te.placeholder((32, 64), "int8", "weight")
    k = te.reduce_axis((0, 32), "k")
    total = te.compute(
        (1, 16, 16, 64),
        lambda n, y, x, c: te.sum(image[n, y, x, k].astype("int32") * weight[k, c].astype("int32"), axis=[k]),
        name="total",
    )
    output = te.compute(
        total.shape, lambda *at: te.max(te.min(total(*at) >> 5, 127), -128).astype("int8"), name="output"
    )
    return te.create_prim_func([image, weight, output]).with_attr("global_symbol", "main")


def calling(function):
    """A layer that calls a function of the C library."""
    image = te.placeholder((4,), "int32", "image")
    output = te.compute((4,), lambda i: image[i] + tvm.tirx.call_extern("int32", function), name="output")
    return te.create_prim_func([image, output]).with_attr("global_symbol", "main")


def build(target, device, function):
    inputs = [ms.builder.BuilderInput(tvm.IRModule({"main": function}), tvm_target(device.board))]
    return target.builder.build(inputs)[0]


def run(target, built, function):
    inputs = [ms.runner.RunnerInput(built.artifact_path, "cpu", ms.arg_info.ArgInfo.from_prim_func(function))]
    return target.runner.run(inputs)[0].result()


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_bad_candidates_fail_and_good_ones_are_measured_after_them(device):
    function = pointwise()
    with open_tuning_target(device, run_timeout_s=3) as target:
        built = build(target, device, function)
        assert built.error_msg is None
        path = Path(built.artifact_path)
        assert [file.name for file in path.parent.iterdir()] == ["candidate.so"], "a folder of its own"
        first = run(target, built, function)
        assert first.error_msg is None
        cost = float(first.run_secs[0])
        if device.kind == "emulated":
            assert target.kind == "instructions"
            macs = 16 * 16 * 32 * 64
            assert macs / 16 < cost * 1e9 < macs * 100
        else:
            assert target.kind == "seconds on the board"
            assert 1e-7 < cost < 0.1

        for bad in ("abort", "pause"):  # a crash, and one that never ends
            started = time.monotonic()
            result = run(target, build(target, device, calling(bad)), calling(bad))
            assert result.run_secs is None
            assert "An exception occurred" in str(result.error_msg)
            assert time.monotonic() - started < 40

        again = run(target, built, function)
        assert again.error_msg is None
        if device.kind == "emulated":
            assert float(again.run_secs[0]) == pytest.approx(cost, rel=0.02), "random data may take other branches"
        unbuildable = build(target, device, calling("no_such_function_anywhere"))
        assert run(target, unbuildable, calling("no_such_function_anywhere")).run_secs is None
        children = psutil.Process().children(recursive=True)
        assert children
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert len(gone) == len(children)
    assert not path.parent.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES[:1])
def test_trials_of_a_device_that_died_fail_in_bounded_time(device):
    function = pointwise()
    with open_tuning_target(device) as target:
        built = build(target, device, function)
        server = next(
            child for child in psutil.Process().children() if "thumbnet_rpc_server" in " ".join(child.cmdline())
        )
        server.send_signal(signal.SIGKILL)
        started = time.monotonic()
        assert "no device under key raspberry_pi_4" in str(run(target, built, function).error_msg)
        assert time.monotonic() - started < 10


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES[:1])
def test_tuning_finds_fewer_instructions_than_the_default_schedule(device, tmp_path):
    function, board = pointwise(), tvm_target(device.board)
    load_tensor_intrinsics()
    with open_tuning_target(device) as target:
        default = float(run(target, build(target, device, function), function).run_secs[0])
        space = ms.space_generator.PostOrderApply(
            sch_rules=ms.ScheduleRule.create("llvm"),
            postprocs=ms.Postproc.create("llvm"),
            mutator_probs=ms.Mutator.create("llvm"),
        )
        database = ms.tir_integration.tune_tir(
            mod=function,
            target=board,
            work_dir=str(tmp_path),
            max_trials_global=16,
            num_trials_per_iter=16,
            builder=target.builder,
            runner=target.runner,
            space=space,
            seed=0,
        )
        results = [float(value) for record in database.get_all_tuning_records() for value in record.run_secs]
    assert len(results) == 16
    print(f"default {default * 1e9:.0f} instructions, best {min(results) * 1e9:.0f}")
    assert min(results) < 0.7 * default


def test_device_nobody_registered_is_told_before_the_first_trial():
    device = Device("desk", LOCAL.board, "rpc", address="127.0.0.1:1", key="desk")
    with pytest.raises(DeviceUnreachableError, match=r"no TVM tracker at 127\.0\.0\.1:1"), open_tuning_target(device):
        pass
