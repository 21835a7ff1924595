"""`thumbnet bench`: the networks and cores other runtimes were measured on, counted the same way."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress

from thumbnet.compile.errors import explain_os_error
from thumbnet.tools.output import json_option, print_table, write_json

if TYPE_CHECKING:
    from thumbnet.targets.board import Family
    from thumbnet.tools.benchmark import Result
    from thumbnet.tools.workloads import Workload

#: Exit code where a board's answers are not the reference's.
CHECK_FAILED = 1


@click.command()
@click.option(
    "--family",
    "families",
    type=click.Choice(["cortex-m", "cortex-a"]),
    multiple=True,
    help="All boards of a family, may be repeated; cortex-m where no board is named either.",
)
@click.option("--board", "board_names", multiple=True, help="An emulated board, may be repeated.")
@click.option("--network", "networks", multiple=True, help="A network of the benchmark, may be repeated; all.")
@click.option(
    "--weights-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that may have trained weights (vww_96_int8.tflite, mobilenet_v2_1.0_224_quant.tflite); random ones"
    " stand in for what microcontrollers find missing there.",
)
@click.option("--layers/--no-layers", default=True, show_default=True, help="Print the cost of every layer too.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("build/bench"), show_default=True
)
@click.option(
    "--validate",
    "validation_table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Predict the cycles of the cases in this CSV table, print them beside the published ones, and run nothing"
    " else. A row has published_cycles, core or board, and executed instructions by class or an ELF program.",
)
@json_option
def bench(
    families: tuple[Family, ...],
    board_names: tuple[str, ...],
    networks: tuple[str, ...],
    weights_dir: Path | None,
    layers: bool,
    output: Path,
    validation_table: Path | None,
    json_file: Path | None,
) -> int:
    """Build the benchmark's networks, run them on emulated boards, and print what they cost beside other runtimes.

    Microcontrollers run each network with its dead channels kept and removed, boards with Linux (--family cortex-a)
    MobileNets of full size, some with the weights that cost most. What is counted is executed instructions, exactly,
    which is neither cycles nor time; cycles of microcontrollers are predicted from them. The artifacts and what ran are
    left in the folder OUTPUT. The exit code is 1 where a board's answers are not the reference's bytes.
    """
    if validation_table is not None:
        _validate(validation_table, json_file)
        return 0

    from thumbnet.targets.registry import get_board
    from thumbnet.tools.benchmark import BOARDS, KINDS, count_steps, emulated_device, run_benchmark
    from thumbnet.tools.cycle_output import print_basis
    from thumbnet.tools.stage_costs import print_stages

    if not families and not board_names:
        families = ("cortex-m",)
    names = [*(name for family in families for name in BOARDS[family]), *board_names]
    boards = [get_board(name) for name in dict.fromkeys(names)]
    for board in boards:
        emulated_device(board)  # before the first long build
    workloads = _choose_workloads({board.family for board in boards}, networks, weights_dir)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(explain_os_error(error, output)) from error
    results: list[Result] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=count_steps(boards, workloads, weights_dir))
        steps = run_benchmark(
            boards,
            output,
            weights_dir=weights_dir,
            workloads=workloads,
            progress=lambda step: progress.update(task, advance=1, description=step),
        )
        results.extend(steps)
    if layers:
        for result in results:
            title = f"{_title(result)}: instructions of one inference (exact)"
            print_stages(title, result.stages, result.whole, result.cycles)
    rivals = _print_results(results)
    print_basis((result.board.core, result.cycles, result.unpredicted_because) for result in results)
    for name, kind in KINDS.items():
        click.echo(f"{name}: {kind}")
    click.echo(f"The networks, and the ELF files that ran, are in {output}.")
    write_json(json_file, [result.as_json(best) for result, best in zip(results, rivals, strict=True)])
    return 0 if all(result.equal_to_reference for result in results) else CHECK_FAILED


def _validate(table: Path, json_file: Path | None) -> None:
    from thumbnet.runtime_tests.mcu.cycle_validation import validate_cycles
    from thumbnet.tools.cycle_output import print_validation

    write_json(json_file, print_validation(table.name, list(validate_cycles(table))))


def _choose_workloads(families: set[Family], networks: Sequence[str], weights_dir: Path | None) -> list[Workload]:
    """Return the workloads of these families, those of these names where any are named."""
    from thumbnet.tools.workloads import WORKLOADS

    workloads = [workload for workload in WORKLOADS if workload.family in families]
    known = list(dict.fromkeys(workload.network for workload in workloads))
    for network in networks:
        if network not in known:
            on = " and ".join(sorted(families))
            raise click.BadParameter(f"{network} is not in the benchmark of {on}; known: {', '.join(known)}")
    chosen = [workload for workload in workloads if not networks or workload.network in networks]
    for workload in chosen if networks else []:
        if not workload.runs(weights_dir):
            raise click.UsageError(
                f"{workload.network} is run with its trained weights only; --weights-dir FOLDER with"
                f" {workload.weights_file} in it gives them"
            )
    return chosen


def _title(result: Result) -> str:
    return (
        f"{result.network} ({result.weights} weights), dead channels {result.dead_channels},"
        f" on {result.board.name} ({result.board.core})"
    )


def _print_results(results: Sequence[Result]) -> list[dict[str, Any] | None]:
    """Print each result beside its rivals, and return its best rival, None where it has none."""
    from thumbnet.tools.benchmark import load_rivals, rivals_of

    rivals = load_rivals()
    rows: list[Sequence[object]] = []
    best: list[dict[str, Any] | None] = []
    for result in results:
        found = rivals_of(result, rivals)
        rows.append(_own_row(result))
        rows.extend(_rival_row(result, rival) for rival in found)
        best.append(found[0] if found else None)
    print_table(
        "One inference, int8, batch 1, memory in bytes; other runtimes as in tools/rivals.json, with sources",
        [
            "network",
            "weights",
            "dead channels",
            "core",
            "runtime",
            "instructions",
            "per MAC",
            "cycles (predicted)",
            "to thumbnet",
            "RAM: arena",
            "RAM: stack, worst case",
            "flash: image",
            "flash: network",
            "right bytes",
        ],
        rows,
    )
    return best


def _own_row(result: Result) -> Sequence[object]:
    from thumbnet.tools.stage_costs import per_mac

    return (
        result.network,
        result.weights,
        result.dead_channels,
        result.board.core,
        "thumbnet",
        result.instructions,
        per_mac(result.instructions, result.macs),
        None if result.cycles is None else round(result.cycles.cycles),
        None,
        result.arena_bytes,
        result.stack_bytes,
        result.flash_bytes,
        result.network_flash_bytes,
        result.equal_to_reference,
    )


def _rival_row(result: Result, rival: dict[str, Any]) -> Sequence[object]:
    from thumbnet.tools.stage_costs import per_mac

    return (
        "",
        "",
        "",
        rival["core"],
        rival["runtime"],
        rival["instructions"],
        per_mac(rival["instructions"], result.macs),
        None,
        f"{rival['instructions'] / result.instructions:.2f}x",
        rival["ram_bytes"],
        None,
        rival["flash_bytes"],
        None,
        rival["equal_to_tflite"],
    )
