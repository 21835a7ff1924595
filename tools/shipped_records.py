"""Tune the bundled networks on emulated boards: what `thumbnet compile` takes for them without `--tuning`.

To be run after a change of the kernels, whose older records count no more::

    python -m thumbnet.tools.shipped_records RECORDS
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from thumbnet.compile.request import CompileOptions
from thumbnet.compile.tuning.cost_model import model_of_core
from thumbnet.compile.tuning.record_folder import STAGES
from thumbnet.compile.tuning.recorded_plan import SHIPPED
from thumbnet.compile.tuning.stage_key import key_of
from thumbnet.compile.tuning.stage_record import CostKind, StageRecord, encode_record
from thumbnet.compile.tuning.stage_records import (
    measured_costs,
    newest_records,
    opened_stage_records,
    read_stage_records,
)
from thumbnet.compile.tuning.tune_plan import TunedPlan
from thumbnet.models.variants import BUNDLED
from thumbnet.targets.board import Board
from thumbnet.targets.registry import get_board
from thumbnet.tools.network import make_request
from thumbnet.tools.network_options import NetworkFiles
from thumbnet.tools.output import print_table, replace_file
from thumbnet.tools.stage_sampling import emulated
from thumbnet.tools.tune_stages import make_record, prepare_stages, tune_stages

BOARDS = ("mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547")
_KIND: CostKind = "predicted cycles"


def tune_bundled(model: str, board: Board, folder: Path, *, keep_dead_channels: bool) -> TunedPlan:
    """Search for a bundled network's best plan on our own kernels; records are kept in a folder, and used again.

    Raises
    ------
    SessionError, ToolchainError, TuningError
        The board can't be emulated; the folder can't be used.
    """
    device = emulated(board)
    options = CompileOptions(keep_dead_channels=keep_dead_channels)
    tuning = prepare_stages(make_request(NetworkFiles(model), board, options), "cycles")
    with opened_stage_records(folder) as recorder:
        measured = measured_costs(read_stage_records(folder), core=board.core, kind=_KIND, emulated=True)
        return tune_stages(
            tuning,
            [device],
            model=model_of_core(board.core, _KIND, ()),
            measured=measured,
            on_reading=lambda stage, reading: recorder.add(make_record(stage, reading)),
            trials=100_000,
            time_limit_s=float("inf"),
        )


def records_of_plans(tuned: TunedPlan, board: Board, folder: Path) -> list[StageRecord]:
    """Return the records of what a plan by records needs: the stages of the best plan, and of that without tuning.

    Features, which only models read, are left out.
    """
    newest = newest_records(read_stage_records(folder), core=board.core, kind=_KIND, emulated=True, board=board.name)
    keys = dict.fromkeys(key_of(stage) for plan in (tuned.untuned, tuned.best) for stage in plan.stages)
    return [newest[key].model_copy(update={"features": None}) for key in keys]


def encode_records(records: Iterable[StageRecord]) -> bytes:
    """Return the content of a file of records, each stage once a board: cores that share kernels share keys."""
    return b"".join(map(encode_record, {(record.board, record.key): record for record in records}.values()))


@click.command()
@click.argument("records", type=click.Path(path_type=Path, file_okay=False))
@click.option("--board", "boards", multiple=True, type=click.Choice(BOARDS), help="May be repeated; all four.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=SHIPPED,
    help="Folder the file is written to; in the package.",
)
def shipped_records(records: Path, boards: tuple[str, ...], output: Path) -> None:
    """Tune the bundled networks on emulated boards, with dead channels removed and kept.

    All that is measured is kept in the folder RECORDS: a run that was stopped goes on where it was.
    """
    rows: list[tuple[object, ...]] = []
    found: list[StageRecord] = []
    for board in map(get_board, boards or BOARDS):
        for spec in BUNDLED:
            for keep in (False, True):
                tuned = tune_bundled(spec.name, board, records, keep_dead_channels=keep)
                found += records_of_plans(tuned, board, records)
                untuned, best = sum(tuned.untuned_costs), sum(tuned.best_costs)
                channels = "kept" if keep else "removed"
                gain = f"{1 - best / untuned:.1%}"
                rows.append((spec.name, board.name, channels, f"{untuned:,.0f}", f"{best:,.0f}", gain))
    replace_file(output / STAGES, encode_records(found))
    print_table(
        "Bundled networks on emulated boards, predicted cycles",
        ["network", "board", "dead channels", "untuned", "tuned", "gain"],
        rows,
    )


if __name__ == "__main__":
    shipped_records()
