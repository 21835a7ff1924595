"""A search finds the plan that would be found if every stage were measured, and measures few."""

import math

import pytest

from thumbnet.compile.kernels.dsp.stage import DspStage
from thumbnet.compile.plan.choose_plan import fastest_plan
from thumbnet.compile.plan.stage_graph import StageGraph
from thumbnet.compile.tuning import plan_search
from thumbnet.compile.tuning.cost_model import LearnedCostModel
from thumbnet.compile.tuning.plan_search import SLACK, Estimate
from thumbnet.compile.tuning.stage_key import key_of

from ..plan.test_stage_graph import small_mobilenet
from .searches import make_search, true_cost, untuned_plan


@pytest.fixture(scope="module")
def network():
    return small_mobilenet()


def search_all(search, batch=8):
    """Measure what is proposed until nothing is; return the stages."""
    measured = []
    while stages := search.propose(batch):
        measured += stages
        search.learn(stages, [true_cost(stage) for stage in stages])
    return measured


@pytest.mark.parametrize("limited", [False, True])
def test_finds_the_best_plan_there_is(network, limited):
    ram_limit = untuned_plan(network).arena_bytes if limited else None
    graph = StageGraph(network, DspStage, cost_of=true_cost, slack=SLACK)
    best = sum(map(true_cost, fastest_plan(graph, ram_limit).stages))
    search = make_search(network, ram_limit)
    measured = search_all(search)
    found = search.best_known_plan()
    assert sum(search.costs_of(found)) == pytest.approx(best, rel=0.01)
    assert search.bound() == pytest.approx(sum(search.costs_of(found)))
    if limited:
        assert found.arena_bytes <= ram_limit
    everything = {key_of(stage) for edges in graph._edges.values() for stage in edges}
    assert len(measured) == len({search.key(stage) for stage in measured}) < 0.6 * len(everything)


class TooSure:
    """Takes every stage for within 2 % of what it costs on average."""

    def estimate(self, stage):
        return Estimate(1.96 * stage.cost, 2.0 * stage.cost, 2.04 * stage.cost)

    def learn(self, stages, costs):
        pass


def end_of(network, model):
    """Return how many stages a search measures, and what the plan costs that it ends with."""
    search = make_search(network, model=model)
    return len(search_all(search)), sum(search.costs_of(search.best_known_plan()))


def test_who_is_too_sure_looks_again(network, monkeypatch):
    looked_again = end_of(network, TooSure())[1]
    monkeypatch.setattr(plan_search, "SECOND_LOOKS", 0)
    assert looked_again < 0.99 * end_of(network, TooSure())[1]


def test_a_second_look_that_finds_nothing_ends(network, monkeypatch):
    monkeypatch.setattr(plan_search, "SECOND_LOOKS", 0)
    trials, cost = end_of(network, LearnedCostModel())
    monkeypatch.setattr(plan_search, "SECOND_LOOKS", 8)
    assert end_of(network, LearnedCostModel()) == (trials + 8, cost)


def test_proposes_nothing_twice_and_goes_on_where_an_earlier_search_was(network):
    measured = {}
    first = make_search(network, measured=measured)
    for _ in range(3):
        stages = first.propose(5)
        first.learn(stages, [true_cost(stage) for stage in stages])
    again = make_search(network, measured=measured)
    assert not {again.key(stage) for stage in again.propose(20)} & set(measured)


def test_stages_that_give_wrong_bytes_are_in_no_plan(network):
    search = make_search(network)
    wrong = set()
    while stages := search.propose(8):
        # Every third of the chains; the portable kernels always remain.
        bad = [stage.chain is not None and int(key_of(stage), 16) % 3 == 0 for stage in stages]
        wrong |= {search.key(stage) for stage, is_bad in zip(stages, bad, strict=True) if is_bad}
        costs = [math.inf if is_bad else true_cost(stage) for stage, is_bad in zip(stages, bad, strict=True)]
        search.learn(stages, costs)
    assert wrong
    assert not wrong & {search.key(stage) for stage in search.best_known_plan().stages}


def test_nothing_is_known_before_something_is_measured(network):
    search = make_search(network)
    assert search.best_known_plan() is None
    assert math.isinf(sum(search.costs_of(untuned_plan(network))))


def test_equal_stages_have_equal_keys_and_others_don_t(network):
    keys = {}
    graph = StageGraph(network, DspStage)
    graph.best_plan()
    for edges in graph._edges.values():
        for stage in edges:
            keys.setdefault(key_of(stage), []).append(stage)
    assert len(keys) > 100
    for stages in keys.values():
        assert len({(tuple(layer.kind for layer in stage.layers), stage.cost) for stage in stages}) == 1
