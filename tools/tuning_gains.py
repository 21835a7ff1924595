"""Show what tuning of plans gains on emulated boards, and how near random trials come to it.

`python -m thumbnet.tools.tuning_gains RECORDS --device D --network N` tunes, then measures ten times as many stages of
random plans and takes the best plan that these make.
"""

# ruff: noqa: PLR0917 - click gives arguments by name

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from thumbnet.compile.tuning.cost_model import model_of_core
from thumbnet.compile.tuning.stage_record import CostKind
from thumbnet.compile.tuning.stage_records import opened_stage_records
from thumbnet.runtime_tests.measure_stages import Objective
from thumbnet.targets.device import Device
from thumbnet.targets.devices import get_device
from thumbnet.tools.output import json_option, print_table, write_json
from thumbnet.tools.progress import show_steps
from thumbnet.tools.stage_sampling import BOARDS, emulated, measure_recorded, random_network, sample_stages
from thumbnet.tools.tune_stages import (
    StageTuning,
    default_objective,
    kind_of,
    make_record,
    open_search,
    prepare_stages,
    tune_stages,
)

NETWORKS = ("vww_96", "mobilenet_v2_0.35_96", "mobilenet_v2_1.0_224")


@dataclass(frozen=True)
class TuningGain:
    """What tuning gained, beside random trials.

    Parameters
    ----------
    device, network : str
        Where, and what.
    kind : str
        What costs are.
    untuned, tuned : float
        Cost of the plan without tuning, and of the best one found.
    trials : int
        Stages measured.
    minutes : float
        That this took.
    end : str
        See `tune_plan.TunedPlan`.
    random_trials : int
        Stages of random plans measured.
    random : float
        Cost of the best plan that can be made of these.
    """

    device: str
    network: str
    kind: CostKind
    untuned: float
    tuned: float
    trials: int
    minutes: float
    end: str
    random_trials: int
    random: float


def measure_gain(
    model: str, device: Device, objective: Objective, folder: Path, *, times: int, minutes: float
) -> TuningGain:
    """Tune a network with random weights on an emulated board, then try random plans.

    Parameters
    ----------
    model : str
        Its name, see `thumbnet models`.
    device : Device
        The emulated board.
    objective : {"cycles", "instructions"}
        What is kept low.
    folder : Path
        Where records are kept. None of them is used to tune.
    times : int
        Random trials for each of the search.
    minutes : float
        The search's limit of time.

    Raises
    ------
    SessionError, ToolchainError, TuningError
        The board can't be emulated; the folder can't be used.
    """
    kind = kind_of(objective, device)
    tuning = prepare_stages(random_network(model, device.board), objective)
    with opened_stage_records(folder) as recorder:
        tuned = tune_stages(
            tuning,
            [device],
            model=model_of_core(device.board.core, kind, ()),
            measured={},
            on_reading=lambda stage, reading: recorder.add(make_record(stage, reading)),
            trials=100_000,
            time_limit_s=60 * minutes,
        )
    last = tuned.history[-1]
    random_trials, random = _best_of_random(tuning, device, folder, times * last.trials)
    return TuningGain(
        device=device.name,
        network=model,
        kind=kind,
        untuned=sum(tuned.untuned_costs),
        tuned=sum(tuned.best_costs),
        trials=last.trials,
        minutes=last.seconds / 60,
        end=tuned.end,
        random_trials=random_trials,
        random=random,
    )


def _best_of_random(tuning: StageTuning, device: Device, folder: Path, trials: int) -> tuple[int, float]:
    """Return how many stages of random plans there were, at most `trials`, and what the best plan of them costs."""
    stages = sample_stages(tuning, device.board, trials, limited=True)
    with show_steps(f"random trials on {device.name}", -(-len(stages) // 32)) as shown:
        costs = measure_recorded(tuning, device, stages, folder, lambda _: shown.advance())
    measured = dict(zip(stages, costs, strict=True))
    model = model_of_core(device.board.core, kind_of(tuning.objective, device), ())
    search = open_search(tuning, device.board, model=model, measured=measured)
    best = search.best_known_plan()
    return len(stages), math.inf if best is None else sum(search.costs_of(best))


@click.command()
@click.argument("records", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", "names", required=True, multiple=True, help="An emulated board; may be repeated.")
@click.option("--network", "models", multiple=True, help=f"May be repeated; {', '.join(NETWORKS)}.")
@click.option("--objective", type=click.Choice(["cycles", "instructions"]), help="The board's default.")
@click.option(
    "--times", type=click.IntRange(min=1), default=10, show_default=True, help="Random trials for each trial."
)
@click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True), default=60, show_default=True, help="Minutes a search."
)
@json_option
def tuning_gains(
    records: Path,
    names: tuple[str, ...],
    models: tuple[str, ...],
    objective: Objective | None,
    times: int,
    time_limit: float,
    json_file: Path | None,
) -> None:
    """Tune networks with random weights on emulated boards, and print what that gains beside random trials.

    Every stage measured is kept in the folder RECORDS, one folder in it a device and network; a search starts without.
    """
    devices = [get_device(name) for name in names]
    for device in devices:
        if device != emulated(device.board) or device.board.name not in BOARDS:
            raise click.BadParameter(f"{device.name}: there are seeds for {', '.join(BOARDS)}, emulated")
    gains = []
    for device in devices:
        for model in models or NETWORKS:
            folder = records / f"{device.board.name}-{model}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            wanted = objective or default_objective(device)
            gains.append(measure_gain(model, device, wanted, folder, times=times, minutes=time_limit))
            _print(gains)
    write_json(json_file, {"gains": [asdict(gain) for gain in gains]})


def _print(gains: list[TuningGain]) -> None:
    print_table(
        "What tuning gains, and the best plan of random trials",
        [
            *("device", "network", "kind", "untuned", "tuned", "gain", "trials", "minutes", "end"),
            *("random trials", "best of them", "behind tuned"),
        ],
        [
            (
                gain.device,
                gain.network,
                gain.kind,
                f"{gain.untuned:,.0f}",
                f"{gain.tuned:,.0f}",
                f"{1 - gain.tuned / gain.untuned:.1%}",
                gain.trials,
                f"{gain.minutes:.1f}",
                gain.end,
                gain.random_trials,
                f"{gain.random:,.0f}",
                f"{gain.random / gain.tuned - 1:.2%}",
            )
            for gain in gains
        ],
    )


if __name__ == "__main__":
    tuning_gains()
