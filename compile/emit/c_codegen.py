"""From a kernel's scheduled TIR to the body of a plain C function, by TVM's C code generator."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
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

#: Larger buffers are no local variables: a microcontroller's stack is small.
LARGEST_LOCAL_BYTES = 256


def lower(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Lower a scheduled function; its buffer parameters become plain pointers named as the buffers are.

    Behind them stand those of buffers it allocates that are larger than `LARGEST_LOCAL_BYTES`.
    """
    target = tvm.target.Target("c")
    module = tvm.IRModule({"layer": function.without_attr("global_symbol").with_attr("target", target)})
    with tvm.transform.PassContext(config={"s_tir.LoopPartition": {"partition_const_loop": True}}):
        lowered = tvm.transform.Sequential(list(LOWERING))(module)["layer"]
    # With plain pointers as parameters the generator has no packed arguments to unpack: it prints `int8_t* input0`.
    pointers = [_pointer(buffer) for buffer in lowered.params]
    declarations = [
        tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(lowered.params, pointers, strict=True)
    ]
    statements: list[tirx.Stmt] = []
    for statement in _statements(lowered):
        if _is_large_allocation(statement):
            pointers.append(_pointer(statement.buffer))
            declarations.append(tirx.DeclBuffer(statement.buffer, data=pointers[-1]))
        else:
            statements.append(statement)
    return tirx.PrimFunc(pointers, tirx.SeqStmt([*declarations, *statements]), lowered.ret_type, lowered.attrs)


def parameter_buffers(lowered: tirx.PrimFunc) -> list[tirx.Buffer]:
    """Return the buffers that the parameters of a lowered function point to."""
    return [declaration.buffer for declaration in lowered.body.seq[: len(lowered.params)]]


def _pointer(buffer: tirx.Buffer) -> tirx.Var:
    return tirx.Var(buffer.name, PointerType(PrimType(buffer.dtype)))


def _statements(function: tirx.PrimFunc) -> list[tirx.Stmt]:
    """Return what a lowered function consists of; what it allocates is all among it."""
    return list(function.body.seq) if isinstance(function.body, tirx.SeqStmt) else [function.body]


def _is_large_allocation(statement: tirx.Stmt) -> bool:
    if not isinstance(statement, tirx.AllocBuffer):
        return False
    buffer = statement.buffer
    return (
        math.prod(int(extent) for extent in buffer.shape) * np.dtype(str(buffer.dtype)).itemsize > LARGEST_LOCAL_BYTES
    )


def generate_body(function: tirx.PrimFunc) -> str:
    """Return what stands between the braces of the C function that a lowered function prints as."""
    source = codegen_build(tvm.IRModule({"layer": function}), tvm.target.Target("c")).inspect_source()
    # The preamble includes TVM's headers, which the artifact does without.
    definition = re.search(r"^[^\n;]*\blayer\([^;{]*\)\s*\{\n(.*)^\}", source, re.MULTILINE | re.DOTALL)
    if definition is None:
        raise AssertionError(f"TVM's C generator printed no function:\n{source}")
    return _name_temporaries(definition.group(1))


#: What TVM calls the values it computes once: common subexpressions, and operands of minimum and maximum.
_TEMPORARY = re.compile(r"\b(?:cse_v\d+|v_(?:_\d+)?)\b")
_DECLARED = re.compile(rf"^ *int(?:8|16|32|64)_t ({_TEMPORARY.pattern}) = (.*);$", re.MULTILINE)
_LOOP = re.compile(r"\bfor \(int\d+_t (\w+) = ")


def _name_temporaries(body: str) -> str:
    """Name the generator's temporary values for the loops they depend on: ``at_step_row`` for ``cse_v5``."""
    loops = set(_LOOP.findall(body))
    names: dict[str, str] = {}
    depends: dict[str, list[str]] = {}
    for temporary, value in _DECLARED.findall(body):
        used = [word for found in re.findall(r"\w+", value) for word in depends.get(found, [found]) if word in loops]
        depends[temporary] = list(dict.fromkeys(used))
        stem = "_".join([("limit" if temporary.startswith("v_") else "at"), *depends[temporary]])
        numbered = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        names[temporary] = next(name for name in numbered if name not in names.values())
    return _TEMPORARY.sub(lambda found: names.get(found[0], found[0]), body)
