"""What each stage of a network costs on a device, with what is known of it: layers, MACs, kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from thumbnet.compile.artifact import Artifact
from thumbnet.runtime_tests.cycles.predict import CyclePrediction
from thumbnet.runtime_tests.session import DeviceSession, Measurement, MeasurementKind
from thumbnet.tools.output import print_table

#: How a kind stands above its column, by what its values are multiplied there, and the digits shown.
_COLUMNS: dict[MeasurementKind, tuple[str, float, int | None]] = {
    "instructions": ("instructions", 1, None),
    "cycles": ("cycles", 1, None),
    "seconds on the board": ("microseconds on the board", 1e6, 1),
}


@dataclass(frozen=True)
class StageCost:
    """One stage (a layer, or layers computed together) in one inference.

    Parameters
    ----------
    name : str
        The stage's: that of its last layer.
    layers : tuple of str
        All its layers; empty for a kernel that belongs to no layer.
    kernel : str
        What computes it.
    macs : int or None
        Multiply-accumulates; None where unknown.
    kind : {"instructions", "cycles", "seconds on the board"}
        What `cost` is.
    cost : float
        Of this stage alone: the middle one of `samples`.
    error : float
        Largest error of `cost`; 0 means exact.
    predicted_cycles : float or None
        Beside it, by a model of the core; None where there is none.
    samples : tuple of float
        What it cost in each inference, in the order taken.
    """

    name: str
    layers: tuple[str, ...]
    kernel: str
    macs: int | None
    kind: MeasurementKind
    cost: float
    error: float
    predicted_cycles: float | None = None
    samples: tuple[float, ...] = ()

    @property
    def cost_per_mac(self) -> float | None:
        """`cost` per multiply-accumulate, None where there are none."""
        return self.cost / self.macs if self.macs else None

    def as_json(self) -> dict[str, Any]:
        """Return the fields for a JSON file; the cost stands under its kind, see `cost_fields`."""
        return {
            "name": self.name,
            "layers": list(self.layers),
            "kernel": self.kernel,
            "macs": self.macs,
            **cost_fields(self.kind, self.cost),
            "error": self.error,
            "samples": list(self.samples),
            "predicted_cycles": None if self.predicted_cycles is None else round(self.predicted_cycles),
        }


def cost_fields(kind: MeasurementKind, cost: float) -> dict[str, float | int]:
    """Return a cost under the name of its kind: ``instructions`` and ``cycles`` whole, ``seconds``."""
    return {"seconds": cost} if kind == "seconds on the board" else {kind: round(cost)}


def profile_stages(
    artifact: Artifact,
    session: DeviceSession,
    image: NDArray[Any],
    cycles: CyclePrediction | None = None,
    repeat: int = 1,
) -> list[StageCost]:
    """Run inferences of a loaded artifact and return what each stage cost, in order of execution.

    `cycles` are what the session predicts, if it does; `repeat` is how many inferences are run, of which each stage's
    middle cost is given.

    Raises
    ------
    SessionError
        The device fails.
    """
    manifest = artifact.manifest
    entries = {entry["name"]: entry for entry in manifest["layers"]}
    # The manifest names the kernel of each stage where it is ours; else they are TVM's own schedules.
    usual = "" if manifest["kind"] == "c" else f"TVM, {'tuned' if manifest.get('tuned') else 'untuned'}"
    stages = []
    for costs in zip(*(session.profile(image) for _ in range(repeat)), strict=True):
        cost, samples = costs[0], tuple(one.value for one in costs)
        entry = entries.get(cost.name, {})
        stages.append(
            StageCost(
                name=cost.name,
                layers=tuple(entry.get("layers", [cost.name] if entry else [])),
                kernel=entry.get("kernel", usual),
                macs=entry.get("macs"),
                kind=cost.kind,
                cost=median(samples),
                error=max(one.error for one in costs),
                predicted_cycles=None if cycles is None else cycles.stages[cost.name],
                samples=samples,
            )
        )
    return stages


def print_stages(
    title: str, stages: Sequence[StageCost], whole: Measurement, cycles: CyclePrediction | None = None
) -> None:
    """Print stages by cost, the dearest first, then their sum and the whole inference they are parts of."""
    heading, factor, digits = _COLUMNS[whole.kind]
    total = sum(stage.cost for stage in stages)
    inference = median(whole.samples)
    macs = sum(stage.macs or 0 for stage in stages) or None
    all_macs = "-" if macs is None else f"{macs:,}"

    def shown(cost: float) -> float | int:
        return round(cost * factor, digits) if digits is not None else round(cost)

    print_table(
        title,
        ["stage", "layers", "kernel", "MACs", heading, "per MAC", "share", *(["cycles (predicted)"] if cycles else [])],
        [
            (
                stage.name,
                "\n".join(stage.layers),
                stage.kernel,
                stage.macs,
                shown(stage.cost),
                per_mac(stage.cost * factor, stage.macs),
                _percent(stage.cost, inference),
                *([round(stage.predicted_cycles or 0)] if cycles else []),
            )
            for stage in sorted(stages, key=lambda stage: -stage.cost)
        ],
        footer=(
            "sum of the stages\nwhole inference",
            "",
            "",
            f"{all_macs}\n{all_macs}",
            f"{shown(total):,}\n{shown(inference):,}",
            f"{per_mac(total * factor, macs) or '-'}\n{per_mac(inference * factor, macs) or '-'}",
            f"{_percent(total, inference)}\n{_percent(inference, inference)}",
            *([f"{sum(cycles.stages.values()):,.0f}\n{cycles.cycles:,.0f}"] if cycles else []),
        ),
    )


def per_mac(cost: float, macs: int | None) -> str | None:
    """Return a cost per multiply-accumulate as text, None where there are none."""
    return f"{cost / macs:.3g}" if macs else None


def median(samples: Iterable[float]) -> float:
    """Return the middle sample, of an even number the upper one: a cost that was really paid."""
    ordered = sorted(samples)
    return ordered[len(ordered) // 2]


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
