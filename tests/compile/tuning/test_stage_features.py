"""What cost models know of a stage: counts checked by hand, and nothing that depends on names or sizes as such."""

from dataclasses import replace

import numpy as np
import pytest

from thumbnet.compile.kernels.instruction_sets import KERNELS
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.tuning.stage_features import FEATURES, LAYER_FEATURES, stage_features

from ..networks import chain_network, one_of_each_kind


def _stages(network, kernels):
    """Return stages of many kinds: of the fastest plan, of the leanest, and of every plan between."""
    graph = StageGraph(network, kernels, slack=0.15)
    return [stage for stages in graph.pareto_front() for stage in stages]


def _work(stage, name):
    return float(stage_features(stage)[FEATURES.index(name)]) * stage.cost


@pytest.mark.parametrize("instruction_set", KERNELS)
def test_features_are_finite(instruction_set):
    for network in (one_of_each_kind(), chain_network((48, 48), (8, 16, 16), "same")):
        for stage in _stages(network, KERNELS[instruction_set]):
            features = stage_features(stage)
            assert features.shape == (len(FEATURES),) and features.dtype == np.float32
            assert np.isfinite(features).all() and (features >= 0).all()


def test_work_is_counted():
    network = chain_network((48, 48), (8, 16, 16), "same")
    graph = StageGraph(network, KERNELS["dsp"])
    for stage in graph.best_plan():
        macs = ("image_macs", "depthwise_macs", "strided_depthwise_macs", "pointwise_macs", "fully_connected_macs")
        total = sum(_work(stage, name) for name in macs)
        assert total == pytest.approx(sum(layer.macs for layer in stage.layers), rel=1e-5)
        assert _work(stage, "weight_bytes") == pytest.approx(
            sum(layer.weight.nbytes for layer in stage.layers), rel=1e-5
        )
        if any(layer.name == "depthwise2" for layer in stage.layers):
            assert _work(stage, "strided_depthwise_macs") == pytest.approx(12 * 12 * 16 * 9, rel=1e-5)


def test_steps_and_blocks_are_told_apart():
    """Stages that compute the same layers in other ways differ in work, and not in what their layers are."""
    network = chain_network((48, 48), (8, 16, 16), "same")
    by_layers = {}
    for stage in _stages(network, KERNELS["dsp"]):
        by_layers.setdefault((stage.layers[0].name, stage.name, stage.chain is None), []).append(stage)
    several = {key: stages for key, stages in by_layers.items() if len({stage.chain for stage in stages}) > 1}
    assert several
    for stages in several.values():
        # The same estimate for all: shares of it are comparable.
        rows = {stage_features(replace(stage, cost=1e6)).tobytes() for stage in stages}
        assert len(rows) == len(
            {
                (
                    stage.chain.steps,
                    stage.chain.window_bytes,
                    stage.source,
                    stage.target,
                    tuple(map(stage.chain.block_rows, stage.chain.groups)),
                )
                for stage in stages
            }
        )
    tiling = {"blocks", "block_channels", "block_weights", "carried_bytes", "carried_channels", "step_layers"}
    assert not tiling & {FEATURES[index] for index in LAYER_FEATURES}


def test_names_of_layers_play_no_part():
    first, second = (
        [
            stage_features(stage)
            for stage in StageGraph(chain_network((24, 24), (8, 8, 8), "same", seed), KERNELS["mve"]).best_plan()
        ]
        for seed in (1, 2)
    )
    assert np.array_equal(first, second)
