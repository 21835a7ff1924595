"""MetaSchedule's builder and runner for Linux devices, on one layer."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from thumbnet.compile.emit.export_library import tvm_target
from thumbnet.compile.emit.tensor_intrinsics import load_tensor_intrinsics
from thumbnet.runtime_tests.errors import DeviceFaultError, DeviceUnreachableError
from thumbnet.runtime_tests.linux.tuning_runner import open_tuning_target
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device

from ...processes import communicate, wait_until

tvm = pytest.importorskip("tvm")
from tvm import te  # noqa: E402
from tvm.s_tir import meta_schedule as ms  # noqa: E402

EMULATED, LOCAL = get_device("qemu_raspberry_pi_4"), get_device("local")
needs_emulator = [pytest.mark.emulated, pytest.mark.needs_tools("aarch64-linux-gnu-g++", "qemu-aarch64")]
DEVICES = [
    pytest.param(EMULATED, marks=needs_emulator, id="emulated"),
    pytest.param(LOCAL, marks=pytest.mark.needs_tools("g++"), id="local"),
]


#: Without a limit of ours a search goes on for as long as it has trials; a busy computer takes its time too.
IN_TIME_S = 60


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
            assert "RPC" in str(result.error_msg)
            assert time.monotonic() - started < IN_TIME_S

        again = run(target, built, function)
        assert again.error_msg is None
        if device.kind == "emulated":
            assert float(again.run_secs[0]) == pytest.approx(cost, rel=0.02), "random data may take other branches"
        unbuildable = build(target, device, calling("no_such_function_anywhere"))
        assert run(target, unbuildable, calling("no_such_function_anywhere")).run_secs is None
        children = psutil.Process().children(recursive=True)
        assert children
    gone, alive = psutil.wait_procs(children, timeout=IN_TIME_S)
    assert not alive
    assert len(gone) == len(children)
    assert not path.parent.parent.exists()


def server_processes():
    """The server of this process's tuning target, and what it started."""
    running = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    server = next(child for child in running if "thumbnet_rpc_server" in " ".join(child.cmdline()))
    return [server, *server.children(recursive=True)]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("how", "says"),
    [
        (signal.SIGKILL, r"the server ended \(exit -9\); open the device again$"),
        (signal.SIGSTOP, r"the server hung: it did nothing for 10 s; open the device again$"),
    ],
)
def test_server_that_dies_or_hangs_ends_the_search(device, how, says):
    function = pointwise()
    started = time.monotonic()
    with pytest.raises(DeviceUnreachableError, match=says), open_tuning_target(device, run_timeout_s=2) as target:
        built = build(target, device, function)
        for process in server_processes():
            process.send_signal(how)
        run(target, built, function)
    assert time.monotonic() - started < IN_TIME_S


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES[1:])
def test_server_that_dies_while_candidates_are_built_ends_the_search(device):
    function = pointwise()
    started = time.monotonic()
    with pytest.raises(DeviceUnreachableError, match="the server ended"), open_tuning_target(device) as target:
        threading.Timer(1, server_processes()[0].kill).start()
        inputs = [ms.builder.BuilderInput(tvm.IRModule({"main": function}), tvm_target(device.board))]
        target.builder.build(inputs * 200)
    assert time.monotonic() - started < IN_TIME_S
    assert not psutil.Process().children(recursive=True)


def search(device, folder, target):
    ms.tir_integration.tune_tir(
        mod=pointwise(),
        target=tvm_target(device.board),
        work_dir=str(folder),
        max_trials_global=2000,
        num_trials_per_iter=4,
        builder=target.builder,
        runner=target.runner,
        space=ms.space_generator.PostOrderApply(
            sch_rules=ms.ScheduleRule.create("llvm"),
            postprocs=ms.Postproc.create("llvm"),
            mutator_probs=ms.Mutator.create("llvm"),
        ),
        seed=0,
    )


def start_search(programs, device, folder):
    """Start a program that searches for hours, and says which process its server is."""
    program = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from tests.runtime_tests.linux import test_tvm_tuning_runner as tests
        device = tests.get_device({device.name!r})
        try:
            with tests.open_tuning_target(device) as target:
                print(tests.server_processes()[0].pid, file=sys.__stdout__, flush=True)
                tests.search(device, Path({str(folder)!r}), target)
        except tests.DeviceUnreachableError as error:
            print("ended with", error, file=sys.__stdout__)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    running = programs.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return running, psutil.Process(int(running.stdout.readline()))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("after_s", [2, 15])
def test_server_that_dies_ends_a_search_whatever_it_is_doing(device, after_s, tmp_path, programs):
    running, server = start_search(programs, device, tmp_path)
    time.sleep(after_s)
    assert running.poll() is None
    server.kill()
    said, _ = communicate(running, work_s=20)
    assert said.splitlines()[-1] == (f"ended with {device.name}: the server ended (exit -9); open the device again")
    assert running.returncode == 0


@pytest.mark.slow
def test_board_whose_server_dies_ends_the_search(desk):
    function, device = pointwise(), desk.device()
    started = time.monotonic()
    with pytest.raises(DeviceUnreachableError, match="no device under key desk"), open_tuning_target(device) as target:
        built = build(target, device, function)
        assert run(target, built, function).error_msg is None
        for process in (*psutil.Process(desk.server.pid).children(recursive=True), desk.server):
            process.kill()
        run(target, built, function)
    assert time.monotonic() - started < IN_TIME_S


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES[:1])
@pytest.mark.usefixtures("counter_that_stands_still")
def test_counter_that_stands_still_ends_the_search(device):
    function = pointwise()
    with (
        pytest.raises(DeviceFaultError, match=r"1 of 1 measurements gave no cost \(0.0 instructions\)"),
        open_tuning_target(device) as target,
    ):
        run(target, build(target, device, function), function)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_builders_runner_and_server_end_with_the_program_however_it_ends(device, end, tmp_path, programs):
    running, _ = start_search(programs, device, tmp_path)
    wait_until(lambda: len(programs.alive("tvm.exec.popen_worker")) >= 3, running)
    running.send_signal(end)
    running.wait()
    # A compiler that a builder has just started ends by itself.
    wait_until(lambda: not programs.alive(), psutil.Process())
    done = programs.run([sys.executable, "-c", "from thumbnet.runtime_tests.run_folder import *; print(run_folder())"])
    assert not list(Path(done.stdout.strip()).parent.glob(f"{running.pid}-*"))


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
