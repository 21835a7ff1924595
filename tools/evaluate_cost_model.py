"""Show what the cost model of searches is worth, on networks that it was not trained on.

`python -m thumbnet.tools.evaluate_cost_model ranks FOLDER` prints how well it ranks stages that compete, beside the
analytical estimate; `... search RECORDS --device D --network N` how many trials a search takes with it and without.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.tuning.cost_model import (
    ABOVE,
    BELOW,
    UNTRAINED_BAND,
    LearnedCostModel,
    RatioModel,
    left_out_errors,
    widening,
)
from thumbnet.compile.tuning.plan_search import Estimate, StageCostModel
from thumbnet.compile.tuning.stage_samples import StageSamples, load_samples, load_seeds
from thumbnet.targets.board import Board
from thumbnet.targets.devices import get_device
from thumbnet.tools.output import print_table
from thumbnet.tools.stage_sampling import BOARDS, emulated, measure_recorded, random_network
from thumbnet.tools.tune_stages import BATCH, StageTuning, default_objective, kind_of, open_search, prepare_stages

#: Differences of cost below this part are taken for none: searches gain nothing by them.
_EQUAL = 0.003
_NEAR = (0.01, 0.002, 0.0)


@dataclass(frozen=True)
class Ranking:
    """How well predicted costs rank stages that compete: same layers, from and to the same layouts.

    Parameters
    ----------
    groups : int
        Sets of at least two stages that compete.
    spearman : float
        Rank correlation, the mean over those of at least three.
    right_pairs : float
        Part of their pairs, of costs that differ, that are in the right order.
    regret : float
        By what part the stage predicted to be the cheapest costs more than the cheapest, the mean.
    """

    groups: int
    spearman: float
    right_pairs: float
    regret: float


def rank(predicted: NDArray[np.float64], costs: NDArray[np.float64], node_pairs: NDArray[np.int32]) -> Ranking:
    """Compare predicted costs ``[n]`` with measured ones ``[n]``, among stages ``[n]`` of the same node pair."""
    correlations, regrets, right, pairs = [], [], 0, 0
    for node_pair in np.unique(node_pairs):
        (of_pair,) = np.nonzero(node_pairs == node_pair)
        if len(of_pair) < 2:
            continue
        guess, cost = predicted[of_pair], costs[of_pair]
        regrets.append(cost[guess.argmin()] / cost.min() - 1)
        first, second = np.triu_indices(len(cost), 1)
        differs = np.abs(np.log(cost[first] / cost[second])) > _EQUAL
        pairs += int(np.count_nonzero(differs))
        right += int(np.count_nonzero(((cost[first] < cost[second]) == (guess[first] < guess[second]))[differs]))
        if len(of_pair) > 2 and np.ptp(guess) > 0 and np.ptp(cost) > 0:
            correlations.append(spearmanr(guess, cost).statistic)
    return Ranking(len(regrets), float(np.mean(correlations)), right / pairs, float(np.mean(regrets)))


@dataclass(frozen=True)
class HeldOut:
    """A model trained on seeds alone, on a network it was not trained on.

    Parameters
    ----------
    network : str
        Its name.
    stages : int
        How many were measured; the few that are equal to a seed, as classifiers of the same width are, are left out.
    estimate, model : Ranking
        By the analytical estimate, and by the model's median.
    estimate_error, model_error : float
        By what part a stage costs more or less than expected, the median: than the estimate times the seeds' median
        ratio, and than the model's median.
    below, above : float
        Parts of the stages that cost less than the low end of the model's band, and more than its high end.
    band : float
        High over low end, the median.
    """

    network: str
    stages: int
    estimate: Ranking
    model: Ranking
    estimate_error: float
    model_error: float
    below: float
    above: float
    band: float


def evaluate_held_out(seeds: StageSamples, held_out: StageSamples) -> list[HeldOut]:
    """Return for each network held out how a model trained on `seeds` does on it."""
    weights = np.ones(len(seeds.costs))
    model = RatioModel.fit(seeds.features, seeds.log_ratios, weights)
    wider = widening(left_out_errors(seeds.features, seeds.log_ratios, weights, seeds.networks))
    known = {row.tobytes() for row in seeds.features}
    results = []
    for name in held_out.names:
        samples = held_out.of(name)
        samples = samples.at([row.tobytes() not in known for row in samples.features])
        low, typical, high = (model.predict(samples.features) + wider).T
        results.append(
            HeldOut(
                network=name,
                stages=len(samples.costs),
                estimate=rank(samples.estimates, samples.costs, samples.node_pairs),
                model=rank(samples.estimates * np.exp(typical), samples.costs, samples.node_pairs),
                estimate_error=_error(samples.log_ratios - np.median(seeds.log_ratios)),
                model_error=_error(samples.log_ratios - typical),
                below=float(np.mean(samples.log_ratios < low)),
                above=float(np.mean(samples.log_ratios > high)),
                band=float(np.median(np.exp(high - low))),
            )
        )
    return results


def _error(log_ratios: NDArray[np.float64]) -> float:
    return float(np.expm1(np.median(np.abs(log_ratios))))


class EstimateAlone:
    """A `StageCostModel` without learning but of one number: stages cost their estimates times the ratios seen."""

    def __init__(self) -> None:
        self._ratios: list[float] = []

    def estimate(self, stage: StagePlan) -> Estimate:
        """Return the least, the middle and the largest ratio so far, times the estimate."""
        ratios = np.quantile(self._ratios, (0.0, 0.5, 1.0)) if self._ratios else np.array(UNTRAINED_BAND)
        low, typical, high = ratios * stage.cost
        return Estimate(float(low), float(typical), float(high))

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> None:
        """Take the stages' ratios into account."""
        self._ratios += [cost / stage.cost for stage, cost in zip(stages, costs, strict=True)]


@dataclass(frozen=True)
class SearchRun:
    """One search to its end.

    Parameters
    ----------
    history : list of (int, float)
        After each batch, the stages measured so far and the cost of the best plan measured whole.
    thinking_s : float
        Seconds that weren't spent on measuring.
    proven : bool
        Whether it proposed nothing more, before its trials were used up.
    """

    history: list[tuple[int, float]]
    thinking_s: float
    proven: bool

    @property
    def cost(self) -> float:
        """Of the best plan."""
        return self.history[-1][1]

    def trials_to(self, cost: float) -> int | None:
        """Return how many stages were measured when a plan of no more than `cost` was known; None if there was none."""
        return next((trials for trials, best in self.history if best <= cost), None)


def run_search(
    tuning: StageTuning,
    board: Board,
    model: StageCostModel,
    measure: Callable[[dict[str, StagePlan]], Sequence[float]],
    *,
    batch: int,
    most_trials: int,
) -> SearchRun:
    """Search with one model until it proposes nothing more, or has used up its trials.

    Parameters
    ----------
    tuning, board
        What is searched for, and where.
    model : StageCostModel
        Nothing learned yet but from seeds.
    measure : callable
        Given stages by key, returns their costs in order.
    batch : int
        Stages measured at a time.
    most_trials : int
        After which nothing more is measured.
    """
    search = open_search(tuning, board, model=model, measured={})
    history: list[tuple[int, float]] = []
    trials, thinking_s = 0, 0.0
    stages = search.await_unknown(tuning.untuned.stages)
    while stages and trials < most_trials:
        costs = measure({search.key(stage): stage for stage in stages})
        trials += len(stages)
        started = time.monotonic()
        search.learn(stages, costs)
        best = search.best_known_plan()
        history.append((trials, math.inf if best is None else sum(search.costs_of(best))))
        stages = search.propose(batch)
        thinking_s += time.monotonic() - started
    return SearchRun(history, thinking_s, proven=not stages)


@click.group()
def evaluate() -> None:
    """Show what the cost model of searches is worth."""


@evaluate.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def ranks(folder: Path) -> None:
    """Print how well a model trained on the package's seeds ranks the stages in FOLDER, of networks it has not seen.

    `python -m thumbnet.tools.seed_records RECORDS --held-out -o FOLDER` measures them.
    """
    rows = []
    for file in sorted(folder.glob("*.npz")):
        held_out = load_samples(file)
        seeds = load_seeds(held_out.core, held_out.kind)
        if seeds is None:
            raise click.ClickException(f"{file}: there are no seeds of the {held_out.core} in {held_out.kind}")
        for result in evaluate_held_out(seeds, held_out):
            pairs = [(getattr(result.estimate, name), getattr(result.model, name)) for name in _RANKINGS]
            numbers = [
                format(value, _RANKINGS[name]) for name, pair in zip(_RANKINGS, pairs, strict=True) for value in pair
            ]
            numbers += [f"{result.estimate_error:.1%}", f"{result.model_error:.1%}"]
            band = [f"{result.below:.0%}", f"{result.above:.0%}", f"{result.band:.3f}"]
            rows.append(
                (held_out.core, held_out.kind, result.network, result.stages, result.model.groups, *numbers, *band)
            )
    headings = [f"{name} {by}" for name in ("Spearman,", "pairs,", "regret,", "error,") for by in ("estimate", "model")]
    print_table(
        f"Ranking of stages that compete; {BELOW:.0%} should lie below the band, and {ABOVE:.0%} above",
        ["core", "kind", "network", "stages", "groups", *headings, "below", "above", "band"],
        rows,
    )


_RANKINGS = {"spearman": ".3f", "right_pairs": ".1%", "regret": ".2%"}


@evaluate.command("search")
@click.argument("records", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", "device_name", required=True, help="An emulated board with seeds.")
@click.option("--network", "model", required=True, help="A network that no seed is of, see `thumbnet models`.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=BATCH, show_default=True, help="Stages measured at a time."
)
@click.option("--trials", type=click.IntRange(min=1), default=1000, show_default=True, help="Stages a search at most.")
def search_command(records: Path, device_name: str, model: str, batch: int, trials: int) -> None:
    """Search the best plan of a network with random weights on an emulated board, with the cost model and without.

    Each stage measured is kept in the folder RECORDS, and measured once for all searches.
    """
    device = get_device(device_name)
    board, objective = device.board, default_objective(device)
    if device != emulated(board) or board.name not in BOARDS:
        raise click.BadParameter(f"{device_name} has no seeds; there are some for {', '.join(BOARDS)}, emulated")
    kind = kind_of(objective, device)
    seeds = load_seeds(board.core, kind)
    if seeds is not None and model in seeds.names:
        raise click.BadParameter(f"{model} is among the seeds; name another network")
    tuning = prepare_stages(random_network(model, board), objective)
    models: dict[str, StageCostModel] = {
        "estimate alone": EstimateAlone(),
        "learned, no seeds": LearnedCostModel(),
        "learned, seeds": LearnedCostModel(seeds),
    }
    runs = {
        name: run_search(
            tuning,
            board,
            used,
            lambda stages: measure_recorded(tuning, device, stages, records),
            batch=batch,
            most_trials=trials,
        )
        for name, used in models.items()
    }
    best = min(run.cost for run in runs.values())
    untuned = next(iter(runs.values())).history[0][1]
    print_table(
        f"{model} on {device_name}, {kind}: {untuned:,.0f} untuned, {best:,.0f} the best any search found",
        [
            "model",
            *(f"trials to {part:.1%}" for part in _NEAR),
            "trials to the end",
            "behind the best",
            "seconds of its own",
        ],
        [
            (
                name,
                *(run.trials_to(best * (1 + part)) for part in _NEAR),
                run.history[-1][0] if run.proven else f"more than {run.history[-1][0]}",
                f"{run.cost / best - 1:.3%}",
                f"{run.thinking_s:.1f}",
            )
            for name, run in runs.items()
        ],
    )


if __name__ == "__main__":
    evaluate()
