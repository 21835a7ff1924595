"""Plans of our own kernels: what they are to need little of, by whose records, and what a manifest says of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from thumbnet.compile.errors import CompileError
from thumbnet.compile.kernels.cycle_prices import prices_of
from thumbnet.compile.network.integer_network import IntegerNetwork
from thumbnet.compile.plan.board_plan import plan_for_board
from thumbnet.compile.plan.lowered_network import LoweredNetwork, build_stages
from thumbnet.compile.request import CompileOptions, CompileRequest, Objective
from thumbnet.compile.tuning.recorded_plan import RecordedPlan, plan_by_records, plan_by_shipped_records
from thumbnet.targets.board import Board


def objective_of(options: CompileOptions, board: Board) -> Objective:
    """Return what a board's plan is to need little of by the kernels' own estimates.

    Raises
    ------
    CompileError
        Cycles are asked for and are neither predicted nor recorded.
    """
    if prices_of(board) is not None:
        return options.objective or "cycles"
    if options.objective == "cycles" and options.tuning is None:
        raise CompileError(
            f"{board.name}: plans by predicted cycles need prices of the {board.core}, of which there are none;"
            " `thumbnet tune --objective cycles` records them for --tuning, or leave --objective cycles out"
        )
    return "instructions"


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def plan_stages(request: CompileRequest, network: IntegerNetwork) -> tuple[LoweredNetwork, RecordedPlan | None]:
    """Plan a network and build its kernels; by records where there are some.

    Raises
    ------
    CompileError
        Of the specific type: it doesn't fit, or the records that are asked for are of no use.
    """
    board, options = request.board, request.options
    request.progress("planning the layers")
    plan, choices = plan_for_board(
        network, board, options.ram_limit, streamed=options.stream_input, objective=objective_of(options, board)
    )
    if options.tuning is None:
        shipped = None
        if options.objective != "instructions" and not (options.untuned or options.stream_input):
            shipped = plan_by_shipped_records(network, board, plan)
        return build_stages(network, shipped.plan if shipped else plan, choices), shipped
    tuned = plan_by_records(
        network,
        board,
        options.tuning,
        plan,
        options.ram_limit,
        emulated=options.emulated_records,
        objective=options.objective,
        streamed=options.stream_input,
    )
    return build_stages(network, tuned.plan, choices), tuned


def stages_manifest(lowered: LoweredNetwork, tuned: RecordedPlan | None = None) -> dict[str, Any]:
    """Return what a manifest says of a plan and its stages."""
    costs = (None,) * len(lowered.stages) if tuned is None else tuned.costs
    return {
        "arena_bytes": lowered.plan.arena_bytes,
        "constant_bytes": lowered.constant_bytes,
        "predicted_instructions": round(lowered.predicted_instructions),
        "predicted_cycles": _rounded(lowered.predicted_cycles),
        "ram_choices": [asdict(choice) for choice in lowered.choices],
        **({} if tuned is None else {"tuning": tuned.as_json()}),
        "layers": [
            {
                "name": stage.name,
                "layers": [layer.name for layer in stage.layers],
                "shape": stage.output_layout.shape,
                "macs": stage.macs,
                "kernel": stage.kernel.variant,
                "predicted_instructions": round(stage.predicted_instructions),
                "predicted_cycles": _rounded(stage.predicted_cycles),
                "arena_offset": lowered.plan.offsets[stage.name],
                "layout": asdict(stage.output_layout),
                **({} if cost is None or tuned is None else {"measured": {tuned.kind: cost}}),
            }
            for stage, cost in zip(lowered.stages, costs, strict=True)
        ],
    }
