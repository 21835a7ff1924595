"""The arena's plan: nothing that is alive at one time overlaps, and no byte is wasted on a chain."""

import itertools
import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thumbnet.compile.network.integer_network import NETWORK_INPUT, IntegerNetwork
from thumbnet.compile.plan.lowered_network import lower_network
from thumbnet.compile.plan.memory_plan import ALIGNMENT, PlannedTensor, plan_memory
from thumbnet.compile.plan.place_tensors import scratch_name

from ..networks import INPUT_QUANT, chain_network, make_convolution, networks, one_of_each_kind


@st.composite
def tensors(draw):
    count = draw(st.integers(1, 12))
    made = []
    for index in range(count):
        # Often behind each other, as in a network.
        first = made[-1].last if made and draw(st.booleans()) else draw(st.integers(0, 9))
        last = first + draw(st.integers(0, 5))
        over = None
        if made and made[-1].last == first and draw(st.booleans()):
            over = (made[-1].name, 4 * draw(st.integers(-20, 20)))
        made.append(PlannedTensor(f"t{index}", draw(st.integers(1, 300)), first, last, over))
    return made


def _check(plan, planned):
    assert set(plan.offsets) == {tensor.name for tensor in planned}
    for tensor in planned:
        assert plan.offsets[tensor.name] % ALIGNMENT == 0
        assert 0 <= plan.offsets[tensor.name] <= plan.arena_bytes - tensor.size
    for a, b in itertools.combinations(planned, 2):
        if a.first <= b.last and b.first <= a.last:
            start_a, start_b = plan.offsets[a.name], plan.offsets[b.name]
            if any(
                upper.over is not None
                and upper.over[0] == lower.name
                and plan.offsets[upper.name] <= plan.offsets[lower.name] + upper.over[1]
                for upper, lower in ((a, b), (b, a))
            ):
                continue
            assert start_a + a.size <= start_b or start_b + b.size <= start_a, (a, b)
    assert plan.arena_bytes % ALIGNMENT == 0
    assert plan.arena_bytes >= plan.lower_bound_bytes
    for step in range(16):
        alive = [tensor for tensor in planned if tensor.first <= step <= tensor.last]
        if all(tensor.over is None for tensor in alive):
            assert plan.lower_bound_bytes >= sum(tensor.size for tensor in alive)


@settings(max_examples=300)
@given(tensors())
def test_what_is_alive_does_not_overlap(planned):
    _check(plan_memory(planned), planned)


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=30))
@example([5, 8, 8, 4, 4, 2, 2, 1])
def test_a_chain_needs_its_largest_pair_only(sizes):
    """Each layer reads what the one before it wrote."""
    planned = [PlannedTensor(str(index), size, max(index - 1, 0), index) for index, size in enumerate(sizes)]
    plan = plan_memory(planned)
    _check(plan, planned)
    rounded = [math.ceil(size / ALIGNMENT) * ALIGNMENT for size in sizes]
    assert plan.arena_bytes == plan.lower_bound_bytes == max(a + b for a, b in itertools.pairwise(rounded))


def _lifetimes(network, stages):
    """When each tensor of the arena is written first and read last, found anew from the stages."""
    steps = {NETWORK_INPUT: [0], **{stage.name: [step] for step, stage in enumerate(stages)}}
    sizes = {
        NETWORK_INPUT: math.prod(network.input_shape),
        **{stage.name: stage.output_layout.size for stage in stages},
    }
    for step, stage in enumerate(stages):
        for source in stage.sources:
            steps[source].append(step)
        for parameter, scratch in stage.kernel.scratch.items():
            steps[scratch_name(stage.name, parameter)] = [step]
            sizes[scratch_name(stage.name, parameter)] = scratch.bytes
    over = {stage.name: (stage.sources[0], stage.over) for stage in stages if stage.over is not None}
    return [PlannedTensor(name, sizes[name], min(when), max(when), over.get(name)) for name, when in steps.items()]


def test_a_residual_block_is_one_stage():
    network = one_of_each_kind()
    lowered = lower_network(network)
    planned = _lifetimes(network, lowered.stages)
    _check(lowered.plan, planned)
    # The add reads what the block began with; both are in one stage, whose output may lie where that was.
    [residual] = [stage for stage in lowered.stages if stage.name == "features.1"]
    assert residual.sources == ("features.0",)
    assert residual.layers[-1].kind == "add"


@settings(max_examples=20)
@given(networks(longest=5))
def test_plans_of_networks(network):
    lowered = lower_network(network)
    _check(lowered.plan, _lifetimes(network, lowered.stages))


def test_constants_are_counted():
    layer = make_convolution(np.random.default_rng(0), (4, 4, 3), outputs=5)
    lowered = lower_network(IntegerNetwork((4, 4, 3), INPUT_QUANT, (layer,)))
    # Three channel pairs: two biases, two multipliers and two words of weights each.
    assert lowered.constant_bytes == 3 * (2 * 4 + 2 * 4 + 2 * 4)


def test_a_ram_limit_takes_leaner_choices():
    network = chain_network((48, 48), (8, 16, 24), "same")
    fast = lower_network(network)
    lean = lower_network(network, fast.plan.arena_bytes - 1)
    assert lean.plan.arena_bytes < fast.plan.arena_bytes
    least = lower_network(network, 1)
    assert least.plan.arena_bytes <= lean.plan.arena_bytes
