"""Layers on schedules of TVM's own: found with few trials, with the reference's bytes, and stages like any other."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tvm

from thumbnet.compile.errors import WrongScheduleError
from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.network.layers import NETWORK_INPUT
from thumbnet.compile.network.reference import run_reference_layers
from thumbnet.compile.plan.choose_plan import fastest_plan
from thumbnet.compile.plan.lowered_network import build_stages
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.tuning.cost_model import LearnedCostModel
from thumbnet.compile.tuning.layer_schedules import (
    layer_module,
    record_target,
    recorded_stages,
    records_of,
    scheduled_kernel,
    tunable_layers,
)
from thumbnet.compile.tuning.plan_search import PlanSearch
from thumbnet.compile.tuning.records import opened_records, read_records
from thumbnet.compile.tuning.schedule_search import HOPELESS, PATIENCE, ROUND, ScheduleSearch
from thumbnet.compile.tuning.stage_key import key_of
from thumbnet.compile.tuning.trial_network import trial_name, trial_network
from thumbnet.compile.tuning.tune_plan import tune_plan
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
KIND = "instructions"


def length(stage):
    """Return what stands for the cost of a stage where none is measured: how long its code is."""
    return 1 + len(stage.build().function.script())


class Lengths:
    """Stands for a device that is never wrong."""

    name = "lengths"

    def __init__(self, cost=length):
        self.cost, self.stages = cost, []

    def measure(self, stages):
        self.stages += stages
        return [float(self.cost(stage)) for stage in stages]

    @property
    def candidates(self):
        return [stage for stage in self.stages if stage.kernel is not None]


class Host(Lengths):
    """Runs stages on this computer, with sanitizers; `change` is done to each before."""

    def __init__(self, network, folder, change=lambda stage: stage):
        super().__init__()
        self.network, self.folder, self.change, self.programs = network, folder, change, 0
        image = make_image(network)
        self.values = {NETWORK_INPUT: image} | run_reference_layers(network, image)

    def measure(self, stages):
        costs = super().measure(stages)
        self.programs += 1
        lowered = trial_network(self.network, self.values, [self.change(stage) for stage in stages])
        folder = self.folder / f"program{self.programs}"
        emit_lowered(lowered, folder)
        [outputs] = run_stages(build(folder), lowered, [self.values[NETWORK_INPUT]])
        right = [
            np.array_equal(outputs[trial_name(index)], self.values[stage.name]) for index, stage in enumerate(stages)
        ]
        return [cost if is_right else math.inf for cost, is_right in zip(costs, right, strict=True)]


def search(network, folder, device, *, trials=9, kernels=None, measured=None, kind=KIND, on_wrong=None):
    """Search as `thumbnet tune --space tvm` does, and return what `tune_plan` does."""
    measured = {} if measured is None else measured
    untuned = fastest_plan(StageGraph(network, kernels), None)
    with opened_records(folder) as database:
        schedules = ScheduleSearch(
            *(network, BOARD, kind, database, measured), **({} if on_wrong is None else {"on_wrong": on_wrong})
        )
        plans = PlanSearch(
            network, kernels, ram_limit=None, model=LearnedCostModel(), measured=measured, schedules=schedules
        )
        return tune_plan(plans, untuned, [device], trials=trials, batch=ROUND)


def records_in(folder):
    return records_of(read_records(folder), record_target(BOARD, KIND))


@pytest.mark.parametrize("kind", LAYERS)
def test_every_candidate_gives_the_reference_s_bytes(kind, tmp_path):
    network, wrong = one_layer_network(LAYERS[kind]), []
    device = Host(network, tmp_path)
    search(network, tmp_path / "db", device, on_wrong=wrong.append)
    assert not wrong
    assert len(records_in(tmp_path / "db")) == len(device.candidates) > (0 if kind == "add" else 5)


@pytest.mark.parametrize("trials", [1, 2])
def test_few_trials_give_as_many_candidates(trials, tmp_path):
    network, device = one_layer_network(LAYERS["pointwise_conv2d"]), Lengths()
    search(network, tmp_path / "db", device, trials=1 + trials)
    assert len(records_in(tmp_path / "db")) == len(device.candidates) == trials


def test_a_wrong_candidate_is_told_by_name_and_in_no_record_and_no_plan(tmp_path):
    network, wrong, planted = one_layer_network(LAYERS["depthwise_conv2d"]), [], []

    def plant(stage):
        if stage.kernel is None or len(planted) == 4:
            return stage
        planted.append(stage)
        constants = {**stage.kernel.constants, "bias": stage.kernel.constants["bias"] + 20_000}
        return replace(stage, kernel=replace(stage.kernel, constants=constants))

    measured, device = {}, Host(network, tmp_path, plant)
    search(network, tmp_path / "db", device, measured=measured, on_wrong=wrong.append)
    assert [type(error) for error in wrong] == [WrongScheduleError] * 4
    for error, stage in zip(wrong, planted, strict=True):
        assert f"{error}".startswith(f"conv on {stage.kernel.variant}: ")
        assert "wrong bytes" in f"{error}"
    assert len(records_in(tmp_path / "db")) == len(device.candidates) - 4 > 0
    names = {stage.kernel.variant for stage in planted}
    kept = recorded_stages(StageGraph(network, None), records_in(tmp_path / "db"), measured)
    assert kept
    assert not names & {stage.kernel.variant for stage in kept}


def test_records_become_stages_of_the_plan(tmp_path):
    layer = LAYERS["pointwise_conv2d"]
    # Of the same shape, but with other numbers: what is right for one is right for the other.
    other = make_convolution(
        np.random.default_rng(8), layer.output_shape, outputs=8, name="back", source=layer.name, large_scale=True
    )
    third = replace(layer, name="again", source="back", bias=layer.bias + 9, input_zero_point=3)
    network = replace(one_layer_network(layer), layers=(layer, other, third))
    assert [[each.name for each in group] for group in tunable_layers(network)] == [[layer.name, "again"], ["back"]]

    measured = {}
    device = Lengths(lambda stage: 10**9 if stage.kernel is None else length(stage))
    found = search(network, tmp_path / "db", device, trials=40, measured=measured).best
    chosen = [stage.kernel.variant for stage in found.stages]
    assert chosen[0] == chosen[2] != chosen[1]
    assert {stage.name for stage in device.candidates} == {layer.name, "back"}

    graph = StageGraph(network, None, cost_of=lambda stage: measured[key_of(stage)])
    for stage in recorded_stages(graph, records_in(tmp_path / "db"), measured):
        graph.add(stage)
    plan = fastest_plan(graph, None)
    # The same ones, but for schedules that cost as much.
    assert [measured[key_of(stage)] for stage in plan.stages] == [measured[key_of(stage)] for stage in found.stages]
    lowered = build_stages(network, plan)
    emit_lowered(lowered, tmp_path / "net")
    image = make_image(network, 4)
    [outputs] = run_stages(build(tmp_path / "net"), lowered, [image])
    for name, expected in run_reference_layers(network, image).items():
        np.testing.assert_array_equal(outputs[name], expected)

    database = read_records(tmp_path / "db")
    assert not records_of(database, record_target(BOARD, "predicted cycles"))
    assert not records_of(database, record_target(get_board("mps2_an385"), KIND))


def test_large_buffers_lie_in_the_arena(tmp_path):
    network = one_layer_network(make_convolution(RNG, (12, 12, 4), kernel=(3, 3), padding=(1, 1, 1, 1)))
    layer = network.layers[0]
    kernel = scheduled_kernel(layer, layer_module(layer), "unscheduled")
    assert {name: item.bytes for name, item in kernel.scratch.items()} == {"padded": 14 * 14 * 4, "acc": 12 * 12 * 16}
    graph = StageGraph(network, None, cost_of=lambda stage: 2.0 if stage.kernel is None else 1.0)
    graph.add(graph.stage_of(layer.name, kernel))
    plan = fastest_plan(graph, None)
    assert plan.stages[0].kernel is kernel
    assert plan.stages[0].arena_bytes == graph.stage_of(layer.name).arena_bytes + kernel.scratch_bytes
    assert plan.arena_bytes == plan.stages[0].arena_bytes
    lowered = build_stages(network, plan)
    emit_lowered(lowered, tmp_path / "net")
    image = make_image(network)
    [outputs] = run_stages(build(tmp_path / "net"), lowered, [image])
    np.testing.assert_array_equal(outputs[layer.name], run_reference_layers(network, image)[layer.name])


def test_where_a_schedule_is_large_a_dearer_one_that_is_small_is_kept_too(tmp_path):
    network, measured = one_layer_network(LAYERS["pointwise_conv2d"]), {}
    device = Lengths()
    search(network, tmp_path / "db", device, trials=17, measured=measured)
    sizes = {key_of(stage): stage.arena_bytes for stage in device.candidates}
    best = min(sizes, key=lambda key: (measured[key], sizes[key]))
    kept = {
        key_of(stage) for stage in recorded_stages(StageGraph(network, None), records_in(tmp_path / "db"), measured)
    }
    assert best in kept
    for key in sizes.keys() - kept:
        assert any(measured[other] <= measured[key] and sizes[other] <= sizes[key] for other in kept)


def test_a_second_search_goes_on_from_the_first_one_s_records(tmp_path):
    network, measured, device = one_layer_network(LAYERS["conv2d"]), {}, Lengths()
    first = search(network, tmp_path / "db", device, trials=1 + ROUND, measured=measured)
    known = len(device.candidates)
    second = search(network, tmp_path / "db", device, trials=ROUND, measured=measured)
    # What is known is a plan from the start, and not measured again.
    assert second.history[0].best == first.history[-1].best
    keys = [key_of(stage) for stage in device.candidates]
    assert len(set(keys)) == len(keys) > known


def test_it_ends_by_itself_where_nothing_better_is_found(tmp_path):
    network, device = one_layer_network(LAYERS["conv2d"]), Lengths(lambda _: 100)
    found = search(network, tmp_path / "db", device, trials=1000)
    assert found.end == "proven"
    # The first round finds one; then patience is over.
    assert len(device.candidates) == (1 + PATIENCE) * ROUND


def test_the_layer_that_costs_most_is_tried_first_and_each_kind_once(tmp_path):
    layer = LAYERS["depthwise_conv2d"]
    small = make_convolution(RNG, layer.output_shape, outputs=8, name="small", source="again")
    network = replace(one_layer_network(layer), layers=(layer, replace(layer, name="again", source=layer.name), small))
    device = Lengths(lambda stage: 100 if stage.name == "small" else 70)
    search(network, tmp_path / "db", device, trials=2 + 2 * ROUND)
    assert [stage.name for stage in device.candidates] == [layer.name] * ROUND + ["small"] * ROUND


@pytest.mark.parametrize(
    ("factor", "rounds"),
    [(1.1 + HOPELESS, 1), (0.9 + HOPELESS, 2), (1.1, 1 + PATIENCE), (0.5, 1 + PATIENCE)],
)
def test_schedules_compete_with_our_own_kernels(factor, rounds, tmp_path):
    layer = LAYERS["pointwise_conv2d"]
    network = one_layer_network(layer)
    device = Lengths(lambda stage: 1000 * factor if stage.kernel else 1000 if stage.chain else 5000)
    found = search(network, tmp_path / "db", device, trials=1000, kernels=DspStage)
    assert (found.best.stages[0].kernel is not None) == (factor < 1)
    assert len(device.candidates) == rounds * ROUND


@pytest.mark.parametrize(("part", "rounds"), [(0.004, 0), (0.006, 1 + PATIENCE)])
def test_what_costs_next_to_nothing_is_left_alone(part, rounds, tmp_path):
    small = make_convolution(RNG, LAYERS["depthwise_conv2d"].output_shape, outputs=8, name="small")
    network = one_layer_network(LAYERS["depthwise_conv2d"])
    network = replace(network, layers=(*network.layers, replace(small, source=network.layers[-1].name)))
    device = Lengths(lambda stage: 1e6 * (part if stage.name == "small" else 1 - part))
    search(network, tmp_path / "db", device, trials=1000)
    assert sum(stage.name == "small" for stage in device.candidates) == rounds * ROUND


def test_a_schedule_that_can_t_be_lowered_is_left_out(tmp_path, monkeypatch):
    network, device = one_layer_network(LAYERS["average_pool"]), Lengths()
    lowered = 0

    def lower_every_other(*arguments):
        nonlocal lowered
        lowered += 1
        if lowered % 2:
            raise tvm.error.InternalError("no such schedule")
        return scheduled_kernel(*arguments)

    monkeypatch.setattr("thumbnet.compile.tuning.schedule_search.scheduled_kernel", lower_every_other)
    search(network, tmp_path / "db", device, trials=1 + ROUND // 2)
    assert len(records_in(tmp_path / "db")) == ROUND // 2
