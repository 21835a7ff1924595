"""`thumbnet bench`: the networks and cores other runtimes were measured on, measured the same way."""

# ruff: noqa: PLC0415, PLR0917 - heavy imports sit in the function, so that --help is there at once

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thumbnet.compile.errors import explain_os_error
from thumbnet.tools.benchmark_tables import describe, print_results
from thumbnet.tools.output import json_option, write_json
from thumbnet.tools.progress import show_steps

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
    type=click.Choice(["cortex-m", "cortex-a", "host"]),
    multiple=True,
    help="All emulated boards of a family, or this computer; may be repeated; cortex-m where no board is named either.",
)
@click.option("--board", "board_names", multiple=True, help="An emulated board, or host; may be repeated.")
@click.option(
    "--network",
    "networks",
    multiple=True,
    help="One of the benchmark, or any other name of `thumbnet models`; may be repeated; all of the benchmark.",
)
@click.option(
    "--weights-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder that may have trained weights (vww_96_int8.tflite, mobilenet_v2_1.0_224_quant.tflite); random ones"
    " stand in for what microcontrollers find missing there.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=64),
    multiple=True,
    default=(1,),
    show_default="1",
    help="Cortex-A: threads that share an inference, may be repeated, a row each.",
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
    threads: tuple[int, ...],
    layers: bool,
    output: Path,
    validation_table: Path | None,
    json_file: Path | None,
) -> int:
    """Build the benchmark's networks, run them on emulated boards, and print what they cost beside other runtimes.

    Microcontrollers run each network with its dead channels kept and removed, boards with Linux (--family cortex-a)
    MobileNets of full size, in int8 and float32, some with the weights that cost most. What is counted is executed
    instructions, exactly, which is neither cycles nor time; cycles are predicted from them. --family host takes the
    time on this computer instead, in turns with ONNX Runtime where it is installed. The artifacts and what ran are left
    in the folder OUTPUT. Where the answers are not the reference's a row has no cost, and the exit code is 1.
    """
    if validation_table is not None:
        _validate(validation_table, json_file)
        return 0

    from thumbnet.targets.registry import get_board
    from thumbnet.tools.benchmark import BOARDS, benchmark_device, count_results, run_benchmark

    if not families and not board_names:
        families = ("cortex-m",)
    names = [*(name for family in families for name in BOARDS[family]), *board_names]
    boards = [get_board(name) for name in dict.fromkeys(names)]
    for board in boards:
        benchmark_device(board)  # before the first long build
    threads = tuple(dict.fromkeys(threads))
    _check_threads({board.family for board in boards}, threads)
    workloads = _choose_workloads({board.family for board in boards}, networks, weights_dir)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(explain_os_error(error, output)) from error
    results: list[Result] = []
    total = count_results(boards, workloads, weights_dir, threads)
    try:
        with show_steps("benchmark", total) as display:
            for result in run_benchmark(
                boards, output, weights_dir=weights_dir, workloads=workloads, threads=threads, progress=display.step
            ):
                results.append(result)
                display.advance()
    finally:
        # What was measured before a device failed, or Ctrl-C, took minutes.
        if results:
            _report(results, output, json_file, layers=layers)
    return 0 if all(result.right for result in results) else CHECK_FAILED


def _report(results: Sequence[Result], output: Path, json_file: Path | None, *, layers: bool) -> None:
    from thumbnet.tools.benchmark import KINDS
    from thumbnet.tools.cycle_output import print_basis

    if layers:
        _print_layers(results)
    rivals = print_results(results)
    print_basis((result.board.core, result.cycles, result.unpredicted_because) for result in results)
    rows = [result.as_json(best) for result, best in zip(results, rivals, strict=True)]
    for name in dict.fromkeys(name for name in KINDS for row in rows if name in row):
        click.echo(f"{name}: {KINDS[name]}")
    click.echo(f"The networks, and what ran, are in {output}.")
    write_json(json_file, rows)


def _check_threads(families: set[Family], threads: Sequence[int]) -> None:
    """Refuse threads where networks run in one, before the first long build."""
    alone = sorted(families - {"cortex-a"})
    if alone and max(threads) > 1:
        raise click.UsageError(
            f"--threads {max(threads)}: networks of {' and '.join(alone)} run in one thread; give it with --family"
            " cortex-a alone"
        )


def _print_layers(results: Sequence[Result]) -> None:
    from thumbnet.tools.stage_costs import print_stages

    for result in results:
        what = f"{result.whole.kind} of one inference ({result.whole.certainty})"
        if result.right:
            print_stages(f"{describe(result)}: {what}", result.stages, result.whole, result.cycles)


def _validate(table: Path, json_file: Path | None) -> None:
    from thumbnet.runtime_tests.mcu.cycle_validation import validate_cycles
    from thumbnet.tools.cycle_output import print_validation

    write_json(json_file, print_validation(table.name, list(validate_cycles(table))))


def _choose_workloads(families: set[Family], networks: Sequence[str], weights_dir: Path | None) -> list[Workload]:
    """Return the workloads of these families, or those of these names, which other networks may have too."""
    from thumbnet.models.errors import UnknownModelError
    from thumbnet.models.variants import get_spec
    from thumbnet.tools.workloads import WORKLOADS, Workload

    workloads = [workload for workload in WORKLOADS if workload.family in families]
    known = list(dict.fromkeys(workload.network for workload in workloads))
    for name in dict.fromkeys(networks):
        if name not in known:
            try:
                spec = get_spec(name)
            except UnknownModelError as error:
                on = " and ".join(sorted(families))
                raise click.BadParameter(
                    f"{name} is not in the benchmark of {on}; known: {', '.join(known)}, and all of `thumbnet models`"
                ) from error
            workloads += [Workload(name, name, spec.classes, family=family) for family in sorted(families)]
    chosen = [workload for workload in workloads if not networks or workload.network in networks]
    for workload in chosen if networks else []:
        if not workload.runs(weights_dir):
            raise click.UsageError(
                f"{workload.network} is run with its trained weights only; --weights-dir FOLDER with"
                f" {workload.weights_file} in it gives them"
            )
    return chosen
