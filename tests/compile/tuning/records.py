"""Layers to tune, and records of them."""

import tvm
from tvm import te
from tvm.s_tir import meta_schedule as ms

from thumbnet.compile.tuning.record_folder import RECORDS, WORKLOADS


def make_module(channels=16):
    """A 1x1 convolution, int8 to int32."""
    image, weight = te.placeholder((64, 8), "int8", "image"), te.placeholder((8, channels), "int8", "weight")
    k = te.reduce_axis((0, 8), "k")
    output = te.compute(
        (64, channels),
        lambda y, c: te.sum(image[y, k].astype("int32") * weight[k, c].astype("int32"), axis=[k]),
        name="sum",
    )
    function = te.create_prim_func([image, weight, output]).with_attr("global_symbol", "main")
    return tvm.IRModule({"main": function})


def open_database(folder):
    return ms.database.JSONDatabase(str(folder / WORKLOADS), str(folder / RECORDS), module_equality="structural")


def commit(database, module, target, seconds, change):
    schedule = tvm.s_tir.Schedule(module)
    change(schedule)
    arguments = ms.arg_info.ArgInfo.from_entry_func(module)
    workload = database.commit_workload(module)
    database.commit_tuning_record(ms.database.TuningRecord(schedule.trace, workload, [seconds], target, arguments))


def unroll(schedule):
    *_, inner, _ = schedule.get_loops(schedule.get_sblock("sum"))
    schedule.unroll(inner)
