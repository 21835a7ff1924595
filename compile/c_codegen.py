"""From a kernel's scheduled TIR to the body of a plain C function, by TVM's C code generator."""

from __future__ import annotations

import re

import tvm
from tvm import s_tir, tirx
from tvm.ir import PointerType, PrimType
from tvm.tirx.build import codegen_build

#: What takes a schedulable TIR function to loops over flat buffers that the C generator prints. The order is TVM's own
#: for CPUs, less what serves its packed calling convention and its allocator, which a microcontroller has not.
LOWERING = (
    s_tir.transform.CanonicalizeLoop(),
    s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(),
    s_tir.transform.LowerMatchBuffer(),
    s_tir.transform.StmtSimplify(),
    s_tir.transform.LowerOpaqueBlock(),
    tirx.transform.FlattenBuffer(),
    tirx.transform.NarrowDataType(32),
    s_tir.transform.LoopPartition(),
    tirx.transform.VectorizeLoop(False),
    tirx.transform.StorageRewrite(),
    s_tir.transform.HoistIfThenElse(),
    tirx.transform.UnrollLoop(),
    s_tir.transform.RenormalizeSplitPattern(),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
    tirx.transform.CommonSubexprElim(),
    tirx.transform.LowerIntrin(),
)


def lower(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Lower a scheduled function; its buffer parameters become plain pointers named as the buffers are."""
    target = tvm.target.Target("c")
    module = tvm.IRModule({"layer": function.without_attr("global_symbol").with_attr("target", target)})
    with tvm.transform.PassContext(config={"s_tir.LoopPartition": {"partition_const_loop": True}}):
        lowered = tvm.transform.Sequential(list(LOWERING))(module)["layer"]
    # With plain pointers as parameters the generator has no packed arguments to unpack: it prints `int8_t* input0`.
    pointers = [tirx.Var(buffer.name, PointerType(PrimType(buffer.dtype))) for buffer in lowered.params]
    declarations = [
        tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(lowered.params, pointers, strict=True)
    ]
    return tirx.PrimFunc(pointers, tirx.SeqStmt([*declarations, lowered.body]), lowered.ret_type, lowered.attrs)


def generate_body(function: tirx.PrimFunc) -> str:
    """Return what stands between the braces of the C function that a lowered function prints as."""
    source = codegen_build(tvm.IRModule({"layer": function}), tvm.target.Target("c")).inspect_source()
    # The preamble includes TVM's headers, which the artifact does without.
    definition = re.search(r"^[^\n;]*\blayer\([^;{]*\)\s*\{\n(.*)^\}", source, re.MULTILINE | re.DOTALL)
    if definition is None:
        raise AssertionError(f"TVM's C generator printed no function:\n{source}")
    return definition.group(1)
