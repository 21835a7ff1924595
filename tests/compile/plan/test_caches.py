"""Plans for boards with caches: what they cost in instructions, and what a simulated cache misses."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from thumbnet.compile.emit.emit_c import emit_c
from thumbnet.compile.kernels.instruction_sets import float_kernels_of, kernels_of
from thumbnet.compile.network.integer_relax import read_relax
from thumbnet.compile.passes.match_float_layers import match_float_layers
from thumbnet.compile.plan.cache_cost import SPENT_ON_CACHES, CacheCost, graph_with_caches
from thumbnet.compile.plan.choose_plan import fastest_plan
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.quantize_request import import_network
from thumbnet.targets.board import Caches
from thumbnet.targets.registry import get_board, list_boards
from thumbnet.tools.workloads import Workload, make_benchmark_request

PLUGIN = Path(__file__).with_name("count_misses.c")
#: Ways of the caches, of a Cortex-A72 (its Technical Reference Manual).
WAYS = (2, 16)
CALLER = """
#include <stdlib.h>
#include "net.h"
int main(int argc, char **argv) {
    for (int turn = 0; turn < atoi(argv[argc - 1]); ++turn)
        net_run();
    return 0;
}
"""


def _network(model, quantize="int8"):
    workload = Workload(model, model, 10, family="cortex-a", quantize=quantize)
    request = make_benchmark_request(workload, get_board("raspberry_pi_4"), "random", None, keep=True)
    module = import_network(request)
    return read_relax(module) if quantize == "int8" else match_float_layers(module)


def _kernels(board, quantize):
    return kernels_of(board) if quantize == "int8" else float_kernels_of(board)


def test_boards_with_linux_say_their_caches():
    boards = {board.name: board.caches for board in list_boards() if board.family == "cortex-a"}
    assert boards["raspberry_pi_4"] == Caches(32 << 10, 1 << 20)
    assert boards["raspberry_pi_5"].last_level == 2 << 20
    assert all(caches.first_level < caches.second_level <= caches.last_level for caches in boards.values() if caches)


@pytest.mark.parametrize("quantize", ["int8", "none"])
@pytest.mark.parametrize("name", ["raspberry_pi_3", "raspberry_pi_4", "raspberry_pi_5"])
def test_few_instructions_are_spent_for_many_bytes(name, quantize):
    board = get_board(name)
    network, kernels, cost = (
        _network("mobilenet_v2_0.5_128", quantize),
        _kernels(board, quantize),
        CacheCost(board.caches),
    )
    fastest = fastest_plan(StageGraph(network, kernels), None)
    chosen = fastest_plan(graph_with_caches(network, kernels, board.caches), None)
    assert chosen.predicted_instructions <= (1 + SPENT_ON_CACHES) * fastest.predicted_instructions
    assert _bytes_cost(cost, chosen) < 0.7 * _bytes_cost(cost, fastest)
    assert chosen.arena_bytes < fastest.arena_bytes


def _bytes_cost(cost, plan):
    return sum(map(cost.of_bytes, plan.stages))


def test_the_cost_is_that_of_the_stage_in_hand():
    """Plans come and go, and so do their stages; a new one may lie where another was."""
    board, network = get_board("raspberry_pi_4"), _network("mobilenet_v2_0.35_96")
    kernels, caches = kernels_of(board), Caches(1 << 10, 4 << 10)
    stages, cost = fastest_plan(StageGraph(network, kernels), None).stages, CacheCost(caches)
    for _ in range(3):
        for stage in stages:
            assert cost(replace(stage)) == stage.instructions + CacheCost(caches).of_bytes(stage)


def test_caches_that_hold_everything_change_nothing():
    network, kernels = _network("mobilenet_v1_0.25_32"), kernels_of(get_board("raspberry_pi_4"))
    fastest = fastest_plan(StageGraph(network, kernels), None)
    chosen = fastest_plan(graph_with_caches(network, kernels, Caches(1 << 30, 1 << 30)), None)
    assert chosen.predicted_instructions == fastest.predicted_instructions


def test_a_limit_on_ram_is_kept_with_caches():
    network, kernels = _network("mobilenet_v2_0.35_96"), kernels_of(get_board("raspberry_pi_4"))
    caches = Caches(1 << 10, 4 << 10)
    free = lower_network(network, kernels=kernels, spent_on_ram=0.0, caches=caches)
    limit = (free.plan.arena_bytes + free.choices[-1].arena_bytes) // 2
    limited = lower_network(network, limit, kernels=kernels, caches=caches)
    assert limited.plan.arena_bytes <= limit
    arenas = [choice.arena_bytes for choice in free.choices]
    assert arenas == sorted(arenas, reverse=True)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    library = tmp_path_factory.mktemp("plugin") / "libcount_misses.so"
    flags = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["gcc", *flags, "-o", library, PLUGIN], check=True)
    return library


def _misses(lowered, board, plugin, folder):
    """Return the lines missed in the first and in the last cache in one inference after another."""
    folder.mkdir()
    emit_c(lowered, "net", folder, title="a network", generator="a test")
    (folder / "main.c").write_text(CALLER)
    command = [board.cross_compiler, "-static", "-O3", *board.core_flags, *sorted(folder.glob("*.c")), "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    counts = []
    for turns in (1, 2):
        out = folder / f"misses{turns}"
        levels = zip(("l1", "l2"), (board.caches.first_level, board.caches.last_level), WAYS, strict=True)
        options = [f"{level}={size},{level}ways={ways}" for level, size, ways in levels]
        emulator = ["qemu-aarch64", "-cpu", board.qemu, "-plugin", ",".join([str(plugin), *options, f"out={out}"])]
        subprocess.run([*emulator, "./program", str(turns)], cwd=folder, check=True)
        counts.append([int(count) for count in out.read_text().split()[1:]])
    return [second - first for first, second in zip(*counts, strict=True)]


@pytest.mark.emulated
@pytest.mark.needs_tools("gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64")
@pytest.mark.parametrize(
    ("model", "fewer"),
    [
        # Small networks lie in the second level whatever the plan.
        ("mobilenet_v1_0.25_128", (0.7, 1.0)),
        pytest.param("mobilenet_v2_1.0_224", (0.6, 0.5), marks=pytest.mark.slow),
    ],
)
def test_a_simulated_cache_misses_less(model, fewer, plugin, tmp_path):
    board, network = get_board("raspberry_pi_4"), _network(model)
    plans = [
        lower_network(network, kernels=kernels_of(board), spent_on_ram=0.0, caches=caches)
        for caches in (None, board.caches)
    ]
    without, with_caches = (
        _misses(lowered, board, plugin, tmp_path / name)
        for lowered, name in zip(plans, ("without", "with"), strict=True)
    )
    for lowered, missed in zip(plans, (without, with_caches), strict=True):
        print(f"{model}: arena {lowered.plan.arena_bytes:,} bytes, lines missed {missed[0]:,} and {missed[1]:,}")
    assert without[0] > 10_000
    for found, before, part in zip(with_caches, without, fewer, strict=True):
        assert found <= part * before
    assert plans[1].predicted_instructions <= (1 + SPENT_ON_CACHES) * plans[0].predicted_instructions
    tiny = replace(board, caches=Caches(4 << 10, 32 << 10))
    assert _misses(plans[0], tiny, plugin, tmp_path / "tiny")[1] > without[1]
