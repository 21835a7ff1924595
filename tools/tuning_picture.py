"""The picture of a search: how best plan and bound met, how right the predictions were, what was gained where."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from thumbnet.compile.tuning.tune_plan import TunedPlan
from thumbnet.tools.output import replace_file

#: Inches, and dots an inch.
_SIZE, _RESOLUTION = (15, 4.5), 110


def draw_tuning(
    file: Path, tuned: TunedPlan, *, title: str, kind: str, readings: Sequence[tuple[float, float]]
) -> None:
    """Write a PNG of a search.

    Parameters
    ----------
    file : Path
        Replaced in one step.
    tuned : TunedPlan
        The search's result.
    title : str
        Above it.
    kind : str
        What costs are: a unit.
    readings : sequence of (float, float)
        Of each stage measured: the kernels' own estimate, and its cost.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    figure.suptitle(title)
    curve, scatter, stages = figure.subplots(1, 3)
    trials = [entry.trials for entry in tuned.history]
    curve.step(trials, [entry.best for entry in tuned.history], where="post", label="best plan measured whole")
    curve.plot(trials, [entry.bound for entry in tuned.history], "--", label="what no plan is expected to beat")
    curve.axhline(tuned.history[-1].untuned, color="grey", linewidth=0.8, label="untuned")
    curve.set(xlabel="stages measured", ylabel=f"{kind} of an inference")
    if len(trials) > 1:
        curve.secondary_xaxis("top", functions=_minutes_of(tuned)).set_xlabel("minutes")
    curve.legend(fontsize="small")
    scatter.loglog(*zip(*readings, strict=True), ".", markersize=3)
    scatter.set(xlabel="predicted by the kernels for a stage", ylabel=f"{kind} measured")
    names = [stage.name for stage in tuned.best.stages]
    stages.barh(names, tuned.best_costs, label="tuned")
    stages.barh(
        [stage.name for stage in tuned.untuned.stages],
        tuned.untuned_costs,
        fill=False,
        label="untuned (a stage is named by its last layer)",
    )
    stages.invert_yaxis()
    stages.tick_params(axis="y", labelsize="x-small")
    stages.set_xlabel(kind)
    stages.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_RESOLUTION)
    replace_file(file, data.getvalue())


def _minutes_of(tuned: TunedPlan) -> tuple[Callable[[float], float], Callable[[float], float]]:
    last = tuned.history[-1]
    rate = last.trials / max(last.seconds / 60, 1e-9)
    return (lambda trials: trials / rate), (lambda minutes: minutes * rate)
