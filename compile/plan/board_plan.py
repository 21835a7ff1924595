"""The plan of a network for a board: by its kernels and its memory."""

from __future__ import annotations

from thumbnet.compile.kernels.cycle_prices import prices_of
from thumbnet.compile.kernels.instruction_sets import kernels_of
from thumbnet.compile.network.layers import Network
from thumbnet.compile.plan.cache_cost import graph_with_caches
from thumbnet.compile.plan.choose_plan import SPENT_ON_RAM, SPENT_ON_RAM_OF_LINUX, PlacedPlan, RamChoice, choose_plan
from thumbnet.compile.plan.fit import arena_limit
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.request import Objective
from thumbnet.targets.board import Board


def plan_for_board(
    network: Network,
    board: Board,
    ram_limit: int | None,
    *,
    streamed: bool = False,
    objective: Objective = "cycles",
    own_kernels: bool = True,
) -> tuple[PlacedPlan, list[RamChoice]]:
    """Return the plan that is taken where nothing was measured, and what other limits on RAM would give.

    Boards that run Linux have the RAM for nearly the fastest plan; it is their caches that are small. Without
    `own_kernels` all layers are on the portable ones.
    """
    kernels = kernels_of(board) if own_kernels else None
    if board.caches is None or streamed or kernels is None:
        graph = StageGraph(network, kernels, streamed=streamed, prices=prices_of(board), objective=objective)
    else:
        graph = graph_with_caches(network, kernels, board.caches, ram_limit)
    return choose_plan(graph, ram_limit, arena_limit(board), spent_on_ram(board))


def spent_on_ram(board: Board) -> float:
    """Return which part of the fastest plan's cost a smaller arena may cost."""
    return SPENT_ON_RAM_OF_LINUX if board.runs_linux else SPENT_ON_RAM
