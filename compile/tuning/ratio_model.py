"""The simplest model of costs: what kernels predict, times what others of the search have cost of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.tuning.plan_search import Estimate

#: Of the costs seen so far: below, the middle, and above.
_QUANTILES = (0.05, 0.5, 0.95)
#: Until so many stages are known, any ratio is possible.
_ENOUGH = 8


class RatioModel:
    """See `thumbnet.compile.tuning.plan_search.StageCostModel`."""

    def __init__(self) -> None:
        self._ratios: list[float] = []

    def estimate(self, stage: StagePlan) -> Estimate:
        """Return a stage's prediction times the quantiles of the ratios seen."""
        if len(self._ratios) < _ENOUGH:
            return Estimate(0.0, stage.instructions, 10 * stage.instructions)
        low, typical, high = np.quantile(self._ratios, _QUANTILES) * stage.instructions
        return Estimate(float(low), float(typical), float(high))

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> None:
        """Take further ratios into account."""
        self._ratios += [cost / stage.instructions for stage, cost in zip(stages, costs, strict=True)]
