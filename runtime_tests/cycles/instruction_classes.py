"""Which classes of instructions an Arm microcontroller's core executed: what tables of its timing tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import capstone
from capstone import arm_const

from thumbnet.runtime_tests.cycles.block_profile import ExecutedBlock

_LOADS = {"ldr", "ldrb", "ldrh", "ldrsb", "ldrsh", "vldr"}
_STORES = {"str", "strb", "strh"}
_MULTIPLE = {"ldm": "ldm", "ldmdb": "ldm", "stm": "stm", "stmdb": "stm", "push": "push", "pop": "pop"}
_MULTIPLE |= {"vldmia": "vldm", "vldmdb": "vldm", "vpop": "vldm", "vstmia": "vstm", "vstmdb": "vstm", "vpush": "vstm"}
_CLASSES = {
    "shift": {"lsl", "lsr", "asr", "ror", "rrx"},
    "extend_pack": {"sxtb", "sxth", "uxtb", "uxth", "sxtb16", "uxtb16", "sxtab", "sxtah", "uxtab", "uxtah", "sxtab16"}
    | {"uxtab16", "pkhbt", "pkhtb"},
    "mla": {"mla", "mls", "smlabb", "smlabt", "smlatb", "smlatt", "smlawb", "smlawt", "smmla", "smmls"},
    "dual_mac": {"smlad", "smladx", "smlsd", "smlsdx", "smuad", "smuadx", "smusd", "smusdx"},
    "mul": {"mul", "smulbb", "smulbt", "smultb", "smultt", "smulwb", "smulwt", "smmul", "smmulr"},
    "mul_long": {"smull", "umull"},
    "mla_long": {"smlal", "umlal", "umaal", "smlald", "smlaldx", "smlsld", "smlsldx", "smlalbb", "smlalbt", "smlaltb"}
    | {"smlaltt"},
    "div": {"sdiv", "udiv"},
    "bx_blx": {"bx", "blx"},
    "table_branch": {"tbb", "tbh"},
    **{name: {name} for name in ("bl", "it", "ldrd", "strd")},
}
_CLASS_OF = {name: kind for kind, names in _CLASSES.items() for name in names}


def count_classes(blocks: Iterable[ExecutedBlock]) -> Counter[str]:
    """Return how many instructions of each class were executed, and how often what costs more was met.

    Parameters
    ----------
    blocks : iterable of ExecutedBlock
        Thumb code.

    Returns
    -------
    Counter of str
        Classes of instructions: ``alu``, ``shift``, ``extend_pack``, ``mul``, ``mla``, ``dual_mac``, ``mul_long``,
        ``mla_long``, ``div``; ``ldr`` and its like, ``..._after_ldr`` right behind another load that it doesn't depend
        on; ``ldrd``, ``strd``, ``str_imm``, ``str_reg``; ``ldm_4`` with the number of registers, ``pop_4_pc`` where it
        returns; ``branch_taken``, ``branch_not_taken``, ``bl``, ``bx_blx``, ``table_branch``, ``ldr_pc``; ``it`` and
        ``it_folded``; those of the floating-point unit by name. And ``taken_to_unaligned_wide`` (a jump to an
        instruction of four bytes across a word), ``unaligned_penalty`` (accesses), which are no instructions.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8)
    decoder.detail = True
    counts: Counter[str] = Counter()
    for block in blocks:
        instructions = list(decoder.disasm(block.code, block.address))
        for name in _classes_of(instructions):
            counts[name] += block.executions
        decoded = sum(instruction.size for instruction in instructions)
        if decoded < len(block.code):
            counts["unknown"] += block.executions * ((len(block.code) - decoded) // 2)
        if instructions:
            _count_jumps(counts, block, instructions)
        counts["unaligned_penalty"] += block.unaligned
    return +counts


def _classes_of(instructions: list[capstone.CsInsn]) -> Iterator[str]:
    before: capstone.CsInsn | None = None
    for instruction in instructions:
        kind = _class_of(instruction)
        if kind in _LOADS and before is not None and _class_of(before) in _LOADS and not _feeds(before, instruction):
            kind += "_after_ldr"
        # Arm's manual: an IT behind an instruction of two bytes may be folded into it.
        if kind == "it" and before is not None and before.size == 2:
            yield "it_folded"
        yield kind
        before = instruction


def _class_of(instruction: capstone.CsInsn) -> str:
    name = instruction.insn_name()
    operands = instruction.operands
    if name in _MULTIPLE:
        registers = len(operands) - (name not in {"push", "pop", "vpush", "vpop"})
        return f"{_MULTIPLE[name]}_{registers}" + ("_pc" if _writes_pc(instruction) else "")
    if name in _LOADS:
        return "ldr_pc" if _writes_pc(instruction) else name
    if name in _STORES:
        return "str_reg" if any(operand.mem.index for operand in operands if _in_memory(operand)) else "str_imm"
    if name in {"b", "cbz", "cbnz"}:
        always = name == "b" and instruction.cc == arm_const.ARM_CC_AL
        return "branch_taken" if always else "branch"
    kind = _CLASS_OF.get(name, name if name.startswith("v") else None)
    if kind is not None:
        return kind
    shifted = any(operand.shift.type for operand in operands if operand.type == arm_const.ARM_OP_REG)
    return "shift_alu" if shifted else "alu"


def _count_jumps(counts: Counter[str], block: ExecutedBlock, instructions: list[capstone.CsInsn]) -> None:
    """Tell the branch at the block's end that was taken from the one that wasn't."""
    branches = counts.pop("branch", 0)
    if branches:
        taken = min(block.left, branches)
        counts["branch_taken"] += taken
        counts["branch_not_taken"] += branches - taken
    if instructions[0].size == 4 and block.address % 4 == 2:
        counts["taken_to_unaligned_wide"] += block.entered


def _in_memory(operand: capstone.arm.ArmOp) -> bool:
    return bool(operand.type == arm_const.ARM_OP_MEM)


def _writes_pc(instruction: capstone.CsInsn) -> bool:
    return any(
        operand.type == arm_const.ARM_OP_REG
        and operand.reg == arm_const.ARM_REG_PC
        and operand.access & capstone.CS_AC_WRITE
        for operand in instruction.operands
    )


def _feeds(load: capstone.CsInsn, behind: capstone.CsInsn) -> bool:
    """Return whether a load's result is part of the next one's address."""
    result = load.operands[0].reg
    return any(result in (operand.mem.base, operand.mem.index) for operand in behind.operands if _in_memory(operand))
