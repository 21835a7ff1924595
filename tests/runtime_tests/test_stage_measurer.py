"""Stages measured on emulated devices: their bytes are checked, their costs are those of a network they are in."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.compile_model import compile_model
from thumbnet.compile.errors import ToolchainError
from thumbnet.compile.kernels.instruction_sets import kernels_of
from thumbnet.compile.network.network_file import load_reference
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.board_plan import plan_for_board
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.request import CompileOptions
from thumbnet.runtime_tests import measure_stages as module
from thumbnet.runtime_tests import stage_measurer
from thumbnet.runtime_tests.errors import SessionError
from thumbnet.runtime_tests.open_session import open_session
from thumbnet.runtime_tests.repeated_readings import LEAST_SAMPLES
from thumbnet.runtime_tests.session import LayerCost
from thumbnet.runtime_tests.stage_measurer import DeviceMeasurer
from thumbnet.targets.devices import get_device
from thumbnet.tools.network import make_request
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.tune_stages import make_record

pytestmark = pytest.mark.emulated

#: Emulated devices, and the tools each needs.
DEVICES = [
    pytest.param(device, marks=[pytest.mark.needs_tools(*tools), *([] if "an386" in device else [pytest.mark.slow])])
    for device, tools in {
        "qemu_mps2_an386": ("arm-none-eabi-gcc", "qemu-system-arm", "gcc"),
        "qemu_mps3_an547": ("arm-none-eabi-gcc", "qemu-system-arm", "gcc"),
        "qemu_raspberry_pi_4": ("aarch64-linux-gnu-gcc", "qemu-aarch64", "gcc"),
        "qemu_raspberry_pi_2": ("arm-linux-gnueabihf-gcc", "qemu-arm", "gcc"),
    }.items()
]
#: What is best on its portable kernel now and then.
ALONE = {"add", "average_pool"}
M4 = [pytest.mark.needs_tools("arm-none-eabi-gcc", "qemu-system-arm", "gcc")]


class Setting:
    """A bundled network compiled for a device, with what it does with one image."""

    def __init__(self, device_name, folder):
        self.device = get_device(device_name)
        options = CompileOptions(untuned=True)
        request = make_request(NetworkFiles("mobilenet_v2_0.35_digits"), self.device.board, options)
        self.artifact = compile_model(request, folder)
        self.network = load_reference(self.artifact)
        image = self.artifact.golden()[0][0]
        self.values = {"input": image, **run_reference_layers(self.network, image)}
        self.graph = StageGraph(self.network, kernels_of(self.device.board))
        self.graph.best_plan()  # makes its stages
        self.plan, _ = plan_for_board(self.network, self.device.board, None)

    def some_stages(self, count):
        """Return stages of all sorts."""
        stages = [stage for edges in self.graph._edges.values() for stage in edges]
        chosen = np.random.default_rng(5).choice(len(stages), count, replace=False)
        return [stages[index] for index in chosen]

    def measurer(self, objective, **options):
        return DeviceMeasurer(self.device, self.network, self.values, objective, **options)


@pytest.fixture(scope="module")
def settings():
    return {}


@pytest.fixture
def setting(request, settings, tmp_path_factory):
    if request.param not in settings:
        settings[request.param] = Setting(request.param, tmp_path_factory.mktemp("settings") / "network")
    return settings[request.param]


@pytest.mark.parametrize("setting", DEVICES, indirect=True)
def test_stages_cost_alone_what_they_cost_in_a_network(setting):
    with open_session(setting.device) as session:
        session.load(setting.artifact)
        costs = {cost.name: cost.value for cost in session.profile(setting.values["input"])}
    stages = [*setting.plan.stages]
    others = setting.some_stages(20)
    with setting.measurer("instructions") as measurer:
        measured = measurer.measure([*stages, *others])
    assert len(set(measured[: len(stages)])) > 3
    for stage, cost in zip(stages, measured, strict=False):
        # Calls and, where tensors lie elsewhere, a few addresses differ.
        assert cost == pytest.approx(costs[stage.name], rel=0.02, abs=100)
    # All other ways give the right bytes too, or their cost were infinite.
    assert all(math.isfinite(cost) and cost > 0 for cost in measured)


@pytest.mark.parametrize("setting", DEVICES, indirect=True)
def test_sums_and_pools_alone_cost_what_plans_take_them_for(setting):
    stages = [setting.graph.stage_of(layer.name) for layer in setting.network.layers if layer.kind in ALONE]
    assert {stage.layers[0].kind for stage in stages} == ALONE
    with setting.measurer("instructions") as measurer:
        costs = measurer.measure(stages)
    for stage, cost in zip(stages, costs, strict=True):
        # Small tensors: calls are no small part of it.
        assert cost == pytest.approx(stage.instructions, rel=0.35, abs=200)


@pytest.mark.parametrize("setting", [pytest.param("qemu_mps2_an386", marks=M4)], indirect=True)
def test_predicted_cycles_are_more_than_instructions(setting):
    readings = []
    stages = list(setting.plan.stages)
    with (
        setting.measurer("cycles", on_reading=lambda stage, reading: readings.append(reading)) as cycles,
        setting.measurer("instructions") as instructions,
    ):
        pairs = zip(cycles.measure(stages), instructions.measure(stages), strict=True)
        assert all(more > less for more, less in pairs)
    assert {reading.kind for reading in readings} == {"predicted cycles"}
    assert len(readings) == len(stages)


@pytest.mark.parametrize("setting", [pytest.param("qemu_mps2_an386", marks=M4)], indirect=True)
def test_wrong_bytes_are_no_measurement(setting):
    stages = list(setting.plan.stages)
    wrong = stages[2].name
    values = {**setting.values, wrong: setting.values[wrong] ^ np.int8(1)}
    with DeviceMeasurer(setting.device, setting.network, values, "instructions") as measurer:
        costs = measurer.measure(stages)
    # The stage itself, and whoever reads what it should have given.
    assert math.isinf(costs[2])
    assert math.isfinite(costs[0])
    assert math.isfinite(costs[-1])


@pytest.mark.parametrize("setting", [pytest.param("qemu_mps2_an386", marks=M4)], indirect=True)
def test_a_device_that_measures_something_else_is_told(setting):
    with (
        setting.measurer("seconds") as measurer,
        pytest.raises(SessionError, match="measures instructions, not seconds"),
    ):
        measurer.measure(list(setting.plan.stages))


@pytest.mark.parametrize("setting", [pytest.param("qemu_mps2_an386", marks=M4)], indirect=True)
def test_a_stage_that_cant_be_built_takes_no_other_along(setting, monkeypatch):
    stages = list(setting.plan.stages)
    write = module.write_trials

    def break_one(network, values, trials, board, folder):
        artifact = write(network, values, trials, board, folder)
        if stages[1] in trials:
            raise ToolchainError("gcc failed")
        return artifact

    monkeypatch.setattr(module, "write_trials", break_one)
    with setting.measurer("instructions") as measurer:
        costs = measurer.measure(stages)
    assert [math.isfinite(cost) for cost in costs] == [stage is not stages[1] for stage in stages]


@pytest.mark.parametrize("setting", [pytest.param("qemu_mps2_an386", marks=M4)], indirect=True)
def test_stages_that_dont_fit_the_board_together_are_measured_in_parts(setting, monkeypatch):
    stages = list(setting.plan.stages)
    write, programs = module.write_trials, []

    def count(network, values, trials, board, folder):
        programs.append(len(trials))
        return write(network, values, trials, board, folder)

    monkeypatch.setattr(module, "write_trials", count)
    board = setting.device.board
    small = replace(setting.device, board=replace(board, flash=replace(board.flash, size=1 << 18)))
    with setting.measurer("instructions") as measurer:
        costs = measurer.measure(stages)
    assert len(programs) == 1
    with DeviceMeasurer(small, setting.network, setting.values, "instructions") as measurer:
        assert measurer.measure(stages) == pytest.approx(costs, rel=0.02, abs=100)
    assert len(programs) > 3


class TimedSession:
    """An emulated device that says it were a real one: instructions are nanoseconds, one run in four takes longer."""

    def __init__(self, device):
        self._inner = open_session(replace(device, kind="emulated", address=""))
        self.device, self.place, self.compiler = device, device.address, "gcc"
        self.factor, self.runs = 1.0, 0

    def profile(self, image):
        self.runs += 1
        slow = self.factor * (3 if self.runs % 4 == 0 else 1)
        costs = self._inner.profile(image)
        time.sleep(sum(cost.value for cost in costs) * slow * 1e-9)  # a timer faster than the test's clock were refused
        return [LayerCost(cost.name, "seconds on the board", cost.value * slow * 1e-9, 1e-6) for cost in costs]

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.mark.parametrize("setting", [pytest.param("qemu_mps2_an386", marks=M4)], indirect=True)
def test_a_real_board_is_measured_until_it_is_sure_and_watched(setting, monkeypatch):
    sessions, readings = [], []

    def open_timed(device):
        sessions.append(TimedSession(device))
        return sessions[-1]

    device = replace(setting.device, kind="serial", address="/dev/ttyACM0")
    stages = list(setting.plan.stages)[:4]
    with setting.measurer("instructions") as exact:
        counts = exact.measure(stages)
    monkeypatch.setattr(stage_measurer, "open_session", open_timed)
    with DeviceMeasurer(
        *(device, setting.network, setting.values, "seconds"),
        on_reading=lambda stage, reading: readings.append(reading),
    ) as measurer:
        costs = [*measurer.measure(stages[:2]), *measurer.measure(stages[2:])]
        assert costs == pytest.approx([1e-9 * count for count in counts], rel=0.02, abs=1e-6)
        assert len(readings) == len(stages), "the reference stage is no trial of the second program"
        for reading in readings:
            assert len(reading.samples) > LEAST_SAMPLES, "all of them raw"
            assert max(reading.samples) == pytest.approx(3 * min(reading.samples), rel=0.1)
            record = make_record(stages[0], reading)
            assert (record.kind, record.emulated, record.identity) == ("seconds on the board", False, "/dev/ttyACM0")
        sessions[0].factor = 1.5
        with pytest.raises(SessionError, match=r"drifts: the reference stage .*\+50%"):
            measurer.measure(stages[1:])
        assert len(readings) == len(stages)
        # As whoever comes back: a session anew, the same reference.
        assert measurer.measure(stages[1:]) == pytest.approx(costs[1:], rel=0.02, abs=1e-6)
