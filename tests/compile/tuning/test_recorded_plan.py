"""Plans by records: the one that costs least by what was measured, and whose records those may be."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from thumbnet.compile.errors import CompileError, TuningError
from thumbnet.compile.kernels.cycle_prices import prices_of
from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.plan.board_plan import plan_for_board
from thumbnet.compile.plan.choose_plan import fastest_plan
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.plan_stages import plan_stages
from thumbnet.compile.quantize_request import quantize_network
from thumbnet.compile.request import CompileOptions, check_options
from thumbnet.compile.tuning.plan_search import SLACK
from thumbnet.compile.tuning.recorded_plan import SHIPPED, plan_by_records, plan_by_shipped_records
from thumbnet.compile.tuning.stage_key import kernels_digest, key_of
from thumbnet.compile.tuning.stage_records import (
    check_stage_records,
    measured_costs,
    opened_stage_records,
    read_stage_records,
)
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import make_request
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.shipped_records import BOARDS

from ..plan.test_stage_graph import small_mobilenet
from .searches import true_cost
from .stage_record_files import record_of as record_at
from .test_schedule_search import Lengths, search

BOARD = get_board("mps2_an386")


@pytest.fixture(scope="module")
def network():
    return small_mobilenet()


@pytest.fixture(scope="module")
def stages(network):
    """All there could be, each once."""
    graph = StageGraph(network, DspStage, prices=prices_of(BOARD), slack=SLACK)
    graph.best_plan()
    return list({key_of(stage): stage for edges in graph._edges.values() for stage in edges}.values())


@pytest.fixture(scope="module")
def untuned(network):
    return plan_for_board(network, BOARD, None)[0]


def record_of(stage, cost=None, **changes):
    return record_at(stage, true_cost(stage) if cost is None else cost, **changes)


def write(folder, records):
    with opened_stage_records(folder) as recorder:
        recorder.add(*records)
    return folder


def cost_of(plan):
    return sum(map(true_cost, plan.stages))


def plan(network, folder, untuned, ram_limit=None, *, board=BOARD, emulated=True, **options):
    return plan_by_records(network, board, folder, untuned, ram_limit, emulated=emulated, **options)


def test_the_best_plan_is_taken_without_more_ram(network, stages, untuned, tmp_path):
    write(tmp_path, map(record_of, stages))
    found = plan(network, tmp_path, untuned)
    assert found.kind == "predicted cycles"
    assert found.costs == tuple(map(true_cost, found.plan.stages))
    assert found.plan.arena_bytes <= untuned.arena_bytes
    graph = StageGraph(network, DspStage, prices=prices_of(BOARD), slack=SLACK, cost_of=true_cost)
    best = fastest_plan(graph, untuned.arena_bytes)
    assert cost_of(found.plan) == cost_of(best) < cost_of(untuned)
    as_json = found.as_json()
    assert as_json["measured_stages"] == len(found.plan.stages)
    assert as_json["measured_cost"] == pytest.approx(cost_of(best))
    # With more RAM it may be faster still; never than the board has.
    roomy = plan(network, tmp_path, untuned, 10**9)
    assert cost_of(roomy.plan) < cost_of(best)
    assert roomy.plan.arena_bytes <= BOARD.ram.size


def test_stages_without_records_are_estimated_and_said_to_be(network, stages, untuned, tmp_path):
    write(tmp_path, [record_of(stages[0])])
    found = plan(network, tmp_path, untuned)
    assert found.as_json()["measured_stages"] == sum(cost is not None for cost in found.costs) <= 1
    predicted = [sum(stage.cost for stage in each.stages) for each in (found.plan, untuned)]
    assert predicted[0] <= predicted[1] * 1.01


def test_after_a_search_only_measured_stages_are_taken(network, stages, untuned, tmp_path):
    """Others may be predicted to cost less and prove to cost more."""
    records = [record_of(stage, stage.cost) for stage in untuned.stages]
    dear = [record_of(stage, 2 * stage.cost) for stage in untuned.stages[:1]]
    found = plan(network, write(tmp_path, [*records, *dear]), untuned)
    assert found.plan is untuned
    assert None not in found.costs
    # For a network that was never measured whole, there is nothing else to go by.
    found = plan(network, write(tmp_path / "some", records[1:]), untuned)
    assert None in found.costs


@pytest.mark.parametrize("cost", [1.0, 1e9])
def test_a_schedule_is_taken_where_it_costs_less(cost, network, stages, untuned, tmp_path):
    device = Lengths(lambda stage: 1 if stage.kernel else 10)
    search(network, tmp_path, device, trials=len(network.layers) + 2, kind="predicted cycles")
    written = [*map(record_of, stages), *(record_of(stage, cost) for stage in device.candidates)]
    found = plan(network, write(tmp_path, written), untuned)
    scheduled = [index for index, stage in enumerate(found.plan.stages) if stage.kernel is not None]
    assert bool(scheduled) == (cost == 1.0)
    for index in scheduled:
        assert key_of(found.plan.stages[index]) in map(key_of, device.candidates)
        assert found.costs[index] == cost


def test_the_plan_without_tuning_is_kept_where_none_costs_less(network, stages, untuned, tmp_path):
    cheap = {key_of(stage) for stage in untuned.stages}
    records = [record_of(stage, stage.cost * (0.5 if key_of(stage) in cheap else 2)) for stage in stages]
    assert plan(network, write(tmp_path, records), untuned).plan is untuned


def test_costs_of_other_cores_scale_nothing(network, stages, untuned, tmp_path):
    """The same stages, measured on a Cortex-M7 too, where all took a hundred times as much."""
    few = stages[::7]
    alone = plan(network, write(tmp_path / "alone", map(record_of, few)), untuned)
    others = [record_of(stage, 100 * true_cost(stage), core="cortex-m7", board="mps2_an500") for stage in few]
    both = plan(network, write(tmp_path / "both", [*map(record_of, few), *others]), untuned)
    assert [stage.chain and key_of(stage) for stage in alone.plan.stages] == [
        stage.chain and key_of(stage) for stage in both.plan.stages
    ]
    assert alone.costs == both.costs


def test_stages_of_wrong_bytes_are_in_no_plan(network, stages, untuned, tmp_path):
    wrong = {key_of(stage) for stage in untuned.stages[1:3]}
    records = [
        record_of(stage, **({"samples": [], "right": False} if key_of(stage) in wrong else {})) for stage in stages
    ]
    found = plan(network, write(tmp_path / "some", records), untuned)
    assert not wrong & set(map(key_of, found.plan.stages))
    assert all(math.isfinite(cost) for cost in found.costs)
    # Where the plan without tuning is wrong and no other was measured, others are hoped for.
    records = [record_of(stage, samples=[], right=False) for stage in untuned.stages[1:3]]
    found = plan(
        network,
        write(tmp_path / "few", [record_of(untuned.stages[0]), *records, *map(record_of, untuned.stages[3:])]),
        untuned,
    )
    assert not wrong & set(map(key_of, found.plan.stages))
    assert None in found.costs
    first = network.layers[0].name
    records = [
        record_of(stage, **({"samples": [], "right": False} if stage.layers[0].name == first else {}))
        for stage in stages
    ]
    with pytest.raises(TuningError, match=f"every plan has a stage that gave wrong bytes on a mps2_an386.*{first}"):
        plan(network, write(tmp_path / "all", records), untuned)


def test_a_stage_that_reads_the_image_row_by_row_is_another_one(network, stages, tmp_path):
    write(tmp_path, map(record_of, stages))
    untuned = plan_for_board(network, BOARD, None, streamed=True)[0]
    found = plan(network, tmp_path, untuned, streamed=True)
    assert found.plan.stages[0].chain.streamed
    assert found.costs[0] is None
    assert None not in found.costs[1:]


def test_records_of_emulated_boards_serve_only_where_asked_for(network, stages, untuned, tmp_path):
    emulated, other = tmp_path / "emulated", tmp_path / "other"
    write(emulated, map(record_of, stages))
    for board in (BOARD, get_board("nucleo_l4r5zi")):
        with pytest.raises(TuningError, match=f"no records of a real {board.name}; --emulated-records takes those"):
            plan(network, emulated, untuned, board=board, emulated=False)
        assert plan(network, emulated, untuned, board=board).kind == "predicted cycles"
    # Real ones come first, and a real board's own only.
    real = {"emulated": False, "kind": "cycles", "device": "desk", "board": "nucleo_l4r5zi"}
    write(emulated, [record_of(stage, 3 * true_cost(stage), **real) for stage in stages])
    for asked in (False, True):
        found = plan(network, emulated, untuned, board=get_board("nucleo_l4r5zi"), emulated=asked)
        assert found.kind == "cycles"
        assert found.costs == tuple(3 * true_cost(stage) for stage in found.plan.stages)
    assert plan(network, emulated, untuned).kind == "predicted cycles"
    write(other, [record_of(stage, **real) for stage in stages])
    with pytest.raises(TuningError, match=r"of a mps2_an386 .* of nucleo_l4r5zi \(real, cycles\); tune again"):
        plan(network, other, untuned)


def test_an_objective_takes_records_of_its_own_kind_only(network, stages, untuned, tmp_path):
    write(tmp_path, map(record_of, stages))
    with pytest.raises(TuningError, match=r"has no instructions of a mps2_an386 .* \(emulated, predicted cycles\)"):
        plan(network, tmp_path, untuned, objective="instructions")
    write(tmp_path, [record_of(stage, kind="instructions") for stage in untuned.stages])
    for objective, kind in (
        ("instructions", "instructions"),
        ("cycles", "predicted cycles"),
        (None, "predicted cycles"),
    ):
        assert plan(network, tmp_path, untuned, objective=objective).kind == kind


@pytest.mark.parametrize(
    "case",
    [
        ({"kernels": "0" * 16}, r"of mps2_an386 \(emulated, predicted cycles, other kernels\)"),
        ({"core": "cortex-m7", "board": "mps2_an500"}, r"of mps2_an500 \(emulated, predicted cycles\)"),
        ({"samples": [], "right": False}, r"of mps2_an386 \(emulated, predicted cycles\)"),
    ],
)
def test_records_of_something_else_are_named(network, stages, untuned, tmp_path, case):
    changes, says = case
    write(tmp_path, [record_of(stage, **changes) for stage in stages[:3]])
    for emulated in (True, False):
        with pytest.raises(TuningError, match=says) as caught:
            plan(network, tmp_path, untuned, emulated=emulated)
        assert "\n" not in str(caught.value)


def test_a_folder_without_any_record_says_so(network, untuned, tmp_path):
    write(tmp_path, [])
    with pytest.raises(TuningError, match="but records of nothing; tune again, or leave --tuning out"):
        plan(network, tmp_path, untuned)


def test_shipped_records_give_the_best_plan_of_what_is_measured(network, stages, untuned, tmp_path):
    write(tmp_path, map(record_of, stages))
    found = plan_by_shipped_records(network, BOARD, untuned, folder=tmp_path)
    assert found.shipped and found.kind == "predicted cycles"
    assert found.costs == tuple(map(true_cost, found.plan.stages))
    assert cost_of(found.plan) == cost_of(plan(network, tmp_path, untuned).plan) < cost_of(untuned)
    assert found.plan.arena_bytes <= untuned.arena_bytes


@pytest.mark.parametrize(
    "changes",
    [{"board": "nucleo_l4r5zi"}, {"kind": "instructions"}, {"samples": [], "right": False}, {"kernels": "0" * 16}],
)
def test_shipped_records_count_for_their_very_network_and_board(changes, network, stages, untuned, tmp_path):
    write(
        tmp_path,
        [record_of(stage, **(changes if stage.layers == untuned.stages[0].layers else {})) for stage in stages],
    )
    assert plan_by_shipped_records(network, BOARD, untuned, folder=tmp_path) is None


def test_what_is_shipped_is_whole():
    records, faults = check_stage_records(SHIPPED)
    assert records and not faults
    assert all(record.emulated and record.right and record.kind == "predicted cycles" for record in records)
    assert {record.board for record in records} == set(BOARDS)
    remake = "records of other kernels count no more; run `python -m thumbnet.tools.shipped_records RECORDS`"
    assert {record.kernels for record in records} == {kernels_digest()}, remake
    # Networks with their dead channels and without; a plan has nine stages at least.
    assert all(count > 36 for count in Counter(record.board for record in records).values())


@pytest.mark.parametrize("name", ["mps2_an386", "mps3_an547"])
def test_bundled_networks_are_planned_by_what_is_shipped(name):
    """Where nothing else is asked for; in no more RAM, and by fewer predicted cycles than those of the plan without."""
    request = make_request(NetworkFiles("mobilenet_v1_0.25_digits"), get_board(name))
    network = read_relax(quantize_network(request))
    lowered, tuned = plan_stages(request, network)
    assert tuned.shipped and tuned.as_json()["measured_stages"] == len(lowered.stages)
    for options in (CompileOptions(untuned=True), CompileOptions(objective="instructions")):
        assert plan_stages(replace(request, options=options), network)[1] is None
    plan, _ = plan_for_board(network, request.board, None)
    assert lowered.plan.arena_bytes <= plan.arena_bytes
    records = read_stage_records(SHIPPED)
    costs = measured_costs(records, core=request.board.core, kind=tuned.kind, emulated=True, board=name)
    assert tuned.as_json()["measured_cost"] < sum(costs[key_of(stage)] for stage in plan.stages)


def test_records_are_asked_for_or_left_out(tmp_path):
    with pytest.raises(CompileError, match=r"--untuned leaves records out, and --tuning .* asks for some; take one"):
        check_options(CompileOptions(untuned=True, tuning=tmp_path), BOARD)
