"""Measure stages of random networks on emulated boards: what the cost model of a search starts from.

To be run after a change of the kernels::

    python -m thumbnet.tools.seed_records RECORDS
    python -m thumbnet.tools.seed_records RECORDS --held-out -o tests/compile/tuning/held_out

The first makes the files of the package anew, the second those of networks that the model is tested with.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from thumbnet.compile.tuning.stage_samples import SEEDS, encode_samples, samples_file
from thumbnet.targets.registry import get_board
from thumbnet.tools.output import print_table, replace_file
from thumbnet.tools.stage_sampling import BOARDS, HELD_OUT_NETWORKS, OBJECTIVES, SEED_NETWORKS, measure_samples


@click.command()
@click.argument("records", type=click.Path(path_type=Path, file_okay=False))
@click.option("--board", "boards", multiple=True, type=click.Choice(BOARDS), help="May be repeated; all five.")
@click.option("--stages", type=click.IntRange(min=10), default=80, show_default=True, help="Stages of each network.")
@click.option("--held-out", is_flag=True, help="Measure the networks that no seed is of.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=SEEDS,
    help="Where the files are written; into the package.",
)
def seed_records(records: Path, boards: tuple[str, ...], stages: int, held_out: bool, output: Path) -> None:
    """Measure stages of networks with random weights on emulated boards, one file a core and kind of cost.

    Each stage measured is kept in the folder RECORDS: a run that was stopped goes on where it was.
    """
    networks = HELD_OUT_NETWORKS if held_out else SEED_NETWORKS
    chosen = [get_board(name) for name in boards or BOARDS]
    pairs = [(board, objective) for board in chosen for objective in OBJECTIVES[board.family]]
    rows: list[tuple[object, ...]] = []
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for board, objective in pairs:
            models = networks[board.family]
            task = progress.add_task(board.core, total=stages * len(models))
            samples = measure_samples(
                *(board, objective, models), count=stages, folder=records, on_measured=partial(progress.advance, task)
            )
            file, content = output / samples_file(samples.core, samples.kind), encode_samples(samples)
            replace_file(file, content)
            rows.append((samples.core, samples.kind, len(models), len(samples.costs), len(content), str(file)))
    print_table("Measured stages", ["core", "kind", "networks", "stages", "bytes", "file"], rows)


if __name__ == "__main__":
    seed_records()
