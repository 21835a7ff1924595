"""A layer on a schedule of TVM's own: found with few trials, with the reference's bytes, and a stage like any other."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tvm

from thumbnet.compile.errors import TuningError
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.choose_plan import fastest_plan
from thumbnet.compile.plan.lowered_network import build_stages
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.tuning.layer_schedules import layer_module, scheduled_kernel, tunable_layers, tuned_kernels
from thumbnet.compile.tuning.records import RECORDS, opened_records, read_records
from thumbnet.compile.tuning.stage_key import key_of
from thumbnet.compile.tuning.trial_network import trial_name, trial_network
from thumbnet.compile.tuning.tune_layers import tune_layer, tune_layers
from thumbnet.targets.registry import get_board

from ..c_harness import build, emit_lowered, run_stages
from ..networks import make_add, make_convolution, make_image, make_pool, one_layer_network, same_padding

RNG = np.random.default_rng(7)
LAYERS = {
    "conv2d": make_convolution(
        RNG, (6, 6, 3), outputs=8, kernel=(3, 3), stride=(2, 2), padding=same_padding((6, 6), (3, 3), (2, 2))
    ),
    "depthwise_conv2d": make_convolution(RNG, (6, 5, 8), kernel=(3, 3), padding=(1, 1, 1, 1), clamp=(-20, 90)),
    "pointwise_conv2d": make_convolution(RNG, (4, 4, 8), outputs=12, large_scale=True),
    "fully_connected": make_convolution(RNG, (1, 1, 24), outputs=5),
    "average_pool": make_pool(RNG, (3, 3, 16)),
    "add": make_add(RNG, (4, 6, 8)),
}
BOARD = get_board("mps2_an386")


class HostMeasurer:
    """Runs stages on this computer, with sanitizers; the length of its C stands for what a stage costs."""

    name = "host"

    def __init__(self, network, folder, change=lambda _index, stage: stage):
        self.network, self.folder, self.change, self.programs, self.stages = network, folder, change, 0, []
        image = make_image(network)
        self.values = {NETWORK_INPUT: image} | run_reference_layers(network, image)

    def measure(self, stages):
        self.programs += 1
        self.stages += stages
        changed = [self.change(index, stage) for index, stage in enumerate(stages)]
        lowered = trial_network(self.network, self.values, changed)
        folder = self.folder / f"{self.name}{self.programs}"
        emit_lowered(lowered, folder)
        [outputs] = run_stages(build(folder), lowered, [self.values[NETWORK_INPUT]])
        return [
            float(1 + len(stage.kernel.function.script()))
            if np.array_equal(outputs[trial_name(index)], self.values[stage.name])
            else math.inf
            for index, stage in enumerate(stages)
        ]


def search(network, folder, measurers, *, trials=8, layer=None, on_round=lambda _: None):
    with opened_records(folder) as database:
        tune_layer(
            *(network, layer or network.layers[0], BOARD, measurers, database),
            **{"objective": "instructions", "trials": trials, "on_round": on_round},
        )
        return len(database)


@pytest.mark.parametrize("kind", LAYERS)
def test_every_candidate_gives_the_reference_s_bytes(kind, tmp_path):
    network = one_layer_network(LAYERS[kind])
    costs = []
    count = search(network, tmp_path / "db", [HostMeasurer(network, tmp_path)], on_round=costs.extend)
    assert count == len(costs) > (0 if kind == "add" else 5)
    assert all(map(math.isfinite, costs))


@pytest.mark.parametrize("trials", [1, 2])
def test_few_trials_give_as_many_candidates(trials, tmp_path):
    network = one_layer_network(LAYERS["pointwise_conv2d"])
    assert search(network, tmp_path / "db", [HostMeasurer(network, tmp_path)], trials=trials) == trials


def test_candidates_with_wrong_bytes_are_not_recorded(tmp_path):
    network = one_layer_network(LAYERS["depthwise_conv2d"])

    def plant(index, stage):
        if index % 2:
            return stage
        constants = {**stage.kernel.constants, "bias": stage.kernel.constants["bias"] + 20_000}
        return replace(stage, kernel=replace(stage.kernel, constants=constants))

    measurer = HostMeasurer(network, tmp_path, plant)
    assert search(network, tmp_path / "db", [measurer]) == len(measurer.stages) // 2 > 0
    [kernels] = tuned_kernels(network, read_records(tmp_path / "db"), BOARD, "instructions", most=99).values()
    lengths = {float(1 + len(stage.kernel.function.script())) for stage in measurer.stages[1::2]}
    assert {round(kernel.instructions) for kernel in kernels} <= lengths


def test_records_become_stages_of_the_plan(tmp_path):
    layer = LAYERS["pointwise_conv2d"]
    # Of the same shape, but with other numbers: what is right for one is right for the other.
    other = make_convolution(
        np.random.default_rng(8), layer.output_shape, outputs=8, name="back", source=layer.name, large_scale=True
    )
    third = replace(layer, name="again", source="back", bias=layer.bias + 9, input_zero_point=3)
    network = replace(one_layer_network(layer), layers=(layer, other, third))
    assert [len(group) for group in tunable_layers(network).values()] == [2, 1]
    search(network, tmp_path / "db", [HostMeasurer(network, tmp_path)])

    database = read_records(tmp_path / "db")
    kernels = tuned_kernels(network, database, BOARD, "instructions", most=3)
    assert {name: len(found) for name, found in kernels.items()} == {layer.name: 3, "again": 3}
    costs = [kernel.instructions for kernel in kernels[layer.name]]
    assert costs == sorted(costs)
    graph = StageGraph(
        network, None, tuned=kernels, cost_of=lambda stage: 1 if stage.kernel is kernels["again"][1] else 2
    )
    plan = fastest_plan(graph, None)
    assert [stage.kernel for stage in plan.stages][2] is kernels["again"][1]
    stages = [graph.stage_of(layer.name, kernel) for kernel in (None, *kernels[layer.name])]
    assert len({key_of(stage) for stage in stages}) == 4
    again = tuned_kernels(network, read_records(tmp_path / "db"), BOARD, "instructions", most=3)[layer.name]
    assert [key_of(graph.stage_of(layer.name, kernel)) for kernel in again] == [key_of(stage) for stage in stages[1:]]

    lowered = build_stages(network, plan)
    emit_lowered(lowered, tmp_path / "net")
    image = make_image(network, 4)
    [outputs] = run_stages(build(tmp_path / "net"), lowered, [image])
    for name, expected in run_reference_layers(network, image).items():
        np.testing.assert_array_equal(outputs[name], expected)

    assert not tuned_kernels(network, database, BOARD, "cycles")
    assert not tuned_kernels(network, database, get_board("mps2_an385"), "instructions")


def test_large_buffers_lie_in_the_arena(tmp_path):
    network = one_layer_network(make_convolution(RNG, (12, 12, 4), kernel=(3, 3), padding=(1, 1, 1, 1)))
    layer = network.layers[0]
    kernel = scheduled_kernel(layer, layer_module(layer), "unscheduled")
    assert {name: item.bytes for name, item in kernel.scratch.items()} == {"padded": 14 * 14 * 4, "acc": 12 * 12 * 16}
    graph = StageGraph(network, None, tuned={layer.name: [replace(kernel, instructions=1.0)]})
    plan = fastest_plan(graph, None)
    assert plan.stages[0].kernel is not None
    assert plan.stages[0].arena_bytes == graph.stage_of(layer.name).arena_bytes + kernel.scratch_bytes
    assert plan.arena_bytes == plan.stages[0].arena_bytes
    lowered = build_stages(network, plan)
    emit_lowered(lowered, tmp_path / "net")
    image = make_image(network)
    [outputs] = run_stages(build(tmp_path / "net"), lowered, [image])
    np.testing.assert_array_equal(outputs[layer.name], run_reference_layers(network, image)[layer.name])


def test_a_second_search_goes_on_from_the_first_one_s_records(tmp_path):
    network = one_layer_network(LAYERS["fully_connected"])
    measurer = HostMeasurer(network, tmp_path)
    first = search(network, tmp_path / "db", [measurer], trials=4)
    assert search(network, tmp_path / "db", [measurer], trials=4) > first
    scripts = [stage.kernel.function.script() for stage in measurer.stages]
    assert len(set(scripts)) > len(scripts) / 2


@pytest.mark.parametrize(("trials", "expected"), [(6, [6]), (20, [14, 6])])
def test_trials_go_where_the_work_is_and_to_each_kind_once(trials, expected, tmp_path):
    layer = LAYERS["depthwise_conv2d"]
    small = make_convolution(RNG, layer.output_shape, outputs=8, name="small", source="again")
    network = replace(one_layer_network(layer), layers=(layer, replace(layer, name="again", source=layer.name), small))
    costs = {}
    with opened_records(tmp_path / "db") as database:
        tune_layers(
            *(network, BOARD, [HostMeasurer(network, tmp_path)], database),
            **{"objective": "instructions", "trials": trials},
            on_round=lambda layer, found: costs.setdefault(layer.name, []).extend(found),
        )
    assert [len(found) for found in costs.values()] == expected
    assert list(costs) == [layer.name, "small"][: len(expected)]


class Broken:
    name = "broken"

    def __init__(self, error):
        self.error, self.calls = error, 0

    def measure(self, stages):
        self.calls += 1
        raise self.error


def test_what_a_failing_device_had_goes_to_the_others(tmp_path):
    network = one_layer_network(LAYERS["average_pool"])
    broken = Broken(OSError("unplugged"))
    assert search(network, tmp_path / "db", [broken, HostMeasurer(network, tmp_path)]) == 8
    assert broken.calls == 1


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (OSError("unplugged"), TuningError, "no device is left: unplugged"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_what_ends_a_search_comes_out_as_it_is(error, raised, says, tmp_path):
    network = one_layer_network(LAYERS["average_pool"])
    with pytest.raises(raised, match=says):
        search(network, tmp_path / "db", [Broken(error)])
    assert (tmp_path / "db" / RECORDS).read_bytes() == b""


def test_a_schedule_that_can_t_be_lowered_is_left_out(tmp_path, monkeypatch):
    network = one_layer_network(LAYERS["average_pool"])
    lowered = 0

    def lower_every_other(*arguments):
        nonlocal lowered
        lowered += 1
        if lowered % 2:
            raise tvm.error.InternalError("no such schedule")
        return scheduled_kernel(*arguments)

    monkeypatch.setattr("thumbnet.compile.tuning.tune_layers.scheduled_kernel", lower_every_other)
    assert search(network, tmp_path / "db", [HostMeasurer(network, tmp_path)]) == 4
