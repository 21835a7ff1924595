"""The simplest model of costs: what kernels predict, times what others of the search have cost of that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.tuning.plan_search import Estimate

#: Of the ratios seen so far. The best stage of many is an extreme one: the low end is the lowest.
_QUANTILES = (0.0, 0.5, 0.95)
#: Stages to learn from before quantiles mean anything.
_ENOUGH = 8


class RatioModel:
    """See `thumbnet.compile.tuning.plan_search.StageCostModel`.

    Parameters
    ----------
    ratios : iterable of float
        Of stages measured before: cost to prediction.
    """

    def __init__(self, ratios: Iterable[float] = ()) -> None:
        self._ratios = list(ratios)
        #: Any ratio is possible until enough are known.
        self._quantiles = (0.0, 1.0, math.inf)
        self._take_quantiles()

    def estimate(self, stage: StagePlan) -> Estimate:
        """Return a stage's prediction times the quantiles of the ratios seen."""
        return Estimate(*(ratio * stage.cost for ratio in self._quantiles))

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> None:
        """Take further ratios into account."""
        self._ratios += [cost / stage.cost for stage, cost in zip(stages, costs, strict=True)]
        self._take_quantiles()

    def _take_quantiles(self) -> None:
        if len(self._ratios) >= _ENOUGH:
            low, typical, high = np.quantile(self._ratios, _QUANTILES)
            self._quantiles = (float(low), float(typical), float(high))
