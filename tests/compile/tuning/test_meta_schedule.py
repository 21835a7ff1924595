"""The record of a layer left alone: found again where a database is asked, and changing nothing."""

import pytest
import tvm
from tvm.s_tir import meta_schedule as ms

from thumbnet.compile.emit.export_library import tvm_target
from thumbnet.compile.tuning import meta_schedule as tuning
from thumbnet.targets.registry import get_board

from .records import commit, make_module, open_database, unroll


class Built:
    """What stands for MetaSchedule's builder: everything builds, or nothing."""

    def __init__(self, error=None):
        self.error = error

    def build(self, inputs):
        return [ms.builder.BuilderResult(None if self.error else "candidate.so", self.error) for _ in inputs]


class Ran:
    """What stands for its runner: every candidate takes the same time, or fails."""

    def __init__(self, seconds):
        self.seconds, self.runs = seconds, 0

    def run(self, inputs):
        self.runs += len(inputs)
        seconds, error = ([self.seconds], None) if self.seconds else (None, "failed")
        return [type("Future", (), {"result": lambda _: ms.runner.RunnerResult(seconds, error)})() for _ in inputs]


@pytest.fixture
def target():
    return tvm_target(get_board("raspberry_pi_4"))


def record_default(module, target, folder, builder=None, runner=None):
    database = open_database(folder)
    task = ms.ExtractedTask("layer", module, target, [module], 1)
    tuning._record_defaults([task], target, database, builder or Built(), runner or Ran(0.001))
    return database


def test_the_record_of_a_layer_left_alone_is_found(target, tmp_path):
    module = make_module()
    record_default(module, target, tmp_path)
    database = open_database(tmp_path)  # as the compiler reads it from the files
    [record] = database.get_top_k(database.commit_workload(module), 1)
    assert [float(value) for value in record.run_secs] == [0.001]
    assert database.query_tuning_record(module, target, "layer") is not None
    tvm.ir.assert_structural_equal(database.query_ir_module(module, target, "layer"), module)


@pytest.mark.parametrize(("seconds", "applied"), [(0.002, False), (0.0005, True)])
def test_it_wins_over_what_is_slower(seconds, applied, target, tmp_path):
    module = make_module()
    database = record_default(module, target, tmp_path)
    commit(database, module, target, seconds, unroll)
    best = open_database(tmp_path).query_ir_module(module, target, "layer")
    assert (best.script() == module.script()) != applied


def test_it_is_measured_once(target, tmp_path):
    module, runner = make_module(), Ran(0.001)
    record_default(module, target, tmp_path, runner=runner)
    record_default(module, target, tmp_path, runner=runner)
    assert (runner.runs, len(open_database(tmp_path))) == (1, 1)


@pytest.mark.parametrize(("builder", "runner"), [(Built("no"), Ran(0.001)), (Built(), Ran(None))])
def test_what_does_not_build_or_run_has_no_record(builder, runner, target, tmp_path):
    assert len(record_default(make_module(), target, tmp_path, builder, runner)) == 0
