"""Which of several records of a stage says what it costs."""

import math

from thumbnet.compile.tuning.stage_records import measured_costs

from .stage_record_files import make_record

#: What the tests' records are of.
WANTED = {"core": "cortex-m4", "kind": "predicted cycles", "emulated": True}


def key(number):
    return f"{number:024x}"


def test_costs_are_of_one_core_kind_and_sort_of_device_and_of_these_kernels():
    records = [
        make_record(1, samples=[5.0, 1.0, 9.0]),
        make_record(2, kind="instructions"),
        make_record(3, emulated=False, kind="cycles"),
        make_record(4, kernels="0" * 16),
        make_record(5, core="cortex-m7"),
        make_record(6, board="mps2_an505"),
    ]
    assert measured_costs(records, **WANTED) == {key(1): 5.0, key(6): 156.0}
    assert measured_costs(records, **WANTED, board="mps2_an386") == {key(1): 5.0}
    assert measured_costs(records, **{**WANTED, "kind": "instructions"}) == {key(2): 152.0}
    assert measured_costs(records, **{**WANTED, "kind": "cycles"}) == {}
    assert measured_costs(records, core="cortex-m4", kind="cycles", emulated=False) == {key(3): 153.0}
    assert measured_costs(records, **{**WANTED, "emulated": False}) == {}


def at(second, **changes):
    return make_record(1, date=f"2026-01-01T00:00:0{second}+00:00", **changes)


def test_the_newest_counts_wherever_it_stands_and_of_one_second_the_last():
    older, newer, last = at(1, samples=[1.0]), at(2, samples=[2.0]), at(2, samples=[3.0])
    assert measured_costs([newer, older], **WANTED) == {key(1): 2.0}
    assert measured_costs([newer, last, older], **WANTED) == {key(1): 3.0}


def test_a_stage_of_wrong_bytes_is_never_used_until_it_is_right_again():
    right, wrong = at(1), at(2, samples=[], right=False, kind="instructions")
    assert measured_costs([right, wrong], **WANTED) == {key(1): math.inf}
    assert measured_costs([wrong], **WANTED) == {key(1): math.inf}
    assert measured_costs([right, wrong, at(3)], **WANTED) == {key(1): 151.0}
    assert measured_costs([wrong, at(3, kind="instructions")], **WANTED) == {}
    other_core = at(2, samples=[], right=False, core="cortex-m7")
    assert measured_costs([right, other_core], **WANTED) == {key(1): 151.0}
