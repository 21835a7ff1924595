"""What stages cost on a core, learned from stages that were measured there: the analytical estimate put right.

What is predicted is the logarithm of measured cost over estimate. A ridge regression finds what each kind of work costs
beside what the estimate takes it for: that ranks the ways to compute the same layers. Gradient-boosted trees (XGBoost)
with a quantile loss find what is left, and how sure it is, from what the layers are alone: with some hundred stages,
trees that see how rows are tiled rank by noise. How far such quantiles are off on stages not seen yet is measured, and
the band is widened by as much (conformalized quantile regression: Romano, Patterson, Candès 2019).

A core without any record has no model yet: stages then cost the estimate times the ratio of those measured so far, in
a wide band.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from thumbnet.compile.plan.stage_graph import StagePlan
from thumbnet.compile.tuning.plan_search import Estimate
from thumbnet.compile.tuning.stage_features import FEATURES, LAYER_FEATURES, PORTABLE, WORK_FEATURES, stage_features
from thumbnet.compile.tuning.stage_record import CostKind, StageRecord
from thumbnet.compile.tuning.stage_samples import StageSamples, load_seeds

#: The quantiles that the trees are trained for.
QUANTILES = (0.1, 0.5, 0.9)
#: Parts of stages that may cost less than `Estimate.low` and more than `Estimate.high`. What a search takes for dear it
#: never measures, and the stages of the best plan are those that cost less than expected: few may cost less than `low`.
BELOW, ABOVE = 0.02, 0.1
#: Measured stages below which there is nothing to train on, and the band around their median ratio until then, as
#: factors: wide enough for what any core here was found to take.
FEWEST_SAMPLES = 24
UNTRAINED_BAND = (0.75, 1.0, 1.5)
#: What a recorded stage, or one of the search at hand, counts in training beside one shipped with the package.
OWN_WEIGHT = 4.0
#: Training anew waits for so many new stages, and for so large a part of those known.
_LEAST_NEW, _LEAST_NEW_PART = 16, 0.4
#: How many recorded stages the errors on seeds' networks, left out in training, weigh as much as.
SEED_ERRORS = 24
_TREES = 120
_PARAMETERS = {
    "objective": "reg:quantileerror",
    "quantile_alpha": list(QUANTILES),
    "tree_method": "hist",
    "max_depth": 4,
    "eta": 0.07,
    "max_bin": 64,
    "subsample": 0.8,
    "colsample_bytree": 0.6,
    "min_child_weight": 10,
    "nthread": 1,
    "seed": 0,
}
_RIDGE_PENALTY = 1.0
_FOLDS = 4


@dataclass(frozen=True)
class RatioModel:
    """Quantiles of the logarithm of cost over estimate, given a stage's features.

    Parameters
    ----------
    weights : ndarray
        float64, of the columns of `_work` in the ridge regression.
    offset : float
        Its constant.
    trees : xgboost.Booster
        Quantiles of what it leaves.
    seen : tuple of float
        The least and the largest logarithm trained on: the regression's result is never taken to lie beyond.
    """

    weights: NDArray[np.float64]
    offset: float
    trees: xgboost.Booster
    seen: tuple[float, float]

    @classmethod
    def fit(
        cls, features: NDArray[np.float32], log_ratios: NDArray[np.float64], sample_weights: NDArray[np.float64]
    ) -> RatioModel:
        """Train on features ``[n, F]``, logarithms ``[n]`` and weights ``[n]``; equal data give an equal model."""
        work = _work(features)
        scale = np.maximum(work.std(axis=0), 1e-9)
        ridge = Ridge(_RIDGE_PENALTY).fit(work / scale, log_ratios, sample_weights)
        weights, offset = ridge.coef_ / scale, float(ridge.intercept_)
        seen = float(log_ratios.min()), float(log_ratios.max())
        rest = log_ratios - np.clip(work @ weights + offset, *seen)
        data = xgboost.DMatrix(features[:, LAYER_FEATURES], rest, weight=sample_weights)
        return cls(weights, offset, xgboost.train(_PARAMETERS, data, _TREES), seen)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the quantiles ``[n, 3]`` of `QUANTILES` for features ``[n, F]``, ascending."""
        base = np.clip(_work(features) @ self.weights + self.offset, *self.seen)
        rest = self.trees.inplace_predict(features[:, LAYER_FEATURES])
        quantiles: NDArray[np.float64] = np.sort(rest + base[:, None], axis=1)
        return quantiles


def _work(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the counts of work, and whether a stage is on portable kernels, whose work costs something else."""
    portable = features[:, PORTABLE] > 0
    work = features[:, WORK_FEATURES].astype(np.float64)
    work[portable] = 0.0
    return np.column_stack([work, portable])


def left_out_errors(
    features: NDArray[np.float32],
    log_ratios: NDArray[np.float64],
    sample_weights: NDArray[np.float64],
    parts: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Return what models trained without them are wrong by on some samples.

    Parameters
    ----------
    features, log_ratios, sample_weights
        As `RatioModel.fit` takes them.
    parts : ndarray
        ``[n]``: samples of the same part are left out together; those of a negative one never are.

    Returns
    -------
    ndarray
        ``[m, 3]``: true logarithm less each quantile, of the samples left out.
    """
    errors = []
    for part in np.unique(parts[parts >= 0]):
        out = parts == part
        model = RatioModel.fit(features[~out], log_ratios[~out], sample_weights[~out])
        errors.append(log_ratios[out, None] - model.predict(features[out]))
    return np.concatenate(errors)


def widening(errors: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return what is added to each quantile ``[3]`` so that no more of the errors ``[n, 3]`` than wanted lie outside.

    The band is never made narrower, nor its median moved: stages are measured because they are hoped to be cheap, and
    tend to cost more than that.
    """
    low = np.quantile(errors[:, 0], BELOW, weights=weights, method="inverted_cdf")
    high = np.quantile(errors[:, -1], 1 - ABOVE, weights=weights, method="inverted_cdf")
    return np.array([min(low, 0.0), 0.0, max(high, 0.0)])


class LearnedCostModel:
    """A `plan_search.StageCostModel` of one core, for one kind of cost.

    Parameters
    ----------
    seeds : StageSamples or None
        Stages of other networks, of at least two, measured on the same core: what is known before anything is measured.
    records : iterable of StageRecord
        Stages measured on the core, of any network, all of that kind; those without features of this version, or of
        wrong bytes, are left out.
    """

    def __init__(self, seeds: StageSamples | None = None, records: Iterable[StageRecord] = ()) -> None:
        self._seeds = seeds
        self._model: RatioModel | None = None
        self._trained_on = 0
        usable = [record for record in records if record.right and set(record.features or ()) == set(FEATURES)]
        self._own_features = [
            np.array([(record.features or {})[name] for name in FEATURES], np.float32) for record in usable
        ]
        self._own_log_ratios = [float(np.log(record.cost / record.predicted)) for record in usable]
        # Features of all stages ever asked for, and what is predicted of the first of them, before the band is widened.
        self._rows: dict[object, int] = {}
        self._features: list[NDArray[np.float32]] = []
        self._predicted: list[NDArray[np.float64]] = []
        # Of seeds' networks and recorded stages left out in training, and of stages measured since then.
        self._seed_errors: NDArray[np.float64] = np.empty((0, len(QUANTILES)))
        self._own_errors: list[NDArray[np.float64]] = []
        self._widening: NDArray[np.float64] = np.zeros(len(QUANTILES))
        if seeds is not None:
            weights = np.ones(len(seeds.costs))
            self._seed_errors = left_out_errors(seeds.features, seeds.log_ratios, weights, seeds.networks)
        self._train()

    def estimate(self, stage: StagePlan) -> Estimate:
        """Return what a stage is likely to cost, in the unit of what was learned; of its prediction before that."""
        if self._model is None:
            low, typical, high = self._untrained_band()
        else:
            low, typical, high = np.exp(self._predict(self._row(stage)) + self._widening)
        return Estimate(float(low * stage.cost), float(typical * stage.cost), float(high * stage.cost))

    def learn(self, stages: Sequence[StagePlan], costs: Sequence[float]) -> None:
        """Take measured stages into account: finite costs above 0."""
        for stage, cost in zip(stages, costs, strict=True):
            row, log_ratio = self._row(stage), float(np.log(cost / stage.cost))
            if self._model is not None:
                self._own_errors.append(log_ratio - self._predict(row))
            self._own_features.append(self._features[row])
            self._own_log_ratios.append(log_ratio)
        new = len(self._own_log_ratios) - self._trained_on
        if new >= max(_LEAST_NEW, _LEAST_NEW_PART * self._trained_on):
            self._train()
        else:
            self._widen()

    def _untrained_band(self) -> tuple[float, float, float]:
        """Return factors around the median ratio, and no ratio that was seen beyond them."""
        if not self._own_log_ratios:
            return UNTRAINED_BAND
        least, median, most = np.exp(np.quantile(self._own_log_ratios, (0.0, 0.5, 1.0)))
        low, typical, high = (float(median) * factor for factor in UNTRAINED_BAND)
        return min(low, float(least)), typical, max(high, float(most))

    def _train(self) -> None:
        """Train on all there is, and widen the band by what such models are wrong by on stages left out."""
        features = np.array(self._own_features, np.float32).reshape(-1, len(FEATURES))
        log_ratios = np.array(self._own_log_ratios)
        own = len(log_ratios)
        weights = np.full(own, OWN_WEIGHT)
        parts = np.random.default_rng(0).permutation(own).astype(np.int32) % _FOLDS
        if self._seeds is not None:
            features = np.concatenate([self._seeds.features, features])
            log_ratios = np.concatenate([self._seeds.log_ratios, log_ratios])
            weights = np.concatenate([np.ones(len(self._seeds.costs)), weights])
            parts = np.concatenate([np.full(len(self._seeds.costs), -1, np.int32), parts])
        if len(log_ratios) < FEWEST_SAMPLES:
            return
        self._model = RatioModel.fit(features, log_ratios, weights)
        self._predicted.clear()
        self._trained_on = own
        self._own_errors = list(left_out_errors(features, log_ratios, weights, parts)) if own else []
        self._widen()

    def _widen(self) -> None:
        if self._model is None:
            return
        of_seeds = np.full(len(self._seed_errors), SEED_ERRORS / max(len(self._seed_errors), 1))
        errors = np.concatenate([self._seed_errors, np.array(self._own_errors).reshape(-1, len(QUANTILES))])
        self._widening = widening(errors, np.concatenate([of_seeds, np.ones(len(self._own_errors))]))

    def _row(self, stage: StagePlan) -> int:
        # The graph makes each chain once, stages from it again and again.
        identity: object = stage.chain or stage.name
        row = self._rows.get(identity)
        if row is None:
            row = self._rows[identity] = len(self._features)
            self._features.append(stage_features(stage))
        return row

    def _predict(self, row: int) -> NDArray[np.float64]:
        """Return the quantiles of a row's stage, not widened; those of all rows without any are predicted at once."""
        assert self._model is not None
        if row >= len(self._predicted):
            self._predicted.extend(self._model.predict(np.stack(self._features[len(self._predicted) :])))
        return self._predicted[row]


def model_of_core(core: str, kind: CostKind, records: Iterable[StageRecord]) -> LearnedCostModel:
    """Return what is known of a core's costs of a kind: from records of it, and from what is shipped.

    Raises
    ------
    ArtifactError, TuningError
        What is shipped is damaged.
    """
    return LearnedCostModel(load_seeds(core, kind), records)
